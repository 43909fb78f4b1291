"""Free riders: nodes that report one epsilon and spend less, by adding more noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, as_floats, require_positive
from fcfn_abm.rng import Chance, as_generator

type Floats = npt.NDArray[np.float64]


def draw_misreport_factors(n_nodes: int, share: float, factor: float, rng: Chance) -> Floats:
    """Draw which nodes misreport.

    Parameters
    ----------
    n_nodes : int
        Number of nodes.
    share : float
        Share of nodes that misreport; their number is rounded to the nearest integer.
    factor : float
        Reported divided by spent epsilon of a node that misreports.
    rng : Generator, BitGenerator, SeedSequence, int or list of int
        Source of randomness.

    Returns
    -------
    ndarray of float, shape (n_nodes,)
        Reported divided by spent epsilon of each node: ``factor``, or one for truthful nodes.

    Raises
    ------
    InvalidGameError
        If ``share`` is not in [0, 1] or ``factor`` is not positive.

    Notes
    -----
    A unit of reported epsilon costs such a node ``rho / factor``, so that it plays the market like
    a truthful node with that cost.

    Examples
    --------
    >>> draw_misreport_factors(5, 0.4, 1.5, np.random.default_rng(1))
    array([1.5, 1. , 1. , 1. , 1.5])
    """
    share = float(as_floats("share", share))
    if not 0 <= share <= 1:
        raise InvalidGameError(f"share must lie from 0 to 1, but is {share:g}.")
    require_positive(factor=factor)
    factors = np.ones(n_nodes)
    factors[as_generator(rng).permutation(n_nodes)[: round(share * n_nodes)]] = factor
    return factors
