"""Figure 11: who takes part when costs differ, by rule (48)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.report.theme import BOUND, LEAVES, STAYS, theme
from fcfn_zhou2023.base import (
    Finding,
    Floats,
    Scenarios,
    Setting,
    Study,
    curve,
    listed,
    number,
    pick,
    readings,
    rows,
    table,
)

type Mask = npt.NDArray[np.bool_]

READINGS: dict[str, list[str]] = {
    "even-spread": [],
    "long-tail": [
        "population.rho.kind=lognormal", "population.rho.median=1.0", "population.rho.sigma=0.7",
    ],
    "five-outliers": [
        "population.rho.kind=two-group", "population.rho.low=1.0", "population.rho.high=5.0",
        "population.rho.share_high=0.005",
    ],
}  # fmt: skip


def violators(rho: Floats, inside: Mask) -> Mask:
    """Return which members of a set rule (48) removes when it is applied once."""
    threshold = rho[inside].sum() / (inside.sum() - 1)
    return np.asarray(inside & (rho >= threshold * (1 - 1e-12)))


def outliers(rho: Floats) -> Mask:
    """Return which costs lie above the upper fence of a box plot, 1.5 quartile ranges up."""
    low, high = np.quantile(rho, [0.25, 0.75])
    return np.asarray(rho > high + 1.5 * (high - low))


def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return the active set, reached step by step and at once, and each node's epsilon."""
    parts = []
    for reading, scenario in scenarios.items():
        for run in build.list_runs(scenario):
            rho = build.draw_population(run.scenario).rho
            at = {
                "reading": reading, "panel": "sizes", "x": rho.size, "x_name": "n_nodes",
                "replication": run.replication, "unit": "nodes",
            }  # fmt: skip
            everybody = np.ones(rho.size, dtype=bool)
            once = everybody & ~violators(rho, everybody)
            parts += [
                rows("n_active", fa.nash_equilibrium(rho, 1.0).n_active, **at),
                rows("n_once", once.sum(), **at),
                rows("n_once_violating", violators(rho, once).sum(), **at),
                rows("n_outliers", outliers(rho).sum(), **at),
            ]
        parts += _one_population(reading, build.draw_population(scenario).rho)
    return table(parts)


def _one_population(reading: str, rho: Floats) -> list[pd.DataFrame]:
    """Return the steps of the rule, and who sells what, in the scenario's own population."""
    form = fa.nash_equilibrium(rho, 1.0)
    inside, left = np.ones(rho.size, dtype=bool), [rho.size]
    while (out := violators(rho, inside)).any():
        inside &= ~out
        left.append(int(inside.sum()))
    order = np.argsort(rho)
    return [
        rows("n_left", left, reading=reading, panel="steps", x=np.arange(len(left)),
             x_name="removal", unit="nodes"),
        rows("n_closed_form", form.n_active, reading=reading, panel="steps", unit="nodes"),
        rows("same_set", float((inside == form.active).all()), reading=reading, panel="steps"),
        rows("epsilon", form.epsilon[order], reading=reading, panel="nodes", x=rho[order],
             x_name="rho"),
        rows("threshold", form.threshold, reading=reading, panel="nodes"),
    ]  # fmt: skip


def draw(values: pd.DataFrame) -> Figure:
    """Draw who sells what, the steps of the rule, and how the active set grows."""
    styles = {
        "even-spread": (STAYS, (None, None)),
        "long-tail": (BOUND, (4, 1.5)),
        "five-outliers": (LEAVES, (1, 1)),
    }
    with theme():
        figure = Figure(figsize=(13, 4))
        nodes, steps, sizes = figure.subplots(1, 3)
        some = pick(values, reading="even-spread", panel="nodes", quantity="epsilon")
        active = some["value"] > 0
        shown = some["x"] < 0.62
        nodes.plot(some["x"][active], some["value"][active], ".", color=STAYS,
                   label=f"take part ({int(active.sum())})")  # fmt: skip
        nodes.plot(some["x"][~active & shown], some["value"][~active & shown], "x", markersize=4,
                   color=LEAVES,
                   label=f"stay out ({int((~active).sum())}, "
                   f"up to {some['x'].max():.2g})")  # fmt: skip
        threshold = number(values, reading="even-spread", panel="nodes", quantity="threshold")
        nodes.axvline(threshold, color=BOUND, dashes=(4, 2),
                      label=rf"$\tau/(n-1)$ = {threshold:.3g}")  # fmt: skip
        nodes.set(title="Who sells privacy (even spread)",
                  xlabel=r"unit privacy cost $\rho$ (currency / epsilon)",
                  ylabel="epsilon")  # fmt: skip
        for reading, (colour, dashes) in styles.items():
            line = curve(values, reading=reading, panel="steps", quantity="n_left")
            steps.plot(line.index, line, "o-", color=colour, dashes=dashes, label=reading)
            line = curve(values, reading=reading, panel="sizes", quantity="n_active")
            sizes.plot(line.index, line, "o-", color=colour, dashes=dashes, label=reading)
        n = curve(values, panel="sizes", quantity="n_active").index.to_numpy()
        sizes.plot(n, n, color="0.8", linewidth=1, label="everybody")
        steps.set(title="Rule (48), again and again", xlabel="how often it was applied",
                  ylabel="nodes left", yscale="log")  # fmt: skip
        sizes.set(title="Extra: the active set", xlabel="number of nodes N",
                  ylabel="nodes that take part", xscale="log", yscale="log")  # fmt: skip
        for axes in (nodes, steps, sizes):
            axes.legend(loc="best")
    return figure


def judge(values: pd.DataFrame) -> Iterator[Finding]:
    """See what the rule removes, and whether once is enough."""
    for reading in READINGS:
        sizes = pick(values, reading=reading, panel="sizes", x=1000.0)
        means = sizes.groupby("quantity")["value"].mean()
        removed = 1000 - means["n_active"]
        yield Finding(
            "fig11-outliers", reading,
            bool(removed > 0 and abs(removed - means["n_outliers"]) <= 0.01 * 1000),
            f"of 1,000 nodes {means['n_outliers']:.4g} are outliers and {removed:.4g} are removed; "
            f"{means['n_active']:.4g} stay (means of {sizes['replication'].nunique()} draws)",
        )  # fmt: skip
    even = pick(values, reading="even-spread")
    means = pick(even, panel="sizes", x=1000.0).groupby("quantity")["value"].mean()
    yield Finding(
        "fig11-rule", "once", bool(means["n_once_violating"] == 0),
        f"applied once, {means['n_once']:.4g} of 1,000 nodes are left, of which "
        f"{means['n_once_violating']:.4g} violate the rule for those who are left",
    )  # fmt: skip
    same = pick(values, panel="steps", quantity="same_set")["value"]
    left = curve(even, panel="steps", quantity="n_left")
    yield Finding(
        "fig11-rule", "again-and-again", bool((same == 1).all()),
        f"nodes left: {listed(left)}; the same nodes as in the closed form's active set, in "
        f"{int(same.sum())} of {len(same)} populations",
    )  # fmt: skip
    for reading in ("even-spread", "long-tail"):
        some = pick(values, reading=reading, panel="nodes", quantity="epsilon").sort_values("x")
        active = some[some["value"] > 0]
        yield Finding(
            "fig11-dear", reading,
            bool((np.diff(some["value"]) <= 1e-15).all() and (np.diff(active["value"]) < 0).all()),
            f"of {len(active)} nodes that take part the cheapest sells "
            f"{active['value'].iloc[0]:.4g} and the dearest {active['value'].iloc[-1]:.4g}; "
            "epsilon falls from each to the next",
        )  # fmt: skip


STUDY = Study(
    name="fig11",
    title="Who takes part when costs differ",
    setup="1,000 nodes; the laws of rho are ours, and the set-up is reconstructed. The size of the "
    "active set against N is an extra.",
    load=readings("fig11", READINGS),
    compute=compute,
    draw=draw,
    judge=judge,
)
