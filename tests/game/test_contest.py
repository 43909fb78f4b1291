"""Other costs, caps, fixed costs and reserves, against grids and published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import wrightomega

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import nash_equilibrium, stackelberg_equilibrium
from fcfn_abm.game.contest import contest_equilibrium, contest_regret
from fcfn_abm.game.costs import Terms, cost_of, reply_under
from fcfn_abm.game.leader_search import search_best_cap

FORMS = ("linear", "power", "sqrt", "exponential")
COSTS = {
    "linear": lambda rho, e: rho * e,
    "power": lambda rho, e: rho * e * e,
    "sqrt": lambda rho, e: 2 * rho * e**0.5,
    "exponential": lambda rho, e: rho * (np.exp(e) - 1),
}
"""The costs as the formulations print them, written a second time."""

scales = st.floats(0.05, 20.0)


def best_on_a_grid(form, rho, others, budget, *, cap, fixed_cost, reserve):
    """Return the largest utility among a hundred thousand reports, and zero for none."""
    most = {
        "linear": budget / rho,
        "power": (budget / rho) ** 0.5,
        "sqrt": (budget / rho / 2) ** 2,
        "exponential": np.log1p(budget / rho),
    }[form]
    low, high = max(reserve, 1e-9), min(cap, most)
    if low > high:
        return 0.0
    e = np.append(np.geomspace(low, high, 100_000), high)
    return max(0.0, float((budget * e / (e + others) - COSTS[form](rho, e) - fixed_cost).max()))


@pytest.mark.parametrize("form", FORMS)
@given(
    rho=scales,
    others=st.floats(1e-3, 50.0),
    budget=scales,
    cap=st.one_of(st.just(np.inf), st.floats(0.2, 5.0)),
    fixed=st.sampled_from([0.0, 0.05, 0.3]),
    reserve=st.sampled_from([0.0, 0.1]),
)
@settings(max_examples=40, deadline=None)
def test_no_report_on_a_grid_earns_more_than_the_best_response(
    form, rho, others, budget, cap, fixed, reserve
):
    terms = Terms(form, cap, fixed * budget, reserve)
    reply = reply_under(np.array([rho]), np.array([others]), budget, terms, cap)[0]
    assert reply == 0 or reserve <= reply <= cap
    earned = 0.0
    if reply > 0:
        earned = budget * reply / (reply + others) - COSTS[form](rho, reply) - fixed * budget
        assert earned > 0
    best = best_on_a_grid(
        form, rho, others, budget, cap=cap, fixed_cost=fixed * budget, reserve=reserve
    )
    assert best <= earned + 1e-12 * budget


@pytest.mark.parametrize("form", ["linear", "power", "exponential"])
@given(
    rho=st.lists(scales, min_size=2, max_size=12).map(np.array),
    budget=scales,
    caps=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_convex_costs_have_an_equilibrium_to_the_last_digits(form, rho, budget, caps):
    cap = 0.3 * budget / rho.size * np.linspace(0.5, 2.0, rho.size) if caps else np.inf
    found = contest_equilibrium(rho, budget, Terms(form, cap))
    assert found.status == "solved"
    assert found.unique is True
    assert found.regret <= 1e-12
    assert (found.epsilon <= cap).all()
    total = found.epsilon.sum()
    for node, own in enumerate(found.epsilon):
        best = best_on_a_grid(
            form, rho[node], max(total - own, 0.0), budget,
            cap=cap[node] if caps else np.inf, fixed_cost=0.0, reserve=0.0,
        )  # fmt: skip
        earned = budget * own / total - COSTS[form](rho[node], own)
        assert best <= earned + 1e-9 * budget


@given(rho=st.lists(scales, min_size=2, max_size=30).map(np.array), budget=scales)
@settings(deadline=None)
def test_without_terms_it_is_the_closed_form_of_the_paper(rho, budget):
    found = contest_equilibrium(rho, budget)
    assert (found.epsilon == nash_equilibrium(rho, budget).epsilon).all()
    assert found.method == "closed form"


def test_caps_that_nobody_reaches_change_nothing():
    rho = np.linspace(0.9, 1.1, 20)
    free = nash_equilibrium(rho, 3.0).epsilon
    found = contest_equilibrium(rho, 3.0, Terms(epsilon_max=1.001 * free.max()))
    assert np.allclose(found.epsilon, free, rtol=1e-13, atol=1e-15)


def test_equal_nodes_meet_the_formulas_for_equal_nodes():
    n, rho, budget = 7, 0.4, 3.0
    level = budget * (n - 1) / n**2 / rho  # e k'(e)
    expected = {
        "linear": level,
        "power": (level / 2) ** 0.5,
        "exponential": float(wrightomega(np.log(level))),  # e exp(e) = level
    }
    for form, epsilon in expected.items():
        found = contest_equilibrium(np.full(n, rho), budget, Terms(form))
        assert found.epsilon == pytest.approx(np.full(n, epsilon), rel=1e-12)


def test_the_worked_game_with_a_fixed_cost_has_an_equilibrium_that_is_no_prefix():
    rho = [0.5627, 0.6645, 0.8167, 0.8751, 1.3255]
    found = contest_equilibrium(rho, 1.0, Terms(fixed_cost=0.2105))
    assert found.active.tolist() == [False, False, True, True, False]
    assert found.regret <= 1e-12


def test_the_largest_prefix_that_earns_its_fixed_cost_is_an_equilibrium():
    rng = np.random.default_rng(5)
    n_found = 0
    for _ in range(60):
        rho, fixed = np.sort(rng.uniform(0.5, 1.5, 6)), rng.uniform(0.01, 0.2)
        prefixes = [nash_equilibrium(rho[:n], 1.0) for n in range(2, 7)]
        earning = [p for p in prefixes if p.active.all() and (p.utility >= fixed).all()]
        if not earning:
            continue
        n_found += 1
        found = contest_equilibrium(rho, 1.0, Terms(fixed_cost=fixed))
        known = (found.epsilon, *found.others)
        expected = np.pad(earning[-1].epsilon, (0, 6 - earning[-1].epsilon.size))
        assert any(np.allclose(one, expected, rtol=1e-9) for one in known)
        assert found.unique is (None if len(known) == 1 else False)
    assert n_found > 30


def test_every_equilibrium_that_is_listed_is_one():
    rho = np.array([1.0, 1.05, 1.1, 1.2, 1.3])
    found = contest_equilibrium(rho, 1.0, Terms(fixed_cost=0.06))
    assert len(found.others) > 0
    for epsilon in (found.epsilon, *found.others):
        assert contest_regret(epsilon, rho, 1.0, Terms(fixed_cost=0.06)) <= 1e-10


def test_two_unequal_nodes_with_the_root_as_cost_have_no_equilibrium():
    found = contest_equilibrium([1.0, 1.2], 1.0, Terms("sqrt"))
    assert found.status == "none-found"
    assert not found.active.any()


def test_two_equal_nodes_with_the_root_as_cost_share_and_earn_nothing():
    # B y s / (y**2 + s)**2 = rho at y**2 = s gives y = B / (4 rho); each pays what it gets
    epsilon = np.full(2, (1 / 4) ** 2)
    assert contest_regret(epsilon, [1.0, 1.0], 1.0, Terms("sqrt")) <= 1e-12


def test_a_reserve_that_binds_is_what_nodes_sell():
    rho = np.full(4, 1.0)
    free = nash_equilibrium(rho, 1.0).epsilon[0]  # 3/16
    found = contest_equilibrium(rho, 1.0, Terms(reserve=0.24))
    assert found.epsilon == pytest.approx(np.full(4, 0.24))
    assert free < 0.24
    assert found.utility == pytest.approx(np.full(4, 0.01))


def test_a_thousand_nodes_with_fixed_costs_are_solved():
    rho = np.random.default_rng(3).uniform(0.9, 1.1, 1000)
    found = contest_equilibrium(rho, 1.0, Terms(fixed_cost=1e-4))
    assert found.status == "solved"
    assert found.regret <= 1e-12
    assert found.n_active < nash_equilibrium(rho, 1.0).n_active


@pytest.mark.parametrize("average_over", ["active", "population"])
def test_the_search_for_the_best_cap_finds_the_closed_form(average_over):
    rho = np.linspace(0.9, 1.1, 8)
    found = search_best_cap(rho, 10.0, 5.0, Terms(), average_over)
    exact = stackelberg_equilibrium(rho, 10.0, 5.0, average_over)
    assert found.budget == pytest.approx(exact.budget, rel=1e-6)
    assert found.server_utility == pytest.approx(exact.server_utility, rel=1e-12)


def test_the_search_finds_the_best_cap_of_quadratic_costs():
    # epsilon = sqrt(B (n - 1) / (2 rho)) / n, and d/dB (beta ln(1 + alpha epsilon) - B) = 0
    n, rho, alpha, beta = 5, 0.3, 4.0, 6.0
    grow = alpha * np.sqrt((n - 1) / (2 * rho)) / n
    root = (np.sqrt(1 + 2 * grow**2 * beta) - 1) / (2 * grow)
    found = search_best_cap(np.full(n, rho), alpha, beta, Terms("power"))
    assert found.budget == pytest.approx(root**2, rel=1e-6)


def test_where_no_trade_pays_the_search_says_so():
    found = search_best_cap([100.0, 100.0], 0.01, 1.0, Terms("exponential"))
    assert found.budget == 0.0
    assert found.equilibrium.status == "no-trade"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cost": "cubic"}, "cost must be"),
        ({"epsilon_max": 0.0}, "epsilon_max must be positive"),
        ({"epsilon_max": 0.1, "reserve": 0.2}, "below the reserve"),
        ({"fixed_cost": -1.0}, "fixed_cost must be zero or positive"),
        ({"reserve": np.nan}, "reserve must be zero or positive"),
    ],
)
def test_terms_that_make_no_sense_are_refused(change, words):
    with pytest.raises(InvalidGameError, match=words):
        Terms(**change)


def test_caps_of_another_number_of_nodes_are_refused():
    with pytest.raises(InvalidGameError, match="one for each of 3 nodes"):
        contest_equilibrium([1.0, 1.0, 1.0], 1.0, Terms(epsilon_max=np.ones(2)))


@given(epsilon=st.floats(0.0, 30.0), rho=scales)
def test_costs_are_those_of_the_formulations(epsilon, rho):
    for form in FORMS:
        assume(form != "exponential" or epsilon > 1e-6)
        assert cost_of(form, rho, epsilon) == pytest.approx(COSTS[form](rho, epsilon), rel=1e-9)
