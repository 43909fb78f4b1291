"""A server that learns the value of epsilon: what it pays, buys and learns, as a figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from fcfn_abm.records import Record
from fcfn_abm.report.figures.frames import require_columns, table_of
from fcfn_abm.report.theme import BOUND, LEAVES, STAYS, fix_ticks, theme

_DOTS: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3.5, "alpha": 0.7}


def closed_loop(rounds: pd.DataFrame | Record) -> Figure:
    """Draw what the server pays, buys and learns in each round.

    Parameters
    ----------
    rounds : DataFrame or Record
        Table of the rounds of a record whose scenario has a [value] table, or such a record.

    Returns
    -------
    Figure
        Eight panels over the rounds of training: cap, epsilon, participation, privacy spent,
        accuracy, alpha, beta, and the measured value of each round with the expected one. Bands
        are 95 % credible intervals.
    """
    rounds = table_of(rounds, "rounds")
    require_columns(rounds, "round", "budget", "alpha", "beta", "gain", "epsilon_spent")
    rounds = rounds[rounds["alpha"].notna()]
    panels: list[tuple[str, str, Callable[[Axes, pd.DataFrame], None]]] = [
        ("Payment cap", "currency per round", _draw_cap),
        ("Privacy bought", "mean ε", _draw_epsilon),
        ("Participation", "nodes", _draw_nodes),
        ("Privacy spent", "ε of the node that spent most", _draw_spending),
        ("Accuracy", "test accuracy", _draw_accuracy),
        ("Estimate of α", "per unit of ε", lambda axes, part: _draw_estimate(axes, part, "alpha")),
        ("Estimate of β", "currency", lambda axes, part: _draw_estimate(axes, part, "beta")),
        ("Value of each round", "currency", _draw_value),
    ]
    with theme():
        figure = Figure(figsize=(15, 6.8))
        for axes, (title, label, draw) in zip(figure.subplots(2, 4).flat, panels, strict=True):
            draw(axes, rounds)
            axes.set(title=title, ylabel=label, xlabel="round")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="best", fontsize="small")
    return fix_ticks(figure)


def _draw_cap(axes: Axes, rounds: pd.DataFrame) -> None:
    planned = rounds["budget"] / rounds["exploration"]
    axes.plot(rounds["round"], rounds["budget"], color=STAYS, label="cap B", **_DOTS)
    axes.plot(rounds["round"], planned, color=STAYS, label="cap without exploration")
    axes.set(ylim=(0, None))


def _draw_epsilon(axes: Axes, rounds: pd.DataFrame) -> None:
    axes.plot(rounds["round"], rounds["mean_epsilon"], color=STAYS)
    axes.set(ylim=(0, None))


def _draw_nodes(axes: Axes, rounds: pd.DataFrame) -> None:
    axes.plot(rounds["round"], rounds["n_active"], color=STAYS, label="active")
    axes.plot(rounds["round"], rounds["n_exited"], color=LEAVES, dashes=(4, 2), label="exited")
    axes.set(ylim=(0, None))


def _draw_spending(axes: Axes, rounds: pd.DataFrame) -> None:
    axes.plot(rounds["round"], rounds["epsilon_spent"], color=BOUND)
    axes.set(ylim=(0, None))


def _draw_accuracy(axes: Axes, rounds: pd.DataFrame) -> None:
    axes.plot(rounds["round"], rounds["accuracy"], color=STAYS)
    axes.set(ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_estimate(axes: Axes, rounds: pd.DataFrame, name: str) -> None:
    axes.plot(rounds["round"], rounds[name], color=BOUND)
    axes.fill_between(
        rounds["round"],
        rounds[f"{name}_low"],
        rounds[f"{name}_high"],
        color=BOUND,
        alpha=0.18,
        linewidth=0,
    )
    if name == "alpha":  # its logarithm is normally distributed
        axes.set(yscale="log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.tick_params(which="minor", length=0)
    else:
        axes.set(ylim=(0, None))


def _draw_value(axes: Axes, rounds: pd.DataFrame) -> None:
    axes.plot(rounds["round"], rounds["measured_value"], color=LEAVES, label="measured", **_DOTS)
    axes.plot(rounds["round"], rounds["expected_value"], color=BOUND, label="expected")
    axes.fill_between(
        rounds["round"],
        rounds["expected_value_low"],
        rounds["expected_value_high"],
        color=BOUND,
        alpha=0.18,
        linewidth=0,
    )
    axes.axhline(0, color="0.6", linewidth=0.8)
