"""The value of accuracy at several epsilons and the fitted curve, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from fcfn_abm.errors import join_lines
from fcfn_abm.report.blocks import Table, Tone
from fcfn_abm.report.marks import heading, join, wrap

POOR = 0.9
"""R² below which the fit is reported as poor."""
WARNING = "The curve fits these trainings poorly: check the residuals before you use it."
_NO_FIT = -100.0  # smaller R² are not written out: all values may be equal
LOOSE = 100.0
"""Ratio of the ends of alpha's interval above which alpha is reported as not identified."""


def calibration_text(run: Mapping[str, Any]) -> Text:
    """Describe the measurements, the fit and its uncertainty, and the resulting market.

    Parameters
    ----------
    run : mapping
        ``run.json`` of a calibration.
    """
    fit = run["fit"]
    parts: list[str | Text] = [
        heading(f"{join_lines(run['title']) or 'Calibration'} (seed {run['seed']})"),
        wrap(setting(run)),
        points_table(run).to_rich_text(),
        f"beta ln(1 + alpha eps):  alpha = {fit['alpha']:.4g}{between(fit['alpha_interval'])},  "
        f"beta = {fit['beta']:.4g}{between(fit['beta_interval'])}\n{goodness(run)}",
        identification(run),
        market_table(run).to_rich_text(),
    ]
    return join("\n\n", parts)


def setting(run: Mapping[str, Any]) -> str:
    """Describe what was trained and how its value is measured."""
    epsilon = "per round" if run["horizon"] == "round" else "in the whole training"
    n = run["seeds"]
    text = (
        f"{len(run['points'])} epsilons, {n} seed{'s' if n > 1 else ''} each: all "
        f"{run['n_nodes']} nodes train for {run['rounds']} rounds on {run['data']} with the same "
        f"epsilon {epsilon}. The value of the net is its accuracy above chance "
        f"({run['chance']:.1%}), in currency per round; an accuracy of 100 % has the value "
        f"{run['value_of_accuracy']:g}."
    )
    if n > 1:
        return f"{text} Intervals are {run['confidence']:.0%} t-intervals over the seeds."
    return f"{text} With one seed there are no intervals."


def points_table(run: Mapping[str, Any]) -> Table:
    """Return the measured and the fitted value at each epsilon."""
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
    """Format the interval of a value, cut to accuracies between 0 and 1."""
    if point["half_width"] is None:
        return "-"
    least, most = (run["value_of_accuracy"] * (end - run["chance"]) for end in (0.0, 1.0))
    low = max(point["value"] - point["half_width"], least)
    high = min(point["value"] + point["half_width"], most)
    return f"{_money(low)} to {_money(high)}"


def r_squared(fit: Mapping[str, Any]) -> str:
    """Format R squared with its relation sign.

    Examples
    --------
    >>> r_squared({"r_squared": 0.98765}), r_squared({"r_squared": -2.4e294})
    ('= 0.988', 'below -100')
    """
    of: float = fit["r_squared"]
    return f"= {of:.3f}" if of > _NO_FIT else f"below {_NO_FIT:g}"


def goodness(run: Mapping[str, Any]) -> str:
    """Describe in a line or two how well the curve fits."""
    fit = run["fit"]
    text = (
        f"R^2 {r_squared(fit)}; residual standard deviation {fit['residual_std']:.3g} (currency)."
    )
    if fit["r_squared"] < POOR:
        text += f"\n{WARNING}"
    return text


def measure_alpha_spread(fit: Mapping[str, Any]) -> float:
    """Return the ratio of the ends of alpha's interval, or 1 if alpha is not identified alone.

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
    """Return a short assessment of a fit and its tone; the most serious problem comes first."""
    if fit["identified"] != "both":
        return "Alpha and beta are not identified separately", "bad"
    if measure_alpha_spread(fit) > LOOSE:
        return "Alpha is not identified", "bad"
    if fit["r_squared"] < POOR:
        return "The curve fits poorly", "fair"
    return "Alpha and beta are identified", "good"


def identification(run: Mapping[str, Any]) -> str:
    """Describe which of alpha and beta the trainings identify, in a sentence or two.

    Parameters
    ----------
    run : mapping
        ``run.json`` of a calibration.
    """
    fit = run["fit"]
    interval = between(fit["limit_interval"])
    if (factor := measure_alpha_spread(fit)) > LOOSE:
        text = (
            "Alpha is NOT identified: the value curve bends over these epsilons, but the "
            f"{run['seeds']} seeds differ so much that the interval of alpha spans a factor of "
            f"{factor:,.0f}. Train more seeds before you use a payment cap that follows from this "
            "fit."
        )
    elif fit["identified"] == "both":
        text = "Alpha and beta are identified separately."
    elif fit["identified"] == "product":
        text = (
            "Alpha and beta are NOT identified separately: over these epsilons the value cannot "
            "be distinguished from a straight line, and only alpha * beta = "
            f"{fit['limit']:.4g}{interval} is identified. Train at larger epsilons before you use "
            "a payment cap that follows from this fit."
        )
    else:
        text = (
            "Alpha and beta are NOT identified separately: over these epsilons the value cannot "
            f"be distinguished from a constant, and only its level, {fit['limit']:.4g}{interval}, "
            "is identified. Train at smaller epsilons before you use a payment cap that follows "
            "from this fit."
        )
    return wrap(text)


def between(interval: tuple[float, float] | None) -> str:
    """Format an interval to follow its estimate; empty without one."""
    return f" ({interval[0]:.4g} to {interval[1]:.4g})" if interval else ""


def market_table(run: Mapping[str, Any]) -> Table:
    """Return the equilibria of the scenario before and after calibration."""
    before, after = (run["equilibrium"][key] for key in ("before", "calibrated"))
    quantities = {
        "payment by the server": "payment",
        "nodes that take part": "n_active",
        "mean epsilon": "mean_epsilon",
        "utility of the server": "server_utility",
    }
    rows = [[label, _money(before[key]), _money(after[key])] for label, key in quantities.items()]
    low, high = (run["points"][i]["epsilon"] for i in (0, -1))
    note = ""
    if after["status"] != "solved":
        note = f"With {run['value_of_accuracy']:g} for an accuracy of 100 % there is no trade."
        if run["worth_of_trade"]:
            note += f" Trade begins at a value of {run['worth_of_trade']:.3g} (--value)."
    elif not low <= after["mean_epsilon"] <= high:
        note = (
            f"The mean epsilon lies outside the trained range ({low:g} to {high:g}), where the "
            "curve is extrapolated. Calibrate the calibrated scenario once more."
        )
    return Table(["At equilibrium", "before", "calibrated"], rows, note=wrap(note))


def _money(value: float) -> str:
    return f"{value:.4g}"
