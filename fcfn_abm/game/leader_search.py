"""The leader's best cap without a closed form, as with fixed costs and caps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import as_number, require_one_of, require_positive, require_type
from fcfn_abm.game.contest import ContestEquilibrium, contest_equilibrium, find_equilibrium
from fcfn_abm.game.costs import Terms
from fcfn_abm.game.equilibrium import as_population
from fcfn_abm.game.payoffs import server_utility
from fcfn_abm.game.stackelberg import AverageOver, averaged_nodes

_GRID = 96
_PEAKS = 6
_HALVINGS = 40  # halvings of an interval in which a node enters or leaves
_SPAN = 1e-5


@dataclass(frozen=True)
class LeaderSearch:
    """The best cap that was found, and the nodes' equilibrium."""

    budget: float
    """The payment cap, in currency; zero if no trade pays."""
    server_utility: float
    """Utility of the server, in currency."""
    mean_epsilon: float
    """eps_g."""
    equilibrium: ContestEquilibrium
    """The nodes' equilibrium at this cap."""


def search_best_cap(
    rho: npt.ArrayLike,
    alpha: float,
    beta: float,
    terms: Terms,
    average_over: AverageOver = "active",
    answer: Callable[[npt.NDArray[np.float64], float, Terms], ContestEquilibrium] | None = None,
) -> LeaderSearch:
    """Search for the server's best payment cap under any terms.

    Parameters
    ----------
    rho : array_like of float, shape (n,)
        Costs of a unit of k, in currency; positive.
    alpha, beta : float
        The server's model-value parameters: it gains ``beta * ln(1 + alpha * mean_epsilon)``.
    terms : Terms
        Form of the cost, caps, fixed cost, reserve.
    average_over : {"active", "population", "effective"}, default "active"
        Nodes over which epsilon is averaged.
    answer : callable, optional
        The nodes' equilibrium for a cap; by default the first equilibrium that a short search
        finds, and :func:`contest_equilibrium` at the best cap.

    Returns
    -------
    LeaderSearch
        Accurate to about 1e-8 of the cap. If several equilibria exist at a cap, the search uses the
        first that it finds, usually the one in which most nodes take part; if it finds none, it
        assumes that nobody takes part.

    Raises
    ------
    InvalidGameError
        If a number is outside its range.

    Notes
    -----
    No node spends more than the cap, so that no epsilon exceeds ``k^-1(B / min rho)``, and no trade
    pays beyond the cap at which even that epsilon gains less than it costs. Below it the server's
    utility is evaluated at 96 points, evenly spaced in the logarithm, refined around its six
    highest local maxima by Brent's method, and at both sides of the caps at which the number of
    participants changes, where utility jumps.

    References
    ----------
    Zhou et al. 2023, eqs. 10 and 41.

    Examples
    --------
    >>> found = search_best_cap([1.0, 1.0, 1.0], 1.0, 10.0, Terms())
    >>> round(found.budget, 5)  # beta - n tau / ((n - 1) alpha)
    5.5
    """
    from scipy.optimize import minimize_scalar  # slow to import

    require_type(Terms, terms=terms)
    require_one_of(AverageOver, average_over=average_over)
    rho, alpha, beta = as_population(rho), as_number("alpha", alpha), as_number("beta", beta)
    require_positive(rho=rho, alpha=alpha, beta=beta)
    solve = answer or find_equilibrium

    def gains(budget: float) -> tuple[float, float, ContestEquilibrium]:
        game = solve(rho, budget, terms)
        n_averaged = averaged_nodes(average_over, game.epsilon)
        mean = game.total_epsilon / n_averaged if n_averaged else 0.0
        paid = budget if game.n_active else 0.0
        return server_utility(mean, alpha, beta, paid), mean, game

    nothing = LeaderSearch(0.0, 0.0, 0.0, solve(rho, 0.0, terms))
    if rho.size < 2:
        return nothing
    high = beta
    cheapest = float(rho.min())
    while beta * np.log1p(alpha * terms.form.inverse(np.array(high / cheapest))) > high:
        high *= 2.0
    grid = np.geomspace(high * _SPAN, high, _GRID)
    looked = [gains(cap) for cap in grid]
    values = np.array([utility for utility, _, _ in looked])
    n_active = [game.n_active for _, _, game in looked]
    edge = np.array([-np.inf])
    is_peak = (values >= np.append(edge, values[:-1])) & (values >= np.append(values[1:], edge))
    inner = np.flatnonzero(is_peak)
    best = (0.0, 0.0)
    for place in inner[np.argsort(-values[inner], kind="stable")][:_PEAKS]:
        low, top = grid[max(place - 1, 0)], grid[min(place + 1, _GRID - 1)]
        found = minimize_scalar(
            lambda log_cap: -gains(float(np.exp(log_cap)))[0],
            bounds=(np.log(low), np.log(top)),
            method="bounded",
            options={"xatol": 1e-10},
        )
        caps = [float(np.exp(found.x)), float(grid[place])]
        for first in range(max(place - 1, 0), min(place + 1, _GRID - 1)):
            if n_active[first] != n_active[first + 1]:
                caps += _find_jump(grid[first], grid[first + 1], lambda cap: gains(cap)[2].n_active)
        for cap in caps:
            best = max(best, (gains(cap)[0], cap))
    if best[0] <= 0:
        return nothing
    utility, mean, game = gains(best[1])
    if answer is None and not terms.has_one_equilibrium:
        known = contest_equilibrium(rho, best[1], terms)  # also finds other equilibria
        if np.array_equal(known.active, game.active):
            game = known
    return LeaderSearch(best[1], utility, mean, game)


def _find_jump(low: float, high: float, count: Callable[[float], int]) -> tuple[float, float]:
    """Return two close caps between which the number of participants changes."""
    below = count(low)
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        if count(middle) == below:
            low = middle
        else:
            high = middle
    return float(low), float(high)
