"""What misreporting pays over a training, and what the server's check leaves of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

type Floats = npt.NDArray[np.float64]
type Ints = npt.NDArray[np.int64]


def utility_a_round(utility: Floats, cost: Floats, flagged_round: Ints, rounds: int) -> Floats:
    """Return what nodes earn in the mean round of a training in which some of them are flagged.

    A flagged node has given its privacy up to that round, that round included, and is paid for
    the rounds before it. What it is not paid stays with the server.

    Parameters
    ----------
    utility : ndarray of float, shape (n,)
        What each node earns in a round in which it trains and is paid, in currency.
    cost : ndarray of float, shape (n,)
        What it gives up in a round in which it trains, in currency.
    flagged_round : ndarray of int, shape (n,)
        Round, from 1, in which it was flagged; 0 if it never was.
    rounds : int
        How many rounds there are.

    Examples
    --------
    >>> utility_a_round(np.array([1.0, 1.0]), np.array([2.0, 2.0]), np.array([0, 1]), 10)
    array([ 1. , -0.2])
    """
    flagged = flagged_round > 0
    paid = np.where(flagged, flagged_round - 1, rounds)
    return np.asarray((paid * utility - flagged * cost) / rounds)


def group_facts(
    members: npt.NDArray[np.bool_],
    flagged_round: Ints,
    utilities: dict[str, Floats],
) -> dict[str, Any]:
    """Return the facts about honest nodes, or about those that misreport.

    Parameters
    ----------
    members : ndarray of bool, shape (n_nodes,)
        Whom the group consists of.
    flagged_round : ndarray of int, shape (n_nodes,)
        As in :func:`utility_a_round`.
    utilities : dict of ndarray of float, shape (n_nodes,)
        Whose means over the group are wanted; None stands for the mean of an empty group.
    """
    flagged = flagged_round[members & (flagged_round > 0)]
    return {
        "n_nodes": int(members.sum()),
        "n_flagged": int(flagged.size),
        "first_flagged": int(flagged.min()) if flagged.size else None,
        "last_flagged": int(flagged.max()) if flagged.size else None,
        **{
            name: float(values[members].mean()) if members.any() else None
            for name, values in utilities.items()
        },
    }
