"""Definition of which nodes take part."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.game.exact import Floats

LEAST_SHARE = 1e-8
"""A node takes part if its share of the payment is above this fraction of the largest share.

Nodes that leave gradually, as with damped best responses, report ever less but never exactly
zero."""


def takes_part(epsilon: Floats) -> npt.NDArray[np.bool_]:
    """Return which nodes take part: those whose share of the payment is not negligible.

    Parameters
    ----------
    epsilon : ndarray of float, shape (n,) or (k, n)
        Reported privacy budgets, dimensionless; zero or positive. Rows are games.

    Returns
    -------
    ndarray of bool, of the same shape
        Whether each report is above `LEAST_SHARE` of the largest report of its game.

    Examples
    --------
    >>> import numpy as np
    >>> takes_part(np.array([2.0, 1e-3, 1e-11, 0.0]))
    array([ True,  True, False, False])
    """
    return np.asarray(epsilon > LEAST_SHARE * epsilon.max(axis=-1, keepdims=True, initial=0.0))
