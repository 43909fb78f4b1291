"""Several runs in shared charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fcfn_abm.records import Record
from fcfn_abm.report.theme import (
    ARM_COLOURS,
    escape_text,
    fix_ticks,
    letter_panels,
    round_ticks,
    spans_decades,
    theme,
)

_PANELS: dict[str, tuple[str, str, str | None]] = {  # column: title, unit, closed form
    "total_epsilon": ("Total ε, S", "sum of all ε", "total_epsilon"),
    "n_active": ("Nodes that take part", "nodes", "n_active"),
    "exploitability": ("Exploitability", "share of B", None),
    "payment": ("Payment by the server", "currency per round", "payment"),
    "server_utility": ("Utility of the server", "currency per round", "server_utility"),
    "node_utility": ("Utility of all nodes", "currency per round", "node_utility"),
}
_DASHES: tuple[Any, ...] = ("", (5, 1.5), (1.5, 1.5), (6, 2, 1, 2), (3, 1), (8, 2))


def several_rounds(runs: Mapping[str, Sequence[Record]]) -> Figure:
    """Draw the rounds of several runs in shared charts.

    Parameters
    ----------
    runs : mapping of str to sequence of Record
        Runs by the name of their setting; runs of one setting share a colour.

    Returns
    -------
    Figure
        Six panels, one per quantity, with a line per run and its closed form as a thin line.
    """
    looks = choose_looks(list(runs))
    longest = max(int(record.rounds["round"].max()) for some in runs.values() for record in some)
    shortest = min(int(record.rounds["round"].max()) for some in runs.values() for record in some)
    with theme():
        figure = Figure(figsize=(13, 7.2))
        grid = figure.subplots(2, 3, sharex=True)
        for axes, (column, (title, unit, form)) in zip(grid.ravel(), _PANELS.items(), strict=True):
            _rounds(axes, runs, looks, column, form)
            axes.set(title=title, ylabel=unit)
        for axes in grid[1]:
            axes.set_xlabel("round")
        if longest > 30 * shortest:
            grid[0, 0].set_xscale("log")
        else:
            grid[0, 0].xaxis.set_major_locator(round_ticks())
        _legend(figure, grid[0, 0])
        letter_panels(grid.ravel())
    return fix_ticks(figure)


def _rounds(
    axes: Axes,
    runs: Mapping[str, Sequence[Record]],
    looks: Mapping[str, Mapping[str, Any]],
    column: str,
    form: str | None,
) -> None:
    values, levels = [], []
    for name, some in runs.items():
        for i, record in enumerate(some):
            rounds = record.rounds
            seen = rounds[column].where(np.isfinite(rounds[column]))
            if column == "exploitability":
                seen = seen.where(seen > 0)
            label = escape_text(name) if i == 0 else None
            axes.plot(
                rounds["round"],
                seen,
                label=label,
                linewidth=1.6 if len(some) == 1 else 1.0,
                alpha=1.0 if len(some) == 1 else 0.7,
                **looks[name],
            )
            values.append(seen)
            if form:
                levels.append((record.run["equilibrium"][form], looks[name]["color"]))
    for i, (level, colour) in enumerate(dict.fromkeys(levels)):
        label = "closed form" if i == 0 else None
        axes.axhline(level, color=colour, dashes=(2, 3), linewidth=0.8, zorder=1, label=label)
    known = pd.concat(values).dropna()
    if column == "exploitability" or spans_decades(known):
        axes.set_yscale("log")
    elif len(known) and known.min() >= 0:
        axes.set_ylim(0, None)


def several_accuracies(runs: Mapping[str, Sequence[Record]]) -> Figure:
    """Draw the test accuracy that the markets of several runs buy, by round.

    Parameters
    ----------
    runs : mapping of str to sequence of Record
        Runs by the name of their setting, of which some trained.

    Returns
    -------
    Figure
        One panel, with a line per run.
    """
    looks = choose_looks(list(runs))
    with theme():
        figure = Figure(figsize=(7.5, 4.4))
        axes = figure.subplots()
        for name, some in runs.items():
            trained = [record for record in some if not record.training.empty]
            for i, record in enumerate(trained):
                training = record.training
                own = training[training["arm"] == record.run["training"]["arms"][0]["name"]]
                axes.plot(
                    own["round"],
                    own["accuracy"],
                    label=escape_text(name) if i == 0 else None,
                    linewidth=1.6 if len(trained) == 1 else 1.0,
                    **looks[name],
                )
        axes.set(xlabel="communication round", ylabel="test accuracy", ylim=(0, 1))
        axes.set_title("Accuracy with the market's ε")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.xaxis.set_major_locator(round_ticks())
        axes.legend(loc="lower right")
    return fix_ticks(figure)


def choose_looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return colour and dashes of each name; mechanisms have the same ones in all figures."""
    own = [ARM_COLOURS.get(name) for name in names]
    colours = own if all(own) else sns.color_palette("colorblind", len(names)).as_hex()
    return {
        name: {
            "color": colour,
            **({"dashes": _DASHES[i % len(_DASHES)]} if i % len(_DASHES) else {}),
        }
        for i, (name, colour) in enumerate(zip(names, colours, strict=True))
    }


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 4))
