"""Nodes that agree, and nodes that come as several: who is behind the reports that are made."""

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
    """Which nodes say nothing, since another member of their coalition does, and who comes as many.

    Nodes are told apart by their rows in the game; results are those of nodes, never of identities.
    """

    silent: Mask
    """Which nodes leave it to another member of their coalition to report, shape (n,)."""
    identities: Counts
    """As how many each node comes, shape (n,)."""
    manipulators: Mask
    """Which nodes belong to a coalition, or come as several, shape (n,)."""

    order: Places | None = None
    """The order in which a mechanism gets to know the nodes, shape (n,): others, manipulators that
    report, and those that say nothing; None works it out."""

    @property
    def honest(self) -> Manipulation:
        """The same nodes in the same order, each of which comes as one and reports for itself."""
        nobody, alone = np.zeros_like(self.silent), np.ones_like(self.identities)
        return Manipulation(nobody, alone, self.manipulators, self._list_nodes())

    def list_identities(self) -> Places:
        """Return the row of the node behind each identity that reports, second identities last.

        Mechanisms that draw then draw the same for a node, whatever the manipulators do.
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
        How many nodes there are.
    number : int
        How many sets.
    size : int
        Nodes in each.
    rng : Generator, BitGenerator, SeedSequence, int or list of int
        Source of chance.

    Returns
    -------
    list of list of int
        Rows of the nodes in each set.

    Raises
    ------
    InvalidGameError
        If there are fewer nodes than that.
    """
    if number * size > n_nodes:
        raise InvalidGameError(
            f"{number} times {size} nodes cannot be drawn from {n_nodes} nodes without repetition."
        )
    drawn = as_generator(rng).permutation(n_nodes)[: number * size]
    members: list[list[int]] = drawn.reshape(number, size).tolist()
    return members


def find_silent(rho: Floats, coalitions: Sequence[Sequence[int]]) -> Mask:
    """Return which nodes leave it to another member of their coalition to report.

    The cheapest member reports, of equal ones the first in the list: epsilon costs the coalition
    least where that node sells it.

    Parameters
    ----------
    rho : ndarray of float, shape (n,)
        Unit privacy costs.
    coalitions : sequence of sequence of int
        Rows of the members of each.

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
    """Return as how many each node comes: ``identities`` for those in ``rows``, else one.

    Examples
    --------
    >>> count_identities(4, [2], 3)
    array([1, 1, 3, 1])
    """
    counts = np.ones(n_nodes, dtype=np.int64)
    counts[list(rows)] = identities
    return counts


def split_reports(epsilon: Floats, identities: Counts | None) -> Floats:
    """Return the reports that a server sees: those of a node in equal parts, one an identity.

    Examples
    --------
    >>> split_reports(np.array([1.0, 6.0]), np.array([1, 3]))
    array([1., 2., 2., 2.])
    """
    return epsilon if identities is None else np.repeat(epsilon / identities, identities)
