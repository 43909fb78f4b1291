"""Every row of a record counts nodes at one moment, and the counts sum."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fcfn_abm as fa
from fcfn_abm.viz.charts import describe_participation
from fcfn_abm.viz.live import LiveMarket

SETTINGS = {
    "reentry": [],
    "final exits": ["exit.reentry=false"],
    "exits on loss": ["exit.criterion='loss'", "exit.patience=1"],
    "final exits on loss": ["exit.criterion='loss'", "exit.patience=1", "exit.reentry=false"],
    "few move": ["rounds.participation=0.2"],
    "all at once": ["rounds.order='simultaneous'", "learning.gain=0.3"],
    "noise": ["information.noise=0.3", "exit.patience=1"],
    "after reports": ["rounds.payment='after-reports'"],
    "gradient": ["learning.kind='gradient'", "exit.patience=1"],
    "many": ["population.n_nodes=600", "exit.patience=1"],
    "churn": [
        "population.churn.arrivals=0.3",
        "population.churn.departures=0.1",
        "population.churn.drift=0.05",
        "exit.patience=1",
    ],
    "contracts": ["mechanism.kind='random'"],
}


def scenario(name, *others):
    short = ["rounds.maximum=40", "rounds.tolerance=1e-12", "training.enabled=false", *others]
    return fa.load_scenario("quickstart", [*short, *SETTINGS[name]])


@pytest.mark.parametrize("name", SETTINGS)
def test_in_every_row_the_counts_sum_to_the_nodes_that_are_there(name):
    record = fa.run_scenario(scenario(name))
    rounds = record.rounds
    there = rounds.get("n_present", record.scenario.population.n_nodes)
    counts = rounds[["n_active", "n_inactive", "n_exited"]]
    assert (counts.sum(axis=1) == there).all()
    assert (counts >= 0).all(axis=None)
    if name not in ("contracts", "after reports"):
        assert counts["n_exited"].max() > 0  # or nothing would be shown


@pytest.mark.parametrize("name", SETTINGS)
def test_a_node_is_counted_once_and_as_what_it_was_while_reports_stood(name):
    market = fa.PrivacyMarket(scenario(name))
    gone_before = np.zeros(market.columns.rho.size, dtype=bool)
    while market.running:
        market.step()
        columns, state = market.columns, market.state
        back_or_gone_for_good = ~columns.exited
        out = gone_before & ~back_or_gone_for_good
        assert state.n_exited == out.sum()
        assert not columns.epsilon[out].any()
        assert state.n_active == (columns.epsilon[~out] > 0).sum()
        gone_before = columns.exited.copy()


def test_nodes_that_leave_at_the_end_of_round_three_are_exited_from_round_four_on():
    rounds = fa.run_scenario(scenario("reentry")).rounds.set_index("round")
    counts = rounds[["n_active", "n_inactive", "n_exited"]]
    assert counts.loc[3].tolist() == [50, 0, 0]
    assert counts.loc[4, "n_exited"] > 0


def test_the_window_counts_as_the_record_does():
    live = LiveMarket(scenario("reentry"))
    for _ in range(4):
        live.step()
        frame = live.frame()
        counts = {name: frame.history[name][-1] for name in ("n_active", "n_inactive", "n_exited")}
        assert_array_equal(frame.exited.sum(), counts["n_exited"])
        assert not frame.epsilon[frame.exited].any()
        n_active, n_inactive, n_exited = counts.values()
        assert describe_participation(frame).alt.startswith(
            f"Round {frame.round}: {n_active} active, {n_inactive} inactive, {n_exited} exited."
        )
