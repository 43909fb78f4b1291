import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import fcfn_abm as fa
from fcfn_abm.abm import order
from fcfn_abm.abm.verdict import Judge
from fcfn_abm.build import check_scenario
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.learning import LEARNING_RULES, News
from fcfn_abm.runs.facts import tracking_facts
from fcfn_abm.scenario import Scenario

pytestmark = pytest.mark.slow

BUDGET = 3.0


def scenario(n_nodes=30, *, churn=None, seed=1, **tables):
    people = {"n_nodes": n_nodes, **({} if churn is None else {"churn": churn})}
    tree = {
        "seed": seed,
        "population": people,
        "game": {"budget": BUDGET},
        "server": {"kind": "fixed"},
        **tables,
    }
    return Scenario.model_validate(tree)


def market(*args, **kwargs):
    return PrivacyMarket(scenario(*args, **kwargs))


def rounds_of(made):
    return made.datacollector.get_model_vars_dataframe()


def test_who_is_there_is_who_was_there_and_came_and_did_not_go():
    made = market(churn={"arrivals": 0.3, "departures": 0.1})
    before = np.ones(30, dtype=bool)
    for _ in range(60):
        made.step()
        now, state = made.columns.present.copy(), made.state
        assert state.n_present == np.count_nonzero(now)
        assert state.n_arrived == np.count_nonzero(now & ~before)
        assert state.n_departed == np.count_nonzero(before & ~now)
        before = now
    frame = rounds_of(made)
    came, went = frame["n_arrived"], frame["n_departed"]
    assert_array_equal(frame["n_present"], 30 + (came - went).cumsum())
    assert came.sum() > 20
    assert went.sum() > 20


@settings(max_examples=40)
@given(
    seed=st.integers(0, 999),
    rule=st.sampled_from(sorted(LEARNING_RULES)),
    drift=st.sampled_from([0.0, 0.2]),
    many=st.sampled_from([0, 10**9]),
)
def test_each_round_is_held_against_the_closed_form_of_those_who_are_there(seed, rule, drift, many):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "MANY", many)
        churn = {"arrivals": 0.5, "departures": 0.2, "drift": drift}
        made = market(12, churn=churn, seed=seed, learning={"kind": rule})
        for _ in range(8):
            made.step()
            columns, state = made.columns, made.state
            here = columns.present
            form = fa.nash_equilibrium(columns.rho[here], BUDGET)
            if form.n_active == 0:
                continue
            off = np.abs(columns.epsilon[here] - form.epsilon).max() / form.epsilon.max()
            assert_allclose(state.distance, off, rtol=1e-9, atol=1e-12)
            assert_allclose(state.equilibrium_total_epsilon, form.total_epsilon)
            assert state.equilibrium_n_active == form.n_active
            leader = fa.stackelberg_equilibrium(columns.rho[here], 10.0, 10.0)
            assert_allclose(state.equilibrium_budget, leader.budget)


@pytest.mark.parametrize("rule", sorted(LEARNING_RULES))
@pytest.mark.parametrize("order_", ["in_turn", "simultaneous"])
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_a_place_that_is_empty_reports_nothing_and_is_paid_nothing(rule, order_, share):
    made = market(
        churn={"arrivals": 0.2, "departures": 0.2, "drift": 0.1},
        learning={"kind": rule},
        rounds={"order": order_, "participation": share},
    )
    for _ in range(25):
        made.step()
        columns = made.columns
        empty = ~columns.present
        for values in (columns.epsilon, columns.payment, columns.utility, columns.idle_rounds):
            assert not values[empty].any()
        assert not columns.exited[empty].any()
        if columns.epsilon.any():
            assert_allclose(columns.payment.sum(), BUDGET)
            assert_allclose(made.state.payment, BUDGET)
    assert empty.any()


@pytest.mark.parametrize("rule", sorted(LEARNING_RULES))
def test_a_newcomer_has_its_own_cost_and_none_of_the_memory_of_the_node_before_it(rule):
    made = market(
        churn={"departures": 0.2}, learning={"kind": rule}, exit={"reentry": False}, seed=3
    )
    for _ in range(15):
        made.step()
    before = {name: kept.copy() for name, kept in made.columns.memory.items()}
    costs = made.columns.rho.copy()
    made.step()
    places = np.flatnonzero(made.churn.arrival_round == made.round_index)
    assert places.size > 1
    assert (made.columns.rho[places] != costs[places]).all()
    assert not made.columns.exited[places].any()
    kept, others = made.columns.memory, np.setdiff1d(made.present, places)
    if rule == "fictitious-play":
        assert_array_equal(kept["n_seen"][places], 2.0)  # what stood, and its first round
        assert (before["n_seen"][places] > 2).any()
    elif rule == "estimate":
        assert (kept["n_heard"][places] <= 1).all()
    elif rule == "aggregate":
        assert_allclose(kept["guess"][places], kept["guess"][others[0]], rtol=1e-12)
        assert_allclose(kept["guess"][others], kept["guess"][others[0]], rtol=1e-12)
    elif rule == "best-response":
        made.churn._arrive(places, made.round_index)
        assert_array_equal(kept["caution"][places], 1.0)


@pytest.mark.parametrize("rule", ["best-response", "gradient", "estimate", "aggregate"])
@pytest.mark.parametrize("seed", range(3))
def test_once_all_stay_the_market_rests_at_the_closed_form_of_who_is_there(rule, seed):
    churn = {"arrivals": 0.5, "departures": 0.05, "until": 40}
    made = market(40, churn=churn, seed=seed, learning={"kind": rule})
    assert made.run_until().kind == "converged"
    assert made.round_index > 40
    assert not rounds_of(made).loc[40:, ["n_arrived", "n_departed"]].any(axis=None)
    here = made.columns.present
    form = fa.nash_equilibrium(made.columns.rho[here], BUDGET)
    assert np.count_nonzero(~here) > 0
    assert_allclose(made.columns.epsilon[here], form.epsilon, atol=1e-6 * form.epsilon.max())
    assert_allclose(made.outcome.epsilon, form.epsilon, rtol=1e-9)
    assert_allclose(made.equilibrium.tau, form.tau)


def test_the_last_round_of_churn_is_the_one_that_was_named():
    made = market(100, churn={"departures": 0.3, "until": 4}, rounds={"maximum": 8})
    made.run_until()
    changed = rounds_of(made)[["n_arrived", "n_departed"]].any(axis=1)
    assert changed.tolist() == [True] * 4 + [False] * 4


def test_a_guess_of_the_total_is_right_after_one_step_if_all_take_part():
    rho, guess = np.array([1.0, 1.1, 1.3]), 0.3  # per unit of the cap
    rule = LEARNING_RULES.create("aggregate", {})
    memory = {name: np.full(3, start) for name, start in rule.memory.items()}
    memory["guess"][:] = guess
    reports = BUDGET * guess * (1 - rho * guess)
    others = reports.sum() - reports
    moved = np.ones(3, dtype=bool)
    rule.learn(News(BUDGET, reports, others, None, moved, 0.0, memory, 3, changing=True))
    total = fa.nash_equilibrium(rho, BUDGET).total_epsilon
    assert_allclose(BUDGET * memory["guess"], total, rtol=1e-12)


def test_one_guess_of_all_stays_closer_to_a_moving_equilibrium_than_half_steps():
    behind = {}
    for rule in ("aggregate", "best-response"):
        made = market(50, churn={"departures": 0.02}, learning={"kind": rule})
        made.run_until(150)
        behind[rule] = rounds_of(made)["distance"].iloc[50:].mean()
    assert behind["aggregate"] < 0.03
    assert behind["aggregate"] < behind["best-response"] / 2


def test_costs_that_have_drifted_stay_as_they_are_afterwards():
    churn = {"drift": 0.1, "until": 30}
    made = market(40, churn=churn, learning={"kind": "aggregate"})
    first = made.columns.rho.copy()
    made.run_until(30)
    drifted = made.columns.rho.copy()
    assert (drifted != first).all()
    assert_array_equal(made.churn.first_rho, first)
    assert made.run_until().kind == "converged"
    assert_array_equal(made.columns.rho, drifted)
    assert made.state.distance < 1e-6


def test_the_cost_of_a_newcomer_drifts_from_where_it_began():
    churn = {"departures": 0.1, "drift": 0.05, "reversion": 0.0}
    made = market(200, churn=churn, learning={"kind": "fixed"})
    steps = []
    for _ in range(60):
        made.step()
        went_on = np.log(made.columns.rho / made.churn.first_rho)
        begun = made.columns.present & (made.churn.arrival_round == made.round_index)
        assert not went_on[begun].any()
        old = made.columns.present & (made.churn.arrival_round == made.round_index - 1)
        steps.append(went_on[old & (made.churn.arrival_round > 0)])
    steps = np.concatenate(steps)
    assert steps.size > 500
    assert_allclose(steps.std(), 0.05, rtol=0.1)


@pytest.mark.parametrize("maximum", [20, 60])
def test_a_market_that_may_still_change_has_never_converged(maximum):
    # nobody goes in these rounds, and the rule needs ten of them: only the table forbids the word
    churn = {"departures": 1e-9}
    made = market(churn=churn, learning={"kind": "aggregate"}, rounds={"maximum": maximum})
    verdict = made.run_until()
    frame = rounds_of(made)
    assert frame["n_departed"].sum() == 0
    assert frame["change"].iloc[-5:].max() <= 1e-9
    assert (verdict.kind, verdict.rounds) == ("max-rounds", maximum)
    assert "the population keeps changing" in verdict.reason


def test_the_verdict_tells_the_mean_distance_of_the_second_half():
    made = market(churn={"departures": 0.05}, rounds={"maximum": 80})
    reason = made.run_until().reason
    mean = rounds_of(made)["distance"].iloc[40:].mean()
    assert 0.01 < mean < 1
    assert f"at a mean distance of {mean:.2g} of the largest epsilon" in reason


def test_what_was_before_the_last_change_does_not_count():
    judge = Judge(1e-9, 3, 150)
    for round_index in range(1, 151):
        moving = round_index <= 100  # far off, and then much closer, but no closer from there on
        distance = 10.0 if moving else 1 + 0.1 * (-1) ** round_index
        verdict = judge.add_round(
            exploitability=1, change=1, budget_change=0, distance=distance, moving=moving
        )
    assert verdict.kind == "cycling"


def test_after_churn_a_market_is_judged_anew():
    made = market(
        40,
        churn={"departures": 0.1, "until": 50},
        learning={"kind": "best-response", "gain": 1.0},
        rounds={"order": "simultaneous", "maximum": 150},
        population={
            "n_nodes": 40,
            "rho": {"kind": "constant"},
            "churn": {"departures": 0.1, "until": 50},
        },
    )
    assert made.run_until().kind in {"cycling", "diverged"}


@pytest.mark.parametrize("rule", sorted(LEARNING_RULES))
@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("order_", ["in_turn", "simultaneous"])
def test_a_table_in_which_nothing_changes_changes_no_bit(rule, share, order_):
    tables = {
        "learning": {"kind": rule},
        "rounds": {"participation": share, "order": order_, "maximum": 25},
    }
    without, still = market(**tables), market(churn={"arrivals": 1.0}, **tables)
    assert without.run_until() == still.run_until()
    one, other = rounds_of(without), rounds_of(still)
    assert one.equals(other[one.columns])
    assert_array_equal(without.columns.epsilon, still.columns.epsilon)


def test_records_without_churn_have_the_columns_that_they_always_had(tmp_path):
    plain = fa.run_scenario(scenario(record={"traces": "none"}), tmp_path / "plain")
    churning = fa.run_scenario(
        scenario(churn={"departures": 0.02}, rounds={"maximum": 30}), tmp_path / "churn"
    )
    new = {
        "rounds": {
            *("n_present", "n_arrived", "n_departed", "equilibrium_budget"),
            *("equilibrium_n_active", "equilibrium_total_epsilon"),
        },
        "nodes": {"arrival_round", "first_rho"},
    }
    for name, added in new.items():
        old = pq.read_schema(tmp_path / "plain" / f"{name}.parquet").names
        assert not added & set(old)
        now = pq.read_schema(tmp_path / "churn" / f"{name}.parquet").names
        assert set(now) - set(old) == added
        assert [column for column in now if column not in added] == old
    assert "tracking" not in plain.run
    assert "churn" not in (tmp_path / "plain" / "scenario.toml").read_text()
    assert "tracking" in churning.run


@pytest.mark.parametrize("traces", ["sample", "all"])
def test_a_record_holds_who_is_there_and_equal_seeds_give_equal_files(tmp_path, traces):
    asked = scenario(
        churn={"arrivals": 0.5, "departures": 0.1, "drift": 0.02},
        rounds={"maximum": 40},
        record={"traces": traces, "sample_size": 8},
    )
    records = [fa.run_scenario(asked, tmp_path / name) for name in ("one", "two")]
    files = sorted(
        path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.parquet")
    )
    assert len(files) >= 5
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    read = fa.read_record(tmp_path / "one")
    nodes, last = read.nodes, read.rounds.iloc[-1]
    assert len(nodes) == last["n_present"] < 30
    assert nodes["node"].is_unique
    assert nodes["arrival_round"].between(0, 40).all()
    form = fa.nash_equilibrium(nodes["rho"], BUDGET)
    assert_allclose(nodes["equilibrium_epsilon"], form.epsilon, rtol=1e-9)
    assert read.run["equilibrium"]["n_active"] == form.n_active
    assert_allclose(read.run["equilibrium"]["total_epsilon"], last["equilibrium_total_epsilon"])
    late = read.rounds.iloc[20:]
    tracking = read.run["tracking"]
    assert tracking["n_rounds"] == 20
    assert_allclose(tracking["tracking_distance"], late["distance"].mean())
    assert_allclose(
        tracking["tracking_participation"], (late["n_active"] / late["n_present"]).mean()
    )
    off = (late["total_epsilon"] - late["equilibrium_total_epsilon"]).abs()
    assert_allclose(
        tracking["tracking_total_error"], (off / late["equilibrium_total_epsilon"]).mean()
    )
    assert pd.read_parquet(tmp_path / "one" / "rounds.parquet").equals(records[0].rounds)
    traced = read.traces.groupby("round").size()
    assert (traced == (30 if traces == "all" else 8)).all()


@settings(max_examples=60)
@given(
    seed=st.integers(0, 99),
    rule=st.sampled_from(sorted(LEARNING_RULES)),
    order_=st.sampled_from(["in_turn", "simultaneous"]),
    share=st.sampled_from([0.5, 1.0]),
    reentry=st.booleans(),
    noise=st.sampled_from([0.0, 0.1]),
)
def test_compiled_loops_and_single_agents_give_equal_bits(
    seed, rule, order_, share, reentry, noise
):
    def play(many):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(order, "MANY", many)
            made = market(
                10,
                seed=seed,
                churn={"arrivals": 0.4, "departures": 0.1, "drift": 0.1},
                learning={"kind": rule},
                rounds={"order": order_, "participation": share},
                exit={"reentry": reentry},
                information={"noise": noise},
            )
            made.run_until(12)
        return made

    compiled, single = play(0), play(10**9)
    assert compiled.state == single.state
    assert_array_equal(compiled.columns.epsilon, single.columns.epsilon)
    for name, kept in single.columns.memory.items():
        assert_array_equal(compiled.columns.memory[name], kept)


def test_a_market_that_everybody_leaves_ends_and_leaves_a_record(tmp_path):
    asked = scenario(6, churn={"arrivals": 0.0, "departures": 0.9})
    record = fa.run_scenario(asked, tmp_path / "run")
    assert record.run["verdict"]["kind"] == "no-trade"
    assert record.run["verdict"]["reason"] == "fewer than two nodes are left, and none will come."
    assert len(fa.read_record(tmp_path / "run").nodes) < 2


def test_a_market_survives_rounds_without_anybody():
    made = market(2, churn={"arrivals": 0.5, "departures": 0.6}, rounds={"maximum": 200})
    verdict = made.run_until()
    frame = rounds_of(made)
    assert (frame["n_present"] == 0).any()
    assert (frame["n_present"] == 2).any()
    assert (frame.loc[frame["n_present"] == 0, "total_epsilon"] == 0).all()
    assert verdict.kind == "max-rounds"
    assert "inf" not in verdict.reason
    late = frame[100:][frame["n_present"][100:] == 2]  # one alone has no equilibrium to follow
    facts = tracking_facts(frame, None)
    assert facts["n_rounds"] == len(late) < 100
    assert facts["tracking_n_present"] == 2
    assert facts["tracking_distance"] == pytest.approx(late["distance"].mean())


def test_a_server_that_infers_costs_follows_the_best_cap_if_it_does_not_wait_for_rest():
    def pursuit(longest_wait):
        made = market(
            60,
            churn={"departures": 0.02},
            server={"kind": "anticipate", "longest_wait": longest_wait},
            learning={"kind": "best-response"},
            game={"alpha": 0.002},
            rounds={"maximum": 300},
        )
        made.run_until()
        late = rounds_of(made).iloc[150:]
        return late["budget"].corr(late["equilibrium_budget"])

    assert pursuit(2) > 0.4
    assert pursuit(100) < 0.3


def test_single_nodes_in_empty_places_do_not_move():
    made = market(8, churn={"arrivals": 0.0, "departures": 0.5}, rounds={"maximum": 9})
    made.step()
    empty = np.flatnonzero(~made.columns.present)
    assert 0 < empty.size < 7
    made.nodes.do("respond")
    assert not made.columns.epsilon[empty].any()
    assert [node.present for node in made.nodes] == made.columns.present.tolist()


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"mechanism": {"kind": "static"}}, r"\[mechanism\] kind = 'static': it makes one offer"),
        ({"training": {}}, r"\[training\]: a newcomer would get the data"),
        (
            {
                "population": {"n_nodes": 5, "churn": {}, "rho": {"kind": "divergence"}},
                "training": {"enabled": False},
            },
            r"kind = 'divergence': newcomers have no data",
        ),
        (
            {"population": {"n_nodes": 5, "churn": {}, "misreport": {}}},
            r"\[population.misreport\]: it is undefined whether newcomers misreport",
        ),
    ],
)
def test_what_does_not_go_together_with_churn_is_refused_in_one_sentence(tables, words):
    asked = scenario(5, **{"churn": {}, **tables})
    with pytest.raises(InvalidScenarioError, match=words) as caught:
        check_scenario(asked)
    assert str(caught.value).count("\n") == 0
    assert "[population.churn] conflicts with" in str(caught.value)


def test_a_sweep_tells_how_its_markets_follow_and_others_have_no_such_columns(tmp_path):
    sweep = {"axes": {"population.churn.departures": [0.0, 0.1]}}
    asked = scenario(10, churn={"until": 20}, rounds={"maximum": 60}, sweep=sweep)
    frame = fa.run_sweep(asked, tmp_path / "churn").frame()
    assert frame["tracking_distance"].isna().tolist() == [True, False]
    assert 0 < frame["tracking_distance"].iloc[1] < 2
    plain = scenario(10, sweep={"axes": {"game.alpha": [1.0, 2.0]}})
    frame = fa.run_sweep(plain, tmp_path / "plain").frame()
    assert not [name for name in frame if name.startswith("tracking")]
