"""The pricing of Yang et al. as printed by Zhou et al. 2023: the solution of (57)-(59)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from fcfn_abm.errors import InvalidGameError, as_floats, require_positive

type Floats = npt.NDArray[np.float64]
type PriceRoot = Literal["square", "none", "exact"]
type EpsilonExponent = Literal["cube-root", "literal"]

_GRID = 1000  # points of the search for a solution of equal sellers
_HALVINGS = 64  # halvings of a bracket; the ratio of its ends falls below 1 + 1e-16
_NEWTON_STEPS = 25
_SMALLEST_STEP = 1e-6  # as a share of the way from equal costs to the given ones
_LAST_CHANGE = 1e-9  # change of log x at convergence; the remaining error is its square


@dataclass(frozen=True)
class Purchases:
    """The buyer's purchases from each seller, with prices and privacy budgets."""

    epsilon: Floats
    """eps_i, privacy budget of each seller's data, shape (n,); zero without a solution."""
    unit_price: Floats
    """p_i, the agency's price of a unit of seller i's data, in currency, shape (n,)."""
    amount: Floats
    """a_i, the number of units purchased from seller i, shape (n,)."""
    reason: str = ""
    """Why there is no solution, in a sentence; empty if there is one."""

    @property
    def is_solved(self) -> bool:
        """Whether a positive solution was found."""
        return not self.reason

    @property
    def purchase_price(self) -> Floats:
        """p_i (1 + eps_i) a_i, the buyer's payment for seller i's data, in currency, shape (n,)."""
        return self.unit_price * (1.0 + self.epsilon) * self.amount

    @property
    def compensation(self) -> Floats:
        """p_i eps_i a_i, its part for the loss of privacy, in currency, shape (n,)."""
        return self.unit_price * self.epsilon * self.amount


def solve_yang_equations(
    rho: npt.ArrayLike,
    alpha: float,
    price_root: PriceRoot = "square",
    epsilon_exponent: EpsilonExponent = "cube-root",
) -> Purchases:
    """Solve (57)-(59) for all sellers together.

    With ``Q_i = sum_{j != i} 1 / p_j`` and ``A_i = Q_i + 1 + eps_i``, every seller i has

    - (57) ``a_i = alpha / (p_i (1 + eps_i)) - 1``;
    - (58) ``p_i = A_i / (sqrt(alpha A_i / c_i) - Q_i)``;
    - (59) ``eps_i = (alpha / (a_i p_i)) ** (1/3)``.

    **(58) and the exponent of (59) are restored by us**: the available text of the paper has lost
    its radicals. (57) is certain. The other interpretations are options.

    Parameters
    ----------
    rho : array_like of float, shape (n,)
        Unit costs c_i of the sellers, in currency per unit of epsilon; positive; n >= 1.
    alpha : float
        The buyer's coefficient.
    price_root : {"square", "none", "exact"}, default "square"
        Interpretation of (58): as above, without its root (``A / (alpha A / c - Q)``), or the
        optimum of ``alpha x / (x + A) - c x`` in ``x = 1 / p`` (``1 / (sqrt(alpha A / c) - A)``).
    epsilon_exponent : {"cube-root", "literal"}, default "cube-root"
        Interpretation of (59): as above, or ``alpha ** 3 / (a p)``, as its characters stand.

    Returns
    -------
    Purchases
        All zero, with a ``reason``, if no positive solution is found.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or rho is empty.

    Notes
    -----
    (57) and (59) together are ``p = alpha / (1 + eps) - alpha / eps ** 3`` (literal:
    ``alpha / (1 + eps) - alpha ** 3 / eps``). This price rises from zero to a maximum and falls
    again, so that each price below the maximum belongs to two values of epsilon. On the rising
    branch (a, eps) is a maximum of the buyer's utility ``alpha ln(1 + a) - p (1 + eps) a - alpha /
    (2 eps ** 2)``; on the falling branch it is a saddle point. Solutions are therefore searched on
    the rising branch: with the cube root epsilon lies between 1.3247 (where ``eps ** 3 = 1 + eps``)
    and 2.4415, and p below 0.2219 alpha. The literal (59) has no positive solution for ``alpha >=
    1``, because it needs ``eps > alpha ** 2 (1 + eps)``.

    One unknown x_i = 1 / p_i remains for each seller, coupled only by the sum of all. Equal sellers
    have equal x, found by bisection. From the solution at the mean logarithm of the costs, the
    solution for unequal costs is followed as the costs spread; a Newton step is O(n), because its
    matrix is diagonal plus rank one. If the path ends before the given costs are reached (the price
    of a high-cost seller would exceed its maximum), there is no solution with all sellers on this
    path, and the reason states it. Equal sellers could also have unequal solutions; these are not
    searched.

    References
    ----------
    Zhou et al. 2023, eqs. 57-59, after Yang et al. 2023 (Internet Technology Letters,
    doi:10.1002/itl2.443).

    Examples
    --------
    >>> import numpy as np
    >>> found = solve_yang_equations(np.full(100, 0.001), alpha=10.0)
    >>> found.epsilon[0].round(4), found.unit_price[0].round(4), found.amount[0].round(2)
    (np.float64(1.3582), np.float64(0.2494), np.float64(16.0))
    """
    rho = as_floats("rho", rho)
    if rho.ndim != 1 or rho.size == 0:
        raise InvalidGameError(f"rho must be one-dimensional, but has shape {rho.shape}.")
    require_positive(rho=rho, alpha=alpha)
    if epsilon_exponent == "literal" and alpha >= 1.0:
        return _fail(
            rho,
            "Eqs. 57-59 of Zhou et al. 2023 have no positive solution if eq. 59 is read literally, "
            f"eps = alpha^3 / (a p), and alpha >= 1; here alpha = {alpha:g}.",
        )
    buyer = _Buyer.of(float(alpha), epsilon_exponent)
    cost, row, count = np.unique(rho, return_inverse=True, return_counts=True)
    system = _Sellers(buyer, count.astype(float), price_root)

    log_ratio = math.log(alpha) - np.log(cost)  # log(alpha / c)
    middle = float(count @ log_ratio) / rho.size
    start = _solve_equal(system, middle, rho.size)
    if start is None:
        return _fail(
            rho,
            f"For equal sellers of cost {alpha * math.exp(-middle):g}, no unit price up to "
            f"{buyer.highest_price:g}, the largest that eqs. 57 and 59 of Zhou et al. 2023 allow, "
            "satisfies eq. 58.",
        )
    found = _follow(system, middle, log_ratio, np.full(cost.size, start))
    if isinstance(found, float):
        return _fail(
            rho,
            "No positive solution of eqs. 57-59 of Zhou et al. 2023 with all sellers continues the "
            f"one for equal costs: it ends at {100 * found:.3g} % of the spread of the logarithms "
            "of the costs.",
        )
    price = 1.0 / found[row]
    epsilon = buyer.epsilon(price)
    return Purchases(epsilon, price, alpha / (price * (1.0 + epsilon)) - 1.0)


def _fail(rho: Floats, reason: str) -> Purchases:
    nothing = np.zeros_like(rho)
    return Purchases(nothing, nothing, nothing, reason)


@dataclass(frozen=True)
class _Buyer:
    """(57) and (59) together: p = alpha / (1 + eps) - noise / eps ** power, while it rises."""

    alpha: float
    noise: float
    power: int
    lowest: float
    """Epsilon at which the price is zero."""
    highest: float
    """Epsilon at which the price is largest."""

    @classmethod
    def of(cls, alpha: float, exponent: EpsilonExponent) -> _Buyer:
        if exponent == "cube-root":
            root = math.sqrt(69.0)  # the real root of eps ** 3 = 1 + eps, by Cardano
            lowest = math.cbrt((9.0 + root) / 18.0) + math.cbrt((9.0 - root) / 18.0)
            highest = (math.sqrt(3.0) + math.sqrt(3.0 + 4.0 * math.sqrt(3.0))) / 2.0
            return cls(alpha, alpha, 3, lowest, highest)
        lowest = alpha**2 / ((1.0 - alpha) * (1.0 + alpha))
        return cls(alpha, alpha**3, 1, lowest, alpha / (1.0 - alpha))

    def price(self, epsilon: Floats | float) -> Floats:
        return np.asarray(self.alpha / (1.0 + epsilon) - self.noise / epsilon**self.power)

    def slope(self, epsilon: Floats) -> Floats:
        falling = self.alpha / (1.0 + epsilon) ** 2
        rising: Floats = self.power * self.noise / epsilon ** (self.power + 1)
        return rising - falling

    @property
    def highest_price(self) -> float:
        return float(self.price(self.highest))

    def epsilon(self, price: Floats) -> Floats:
        """Invert `price` by bisection of log epsilon."""
        low, high = np.full(price.shape, self.lowest), np.full(price.shape, self.highest)
        for _ in range(_HALVINGS):
            middle: Floats = np.sqrt(low * high)
            below = self.price(middle) < price
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray(np.sqrt(low * high))


@dataclass(frozen=True)
class _Sellers:
    """(58) for each distinct cost, as log(left side) - log(right side) in x = 1 / p."""

    buyer: _Buyer
    count: Floats
    price_root: PriceRoot

    def residual(
        self, x: Floats, others: Floats, log_ratio: Floats | float
    ) -> tuple[Floats, Floats, Floats]:
        """Return the residual, and its derivatives in x and in the sum of the others' x."""
        price: Floats = 1.0 / x
        epsilon = self.buyer.epsilon(price)
        total: Floats = others + 1.0 + epsilon  # A
        with np.errstate(divide="ignore"):  # the slope is zero at the highest price
            by_x = -(price**2) / self.buyer.slope(epsilon)  # of epsilon, and so of A
        one = np.ones_like(x)
        root, in_x, in_others, in_total = 0.5, one, 0.0 * one, one
        left = x + total
        if self.price_root == "square":
            left = x * total + others
            in_x, in_others, in_total = total, one, x
        elif self.price_root == "none":
            left = x + others / total
            root, in_others, in_total = 0.0, 1.0 / total, -others / total**2
        by_total = in_total / left - root / total
        value = np.log(left) - log_ratio * (root or 1.0) - root * np.log(total)
        return value, in_x / left + by_total * by_x, in_others / left + by_total


def _solve_equal(system: _Sellers, log_ratio: float, n_sellers: int) -> float | None:
    """Return x = 1 / p of equal sellers, the largest one on the buyer's branch, or None."""

    def excess(x: Floats) -> Floats:
        return system.residual(x, (n_sellers - 1) * x, log_ratio)[0]

    low = 1.0 / system.buyer.highest_price
    # from here on the left side of (58) is larger
    top = 2.0 * math.exp(log_ratio * (0.5 if system.price_root == "square" else 1.0))
    if top <= low:
        return None
    # squares, because epsilon leaves the highest price with a vertical tangent
    grid = low * np.exp(math.log(top / low) * np.linspace(0.0, 1.0, _GRID) ** 2)
    below = np.flatnonzero(excess(grid) < 0)
    if not below.size:
        return None
    low, top = np.log(grid[below[-1] : below[-1] + 2]).tolist()
    return math.exp(brentq(lambda y: float(excess(np.exp([y]))[0]), low, top, xtol=1e-15))


def _follow(system: _Sellers, middle: float, log_ratio: Floats, x: Floats) -> Floats | float:
    """Spread the costs step by step; return x for all of them, or how far the path reaches."""
    reached, step = 0.0, 1.0
    while reached < 1.0:
        tried = min(1.0, reached + step)
        found = _newton(system, middle + tried * (log_ratio - middle), x)
        if found is not None:
            x, reached, step = found, tried, 2.0 * step
        else:
            step /= 2.0
            if step < _SMALLEST_STEP:
                return reached
    return x


def _newton(system: _Sellers, log_ratio: Floats, x: Floats) -> Floats | None:
    """Solve (58) for all sellers from a close start; None if Newton's method fails."""
    floor = 1.0 / system.buyer.highest_price
    for _ in range(_NEWTON_STEPS):
        weight = system.count * x
        others = weight.sum() - x
        if (others < 0).any():
            return None
        value, by_x, by_others = system.residual(x, others, log_ratio)
        # in log x the matrix is diag((by_x - by_others) x) + by_others weight^T
        with np.errstate(all="ignore"):
            diagonal = (by_x - by_others) * x
            first, second = -value / diagonal, by_others / diagonal
            change = first - second * ((weight @ first) / (1.0 + weight @ second))
        if not np.isfinite(change).all() or np.abs(change).max() > 5.0:
            return None
        x = x * np.exp(change)
        if (x <= floor).any():
            return None
        if np.abs(change).max() < _LAST_CHANGE:
            return x
    return None
