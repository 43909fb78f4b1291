"""Follows a running market, and turns what it sees into tables."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from fcfn_abm.records.stream import TraceWriter
from fcfn_abm.records.tables import columns_of, empty
from fcfn_abm.scenario import RecordSettings

type _Floats = npt.NDArray[np.float64]
type _Trace = tuple[int, _Floats]
"""A round, and its epsilon, payment and utility, shape (3, n)."""


class _Columns(Protocol):
    epsilon: _Floats
    payment: _Floats
    utility: _Floats


class Market(Protocol):
    """What the recorder sees of a market."""

    round_index: int
    columns: _Columns
    state: Any
    """A dataclass with the measurements of the last round."""


class Recorder:
    """Keeps what a market shows, round by round; call it with the market after each one.

    Parameters
    ----------
    settings : RecordSettings
        Whose traces are kept.
    rho : ndarray of float, shape (n,)
        Unit privacy costs, over whose ranks a sample is spread.
    expected : ndarray of bool, shape (n,), optional
        Who takes part in closed form: half of a sample, where there are as many.
    stream : TraceWriter, optional
        Takes the traces if those of all nodes are kept; without it they stay in memory.
    """

    def __init__(
        self,
        settings: RecordSettings,
        rho: _Floats,
        expected: npt.NDArray[np.bool_] | None = None,
        stream: TraceWriter | None = None,
    ) -> None:
        self._nodes = np.arange(rho.size)
        if settings.traces == "sample":
            self._nodes = sample_rows(rho, settings.sample_size, expected)
        # a slice copies a whole column ten times as fast as row numbers do
        self._rows = slice(None) if self._nodes.size == rho.size else self._nodes
        # 18 digits fit a deque, and of more rounds than they count nobody plays
        last = int(settings.traces[5:23]) if settings.traces.startswith("last:") else None
        self._rounds: dict[str, list[Any]] = {}
        self._traces: deque[_Trace] = deque(maxlen=0 if settings.traces == "none" else last)
        self._stream = stream

    def __call__(self, market: Market) -> None:
        """Take in a round."""
        self._add_rounds({name: [value] for name, value in asdict(market.state).items()})
        now = market.columns
        if self._stream:
            self._stream.add(market.round_index, now.epsilon, now.payment, now.utility)
        elif self._traces.maxlen != 0:
            full = len(self._traces) == self._traces.maxlen
            kept = self._traces.popleft()[1] if full else np.empty((3, self._nodes.size))
            for room, values in zip(kept, (now.epsilon, now.payment, now.utility), strict=True):
                room[:] = values[self._rows]
            self._traces.append((market.round_index, kept))

    @property
    def rows(self) -> slice | npt.NDArray[np.intp]:
        """Whose traces are kept in memory."""
        return slice(0) if self._stream or self._traces.maxlen == 0 else self._rows

    def take_in(self, rounds: dict[str, list[Any]], traces: _Floats) -> None:
        """Take in several rounds, unless their traces are streamed.

        Parameters
        ----------
        rounds : dict
            The fields of a market's state, a number a round.
        traces : ndarray of float, shape (n_rounds, 3, n_traced)
            Epsilon, payment and utility of the nodes in :attr:`rows`.
        """
        self._add_rounds(rounds)
        if self._traces.maxlen != 0:
            self._traces.extend(zip(rounds["round"], traces, strict=True))

    @property
    def streams(self) -> bool:
        """Whether traces go to disk round by round."""
        return self._stream is not None

    def _add_rounds(self, rounds: dict[str, list[Any]]) -> None:
        for name, values in rounds.items():
            self._rounds.setdefault(name, []).extend(values)

    @property
    def rounds(self) -> pd.DataFrame:
        """One row a round."""
        return pd.DataFrame(self._rounds) if self._rounds else empty("rounds")

    @property
    def traces(self) -> pd.DataFrame | None:
        """One row a node and round, for the nodes that are traced; None if they were streamed."""
        if self._stream:
            return None
        if not self._traces:
            return empty("traces")
        index, kept = zip(*self._traces, strict=True)
        rounds = np.repeat(index, self._nodes.size)
        columns = (rounds, np.tile(self._nodes, len(index)), *np.concatenate(kept, axis=1))
        names = [column.name for column in columns_of("traces")]
        return pd.DataFrame(dict(zip(names, columns, strict=True)))


def sample_rows(
    rho: _Floats, size: int, expected: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.intp]:
    """Return some nodes that stand for all, in order.

    Half are of those who are expected to take part, which in a large contest are few, and half
    of the others, each half spread evenly over the ranks of its costs. Where one group is too
    small for its half, all of it is taken, and the other one fills up.

    Parameters
    ----------
    rho : ndarray of float, shape (n,)
        Unit privacy costs.
    size : int
        How many nodes.
    expected : ndarray of bool, shape (n,), optional
        Who is expected to take part; without it there is one group.

    Returns
    -------
    ndarray of int
        Rows, ascending: ``size`` of them, or all.
    """
    if rho.size <= size:
        return np.arange(rho.size)
    if expected is None:
        expected = np.ones(rho.size, dtype=bool)
    n_inside = int(np.count_nonzero(expected))
    inside = min(max((size + 1) // 2, size - (rho.size - n_inside)), n_inside)
    rows = []
    for group, count in ((expected, inside), (~expected, size - inside)):
        members = np.flatnonzero(group)
        ranks = np.linspace(0, members.size - 1, count).round().astype(int)
        if count:  # partly sorted, as far as these ranks need: a whole sort takes ten times as long
            rows.append(members[np.argpartition(rho[members], ranks)[ranks]])
    return np.sort(np.concatenate(rows))
