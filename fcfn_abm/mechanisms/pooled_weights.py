"""Weights instead of payments: nodes state the largest epsilon they accept, and nobody is paid."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.mechanisms.base import (
    MECHANISMS,
    Contracts,
    Floats,
    Mechanism,
    Outcome,
    PricingGame,
    settle,
)
from fcfn_abm.mechanisms.claims import Claims
from fcfn_abm.scenario.schema import Positive


@MECHANISMS.register("pooled-weights")
class PooledWeights(Mechanism):
    """The server pays nothing, but weights nodes so that none spends more than it accepts.

    Notes
    -----
    Node i accepts an epsilon of at most e_i. One noise with parameter eta protects the weighted
    mean of all nodes, in which a node with weight w_i spends ``epsilon_i = w_i eta``. The server
    chooses eta, and weights that sum to one, to minimize ``sum w**2 / 4 + 2 / eta**2``, the
    variances of sampling and of the noise. The optimal epsilon is ``min(L, e_i)``: one level L for
    all nodes that accept it. Below the largest e_i, L is the root of ``sum e_i (L - e_i) = 8`` over
    the nodes with e_i below L, which is linear between two of the e_i.

    References
    ----------
    Chaudhuri and Courtade 2023, "Mean estimation under heterogeneous privacy: some privacy can be
    free"; their estimator, with any number of different requirements.
    """

    accepted: Annotated[tuple[Positive, ...], Field(strict=False)] = ()
    """Largest epsilon that each node accepts, one per node. By default ``loss / rho`` each."""
    loss: Positive | None = None
    """Largest privacy cost that a node accepts, in currency. By default B / n_nodes."""

    @property
    def claims(self) -> Claims:
        """Claims; nodes are not paid, so that they lose money."""
        return Claims(
            budget_balanced=True,
            monotone=True,
            anonymous=not self.accepted,
            scale_invariant=bool(self.accepted) or self.loss is None,
        )

    def requirements(self, game: PricingGame) -> Floats:
        """Return the largest epsilon that each node accepts, shape (n,).

        Raises
        ------
        InvalidGameError
            If the number of values is not the number of nodes.
        """
        if not self.accepted:
            loss = game.cap / max(game.rho.size, 1) if self.loss is None else self.loss
            return loss / game.rho
        if len(self.accepted) != game.rho.size:
            raise InvalidGameError(
                f"accepted must have one value for each of {game.rho.size} nodes, but has "
                f"{len(self.accepted)}."
            )
        return np.array(self.accepted)

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:  # noqa: ARG002
        """Return what nodes sell without payment (compulsory)."""
        epsilon = pooled_epsilon(self.requirements(game))
        why = "" if epsilon.any() else "No node accepts any loss of privacy."
        return settle("pooled-weights", game, epsilon, np.zeros_like(epsilon), reason=why)

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contracts:
        """Return contracts without payment; in a market all nodes refuse them."""
        epsilon = self.outcome(game, rng).epsilon
        return Contracts(epsilon, np.zeros_like(epsilon))


def pooled_epsilon(accepted: Floats) -> Floats:
    """Return the epsilons for which a weighted mean of all nodes is most precise.

    Parameters
    ----------
    accepted : ndarray of float, shape (n,)
        Largest epsilon that each node accepts, dimensionless; zero or positive.

    Returns
    -------
    ndarray of float, shape (n,)
        ``min(L, accepted)``; weights are ``epsilon / epsilon.sum()``, and the sum is eta.

    Examples
    --------
    >>> pooled_epsilon(np.array([1.0, 2.0, 8.0, 8.0])) * 3
    array([ 3.,  6., 13., 13.])
    """
    if accepted.size == 0 or accepted.max() == 0:
        return np.zeros_like(accepted)
    ranked = np.sort(accepted)
    total, squares = np.cumsum(ranked), np.cumsum(ranked**2)
    # above the level of the k-th requirement, L is (sum of squares + 8) / sum of the k smallest
    with np.errstate(divide="ignore"):
        level = (squares + 8.0) / total
    inside = np.flatnonzero(level[:-1] <= ranked[1:])
    return np.minimum(accepted, float(level[inside[0]] if inside.size else ranked[-1]))
