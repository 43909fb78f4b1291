"""What accuracy is worth at several epsilons, and the law that fits it: as text and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from fcfn_abm.report.summary import table
from fcfn_abm.report.theme import BOUND, LEAVES, STAYS, theme

_POOR = 0.9  # R^2 below which the law is said to describe the trainings poorly
_LOOSE = 100.0  # high over low of alpha's interval beyond which it is said to be loose
_WIDTH = 96


def calibration_text(run: Mapping[str, Any]) -> str:
    """Say what was measured, what fits it, what that leaves open, and what the market then does.

    Parameters
    ----------
    run : mapping
        ``run.json`` of a calibration.
    """
    rows = [
        [
            f"{point['epsilon']:g}",
            f"{point['accuracy']:.1%}",
            _money(point["value"]),
            "-" if point["half_width"] is None else f"± {_money(point['half_width'])}",
            _money(point["fitted"]),
            f"{point['residual']:+.3g}",
        ]
        for point in run["points"]
    ]
    heads = ["epsilon", "accuracy", "value", "", "fitted", "residual"]
    fit = run["fit"]
    parts = [
        _heading(run),
        table(heads, rows),
        f"beta ln(1 + alpha eps):  alpha = {fit['alpha']:.4g}{_between(fit['alpha_interval'])},  "
        f"beta = {fit['beta']:.4g}{_between(fit['beta_interval'])}\n"
        f"R^2 = {fit['r_squared']:.3f}; values lie {fit['residual_std']:.3g} around it (standard "
        "deviation, in currency)."
        + (
            "\nThe law describes these trainings poorly: look at the residuals before you use it."
            if fit["r_squared"] < _POOR
            else ""
        ),
        identification(run),
        _market(run),
    ]
    return "\n\n".join(parts)


def _heading(run: Mapping[str, Any]) -> str:
    epsilon = "a round's" if run["horizon"] == "round" else "the whole training's"
    n = run["seeds"]
    text = (
        f"{len(run['points'])} epsilons, {n} seed{'s' if n > 1 else ''} each: all "
        f"{run['n_nodes']} nodes train for {run['rounds']} rounds on {run['data']} with the same "
        f"epsilon, {epsilon}. Value is accuracy beyond chance ({run['chance']:.1%}), in currency "
        f"a round; all of accuracy is worth {run['value_of_accuracy']:g}."
    )
    if n > 1:
        text += f" Intervals are t-intervals over the seeds, {run['confidence']:.0%}."
    else:
        text += " One seed gives no intervals."
    return f"{run['title'] or 'Calibration'} (seed {run['seed']})\n\n{fill(text, _WIDTH)}"


def identification(run: Mapping[str, Any]) -> str:
    """Say which of alpha and beta the trainings tell, in a sentence or two.

    Parameters
    ----------
    run : mapping
        ``run.json`` of a calibration.
    """
    fit = run["fit"]
    told = _between(fit["limit_interval"])
    if fit["identified"] == "both":
        text = "Alpha and beta are identified separately."
        low, high = fit["alpha_interval"] or (1.0, 1.0)
        if high > _LOOSE * low:
            text += (
                f" These {run['seeds']} seeds leave alpha open over a factor of {high / low:.2g}: "
                "more seeds would narrow it."
            )
    elif fit["identified"] == "product":
        text = (
            "Alpha and beta are NOT identified separately: over these epsilons the value cannot "
            "be told from a straight line, and only alpha * beta = "
            f"{fit['limit']:.4g}{told} is known. Larger epsilons would show where it bends; until "
            "then do not trust a payment cap that follows from these."
        )
    else:
        text = (
            "Alpha and beta are NOT identified separately: over these epsilons the value cannot "
            f"be told from a constant, and only its level, {fit['limit']:.4g}{told}, is known. "
            "Smaller epsilons would show where it rises; until then do not trust a payment cap "
            "that follows from these."
        )
    return fill(text, _WIDTH)


def _between(interval: tuple[float, float] | None) -> str:
    return f" ({interval[0]:.4g} to {interval[1]:.4g})" if interval else ""


def _market(run: Mapping[str, Any]) -> str:
    """Set the scenario's equilibrium beside that of the calibrated one."""
    before, after = (run["equilibrium"][key] for key in ("before", "calibrated"))
    quantities = {
        "what the server pays": "payment",
        "nodes that take part": "n_active",
        "mean epsilon": "mean_epsilon",
        "utility of the server": "server_utility",
    }
    rows = [[label, _money(before[key]), _money(after[key])] for label, key in quantities.items()]
    text = table(["At equilibrium", "as it was", "calibrated"], rows)
    low, high = (run["points"][i]["epsilon"] for i in (0, -1))
    note = ""
    if after["status"] != "solved":
        note = f"With accuracy worth {run['value_of_accuracy']:g} there is no trade."
        if run["worth_of_trade"]:
            note += f" It begins where accuracy is worth {run['worth_of_trade']:.3g} (--value)."
    elif not low <= after["mean_epsilon"] <= high:
        note = (
            f"The mean epsilon lies outside those that were trained ({low:g} to {high:g}): there "
            "the law is a guess. Calibrate the calibrated scenario once more."
        )
    return f"{text}\n{fill(note, _WIDTH)}".rstrip()


def _money(value: float) -> str:
    return f"{value:.4g}"


def calibration_figure(frame: pd.DataFrame, run: Mapping[str, Any]) -> Figure:
    """Draw the measured values, the law that fits them, and what it leaves over.

    Parameters
    ----------
    frame : DataFrame
        Table of a calibration, one row a training.
    run : mapping
        Its ``run.json``.

    Returns
    -------
    Figure
        Two panels over epsilon: values with the fit, and residuals.
    """
    with theme():
        figure = Figure(figsize=(13, 4.5))
        values, rest = figure.subplots(1, 2, sharex=True, width_ratios=(1.4, 1))
        values.set_xscale("log")
        _values(values, frame, run)
        _residuals(rest, frame, run)
        for axes in (values, rest):
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set_xlabel("epsilon of every node")
    return figure


def write_calibration_figure(frame: pd.DataFrame, run: Mapping[str, Any], folder: Path) -> None:
    """Draw a calibration, as PNG and as SVG; equal calibrations give equal files."""
    folder.mkdir(exist_ok=True)
    figure = calibration_figure(frame, run)
    with theme():  # its salt makes the names in an SVG file
        figure.savefig(folder / "calibration.png", metadata={"Software": "fcfn_abm"})
        figure.savefig(folder / "calibration.svg", metadata={"Creator": "fcfn_abm", "Date": None})


def _values(axes: Axes, frame: pd.DataFrame, run: Mapping[str, Any]) -> None:
    fit, points = run["fit"], pd.DataFrame(run["points"])
    dense = np.geomspace(points["epsilon"].min() / 1.5, points["epsilon"].max() * 1.5, 200)
    axes.plot(
        dense,
        fit["beta"] * np.log1p(fit["alpha"] * dense),
        color=BOUND,
        label=f"{fit['beta']:.3g} ln(1 + {fit['alpha']:.3g} eps), R² = {fit['r_squared']:.3f}",
    )
    _dots(axes, frame["epsilon"], frame["value"], points["epsilon"], points["value"])
    after = run["equilibrium"]["calibrated"]
    if after["status"] == "solved":
        axes.axvline(
            after["mean_epsilon"],
            color="0.2",
            linewidth=1,
            dashes=(4, 2),
            label="mean epsilon of the calibrated equilibrium",
        )
    if fit["identified"] != "both":
        told = "alpha * beta" if fit["identified"] == "product" else "the level"
        axes.plot([], [], " ", label=f"only {told} is identified")
    low, high = axes.get_ylim()
    axes.set(
        title="What the net is worth",
        ylabel="value (currency a round)",
        ylim=(low, high + 0.35 * (high - low)),  # room for the legend
    )
    axes.legend(loc="upper left")
    worth, chance = run["value_of_accuracy"], run["chance"]
    right = axes.secondary_yaxis(
        "right", functions=(lambda v: v / worth + chance, lambda a: (a - chance) * worth)
    )
    right.set_yticks(np.linspace(0, 1, 6))
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    right.set_ylabel("test accuracy")


def _residuals(axes: Axes, frame: pd.DataFrame, run: Mapping[str, Any]) -> None:
    fit, points = run["fit"], pd.DataFrame(run["points"])
    each = frame["value"] - fit["beta"] * np.log1p(fit["alpha"] * frame["epsilon"])
    axes.axhline(0, color=BOUND)
    _dots(axes, frame["epsilon"], each, points["epsilon"], points["residual"])
    axes.set(title="What the law leaves over", ylabel="value less fit (currency a round)")


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
        label="mean of the seeds",
    )
