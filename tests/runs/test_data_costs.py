"""Costs that follow the data, and scenarios/heterogeneity/data_costs.toml as it claims."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import spearmanr

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.errors import InvalidGameError, InvalidScenarioError
from fcfn_abm.runs.run import run_scenario

pytestmark = pytest.mark.slow

FILE = "scenarios/heterogeneity/data_costs.toml"
EQUAL = "population.rho.coupling=0.0"


@pytest.fixture(scope="module")
def record():
    return run_scenario(build.load_scenario(FILE))


@pytest.fixture(scope="module")
def equal():
    return run_scenario(build.load_scenario(FILE, [EQUAL]))


def test_costs_follow_the_very_data_that_nodes_train_on(record):
    nodes = record.nodes
    assert_allclose(nodes["rho"], 0.01 * (1 + 2 * nodes["label_divergence"]), rtol=1e-12)
    assert nodes["label_divergence"].max() - nodes["label_divergence"].min() > 0.3


def test_the_divergence_is_that_of_the_labels_dealt(record):
    data, shards = build.dealt_data(record.scenario)
    assert sorted(np.concatenate(shards)) == list(range(data.train_labels.size))
    labels = range(len(data.class_names))
    overall = [np.mean(data.train_labels == c) for c in labels]
    for node in (0, 17, 39):
        own = [np.mean(data.train_labels[shards[node]] == c) for c in labels]
        more = sum(max(a - b, 0.0) for a, b in zip(own, overall, strict=True))
        assert record.nodes["label_divergence"][node] == pytest.approx(more, rel=1e-12)


def test_the_contest_keeps_the_most_ordinary_nodes(record):
    nodes = record.nodes
    stay = nodes[nodes["active"]]
    assert record.run["verdict"]["kind"] == "converged"
    assert len(stay) == 13
    assert stay["label_divergence"].max() < nodes["label_divergence"][~nodes["active"]].min()
    assert spearmanr(stay["label_divergence"], stay["epsilon"]).statistic == pytest.approx(-1)


def test_the_server_thinks_it_gains_and_the_net_is_worse(record, equal):
    assert equal.nodes["active"].all()
    ours, theirs = (r.run["training"]["arms"][0] for r in (record, equal))
    assert ours["server_utility"] > theirs["server_utility"] + 1
    assert ours["accuracy"] < theirs["accuracy"] - 0.05


def test_without_coupling_all_cost_the_same(equal):
    assert (equal.nodes["rho"] == 0.01).all()


def test_costs_do_not_need_the_net_to_be_trained_nor_torch():
    untrained = build.load_scenario(FILE, ["training.enabled=false"])
    assert_allclose(build.population(untrained), build.population(build.load_scenario(FILE)))
    code = (
        "import sys; from fcfn_abm.cli import main\n"
        f"sys.argv = ['fcfn', 'equilibrium', {FILE!r}]\n"
        "try: main()\n"
        "except SystemExit: print('torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "False True"


def test_other_laws_do_not_load_the_data(monkeypatch):
    monkeypatch.setattr(build.parts, "dealt_data", lambda _: pytest.fail("the data was loaded"))
    build.population(build.load_scenario(FILE, ["population.rho.kind=lognormal"]))
    with pytest.raises(pytest.fail.Exception):
        build.population(build.load_scenario(FILE))


def test_another_seed_deals_other_data():
    one, other = (build.population(build.load_scenario(FILE, [f"seed={s}"])) for s in (3, 4))
    assert (one != other).any()


def test_liars_pay_less_for_a_unit_of_report():
    honest = build.population(build.load_scenario(FILE))
    lying = build.load_scenario(FILE, ["population.misreport.share=0.5"])
    assert sorted(set((honest / build.population(lying)).round(9))) == [1.0, 1.5]


def test_the_law_needs_a_training_table(tmp_path):
    path = tmp_path / "bare.toml"
    path.write_text('[population]\nrho = "divergence"\n', encoding="utf-8")
    with pytest.raises(InvalidScenarioError, match=r"\[population.rho\] kind: .*\[training\]"):
        build.load_scenario(path)


def test_a_market_alone_says_what_it_lacks():
    scenario = build.load_scenario(FILE)
    with pytest.raises(InvalidGameError, match="use run_scenario, or pass rho"):
        fa.PrivacyMarket(scenario)
    market = fa.PrivacyMarket(scenario, rho=build.population(scenario))
    assert_allclose(market.columns.rho, build.market(scenario).columns.rho, rtol=0)
