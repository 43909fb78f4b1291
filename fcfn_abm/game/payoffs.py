"""Payments, privacy costs, utilities and possible gains of the nodes."""

from __future__ import annotations

import math
from typing import overload

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, as_floats, as_number, require_positive
from fcfn_abm.game.best_response import EPSILON_FLOOR, reply_all
from fcfn_abm.game.equilibrium import as_budgets, require_populations
from fcfn_abm.game.exact import Floats, PerGame


def payments(epsilon: npt.ArrayLike, budget: npt.ArrayLike) -> Floats:
    """Share the budget among the nodes in proportion to epsilon.

    Parameters
    ----------
    epsilon : array_like of float, shape (n,) or (k, n)
        Reported privacy budgets, dimensionless; zero or positive. Rows are games.
    budget : float, or array_like of float, shape (k,)
        Payment cap B of the round, in currency; zero or positive.

    Returns
    -------
    ndarray of float, of the shape of epsilon
        ``budget * epsilon / epsilon.sum()``, in currency; all zero when nobody takes part.

    Raises
    ------
    InvalidGameError
        If a value is negative or not finite.

    References
    ----------
    Zhou et al. 2023, eq. 3.

    Examples
    --------
    >>> payments([1.0, 3.0], budget=8.0)
    array([2., 6.])
    """
    epsilon = _reports(epsilon, most_axes=2)
    budget = as_budgets(budget, epsilon)
    with np.errstate(over="ignore"):
        total = epsilon.sum(axis=-1)
    _require_number(total, "the sum of epsilon")
    if epsilon.ndim == 1:
        return np.asarray(budget * (epsilon / total)) if total else np.zeros_like(epsilon)
    with np.errstate(invalid="ignore"):
        paid = np.expand_dims(budget, -1) * (epsilon / total[:, None])
    return np.where(total[:, None] > 0, paid, 0.0)


def privacy_cost(rho: npt.ArrayLike, epsilon: npt.ArrayLike) -> Floats:
    """Return the nodes' privacy costs, ``rho * epsilon``, in currency.

    Parameters
    ----------
    rho, epsilon : array_like of float, shape (n,) or (k, n)
        Unit privacy costs (currency per unit of epsilon) and privacy budgets (dimensionless).

    Returns
    -------
    ndarray of float, of the same shape
        Costs in currency.

    Raises
    ------
    InvalidGameError
        If a cost is not positive and finite, an epsilon negative or not finite, or the shapes
        differ.

    References
    ----------
    Zhou et al. 2023, eq. 6, second term.
    """
    epsilon = _reports(epsilon, most_axes=2)
    rho = _costs(rho, epsilon)
    with np.errstate(over="ignore"):
        cost = rho * epsilon
    _require_number(cost, "rho * epsilon")
    return cost


def node_utility(
    epsilon: npt.ArrayLike, rho: npt.ArrayLike, budget: float, fixed_cost: float = 0.0
) -> Floats:
    """Return each node's payment minus its privacy cost.

    Parameters
    ----------
    epsilon, rho : array_like of float, shape (n,)
        Privacy budgets (dimensionless) and unit privacy costs (currency per unit of epsilon).
    budget : float
        Payment cap B of the round, in currency.
    fixed_cost : float, default 0
        Cost of taking part, in currency, independent of epsilon: an extension of the paper. Nodes
        with ``epsilon = 0`` do not take part and do not pay it.

    Returns
    -------
    ndarray of float, shape (n,)
        ``payment - rho * epsilon - fixed_cost``, in currency; zero for nodes that stay out.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or the shapes of epsilon and rho differ.

    References
    ----------
    Zhou et al. 2023, eq. 6.

    Examples
    --------
    >>> node_utility([1.0, 1.0, 0.0], [1.0, 1.0, 5.0], budget=4.0)
    array([1., 1., 0.])
    """
    fixed_cost = as_number("fixed_cost", fixed_cost)
    require_positive(zero=True, fixed_cost=fixed_cost)
    epsilon = _reports(epsilon)
    utility = payments(epsilon, budget) - privacy_cost(rho, epsilon)
    return np.where(epsilon > 0, utility - fixed_cost, 0.0)


@overload
def server_utility(mean_epsilon: float, alpha: float, beta: float, paid: float) -> float: ...
@overload
def server_utility(mean_epsilon: Floats, alpha: float, beta: float, paid: Floats) -> Floats: ...
def server_utility(
    mean_epsilon: PerGame, alpha: float, beta: float, paid: PerGame
) -> float | Floats:
    """Return the server's profit: the value of the model minus its payments.

    Parameters
    ----------
    mean_epsilon : float, or ndarray of float, shape (k,)
        Average privacy budget eps_g of the nodes, dimensionless; of one game, or of each of k
        games.
    alpha, beta : float
        Model-value parameters: ``beta`` in currency, ``alpha`` per unit of epsilon.
    paid : float, or ndarray of float, shape (k,)
        Total payment of the server, in currency.

    Returns
    -------
    float, or ndarray of float, shape (k,)
        ``beta * ln(1 + alpha * mean_epsilon) - paid``, in currency.

    Raises
    ------
    InvalidGameError
        If a parameter is not positive, or ``mean_epsilon`` or ``paid`` negative.

    References
    ----------
    Zhou et al. 2023, eq. 10.

    Examples
    --------
    >>> round(server_utility(mean_epsilon=1.0, alpha=1.0, beta=10.0, paid=2.0), 4)
    4.9315
    """
    alpha, beta = as_number("alpha", alpha), as_number("beta", beta)
    require_positive(alpha=alpha, beta=beta)
    require_positive(zero=True, mean_epsilon=mean_epsilon, paid=paid)
    utility: PerGame
    if isinstance(mean_epsilon, float) and isinstance(paid, float):
        utility = server_profit(float(mean_epsilon), alpha, beta, float(paid))
    else:
        mean, sums = as_floats("mean_epsilon", mean_epsilon), as_floats("paid", paid)
        if mean.shape != sums.shape or mean.ndim > 1:
            raise InvalidGameError(
                "mean_epsilon and paid must be numbers, or arrays of one shape, but have "
                f"{mean.shape} and {sums.shape}."
            )
        games = zip(mean.ravel().tolist(), sums.ravel().tolist(), strict=True)
        profits = np.array([server_profit(one, alpha, beta, sum_) for one, sum_ in games])
        utility = profits if mean.ndim else profits.item()
    _require_number(utility, "the server's utility")
    return utility  # type: ignore[no-any-return]


def server_profit(mean_epsilon: float, alpha: float, beta: float, paid: float) -> float:
    """Return `server_utility` without checks; also used by compiled play."""
    product = alpha * mean_epsilon
    if math.isinf(product):  # the product overflows, but not its logarithm
        logarithm = math.log(alpha) + math.log(mean_epsilon)
    else:
        logarithm = math.log1p(product)
    return beta * logarithm - paid


def exploitability(
    epsilon: npt.ArrayLike,
    rho: npt.ArrayLike,
    budget: float,
    epsilon_floor: float = EPSILON_FLOOR,
) -> float:
    """Return the largest gain of any node by moving alone, as a share of the budget.

    A profile is a Nash equilibrium if and only if this is zero; a value of ``e`` makes it an
    ``e * budget``-Nash equilibrium.

    Parameters
    ----------
    epsilon, rho : array_like of float, shape (n,)
        Privacy budgets (dimensionless) and unit privacy costs (currency per unit of epsilon).
    budget : float
        Payment cap B of the round, in currency.
    epsilon_floor : float, default 1e-6
        Smallest admissible report; see :func:`fcfn_abm.best_response`.

    Returns
    -------
    float
        ``max_i [U_i(best response) - U_i(now)] / budget``, at least zero. With a budget of zero it
        is zero if nobody reports and infinite otherwise.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or the shapes of epsilon and rho differ.

    Notes
    -----
    One pass over the nodes. With ``r`` the best response, where ``B s / (r + s)**2 = rho``, the
    gain is ``rho (r - x)**2 / (x + s)``: the difference of the two utilities would lose all digits
    near the equilibrium. If staying out is best it is ``x (rho - B / (x + s))``.
    """
    epsilon = _reports(epsilon)
    rho = _costs(rho, epsilon)
    budget, epsilon_floor = as_number("budget", budget), as_number("epsilon_floor", epsilon_floor)
    require_positive(zero=True, budget=budget)
    require_positive(epsilon_floor=epsilon_floor)
    if epsilon.size == 0:
        return 0.0
    if budget == 0:
        return float("inf") if epsilon.any() else 0.0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # raised below
        total = epsilon.sum()
        others = np.maximum(total - epsilon, 0.0)
        reply = reply_all(rho, others, budget, epsilon_floor)
        standing = others + epsilon
        # in this order no factor is much larger than the gain; squares of large moves would
        # overflow
        moving = rho * (reply - epsilon) * ((reply - epsilon) / standing)
        leaving = epsilon / standing * (rho * standing - budget)
        gain = np.where(reply > 0, moving, leaving)
        # a node that is alone wins the whole budget with any report: only its cost can be reduced
        prize = np.where(epsilon > 0, 0.0, budget)
        leaving = np.where(epsilon > 0, rho * epsilon - budget, 0.0)
        gain_alone = np.where(reply > 0, prize - rho * (reply - epsilon), leaving)
        gain = np.where(others / budget * rho > 0, gain, gain_alone)
    share = float(gain.max()) / budget
    _require_number(share, "the largest gain, as a share of the budget,")
    return max(0.0, share)


def _require_number(value: Floats | float, what: str) -> None:
    """Raise an error if a result has overflowed."""
    if not np.isfinite(value).all():
        raise InvalidGameError(f"{what} overflows a 64-bit float.")


def _reports(epsilon: npt.ArrayLike, most_axes: int = 1) -> Floats:
    """Return epsilon as a checked array."""
    epsilon = as_floats("epsilon", epsilon)
    if most_axes == 2:
        require_populations(epsilon=epsilon)
        epsilon = np.ascontiguousarray(epsilon)
    if most_axes == 1 and epsilon.ndim != 1:
        raise InvalidGameError(f"epsilon must be one-dimensional, but has shape {epsilon.shape}.")
    require_positive(zero=True, epsilon=epsilon)
    return epsilon


def _costs(rho: npt.ArrayLike, epsilon: Floats) -> Floats:
    """Return rho as a checked array, with one cost per entry of epsilon."""
    rho = as_floats("rho", rho)
    require_positive(rho=rho)
    if rho.shape != epsilon.shape:
        raise InvalidGameError(
            f"rho must have one cost for each epsilon, but the shapes are {rho.shape} and "
            f"{epsilon.shape}."
        )
    return rho
