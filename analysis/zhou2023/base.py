"""Shared code of all figures: settings, tidy numbers, and findings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from fcfn_abm import build
from fcfn_abm.scenario import Scenario, shipped_files
from fcfn_abm.training.distributed import BlockWorkers

type Floats = npt.NDArray[np.float64]
type Size = Literal["fast", "full"]
type Scenarios = Mapping[str, Scenario]

MONEY = "currency"
COLUMNS = [
    "figure", "panel", "reading", "series", "x_name", "x", "quantity", "unit", "replication",
    "value",
]  # fmt: skip
"""Columns of the tidy numbers."""
_BLANK: Mapping[str, Any] = {
    "panel": "", "reading": "", "series": "", "x_name": "", "x": np.nan, "unit": "1",
    "replication": 0,
}  # fmt: skip


def hash_code(folder: Path, *apart: str) -> str:
    """Return a hash of all Python files below a folder, except those in some of its folders."""
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.py"))
    code = (
        f"{path.as_posix()}\n".encode() + (folder / path).read_bytes()
        for path in files
        if path.parts[0] not in apart
    )
    return hashlib.sha256(b"".join(code)).hexdigest()


@dataclass(frozen=True)
class Setting:
    """Size, output folder and workers of a replication."""

    size: Size = "fast"
    """"fast" (minutes on two cores) or "full" (the paper's size)."""
    out: Path = Path("results/zhou2023-fast")
    """Folder of the results."""
    workers: int | BlockWorkers = 1
    """Threads that train."""
    progress: bool = False
    """Whether to show progress bars on stderr."""


@dataclass(frozen=True)
class Finding:
    """Whether a claim holds under one reading, decided by numbers."""

    claim: str
    """Name of the claim in ``expected.toml``."""
    reading: str
    """Name of the reading there."""
    holds: bool
    numbers: str
    """The compared numbers, in a sentence."""


@dataclass(frozen=True)
class Study:
    """A figure: how its numbers are computed, drawn and judged."""

    name: str
    """Such as ``"fig4"``; ``"extra-..."`` if the paper has no such figure."""
    title: str
    setup: str
    """What the figure shows, and which of its settings the paper states."""
    load: Callable[[Setting], Scenarios]
    """Returns the scenarios by name, such as a reading or a data set."""
    compute: Callable[[Scenarios, Setting], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    judge: Callable[[pd.DataFrame], Iterator[Finding]]
    heavy: bool = field(default=False)
    """Whether it trains nets."""


def figure_file(name: str) -> str:
    """Return the name of a figure's files.

    Examples
    --------
    >>> figure_file("fig4"), figure_file("extra-leader")
    ('fig04', 'extra-leader')
    """
    return f"fig{int(name.removeprefix('fig')):02d}" if name.startswith("fig") else name


def scenario_of(name: str, overrides: Sequence[str] = ()) -> Scenario:
    """Load the scenario of a figure."""
    return build.load_scenario(shipped_files()[f"paper/{name}"], overrides)


def load_readings(
    name: str, overrides: Mapping[str, Sequence[str]]
) -> Callable[[Setting], Scenarios]:
    """Return a function that loads a figure's scenario for each reading, with its overrides."""

    def load(_: Setting) -> Scenarios:
        return {reading: scenario_of(name, changes) for reading, changes in overrides.items()}

    return load


def axis_runs(scenario: Scenario, axis: str) -> list[tuple[float, Scenario]]:
    """Return the axis value and the scenario of each run of a sweep."""
    return [(float(run.point[axis]), run.scenario) for run in build.list_runs(scenario)]


def rows(quantity: str, value: npt.ArrayLike, **where: Any) -> pd.DataFrame:
    """Return numbers as tidy rows; ``where`` are other columns, the same for all or one each.

    Examples
    --------
    >>> rows("budget", [1.0, 2.0], x=[10, 50], x_name="n_nodes")["value"].tolist()
    [1.0, 2.0]
    """
    columns = {**_BLANK, **where}
    if columns.keys() != _BLANK.keys():
        raise TypeError(f"columns are {', '.join(_BLANK)}, but not {', '.join(where)}.")
    value = np.atleast_1d(np.asarray(value, dtype=float))
    frame = pd.DataFrame({"value": value, "quantity": quantity})
    columns["x"] = np.broadcast_to(np.asarray(columns["x"], dtype=float), value.shape)
    return frame.assign(**columns)


def table(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join tidy rows."""
    return pd.concat(parts, ignore_index=True)


def pick(values: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """Return the rows that have all these values."""
    for column, wanted in where.items():
        values = values[values[column] == wanted]
    return values


def number(values: pd.DataFrame, **where: Any) -> float:
    """Return the single matching number."""
    found = pick(values, **where)["value"]
    if len(found) != 1:
        raise LookupError(f"{where}: {len(found)} values, not one.")
    return float(found.iloc[0])


def curve(values: pd.DataFrame, **where: Any) -> pd.Series[float]:
    """Return numbers by x, means over replications, in the order of x."""
    return pick(values, **where).groupby("x")["value"].mean().sort_index()


def format_numbers(numbers: Iterable[Any], digits: int = 4) -> str:
    """Format numbers separated by commas.

    Examples
    --------
    >>> format_numbers([0.01, 4e-4, 1e-4])
    '0.01, 0.0004, 0.0001'
    """
    return ", ".join(f"{value:.{digits}g}" for value in numbers)
