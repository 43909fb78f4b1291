"""Records a running market in tables."""

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
    """The part of a market that the recorder reads."""

    round_index: int
    columns: _Columns
    state: Any
    """A dataclass with the measurements of the last round."""


class Recorder:
    """Records a market; call it with the market after each round.

    Parameters
    ----------
    settings : RecordSettings
        Which traces to record.
    rho : ndarray of float, shape (n,)
        Unit privacy costs; a sample is spread over their ranks.
    expected : ndarray of bool, shape (n,), optional
        Nodes that are active in closed form; they make up half of a sample if possible.
    stream : TraceWriter, optional
        Writer for the traces of all nodes; by default traces stay in memory.
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
        # a slice copies a column ten times as fast as row numbers
        self._rows = slice(None) if self._nodes.size == rho.size else self._nodes
        # 18 digits fit a deque, and no market has more rounds
        last = int(settings.traces[5:23]) if settings.traces.startswith("last:") else None
        self._rounds: dict[str, list[Any]] = {}
        self._traces: deque[_Trace] = deque(maxlen=0 if settings.traces == "none" else last)
        self._stream = stream

    def __call__(self, market: Market) -> None:
        """Record a round."""
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
        """Rows of the nodes whose traces are in memory."""
        return slice(0) if self._stream or self._traces.maxlen == 0 else self._rows

    def take_in(self, rounds: dict[str, list[Any]], traces: _Floats) -> None:
        """Record several rounds, unless their traces are streamed.

        Parameters
        ----------
        rounds : dict
            The fields of a market's state, one number per round.
        traces : ndarray of float, shape (n_rounds, 3, n_traced)
            Epsilon, payment and utility of the nodes in :attr:`rows`.
        """
        self._add_rounds(rounds)
        if self._traces.maxlen != 0:
            self._traces.extend(zip(rounds["round"], traces, strict=True))

    @property
    def streams(self) -> bool:
        """Whether traces are written to disk during the run."""
        return self._stream is not None

    def _add_rounds(self, rounds: dict[str, list[Any]]) -> None:
        for name, values in rounds.items():
            self._rounds.setdefault(name, []).extend(values)

    @property
    def rounds(self) -> pd.DataFrame:
        """One row per round."""
        return pd.DataFrame(self._rounds) if self._rounds else empty("rounds")

    @property
    def traces(self) -> pd.DataFrame | None:
        """One row per traced node and round; None if traces were streamed."""
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
    """Return the rows of a representative sample of nodes, in order.

    Half of the sample are nodes that are expected to be active, which are few in a large contest,
    and half are others; each half is spread evenly over the ranks of its costs. If one group has
    fewer nodes, all of it is taken, and the other fills the sample.

    Parameters
    ----------
    rho : ndarray of float, shape (n,)
        Unit privacy costs.
    size : int
        Number of nodes.
    expected : ndarray of bool, shape (n,), optional
        Nodes that are expected to be active; by default there is one group.

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
        if count:  # partial sort up to these ranks: a full sort takes ten times as long
            rows.append(members[np.argpartition(rho[members], ranks)[ranks]])
    return np.sort(np.concatenate(rows))
