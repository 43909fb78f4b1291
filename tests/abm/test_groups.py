"""Groups of nodes: what differs, what stays, and what they come to."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.game import nash_equilibrium
from fcfn_abm.scenario import Scenario, to_toml, tree_to_scenario


def scenario(*groups, **tables):
    people = {"n_nodes": 20, **tables.pop("population", {}), "groups": list(groups)}
    return build.resolve_defaults(Scenario.model_validate({"population": people, **tables}))


def sizes(n_nodes, *groups):
    found = [{"name": f"g{index}", **group} for index, group in enumerate(groups)]
    return scenario(*found, population={"n_nodes": n_nodes}).population.group_sizes


@pytest.mark.parametrize(
    ("n_nodes", "groups", "expected"),
    [
        (10, [{"share": 0.25}, {}], [2, 8]),
        (10, [{"share": 1 / 3}, {"share": 1 / 3}, {"share": 1 / 3}], [3, 4, 3]),
        (10, [{"n_nodes": 3}, {"share": 0.7}], [3, 7]),
        (10, [{"n_nodes": 3}, {}, {"share": 0.2}], [3, 5, 2]),
        (10, [{"share": 0.0}, {}], [0, 10]),
        (7, [{"share": 0.5}, {"share": 0.5}], [4, 3]),
    ],
)
def test_sizes_follow_shares_and_numbers_and_fill_the_population(n_nodes, groups, expected):
    assert sizes(n_nodes, *groups) == expected


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"name": "a", "share": 0.5}], "groups must hold population.n_nodes = 20"),
        ([{"name": "a", "n_nodes": 21}], "groups must hold population.n_nodes = 20"),
        ([{"name": "a"}, {"name": "b"}], "only one group may omit both share and n_nodes"),
        ([{"name": "a", "share": 0.5}, {"name": "a"}], "'a' is used twice"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, message):
    with pytest.raises(InvalidScenarioError, match=rf"\[population\] groups.*{message}"):
        build.check_settings(scenario(*groups))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"name": "a", "share": 0.5, "n_nodes": 3}, "a share or n_nodes, not both"),
        ({"name": "a b"}, r"\[population.groups.0\] name"),
        ({"name": "a", "shar": 0.5}, r"\[population.groups.0\] shar: .*'share'"),
        ({"name": "a", "learning": "replicatr"}, r"\[population.groups.0.learning\].*replicator"),
        ({"name": "a", "rho": {"kind": "uniform", "low": -1.0}}, "low"),
        ({"name": "a", "misreport": {"share": 2.0}}, r"\[population.groups.0.misreport\] share"),
    ],
)
def test_a_wrong_key_of_a_group_is_named(group, message):
    with pytest.raises(InvalidScenarioError, match=message):
        build.check_scenario(tree_to_scenario({"population": {"groups": [group]}}, "file"))


def test_an_estimating_group_needs_public_reports():
    group = {"name": "a", "learning": "estimate"}
    with pytest.raises(InvalidScenarioError, match=r"\[population.groups.0.learning\] kind"):
        build.check_settings(scenario(group, information={"reports": "aggregate"}))


def test_without_differences_groups_change_nothing():
    plain = build.resolve_defaults(Scenario(seed=3))
    parts = [{"name": "few", "share": 0.2}, {"name": "many"}]
    grouped = scenario(*parts, population={"n_nodes": 50}, seed=3)
    one, two = fa.run_scenario(plain), fa.run_scenario(grouped)
    pd.testing.assert_frame_equal(one.rounds, two.rounds)
    pd.testing.assert_frame_equal(one.nodes, two.nodes.drop(columns="group"))
    pd.testing.assert_frame_equal(one.traces, two.traces)


def test_costs_and_misreports_differ_by_group_alone():
    base = {"n_nodes": 40, "rho": {"kind": "uniform"}, "misreport": {"share": 0.5, "factor": 2.0}}
    cheap = {"name": "cheap", "n_nodes": 10, "rho": {"kind": "constant", "value": 0.01}}
    honest = {"name": "honest", "n_nodes": 10, "misreport": {"share": 0.0}}
    population = build.draw_population(
        scenario(cheap, honest, {"name": "rest"}, population=base, seed=1)
    )
    assert_array_equal(population.true_rho[:10], 0.01)
    assert population.true_rho[10:].max() <= 0.0015
    assert_array_equal(population.misreport_factor[10:20], 1.0)
    others = np.r_[population.misreport_factor[:10], population.misreport_factor[20:]]
    assert np.count_nonzero(others == 2.0) == 15
    assert list(population.group[[0, 9, 10, 39]]) == ["cheap", "cheap", "honest", "rest"]


def test_costs_of_a_group_do_not_depend_on_the_other_groups():
    own = {"name": "own", "n_nodes": 5, "rho": {"kind": "lognormal"}}
    first = build.draw_population(scenario(own, {"name": "rest"}))
    last = build.draw_population(scenario({"name": "rest"}, own))
    assert_array_equal(first.rho[:5], last.rho[-5:])


def test_two_groups_of_one_rule_with_other_options_each_play_their_own():
    # two nodes at once, from known reports: a gain of g goes the fraction g of the way
    rho = np.array([1.0, 1.0])
    gains = [0.1, 1.0]
    groups = [
        {
            "name": f"g{index}",
            "n_nodes": 1,
            "learning": {"kind": "best-response", "gain": gain, "cautious": False},
        }
        for index, gain in enumerate(gains)
    ]
    tree = {"game": {"budget": 4.0}, "server": "fixed", "rounds": {"order": "simultaneous"}}
    market = fa.PrivacyMarket(scenario(*groups, population={"n_nodes": 2}, **tree), rho=rho)
    before = market.columns.epsilon.copy()
    best = np.maximum(np.sqrt(4.0 * before[::-1]) - before[::-1], 0)
    market.step()
    assert_allclose(market.columns.epsilon, before + gains * (best - before))


def test_starts_and_patience_differ_by_group():
    groups = [
        {"name": "cold", "n_nodes": 5, "start": "cold"},
        {"name": "warm", "n_nodes": 5, "start": "warm"},
        {"name": "quick", "exit": {"patience": 1}},
    ]
    made = scenario(*groups, population={"rho": {"kind": "pareto", "exponent": 0.5}}, seed=2)
    market = fa.PrivacyMarket(made)
    assert_array_equal(market.columns.epsilon[:5], made.game.epsilon_floor)
    form = nash_equilibrium(market.columns.rho, market.pool)
    assert_allclose(market.columns.epsilon[5:10], form.epsilon[5:10])
    market.step()
    left = market.columns.exit_round >= 0
    assert left[10:].any()
    assert not left[:10].any()  # their patience is three rounds


@pytest.mark.parametrize("order", ["in_turn", "simultaneous"])
def test_groups_of_nash_rules_meet_at_the_equilibrium(order):
    groups = [
        {"name": "best", "share": 0.4, "learning": {"kind": "best-response", "gain": "auto"}},
        {"name": "slope", "share": 0.3, "learning": {"kind": "gradient", "gain": "auto"}},
        {"name": "mean", "learning": "fictitious-play"},
    ]
    tree = {"game": {"budget": 3.0}, "server": "fixed", "rounds": {"order": order, "maximum": 3000}}
    market = fa.PrivacyMarket(scenario(*groups, **tree))
    market.run_until()
    form = nash_equilibrium(market.columns.rho, 3.0)
    assert_allclose(market.epsilon, form.epsilon, atol=0.01 * form.epsilon.max())


def test_outcomes_of_groups_sum_to_those_of_all(tmp_path):
    groups = [{"name": "a", "share": 0.3, "learning": "replicator"}, {"name": "b"}]
    record = fa.run_scenario(scenario(*groups, game={"budget": 2.0}), tmp_path / "record")
    found = pd.DataFrame(record.run["groups"])
    market = record.run["market"]
    for name in ("n_active", "total_epsilon", "payment", "node_utility"):
        assert found[name].sum() == pytest.approx(market[name]), name
    for name in ("n_active", "total_epsilon", "node_utility"):
        assert found[f"equilibrium_{name}"].sum() == pytest.approx(record.run["equilibrium"][name])
    read = fa.read_record(tmp_path / "record")
    assert list(read.nodes["group"]) == ["a"] * 6 + ["b"] * 14
    assert (
        json.loads((tmp_path / "record" / "run.json").read_text())["groups"] == record.run["groups"]
    )


def test_a_scenario_with_groups_is_written_and_read_back(tmp_path):
    made = scenario(
        {
            "name": "a",
            "share": 0.3,
            "learning": {"kind": "gradient", "gain": 0.2},
            "exit": {"patience": 2},
        },
        {"name": "b", "rho": {"kind": "pareto"}, "start": "cold", "misreport": {"share": 0.5}},
    )
    (tmp_path / "file.toml").write_text(to_toml(made))
    assert fa.load_scenario(tmp_path / "file.toml") == made


@pytest.mark.parametrize("part", ["0", "a"])
def test_overrides_and_axes_lead_to_a_group_by_number_and_by_name(tmp_path, part):
    file = tmp_path / "file.toml"
    file.write_text(
        "[[population.groups]]\nname = 'a'\nshare = 0.2\nlearning = 'replicator'\n"
        "[[population.groups]]\nname = 'b'\n"
    )
    path = f"population.groups.{part}"
    found = fa.load_scenario(file, [f"{path}.share=0.4", f"{path}.learning.gain=0.1"])
    assert found.population.group_sizes == [20, 30]
    assert found.population.groups[0].learning.options == {"gain": 0.1}
    rules = f"'{path}.learning' = ['fixed', 'gradient']"
    axes = f"sweep.axes={{'{path}.share' = [0.0, 0.5, 1.0], {rules}}}"
    swept = fa.run_sweep(fa.load_scenario(file, [axes, "rounds.maximum=5"]), tmp_path / "sweep")
    frame = swept.frame()
    assert list(frame[f"{path}.share"]) == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    assert list(frame["group.a.n_nodes"]) == [0, 0, 25, 25, 50, 50]
    total = frame["group.a.node_utility"] + frame["group.b.node_utility"]
    assert_allclose(total, frame["node_utility"])


@pytest.mark.parametrize("path", ["population.groups.2.share", "population.groups.c.share"])
def test_a_group_that_is_not_there_is_named(tmp_path, path):
    file = tmp_path / "file.toml"
    file.write_text("[[population.groups]]\nname = 'a'\n")
    with pytest.raises(InvalidScenarioError, match=r"no entry '.'.*use a name \(a\)"):
        fa.load_scenario(file, [f"{path}=0.4"])
    with pytest.raises(InvalidScenarioError, match=r"no entry '.'.*use a name \(a\)"):
        fa.load_scenario(file, [f"sweep.axes={{'{path}' = [0.1]}}"])


def test_newcomers_take_after_their_group():
    groups = [
        {"name": "cheap", "share": 0.5, "rho": {"kind": "uniform", "low": 1.0, "high": 2.0}},
        {"name": "costly", "rho": {"kind": "uniform", "low": 3.0, "high": 4.0}},
    ]
    made = scenario(*groups, population={"churn": {"departures": 0.3}})
    market = fa.PrivacyMarket(made)
    market.run_until(20)
    arrived = market.churn.arrival_round > 0
    assert arrived[:10].any()
    assert arrived[10:].any()
    rho = market.columns.rho
    assert ((rho[:10] <= 2.0) & (rho[10:] >= 3.0)).all()
    assert market.nodes[3].group_name == "cheap"
