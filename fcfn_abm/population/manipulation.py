"""Coalitions of nodes, and nodes with several identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.rng import Chance, as_generator

type Floats = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]
type Counts = npt.NDArray[np.int64]
type Places = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Manipulation:
    """Which nodes are silent members of a coalition, and how many identities each node has.

    Nodes are identified by their rows in the game; results refer to nodes, never to identities.
    """

    silent: Mask
    """Which nodes leave reporting to another member of their coalition, shape (n,)."""
    identities: Counts
    """Number of identities of each node, shape (n,)."""
    manipulators: Mask
    """Which nodes belong to a coalition, or have several identities, shape (n,)."""

    order: Places | None = None
    """The order in which a mechanism sees the nodes, shape (n,): others, manipulators that report,
    and silent nodes; None computes it."""

    @property
    def without_manipulation(self) -> Manipulation:
        """The same nodes in the same order, each with one identity and its own report."""
        nobody, alone = np.zeros_like(self.silent), np.ones_like(self.identities)
        return Manipulation(nobody, alone, self.manipulators, self._list_nodes())

    def list_identities(self) -> Places:
        """Return the row of the node behind each reporting identity, second identities last.

        Mechanisms with random draws then draw the same for a node, whatever the manipulators do.
        """
        nodes = self._list_nodes()
        speakers = nodes[~self.silent[nodes]]
        return np.concatenate([speakers, np.repeat(speakers, self.identities[speakers] - 1)])

    def _list_nodes(self) -> Places:
        if self.order is not None:
            return self.order
        return np.lexsort((self.silent, self.manipulators))


def draw_members(n_nodes: int, number: int, size: int, rng: Chance) -> list[list[int]]:
    """Draw disjoint sets of nodes: coalitions, or single nodes with ``size = 1``.

    Parameters
    ----------
    n_nodes : int
        Number of nodes.
    number : int
        Number of sets.
    size : int
        Number of nodes in each set.
    rng : Generator, BitGenerator, SeedSequence, int or list of int
        Source of randomness.

    Returns
    -------
    list of list of int
        Rows of the nodes in each set.

    Raises
    ------
    InvalidGameError
        If there are too few nodes.
    """
    if number * size > n_nodes:
        raise InvalidGameError(
            f"cannot draw {number} x {size} different nodes from {n_nodes} nodes."
        )
    drawn = as_generator(rng).permutation(n_nodes)[: number * size]
    members: list[list[int]] = drawn.reshape(number, size).tolist()
    return members


def find_silent(rho: Floats, coalitions: Sequence[Sequence[int]]) -> Mask:
    """Return which nodes leave reporting to another member of their coalition.

    The member with the lowest cost reports, of equal ones the first in the list: the coalition's
    cost of epsilon is then lowest.

    Parameters
    ----------
    rho : ndarray of float, shape (n,)
        Unit privacy costs.
    coalitions : sequence of sequence of int
        Rows of the members of each coalition.

    Examples
    --------
    >>> find_silent(np.array([3.0, 1.0, 2.0, 4.0]), [[0, 2, 3]])
    array([ True, False, False,  True])
    """
    silent = np.zeros(rho.size, dtype=bool)
    for members in coalitions:
        silent[list(members)] = True
        silent[members[int(np.argmin(rho[list(members)]))]] = False
    return silent


def count_identities(n_nodes: int, rows: Sequence[int], identities: int) -> Counts:
    """Return each node's number of identities: ``identities`` for those in ``rows``, else one.

    Examples
    --------
    >>> count_identities(4, [2], 3)
    array([1, 1, 3, 1])
    """
    counts = np.ones(n_nodes, dtype=np.int64)
    counts[list(rows)] = identities
    return counts


def split_reports(epsilon: Floats, identities: Counts | None) -> Floats:
    """Return the reports that a server sees: a node's report in equal parts, one per identity.

    Examples
    --------
    >>> split_reports(np.array([1.0, 6.0]), np.array([1, 3]))
    array([1., 2., 2., 2.])
    """
    return epsilon if identities is None else np.repeat(epsilon / identities, identities)
