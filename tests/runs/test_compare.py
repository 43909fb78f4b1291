import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from scipy import stats

import fcfn_abm as fa
from fcfn_abm.build import draw_population
from fcfn_abm.errors import (
    InvalidRecordError,
    InvalidScenarioError,
    OutputError,
    UnknownNameError,
)
from fcfn_abm.mechanisms import MECHANISMS
from fcfn_abm.records.tables import OTHER_TABLES
from fcfn_abm.report.compare import averages, comparison_text
from fcfn_abm.report.figures import comparison
from fcfn_abm.rng import stream
from fcfn_abm.scenario import Scenario

pytestmark = pytest.mark.slow

UNSOLVED = {"kind": "yang", "variant": "printed", "epsilon_exponent": "literal"}
LOGNORMAL = {"kind": "lognormal", "median": 0.01, "sigma": 0.3}


def scenario(n_nodes=30, rho=LOGNORMAL, seed=5, game=None, **sections):
    return Scenario.model_validate(
        {
            "seed": seed,
            "population": {"n_nodes": n_nodes, "rho": rho},
            "game": {"alpha": 10.0, "beta": 10.0, **(game or {})},
            **sections,
        }
    )


@pytest.fixture(scope="module")
def found():
    """Every mechanism, on six populations."""
    return fa.compare_mechanisms(scenario(), replications=6)


def row(found, mechanism, replication=0):
    frame = found.frame
    return frame[(frame["mechanism"] == mechanism) & (frame["replication"] == replication)].iloc[0]


@pytest.mark.parametrize("n_nodes", [10, 50, 100])
def test_equal_nodes_earn_what_follows_by_hand(n_nodes):
    same = {"kind": "constant", "value": 0.001}
    found = fa.compare_mechanisms(
        scenario(n_nodes, same, game={"budget": 1.0}), ["stackelberg", "ic-mle", "static"], 2
    )
    ours, menu, static = (row(found, name) for name in ("stackelberg", "ic-mle", "static"))
    assert ours["mean_node_utility"] == pytest.approx(1 / n_nodes**2, rel=1e-9)
    assert ours["mean_epsilon"] == pytest.approx((n_nodes - 1) / n_nodes**2 / 0.001, rel=1e-9)
    assert ours["rent_dissipation"] == pytest.approx((n_nodes - 1) / n_nodes, rel=1e-9)
    assert menu["mean_node_utility"] == pytest.approx(0, abs=1e-12)
    assert menu["mean_epsilon"] == pytest.approx(1 / (n_nodes * 0.001), rel=1e-9)
    assert menu["n_losing"] == 0  # a rent of zero is no loss
    by_hand = {10: 0.09, 50: 0.01, 100: 0.0}[n_nodes]
    assert static["mean_node_utility"] == pytest.approx(by_hand, abs=1e-12)
    assert static["n_losing"] == 0
    assert static["welfare"] == pytest.approx(10 * np.log(101) - n_nodes * 0.01, rel=1e-12)
    assert (found.frame["participation"] == 1).all()
    assert averages(found.frame)["stackelberg", "welfare"].half_width == 0  # nothing varies


def test_the_first_population_is_the_scenario_s_own(found):
    own = scenario()
    rho = draw_population(own).rho
    best = fa.stackelberg_equilibrium(rho, 10.0, 10.0)
    law = {"kind": own.population.rho.kind, **own.population.rho.options}
    for name in MECHANISMS:
        outcome = fa.price(
            name,
            rho,
            alpha=10.0,
            beta=10.0,
            budget=best.budget,
            rng=stream(own.seed, "mechanism", name),
            **({"distribution": law} if name == "myerson-cap" else {}),
        )
        first = row(found, name)
        assert first["seed"] == own.seed
        assert first["budget"] == best.budget
        assert first["mean_node_utility"] == outcome.node_utility.mean()
        assert first["node_utility"] == outcome.node_utility.sum()
        assert first["server_utility"] == outcome.server_utility
        assert first["server_payment"] == outcome.server_payment
        assert first["n_active"] == outcome.n_active
        assert first["mean_epsilon"] == outcome.mean_epsilon
        sold = outcome.epsilon[outcome.active]
        noise = np.mean([fa.gaussian_sigma(epsilon, 1e-5) for epsilon in sold])
        assert first["noise_multiplier"] == pytest.approx(noise, rel=1e-12)
    alone = fa.compare_mechanisms(own, replications=1)
    pd.testing.assert_frame_equal(alone.frame, found.frame[found.frame["replication"] == 0])


def test_sums_add_up(found):
    frame = found.frame
    utilities = frame["node_utility"] + frame["server_utility"] + frame["agency_utility"]
    assert_allclose(frame["welfare"], utilities, rtol=1e-12)
    assert_allclose(frame["mean_node_utility"] * 30, frame["node_utility"], rtol=1e-12)
    assert_allclose(frame["price_of_anarchy"] * frame["welfare"], frame["optimum"], rtol=1e-12)
    # welfare is value less privacy cost, and a share of what nodes are paid is that cost
    free = frame["mechanism"] == "pooled-weights"  # which pays nothing
    assert np.isinf(frame.loc[free, "rent_dissipation"]).all()
    frame = frame[~free]
    paid = frame["server_payment"] - frame["agency_utility"]
    value = 10.0 * np.log1p(10.0 * frame["mean_epsilon"])
    assert_allclose(frame["welfare"], value - frame["rent_dissipation"] * paid, rtol=1e-12)
    capped = frame["mechanism"] != "myerson-cap"
    assert (frame["server_payment"] <= frame["budget"] * (1 + 1e-12))[capped].all()


def test_every_population_is_another_one_and_the_same_for_all(found):
    budgets = found.frame.groupby("replication")["budget"].nunique()
    assert (budgets == 1).all()
    assert found.frame.drop_duplicates("replication")["budget"].nunique() == 6
    assert found.frame.drop_duplicates("replication")["seed"].nunique() == 6
    longer = fa.compare_mechanisms(scenario(), replications=7).frame
    pd.testing.assert_frame_equal(longer.head(len(found.frame)), found.frame)


def test_the_order_of_the_mechanisms_changes_no_number(found):
    backwards = fa.compare_mechanisms(scenario(), reversed(list(MECHANISMS)), replications=6)
    order = ["replication", "mechanism"]
    pd.testing.assert_frame_equal(
        backwards.frame.sort_values(order, ignore_index=True),
        found.frame.sort_values(order, ignore_index=True),
    )
    assert backwards.run["mechanisms"] == list(reversed(list(MECHANISMS)))
    assert found.run["mechanisms"][0] == "stackelberg"


def test_intervals_are_student_s(found):
    for (name, quantity), average in averages(found.frame).items():
        values = found.frame.loc[found.frame["mechanism"] == name, quantity]
        if values.isna().any() or values.min() == values.max():
            continue
        low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        assert average.mean == pytest.approx(values.mean(), rel=1e-12)
        assert (average.low, average.high) == pytest.approx((low, high), rel=1e-9)
        written = found.run["statistics"][name][quantity]
        assert (written["low"], written["high"]) == (average.low, average.high)


def test_a_given_cap_binds_everybody_and_the_scenario_s_own_options_hold():
    given = scenario(
        game={"budget": 0.5, "average_over": "population"},
        mechanism={"kind": "static", "epsilon": 3},
    )
    found = fa.compare_mechanisms(given, replications=2)
    assert (found.frame["budget"] == 0.5).all()
    capped = found.frame["mechanism"] != "myerson-cap"  # which spends what pays
    assert (found.frame["server_payment"] <= 0.5 + 1e-12)[capped].all()
    assert set(found.frame["average_over"]) == {"population"}
    assert row(found, "static")["mean_epsilon"] == 3.0
    assert row(found, "random")["mean_epsilon"] > 10  # U[1, 100], its default
    ours = fa.nash_equilibrium(draw_population(given).rho, 0.5)
    assert row(found, "stackelberg")["mean_epsilon"] == pytest.approx(ours.total_epsilon / 30)
    text = comparison_text(found.frame, found.run).plain
    assert "game.budget, 0.5" in text
    assert "over all nodes" in text


def test_without_trade_there_are_zeros_and_the_table_says_so():
    poor = fa.compare_mechanisms(
        scenario(game={"beta": 1e-4}), ["stackelberg", "ic-mle", "static"], replications=3
    )
    ours, static = row(poor, "stackelberg"), row(poor, "static")
    assert ours["status"] == "no-trade"
    assert (ours["budget"], ours["welfare"], ours["mean_epsilon"], ours["participation"]) == (
        0,
    ) * 4
    assert np.isnan(ours["noise_multiplier"])
    assert static["n_losing"] == 30  # who must sell whatever it costs
    assert static["welfare"] < 0 == static["optimum"]
    assert np.isinf(static["price_of_anarchy"])
    text = comparison_text(poor.frame, poor.run).plain
    assert "stackelberg: no trade in 3 of 3." in text
    assert "ic-mle: no trade in 3 of 3. A menu of contracts has no money to share out." in text
    assert isinstance(comparison(poor.frame), Figure)


def test_without_a_solution_there_are_no_numbers():
    printed = scenario(mechanism=UNSOLVED)
    found = fa.compare_mechanisms(printed, ["yang", "stackelberg"], replications=2)
    yang = row(found, "yang")
    assert yang["status"] == "no-solution"
    assert yang[["welfare", "mean_epsilon", "participation", "gini"]].isna().all()
    assert found.run["status"]["yang"] == {"no-solution": 2}
    assert found.run["statistics"]["yang"]["welfare"]["n"] == 0
    assert "yang: no solution in 2 of 2." in comparison_text(found.frame, found.run)
    assert isinstance(comparison(found.frame), Figure)


def test_an_infinite_price_of_anarchy_leaves_the_median():
    found = fa.compare_mechanisms(scenario(), ["random"], replications=5)
    frame = found.frame.copy()
    frame["price_of_anarchy"] = [2.0, np.inf, 4.0, np.inf, 3.0]
    average = averages(frame)["random", "price_of_anarchy"]
    assert (average.mean, average.median, average.n, average.n_infinite) == (np.inf, 4.0, 5, 2)
    assert np.isnan(average.half_width)
    text = comparison_text(frame, found.run).plain
    assert "infinite in 2/5" in text
    assert "the median is 4" in " ".join(text.split())
    assert isinstance(comparison(frame), Figure)


def test_a_folder_holds_everything_with_units_and_twice_the_same_bytes(tmp_path):
    written = fa.compare_mechanisms(scenario(), replications=2, out=tmp_path / "one")
    fa.compare_mechanisms(scenario(), replications=2, out=tmp_path / "two")
    for name in ("comparison.parquet", "scenario.toml", "figures/comparison.png"):
        one = (tmp_path / "one" / name).read_bytes()
        assert one == (tmp_path / "two" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [
        "SHA256SUMS",
        "comparison.parquet",
        "figures",
        "run.json",
        "scenario.toml",
    ]
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "one" / "comparison.parquet"), written.frame
    )
    schema = pq.read_schema(tmp_path / "one" / "comparison.parquet")
    assert schema.names == [c.name for c in OTHER_TABLES["comparison"]]
    assert schema.field("welfare").metadata[b"unit"] == b"currency"
    assert all(schema.field(name).metadata[b"description"] for name in schema.names)
    assert json.loads((tmp_path / "one" / "run.json").read_text()) == written.run
    assert written.run["kind"] == "comparison"
    assert fa.load_scenario(tmp_path / "one" / "scenario.toml") == written.scenario
    assert written.path == tmp_path / "one"


def test_a_comparison_is_known_for_what_it_is(tmp_path):
    fa.compare_mechanisms(scenario(), ["static"], 1, tmp_path / "one")
    with pytest.raises(OutputError, match="already contains results"):
        fa.compare_mechanisms(scenario(), ["static"], 1, tmp_path / "one")
    fa.compare_mechanisms(scenario(), ["random"], 1, tmp_path / "one", overwrite=True)
    with pytest.raises(InvalidRecordError, match="it is a comparison, not a run"):
        fa.read_record(tmp_path / "one")
    assert [p.name for p in tmp_path.iterdir()] == ["one"]


def test_mistakes_are_named_before_any_work(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'static'"):
        fa.compare_mechanisms(scenario(), ["statc"], out=tmp_path / "one")
    with pytest.raises(
        InvalidScenarioError, match="replications must be a whole number from 1 to 10,000, but is 0"
    ):
        fa.compare_mechanisms(scenario(), replications=0, out=tmp_path / "one")
    with pytest.raises(
        InvalidScenarioError,
        match="replications must be a whole number from 1 to 10,000, but is 10",
    ):
        fa.compare_mechanisms(scenario(), replications=10**17, out=tmp_path / "one")
    with pytest.raises(InvalidScenarioError, match="mechanisms must contain at least one name"):
        fa.compare_mechanisms(scenario(), [])
    assert list(tmp_path.iterdir()) == []


def test_claims_are_those_of_the_scenario_s_own_options():
    printed = scenario(mechanism={"kind": "ic-mle", "constraint": "printed"})
    found = fa.compare_mechanisms(printed, ["ic-mle", "yang"], replications=1)
    claims = found.run["claims"]
    assert list(claims) == ["ic-mle", "yang"]
    assert claims["ic-mle"]["incentive_compatible"] == []
    lines = comparison_text(found.frame, found.run).plain.splitlines()
    table = lines[lines.index("Claims under a given cap") :]
    heads = ("within cap", "rational for", "compatible in", "monotone", "anonymous", "scale-free")
    assert " ".join(table[1].split()) == " ".join(heads)
    assert table[2].split() == ["ic-mle", "yes", "nodes", "-", "yes", "yes", "yes"]
    assert table[3].split() == [
        *("yang", "yes", "nodes,", "server,", "agency"),
        *("epsilon", "-", "yes", "yes"),
    ]


def test_text_and_figure_need_no_interval_and_know_every_mechanism(found):
    alone = fa.compare_mechanisms(scenario(), ["static", "random", "static"], replications=1)
    assert list(alone.frame["mechanism"]) == ["static", "random"]
    text = comparison_text(alone.frame, alone.run).plain
    assert "One population of 30 nodes" in text
    assert "±" not in text
    figure = comparison(found.frame)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == found.run["mechanisms"]
    text = comparison_text(found.frame, found.run).plain
    for name in MECHANISMS:
        assert text.count(f"\n  {name} ") == 3  # utilities, privacy, claims
    assert "6 populations of 30 nodes" in text
    assert "over the active nodes" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_population_has_the_same_row_however_many_are_priced_together(found, monkeypatch):
    monkeypatch.setattr("fcfn_abm.runs.compare._BLOCK", 70)  # two of 30 nodes
    pd.testing.assert_frame_equal(
        fa.compare_mechanisms(scenario(), replications=6).frame, found.frame, check_exact=True
    )
