"""The value of a net at several epsilons, and the fitted curve, as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from fcfn_abm.errors import InvalidRecordError, abbreviate
from fcfn_abm.report.calibrate import r_squared
from fcfn_abm.report.figures.frames import require_columns, resolve_value, table_of
from fcfn_abm.report.theme import BOUND, LEAVES, STAYS, fix_ticks, letter_panels, theme


def calibration(frame: Any, run: Mapping[str, Any] | None = None) -> Figure:
    """Draw the measured values, the fitted curve and the residuals.

    Parameters
    ----------
    frame : DataFrame or ValueCalibration
        Table of a calibration, one row per training; or a calibration, which also has ``run``.
    run : mapping, optional
        Its ``run.json``.

    Returns
    -------
    Figure
        Two panels over epsilon: values with the fit, and residuals.
    """
    run = resolve_value(run, frame, "run.json")
    if not (isinstance(run, Mapping) and {"fit", "points", "equilibrium"} <= set(run)):
        raise InvalidRecordError(
            f"run must have the keys of a calibration's run.json, not {abbreviate(run)}."
        )
    frame = table_of(frame, "frame")
    require_columns(frame, "epsilon", "value")
    with theme():
        figure = Figure(figsize=(13, 4.5))
        values, rest = figure.subplots(1, 2, sharex=True, width_ratios=(1.4, 1))
        values.set_xscale("log")
        _values(values, frame, run)
        _residuals(rest, frame, run)
        for axes in (values, rest):
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set_xlabel("ε of every node")
        letter_panels((values, rest))
    return fix_ticks(figure)


def _values(axes: Axes, frame: pd.DataFrame, run: Mapping[str, Any]) -> None:
    fit, points = run["fit"], pd.DataFrame(run["points"])
    dense = np.geomspace(points["epsilon"].min() / 1.5, points["epsilon"].max() * 1.5, 200)
    axes.plot(
        dense,
        fit["beta"] * np.log1p(fit["alpha"] * dense),
        color=BOUND,
        label=f"{fit['beta']:.3g} ln(1 + {fit['alpha']:.3g} ε), R² {r_squared(fit)}",
    )
    _dots(axes, frame["epsilon"], frame["value"], points["epsilon"], points["value"])
    after = run["equilibrium"]["calibrated"]
    if after["status"] == "solved":
        axes.axvline(
            after["mean_epsilon"],
            color="0.2",
            linewidth=1,
            dashes=(4, 2),
            label="mean ε of the calibrated equilibrium",
        )
    if fit["identified"] != "both":
        identified = "α β" if fit["identified"] == "product" else "the level"
        axes.plot([], [], " ", label=f"only {identified} is identified")
    low, high = axes.get_ylim()
    axes.set(
        title="Value of the net",
        ylabel="value (currency per round)",
        ylim=(low, high + 0.35 * (high - low)),  # room for the legend
    )
    axes.legend(loc="upper left")
    full_value, chance = run["value_of_accuracy"], run["chance"]
    right = axes.secondary_yaxis(
        "right", functions=(lambda v: v / full_value + chance, lambda a: (a - chance) * full_value)
    )
    ticks, (low, high) = np.linspace(0, 1, 6), axes.get_ylim()
    at = (ticks - chance) * full_value
    if np.count_nonzero((low <= at) & (at <= high)) > 1:  # else matplotlib's, which are closer
        right.set_yticks(ticks)
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    right.set_ylabel("test accuracy")


def _residuals(axes: Axes, frame: pd.DataFrame, run: Mapping[str, Any]) -> None:
    fit, points = run["fit"], pd.DataFrame(run["points"])
    each = frame["value"] - fit["beta"] * np.log1p(fit["alpha"] * frame["epsilon"])
    axes.axhline(0, color=BOUND, label="fit")
    _dots(axes, frame["epsilon"], each, points["epsilon"], points["residual"])
    axes.legend(loc="best")
    axes.set(title="Residuals", ylabel="value − fit (currency per round)")


def _dots(
    axes: Axes, epsilon: pd.Series, each: pd.Series, places: pd.Series, means: pd.Series
) -> None:
    axes.scatter(epsilon, each, s=18, color=LEAVES, alpha=0.7, linewidth=0, label="one net")
    axes.scatter(
        places,
        means,
        s=45,
        color=STAYS,
        edgecolor="white",
        linewidth=0.6,
        zorder=3,
        label="mean over the seeds",
    )
