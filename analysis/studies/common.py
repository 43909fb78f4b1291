"""Shared code of the studies: their sweeps, means with intervals, and results folders.

A study consists of a scenario with a sweep, ``scenarios/heterogeneity/NAME.toml``, a script in
cells, ``NAME.py``, and a notebook, ``NAME.ipynb``, which ``notebooks.py`` creates from the script.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from scipy import stats

import fcfn_abm as fa
from fcfn_abm.process.workers import count_cores

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = ROOT / "scenarios" / "heterogeneity"
MAP = LinearSegmentedColormap.from_list("settles", ["#D55E00", "#F7F3EE", "#0072B2"])
IN_NOTEBOOK = "ipykernel" in sys.modules


@dataclass(frozen=True)
class Study:
    """A study: its scenario, results folder and options."""

    name: str
    """Name of the scenario and the script."""
    out: Path = ROOT / "results"
    """Folder for the runs (``NAME-sweep``), and for figures and findings (``NAME-study``)."""
    workers: int = 1
    """Processes for missing runs."""
    overrides: tuple[str, ...] = ()
    """Overrides of the scenario, such as ``sweep.replications=2``."""

    @property
    def folder(self) -> Path:
        """The folder of the figures and findings."""
        return self.out / f"{self.name}-study"

    @cached_property
    def _sweep(self) -> fa.Sweep:
        path = self.out / f"{self.name}-sweep"
        command = [sys.executable, "-m", "fcfn_abm", "sweep", SCENARIOS / f"{self.name}.toml"]
        command += ["--out", path, "--workers", str(self.workers)]
        for override in self.overrides:
            command += ["--set", override]
        ended = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # noqa: S603
        if ended.returncode:  # the command has printed the reason
            raise SystemExit(ended.returncode)
        return fa.read_sweep(path)

    def sweep(self) -> fa.Sweep:
        """Run the missing runs and return the sweep."""
        return self._sweep

    def frame(self) -> pd.DataFrame:
        """Return one row per successful run, and report failed runs."""
        frame = self.sweep().frame()
        done = frame["status"] == "done"
        if not done.all():
            print(f"{(~done).sum()} of {len(frame)} runs failed:", file=sys.stderr)
            print(*frame.loc[~done, "error"].unique(), sep="\n", file=sys.stderr)
        return frame[done].reset_index(drop=True)

    def save(self, figure: Figure, name: str) -> Figure:
        """Write a figure as PNG and SVG, and return it for display in the notebook."""
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / f"{name}.png")
        figure.savefig(self.folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
        return figure

    def report(self, findings: str) -> None:
        """Write the findings as Markdown, and display them."""
        findings = _wrap(findings)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "findings.md").write_text(findings, encoding="utf-8")
        if IN_NOTEBOOK:
            from IPython.display import Markdown, display

            display(Markdown(findings))
        else:
            print(findings)
            print(f"Figures and findings: {self.folder}", file=sys.stderr)


def _wrap(text: str) -> str:
    """Rewrap paragraphs and list items after numbers are inserted; tables are unchanged."""
    blocks = []
    for block in text.strip().split("\n\n"):
        if not block.startswith("|"):
            items = re.split(r"\n(?=- )", block)
            lines = [" ".join(item.split()) for item in items]
            block = "\n".join(
                textwrap.fill(line, 100, subsequent_indent="  " * line.startswith("- "))
                for line in lines
            )
        blocks.append(block)
    return "\n\n".join(blocks) + "\n"


def begin(name: str, options: str | None = None) -> Study:
    """Read the options of a study.

    Parameters
    ----------
    name : str
        Name of the study and its scenario.
    options : str, optional
        As on the command line, such as ``"--workers 2 --set sweep.replications=2"``; by default
        the command line, or nothing in a notebook.

    Returns
    -------
    Study
        The study with its options.
    """
    parser = argparse.ArgumentParser(description=f"The study {name!r}; see docs/studies.md.")
    parser.add_argument("--out", type=Path, default=ROOT / "results", help="folder of all results")
    parser.add_argument("--workers", type=int, default=count_cores(), help="processes")
    parser.add_argument("--set", action="append", default=[], help="such as sweep.replications=2")
    if IN_NOTEBOOK or options is not None:
        asked = parser.parse_args(shlex.split(options or ""))
    else:
        asked = parser.parse_args()
    return Study(name, asked.out, asked.workers, tuple(asked.set))


def half_interval(values: pd.Series) -> float:
    """Return half of the 95 % interval of a mean, by Student's t; not a number for one value."""
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1) * values.sem())


def band(values: pd.Series) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a mean, as seaborn's ``errorbar`` takes it."""
    half = half_interval(values)
    return values.mean() - half, values.mean() + half


def number(value: float, digits: int = 3) -> str:
    """Format a number to some digits, without an exponent where possible."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.{digits}g}" if abs(rounded) < 10**digits else f"{rounded:,.0f}"


def format_range(values: pd.Series, digits: int = 3) -> str:
    """Format the range of values: ``1.2 to 3.4``, or ``1.2`` if all are equal."""
    low, high = number(values.min(), digits), number(values.max(), digits)
    return low if low == high else f"{low} to {high}"


def summary(frame: pd.DataFrame, by: str | Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Return means over replications, and half-widths of their intervals as ``COLUMN_half``.

    Parameters
    ----------
    frame : DataFrame
        One row per run.
    by : str or sequence of str
        Columns that identify points.
    columns : sequence of str
        Columns to average.

    Returns
    -------
    DataFrame
        One row per point: ``by``, the number of runs ``n``, and two columns per entry of
        ``columns``.
    """
    groups = frame.groupby(by, sort=False, observed=True)
    parts = {"n": groups.size()}
    for column in columns:
        parts[column] = groups[column].mean()
        parts[f"{column}_half"] = groups[column].agg(half_interval)
    return pd.DataFrame(parts).reset_index()


def table(frame: pd.DataFrame, formats: dict[str, str] | None = None) -> str:
    """Return a frame as a Markdown table; formats by column, such as ``{"n": ".0f"}``."""
    formats = formats or {}
    rows = [
        [format(value, formats.get(str(name), "")) for name, value in row.items()]
        for row in frame.to_dict("records")
    ]
    head = [str(name) for name in frame.columns]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def verdict_map(axes: Axes, frame: pd.DataFrame, x: str, y: str, *, y_log: bool = True) -> QuadMesh:
    """Draw the share of ``settled`` runs over two axes of a sweep.

    Parameters
    ----------
    axes : Axes
        Axes for the map.
    frame : DataFrame
        One row per run, with a column ``settled``.
    x, y : str
        Columns of the map's axes; ``x`` is logarithmic.
    y_log : bool, default True
        Whether ``y`` is logarithmic.

    Returns
    -------
    QuadMesh
        The mesh, for a colour bar.
    """
    shares = frame.pivot_table(index=y, columns=x, values="settled", aggfunc="mean")
    columns, rows = shares.columns.to_numpy(float), shares.index.to_numpy(float)
    across, up = edges(columns), edges(rows, log=y_log)
    mesh = axes.pcolormesh(
        across, up, shares.to_numpy(float), cmap=MAP, vmin=0, vmax=1, edgecolor="w", linewidth=0.6
    )
    axes.set(xscale="log", yscale="log" if y_log else "linear")
    axes.set(xlim=across[[0, -1]], ylim=up[[0, -1]])
    for axis, values, log in ((axes.xaxis, columns, True), (axes.yaxis, rows, y_log)):
        places = _space_out(values, log=log)
        axis.set_ticks(places, [f"{value:g}" for value in places])
    axes.minorticks_off()
    axes.grid(visible=False)
    return mesh


def _space_out(values: npt.NDArray[np.float64], *, log: bool, share: float = 0.06) -> list[float]:
    """Return ascending values that are far enough apart for labels."""
    places = np.log(values) if log else values
    kept = [0]
    for place in range(1, len(values)):
        if places[place] - places[kept[-1]] >= share * (places[-1] - places[0]):
            kept.append(place)
    return [float(values[place]) for place in kept]


def edges(centres: npt.NDArray[np.float64], *, log: bool = True) -> npt.NDArray[np.float64]:
    """Return the borders of cells around ascending values."""
    if len(centres) == 1:
        return centres[0] * np.array([0.9, 1.1])
    values = np.log(centres) if log else centres
    middle = (values[1:] + values[:-1]) / 2
    edges = np.array([2 * values[0] - middle[0], *middle, 2 * values[-1] - middle[-1]])
    return np.exp(edges) if log else edges
