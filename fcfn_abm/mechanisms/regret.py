"""A node's possible gain by a deviation, under any mechanism."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import FcfnError
from fcfn_abm.mechanisms.base import Contest, Contracts, Mechanism, Outcome, PricingGame

type Floats = npt.NDArray[np.float64]

_STEPS = np.array([0.0, *np.geomspace(0.01, 100.0, 161)])
"""Factors of epsilon, or of the others' sum, that a node tries instead of its own epsilon."""
_REPORTS = np.array([0.5, 0.8, 0.95, 1.05, 1.25, 2.0])
"""Factors of its cost that a node reports instead of it."""


def largest_gain(
    mechanism: Mechanism,
    game: PricingGame,
    outcome: Outcome,
    chance: Callable[[], np.random.Generator],
) -> float:
    """Return the largest gain of one node by a deviation, the others' moves fixed: the regret.

    Parameters
    ----------
    mechanism : Mechanism
        With its options.
    game : PricingGame
        One population, with its payment cap, and only costs rho * epsilon.
    outcome : Outcome
        The mechanism's outcome in this game.
    chance : callable
        Returns the mechanism's generator, always in the same state, so that draws stay the same.

    Returns
    -------
    float
        The largest gain, as a share of the payments (or of the nodes' costs, if larger); zero if no
        node gains.

    Notes
    -----
    A deviation is what the mechanism leaves to a node: another epsilon if payments are shared by
    epsilon; another node's contract, or none, if each contract has a payment; another reported cost
    if costs are reported, by the lowest-cost node, the last seller and the first non-seller.
    Deviations are on a grid, so that the true regret may be slightly larger.

    Examples
    --------
    >>> from fcfn_abm.mechanisms import MECHANISMS
    >>> game = PricingGame(np.array([1.0, 1.0, 5.0]), alpha=1.0, beta=10.0, budget=4.0)
    >>> static = MECHANISMS.create("static", {"epsilon": 1.0})
    >>> outcome = static.outcome(game, np.random.default_rng())
    >>> round(largest_gain(static, game, outcome, np.random.default_rng), 3)
    0.524
    """
    scale = max(float(outcome.payment.sum()), float(game.rho @ outcome.epsilon))
    if scale <= 0:
        return 0.0
    if mechanism.reports == "cost":
        gain = _gain_by_report(mechanism, game, outcome, chance)
    else:
        offer = mechanism.offer(game, chance())
        if isinstance(offer, Contracts) and offer.fee is not None:
            gain = _gain_by_contract(game, outcome, offer, offer.fee)
        else:
            gain = _gain_by_epsilon(game, outcome, offer)
    return max(gain, 0.0) / scale


def _gain_by_epsilon(game: PricingGame, outcome: Outcome, offer: Contest | Contracts) -> float:
    """Let each node sell another epsilon, if the pool is shared by scores of epsilon."""
    contest = offer if isinstance(offer, Contest) else Contest()
    pool = float(game.cap if contest.pool is None else contest.pool)
    epsilon, rho = outcome.epsilon[:, None], game.rho[:, None]
    weight = 1.0 if contest.weight is None else contest.weight[:, None]
    score = contest.score(outcome.epsilon)
    others = np.maximum(score.sum() - score, 0.0)[:, None]
    matched = (others / weight) ** (1.0 / contest.exponent)
    tried = np.concatenate([epsilon * _STEPS, matched * _STEPS], axis=1)
    scores = weight * tried**contest.exponent
    with np.errstate(invalid="ignore"):
        share = np.where(tried > 0, scores / (scores + others), 0.0)
    return float((pool * share - rho * tried - outcome.node_utility[:, None]).max())


def _gain_by_contract(game: PricingGame, outcome: Outcome, offer: Contracts, fee: Floats) -> float:
    """Let each node take another node's contract, or none."""
    paid = np.where(offer.epsilon > 0, fee, 0.0)
    utility = (paid - np.multiply.outer(game.rho, offer.epsilon)).max(axis=1)
    return float((np.maximum(utility, 0.0) - outcome.node_utility).max())


def _gain_by_report(
    mechanism: Mechanism,
    game: PricingGame,
    outcome: Outcome,
    chance: Callable[[], np.random.Generator],
) -> float:
    """Let the marginal nodes, and the lowest-cost node, report another cost."""
    order = np.argsort(game.rho, kind="stable")
    n_sellers = int(np.count_nonzero(outcome.epsilon))
    places = np.unique(np.clip([0, n_sellers - 1, n_sellers], 0, order.size - 1))
    gain = 0.0
    for node in order[places]:
        for factor in _REPORTS:
            reports = game.bids.copy()
            reports[node] = game.rho[node] * factor
            try:
                other = mechanism.outcome(replace(game, reported_cost=reports), chance())
            except FcfnError:  # a refused report is not a possible deviation
                continue
            gain = max(gain, float(other.node_utility[node] - outcome.node_utility[node]))
    return gain
