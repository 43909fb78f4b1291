"""What mechanisms share that ask nodes for their costs and buy the same from each seller."""

from __future__ import annotations

import numpy as np

from fcfn_abm.mechanisms.base import Contracts, Floats, Outcome, PricingGame, settle


def buy_from_cheapest(bids: Floats, n_sellers: int, epsilon: float, fee: float) -> Contracts:
    """Return the contracts in which the nodes with the lowest reports sell the same.

    Parameters
    ----------
    bids : ndarray of float, shape (n,)
        Reported unit costs, in currency per unit of epsilon.
    n_sellers : int
        How many nodes sell; of equal reports those with the lower numbers come first.
    epsilon : float
        What each of them sells, dimensionless.
    fee : float
        What each of them is paid, in currency.
    """
    sells = np.zeros(bids.size, dtype=bool)
    sells[np.argsort(bids, kind="stable")[:n_sellers]] = True
    return Contracts(np.where(sells, epsilon, 0.0), np.where(sells, fee, 0.0))


def settle_contracts(name: str, game: PricingGame, contracts: Contracts, reason: str) -> Outcome:
    """Work out everybody's utility where each node takes its contract.

    Parameters
    ----------
    name : str
        Registered name of the mechanism.
    game : PricingGame
        With the true costs.
    contracts : Contracts
        With a fee each.
    reason : str
        Why nobody trades, where nobody does.
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
