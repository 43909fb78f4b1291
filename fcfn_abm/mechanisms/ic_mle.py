"""Incentive-compatible contracts for maximum-likelihood aggregation: one contract per cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, isotonic_regression

from fcfn_abm.errors import InvalidGameError, as_floats, require_positive
from fcfn_abm.mechanisms.base import MECHANISMS, Contracts, Mechanism, Outcome, PricingGame, settle
from fcfn_abm.mechanisms.claims import Claims

type Floats = npt.NDArray[np.float64]
type Ints = npt.NDArray[np.intp]

_WIDEST = 1e200  # largest ratio of costs, and largest epsilon, without over- or underflow
_NEWTON_STEPS = 30  # four to six are typical


@dataclass(frozen=True)
class Menu:
    """The server's contracts: one for each distinct cost of the nodes, lowest first."""

    cost: Floats
    """Unit privacy cost that each contract is meant for, ascending and distinct, shape (k,)."""
    epsilon: Floats
    """Privacy budget of each contract, shape (k,); never rises with the cost."""
    payment: Floats
    """Payment of each contract, in currency, shape (k,)."""
    count: Ints
    """Number of nodes with that cost, shape (k,)."""

    @property
    def total_payment(self) -> float:
        """Server's payment if every node takes the contract meant for it, in currency."""
        return float(self.count @ self.payment)

    def choice(self, rho: npt.ArrayLike) -> Ints:
        """Return the row of the best contract for a node with cost rho; -1 to refuse all.

        Valid for incentive-compatible menus: it is the contract for the lowest listed cost that is
        at least rho, also for costs between two of the menu. Indifferent nodes take the contract
        meant for them.
        """
        row = np.searchsorted(self.cost, as_floats("rho", rho))
        return np.where(row < self.cost.size, row, -1)


@MECHANISMS.register("ic-mle")
class IncentiveCompatibleContracts(Mechanism):
    """The contracts that buy the best estimate for the cap (53-56).

    Notes
    -----
    The printed (56) lacks a prime. ``constraint = "incentive-compatible"`` is the evident
    intention, ``p_k - c_k eps_k >= p_j - c_k eps_j`` for all types k and j: nodes choose their own
    contract from the menu (`contract_menu`). ``constraint = "printed"`` takes (56) literally, with
    the prime on the payment only, ``p_k - c_k eps_k >= p_j - c_k eps_k``: all payments are equal
    (`equal_payment_menu`). Nodes would then all choose the contract with the smallest epsilon, so
    that each is offered only the contract meant for it, as if the server knew its cost.

    References
    ----------
    Zhou et al. 2023, eqs. 53-56.
    """

    constraint: Literal["incentive-compatible", "printed"] = "incentive-compatible"
    """Incentive compatibility, or (56) as printed, which makes all payments equal."""

    @property
    def claims(self) -> Claims:
        """Claims; from the printed menu, nodes would not choose the contract meant for them."""
        return Claims(
            budget_balanced=True,
            individually_rational=("nodes",),
            incentive_compatible=() if self.constraint == "printed" else ("contract",),
            monotone=True,
            anonymous=True,
            scale_invariant=True,
        )

    def menu(self, game: PricingGame) -> Menu:
        """Return the server's contracts."""
        solve = equal_payment_menu if self.constraint == "printed" else contract_menu
        return solve(game.rho, game.cap)

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:  # noqa: ARG002
        """Price one round: every node takes the contract meant for its cost."""
        menu = self.menu(game)
        if not menu.epsilon.any():
            nothing = np.zeros_like(game.rho)
            why = "needs two nodes" if game.rho.size < 2 else "has no money to share out"
            return settle("ic-mle", game, nothing, nothing, reason=f"A menu of contracts {why}.")
        row = np.searchsorted(menu.cost, game.rho)
        return settle("ic-mle", game, menu.epsilon[row], menu.payment[row])

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contracts:  # noqa: ARG002
        """Return the contract meant for each node.

        From an incentive-compatible menu, nodes choose it themselves: the server knows the distinct
        costs, but not which node has which.
        """
        menu = self.menu(game)
        row = np.searchsorted(menu.cost, game.rho)
        return Contracts(menu.epsilon[row], menu.payment[row])


def contract_menu(rho: npt.ArrayLike, budget: float) -> Menu:
    """Solve for the contracts that make maximum-likelihood aggregation most accurate.

    Chooses ``(epsilon_k, payment_k)`` for each cost ``c_k``, which ``m_k`` nodes have, to minimise
    ``sum_k m_k coth(epsilon_k / 2)**2`` subject to ``sum_k m_k payment_k <= budget``, individual
    rationality ``payment_k >= c_k epsilon_k`` and incentive compatibility
    ``payment_k - c_k epsilon_k >= payment_j - c_k epsilon_j`` for all k and j.

    Parameters
    ----------
    rho : array_like of float, shape (n,)
        Unit privacy costs, in currency per unit of epsilon; positive.
    budget : float
        Payment cap B of the round, in currency; zero or positive. All of it is spent.

    Returns
    -------
    Menu
        One contract per distinct cost. All zero with fewer than two nodes or a budget of zero;
        otherwise every epsilon is positive, because the objective is infinite at 0.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or costs lie more than 200 orders of magnitude apart.

    Notes
    -----
    With linear costs, the program is solved in three steps. (1) Epsilon must not rise with the
    cost, and the lowest payments with which no node gains by taking another's contract are
    ``payment_k = c_k epsilon_k + sum_{j > k} (c_j - c_{j-1}) epsilon_j``: nodes with the highest
    cost are paid their cost, all others also a rent. (2) Summed over the nodes, these payments are
    ``sum_k m_k v_k epsilon_k`` with virtual unit costs ``v_k = c_k + (M_k / m_k) (c_k - c_{k-1})``,
    where ``M_k`` nodes have a lower cost than ``c_k``. Where v falls with k, epsilon would rise:
    there the costs are pooled (weighted isotonic regression of v). (3) The rest has one multiplier:
    ``coth(x) / sinh(x)**2 = lam v_k`` with ``x = epsilon_k / 2``, and lam such that the budget is
    spent. Both are solved in logarithms; the root for lam has the bracket that follows from the
    same epsilon for all nodes, ``budget / (n c_max)``. O(n log n).

    In the printed (56) the prime is on the payment only (`equal_payment_menu`); the constraint
    above is the evident intention.

    References
    ----------
    Zhou et al. 2023, eqs. 53-56.

    Examples
    --------
    >>> menu = contract_menu([1.0, 1.0, 2.0], budget=8.0)
    >>> menu.cost, menu.count
    (array([1., 2.]), array([2, 1]))
    >>> menu.epsilon.round(4), menu.payment.round(4)
    (array([1.7614, 1.1193]), array([2.8807, 2.2386]))
    >>> (menu.payment - menu.cost * menu.epsilon).round(4)  # low-cost nodes get a rent
    array([1.1193, 0.    ])
    """
    cost, count = _types(rho, budget)
    if count.sum() < 2 or budget == 0:
        return Menu(cost, np.zeros_like(cost), np.zeros_like(cost), count)
    highest = float(cost[-1])
    level = budget / highest / int(count.sum())

    step = np.diff(cost, prepend=cost[0])
    cheaper = np.cumsum(count) - count
    virtual = (cost + cheaper / count * step) / highest
    pools = isotonic_regression(virtual, weights=count)
    weight = np.add.reduceat(count.astype(float), pools.blocks[:-1])
    ironed = np.maximum.accumulate(pools.x[pools.blocks[:-1]])
    epsilon = np.repeat(_spend(np.log(ironed), weight * ironed, level), np.diff(pools.blocks))

    epsilon *= budget / float(count @ _payments(cost, epsilon))  # corrects rounding errors
    return Menu(cost, epsilon, _payments(cost, epsilon), count)


def equal_payment_menu(rho: npt.ArrayLike, budget: float) -> Menu:
    """Solve for the most accurate contracts under (56) as printed: all payments are equal.

    Parameters
    ----------
    rho : array_like of float, shape (n,)
        Unit privacy costs, in currency per unit of epsilon; positive.
    budget : float
        Payment cap B of the round, in currency; zero or positive. All of it is spent.

    Returns
    -------
    Menu
        One contract per distinct cost. All zero with fewer than two nodes or a budget of zero. Not
        incentive compatible: every node would prefer the last contract.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or costs lie more than 200 orders of magnitude apart.

    Notes
    -----
    ``payment_k - c_k epsilon_k >= payment_j - c_k epsilon_k`` for all k and j means
    ``payment_k >= payment_j`` for all pairs, hence one payment p for all. The objective
    ``sum_k m_k coth(epsilon_k / 2)**2`` falls in every epsilon_k, which individual rationality
    limits to ``p / c_k``, and so in p, which the budget limits to ``budget / n``. At the optimum
    both hold with equality: no node has a rent.

    References
    ----------
    Zhou et al. 2023, eqs. 53-56.

    Examples
    --------
    >>> menu = equal_payment_menu([1.0, 1.0, 2.0], budget=6.0)
    >>> menu.epsilon, menu.payment
    (array([2., 1.]), array([2., 2.]))
    """
    cost, count = _types(rho, budget)
    if count.sum() < 2 or budget == 0:
        return Menu(cost, np.zeros_like(cost), np.zeros_like(cost), count)
    payment = budget / int(count.sum())
    return Menu(cost, payment / cost, np.full(cost.size, payment), count)


def _types(rho: npt.ArrayLike, budget: float) -> tuple[Floats, Ints]:
    """Check the numbers; return the distinct costs, ascending, and their numbers of nodes."""
    rho = as_floats("rho", rho)
    if rho.ndim != 1:
        raise InvalidGameError(f"rho must be one-dimensional, but has shape {rho.shape}.")
    require_positive(rho=rho)
    require_positive(zero=True, budget=budget)
    cost, count = np.unique(rho, return_counts=True)
    if rho.size < 2 or budget == 0:
        return cost, count
    highest = float(cost[-1])
    if cost[0] / highest < 1 / _WIDEST:
        raise InvalidGameError(
            f"rho must not span more than a factor of {_WIDEST:g}, but ranges from "
            f"{cost[0]:g} to {highest:g}."
        )
    if not 1 / _WIDEST < budget / highest / rho.size < _WIDEST:
        raise InvalidGameError(
            f"budget = {budget:g} is out of range for {rho.size} costs of up to {highest:g}."
        )
    return cost, count


def _payments(cost: Floats, epsilon: Floats) -> Floats:
    """Return the lowest incentive-compatible payments: costs, and rents from the top."""
    rent = np.zeros_like(cost)
    rent[:-1] = np.cumsum((np.diff(cost) * epsilon[1:])[::-1])[::-1]
    return cost * epsilon + rent


def _spend(log_cost: Floats, price: Floats, level: float) -> Floats:
    """Return the optimal epsilon of every pool: slopes are proportional to virtual costs.

    ``price`` is the cost of a unit of epsilon for the whole pool, in units of the highest cost; the
    prices sum to the number of nodes, so that all nodes together can afford ``level``. The result
    never rises.
    """
    money = level * float(price.sum())

    def excess(log_multiplier: float) -> float:
        return float(price @ _epsilon_at(log_multiplier + log_cost)) / money - 1.0

    flat = float(_log_slope(np.array([level]))[0])
    low, high = flat - float(log_cost[-1]), flat - float(log_cost[0])
    if excess(low) > 0 > excess(high):
        low = brentq(excess, low, high, xtol=1e-13 * max(1.0, level))
    return np.minimum.accumulate(_epsilon_at(low + log_cost))


def _log_slope(epsilon: Floats) -> Floats:
    """Return log(-h'(epsilon)) with h = coth(epsilon / 2)**2, for any magnitude of epsilon."""
    gap = -np.expm1(-epsilon)
    return np.asarray(math.log(4.0) - epsilon + np.log(2.0 - gap) - 3.0 * np.log(gap))


def _epsilon_at(log_slope: Floats) -> Floats:
    """Invert `_log_slope` by Newton's method in log epsilon.

    The function is concave and falling there, so that from any start Newton's method overshoots at
    most once and then converges from one side.
    """
    # accurate up to a constant at both ends, where epsilon is 2 exp(-y / 3) and log 4 - y
    epsilon = 3.0 * np.logaddexp(0.0, math.log(2.0 / 3.0) - log_slope / 3.0)
    for _ in range(_NEWTON_STEPS):
        gap = -np.expm1(-epsilon)
        steepness = epsilon + (1.0 - gap) * (epsilon / (2.0 - gap) + 3.0 * (epsilon / gap))
        step = (_log_slope(epsilon) - log_slope) / steepness
        epsilon *= np.exp(step)
        if np.abs(step).max() < 1e-9:  # the remaining error is its square
            break
    return epsilon
