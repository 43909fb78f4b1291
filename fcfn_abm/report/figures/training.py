"""Training in figures: test accuracy and privacy spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, PercentFormatter

from fcfn_abm.errors import InvalidRecordError, abbreviate, as_list, require_type
from fcfn_abm.records import Record
from fcfn_abm.report.figures.frames import require_columns, resolve_number, resolve_value, table_of
from fcfn_abm.report.theme import (
    ARM_COLOURS,
    ARM_DASHES,
    BOUND,
    STAYS,
    escape_text,
    fix_ticks,
    format_power,
    letter_panels,
    round_ticks,
    theme,
    training_label,
)

_MANY = 6  # with more trainings, names stand next to lines and bars
_DECADES = 30.0  # ratio from which an axis is logarithmic

_OF_AN_ARM = ("name", "n_nodes", "private", "node_utility", "n_losing")


def accuracy(
    training: pd.DataFrame | Record,
    arms: Sequence[Mapping[str, Any]] | None = None,
    data_label: str | None = None,
) -> Figure:
    """Draw the test accuracy of each training, and the utility that it leaves the nodes.

    Parameters
    ----------
    training : DataFrame or Record
        Table of a record, or a record, which also has the other arguments.
    arms : sequence of mapping, optional
        The trainings as listed in a record's ``run.json``: name, nodes, utilities.
    data_label : str, optional
        Name of the data set, for the title.

    Returns
    -------
    Figure
        Two panels: accuracy by round, one line per training; and the utility of all nodes
        together, one bar per training whose epsilon is paid for.
    """
    if isinstance(training, Record):
        require_columns(training.training, "round", "arm", "accuracy")
    arms = _require_trainings(resolve_value(arms, training, "the trainings", "training", "arms"))
    data_label = resolve_value(data_label, training, "the name of the data", "training", "data")
    require_type(str, error=InvalidRecordError, data_label=data_label)
    training = table_of(training, "training")
    require_columns(training, "round", "arm", "accuracy")
    names = [arm["name"] for arm in arms]
    colours = {name: ARM_COLOURS.get(name, "0.5") for name in names}
    with theme():
        many = len(arms) > _MANY
        figure = Figure(figsize=(13, 3 + 0.3 * len(arms)) if many else (11, 4.8))
        curves, bars = figure.subplots(1, 2, width_ratios=(3, 1.8 if many else 1.4))
        sns.lineplot(
            training,
            x="round",
            y="accuracy",
            hue="arm",
            style="arm",
            hue_order=names,
            style_order=names,
            palette=colours,
            dashes={name: ARM_DASHES.get(name, (3.0, 1.0)) for name in names},
            errorbar=None,
            ax=curves,
        )
        handles, labels = curves.get_legend_handles_labels()
        nodes = {arm["name"]: arm["n_nodes"] for arm in arms}
        curves.legend(
            handles,
            [f"{training_label(name)} ({nodes[name]} nodes)" for name in labels],
            **({"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if many else {}),
        )
        curves.yaxis.set_major_formatter(PercentFormatter(1.0))
        curves.xaxis.set_major_locator(round_ticks())
        if not training["round"].any():  # training failed in its first round: no lines
            for line in curves.lines:
                line.set_marker("o")
        curves.set(
            title=escape_text(f"Federated training on {data_label}"),
            xlabel="communication round",
            ylabel="test accuracy",
            ylim=(0, 1),
        )
        earnings = _earnings_of_many if many else _earnings
        earnings(bars, [arm for arm in arms if arm["private"]], colours)
        letter_panels((curves, bars))
    return fix_ticks(figure)


def _require_trainings(value: object) -> list[Mapping[str, Any]]:
    arms = as_list("arms", value, what="mappings", error=InvalidRecordError)
    for arm in arms:
        if not (isinstance(arm, Mapping) and set(_OF_AN_ARM) <= set(arm)):
            raise InvalidRecordError(
                f"Each training must have {', '.join(_OF_AN_ARM)}, not {abbreviate(arm)}."
            )
    return arms


def _earnings(axes: Axes, arms: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> None:
    utility = [arm["node_utility"] for arm in arms]
    names = [arm["name"] for arm in arms]
    bars = axes.bar(names, utility, color=[colours[name] for name in names], width=0.6)
    notes = [f"{arm['node_utility']:.3g}\n{arm['n_losing']} nodes lose" for arm in arms]
    axes.bar_label(bars, notes, padding=4)
    axes.axhline(0, color="0.2", linewidth=0.8)
    axes.margins(x=0.2, y=0.25)
    axes.set_xticks(range(len(names)), [training_label(name) for name in names])
    axes.grid(visible=False, axis="x")
    axes.set(title="Utility of the nodes", ylabel="sum over all nodes (currency)")


def _earnings_of_many(
    axes: Axes, arms: Sequence[Mapping[str, Any]], colours: Mapping[str, str]
) -> None:
    """Draw horizontal bars, next to which many names fit."""
    names = [arm["name"] for arm in arms]
    utility = [arm["node_utility"] for arm in arms]
    bars = axes.barh(names, utility, color=[colours[name] for name in names], height=0.6)
    axes.bar_label(bars, [f"{arm['node_utility']:.3g}" for arm in arms], padding=4)
    axes.axvline(0, color="0.2", linewidth=0.8)
    axes.margins(x=0.3, y=0.02)
    lose = [f"{training_label(arm['name'])} ({arm['n_losing']} lose)" for arm in arms]
    axes.set_yticks(range(len(names)), lose)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(title="Utility of the nodes", xlabel="sum over all nodes (currency)")


def ledger(ledger: pd.DataFrame | Record, delta: float | None = None) -> Figure:
    """Draw how much privacy has been spent by each round.

    Parameters
    ----------
    ledger : DataFrame or Record
        Table of a record, one row per round and node that trained in it; or a record.
    delta : float, optional
        Delta of every epsilon in the table.

    Returns
    -------
    Figure
        Two panels on the same scale: what a single upload reveals, in one round and in all rounds
        so far; and the total as the server sees it, which is less under secure aggregation. Lines
        are the median node; bands span the nodes.
    """
    if delta is None and isinstance(ledger, Record):
        delta = ledger.scenario.privacy.delta
    delta = resolve_number(delta, ledger, "delta", "delta")
    ledger = table_of(ledger, "ledger")
    require_columns(ledger, "round", "epsilon_round", "epsilon_total")
    views: dict[str, tuple[tuple[str, str, str, Any], ...]] = {
        "Each upload on its own": (
            ("epsilon_total", "all rounds so far", BOUND, (None, None)),
            ("epsilon_round", "one round", "0.35", (1, 1)),
        ),
        "From the server's view": (("epsilon_central", "all rounds so far", STAYS, (4, 1.5)),),
    }
    views = {title: lines for title, lines in views.items() if lines[0][0] in ledger}
    groups = ledger.groupby("round", sort=True)
    with theme():
        figure = Figure(figsize=(5.5 * len(views), 3.8))
        panels = figure.subplots(1, len(views), sharey=True, squeeze=False)[0]
        lowest, highest = float("inf"), 0.0
        for axes, (title, lines) in zip(panels, views.items(), strict=True):
            for name, label, colour, dashes in lines:
                spent = groups[name].agg(["min", "median", "max"])
                axes.plot(spent.index, spent["median"], color=colour, dashes=dashes, label=label)
                axes.fill_between(
                    spent.index, spent["min"], spent["max"], color=colour, alpha=0.15, linewidth=0
                )
                positive = spent[spent > 0]
                lowest = min(lowest, float(positive.min().min()))
                highest = max(highest, float(positive.max().max()))
            axes.set(title=title, xlabel="communication round of training")
            axes.xaxis.set_major_locator(round_ticks())
            band = Patch(color="0.35", alpha=0.15, linewidth=0, label="range over the nodes")
            axes.legend(handles=[*axes.lines, band], loc="lower right")
        panels[0].set_ylabel(f"ε spent (δ = {format_power(delta)})")
        if highest > _DECADES * lowest:
            panels[0].set(yscale="log")
            panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            for axes in panels:
                axes.tick_params(which="minor", length=0)
        else:
            panels[0].set(ylim=(0, None))
        if len(panels) > 1:
            letter_panels(panels)
    return fix_ticks(figure)
