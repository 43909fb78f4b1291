"""Privacy costs of nodes: four forms, and the best responses under each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, as_floats, as_number, require_one_of, require_positive
from fcfn_abm.game.best_response import EPSILON_FLOOR, reply_all
from fcfn_abm.game.exact import Floats

type CostForm = Literal["linear", "power", "sqrt", "exponential"]

_STEPS = 100  # largest number of Newton steps; three to ten are typical
_STEEPEST = 690.0  # an epsilon whose exponential does not overflow in products


@dataclass(frozen=True)
class CostForms:
    """A form of the cost of epsilon, ``rho * k(epsilon)``, with the functions that play needs."""

    value: Callable[[Floats], Floats]
    """k: the cost of epsilon per unit of rho."""
    slope: Callable[[Floats], Floats]
    """Its derivative."""
    curvature: Callable[[Floats], Floats]
    """Its second derivative."""
    inverse: Callable[[Floats], Floats]
    """The inverse of k."""
    reply: Callable[[Floats, Floats, float], Floats]
    """``reply(rho, others, budget)``: the local maximum above zero, or zero if there is none."""
    largest: Callable[[Floats], Floats]
    """``largest(B / (4 rho))``: the largest of all best responses, the solution of ``x k'(x) =``
    that argument."""
    share: Callable[[Floats, float], Floats] | None
    """``share(pull, total)``: the share x / S of a node in equilibrium at a total S, for the pull
    ``rho S / B``; zero if it stays out. None if the cost is not convex: some totals then have two
    shares."""

    @property
    def is_convex(self) -> bool:
        """Whether the equilibrium without fixed cost and reserve is unique."""
        return self.share is not None


@dataclass(frozen=True)
class Terms:
    """Costs and limits of taking part, besides the unit cost; the defaults are the paper's game.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or a cap below the reserve.
    """

    cost: CostForm = "linear"
    """``linear`` rho eps, ``power`` rho eps^2, ``sqrt`` 2 rho sqrt(eps), or ``exponential``
    rho (e^eps - 1), in currency."""
    epsilon_max: float | Floats = np.inf
    """Largest epsilon that a node can sell: one number, or one per node, shape (n,)."""
    fixed_cost: float = 0.0
    """Cost of taking part, in currency, independent of epsilon."""
    reserve: float = 0.0
    """Smallest epsilon that is paid."""
    epsilon_floor: float = EPSILON_FLOOR
    """Report of a node that is alone in the market."""
    form: CostForms = field(init=False, repr=False, compare=False)
    """Functions of :attr:`cost`."""

    def __post_init__(self) -> None:
        require_one_of(CostForm, cost=self.cost)
        for name in ("fixed_cost", "reserve", "epsilon_floor"):
            object.__setattr__(self, name, as_number(name, getattr(self, name)))
        require_positive(zero=True, fixed_cost=self.fixed_cost, reserve=self.reserve)
        require_positive(epsilon_floor=self.epsilon_floor)
        cap = as_floats("epsilon_max", self.epsilon_max)
        if cap.ndim > 1:
            raise InvalidGameError(f"epsilon_max must have shape (n,), but has {cap.shape}.")
        if not (cap > 0).all():
            raise InvalidGameError("epsilon_max must be positive; remove a node to exclude it.")
        if (cap < max(self.reserve, self.epsilon_floor)).any():
            raise InvalidGameError(
                f"epsilon_max must not be below the reserve ({self.reserve:g}) or the smallest "
                f"report ({self.epsilon_floor:g}), but is {cap.min():g}."
            )
        object.__setattr__(self, "form", FORMS[self.cost])

    @property
    def is_paper(self) -> bool:
        """Whether this is the game of the paper, which has a closed form."""
        return self.cost == "linear" and self.has_one_equilibrium and not self.has_caps

    @property
    def has_caps(self) -> bool:
        """Whether the epsilon of any node is limited."""
        return bool(np.isfinite(self.epsilon_max).any())

    @property
    def has_one_equilibrium(self) -> bool:
        """Whether uniqueness is proven: utilities are concave, and zero for nodes that stay out."""
        return self.form.is_convex and self.fixed_cost == 0 and self.reserve == 0

    def caps(self, n_nodes: int) -> Floats:
        """Return the largest epsilon of each node, shape (n,); infinite without a limit."""
        cap = np.asarray(self.epsilon_max, dtype=float)
        if cap.ndim and cap.shape != (n_nodes,):
            raise InvalidGameError(
                f"epsilon_max must be one number, or one for each of {n_nodes} nodes, but has "
                f"shape {cap.shape}."
            )
        return np.broadcast_to(cap, (n_nodes,))

    def of(self, nodes: slice | npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Terms:
        """Return the terms of some of the nodes."""
        cap = np.asarray(self.epsilon_max, dtype=float)
        own = cap[nodes] if cap.ndim else float(cap)
        return Terms(self.cost, own, self.fixed_cost, self.reserve, self.epsilon_floor)


def cost_of(cost: CostForm, rho: npt.ArrayLike, epsilon: npt.ArrayLike) -> Floats:
    """Return the cost of epsilon, ``rho * k(epsilon)``, in currency.

    Parameters
    ----------
    cost : {"linear", "power", "sqrt", "exponential"}
        k is ``eps``, ``eps**2``, ``2 sqrt(eps)`` or ``exp(eps) - 1``.
    rho : array_like of float
        Costs of a unit of k, in currency; positive.
    epsilon : array_like of float
        Privacy budgets, dimensionless; zero or positive.

    Returns
    -------
    ndarray of float
        In the broadcast shape.

    Raises
    ------
    InvalidGameError
        If a value is outside its range, or there is no such form.

    Examples
    --------
    >>> cost_of("power", [1.0, 2.0], 3.0)
    array([ 9., 18.])
    """
    require_one_of(CostForm, cost=cost)
    rho, epsilon = as_floats("rho", rho), as_floats("epsilon", epsilon)
    require_positive(rho=rho)
    require_positive(zero=True, epsilon=epsilon)
    return np.asarray(rho * FORMS[cost].value(epsilon))


def utilities(epsilon: Floats, rho: Floats, others: Floats, budget: float, terms: Terms) -> Floats:
    """Return the nodes' utilities against the others' totals, in currency (6), unchecked.

    A report below the reserve is not paid, and does not count for the others either: nodes do not
    make such reports.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        paid = np.where(others > 0, budget * (epsilon / (epsilon + others)), budget)
        paid = np.where(epsilon >= terms.reserve, paid, 0.0)
        earned = paid - rho * terms.form.value(epsilon) - terms.fixed_cost
    return np.where(epsilon > 0, earned, 0.0)


def reply_under(
    rho: Floats, others: Floats, budget: float, terms: Terms, cap: Floats | float = np.inf
) -> Floats:
    """Return the best responses of nodes under any terms, unchecked.

    Parameters
    ----------
    rho : ndarray of float, shape (n,)
        Costs of a unit of k, in currency; positive.
    others : ndarray of float, shape (n,)
        Sum of the other nodes' epsilon; zero or positive.
    budget : float
        Payment cap B of the round, in currency.
    terms : Terms
        Form of the cost, fixed cost and reserve.
    cap : ndarray of float, shape (n,), or float, default inf
        Largest epsilon that each node can sell.

    Returns
    -------
    ndarray of float, shape (n,)
        The epsilon with the largest utility; zero if no utility is positive. A node that is alone
        reports the smallest epsilon that is paid.

    Notes
    -----
    If the cost is convex, utility is concave, and the best allowed epsilon is the stationary point,
    clipped. ``sqrt`` has an infinite slope at zero: utility falls, rises and falls again, so that
    the end points are compared as well.
    """
    if budget <= 0:
        return np.zeros_like(rho)
    low = terms.reserve
    alone = np.full_like(rho, max(low, terms.epsilon_floor))
    beside = np.where(others > 0, others, 1.0)
    inner = terms.form.reply(rho, beside, budget)
    best = np.where(others > 0, np.minimum(np.maximum(inner, low), cap), alone)
    if not terms.form.is_convex:
        edge = np.where(np.isfinite(cap), cap, best)
        for other in (np.maximum(alone, low) if low > 0 else best, edge):
            gain = utilities(other, rho, others, budget, terms)
            now = utilities(best, rho, others, budget, terms)
            best = np.where((gain > now) & (others > 0), other, best)
    return np.where(utilities(best, rho, others, budget, terms) > 0, best, 0.0)


def profits(epsilon: Floats, rho: Floats, payment: Floats, terms: Terms) -> Floats:
    """Return payments minus costs, in currency, unchecked; zero for nodes that stay out.

    Arrays have one shape, (n,) or (k, n).
    """
    with np.errstate(over="ignore"):
        kept = payment - rho * terms.form.value(epsilon) - terms.fixed_cost
    return np.where(epsilon > 0, kept, 0.0)


def marginal_cost(epsilon: Floats, others: Floats, budget: float, terms: Terms) -> Floats:
    """Return the unit costs for which positive reports are best responses, unchecked.

    A report x against a total s of the others has ``rho = B s / ((x + s)**2 k'(x))`` (15). For a
    report at the node's cap this is an upper bound of the cost, for one at the reserve a lower
    bound.

    Parameters
    ----------
    epsilon, others : ndarray of float, shape (n,)
        Positive.
    budget : float
        Payment cap B of the round, in currency.
    terms : Terms
        Form of the cost.
    """
    total = epsilon + others
    return np.asarray(budget * (others / total) / total / terms.form.slope(epsilon))


def reply_slope(epsilon: Floats, others: Floats, terms: Terms) -> Floats:
    """Return the derivatives of best responses x with respect to the others' total s, unchecked.

    By the first-order condition, ``(x - s) / (2 s + s (x + s) k''(x) / k'(x))``; zero for nodes
    that stay out.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        bend = terms.form.curvature(epsilon) / terms.form.slope(epsilon)
        slope = (epsilon - others) / (2.0 * others + others * (epsilon + others) * bend)
    return np.where((epsilon > 0) & (others > 0), slope, 0.0)


def largest_reply(rho: Floats, budget: float, terms: Terms, cap: Floats | float = np.inf) -> Floats:
    """Return an upper bound of each node's best responses, unchecked; shape (n,).

    The best response is largest when it equals the others' total.
    """
    return np.minimum(np.maximum(terms.form.largest(budget / rho / 4.0), terms.reserve), cap)


def _reply_linear(rho: Floats, others: Floats, budget: float) -> Floats:
    return reply_all(rho, others, budget, 0.0)


def _share_linear(pull: Floats, total: float) -> Floats:  # noqa: ARG001
    return np.maximum(1.0 - pull, 0.0)


def _reply_power(rho: Floats, others: Floats, budget: float) -> Floats:
    """Solve ``u (1 + u)**2 = B / (2 rho s**2)`` for u = x / s, from above: the left is convex."""
    level = budget / others / (2.0 * rho) / others
    ratio = np.minimum(level, np.cbrt(level))
    for _ in range(_STEPS):
        step = (ratio * (1.0 + ratio) ** 2 - level) / ((1.0 + ratio) * (1.0 + 3.0 * ratio))
        ratio = ratio - step
        if (np.abs(step) <= 1e-15 * ratio).all():
            break
    return np.asarray(others * ratio)


def _share_power(pull: Floats, total: float) -> Floats:
    return np.asarray(1.0 / (1.0 + 2.0 * pull * total))


def _reply_sqrt(rho: Floats, others: Floats, budget: float) -> Floats:
    """Solve ``v / (1 + v**2)**2 = rho sqrt(s) / B`` for the larger v = sqrt(x / s).

    In ``w = ln v`` the left side is concave and falling there, so that Newton's method converges
    from above. Utility is positive from v = 1 on, where the left side is 1/4.
    """
    level = rho / budget * np.sqrt(others)
    earns = level < 0.25
    target = np.log(np.where(earns, level, 0.1))
    log_ratio = -target / 3.0
    for _ in range(_STEPS):
        small = np.exp(-2.0 * log_ratio)
        softplus = 2.0 * log_ratio + np.log1p(small)
        slope = 1.0 - 4.0 / (1.0 + small)
        step = (log_ratio - 2.0 * softplus - target) / slope
        log_ratio = log_ratio - step
        if (np.abs(step) <= 1e-15 * np.maximum(1.0, np.abs(log_ratio))).all():
            break
    return np.where(earns, others * np.exp(2.0 * log_ratio), 0.0)


def _reply_exponential(rho: Floats, others: Floats, budget: float) -> Floats:
    """Solve ``2 ln(1 + x / s) + x = ln(B / (rho s))``, by omega and Newton's method."""
    from scipy.special import wrightomega  # slow to import

    level = np.log(budget) - np.log(rho) - np.log(others)
    reply = 2.0 * wrightomega((level + 2.0 * np.log(others)) / 2.0 - np.log(2.0) + others / 2.0)
    reply = np.maximum(reply - others, 0.0)
    for _ in range(4):
        value = 2.0 * np.log1p(reply / others) + reply - level
        reply = np.maximum(reply - value / (2.0 / (others + reply) + 1.0), 0.0)
    return np.where(level > 0, reply, 0.0)


def _share_exponential(pull: Floats, total: float) -> Floats:
    """Solve ``ln(1 - share) - S share = ln(rho S / B)``, concave and falling."""
    from scipy.special import wrightomega

    inside = pull < 1.0
    level = np.log(np.where(inside, pull, 0.5))
    rest = wrightomega(level + np.log(total) + total) / total  # 1 - share
    share = np.clip(1.0 - rest, 0.0, 1.0 - 1e-16)
    for _ in range(4):
        value = np.log1p(-share) - total * share - level
        share = np.clip(share + value / (1.0 / (1.0 - share) + total), 0.0, 1.0 - 1e-16)
    return np.where(inside, share, 0.0)


def _slope_exponential(epsilon: Floats) -> Floats:
    return np.asarray(np.exp(np.minimum(epsilon, _STEEPEST)))


def _largest_exponential(level: Floats) -> Floats:
    """Solve ``x e**x = level``."""
    from scipy.special import wrightomega  # slow to import

    return np.asarray(wrightomega(np.log(level)))


FORMS: dict[CostForm, CostForms] = {
    "linear": CostForms(
        value=lambda epsilon: epsilon,
        slope=np.ones_like,
        curvature=np.zeros_like,
        inverse=lambda cost: cost,
        reply=_reply_linear,
        largest=lambda level: level,
        share=_share_linear,
    ),
    "power": CostForms(
        value=np.square,
        slope=lambda epsilon: 2.0 * epsilon,
        curvature=lambda epsilon: np.full_like(epsilon, 2.0),
        inverse=np.sqrt,
        reply=_reply_power,
        largest=lambda level: np.sqrt(level / 2.0),
        share=_share_power,
    ),
    "sqrt": CostForms(
        value=lambda epsilon: 2.0 * np.sqrt(epsilon),
        slope=lambda epsilon: 1.0 / np.sqrt(epsilon),
        curvature=lambda epsilon: -0.5 / epsilon / np.sqrt(epsilon),
        inverse=lambda cost: (cost / 2.0) ** 2,
        reply=_reply_sqrt,
        largest=np.square,
        share=None,
    ),
    "exponential": CostForms(
        value=np.expm1,
        slope=_slope_exponential,
        curvature=_slope_exponential,
        inverse=np.log1p,
        reply=_reply_exponential,
        largest=_largest_exponential,
        share=_share_exponential,
    ),
}
