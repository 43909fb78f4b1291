"""scenarios/privacy/free_riders.toml, held to what its comments claim."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.records import read_record
from fcfn_abm.report.summary import summary
from fcfn_abm.runs.free_riders import compute_utility_per_round
from fcfn_abm.runs.run import run_scenario

pytestmark = pytest.mark.slow

FILE = "scenarios/privacy/free_riders.toml"
ROUNDS, BUDGET, N_NODES, FACTOR = 20, 8.0, 20, 1.5


@pytest.fixture(scope="module")
def checked():
    return run_scenario(build.load_scenario(FILE))


def facts(record):
    return record.run["training"]["arms"][0]["free_riders"]


def test_honest_nodes_share_alike():
    market = fa.PrivacyMarket(build.load_scenario(FILE, ["population.misreport.share=0.0"]))
    assert market.run_until().kind == "converged"
    assert_allclose(market.columns.utility, BUDGET / N_NODES**2, rtol=1e-6)


def test_lying_pays_when_nobody_checks():
    loaded = build.load_scenario(FILE)
    unchecked = loaded.model_copy(
        update={"privacy": loaded.privacy.model_copy(update={"check": None})}
    )
    record = run_scenario(unchecked)
    assert record.run["verdict"]["kind"] == "converged"
    liars = record.nodes["misreport_factor"] == FACTOR
    assert liars.sum() == 2
    fair = BUDGET / N_NODES**2
    assert_allclose(record.nodes["utility"][liars], 48 * fair, rtol=0.01)
    assert_allclose(record.nodes["utility"][~liars], fair / 8, rtol=0.06)
    share = record.nodes["epsilon"][liars].sum() / record.nodes["epsilon"].sum()
    assert_allclose(share, 0.69, atol=0.005)
    assert "flagged_round" not in record.nodes
    for group in facts(record).values():
        assert group["utility"] == pytest.approx(group["utility_unchecked"])
        assert group["n_flagged"] == 0
    assert "The check" not in summary(record)


def test_the_check_stops_it(checked):
    nodes, found = checked.nodes, facts(checked)
    liars = nodes["misreport_factor"] == FACTOR
    assert (nodes["flagged_round"][liars] == 1).all()
    assert nodes["flagged_round"][~liars].isna().all()
    # one round's privacy, unpaid, in twenty
    loss = nodes["true_rho"] * nodes["epsilon"] / FACTOR / ROUNDS
    assert_allclose(found["misreporting"]["utility"], -loss[liars].mean(), rtol=1e-9)
    assert found["misreporting"]["utility_unchecked"] == pytest.approx(0.951, rel=1e-3)
    assert found["misreporting"]["utility_if_all_were_honest"] == pytest.approx(0.02)
    assert found["honest"]["utility"] == pytest.approx(found["honest"]["utility_unchecked"])
    assert checked.training["n_nodes"].tolist() == [0] + [18] * ROUNDS
    text = summary(checked)
    assert "flagged\n2 of 2 nodes that misreport (in round 1), and 0 of 18 truthful ones." in text


def test_the_record_comes_back_with_what_was_asked_for(checked, tmp_path):
    run_scenario(checked.scenario, tmp_path / "record")
    back = read_record(tmp_path / "record").nodes
    for name in ("rho", "true_rho", "misreport_factor"):
        assert_allclose(back[name], checked.nodes[name])
    assert back["flagged_round"].isna().sum() == 18
    assert_allclose(back["true_rho"], back["rho"] * back["misreport_factor"])


@pytest.mark.parametrize("trains", [True, False])
def test_without_the_tables_a_record_has_none_of_it(trains):
    small = build.load_scenario(
        "scenarios/quickstart.toml",
        [f"training.enabled={str(trains).lower()}", "training.rounds=1", "training.compare=[]"],
    )
    assert small.privacy.check is None
    record = run_scenario(small)
    assert not {"true_rho", "misreport_factor", "flagged_round"} & set(record.nodes)
    assert "Free riders" not in summary(record)
    if trains:
        assert "free_riders" not in record.run["training"]["arms"][0]


def test_a_flagged_node_is_not_paid_for_the_round_in_which_it_is_caught():
    # paid 5, gave 2: flagged in round 3 of 4 it had two whole rounds, and gave once more
    utility, cost = np.array([3.0, 3.0]), np.array([2.0, 2.0])
    assert_allclose(
        compute_utility_per_round(utility, cost, np.array([3, 0]), 4), [(2 * 3 - 2) / 4, 3.0]
    )
