"""Random games for the check of mechanisms: equal and unequal costs, ties, one and many nodes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fcfn_abm.game import AverageOver
from fcfn_abm.mechanisms.base import PricingGame

type Floats = npt.NDArray[np.float64]
type Draw = Callable[[np.random.Generator, int], Floats]

SIZES = (1, 2, 2, 3, 3, 4, 5, 6, 8, 12)
"""Numbers of nodes, with equal probability of each entry."""

_AVERAGES: tuple[AverageOver, ...] = ("active", "population", "effective")


def _two_types(rng: np.random.Generator, n_nodes: int) -> Floats:
    return np.where(rng.random(n_nodes) < 0.5, 1.0, rng.uniform(1.0, 4.0))


def _one_far_below(rng: np.random.Generator, n_nodes: int) -> Floats:
    rho = rng.uniform(0.5, 1.5, n_nodes)
    rho[rng.integers(n_nodes)] *= 1e-6
    return rho


COSTS: dict[str, Draw] = {
    "uniform": lambda rng, n: rng.uniform(0.5, 1.5, n),
    "uniform from zero": lambda rng, n: 1.0 - rng.random(n),  # never zero itself
    "lognormal": lambda rng, n: rng.lognormal(0.0, 0.3, n),
    "lognormal, wide": lambda rng, n: rng.lognormal(0.0, 1.5, n),
    "ties": lambda rng, n: rng.integers(1, 4, n).astype(float),
    "equal": lambda rng, n: np.full(n, float(rng.integers(1, 4))),
    "two types": _two_types,
    "orders of magnitude": lambda rng, n: 10.0 ** rng.uniform(-4.0, 4.0, n),
    "one far below": _one_far_below,
}
"""Distributions of costs, in some currency unit, with equal probability of each entry."""


def draw_game(rng: np.random.Generator, n_nodes: int | None = None) -> PricingGame:
    """Draw a game with a given payment cap.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n_nodes : int, optional
        Number of nodes. By default one of :data:`SIZES`.

    Returns
    -------
    PricingGame
        Costs from one of :data:`COSTS`, in a random currency unit. In half of the games the cap is
        an integer multiple of that unit, so that integer costs meet thresholds exactly.
    """
    n_nodes = int(rng.choice(SIZES)) if n_nodes is None else n_nodes
    kind = list(COSTS)[rng.integers(len(COSTS))]
    rho = COSTS[kind](rng, n_nodes)
    if rng.random() < 0.5:
        unit, budget = 2.0 ** int(rng.integers(-8, 9)), float(rng.integers(1, 2 * n_nodes + 3))
    else:
        unit, budget = 10.0 ** rng.uniform(-4.0, 4.0), n_nodes * 10.0 ** rng.uniform(-1.5, 1.5)
    return PricingGame(
        rho * unit,
        alpha=10.0 ** rng.uniform(-2.0, 2.0),
        beta=budget * unit * 10.0 ** rng.uniform(-1.0, 2.0),
        budget=budget * unit,
        average_over=_AVERAGES[rng.integers(len(_AVERAGES))],
    )
