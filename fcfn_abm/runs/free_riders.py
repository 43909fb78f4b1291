"""The gain from misreporting in a training, with and without the server's check."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

type Floats = npt.NDArray[np.float64]
type Ints = npt.NDArray[np.int64]


def compute_utility_per_round(
    utility: Floats, cost: Floats, flagged_round: Ints, rounds: int
) -> Floats:
    """Return the nodes' mean utility per round in a training with flagged nodes.

    A flagged node gives up privacy until the round in which it is flagged, and is paid only for the
    rounds before. The server keeps the rest.

    Parameters
    ----------
    utility : ndarray of float, shape (n,)
        Utility of each node in a round in which it trains and is paid, in currency.
    cost : ndarray of float, shape (n,)
        Its privacy cost in a round in which it trains, in currency.
    flagged_round : ndarray of int, shape (n,)
        Round, from 1, in which it was flagged; 0 if never.
    rounds : int
        Number of rounds.

    Examples
    --------
    >>> compute_utility_per_round(np.array([1.0, 1.0]), np.array([2.0, 2.0]), np.array([0, 1]), 10)
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
    """Return facts about the truthful or about the misreporting nodes.

    Parameters
    ----------
    members : ndarray of bool, shape (n_nodes,)
        Mask of the group's nodes.
    flagged_round : ndarray of int, shape (n_nodes,)
        As in :func:`compute_utility_per_round`.
    utilities : dict of ndarray of float, shape (n_nodes,)
        Quantities to average over the group; the mean of an empty group is None.
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
