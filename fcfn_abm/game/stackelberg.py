"""The leader's best payment cap, and the equilibrium that follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, require_positive
from fcfn_abm.game.equilibrium import Equilibrium, nash_equilibrium
from fcfn_abm.game.payoffs import server_utility

type AverageOver = Literal["active", "population"]


@dataclass(frozen=True, repr=False)
class StackelbergEquilibrium(Equilibrium):
    """The server announces the cap that is best for it; the nodes answer with their equilibrium."""

    budget: float
    """B*, the payment cap, in currency; zero where no trade pays (45)."""
    server_utility: float
    """Utility of the server, in currency."""
    mean_epsilon: float
    """eps_g, total epsilon over ``n_g`` nodes."""
    average_over: AverageOver
    """Which nodes ``mean_epsilon`` is averaged over."""

    def _describe(self) -> tuple[str, Mapping[str, object]]:
        title, facts = super()._describe()
        own = {"payment cap B*": self.budget, "utility of the server": self.server_utility}
        return title, {**own, **facts}


def stackelberg_equilibrium(
    rho: npt.ArrayLike, alpha: float, beta: float, average_over: AverageOver = "active"
) -> StackelbergEquilibrium:
    """Solve the leader's problem and the nodes' answer to it.

    Parameters
    ----------
    rho : array_like of float, shape (n,)
        Unit privacy costs, in currency per unit of epsilon; positive.
    alpha, beta : float
        The server's model-value parameters: it gains ``beta * ln(1 + alpha * mean_epsilon)``.
    average_over : {"active", "population"}, default "active"
        Over which nodes epsilon is averaged: those that take part, since only they train the
        model, or all (the paper's printed form). They agree when everybody is active.

    Returns
    -------
    StackelbergEquilibrium
        With ``budget`` zero, and nobody active, where no trade pays: a result, not an error.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or ``average_over`` is something else.

    Notes
    -----
    The active set does not depend on the budget, so total epsilon is ``B (n - 1) / tau`` for every
    B, and the server maximises ``beta ln(1 + alpha kappa B) - B`` with
    ``kappa = (n - 1) / (n_g tau)``: B* = max(0, beta - 1 / (alpha kappa)).

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
    require_positive(alpha=alpha, beta=beta)
    alpha, beta = float(alpha), float(beta)
    market = nash_equilibrium(rho, 1.0)  # any budget shows who takes part
    n_averaged = averaged_nodes(average_over, market.n_active, market.epsilon.size)
    budget = best_budget(market.tau, market.n_active, n_averaged, alpha, beta)
    answer = nash_equilibrium(rho, budget)
    mean_epsilon = answer.total_epsilon / n_averaged if n_averaged else 0.0
    return StackelbergEquilibrium(
        **vars(answer),
        budget=budget,
        server_utility=server_utility(mean_epsilon, alpha, beta, budget),
        mean_epsilon=mean_epsilon,
        average_over=average_over,
    )


def best_budget(tau: float, n_active: int, n_averaged: int, alpha: float, beta: float) -> float:
    """Return B* (41) of a market whose active set is known; zero where no trade pays.

    Parameters
    ----------
    tau : float
        Sum of the active nodes' unit privacy costs, in currency per unit of epsilon.
    n_active, n_averaged : int
        How many nodes take part, and over how many epsilon is averaged.
    alpha, beta : float
        The server's model-value parameters.

    Returns
    -------
    float
        The payment cap, in currency.
    """
    if n_active < 2:
        return 0.0
    return max(0.0, beta - n_averaged * (tau / (n_active - 1)) / alpha)


def averaged_nodes(average_over: AverageOver, n_active: int, n_nodes: int) -> int:
    """Return n_g, how many nodes the mean epsilon is averaged over."""
    allowed = get_args(AverageOver.__value__)
    if average_over not in allowed:
        raise InvalidGameError(f"average_over must be one of {allowed}, but is {average_over!r}.")
    return n_active if average_over == "active" else n_nodes
