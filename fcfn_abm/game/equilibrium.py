"""The Nash equilibrium of the nodes, in closed form, and to the last digit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, as_floats, require_positive
from fcfn_abm.game.exact import Floats, exact_sum, two_product, two_sum
from fcfn_abm.show import Shown

if TYPE_CHECKING:
    import pandas as pd

_LARGEST = 1e290  # so that sums of costs, and their products with n, stay finite
_ROOM = 1.0 + 1e-9  # far more than plain sums of a billion numbers are off


@dataclass(frozen=True, repr=False)
class Equilibrium(Shown):
    """The one profile from which no node gains by moving alone.

    All zero where there is no market: fewer than two nodes, or a budget of zero.
    """

    epsilon: Floats
    """Privacy budgets, dimensionless, shape (n,); zero where inactive."""
    active: npt.NDArray[np.bool_]
    """Which nodes take part, shape (n,)."""
    n_active: int
    """How many take part."""
    total_epsilon: float
    """S, the sum of all epsilon."""
    tau: float
    """Sum of the unit privacy costs of the nodes that take part."""
    utility: Floats
    """Utilities of the nodes, in currency, shape (n,)."""
    rho: Floats
    """Unit privacy costs that it was solved for, shape (n,)."""

    @property
    def threshold(self) -> float:
        """The unit privacy cost from which on a node stays out, tau / (n - 1) (48)."""
        return self.tau / (self.n_active - 1) if self.n_active > 1 else 0.0

    def to_frame(self) -> pd.DataFrame:
        """Return one row a node: ``rho``, ``epsilon``, ``active``, ``utility``."""
        import pandas as pd  # takes a while to load

        names = ("rho", "epsilon", "active", "utility")
        frame = pd.DataFrame({name: getattr(self, name) for name in names})
        return frame.rename_axis("node").reset_index()

    def plot(self) -> Any:
        """Return a figure of epsilon against unit cost: :func:`fcfn_abm.plot.equilibrium`."""
        return import_module("fcfn_abm").plot.equilibrium(self)  # figures lie above the maths

    def _describe(self) -> tuple[str, Mapping[str, object]]:
        return type(self).__name__, {
            "nodes that take part": f"{self.n_active:,} of {self.epsilon.size:,}",
            "total epsilon S": self.total_epsilon,
            "threshold of rho": self.threshold,
            "utility of all nodes": float(self.utility.sum()),
        }


def nash_equilibrium(rho: npt.ArrayLike, budget: float) -> Equilibrium:
    """Solve the contest in which nodes share the budget in proportion to epsilon.

    Node ``i`` earns ``budget * epsilon[i] / epsilon.sum() - rho[i] * epsilon[i]``.

    Parameters
    ----------
    rho : array_like of float, shape (n,)
        Unit privacy costs, in currency per unit of epsilon; positive.
    budget : float
        Payment cap B of the server for one round, in currency; zero or positive.

    Returns
    -------
    Equilibrium
        The unique equilibrium. With fewer than two nodes, or a budget of zero, there is no
        market and everything in it is zero: a result, not an error.

    Raises
    ------
    InvalidGameError
        If ``rho`` is not one-dimensional or a number is outside its range.

    Notes
    -----
    The active set is the largest one with ``rho_i < tau / (n - 1)`` for each of its n members:
    all violators are removed at once, again and again. Each pass is linear, and most passes see a
    small part of the nodes. The gap ``tau - (n - 1) rho_i``, on which both the decision and epsilon
    rest, is computed in doubled precision: in plain floats a million nodes of nearly equal cost
    lose six digits, and ties are decided at random.

    References
    ----------
    Zhou et al. 2023, eqs. 26-31 and 48; see docs/theory.md for the derivation.

    Examples
    --------
    >>> nash_equilibrium([1.0, 1.0, 5.0], budget=4.0).epsilon  # the costly node stays out
    array([1., 1., 0.])
    """
    rho = as_floats("rho", rho)
    if rho.ndim != 1:
        raise InvalidGameError(f"rho must be one-dimensional, but has shape {rho.shape}.")
    require_positive(rho=rho)
    if rho.size and rho.max() > _LARGEST:
        raise InvalidGameError(f"rho must not exceed {_LARGEST:g}, but {rho.max():g} does.")
    require_positive(zero=True, budget=budget)
    if np.ndim(budget):
        raise InvalidGameError(f"budget must be one number, but has shape {np.shape(budget)}.")
    budget = float(budget)  # whose overflow is silent, unlike that of a NumPy number
    epsilon, utility = np.zeros_like(rho), np.zeros_like(rho)
    if rho.size < 2 or budget == 0:
        active = np.zeros(rho.shape, dtype=bool)
        return Equilibrium(epsilon, active, 0, 0.0, 0.0, utility, rho)

    members, gap, tau = active_set(rho)
    share = gap / tau  # of the payments; sums to one
    total_epsilon = budget * ((members.size - 1) / tau)
    if not np.isfinite(total_epsilon):
        raise InvalidGameError(
            f"budget = {budget:g} is too large for costs as small as {rho.min():g}."
        )
    epsilon[members] = total_epsilon * share
    utility[members] = budget * share**2
    active = np.zeros(rho.shape, dtype=bool)
    active[members] = True
    return Equilibrium(epsilon, active, int(members.size), float(total_epsilon), tau, utility, rho)


def active_set(rho: Floats) -> tuple[npt.NDArray[np.intp], Floats, float]:
    """Return who takes part (row numbers), their gaps tau - (n - 1) rho, and tau."""
    cheapest, next_cheapest = np.partition(rho, 1)[:2]
    # The threshold falls as nodes enter, and is the sum of the two cheapest while they are alone;
    # that sum is rounded, so a tie with it is left to the exact test.
    members = np.flatnonzero(rho <= cheapest + next_cheapest)
    costs = rho[members]
    while True:  # in plain floats, with room for their errors: few are left for the exact test
        inside = costs <= costs.sum() / (costs.size - 1) * _ROOM
        if inside.all():
            break
        members, costs = members[inside], costs[inside]
    while True:
        gap, tau = _gap(rho[members])
        inside = gap > 0
        if inside.all():
            return members, gap, tau
        members = members[inside]


def _gap(rho: Floats) -> tuple[Floats, float]:
    """Return ``rho.sum() - (n - 1) * rho`` in doubled precision, rounded once, and the sum."""
    # All costs but the cheapest lie within a factor of two: their sum is exact in two floats. The
    # cheapest may be so small that it is all that keeps them in: it is added last.
    first = rho.argmin()
    cheapest = float(rho[first])
    rest = rho.copy()
    rest[first] = 0.0
    total, total_error = exact_sum(rest)
    product, product_error = two_product(np.array(rho.size - 1.0), rho)
    difference, difference_error = two_sum(total, -product)
    gap = (difference + (difference_error + (total_error - product_error))) + cheapest
    return gap, total + (total_error + cheapest)
