"""What figures ask of the frames they are given."""

from __future__ import annotations

import pandas as pd

from fcfn_abm.errors import InvalidRecordError, abbreviate


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
    names = tuple(dict.fromkeys(names))
    lacking = [name for name in names if name not in frame]
    needed = f"The figure needs the column{'s' if len(names) > 1 else ''} {', '.join(names)}"
    if lacking:
        raise InvalidRecordError(f"{needed}; the frame has none called {abbreviate(lacking[0])}.")
    if rows and not len(frame):
        raise InvalidRecordError(f"{needed}; the frame has no rows.")
