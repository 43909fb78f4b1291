"""The Nash equilibrium of the nodes, in closed form, accurate to the last digit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, as_floats, require_positive
from fcfn_abm.game.batch import ROOM, active_sets
from fcfn_abm.game.exact import Floats, PerGame, exact_sum, two_product, two_sum
from fcfn_abm.show import Shown

if TYPE_CHECKING:
    import pandas as pd

type ActiveSet = tuple[npt.NDArray[np.intp], Floats, float]
"""Row numbers of the nodes that take part, their gaps tau - (n - 1) rho, and tau."""

_LARGEST = 1e290  # keeps sums of costs, and their products with n, finite


@dataclass(frozen=True, repr=False)
class Equilibrium(Shown):
    """The unique profile from which no node gains by moving alone.

    All zero if there is no market: fewer than two nodes, or a budget of zero. For k populations
    solved together, arrays of shape (n,) have shape (k, n), and numbers shape (k,).
    """

    epsilon: Floats
    """Privacy budgets, dimensionless, shape (n,); zero where inactive."""
    active: npt.NDArray[np.bool_]
    """Which nodes take part, shape (n,)."""
    n_active: PerGame
    """Number of nodes that take part."""
    total_epsilon: PerGame
    """S, the sum of all epsilon."""
    tau: PerGame
    """Sum of the unit privacy costs of the nodes that take part."""
    utility: Floats
    """Utilities of the nodes, in currency, shape (n,)."""
    rho: Floats
    """Unit privacy costs for which it was solved, shape (n,)."""

    @property
    def threshold(self) -> PerGame:
        """Unit privacy cost from which a node stays out, tau / (n - 1) (48)."""
        threshold = np.asarray(self.tau / np.maximum(self.n_active - 1, 1))  # tau may be zero
        return threshold if threshold.ndim else threshold.item()

    def to_frame(self) -> pd.DataFrame:
        """Return one row per node: ``rho``, ``epsilon``, ``active``, ``utility``.

        For k populations, one row per population and node, with ``population`` as the first column.
        """
        import pandas as pd  # slow to import

        names = ("rho", "epsilon", "active", "utility")
        places = ("population", "node")[-self.rho.ndim :]
        index = np.indices(self.rho.shape).reshape(self.rho.ndim, -1)
        columns = dict(zip(places, index, strict=True))
        return pd.DataFrame({**columns, **{name: getattr(self, name).ravel() for name in names}})

    def plot(self) -> Any:
        """Return a figure of epsilon against unit cost: :func:`fcfn_abm.plot.equilibrium`."""
        return import_module("fcfn_abm").plot.equilibrium(self)  # figures depend on this module

    def _describe(self) -> tuple[str, Mapping[str, object]]:
        if self.rho.ndim == 2:
            n_games, n_nodes = self.rho.shape
            return f"{type(self).__name__} of {n_games:,} populations of {n_nodes:,} nodes", {
                "nodes that take part, on average": float(np.mean(self.n_active)) if n_games else 0,
            }
        return type(self).__name__, {
            "nodes that take part": f"{self.n_active:,} of {self.epsilon.size:,}",
            "total epsilon S": self.total_epsilon,
            "threshold of rho": self.threshold,
            "utility of all nodes": float(self.utility.sum()),
        }


def nash_equilibrium(rho: npt.ArrayLike, budget: npt.ArrayLike) -> Equilibrium:
    """Solve the contest in which nodes share the budget in proportion to epsilon.

    Node ``i`` earns ``budget * epsilon[i] / epsilon.sum() - rho[i] * epsilon[i]``.

    Parameters
    ----------
    rho : array_like of float, shape (n,) or (k, n)
        Unit privacy costs, in currency per unit of epsilon; positive. Each row of a table is a
        population; all are solved together, with bitwise equal results, much faster than one by
        one.
    budget : float, or array_like of float, shape (k,)
        Payment cap B of the server for one round, in currency; zero or positive. One for all
        populations, or one per population.

    Returns
    -------
    Equilibrium
        The unique equilibrium. With fewer than two nodes, or a budget of zero, there is no market
        and all results are zero, without an error.

    Raises
    ------
    InvalidGameError
        If ``rho`` has other dimensions, ``budget`` another shape, or a number is outside its range.

    Notes
    -----
    The active set is the largest one with ``rho_i < tau / (n - 1)`` for each of its n members: all
    violators are removed at once, repeatedly. Each pass is linear, and most passes visit a small
    part of the nodes. The gap ``tau - (n - 1) rho_i``, which determines both the active set and
    epsilon, is computed in doubled precision: in plain floats a million nodes of nearly equal cost
    lose six digits, and ties are decided by rounding.

    References
    ----------
    Zhou et al. 2023, eqs. 26-31 and 48; see docs/theory.md for the derivation.

    Examples
    --------
    >>> nash_equilibrium([1.0, 1.0, 5.0], budget=4.0).epsilon  # the costly node stays out
    array([1., 1., 0.])
    >>> nash_equilibrium([[1.0, 1.0, 5.0], [1.0, 1.0, 1.0]], budget=4.0).n_active
    array([2, 3])
    """
    rho = as_costs(rho)
    budget = as_budgets(budget, rho)
    return solve_nodes(rho)(budget)


def solve_nodes(
    rho: Floats, find: Callable[[Floats], ActiveSet] | None = None
) -> Callable[[Floats], Equilibrium]:
    """Return a function from the budget to the nodes' equilibrium; finds the active set only once.

    Parameters
    ----------
    rho : ndarray of float, shape (n,) or (k, n)
        Unit privacy costs, checked by :func:`as_costs`. The function takes the result of
        :func:`as_budgets`.
    find : callable, optional
        Finds the active set of one game, like :func:`active_set`, the default.
    """
    if rho.ndim == 2:
        return partial(_answer_many, rho, *active_sets(rho))
    if rho.size < 2:
        return partial(_answer, rho, np.zeros(0, dtype=int), np.zeros(0), 0.0)
    return partial(_answer, rho, *(find or active_set)(rho))


def _answer(
    rho: Floats, members: npt.NDArray[np.intp], gap: Floats, tau: float, budgets: Floats
) -> Equilibrium:
    """Return the equilibrium of a game at a budget."""
    budget = float(budgets)  # a Python float overflows without a warning
    epsilon, utility = np.zeros(rho.shape), np.zeros(rho.shape)
    active = np.zeros(rho.shape, dtype=bool)
    if members.size < 2 or budget == 0:
        return Equilibrium(epsilon, active, 0, 0.0, 0.0, utility, rho)
    share = gap / tau  # of the payments; sums to one
    total_epsilon = budget * ((members.size - 1) / tau)
    _require_finite(total_epsilon, budget, rho)
    epsilon[members] = total_epsilon * share
    utility[members] = budget * share**2
    active[members] = True
    return Equilibrium(epsilon, active, int(members.size), total_epsilon, tau, utility, rho)


def _answer_many(
    rho: Floats, gap: Floats, n_active: npt.NDArray[np.int64], tau: Floats, budgets: Floats
) -> Equilibrium:
    """Return the equilibria of k games at their budgets, bitwise equal to each game by itself."""
    budgets = np.broadcast_to(budgets, len(rho))
    played = (n_active > 1) & (budgets > 0)
    n_active, tau = np.where(played, n_active, 0), np.where(played, tau, 0.0)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        total_epsilon = np.where(played, budgets * ((n_active - 1) / tau), 0.0)
        share = np.where(played[:, None], gap / tau[:, None], 0.0)
    for row in np.flatnonzero(~np.isfinite(total_epsilon)):
        _require_finite(float(total_epsilon[row]), float(budgets[row]), rho[row])
    epsilon, utility = total_epsilon[:, None] * share, budgets[:, None] * share**2
    return Equilibrium(epsilon, share > 0, n_active, total_epsilon, tau, utility, rho)


def _require_finite(total_epsilon: float, budget: float, rho: Floats) -> None:
    if not math.isfinite(total_epsilon):
        raise InvalidGameError(
            f"budget = {budget:g} is too large for costs as small as {rho.min():g}."
        )


def as_costs(rho: npt.ArrayLike) -> Floats:
    """Return checked unit privacy costs of one game, shape (n,), or of k games, shape (k, n).

    Raises
    ------
    InvalidGameError
        If the shape is wrong, or a cost is out of range.
    """
    rho = as_floats("rho", rho)
    require_populations(rho=rho)
    rho = np.ascontiguousarray(rho)  # sums of rows depend on the memory layout
    if rho.size and not (rho.min() > 0 and rho.max() <= _LARGEST):  # NaN is neither
        require_positive(rho=rho)
        raise InvalidGameError(f"rho must not exceed {_LARGEST:g}, but contains {rho.max():g}.")
    return rho


def as_population(rho: npt.ArrayLike) -> Floats:
    """Return the costs of one population as an array of shape (n,)."""
    rho = as_floats("rho", rho)
    if rho.ndim != 1:
        raise InvalidGameError(f"rho must have shape (n,), but has shape {rho.shape}.")
    return rho


def require_populations(**values: Floats) -> None:
    """Raise InvalidGameError unless each array has shape (n,), or (k, n) for k populations."""
    for name, array in values.items():
        if array.ndim not in (1, 2):
            raise InvalidGameError(
                f"{name} must have shape (n,), or (k, n) for k populations, but has shape "
                f"{array.shape}."
            )


def as_budgets(budget: npt.ArrayLike, rho: Floats) -> Floats:
    """Return checked payment caps: of one game, of all k games, or one per game.

    Raises
    ------
    InvalidGameError
        If a cap is negative or not finite, or if the shape is wrong.
    """
    require_positive(zero=True, budget=budget)
    budget = as_floats("budget", budget)
    if budget.shape not in ((), rho.shape[:-1]):
        one = "one number" if rho.ndim == 1 else f"one number, or {len(rho)}: one per population"
        raise InvalidGameError(f"budget must be {one}, but has shape {budget.shape}.")
    return budget


def active_set(rho: Floats) -> ActiveSet:
    """Return the active set of one game of two nodes or more."""
    cheapest, next_cheapest = np.partition(rho, 1)[:2]
    # The threshold falls as nodes enter, and starts as the sum of the two lowest costs; that sum is
    # rounded, so that ties with it are left to the exact test.
    members = np.flatnonzero(rho <= cheapest + next_cheapest)
    costs = rho[members]
    while True:  # in plain floats, with a margin for errors: few are left for the exact test
        inside = costs <= costs.sum() / (costs.size - 1) * ROOM
        if inside.all():
            break
        members, costs = members[inside], costs[inside]
    while True:
        gap, tau = _gap(rho[members])
        inside = gap > 0
        if inside.all():
            return members, gap, float(tau)
        members = members[inside]


def _gap(rho: Floats) -> tuple[Floats, float]:
    """Return ``rho.sum() - (n - 1) * rho`` in doubled precision, rounded once, and the sum."""
    # All costs but the lowest lie within a factor of two: their sum is exact in two floats. The
    # lowest may be so small that only it keeps the others active: it is added last.
    first = rho.argmin()
    cheapest = float(rho[first])
    rest = rho.copy()
    rest[first] = 0.0
    total, total_error = map(float, exact_sum(rest))
    product, product_error = two_product(np.array(rho.size - 1.0), rho)
    difference, difference_error = two_sum(total, -product)
    gap = (difference + (difference_error + (total_error - product_error))) + cheapest
    return gap, total + (total_error + cheapest)
