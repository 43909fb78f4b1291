"""Servers, information, participation, exits, and mechanisms other than the contest."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from strategies import costs

from fcfn_abm.abm.bulletin import Bulletin
from fcfn_abm.abm.verdict import Judge
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.game import nash_equilibrium, stackelberg_equilibrium
from fcfn_abm.mechanisms import price
from fcfn_abm.scenario import Information, Scenario


def market(rho, *, seed=1, budget=None, alpha=10.0, **tables):
    rho = np.asarray(rho, dtype=float)
    game = {"alpha": alpha, **({} if budget is None else {"budget": budget})}
    tree = {"seed": seed, "population": {"n_nodes": rho.size}, "game": game, **tables}
    return PrivacyMarket(Scenario.model_validate(tree), rho=rho)


def played(*args, **kwargs):
    made = market(*args, **kwargs)
    made.run_until()
    return made


FIXED = {"kind": "fixed"}
UNSOLVED = {"kind": "yang", "variant": "printed", "epsilon_exponent": "literal"}
SPREAD = 0.01 * np.exp(0.5 * np.random.default_rng(4).standard_normal(30))


@settings(max_examples=40)
@given(
    rho=costs(max_size=12),
    trade=st.floats(0.02, 20.0).filter(lambda x: abs(x - 1) > 0.02),
    average_over=st.sampled_from(["active", "population"]),
    rule=st.sampled_from(["aggregate", "estimate"]),
)
def test_a_server_that_infers_costs_finds_the_best_cap_or_no_trade(rho, trade, average_over, rule):
    unit = stackelberg_equilibrium(rho, 1e9, 10.0, average_over)
    # a node just at the threshold may be counted or not, and with it n_g
    assume((np.abs(rho / unit.threshold - 1) > 1e-6).all())
    n_averaged = unit.n_active if average_over == "active" else rho.size
    alpha = trade * n_averaged * unit.threshold / 10.0  # trade pays where this exceeds one
    made = played(
        rho,
        alpha=alpha,
        game={"alpha": alpha, "average_over": average_over},
        learning={"kind": rule},
        rounds={"order": "simultaneous", "maximum": 3000},
    )
    form = stackelberg_equilibrium(rho, alpha, 10.0, average_over)
    assert made.verdict.kind == ("converged" if trade > 1 else "no-trade")
    assert_allclose(made.budget, form.budget, rtol=1e-6)


@pytest.mark.parametrize("rule", ["best-response", "gradient", "aggregate", "estimate"])
@pytest.mark.parametrize("alpha", [10.0, 0.05])
def test_a_server_that_only_climbs_comes_within_one_per_cent(rule, alpha):
    made = played(
        SPREAD,
        alpha=alpha,
        server={"kind": "gradient"},
        learning={"kind": rule},
        rounds={"maximum": 2000},
    )
    form = made.equilibrium
    assert made.verdict.kind == "converged"
    assert_allclose(made.budget, form.budget, rtol=0.01)


def test_errors_in_what_is_seen_have_mean_one_and_the_spread_that_was_asked_for():
    epsilon = np.ones(400_000)
    shown = Bulletin.of(epsilon, Information(noise=0.3), np.random.default_rng(1))
    reports = shown.reports(epsilon)
    assert abs(reports.mean() - 1) < 5 * reports.std() / np.sqrt(reports.size)
    assert_allclose(np.log(reports).std(), 0.3, rtol=0.01)
    # a node knows its own report: what it sees of the others is the rest of the sum
    assert_allclose(shown.others(epsilon, slice(None)), reports.sum() - reports)
    hidden = Bulletin.of(
        epsilon, Information(reports="aggregate", noise=0.3), np.random.default_rng(1)
    )
    assert hidden.reports(epsilon) is None
    assert_allclose(np.log(hidden.others(epsilon, slice(None))).std(), 0.3, rtol=0.01)
    assert_allclose(hidden.others(1.0, 7), hidden.others(epsilon, slice(None))[7])


@pytest.mark.parametrize("reports", ["full", "aggregate"])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_running_total_is_what_a_fresh_one_would_be(reports, noise):
    rng = np.random.default_rng(2)
    epsilon = rng.uniform(0, 5, 50)
    settings_ = Information(reports=reports, noise=noise)
    shown = Bulletin.of(epsilon, settings_, np.random.default_rng(3))
    for row, new in enumerate(rng.uniform(0, 5, 50).tolist()):
        shown.move(row, epsilon.item(row), new)
        epsilon[row] = new
    fresh = Bulletin.of(epsilon, settings_, np.random.default_rng(3))
    assert_allclose(shown.others(epsilon, slice(None)), fresh.others(epsilon, slice(None)))


@pytest.mark.parametrize("rule", ["best-response", "estimate", "fictitious-play", "aggregate"])
def test_noise_keeps_a_market_near_the_equilibrium_and_grows_with_its_size(rule):
    def error(noise):
        made = played(
            SPREAD, budget=3.0, server=FIXED, learning={"kind": rule}, information={"noise": noise}
        )
        assert made.verdict.kind == "max-rounds"
        assert "what nodes see is noisy" in made.verdict.reason
        late = made.datacollector.get_model_vars_dataframe()["distance"].iloc[250:]
        return late.median()

    little, much = error(0.01), error(0.2)
    assert little < 0.01
    assert much < 0.3
    assert little < much


def test_estimates_stay_closer_than_undamped_answers_under_noise():
    errors = {}
    for name, learning in {
        "estimate": {"kind": "estimate"},
        "undamped": {"kind": "best-response", "gain": 1.0},
    }.items():
        made = played(
            SPREAD, budget=3.0, server=FIXED, learning=learning, information={"noise": 0.1}
        )
        frame = made.datacollector.get_model_vars_dataframe().iloc[250:]
        errors[name] = frame["distance"].median()
    assert errors["estimate"] < errors["undamped"] / 3


@pytest.mark.parametrize("order", ["in_turn", "simultaneous"])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_in_a_round_the_asked_share_of_nodes_moves(order, share):
    made = market(np.linspace(1.0, 1.2, 20), rounds={"order": order, "participation": share})
    for _ in range(3):
        before = made.columns.epsilon.copy()
        made.step()
        assert np.count_nonzero(made.columns.epsilon != before) == round(20 * share)


def test_a_market_in_which_few_move_converges_too():
    made = played(SPREAD, budget=3.0, server=FIXED, rounds={"participation": 0.2, "maximum": 3000})
    assert made.verdict.kind == "converged"
    assert_array_equal(made.columns.epsilon > 0, nash_equilibrium(SPREAD, 3.0).active)


def test_a_node_leaves_after_as_many_losing_rounds_as_it_bears():
    # node 1 pays 3 x 10 for its epsilon, and gets half of a cap of 20: it loses from the start
    def leaver(patience):
        made = market(
            [1.0, 3.0],
            budget=20.0,
            server=FIXED,
            learning={"kind": "fixed"},
            exit={"criterion": "loss", "patience": patience, "reentry": False},
        )
        made.columns.epsilon = np.array([10.0, 10.0])
        for _ in range(6):
            made.step()
        return made

    for patience in (1, 3):
        made = leaver(patience)
        assert_array_equal(made.columns.exit_round, [-1, patience])
        assert made.nodes[1].epsilon == 0
    assert made.nodes[0].utility == 20.0 - 10.0


def test_unit_costs_that_pay_for_themselves_do_not_leave_by_loss():
    made = played(SPREAD, budget=3.0, server=FIXED, exit={"criterion": "loss"})
    assert made.verdict.kind == "converged"
    assert (made.columns.utility >= 0).all()


@pytest.mark.parametrize("kind", ["ic-mle", "yang", "static", "random"])
@pytest.mark.parametrize("order", ["in_turn", "simultaneous"])
def test_a_market_comes_to_what_the_mechanism_prices(kind, order):
    rho = np.linspace(0.009, 0.011, 12)
    # an epsilon that all can afford, so that nobody is asked for more than it is paid
    options = {"static": {"epsilon": 5.0}, "random": {"low": 1.0, "high": 5.0}}.get(kind, {})
    made = played(
        rho,
        budget=3.0,
        server=FIXED,
        mechanism={"kind": kind, **options},
        learning={"kind": "aggregate"},
        rounds={"order": order},
    )
    if kind == "random":
        outcome = made.outcome  # drawn from the market's own stream
        assert ((outcome.epsilon >= 1.0) & (outcome.epsilon <= 5.0)).all()
    else:
        outcome = price(kind, rho, alpha=10.0, beta=10.0, budget=3.0, **options)
    assert made.verdict.kind == "converged"
    assert_allclose(made.columns.epsilon, outcome.epsilon, rtol=1e-9)
    assert_allclose(made.columns.payment, outcome.payment, rtol=1e-9)
    assert_allclose(made.state.server_utility, outcome.server_utility, rtol=1e-9)
    assert_allclose(made.state.payment, outcome.server_payment, rtol=1e-9)


def test_the_middleman_keeps_a_part_of_welfare():
    made = played(SPREAD, mechanism={"kind": "yang"}, learning={"kind": "estimate"})
    outcome = made.outcome
    assert outcome.agency_utility > 0
    together = outcome.server_utility + outcome.node_utility.sum() + outcome.agency_utility
    assert_allclose(made.state.welfare, together, rtol=1e-9)


def test_nodes_that_lose_under_a_mandate_leave_until_it_pays_for_the_rest():
    # 100 x 10 x 0.01 = 10 of privacy cost, for a cap of 3: as long as many take part, all lose
    made = played(np.full(100, 0.01), budget=3.0, server=FIXED, mechanism={"kind": "static"})
    assert made.verdict.kind == "converged"
    assert made.n_active == 30  # 3 / 30 = 10 x 0.01: with one more, everybody would lose
    assert made.state.exploitability == 0


def test_a_mechanism_without_a_solution_is_no_trade():
    made = played(SPREAD, mechanism=UNSOLVED)
    assert made.verdict.kind == "no-trade"
    assert made.outcome.status == "no-solution"
    assert "Eqs. 57-59 of Zhou et al. 2023" in made.verdict.reason


def test_another_root_of_chance_is_another_market():
    scenario = Scenario(seed=1)
    one, same, other = (PrivacyMarket(scenario, rng=rng) for rng in (5, 5, 6))
    assert_array_equal(one.columns.rho, same.columns.rho)
    assert (one.columns.rho != other.columns.rho).any()
    assert (one.columns.rho != PrivacyMarket(scenario).columns.rho).any()
    assert PrivacyMarket(scenario, rng=np.random.default_rng(5)).run_until().kind == "converged"


def judged(distances, *, change=1.0, exploitability=1.0, noisy=False):
    judge = Judge(1e-9, 3, len(distances), noisy)
    for distance in distances:
        verdict = judge.add_round(
            exploitability=exploitability,
            change=change,
            budget_change=0.0,
            distance=distance,
        )
    return verdict


def test_the_judge_tells_slow_from_cycling_from_diverging():
    rounds = np.arange(1, 101)
    assert judged(1.0 / rounds).kind == "max-rounds"
    assert judged(0.999**rounds).kind == "max-rounds"  # slow, but closer in every round
    assert judged(np.where(rounds % 2, 0.5, 1.5)).kind == "cycling"
    assert judged(1.01**rounds).kind == "diverged"
    assert judged(np.full(100, np.inf)).kind == "diverged"
    assert judged(1.0 - 0.9**rounds).kind == "diverged"  # towards another point, never back
    assert judged(np.where(rounds % 2, 0.5, 1.5), noisy=True).kind == "max-rounds"
    resting = judged(np.full(100, 0.5), change=0.0)
    assert resting.kind == "max-rounds"
    assert "not at an equilibrium" in resting.reason
    assert judged(np.full(100, 0.0), change=0.0, exploitability=0.0).kind == "converged"


@settings(max_examples=60)
@given(
    rho=costs(max_size=8),
    trade=st.sampled_from([0.05, 0.5, 0.9, 1.1, 2.0, 30.0]),
    start=st.sampled_from(["random", "cold", "warm"]),
    patience=st.integers(1, 3),
)
def test_nothing_has_converged_while_the_server_would_speak(rho, trade, start, patience):
    unit = stackelberg_equilibrium(rho, 1e9, 10.0)
    assume((np.abs(rho / unit.threshold - 1) > 1e-3).all())
    made = played(
        rho,
        alpha=trade * unit.n_active * unit.threshold / 10.0,
        rounds={"start": start, "patience": patience, "maximum": 3000},
    )
    assert made.verdict.kind in {"no-trade", "max-rounds"} if trade < 1 else {"converged"}
    if made.verdict.kind == "converged":
        assert_allclose(made.budget, made.equilibrium.budget, rtol=1e-6)


def test_one_node_alone_is_no_market():
    made = played([1.0, 20.0], alpha=2.155)
    assert made.equilibrium.budget == 0
    assert made.verdict.kind == "no-trade"


def test_a_market_that_starts_at_rest_and_leaves_it_has_a_verdict():
    made = played(
        np.full(40, 0.001),
        learning={"kind": "gradient"},
        rounds={"order": "simultaneous", "start": "warm", "maximum": 60},
    )
    assert made.datacollector.get_model_vars_dataframe()["distance"].iloc[0] == 0
    assert made.verdict.kind in {"cycling", "diverged"}  # rest is not stable at this gain
    far_off = judged([0.0] + [1.0] * 99)  # how it began does not count
    assert far_off == judged([1.0] * 100)
    assert far_off.kind == "cycling"


def test_a_cap_of_zero_says_so():
    made = played(SPREAD, budget=0.0, server=FIXED)
    assert made.verdict.kind == "no-trade"
    assert made.verdict.reason == "the payment cap of the scenario is zero."


def test_hardly_anybody_ever_moving_is_a_market_too():
    few = market([1.0, 2.0, 3.0], rounds={"participation": 1e-308, "maximum": 5})
    assert few.run_until().rounds <= 5
