"""The stored rounds of a live market, so that the window can show earlier ones."""

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
"""Most memory for the rounds of a market; beyond it the first rounds are dropped."""

_HEAD = 64  # bytes per round besides its arrays


type Small = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Moment:
    """The nodes in a round, as columns of shape (n,)."""

    round: int
    rho: Floats
    epsilon: Floats
    payment: Floats
    utility: Floats
    exit_round: Rows
    form: Mapping[str, Any]
    """The closed form of the nodes in that round."""
    priced: Floats
    by_cost: Rows


@dataclass(frozen=True)
class _Kept:
    """A round: its non-zero rows, and the exits since the round before."""

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
    """Stores the non-zero rows of each round, which are few in a large market at rest.

    Parameters
    ----------
    columns : NodeColumns
        Columns of the market.
    most_bytes : int, default MOST_BYTES
        Most memory to use, in bytes.
    """

    def __init__(self, columns: NodeColumns, most_bytes: int = MOST_BYTES) -> None:
        self._columns, self._most_bytes = columns, most_bytes
        self._rounds: deque[_Kept] = deque()
        self._n_bytes = 0
        self._first = np.full(len(columns), -1, dtype=np.int32)  # exits before that round
        self._latest = self._first.copy()

    @property
    def first_round(self) -> int:
        """The first stored round."""
        return self._rounds[0].round

    def keep(self, round_index: int, reference: tuple[Mapping[str, Any], Floats, Rows]) -> None:
        """Store the columns after a round.

        Parameters
        ----------
        round_index : int
            Number of the round; rounds are consecutive.
        reference : tuple
            The closed form, its epsilon and the nodes by cost; not copied.
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
        """Return a round, or the first stored one if it was dropped."""
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
        """Return the stored rounds up to one, and a node's reports in them."""
        rounds, epsilon = [], []
        for kept in self._rounds:
            if kept.round > until:
                break
            place = int(np.searchsorted(kept.rows, node))
            reports = place < kept.rows.size and kept.rows[place] == node
            rounds.append(kept.round)
            epsilon.append(float(kept.values[0, place]) if reports else 0.0)
        return rounds, epsilon
