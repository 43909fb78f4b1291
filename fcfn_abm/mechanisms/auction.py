"""Base of the mechanisms that ask nodes for costs and buy the same epsilon from each seller."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fcfn_abm.mechanisms.base import Contracts, Floats, Mechanism, Outcome, PricingGame, settle
from fcfn_abm.mechanisms.claims import Claims


class CheapestSell(Mechanism):
    """An auction in which the k lowest-cost nodes sell ``1 / (n - k)`` each, at one price.

    With reported costs ``v_1 <= ... <= v_n``, k is the largest j below n with
    ``j v / (n - j) <= B`` for the report v that ``judged_by`` selects.
    """

    name: ClassVar[str]
    """Registered name."""
    judged_by: ClassVar[slice]
    """Slice of the ranked reports by which one seller, two sellers and so on are judged."""
    reports: ClassVar = "cost"
    claims: ClassVar[Claims] = Claims(
        budget_balanced=True,
        individually_rational=("nodes",),
        incentive_compatible=("cost",),
        monotone=True,
        anonymous=True,
        scale_invariant=True,
    )

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price one round, by the reported costs."""
        return settle_contracts(self.name, game, self.offer(game, rng), why_nobody_sells(game))

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contracts:  # noqa: ARG002
        """Return what each node sells, and its payment, for its reported cost."""
        ranked, n_nodes = np.sort(game.bids), game.bids.size
        sellers = np.arange(1, n_nodes)
        affordable = sellers * ranked[self.judged_by] <= game.cap * (n_nodes - sellers)
        if not affordable.any():
            return buy_from_cheapest(game.bids, 0, 0.0, 0.0)
        k = int(sellers[affordable][-1])
        epsilon = 1.0 / (n_nodes - k)
        fee = min(game.cap / k, float(ranked[k]) * epsilon)
        return buy_from_cheapest(game.bids, k, epsilon, fee)


def buy_from_cheapest(bids: Floats, n_sellers: int, epsilon: float, fee: float) -> Contracts:
    """Return contracts in which the nodes with the lowest reports sell the same epsilon.

    Parameters
    ----------
    bids : ndarray of float, shape (n,)
        Reported unit costs, in currency per unit of epsilon.
    n_sellers : int
        Number of sellers; equal reports are ordered by row.
    epsilon : float
        Epsilon of each seller, dimensionless.
    fee : float
        Payment of each seller, in currency.
    """
    sells = np.zeros(bids.size, dtype=bool)
    sells[np.argsort(bids, kind="stable")[:n_sellers]] = True
    return Contracts(np.where(sells, epsilon, 0.0), np.where(sells, fee, 0.0))


def settle_contracts(name: str, game: PricingGame, contracts: Contracts, reason: str) -> Outcome:
    """Compute all utilities, with every node accepting its contract.

    Parameters
    ----------
    name : str
        Registered name of the mechanism.
    game : PricingGame
        With the true costs.
    contracts : Contracts
        Contracts with fees.
    reason : str
        Reason, if nobody trades.
    """
    epsilon = contracts.epsilon
    payment = contracts.payment(epsilon, 0.0)
    return settle(name, game, epsilon, payment, reason="" if epsilon.any() else reason)


def why_nobody_sells(game: PricingGame) -> str:
    """Return why a cap buys nothing from nodes that report their costs."""
    if game.rho.size < 2:
        return "The auction needs two nodes: the report of one sets the price of the other."
    if game.cap == 0:
        return "The server has no money to spend."
    return f"The cap of {game.cap:g} does not pay for the cheapest node alone."
