"""Mechanisms that are set to spend, or buy, a given amount; and what a move would gain a node."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fcfn_abm as fa
from fcfn_abm.mechanisms import MECHANISMS, Contracts, Mechanism, PricingGame
from fcfn_abm.mechanisms.base import settle
from fcfn_abm.mechanisms.matching import match_outcome
from fcfn_abm.mechanisms.regret import largest_gain

COSTS = np.linspace(0.1, 0.3, 50)
KNOWN = {"myerson-cap": {"distribution": {"kind": "uniform", "low": 0.1, "high": 0.3}}}


def chance():
    return np.random.default_rng(5)


def game(rho=COSTS, budget=5.0, average_over="population"):
    return PricingGame(np.asarray(rho, dtype=float), 2.9, 28.7, budget, average_over)


def match(name, quantity, aim, played=None, **options):
    mechanism = MECHANISMS.create(name, {**KNOWN.get(name, {}), **options})
    return match_outcome(mechanism, played or game(), chance, quantity, aim)


def price_again(name, found, budget=5.0, **options):
    """Price with the settings that were found, by the public function."""
    settings = dict(found.settings)
    cap = settings.pop("budget", budget)
    return fa.price(
        name,
        COSTS,
        alpha=2.9,
        beta=28.7,
        budget=cap,
        average_over="population",
        rng=5,
        **{**KNOWN.get(name, {}), **options, **settings},
    )


def test_the_cap_of_the_contest_is_in_proportion_to_its_epsilon():
    bought = fa.nash_equilibrium(COSTS, 1.0).total_epsilon / 50
    found = match("stackelberg", "mean_epsilon", 2.0)
    assert found.reached
    assert found.settings["budget"] == pytest.approx(2.0 / bought, rel=1e-6)


@pytest.mark.parametrize("quantity", ["server_payment", "mean_epsilon"])
@pytest.mark.parametrize("name", list(MECHANISMS))
def test_what_is_said_to_match_does_so_when_it_is_priced_anew(name, quantity):
    options = {"voluntary": True} if name in ("random", "static") else {}
    options |= {"high": 10.0} if name == "random" else {}
    aim = 3.0 if quantity == "server_payment" else 0.4
    found = match(name, quantity, aim, **options)
    if not found.reached:
        assert found.reason.startswith("It ")
        assert name in ("fair-query", "vcg", "pooled-weights")
        return
    if name == "posted-price" and quantity == "mean_epsilon":
        again = found.outcome  # its cap may have been lifted
        assert found.game.cap >= 5.0
    else:
        again = price_again(name, found, **options)
    assert getattr(again, quantity) == pytest.approx(aim, rel=0.01)


def test_an_auction_never_buys_an_epsilon_above_one():
    found = match("fair-query", "mean_epsilon", 1.5)
    assert not found.reached
    assert found.reason == "It buys at most 0.98 of epsilon."  # 49 of 50 nodes, 1 each


def test_an_auction_passes_over_what_lies_between_two_numbers_of_sellers():
    found = match("fair-query", "mean_epsilon", 0.7)
    assert not found.reached
    # 48 of 50 sell a half each, or 49 sell one each
    assert found.reason == "It buys 0.48 or 0.98 of epsilon, and nothing between."


def test_what_pays_nothing_spends_nothing():
    found = match("pooled-weights", "server_payment", 5.0)
    assert not found.reached
    assert found.reason == "It pays at most 0."


def test_of_all_prices_that_spend_the_cap_the_lowest_is_taken():
    found = match("posted-price", "server_payment", 5.0, largest_epsilon=2.0)
    prices = np.linspace(0.1, 0.3, 20_001)
    spent = np.minimum((COSTS[:, None] <= prices).sum(axis=0) * prices * 2.0, 5.0)
    lowest = prices[np.argmax(spent >= 5.0 * (1 - 1e-9))]
    assert found.reached
    assert found.settings["price"] == pytest.approx(lowest, abs=2e-5)


def test_where_the_first_knob_jumps_the_second_one_is_lowered():
    # at 10 each, one node more is two tenths more of epsilon for every node of all
    found = match("static", "mean_epsilon", 0.5, voluntary=True, epsilon=10.0)
    assert found.reached
    assert set(found.settings) == {"budget", "epsilon"}
    assert found.settings["epsilon"] < 10.0
    assert found.outcome.mean_epsilon == pytest.approx(0.5, rel=1e-5)


def test_a_cap_that_is_no_knob_is_lifted_where_it_keeps_the_aim_out_of_reach():
    # below the cost of all there is nothing to buy, and the cap pays for 3 units at the lowest cost
    narrow = game(np.linspace(1.0, 1.2, 10), budget=3.0)
    found = match("posted-price", "mean_epsilon", 0.5, narrow, largest_epsilon=1.0)
    assert found.reached
    assert found.outcome.server_payment > 3.0
    assert found.outcome.server_payment == pytest.approx(5.0 * found.settings["price"], rel=1e-4)


class Fixed(Mechanism):
    """Buys the same of everybody, and shares out all that it may spend."""

    knobs: ClassVar[tuple[str, ...]] = ()

    def offer(self, game, rng):  # noqa: ARG002
        return Contracts(np.ones(game.rho.size))

    def outcome(self, game, rng):  # noqa: ARG002
        return settle("fixed", game, np.ones(game.rho.size), np.full(game.rho.size, game.cap / 50))


def test_a_mechanism_without_knobs_reaches_what_it_happens_to_do_and_nothing_else():
    assert match_outcome(Fixed(), game(), chance, "mean_epsilon", 1.0).reached
    found = match_outcome(Fixed(), game(), chance, "mean_epsilon", 2.0)
    assert (found.reached, found.reason) == (False, "It has no knob.")


def test_lifting_the_cap_is_no_way_to_spend_all_of_it():
    @dataclass(frozen=True)
    class Sized(Fixed):
        knobs: ClassVar[tuple[str, ...]] = ("size",)
        size: float = 1.0

    found = match_outcome(Sized(), game(), chance, "mean_epsilon", 2.0)
    assert not found.reached
    assert found.game.cap == 5.0


def test_an_aim_of_zero_is_none():
    found = match("stackelberg", "mean_epsilon", 0.0)
    assert (found.reached, found.reason) == (False, "There is nothing to match: it is zero.")


def test_nobody_gains_by_a_move_at_an_equilibrium():
    for name in ("stackelberg", "tullock", "ic-mle", "fair-query", "posted-price"):
        mechanism = MECHANISMS.create(name)
        outcome = mechanism.outcome(game(), chance())
        assert largest_gain(mechanism, game(), outcome, chance) == pytest.approx(0, abs=1e-9), name


def test_what_a_node_gains_by_another_epsilon_is_what_its_best_response_earns():
    three = game([0.5, 1.0, 2.0], budget=6.0)
    static = MECHANISMS.create("static", {"epsilon": 1.0})
    outcome = static.outcome(three, chance())
    # the others hold two units: B e / (e + 2) - rho e is largest at sqrt(2 B / rho) - 2
    best = np.maximum(np.sqrt(12.0 / three.rho) - 2.0, 0.0)
    gains = 6.0 * best / (best + 2.0) - three.rho * best - (2.0 - three.rho)
    expected = gains.max() / 6.0
    assert_allclose(largest_gain(static, three, outcome, chance), expected, rtol=1e-2)


def test_a_node_that_loses_gains_by_staying_out():
    pooled = MECHANISMS.create("pooled-weights")
    outcome = pooled.outcome(game(), chance())
    costs = COSTS * outcome.epsilon
    assert largest_gain(pooled, game(), outcome, chance) == pytest.approx(costs.max() / costs.sum())


def test_a_false_report_that_pays_is_found():
    class PayAsBid(Mechanism):
        reports: ClassVar[str] = "cost"

        def offer(self, game, rng):  # noqa: ARG002
            sold = np.where(game.bids <= 0.2, 1.0, 0.0)
            return Contracts(sold, sold * game.bids)

        def outcome(self, game, rng):
            offer = self.offer(game, rng)
            return settle("pay-as-bid", game, offer.epsilon, offer.fee)

    mechanism = PayAsBid()
    outcome = mechanism.outcome(game(), chance())
    # the cheapest node, at 0.1, may ask for a quarter more or twice as much
    expected = 0.1 / outcome.payment.sum()
    assert largest_gain(mechanism, game(), outcome, chance) == pytest.approx(expected)
