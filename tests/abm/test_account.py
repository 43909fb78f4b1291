"""Money and epsilon over all rounds: nothing is paid or sold beyond the totals."""

import math
import pickle

import numpy as np
import pytest

import fcfn_abm as fa
from fcfn_abm.abm import EdgeNode
from fcfn_abm.errors import InvalidScenarioError

COSTS = {"kind": "uniform", "low": 0.5, "high": 1.5}
MARKETS = {
    "in turn": {},
    "at once": {"rounds": {"order": "simultaneous"}, "learning": {"gain": "auto"}},
    "after reports": {"rounds": {"payment": "after-reports"}},
    "few move": {"rounds": {"participation": 0.4}},
    "tullock": {"mechanism": {"kind": "tullock", "exponent": 0.7}},
    "gradient": {"learning": {"kind": "gradient"}},
    "fixed": {"server": {"kind": "fixed"}, "game": {"budget": 7.3}},
    "bandit": {"server": {"kind": "bandit"}},
    "many": {"population": {"n_nodes": 520}, "rounds": {"maximum": 30}},
    "many at once": {
        "population": {"n_nodes": 520},
        "rounds": {"order": "simultaneous", "maximum": 30},
        "learning": {"kind": "aggregate"},
    },
}

WEIGHTS = [*map(float, range(1, 13))]
WEIGHTED = {"mechanism": {"kind": "weighted", "by": "listed", "weights": WEIGHTS}}


def scenario(*trees, maximum=60, **game):
    tree = {
        "seed": 5,
        "population": {"n_nodes": 12, "rho": COSTS},
        "rounds": {"maximum": maximum},
        "game": game,
    }
    for other in trees:
        for table, keys in other.items():
            tree[table] = {**tree.get(table, {}), **keys}
    return fa.Scenario.model_validate(tree)


def play(market):
    """Return payments and epsilons of all rounds, and the states."""
    paid, sold, states = [], [], []
    while market.running:
        market.step()
        paid.append(market.server.paid)
        sold.append(market.columns.epsilon.copy())
        states.append(market.state)
        assert market.columns.payment.sum() == paid[-1]
    return paid, np.array(sold), states


@pytest.mark.parametrize("spending", [None, "uniform", "next-point"])
@pytest.mark.parametrize("kind", [*MARKETS, "weighted"])
@pytest.mark.parametrize("total", [33.3, 0.7])
def test_no_more_is_paid_than_the_total_budget(kind, spending, total):
    changes = WEIGHTED if kind == "weighted" else MARKETS[kind]
    spread = {} if spending is None else {"spending": spending}
    changes = {**changes, "game": {**changes.get("game", {}), **spread, "total_budget": total}}
    market = fa.PrivacyMarket(scenario(changes, maximum=40))
    paid, _, states = play(market)
    assert math.fsum(paid) <= total
    for index, state in enumerate(states):
        assert state.money_spent == math.fsum(paid[: index + 1])
        assert state.money_left == pytest.approx(total - state.money_spent, abs=1e-14 * total)
    assert market.verdict.kind in ("stopped", "max-rounds", "no-trade")
    if market.verdict.kind == "stopped":
        assert market.verdict.reason == f"the money, {total:g}, is spent."
        assert states[-1].money_left <= 1e-8


@pytest.mark.parametrize("kind", [*MARKETS, "weighted"])
def test_no_node_sells_more_than_its_total(kind):
    changes = {**(WEIGHTED if kind == "weighted" else MARKETS[kind])}
    changes["population"] = {**changes.get("population", {}), "total_epsilon": 17.3}
    market = fa.PrivacyMarket(scenario(changes))
    _, sold, states = play(market)
    account, n_nodes = market.account, len(market.columns)
    whole = np.array([math.fsum(sales) for sales in sold.T])
    assert (whole <= 17.3).all()
    np.testing.assert_allclose(whole, account.epsilon_sold, rtol=1e-15)
    assert account.sold_out.any()
    for row in np.flatnonzero(account.sold_out):
        last = market.columns.exit_round[row]
        assert whole[row] == 17.3  # to the last bit
        assert sold[last - 1, row] == pytest.approx(17.3 - math.fsum(sold[: last - 1, row]))
        assert (sold[last:, row] == 0).all()
    for state in states:
        assert state.n_active + state.n_inactive + state.n_exited == n_nodes


def test_groups_have_limits_of_their_own():
    groups = [
        {"name": "wary", "n_nodes": 4, "total_epsilon": 2.0},
        {"name": "open", "total_epsilon": 30.0},
        {"name": "costly", "n_nodes": 2, "rho": {"kind": "constant", "value": 90.0}},
    ]
    changes = {"population": {"groups": groups, "rho": {"kind": "constant", "value": 1.0}}}
    market = fa.PrivacyMarket(scenario(changes))
    _, sold, _ = play(market)
    whole = np.array([math.fsum(sales) for sales in sold.T])
    assert (whole[:4] == 2.0).all()
    assert whole[4:10].max() == 30.0
    assert (whole[4:10] == 30.0).sum() == 5  # then one is left, and a round no longer pays
    assert "a further round does not pay" in market.verdict.reason
    assert whole[10:].max() < 30.0
    assert not market.account.sold_out[10:].any()


def test_ample_money_changes_nothing():
    plain = fa.PrivacyMarket(scenario(maximum=300))
    rich = fa.PrivacyMarket(scenario(maximum=300, total_budget=1e9))
    rounds = 0
    while plain.running:
        plain.step()
        rich.step()
        rounds += 1
        for name, value in vars(plain.state).items():
            assert getattr(rich.state, name) == value
    assert plain.verdict.kind == "converged"
    assert rich.running
    assert rounds > 10


def test_equal_shares_of_the_money_are_the_caps():
    changes = {"server": {"kind": "fixed"}, "game": {"budget": 50.0}}
    changes["game"] |= {"total_budget": 100.0, "spending": "uniform"}
    paid, _, states = play(fa.PrivacyMarket(scenario(changes, maximum=25)))
    np.testing.assert_allclose(paid, 4.0, rtol=1e-12)
    np.testing.assert_allclose([state.budget for state in states], 4.0, rtol=1e-12)


def test_money_that_gains_less_than_itself_is_kept():
    changes = {"server": {"kind": "fixed"}, "game": {"budget": 20.0, "total_budget": 5000.0}}
    changes["game"]["spending"] = "next-point"
    market = fa.PrivacyMarket(scenario(changes, maximum=60))
    _, _, states = play(market)
    assert states[-1].budget == pytest.approx(market.best_budget, rel=1e-6)  # below the rule's 20
    assert market.best_budget < 10
    assert states[-1].money_left > 4000


def test_the_market_stops_where_no_further_round_pays():
    """Two nodes of cost c give a mean epsilon of B / (4 c): it pays where alpha beta > 4 c."""
    for costly, pays in ((24.0, True), (26.0, False)):
        groups = [
            {"name": "cheap", "n_nodes": 2, "rho": {"kind": "constant", "value": 0.5}},
            {"name": "costly", "rho": {"kind": "constant", "value": costly}},
        ]
        groups[0]["total_epsilon"] = 40.0
        people = {"n_nodes": 4, "groups": groups}
        market = fa.PrivacyMarket(scenario({"population": people}, maximum=200))
        market.run_until()
        assert (market.columns.exit_round[:2] > 0).all()
        if pays:
            assert market.verdict.kind == "max-rounds"
        else:
            assert market.verdict.kind == "stopped"
            assert "a further round does not pay" in market.verdict.reason
            assert market.verdict.rounds == market.columns.exit_round[:2].max()


def test_what_is_sold_out_is_no_longer_in_the_closed_form():
    changes = {"population": {"total_epsilon": 20.0}}
    market = fa.PrivacyMarket(scenario(changes))
    while market.account.sold_out.sum() < 3:
        market.step()
    rho = market.columns.rho[~market.account.sold_out]
    market.step()
    left = fa.stackelberg_equilibrium(rho, 10.0, 10.0)
    assert market.state.equilibrium_budget == pytest.approx(left.budget)
    assert market.state.equilibrium_n_active == left.n_active


def test_a_node_that_reports_more_than_it_has_left_sells_what_it_has():
    class Greedy(EdgeNode):
        def choose_epsilon(self, seen):  # noqa: ARG002
            return 5.0

    changes = {"population": {"total_epsilon": 12.0}}
    market = fa.PrivacyMarket(scenario(changes), node_class=Greedy)
    _, sold, _ = play(market)
    assert sold[:, 0].tolist() == [5.0, 5.0, 2.0]
    assert market.verdict.kind == "stopped"


def test_a_market_that_was_pickled_keeps_its_account():
    market = fa.PrivacyMarket(scenario({"population": {"total_epsilon": 20.0}}, total_budget=70.0))
    for _ in range(8):
        market.step()
    copy = pickle.loads(pickle.dumps(market))
    assert play(copy)[0] == play(market)[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"game": {"spending": "uniform"}}, "needs total_budget"),
        (
            {"mechanism": {"kind": "static"}, "game": {"total_budget": 5.0}},
            "contest in every round",
        ),
        (
            {"mechanism": {"kind": "vcg"}, "population": {"total_epsilon": 5.0}},
            "'stackelberg', 'tullock', 'weighted'",
        ),
        (
            {"population": {"total_epsilon": 5.0, "churn": {"departures": 0.1}}},
            "a newcomer would inherit",
        ),
        (
            {"population": {"total_epsilon": 5.0}, "privacy": {"horizon": "training"}},
            "already the total of the training",
        ),
        ({"game": {"total_budget": 5.0}, "training": {}}, "use 'every-round'"),
        (
            {"game": {"total_budget": 5.0}, "training": {"schedule": "every-round", "rounds": 90}},
            "would not be paid for",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(InvalidScenarioError, match=message):
        fa.PrivacyMarket(scenario(changes))
