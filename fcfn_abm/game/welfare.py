"""Social welfare of a profile, and its distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import (
    InvalidGameError,
    as_floats,
    as_number,
    require_positive,
    require_unmasked,
)
from fcfn_abm.game.costs import Terms, profits
from fcfn_abm.game.equilibrium import require_populations
from fcfn_abm.game.exact import Floats, PerGame
from fcfn_abm.game.payoffs import privacy_cost, server_utility
from fcfn_abm.game.stackelberg import AverageOver, average_per_node, averaged_nodes

_ROUNDING = 1e-12  # a utility below this share of the cost is a rounding error


@dataclass(frozen=True)
class Welfare:
    """Welfare of server and nodes together, and its distribution among the nodes.

    For k games evaluated together each number is an array of shape (k,).
    """

    total: PerGame
    """Social welfare, in currency: the sum of all utilities; payments are transfers."""
    optimum: PerGame
    """Largest welfare that a planner who chooses every epsilon could reach, in currency."""
    price_of_anarchy: PerGame
    """``optimum / total``, at least one; infinite if ``total`` is not positive but could be."""
    rent_dissipation: PerGame
    """Share of the payments that the nodes spend on privacy costs; above one they lose money."""
    gini: PerGame
    """Gini index of all nodes' utilities, including inactive nodes; nan if a utility is
    negative."""
    n_losing: PerGame
    """Number of nodes that would have been better off by staying out."""
    average_over: AverageOver
    """Nodes over which the mean epsilon is averaged."""

    @property
    def individually_rational(self) -> PerGame:
        """Whether no node would have been better off by staying out."""
        return self.n_losing == 0


def welfare(
    epsilon: npt.ArrayLike,
    rho: npt.ArrayLike,
    payment: npt.ArrayLike,
    alpha: float,
    beta: float,
    average_over: AverageOver = "active",
    terms: Terms | None = None,
) -> Welfare:
    """Evaluate a profile and its payments: of an equilibrium, a mechanism or a round of play.

    Parameters
    ----------
    epsilon, rho : array_like of float, shape (n,) or (k, n)
        Privacy budgets (dimensionless) and unit privacy costs (currency per unit of epsilon). Rows
        are games; all are evaluated together, with bitwise equal results.
    payment : array_like of float, of the same shape
        Payment of each node, in currency; zero or positive.
    alpha, beta : float
        The server's model-value parameters: it gains ``beta * ln(1 + alpha * mean_epsilon)``.
    average_over : {"active", "population", "effective"}, default "active"
        Nodes over which epsilon is averaged (:func:`averaged_nodes`).
    terms : Terms, optional
        Another cost than rho * epsilon, and a fixed cost. The optimum is then not computed, and is
        nan.

    Returns
    -------
    Welfare
        Total, optimum and price of anarchy; rent dissipation, inequality and rationality.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or the shapes differ.

    Notes
    -----
    Node utilities within 1e-12 of the privacy cost count as zero: if a mechanism pays a node
    exactly its cost, their difference is a rounding error of either sign.

    References
    ----------
    Zhou et al. 2023, eqs. 6 and 10, for the utilities.

    Examples
    --------
    >>> two = welfare([1.0, 1.0], [1.0, 1.0], payment=[2.0, 2.0], alpha=1.0, beta=10.0)
    >>> round(two.total, 4), round(two.optimum, 4), two.rent_dissipation, two.gini
    (4.9315, 14.0259, 0.5, 0.0)
    """
    cost = privacy_cost(rho, epsilon)
    if terms is not None:
        rho, epsilon = as_floats("rho", rho), as_floats("epsilon", epsilon)
        cost = -profits(epsilon, rho, np.zeros_like(epsilon), terms)
    payment = as_floats("payment", payment)
    require_positive(zero=True, payment=payment)
    if payment.shape != cost.shape:
        raise InvalidGameError(
            f"payment must have one value for each epsilon, but the shapes are {payment.shape} "
            f"and {cost.shape}."
        )
    utility = payment - cost
    utility[np.abs(utility) <= _ROUNDING * cost] = 0.0
    total = social_welfare(epsilon, rho, alpha, beta, average_over)
    if terms is None:
        optimum = social_optimum(rho, alpha, beta, average_over)
        anarchy = price_of_anarchy(optimum, total)
    else:  # payments cancel, privacy costs do not
        linear = as_numbers(privacy_cost(rho, epsilon).sum(axis=-1))
        total = total + linear - as_numbers(cost.sum(axis=-1))
        optimum = anarchy = as_numbers(np.full(np.shape(total), np.nan))
    return Welfare(
        total=total,
        optimum=optimum,
        price_of_anarchy=anarchy,
        rent_dissipation=rent_dissipation(cost, payment),
        gini=gini(utility),
        n_losing=as_numbers(np.count_nonzero(utility < 0, axis=-1)),
        average_over=average_over,
    )


def as_numbers(values: npt.ArrayLike) -> PerGame:
    """Return an array unchanged, and a zero-dimensional array as a Python number."""
    array = np.asarray(values)
    return array if array.ndim else array.item()


def social_welfare(
    epsilon: npt.ArrayLike,
    rho: npt.ArrayLike,
    alpha: float,
    beta: float,
    average_over: AverageOver = "active",
) -> PerGame:
    """Return the sum of the utilities of server and nodes.

    Parameters
    ----------
    epsilon, rho : array_like of float, shape (n,) or (k, n)
        Privacy budgets (dimensionless) and unit privacy costs (currency per unit of epsilon).
    alpha, beta : float
        The server's model-value parameters.
    average_over : {"active", "population", "effective"}, default "active"
        Nodes over which epsilon is averaged: those with ``epsilon > 0``, all, or their effective
        number.

    Returns
    -------
    float
        ``beta * ln(1 + alpha * mean_epsilon) - (rho * epsilon).sum()``, in currency. The server's
        payments equal the nodes' receipts and cancel.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or the shapes differ.

    References
    ----------
    The sum of Zhou et al. 2023, eqs. 6 and 10.

    Examples
    --------
    >>> round(social_welfare([1.0, 1.0], [1.0, 1.0], alpha=1.0, beta=10.0), 4)
    4.9315
    """
    cost = privacy_cost(rho, epsilon)
    epsilon = as_floats("epsilon", epsilon)
    mean_epsilon = average_per_node(epsilon.sum(axis=-1), averaged_nodes(average_over, epsilon))
    return server_utility(mean_epsilon, alpha, beta, as_numbers(cost.sum(axis=-1)))


def social_optimum(
    rho: npt.ArrayLike,
    alpha: float,
    beta: float,
    average_over: AverageOver = "active",
    members: npt.ArrayLike | None = None,
) -> PerGame:
    """Return the largest welfare of server and nodes, if a planner chooses epsilon.

    Parameters
    ----------
    rho : array_like of float, shape (n,) or (k, n)
        Unit privacy costs, in currency per unit of epsilon; positive. Rows are games.
    alpha, beta : float
        The server's model-value parameters.
    average_over : {"active", "population", "effective"}, default "active"
        Nodes over which epsilon is averaged: those with ``epsilon > 0``, all, or their effective
        number.
    members : array_like of bool, of the shape of rho, optional
        Nodes that take part, for a planner who chooses how much each sells, but not who takes part.
        The result is then a supremum: all but the lowest-cost node sell close to nothing. By
        default the planner also chooses who takes part.

    Returns
    -------
    float
        Welfare in currency, zero or positive, because a planner may let everybody stay out.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or the shapes differ.

    Notes
    -----
    For a given total S and number n_g, the cost is least if the lowest-cost node sells everything,
    which leaves ``beta ln(1 + alpha S / n_g) - rho_min S``. With ``x = rho_min n_g / (alpha beta) <
    1`` its maximum is at ``S = beta / rho_min - n_g / alpha`` and is ``beta (x - 1 - ln x)``;
    otherwise S = 0 is best. The value falls with n_g. With the population n_g is fixed; with the
    active nodes the planner chooses one of them, n_g = 1, because a mean over participants is
    highest if they are few; take this into account when reading a price of anarchy. The effective
    number is one as well, with any members, because all but the lowest-cost node sell close to
    nothing.

    Examples
    --------
    >>> round(social_optimum([1.0, 2.0], alpha=1.0, beta=10.0), 4)
    14.0259
    >>> round(social_optimum([1.0, 2.0], alpha=1.0, beta=10.0, average_over="population"), 4)
    8.0944
    """
    rho = as_floats("rho", rho)
    require_populations(rho=rho)
    alpha, beta = as_number("alpha", alpha), as_number("beta", beta)
    require_positive(rho=rho, alpha=alpha, beta=beta)
    taking_part = np.ones(rho.shape, dtype=bool)
    giving = np.zeros(rho.shape)
    giving[..., :1] = 1.0
    if members is not None:
        require_unmasked(members=members)
        chosen = np.asarray(members, dtype=bool)
        if chosen.shape != rho.shape:
            raise InvalidGameError(
                f"members must have one value for each cost, but the shapes are {chosen.shape} "
                f"and {rho.shape}."
            )
        taking_part = chosen
        if average_over == "active":
            giving = chosen.astype(float)
    n_averaged = averaged_nodes(average_over, giving)
    cheapest = np.where(taking_part, rho, np.inf).min(axis=-1, initial=np.inf)
    if rho.ndim == 1:
        return _optimal_welfare(float(cheapest), n_averaged, float(alpha), float(beta))
    games = zip(cheapest.tolist(), n_averaged.tolist(), strict=True)
    return np.array([_optimal_welfare(*game, float(alpha), float(beta)) for game in games])


def _optimal_welfare(cheapest: float, n_averaged: float, alpha: float, beta: float) -> float:
    """Return the optimum if the lowest-cost node sells all; infinite ``cheapest``: nobody does."""
    if math.isinf(cheapest):
        return 0.0
    x = n_averaged * (cheapest / alpha) / beta
    if x >= 1:
        return 0.0
    if x > 0.5:
        return beta * (x - 1.0 - math.log1p(x - 1.0))
    # one at a time, because x itself may underflow
    log_x = math.log(n_averaged) + math.log(cheapest) - math.log(alpha) - math.log(beta)
    return beta * (x - 1.0 - log_x)


def price_of_anarchy(optimum: PerGame, total: PerGame) -> PerGame:
    """Return the planner's welfare divided by that of a profile, usually an equilibrium.

    Parameters
    ----------
    optimum : float, or array_like of float, shape (k,)
        Largest possible welfare, in currency; zero or positive.
    total : float, or array_like of float, shape (k,)
        Welfare of the profile, in currency; at most ``optimum``.

    Returns
    -------
    float, or ndarray of float, shape (k,)
        ``optimum / total``, at least one. One if both are zero, because nothing is lost. Infinite
        if ``total`` is otherwise zero or negative.

    Raises
    ------
    InvalidGameError
        If ``optimum`` is negative or not finite.

    Examples
    --------
    >>> price_of_anarchy(optimum=14.0, total=7.0), price_of_anarchy(optimum=14.0, total=0.0)
    (2.0, inf)
    """
    require_positive(zero=True, optimum=optimum)
    optimum, total = np.asarray(optimum, dtype=float), np.asarray(total, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.maximum(optimum / total, 1.0)  # only rounding can make it smaller than one
    nothing = np.where(optimum == total, 1.0, np.inf)
    return as_numbers(np.where(total > 0, ratio, nothing))


def rent_dissipation(cost: npt.ArrayLike, payment: npt.ArrayLike) -> PerGame:
    """Return the share of the payments that the nodes spend on privacy costs.

    Parameters
    ----------
    cost, payment : array_like of float, shape (n,) or (k, n)
        Privacy cost and payment of each node, in currency. Rows are games.

    Returns
    -------
    float, or ndarray of float, shape (k,)
        ``cost.sum() / payment.sum()``: zero without any cost, infinite with costs but
        no payment. At the Nash equilibrium it is ``(n - 1) (1 - (n - 1) q)`` with
        ``q = (rho**2).sum() / rho.sum()**2`` over the n active nodes: ``(n - 1) / n`` for equal
        costs.

    Raises
    ------
    InvalidGameError
        If a value is negative or not finite.

    Examples
    --------
    >>> rent_dissipation(cost=[1.0, 1.0, 1.0], payment=[2.0, 2.0, 2.0])
    0.5
    """
    require_positive(zero=True, cost=cost, payment=payment)
    burnt = as_floats("cost", cost).sum(axis=-1)
    paid = as_floats("payment", payment).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(paid > 0, burnt / paid, np.inf)
    return as_numbers(np.where(burnt == 0, 0.0, share))


def gini(values: npt.ArrayLike) -> PerGame:
    """Return the Gini index: 0 if all values are equal, ``1 - 1 / n`` if one has everything.

    Parameters
    ----------
    values : array_like of float, shape (n,) or (k, n)
        Zero or positive. Rows are populations.

    Returns
    -------
    float, or ndarray of float, shape (k,)
        Half the mean absolute difference of two draws (with replacement), as a share of the mean;
        zero if all values are zero. With negative values the index has no bound and cannot be read
        as a share: it is nan.

    Raises
    ------
    InvalidGameError
        If a value is not finite, or the shape is wrong.

    Notes
    -----
    With the values sorted, ``sum_i (2 i - n - 1) x_i / (n sum_i x_i)``: O(n log n).

    Examples
    --------
    >>> gini([1.0, 1.0, 1.0]), gini([0.0, 0.0, 0.0, 8.0])
    (0.0, 0.75)
    """
    values = as_floats("values", values)
    require_populations(values=values)
    require_positive(zero=True, values=np.abs(values))
    if values.ndim == 2:
        # a product per row, instead of a matrix product, so that its sum is the same for any k
        return np.array([_gini_of(row) for row in values])
    return _gini_of(values)


def _gini_of(values: Floats) -> float:
    if (values < 0).any():
        return float("nan")
    total = values.sum()
    if total == 0:
        return 0.0
    ranked = np.sort(values)
    weight = np.arange(1 - values.size, values.size, 2)
    # the weights sum to zero: a common value can be subtracted, with its rounding errors
    return float(weight @ ((ranked - ranked[0]) / total) / values.size)
