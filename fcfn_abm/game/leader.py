"""The distance of a payment cap from the leader's best one, and its cost for the leader."""

from __future__ import annotations

import math

from fcfn_abm.errors import require_positive

_FLAT = 1e-3
_SERIES_BELOW = 1e-3  # from here on, the difference below keeps 13 digits


def server_regret(
    budget: float, best_budget: float, alpha: float, beta: float, unit_mean: float
) -> float:
    """Return the server's gain from its best cap, with the nodes at equilibrium under both caps.

    Parameters
    ----------
    budget : float
        Payment cap B, in currency; zero or positive.
    best_budget : float
        B* (41), in currency; zero if no trade pays.
    alpha, beta : float
        The server's model-value parameters: it gains ``beta * ln(1 + alpha * mean_epsilon)``.
    unit_mean : float
        The mean epsilon at equilibrium per unit of the cap, ``kappa = (n - 1) / (n_g tau)``; zero
        if there is no market.

    Returns
    -------
    float
        ``U_S(B*) - U_S(B)``, in currency; never negative.

    Raises
    ------
    InvalidGameError
        If a number is outside its range.

    Notes
    -----
    If trade pays, ``1 + alpha kappa B* = alpha kappa beta`` by (41), and the difference of the two
    utilities is ``beta (u - ln(1 + u))`` with ``u = (B - B*) / beta``: kappa is not needed, and no
    digits are lost if B is close to B*. The two utilities themselves are used if B* is zero, or if
    the cap is close to zero and B* close to beta.

    References
    ----------
    Zhou et al. 2023, eqs. 10 and 41.

    Examples
    --------
    >>> round(server_regret(6.0, 7.5, alpha=10.0, beta=10.0, unit_mean=0.04), 4)
    0.1252
    """
    require_positive(alpha=alpha, beta=beta)
    require_positive(zero=True, budget=budget, best_budget=best_budget, unit_mean=unit_mean)
    if best_budget == 0:
        return max(0.0, budget - beta * math.log1p(alpha * unit_mean * budget))
    relative = (budget - best_budget) / beta
    if 1 + relative < _FLAT:  # cap near zero and B* near beta: the difference loses all digits
        value, best_value = (
            beta * math.log1p(alpha * unit_mean * cap) - cap for cap in (budget, best_budget)
        )
        return best_value - value
    if abs(relative) < _SERIES_BELOW:
        return beta * relative**2 * (1 / 2 - relative * (1 / 3 - relative * (1 / 4 - relative / 5)))
    return beta * (relative - math.log1p(relative))
