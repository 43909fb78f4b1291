import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import LinearConstraint, minimize
from strategies import budgets, costs

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.mechanisms import MECHANISMS, PricingGame, ic_mle, price
from fcfn_abm.mechanisms.ic_mle import contract_menu, equal_payment_menu
from fcfn_abm.registry import OptionError

ulps = st.lists(st.integers(0, 9), min_size=2, max_size=20).map(
    lambda steps: 1.0 + np.array(steps) * np.finfo(float).eps
)
extreme = st.lists(st.floats(-12.0, 12.0), min_size=2, max_size=20).map(
    lambda exponents: 10.0 ** np.array(exponents)
)
populations = st.one_of(costs(), ulps, extreme)
caps = st.one_of(budgets, st.floats(-12.0, 12.0).map(lambda exponent: 10.0**exponent))

POOLED = ([1.0] * 9 + [2.0] + [2.1] * 9, 20.0)  # virtual costs 1, 11, 2.21: not in order


def h(epsilon):
    """The variance of the estimate that one node's report leaves, coth(epsilon / 2)**2."""
    return np.tanh(np.asarray(epsilon) / 2) ** -2.0


def objective(menu):
    return float(menu.count @ h(menu.epsilon))


def least_payments(cost, epsilon):
    """The cheapest payments that keep neighbours from posing as one another, from (56) alone."""
    payment = cost * epsilon
    for k in range(cost.size - 2, -1, -1):
        payment[k] = max(
            cost[k] * epsilon[k], payment[k + 1] + cost[k] * (epsilon[k] - epsilon[k + 1])
        )
    return payment


def slack(menu):
    """How much worse type k is with contract j, relative to the sums that are compared."""
    cost, epsilon, payment = menu.cost[:, None], menu.epsilon, menu.payment
    own = (menu.payment - menu.cost * menu.epsilon)[:, None]
    return (own - (payment - cost * epsilon)) / (payment + cost * epsilon)


@given(rho=populations, budget=caps)
def test_budget_rationality_and_compatibility_hold(rho, budget):
    menu = contract_menu(rho, budget)
    assert_allclose(menu.total_payment, budget, rtol=1e-12)
    assert (menu.epsilon > 0).all()
    assert (menu.payment >= menu.cost * menu.epsilon).all()
    assert menu.payment[-1] == menu.cost[-1] * menu.epsilon[-1]
    assert (slack(menu) >= -1e-12).all()
    assert (np.diff(menu.epsilon) <= 0).all()
    assert_array_equal(np.repeat(menu.cost, menu.count), np.sort(rho))


@given(rho=costs(max_size=12), budget=budgets, data=st.data())
def test_no_other_truthful_menu_is_more_accurate(rho, budget, data):
    menu = contract_menu(rho, budget)
    size = menu.cost.size
    shape = data.draw(st.lists(st.floats(0.01, 100.0), min_size=size, max_size=size))
    other = np.sort(shape)[::-1]
    other *= budget / (menu.count @ least_payments(menu.cost, other))
    for step in (1e-4, 0.1, 1.0):  # the program is convex: any way down shows near the optimum
        mixed = menu.epsilon + step * (other - menu.epsilon)
        assert menu.count @ h(mixed) >= objective(menu) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("rho", "budget"),
    [
        ([1.0, 2.0], 6.0),
        ([1.0, 1.0, 1.0, 1.3], 2.0),
        ([1.0, 1.5, 2.0], 30.0),
        ([0.5, 1.0, 1.0, 4.0], 8.0),
        ([1.0, 1.0, 1.9, 2.0, 2.0, 2.0], 12.0),  # two of the three types are pooled
        POOLED,
    ],
)
def test_menu_agrees_with_slsqp_on_the_raw_program(rho, budget):
    menu = contract_menu(rho, budget)
    cost, count = np.unique(rho, return_counts=True)
    size = cost.size
    eye = np.eye(size)
    compatible = [
        np.concatenate([-cost[k] * (eye[k] - eye[j]), eye[k] - eye[j]])
        for k in range(size)
        for j in range(size)
        if j != k
    ]
    constraints = [
        LinearConstraint(np.concatenate([np.zeros(size), count]), -np.inf, budget),
        LinearConstraint(np.hstack([-np.diag(cost), eye]), 0, np.inf),
        LinearConstraint(np.array(compatible), 0, np.inf),
    ]
    rng = np.random.default_rng(5)
    for _ in range(4):
        start = np.sort(rng.uniform(0.2, 2.0, size))[::-1]
        start *= 0.8 * budget / (count @ least_payments(cost, start))
        result = minimize(
            lambda x: count @ h(x[:size]),
            np.concatenate([start, least_payments(cost, start)]),
            jac=lambda x: np.concatenate(
                [
                    -count / np.tanh(x[:size] / 2) / np.sinh(x[:size] / 2) ** 2,
                    np.zeros(size),
                ]
            ),
            bounds=[(1e-3, 1e3)] * size + [(0, budget)] * size,
            constraints=constraints,
            method="SLSQP",
            options={"ftol": 1e-13, "maxiter": 1000},
        )
        # its last steps may stall at rounding errors, so that its own verdict is no guide
        assert max((c.lb - c.A @ result.x).max() for c in constraints) < 1e-7
        assert max((c.A @ result.x - c.ub).max() for c in constraints) < 1e-7
        assert_allclose(objective(menu), result.fun, rtol=1e-7)
        assert_allclose(menu.epsilon, result.x[:size], rtol=1e-4)
        assert_allclose(menu.payment, result.x[size:], rtol=1e-4)


def test_virtual_costs_out_of_order_are_pooled():
    menu = contract_menu(*POOLED)
    assert menu.epsilon[0] > menu.epsilon[1] == menu.epsilon[2]
    assert_allclose(menu.payment[1], menu.payment[2], rtol=1e-14)


def exact_slope(epsilon):
    """-h' with 60 digits."""
    half = mp.mpf(epsilon) / 2
    return mp.coth(half) / mp.sinh(half) ** 2


@pytest.mark.parametrize("budget", [1e-8, 1.0, 100.0, 1e4])
def test_slopes_are_in_proportion_to_virtual_costs(budget):
    menu = contract_menu([1.0, 1.0, 1.5, 2.5], budget)  # virtual costs 1, 2.5, 5.5
    with mp.workdps(60):
        log_slopes = [float(mp.log(exact_slope(epsilon))) for epsilon in menu.epsilon]
    assert_allclose(
        np.diff(log_slopes), np.log([2.5, 2.2]), atol=1e-10 + 1e-14 * menu.epsilon.max()
    )


@pytest.mark.parametrize("epsilon", [1e-100, 1e-8, 1e-3, 0.1, 1.0, 5.0, 40.0, 800.0, 1e4])
def test_slopes_are_inverted_exactly(epsilon):
    with mp.workdps(60):
        log_slope = float(mp.log(exact_slope(epsilon)))
    assert_allclose(ic_mle._log_slope(np.array([epsilon])), log_slope, rtol=1e-14, atol=1e-14)
    assert_allclose(ic_mle._epsilon_at(np.array([log_slope])), epsilon, rtol=1e-13)


@given(log_slope=st.floats(-1e6, 1e3))
def test_every_slope_has_its_epsilon(log_slope):
    back = ic_mle._log_slope(ic_mle._epsilon_at(np.array([log_slope])))
    assert_allclose(back, log_slope, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n_nodes", "epsilon"), [(10, 100.0), (50, 20.0), (100, 10.0)])
def test_one_known_type_gets_its_cost_and_no_rent(n_nodes, epsilon):
    out = price("ic-mle", np.full(n_nodes, 0.001), alpha=10.0, beta=10.0, budget=1.0)
    assert_allclose(out.epsilon, epsilon, rtol=1e-14)
    assert_array_equal(out.node_utility, 0.0)
    assert_allclose(out.paid, 1.0, rtol=1e-14)
    assert out.status == "solved"


def test_two_types_solved_by_hand():
    # small epsilon: h = 4 / epsilon**2, so epsilon ~ v**(-1/3) with virtual costs 1 and 8
    menu = contract_menu([1.0, 4.5], budget=1e-6)
    assert_allclose(menu.epsilon[0] / menu.epsilon[1], 2.0, rtol=1e-9)
    assert_allclose(menu.epsilon, np.array([2.0, 1.0]) * 1e-7, rtol=1e-9)
    assert_allclose(menu.payment, np.array([5.5, 4.5]) * 1e-7, rtol=1e-9)


def test_types_that_are_nearly_equal_get_nearly_the_same():
    rho = 1.0 + np.arange(50) * np.finfo(float).eps
    assert_allclose(contract_menu(rho, 50.0).epsilon, 1.0, rtol=1e-12)


@given(rho=costs(), budget=budgets, scale=st.sampled_from([2.0**-40, 0.5, 2.0**40]))
def test_the_currency_does_not_matter(rho, budget, scale):
    menu, scaled = contract_menu(rho, budget), contract_menu(rho * scale, budget * scale)
    assert_allclose(scaled.epsilon, menu.epsilon, rtol=1e-12)
    assert_allclose(scaled.payment, menu.payment * scale, rtol=1e-12)


@given(rho=costs(), budget=budgets, data=st.data())
def test_nodes_choose_what_is_best_for_them(rho, budget, data):
    menu = contract_menu(rho, budget)
    assert_array_equal(menu.cost[menu.choice(rho)], rho)
    anybody = data.draw(st.floats(rho.min() / 2, rho.max() * 2))
    utility = menu.payment - anybody * menu.epsilon
    chosen = int(menu.choice(anybody))
    if chosen < 0:
        assert utility.max() < 0
    else:
        assert utility[chosen] >= utility.max() - 1e-12 * menu.payment.max()
        assert utility[chosen] >= -1e-12 * menu.payment.max()


@given(rho=costs(), budget=budgets)
def test_the_outcome_is_the_menu_as_the_nodes_choose(rho, budget):
    out = price("ic-mle", rho, alpha=1.0, beta=10.0, budget=budget)
    game = PricingGame(rho, 1.0, 10.0, budget)
    menu = MECHANISMS.create("ic-mle").menu(game)
    for node in range(rho.size):
        row = menu.cost.tolist().index(rho[node])
        assert out.epsilon[node] == menu.epsilon[row]
        assert out.payment[node] == menu.payment[row]
    assert out.active.all()
    assert (out.node_utility >= -1e-15 * out.payment).all()
    order = np.argsort(rho)
    assert (np.diff(out.node_utility[order]) <= 1e-12 * out.payment.max()).all()


def test_without_a_cap_the_leaders_budget_is_spent():
    rho = np.array([1.0, 1.2, 1.4])
    game = PricingGame(rho, 5.0, 10.0)
    out = price("ic-mle", rho, alpha=5.0, beta=10.0)
    assert_allclose(out.paid, game.stackelberg.budget, rtol=1e-12)


def test_a_million_types():
    rng = np.random.default_rng(3)
    for rho in (np.linspace(0.5, 1.5, 10**6), rng.lognormal(0.0, 0.7, 10**6)):
        menu = contract_menu(rho, 1e6)
        assert_allclose(menu.total_payment, 1e6, rtol=1e-10)
        assert (np.diff(menu.epsilon) <= 0).all()
        assert (menu.epsilon > 0).all()
        utility = menu.payment - menu.cost * menu.epsilon
        envy = (menu.payment[:-1] - menu.cost[1:] * menu.epsilon[:-1]) - utility[1:]
        assert envy.max() <= 1e-9 * menu.payment.max()
        envy = (menu.payment[1:] - menu.cost[:-1] * menu.epsilon[1:]) - utility[:-1]
        assert envy.max() <= 1e-9 * menu.payment.max()


@pytest.mark.parametrize(
    ("rho", "budget", "words"),
    [
        ([1.0, 2.0], 0.0, "no money"),
        ([1.0], 5.0, "needs two nodes"),
        ([], 5.0, "needs two nodes"),
        ([1.0, 2.0], None, "no money"),  # the leader's own cap is zero: no trade pays
    ],
)
def test_where_nothing_can_be_traded_all_is_zero(rho, budget, words):
    out = price("ic-mle", rho, alpha=0.01, beta=1.0, budget=budget)
    assert out.status == "no-trade"
    assert words in out.reason
    assert out.epsilon.shape == (len(rho),)
    assert not out.epsilon.any()
    assert not out.payment.any()
    assert out.server_utility == 0.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: contract_menu([1.0, -1.0], 1.0), r"rho\[1\] = -1"),
        (lambda: contract_menu([[1.0, 1.0]], 1.0), "one-dimensional"),
        (lambda: contract_menu([1.0, 1.0], -1.0), "budget must be zero or positive"),
        (lambda: contract_menu([1e-200, 1e200], 1.0), "must not span more than"),
        (lambda: contract_menu([1e-200, 1e-200], 1e200), "is out of range for"),
        (lambda: contract_menu([1e200, 1e200], 1e-200), "is out of range for"),
    ],
)
def test_numbers_outside_their_range_are_refused(call, words):
    with pytest.raises(InvalidGameError, match=words):
        call()


@pytest.mark.parametrize(
    ("rho", "budget"), [([1.0, 2.0], 6.0), ([1.0, 1.5, 1.5, 2.0], 12.0), ([0.5, 1.0, 4.0], 9.0)]
)
def test_the_printed_constraint_agrees_with_slsqp_on_the_raw_program(rho, budget):
    menu = equal_payment_menu(rho, budget)
    cost, count = np.unique(rho, return_counts=True)
    size = cost.size
    eye = np.eye(size)
    # p_k - c_k eps_k >= p_j - c_k eps_k, with the prime on the payment alone
    printed = [
        np.concatenate([np.zeros(size), eye[k] - eye[j]])
        for k in range(size)
        for j in range(size)
        if j != k
    ]
    constraints = [
        LinearConstraint(np.concatenate([np.zeros(size), count]), -np.inf, budget),
        LinearConstraint(np.hstack([-np.diag(cost), eye]), 0, np.inf),
        LinearConstraint(np.array(printed), 0, np.inf),
    ]
    result = minimize(
        lambda x: count @ h(x[:size]),
        np.concatenate([np.full(size, 0.3), np.full(size, 0.8 * budget / count.sum())]),
        bounds=[(1e-3, 1e3)] * size + [(0, budget)] * size,
        constraints=constraints,
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 1000},
    )
    assert max((c.lb - c.A @ result.x).max() for c in constraints) < 1e-7
    assert_allclose(objective(menu), result.fun, rtol=1e-7)
    assert_allclose(menu.epsilon, result.x[:size], rtol=1e-4)
    assert_allclose(menu.payment, result.x[size:], rtol=1e-6)


@given(rho=costs(), budget=budgets)
def test_the_printed_constraint_pays_all_alike_and_just_the_cost(rho, budget):
    out = price("ic-mle", rho, alpha=1.0, beta=10.0, budget=budget, constraint="printed")
    assert_allclose(out.payment, budget / rho.size, rtol=1e-13)
    assert_allclose(out.epsilon * rho, budget / rho.size, rtol=1e-13)
    assert_allclose(out.node_utility, 0.0, atol=1e-14 * budget)


def test_from_the_printed_menu_all_would_pick_the_smallest_epsilon():
    menu = equal_payment_menu([1.0, 1.5, 2.0], 6.0)
    for cost in menu.cost:
        assert (menu.payment - cost * menu.epsilon).argmax() == 2


def test_one_type_is_the_same_under_both_constraints():
    game = {"rho": np.full(10, 0.001), "alpha": 10.0, "beta": 10.0, "budget": 1.0}
    printed = price("ic-mle", **game, constraint="printed")
    assert_allclose(printed.epsilon, price("ic-mle", **game).epsilon, rtol=1e-14)


@pytest.mark.parametrize(("rho", "budget"), [([1.0, 2.0], 0.0), ([1.0], 5.0), ([], 5.0)])
def test_the_printed_constraint_trades_nothing_where_nothing_can_be_traded(rho, budget):
    out = price("ic-mle", rho, alpha=1.0, beta=1.0, budget=budget, constraint="printed")
    assert out.status == "no-trade"
    assert not out.epsilon.any()


def test_an_unknown_constraint_is_refused():
    with pytest.raises(OptionError, match="incentive-compatible"):
        MECHANISMS.create("ic-mle", {"constraint": "literal"})
