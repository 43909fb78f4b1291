"""Which reports count as taking part."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.game.exact import Floats

LEAST_SHARE = 1e-8
"""A node takes part if its share of the payment is more than this part of the largest share.

Nodes that leave by and by, as half best responses do, report ever less, and never quite zero."""


def takes_part(epsilon: Floats) -> npt.NDArray[np.bool_]:
    """Return which nodes take part: those whose share of the payment matters.

    Parameters
    ----------
    epsilon : ndarray of float, shape (n,) or (k, n)
        Reported privacy budgets, dimensionless; zero or positive. Rows are games.

    Returns
    -------
    ndarray of bool, of the same shape
        Whether each report is more than `LEAST_SHARE` of the largest of its game.

    Examples
    --------
    >>> import numpy as np
    >>> takes_part(np.array([2.0, 1e-3, 1e-11, 0.0]))
    array([ True,  True, False, False])
    """
    return np.asarray(epsilon > LEAST_SHARE * epsilon.max(axis=-1, keepdims=True, initial=0.0))
