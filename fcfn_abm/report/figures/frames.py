"""What figures ask of the frames they are given."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fcfn_abm.errors import InvalidRecordError, abbreviate, as_number
from fcfn_abm.records import Record, sample_rows


def table_of(data: Any, name: str) -> pd.DataFrame:
    """Return what a figure draws: a frame as it is, or that of a record, sweep or comparison.

    Parameters
    ----------
    data : DataFrame, Record, Sweep, Comparison or ValueCalibration
        What the figure was given.
    name : str
        Which table of a record it is.
    """
    if isinstance(data, pd.DataFrame):
        return data
    found = getattr(data, name if isinstance(data, Record) else "frame", None)
    found = found() if callable(found) else found
    if not isinstance(found, pd.DataFrame):
        raise InvalidRecordError(
            f"The figure draws a frame, or a record or the like, not {abbreviate(data)}."
        )
    return found


def given_or(value: Any, data: Any, what: str, *path: str) -> Any:
    """Return a value that was given beside a frame; without it, what a record's facts say.

    Raises
    ------
    InvalidRecordError
        If there is neither.
    """
    if value is not None:
        return value
    found = getattr(data, "run", None)
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    if found is None:
        raise InvalidRecordError(f"The figure needs {what}: give it, or a record that holds it.")
    return found


def given_number(value: Any, data: Any, what: str, *path: str) -> float:
    """Return :func:`given_or` as a number."""
    return as_number(what, given_or(value, data, what, *path), error=InvalidRecordError)


def few_traces(record: Record) -> pd.DataFrame:
    """Return the epsilon of as many nodes as a sample holds, by round, whatever was kept."""
    nodes, settings = record.nodes, record.scenario.record
    if settings.traces in ("none", "sample") or len(nodes) <= settings.sample_size:
        return record.traces
    expected = (nodes["equilibrium_epsilon"] > 0).to_numpy()
    rows = sample_rows(nodes["rho"].to_numpy(), settings.sample_size, expected)
    places = nodes["node"].iloc[rows]  # some may be empty
    return record.traces_of(places, ["round", "node", "epsilon"])


def require_columns(frame: pd.DataFrame, *names: str, rows: bool = True) -> None:
    """Raise InvalidRecordError if a frame lacks a column, or has no rows.

    Parameters
    ----------
    frame : DataFrame
        What is to be drawn.
    *names : str
        Columns that the figure needs.
    rows : bool, default True
        Whether there is nothing to draw without rows.
    """
    for name in names:
        if not isinstance(name, str):
            raise InvalidRecordError(f"A column is named by a text, not {abbreviate(name)}.")
    names = tuple(dict.fromkeys(names))
    lacking = [name for name in names if name not in frame]
    needed = f"The figure needs the column{'s' if len(names) > 1 else ''} {', '.join(names)}"
    if lacking:
        raise InvalidRecordError(f"{needed}; the frame has none called {abbreviate(lacking[0])}.")
    if rows and not len(frame):
        raise InvalidRecordError(f"{needed}; the frame has no rows.")
