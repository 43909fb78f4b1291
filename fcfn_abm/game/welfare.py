"""What a profile is worth to all together, and how it is shared out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, as_floats, require_positive, require_unmasked
from fcfn_abm.game.payoffs import privacy_cost, server_utility
from fcfn_abm.game.stackelberg import AverageOver, averaged_nodes

_ROUNDING = 1e-12  # a utility below this share of the cost is a difference of rounding errors


@dataclass(frozen=True)
class Welfare:
    """What a profile is worth to server and nodes together, and how the nodes share their part."""

    total: float
    """Social welfare, in currency: all utilities together; payments are transfers."""
    optimum: float
    """The most that a planner who chooses every epsilon could reach, in currency."""
    price_of_anarchy: float
    """``optimum / total``, at least one; infinite where ``total`` is not positive and could be."""
    rent_dissipation: float
    """Share of the payments that the nodes burn as privacy cost; above one they lose money."""
    gini: float
    """Gini index of all nodes' utilities, those outside included; nan if a utility is negative."""
    n_losing: int
    """How many nodes would rather have stayed out."""
    average_over: AverageOver
    """Which nodes the mean epsilon is averaged over."""

    @property
    def individually_rational(self) -> bool:
        """Whether no node would rather have stayed out."""
        return self.n_losing == 0


def welfare(
    epsilon: npt.ArrayLike,
    rho: npt.ArrayLike,
    payment: npt.ArrayLike,
    alpha: float,
    beta: float,
    average_over: AverageOver = "active",
) -> Welfare:
    """Judge a profile and its payments: of an equilibrium, a mechanism or a round of play.

    Parameters
    ----------
    epsilon, rho : array_like of float, shape (n,)
        Privacy budgets (dimensionless) and unit privacy costs (currency per unit of epsilon).
    payment : array_like of float, shape (n,)
        What each node gets, in currency; zero or positive.
    alpha, beta : float
        The server's model-value parameters: it gains ``beta * ln(1 + alpha * mean_epsilon)``.
    average_over : {"active", "population", "effective"}, default "active"
        Over how many nodes epsilon is averaged (:func:`averaged_nodes`).

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
    Node utilities within 1e-12 of the privacy cost count as zero: where a mechanism leaves a node
    exactly its cost, the difference of payment and cost is a rounding error of either sign.

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
    optimum = social_optimum(rho, alpha, beta, average_over)
    return Welfare(
        total=total,
        optimum=optimum,
        price_of_anarchy=price_of_anarchy(optimum, total),
        rent_dissipation=rent_dissipation(cost, payment),
        gini=gini(utility),
        n_losing=int(np.count_nonzero(utility < 0)),
        average_over=average_over,
    )


def social_welfare(
    epsilon: npt.ArrayLike,
    rho: npt.ArrayLike,
    alpha: float,
    beta: float,
    average_over: AverageOver = "active",
) -> float:
    """Return the utilities of server and nodes together.

    Parameters
    ----------
    epsilon, rho : array_like of float, shape (n,)
        Privacy budgets (dimensionless) and unit privacy costs (currency per unit of epsilon).
    alpha, beta : float
        The server's model-value parameters.
    average_over : {"active", "population", "effective"}, default "active"
        Over how many nodes epsilon is averaged: those with ``epsilon > 0``, all, or their
        effective number.

    Returns
    -------
    float
        ``beta * ln(1 + alpha * mean_epsilon) - (rho * epsilon).sum()``, in currency. What the
        server pays is what the nodes get, so payments cancel.

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
    n_averaged = averaged_nodes(average_over, epsilon)
    mean_epsilon = float(epsilon.sum() / n_averaged) if n_averaged else 0.0
    return server_utility(mean_epsilon, alpha, beta, float(cost.sum()))


def social_optimum(
    rho: npt.ArrayLike,
    alpha: float,
    beta: float,
    average_over: AverageOver = "active",
    members: npt.ArrayLike | None = None,
) -> float:
    """Return the most that server and nodes together can reach, if a planner chooses epsilon.

    Parameters
    ----------
    rho : array_like of float, shape (n,)
        Unit privacy costs, in currency per unit of epsilon; positive.
    alpha, beta : float
        The server's model-value parameters.
    average_over : {"active", "population", "effective"}, default "active"
        Over how many nodes epsilon is averaged: those with ``epsilon > 0``, all, or their
        effective number.
    members : array_like of bool, shape (n,), optional
        Who takes part, for a planner who may choose how much but not who. A supremum then: all
        but the cheapest give next to nothing. Without it the planner chooses that too.

    Returns
    -------
    float
        Welfare in currency, zero or positive: a planner may also let everybody stay out.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or the shapes differ.

    Notes
    -----
    For a given total S and number n_g, cost is least when the cheapest node gives everything, which
    leaves ``beta ln(1 + alpha S / n_g) - rho_min S``. With ``x = rho_min n_g / (alpha beta) < 1``
    its maximum is at ``S = beta / rho_min - n_g / alpha`` and is ``beta (x - 1 - ln x)``; otherwise
    S = 0 is best. The value falls with n_g. Over the population n_g is fixed; over the active nodes
    the planner takes one of them, n_g = 1: a mean over those who take part is highest when they are
    few, which is worth knowing before a price of anarchy is read. The effective number is one too,
    with any members, since all but the cheapest give next to nothing.

    Examples
    --------
    >>> round(social_optimum([1.0, 2.0], alpha=1.0, beta=10.0), 4)
    14.0259
    >>> round(social_optimum([1.0, 2.0], alpha=1.0, beta=10.0, average_over="population"), 4)
    8.0944
    """
    rho = as_floats("rho", rho)
    if rho.ndim != 1:
        raise InvalidGameError(f"rho must be one-dimensional, but has shape {rho.shape}.")
    require_positive(rho=rho, alpha=alpha, beta=beta)
    taking_part, giving = rho, np.zeros(rho.size)
    giving[:1] = 1.0
    if members is not None:
        require_unmasked(members=members)
        chosen = np.asarray(members, dtype=bool)
        if chosen.shape != rho.shape:
            raise InvalidGameError(
                f"members must have one value for each cost, but the shapes are {chosen.shape} "
                f"and {rho.shape}."
            )
        taking_part = rho[chosen]
        if average_over == "active":
            giving = chosen.astype(float)
    n_averaged = averaged_nodes(average_over, giving)
    if taking_part.size == 0:
        return 0.0
    cheapest = float(taking_part.min())
    x = n_averaged * (cheapest / alpha) / beta
    if x >= 1:
        return 0.0
    if x > 0.5:
        return beta * (x - 1.0 - math.log1p(x - 1.0))
    # one by one, since x itself may underflow
    log_x = math.log(n_averaged) + math.log(cheapest) - math.log(alpha) - math.log(beta)
    return beta * (x - 1.0 - log_x)


def price_of_anarchy(optimum: float, total: float) -> float:
    """Return how many times the planner's welfare is that of a profile, usually an equilibrium.

    Parameters
    ----------
    optimum : float
        The most that welfare can be, in currency; zero or positive.
    total : float
        Welfare of the profile, in currency; at most ``optimum``.

    Returns
    -------
    float
        ``optimum / total``, at least one. One where both are zero: nothing is lost where nothing
        can be had. Infinite where ``total`` is otherwise zero or negative.

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
    if total > 0:
        return max(optimum / total, 1.0)  # rounding alone can take it below one
    return 1.0 if optimum == total else float("inf")


def rent_dissipation(cost: npt.ArrayLike, payment: npt.ArrayLike) -> float:
    """Return the share of the payments that the nodes burn as privacy cost.

    Parameters
    ----------
    cost, payment : array_like of float, shape (n,)
        What each node's privacy loss costs it, and what it is paid, in currency.

    Returns
    -------
    float
        ``cost.sum() / payment.sum()``: zero where there is no cost, infinite where there is cost
        and no payment. At the Nash equilibrium it is ``(n - 1) (1 - (n - 1) q)`` with
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
    burnt, paid = float(as_floats("cost", cost).sum()), float(as_floats("payment", payment).sum())
    if burnt == 0:
        return 0.0
    return burnt / paid if paid > 0 else float("inf")


def gini(values: npt.ArrayLike) -> float:
    """Return the Gini index: zero where all have the same, ``1 - 1 / n`` where one has everything.

    Parameters
    ----------
    values : array_like of float, shape (n,)
        What each has; zero or positive.

    Returns
    -------
    float
        Half the mean absolute difference of two draws (with replacement), as a share of the mean;
        zero where nobody has anything. The index of values with negatives among them has no
        bound and no reading as a share: it is nan.

    Raises
    ------
    InvalidGameError
        If a value is not finite, or there is more than one dimension.

    Notes
    -----
    With the values sorted, ``sum_i (2 i - n - 1) x_i / (n sum_i x_i)``: O(n log n).

    Examples
    --------
    >>> gini([1.0, 1.0, 1.0]), gini([0.0, 0.0, 0.0, 8.0])
    (0.0, 0.75)
    """
    values = as_floats("values", values)
    if values.ndim != 1:
        raise InvalidGameError(f"values must be one-dimensional, but have shape {values.shape}.")
    require_positive(zero=True, values=np.abs(values))
    if (values < 0).any():
        return float("nan")
    total = values.sum()
    if total == 0:
        return 0.0
    ranked = np.sort(values)
    weight = np.arange(1 - values.size, values.size, 2)
    # the weights add up to zero: what all have can be left out, with its rounding errors
    return float(weight @ ((ranked - ranked[0]) / total) / values.size)
