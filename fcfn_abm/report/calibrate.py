"""What accuracy is worth at several epsilons, and the law that fits it: as text and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

from rich.text import Text

from fcfn_abm.errors import join_lines
from fcfn_abm.report.blocks import Table, Tone
from fcfn_abm.report.marks import heading, join
from fcfn_abm.report.summary import WIDTH

POOR = 0.9
"""R^2 below which the law is said to describe the trainings poorly."""
WARNING = "The law describes these trainings poorly: look at the residuals before you use it."
_NO_FIT = -100.0  # R^2 below which nobody wants its digits: all values may be alike
LOOSE = 100.0
"""High over low of alpha's interval beyond which it is said to be loose."""


def calibration_text(run: Mapping[str, Any]) -> Text:
    """Say what was measured, what fits it, what that leaves open, and what the market then does.

    Parameters
    ----------
    run : mapping
        ``run.json`` of a calibration.
    """
    fit = run["fit"]
    parts: list[str | Text] = [
        heading(f"{join_lines(run['title']) or 'Calibration'} (seed {run['seed']})"),
        fill(setting(run), WIDTH),
        points_table(run).to_rich_text(),
        f"beta ln(1 + alpha eps):  alpha = {fit['alpha']:.4g}{between(fit['alpha_interval'])},  "
        f"beta = {fit['beta']:.4g}{between(fit['beta_interval'])}\n{goodness(run)}",
        identification(run),
        market_table(run).to_rich_text(),
    ]
    return join("\n\n", parts)


def setting(run: Mapping[str, Any]) -> str:
    """Say what was trained, and how its worth is measured."""
    epsilon = "a round's" if run["horizon"] == "round" else "the whole training's"
    n = run["seeds"]
    text = (
        f"{len(run['points'])} epsilons, {n} seed{'s' if n > 1 else ''} each: all "
        f"{run['n_nodes']} nodes train for {run['rounds']} rounds on {run['data']} with the same "
        f"epsilon, {epsilon}. Value is accuracy beyond chance ({run['chance']:.1%}), in currency "
        f"a round; all of accuracy is worth {run['value_of_accuracy']:g}."
    )
    if n > 1:
        return f"{text} Intervals are t-intervals over the seeds, {run['confidence']:.0%}."
    return f"{text} One seed gives no intervals."


def points_table(run: Mapping[str, Any]) -> Table:
    """Return what was measured at each epsilon, and what the law makes of it."""
    rows = [
        [
            f"{point['epsilon']:g}",
            f"{point['accuracy']:.1%}",
            _money(point["value"]),
            _describe_interval(point, run),
            _money(point["fitted"]),
            f"{point['residual']:+.3g}",
        ]
        for point in run["points"]
    ]
    head = ["epsilon", "accuracy", "value", f"{run['confidence']:.0%} interval", "fitted"]
    return Table([*head, "residual"], rows)


def _describe_interval(point: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Write the interval of a value: accuracy lies between 0 and 1, and so does its interval."""
    if point["half_width"] is None:
        return "-"
    least, most = (run["value_of_accuracy"] * (end - run["chance"]) for end in (0.0, 1.0))
    low = max(point["value"] - point["half_width"], least)
    high = min(point["value"] + point["half_width"], most)
    return f"{_money(low)} to {_money(high)}"


def r_squared(fit: Mapping[str, Any]) -> str:
    """Write R squared, with the sign before it.

    Examples
    --------
    >>> r_squared({"r_squared": 0.98765}), r_squared({"r_squared": -2.4e294})
    ('= 0.988', 'below -100')
    """
    of: float = fit["r_squared"]
    return f"= {of:.3f}" if of > _NO_FIT else f"below {_NO_FIT:g}"


def goodness(run: Mapping[str, Any]) -> str:
    """Say how well the law describes the trainings, in a line or two."""
    fit = run["fit"]
    text = (
        f"R^2 {r_squared(fit)}; values lie {fit['residual_std']:.3g} around it (standard "
        "deviation, in currency)."
    )
    if fit["r_squared"] < POOR:
        text += f"\n{WARNING}"
    return text


def find_openness(fit: Mapping[str, Any]) -> float:
    """Return the factor over which alpha is open, where alpha and beta can be told apart; else 1.

    Parameters
    ----------
    fit : mapping
        ``fit`` of a calibration's ``run.json``.
    """
    if fit["identified"] != "both" or not fit["alpha_interval"]:
        return 1.0
    low, high = fit["alpha_interval"]
    return float(high / low) if low > 0 else float("inf")


def describe_fit(fit: Mapping[str, Any]) -> tuple[str, Tone]:
    """Return in a few words what a fit leaves open, the worst first, and how bad that is."""
    if fit["identified"] != "both":
        return "Alpha and beta are not identified separately", "bad"
    if find_openness(fit) > LOOSE:
        return "Alpha is not identified", "bad"
    if fit["r_squared"] < POOR:
        return "The curve fits poorly", "fair"
    return "Alpha and beta are identified", "good"


def identification(run: Mapping[str, Any]) -> str:
    """Say which of alpha and beta the trainings tell, in a sentence or two.

    Parameters
    ----------
    run : mapping
        ``run.json`` of a calibration.
    """
    fit = run["fit"]
    interval = between(fit["limit_interval"])
    if (factor := find_openness(fit)) > LOOSE:
        text = (
            "Alpha is NOT identified: the value bends over these epsilons, but the "
            f"{run['seeds']} seeds differ so much that alpha is open over a factor of "
            f"{factor:,.0f}. More seeds would narrow it; until then do not trust a payment cap "
            "that follows from these."
        )
    elif fit["identified"] == "both":
        text = "Alpha and beta are identified separately."
    elif fit["identified"] == "product":
        text = (
            "Alpha and beta are NOT identified separately: over these epsilons the value cannot "
            "be distinguished from a straight line, and only alpha * beta = "
            f"{fit['limit']:.4g}{interval} is known. Larger epsilons would show where it bends; "
            "until then do not trust a payment cap that follows from these."
        )
    else:
        text = (
            "Alpha and beta are NOT identified separately: over these epsilons the value cannot "
            f"be distinguished from a constant, and only its level, {fit['limit']:.4g}{interval}, "
            "is known. "
            "Smaller epsilons would show where it rises; until then do not trust a payment cap "
            "that follows from these."
        )
    return fill(text, WIDTH)


def between(interval: tuple[float, float] | None) -> str:
    """Write an interval behind its estimate, or nothing."""
    return f" ({interval[0]:.4g} to {interval[1]:.4g})" if interval else ""


def market_table(run: Mapping[str, Any]) -> Table:
    """Set the scenario's equilibrium beside that of the calibrated one."""
    before, after = (run["equilibrium"][key] for key in ("before", "calibrated"))
    quantities = {
        "what the server pays": "payment",
        "nodes that take part": "n_active",
        "mean epsilon": "mean_epsilon",
        "utility of the server": "server_utility",
    }
    rows = [[label, _money(before[key]), _money(after[key])] for label, key in quantities.items()]
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
    return Table(["At equilibrium", "as it was", "calibrated"], rows, note=fill(note, WIDTH))


def _money(value: float) -> str:
    return f"{value:.4g}"
