"""The best epsilon of a node while all other nodes keep theirs."""

from __future__ import annotations

import math
from typing import overload

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, as_floats, as_number, require_positive
from fcfn_abm.game.exact import Floats, two_product

EPSILON_FLOOR = 1e-6
"""Smallest report of a node that takes part; a market without reports can restart from it."""


@overload
def best_response(
    rho: float, others: float, budget: float, epsilon_floor: float = ...
) -> float: ...
@overload
def best_response(
    rho: npt.ArrayLike,
    others: npt.ArrayLike,
    budget: npt.ArrayLike,
    epsilon_floor: float = ...,
) -> Floats: ...
def best_response(
    rho: npt.ArrayLike,
    others: npt.ArrayLike,
    budget: npt.ArrayLike,
    epsilon_floor: float = EPSILON_FLOOR,
) -> Floats | float:
    """Return the privacy budget that maximises a node's utility against the others' total.

    Solves ``max_x budget * x / (x + others) - rho * x`` over ``x >= 0``.

    Parameters
    ----------
    rho : array_like of float
        Unit privacy costs, in currency per unit of epsilon; positive.
    others : array_like of float
        Sum of the other nodes' epsilon, dimensionless; zero or positive.
    budget : array_like of float
        Payment cap B for the round, in currency; zero or positive.
    epsilon_floor : float, default 1e-6
        With ``others`` at zero, any positive report wins the whole budget and no best response
        exists: this smallest report is returned, unless it costs more than ``budget``.

    Returns
    -------
    ndarray of float, or float
        ``max(0, sqrt(budget * others / rho) - others)``, in the broadcast shape of the inputs; a
        float if all of them are scalars.

    Raises
    ------
    InvalidGameError
        If a value is negative or not finite, a cost is zero, the shapes cannot be broadcast, or the
        result overflows.

    Notes
    -----
    The textbook form subtracts two large numbers when ``others`` is close to ``budget / rho``, the
    point beyond which staying out is best. Evaluated here is the equal expression ``r (B - rho s) /
    B / (1 + s / r)`` with ``r = sqrt(B s / rho)``, whose difference is computed in doubled
    precision, which keeps all digits there. Roots are taken separately, because ``B s`` and ``rho /
    s`` may over- or underflow.

    References
    ----------
    Zhou et al. 2023, eq. 22; see docs/theory.md for the corner case that the paper omits.

    Examples
    --------
    >>> best_response(1.0, others=1.0, budget=4.0)
    1.0
    >>> best_response([0.5, 5.0], others=1.0, budget=4.0)
    array([1.82842712, 0.        ])
    """
    rho, others = as_floats("rho", rho), as_floats("others", others)
    budget, epsilon_floor = as_floats("budget", budget), as_number("epsilon_floor", epsilon_floor)
    require_positive(rho=rho, epsilon_floor=epsilon_floor)
    require_positive(zero=True, others=others, budget=budget)
    try:
        np.broadcast_shapes(rho.shape, others.shape, budget.shape)
    except ValueError:
        raise InvalidGameError(
            "rho, others and budget must have shapes that can be broadcast, but have "
            f"{rho.shape}, {others.shape} and {budget.shape}."
        ) from None
    with np.errstate(over="ignore", invalid="ignore"):
        product, error = two_product(rho, others)
        surplus = (budget - product) - error
        root = np.sqrt(budget) / np.sqrt(rho) * np.sqrt(others)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        reply = root * (surplus / budget) / (1.0 + others / root)
    reply = np.where(surplus > 0, reply, 0.0)
    reply = np.where(others > 0, reply, _reply_alone(rho, budget, epsilon_floor))
    if not np.isfinite(reply).all():
        raise InvalidGameError(
            f"budget = {budget.max():g} is too large for costs as small as {rho.min():g}."
        )
    return float(reply) if reply.ndim == 0 else reply


def reply_all(rho: Floats, others: Floats, budget: float, epsilon_floor: float) -> Floats:
    """Return the best responses of many nodes, without checks, in plain floats.

    Play does not need the doubled precision of `best_response`: ``others`` is a total minus one
    report, and has lost as many digits itself. With the pull ``q = rho s / B`` the reply is ``s (1
    - q) / (sqrt(q) + q)``.
    """
    if budget <= 0:
        return np.zeros_like(rho)
    # if the pull is infinite, staying out is best as well
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        pull = others / budget * rho
        reply = others * (1.0 - pull) / (np.sqrt(pull) + pull)
        alone = _reply_alone(rho, budget, epsilon_floor)
    return np.where(pull > 0, np.where(pull < 1, reply, 0.0), alone)


def _reply_alone(rho: Floats, budget: Floats | float, epsilon_floor: float) -> Floats:
    """Return the reports of nodes that are alone in the market."""
    return np.where(budget > rho * epsilon_floor, epsilon_floor, 0.0)


def reply_one(rho: float, others: float, budget: float, epsilon_floor: float) -> float:
    """Return the best response of one node, without checks; bitwise equal to `reply_all`."""
    if budget <= 0:
        return 0.0
    pull = others / budget * rho
    if pull <= 0:
        return epsilon_floor if budget > rho * epsilon_floor else 0.0
    return others * (1.0 - pull) / (math.sqrt(pull) + pull) if pull < 1 else 0.0
