"""Upper bounds that hold at every profitable equilibrium, for any other participants."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, as_floats, as_number, require_positive


def privacy_cost_ceiling(alpha: float, beta: float, n_nodes: float) -> float:
    """Return the unit privacy cost below which every active node lies if trade pays, for any costs.

    Parameters
    ----------
    alpha, beta : float
        The server's model-value parameters: it gains ``beta * ln(1 + alpha * mean_epsilon)``.
    n_nodes : float
        Number of nodes over which epsilon is averaged: all of them in the paper, the active ones
        with ``average_over = "active"``, their effective number with ``"effective"``.

    Returns
    -------
    float
        ``alpha * beta / n_nodes``, in currency per unit of epsilon.

    Raises
    ------
    InvalidGameError
        If a number is not positive and finite.

    Notes
    -----
    A node takes part while ``rho_i < tau / (n - 1)`` (48), and the server pays while
    ``n_g tau / (alpha (n - 1)) < beta`` (45). Together, ``rho_i < alpha beta / n_g``.

    References
    ----------
    Zhou et al. 2023, eq. 47.

    Examples
    --------
    >>> privacy_cost_ceiling(alpha=10.0, beta=10.0, n_nodes=1000)
    0.1
    """
    alpha, beta = as_number("alpha", alpha), as_number("beta", beta)
    n_nodes = as_number("n_nodes", n_nodes)
    require_positive(alpha=alpha, beta=beta)
    if not n_nodes >= 1:  # NaN fails this test
        raise InvalidGameError(f"n_nodes must be 1 or more, but is {n_nodes:g}.")
    return float(alpha * beta / n_nodes)


def epsilon_ceiling(rho: npt.ArrayLike, budget: float) -> npt.NDArray[np.float64]:
    """Return the epsilon from which a node loses money, even if it is paid the whole cap.

    Parameters
    ----------
    rho : array_like of float, shape (n,)
        Unit privacy costs, in currency per unit of epsilon; positive.
    budget : float
        Payment cap B of the round, in currency; zero or positive.

    Returns
    -------
    ndarray of float, shape (n,)
        ``budget / rho``, dimensionless. A node that takes part at a profit stays below it.

    Raises
    ------
    InvalidGameError
        If a number is outside its range.

    Notes
    -----
    Positive utility means ``S < B / rho_i`` (50), and epsilon_i is a part of S.

    References
    ----------
    Zhou et al. 2023, eq. 52.

    Examples
    --------
    >>> epsilon_ceiling([0.5, 2.0], budget=1.0)
    array([2. , 0.5])
    """
    rho = as_floats("rho", rho)
    require_positive(rho=rho)
    budget = as_number("budget", budget)
    require_positive(zero=True, budget=budget)
    return np.asarray(budget / rho)
