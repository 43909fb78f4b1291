"""The leader's best payment cap, and the equilibrium that follows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import as_floats, as_number, require_one_of, require_positive
from fcfn_abm.game.activity import takes_part
from fcfn_abm.game.equilibrium import Equilibrium, as_costs, solve_nodes
from fcfn_abm.game.exact import Floats, PerGame
from fcfn_abm.game.payoffs import server_utility

type AverageOver = Literal["active", "population", "effective"]


@dataclass(frozen=True, repr=False)
class StackelbergEquilibrium(Equilibrium):
    """The server announces its best cap, and the nodes answer with their equilibrium."""

    budget: PerGame
    """B*, the payment cap, in currency; zero if no trade pays (45)."""
    server_utility: PerGame
    """Utility of the server, in currency."""
    mean_epsilon: PerGame
    """eps_g, total epsilon over ``n_g`` nodes."""
    average_over: AverageOver
    """Nodes over which ``mean_epsilon`` is averaged."""

    def _describe(self) -> tuple[str, Mapping[str, object]]:
        title, facts = super()._describe()
        if self.rho.ndim == 2:
            return title, {**facts, "payment cap B*, on average": float(np.mean(self.budget))}
        own = {"payment cap B*": self.budget, "utility of the server": self.server_utility}
        return title, {**own, **facts}


def stackelberg_equilibrium(
    rho: npt.ArrayLike, alpha: float, beta: float, average_over: AverageOver = "active"
) -> StackelbergEquilibrium:
    """Solve the leader's problem and the nodes' answer to it.

    Parameters
    ----------
    rho : array_like of float, shape (n,) or (k, n)
        Unit privacy costs, in currency per unit of epsilon; positive. Each row of a table is a
        population; all are solved together, with bitwise equal results, much faster than one by
        one.
    alpha, beta : float
        The server's model-value parameters: it gains ``beta * ln(1 + alpha * mean_epsilon)``.
    average_over : {"active", "population", "effective"}, default "active"
        Nodes over which epsilon is averaged: those that take part, because only they train the
        model; all (the paper's printed form); or the effective number ``S**2 / sum epsilon**2``.
        The three agree when all nodes sell the same epsilon.

    Returns
    -------
    StackelbergEquilibrium
        If no trade pays, ``budget`` is zero and nobody is active, without an error.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or ``average_over`` is not one of these names.

    Notes
    -----
    The active set does not depend on the budget, so total epsilon is ``B (n - 1) / tau`` for every
    B, and the server maximises ``beta ln(1 + alpha kappa B) - B`` with
    ``kappa = (n - 1) / (n_g tau)``: B* = max(0, beta - 1 / (alpha kappa)). With
    ``average_over = "effective"``, ``1 / n_g`` is the sum of the squared shares
    ``1 - rho_i (n - 1) / tau``, which do not depend on the budget either.

    References
    ----------
    Zhou et al. 2023, eqs. 41 and 45; see docs/theory.md.

    Examples
    --------
    >>> import numpy as np
    >>> game = stackelberg_equilibrium(np.full(100, 0.001), alpha=1.0, beta=10.0)  # fig. 4
    >>> round(game.budget, 6), round(game.epsilon.max().item(), 6)
    (9.89899, 98.0)
    """
    return solve_leader(solve_nodes(as_costs(rho)), alpha, beta, average_over)


def solve_leader(
    answer_to: Callable[[Floats], Equilibrium], alpha: float, beta: float, average_over: AverageOver
) -> StackelbergEquilibrium:
    """Solve the leader's problem for a given response of the nodes to a budget.

    Parameters
    ----------
    answer_to : callable
        From :func:`fcfn_abm.game.equilibrium.solve_nodes`.
    alpha, beta, average_over
        As in :func:`stackelberg_equilibrium`.
    """
    alpha, beta = as_number("alpha", alpha), as_number("beta", beta)
    require_positive(alpha=alpha, beta=beta)
    market = answer_to(np.ones(()))  # the active set is the same for any budget
    n_averaged = averaged_nodes(average_over, market.epsilon)
    budget = _best_budgets(market, n_averaged, alpha, beta)
    answer = answer_to(np.asarray(budget))
    mean_epsilon = average_per_node(answer.total_epsilon, n_averaged)
    return StackelbergEquilibrium(
        **vars(answer),
        budget=budget,
        server_utility=server_utility(mean_epsilon, alpha, beta, budget),
        mean_epsilon=mean_epsilon,
        average_over=average_over,
    )


def _best_budgets(market: Equilibrium, n_averaged: PerGame, alpha: float, beta: float) -> PerGame:
    """Return B* of one game, or of each of many."""
    if market.rho.ndim == 1:
        return best_budget(market.tau, market.n_active, n_averaged, alpha, beta)
    games = zip(market.tau.tolist(), market.n_active.tolist(), n_averaged.tolist(), strict=True)
    return np.array([best_budget(*game, alpha, beta) for game in games])


def best_budget(tau: float, n_active: int, n_averaged: float, alpha: float, beta: float) -> float:
    """Return B* (41) of a market with a known active set; zero if no trade pays.

    Parameters
    ----------
    tau : float
        Sum of the active nodes' unit privacy costs, in currency per unit of epsilon.
    n_active : int
        Number of nodes that take part.
    n_averaged : float
        Number of nodes over which epsilon is averaged (:func:`averaged_nodes`).
    alpha, beta : float
        The server's model-value parameters.

    Returns
    -------
    float
        The payment cap, in currency.
    """
    return max(0.0, marginal_budget(tau, n_active, n_averaged, alpha, beta))


def marginal_budget(
    tau: float, n_active: int, n_averaged: float, alpha: float, beta: float
) -> float:
    """Return beta - 1 / (alpha kappa): B* if positive, else the distance from profitable trade.

    Parameters are those of `best_budget`. Minus infinity if fewer than two nodes take part.
    """
    if n_active < 2:
        return -math.inf
    return beta - n_averaged * (tau / (n_active - 1)) / alpha


def best_linear_budget(unit_mean_epsilon: float, alpha: float, beta: float) -> float:
    """Return the best cap of a contest in which epsilon is proportional to the cap.

    Parameters
    ----------
    unit_mean_epsilon : float
        Mean epsilon that a cap of one unit of currency buys; zero or positive.
    alpha, beta : float
        The server's model-value parameters.

    Returns
    -------
    float
        ``max(0, beta - 1 / (alpha * unit_mean_epsilon))``, in currency; zero if nothing is bought.

    References
    ----------
    Zhou et al. 2023, eq. 41, whose kappa is ``unit_mean_epsilon``.

    Examples
    --------
    >>> best_linear_budget(0.5, alpha=1.0, beta=10.0)
    8.0
    """
    if unit_mean_epsilon == 0:
        return 0.0
    return max(0.0, beta - 1.0 / alpha / unit_mean_epsilon)


def average_per_node(total: PerGame, n_averaged: PerGame) -> PerGame:
    """Return totals divided by the number of nodes that they are averaged over; 0 / 0 is 0.

    Takes numbers, or arrays of shape (k,), and returns the same.
    """
    if np.ndim(n_averaged):
        return np.where(n_averaged > 0, total / np.maximum(n_averaged, 1), 0.0)
    return float(total / n_averaged) if n_averaged else 0.0


def averaged_nodes(average_over: AverageOver, epsilon: npt.ArrayLike) -> PerGame:
    """Return n_g, the number of nodes over which epsilon is averaged.

    Parameters
    ----------
    average_over : {"active", "population", "effective"}
        The nodes that take part, all of them, or their effective number.
    epsilon : array_like of float, shape (n,) or (k, n)
        Privacy budgets, dimensionless; zero for nodes that stay out. A node takes part if its share
        is not negligible (:func:`takes_part`). Rows are games.

    Returns
    -------
    float, or ndarray of shape (k,)
        An integer, except for the effective number ``S**2 / sum epsilon**2``: the number of equal
        epsilons with the same sum and the same sum of squares. It lies between one and the number
        of nodes that take part, and is zero if nobody does.

    Raises
    ------
    InvalidGameError
        If ``average_over`` is not one of these names.

    References
    ----------
    The inverse of the Herfindahl index of concentration; Kish 1965 for weighted samples.

    Examples
    --------
    >>> epsilon = [2.0, 1.0, 0.0]
    >>> [averaged_nodes(over, epsilon) for over in ("active", "population", "effective")]
    [2, 3, 1.8]
    """
    require_one_of(AverageOver, average_over=average_over)
    epsilon = as_floats("epsilon", epsilon)
    if epsilon.ndim == 2 and average_over == "effective":
        return np.array([averaged_nodes(average_over, game) for game in epsilon], dtype=float)
    if average_over == "population":
        n_nodes = epsilon.shape[-1]
        return n_nodes if epsilon.ndim == 1 else np.full(len(epsilon), n_nodes)
    if epsilon.ndim == 2:
        return np.count_nonzero(takes_part(epsilon), axis=-1)
    n_active = int(np.count_nonzero(takes_part(epsilon)))
    if average_over == "active" or n_active == 0:
        return n_active
    share = epsilon / epsilon.max()  # keeps the squares finite
    return float(share.sum()) ** 2 / float(share @ share)
