"""Checks and conversions of the data that figures receive."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fcfn_abm.errors import InvalidRecordError, abbreviate, as_number
from fcfn_abm.records import Record, sample_rows


def table_of(data: Any, name: str) -> pd.DataFrame:
    """Return the frame to draw: ``data`` itself, or that of a record, sweep or comparison.

    Parameters
    ----------
    data : DataFrame, Record, Sweep, Comparison or ValueCalibration
        Argument of the figure.
    name : str
        Which table of a record to draw.
    """
    if isinstance(data, pd.DataFrame):
        return data
    found = getattr(data, name if isinstance(data, Record) else "frame", None)
    found = found() if callable(found) else found
    if not isinstance(found, pd.DataFrame):
        raise InvalidRecordError(
            f"The figure needs a data frame or a result such as a record, not {abbreviate(data)}."
        )
    return found


def resolve_value(value: Any, data: Any, what: str, *path: str) -> Any:
    """Return ``value``, or if it is None, the entry of the record's ``run.json`` at ``path``.

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
        raise InvalidRecordError(
            f"The figure needs {what}: pass it, or pass a record that contains it."
        )
    return found


def resolve_number(value: Any, data: Any, what: str, *path: str) -> float:
    """Return the result of :func:`resolve_value` as a number."""
    return as_number(what, resolve_value(value, data, what, *path), error=InvalidRecordError)


def sample_traces(record: Record) -> pd.DataFrame:
    """Return the epsilon of a sample of nodes by round, whichever traces were recorded."""
    nodes, settings = record.nodes, record.scenario.record
    if settings.traces in ("none", "sample") or len(nodes) <= settings.sample_size:
        return record.traces
    expected = (nodes["equilibrium_epsilon"] > 0).to_numpy()
    rows = sample_rows(nodes["rho"].to_numpy(), settings.sample_size, expected)
    places = nodes["node"].iloc[rows]  # node numbers may have gaps
    return record.traces_of(places, ["round", "node", "epsilon"])


def require_columns(frame: pd.DataFrame, *names: str, rows: bool = True) -> None:
    """Raise InvalidRecordError if a frame lacks a column or has no rows.

    Parameters
    ----------
    frame : DataFrame
        Data to draw.
    *names : str
        Columns that the figure needs.
    rows : bool, default True
        Whether at least one row is required.
    """
    for name in names:
        if not isinstance(name, str):
            raise InvalidRecordError(f"A column name must be a string, not {abbreviate(name)}.")
    names = tuple(dict.fromkeys(names))
    lacking = [name for name in names if name not in frame]
    needed = f"The figure needs the column{'s' if len(names) > 1 else ''} {', '.join(names)}"
    if lacking:
        raise InvalidRecordError(f"{needed}, but the frame has no column {abbreviate(lacking[0])}.")
    if rows and not len(frame):
        raise InvalidRecordError(f"{needed}, but the frame has no rows.")
