"""The rounds of a play that are kept, so that the window can go back to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.columns import NodeColumns
from fcfn_abm.viz.frame import Floats, Rows

MOST_BYTES = 256 << 20
"""Memory that the rounds of one play take; beyond it the first ones are dropped."""

_HEAD = 64  # bytes of what is kept of a round besides its arrays


type Small = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Moment:
    """What the nodes did in a round, as columns of all of them, shape (n,)."""

    round: int
    rho: Floats
    epsilon: Floats
    payment: Floats
    utility: Floats
    exit_round: Rows
    form: Mapping[str, Any]
    """The closed form of the nodes that were there."""
    priced: Floats
    by_cost: Rows


@dataclass(frozen=True)
class _Kept:
    """A round: what is not zero in it, and whose exit changed since the round before."""

    round: int
    rows: Small
    values: Floats
    """Epsilon, payment and utility of these rows, shape (3, k)."""
    changed: Small
    exit_round: Small
    rho: Floats
    reference: tuple[Mapping[str, Any], Floats, Rows]

    @property
    def n_bytes(self) -> int:
        arrays = (self.rows, self.values, self.changed, self.exit_round)
        return _HEAD + sum(array.nbytes for array in arrays)


class Past:
    """Keeps what is not zero of each round: in a large market at rest, that is little.

    Parameters
    ----------
    columns : NodeColumns
        Of the market.
    most_bytes : int, default MOST_BYTES
        Memory that may be taken.
    """

    def __init__(self, columns: NodeColumns, most_bytes: int = MOST_BYTES) -> None:
        self._columns, self._most_bytes = columns, most_bytes
        self._rounds: deque[_Kept] = deque()
        self._n_bytes = 0
        self._first = np.full(len(columns), -1, dtype=np.int32)  # exits before the first round
        self._latest = self._first.copy()

    @property
    def first_round(self) -> int:
        """The first round that is kept."""
        return self._rounds[0].round

    def keep(self, round_index: int, reference: tuple[Mapping[str, Any], Floats, Rows]) -> None:
        """Keep the columns as they are after a round.

        Parameters
        ----------
        round_index : int
            Number of the round; they follow one another.
        reference : tuple
            The closed form, its epsilon and the nodes in order of cost; not copied.
        """
        columns = self._columns
        does = (columns.epsilon != 0) | (columns.payment != 0) | (columns.utility != 0)
        rows = np.flatnonzero(does).astype(np.int32)
        changed = np.flatnonzero(columns.exit_round != self._latest).astype(np.int32)
        exit_round = columns.exit_round[changed].astype(np.int32)
        self._latest[changed] = exit_round
        values = np.stack([c[rows] for c in (columns.epsilon, columns.payment, columns.utility)])
        kept = _Kept(round_index, rows, values, changed, exit_round, columns.rho, reference)
        self._rounds.append(kept)
        self._n_bytes += kept.n_bytes
        while self._n_bytes > self._most_bytes and len(self._rounds) > 1:
            dropped = self._rounds.popleft()
            self._n_bytes -= dropped.n_bytes
            self._first[dropped.changed] = dropped.exit_round

    def at(self, round_index: int) -> Moment:
        """Return a round, or the first one that is kept."""
        index = max(round_index - self.first_round, 0)
        kept = self._rounds[index]
        epsilon, payment, utility = np.zeros((3, kept.rho.size))
        for column, values in zip((epsilon, payment, utility), kept.values, strict=True):
            column[kept.rows] = values
        exit_round = self._first.astype(np.intp)
        for earlier in islice(self._rounds, index + 1):
            exit_round[earlier.changed] = earlier.exit_round
        return Moment(kept.round, kept.rho, epsilon, payment, utility, exit_round, *kept.reference)

    def path(self, node: int, until: int) -> tuple[list[int], list[float]]:
        """Return the rounds that are kept, up to one, and what a node reported in them."""
        rounds, epsilon = [], []
        for kept in self._rounds:
            if kept.round > until:
                break
            place = int(np.searchsorted(kept.rows, node))
            reports = place < kept.rows.size and kept.rows[place] == node
            rounds.append(kept.round)
            epsilon.append(float(kept.values[0, place]) if reports else 0.0)
        return rounds, epsilon
