"""Follows a running market, and turns what it sees into tables."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from fcfn_abm.records.tables import empty
from fcfn_abm.scenario import RecordSettings


class _Columns(Protocol):
    epsilon: npt.NDArray[np.float64]
    payment: npt.NDArray[np.float64]
    utility: npt.NDArray[np.float64]


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
    """

    def __init__(self, settings: RecordSettings, rho: npt.NDArray[np.float64]) -> None:
        n_nodes, size = rho.size, settings.sample_size
        rows = np.arange(n_nodes)
        if settings.traces == "sample" and n_nodes > size:
            ranks = np.linspace(0, n_nodes - 1, size).round().astype(int)
            rows = np.sort(np.argsort(rho, kind="stable")[ranks])
        last = int(settings.traces[5:]) if settings.traces.startswith("last:") else None
        self._rows = rows
        self._rounds: list[dict[str, Any]] = []
        self._traces: deque[pd.DataFrame] = deque(maxlen=0 if settings.traces == "none" else last)

    def __call__(self, market: Market) -> None:
        """Take in a round."""
        self._rounds.append(asdict(market.state))
        columns, rows = market.columns, self._rows
        self._traces.append(
            pd.DataFrame(
                {
                    "round": market.round_index,
                    "node": rows,
                    "epsilon": columns.epsilon[rows],
                    "payment": columns.payment[rows],
                    "utility": columns.utility[rows],
                }
            )
        )

    @property
    def rounds(self) -> pd.DataFrame:
        """One row a round."""
        return pd.DataFrame(self._rounds) if self._rounds else empty("rounds")

    @property
    def traces(self) -> pd.DataFrame:
        """One row a node and round, for the nodes that are traced."""
        return pd.concat(self._traces, ignore_index=True) if self._traces else empty("traces")
