"""Figure 13: what a node earns with the equilibrium's epsilon, a static one, and a random one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.report.theme import ARM_COLOURS, theme
from fcfn_abm.rng import stream
from fcfn_zhou2023.base import (
    MONEY,
    Finding,
    Scenarios,
    Setting,
    Study,
    curve,
    listed,
    pick,
    readings,
    rows,
    table,
)

READINGS: dict[str, list[str]] = {"everybody": [], "one-deviates": []}
NAMES = {"stackelberg": "equilibrium", "static": "static, 10", "random": "random, 1 to 100"}


def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return a node's utility: all nodes in the same way, or one while the others stand still."""
    parts = []
    for reading, scenario in scenarios.items():
        game, cap = scenario.game, scenario.game.budget or 0.0
        for run in build.list_runs(scenario):
            rho = build.draw_population(run.scenario).rho
            at = {
                "reading": reading, "x": rho.size, "x_name": "n_nodes", "unit": MONEY,
                "replication": run.replication,
            }  # fmt: skip
            rng = stream(run.scenario.seed, "mechanism", rho.size)
            for mechanism in NAMES:
                priced = fa.price(mechanism, rho, alpha=game.alpha, beta=game.beta,
                                  budget=cap, rng=rng)  # fmt: skip
                utility = float(priced.node_utility.mean())
                if reading == "one-deviates":
                    still = fa.nash_equilibrium(rho, cap).epsilon
                    own = np.append(priced.epsilon[:1], still[1:])
                    utility = float(fa.node_utility(own, rho, cap)[0])
                parts.append(rows("node_utility", utility, series=mechanism, **at))
    return table(parts)


def draw(values: pd.DataFrame) -> Figure:
    """Draw a panel for each reading, mean and 95 % interval over draws."""
    n = sorted(values["x"].unique())
    with theme():
        figure = Figure(figsize=(13, 4.2))
        for axes, reading in zip(figure.subplots(1, 2), READINGS, strict=True):
            for place, (mechanism, name) in enumerate(NAMES.items()):
                some = pick(values, reading=reading, series=mechanism).groupby("x")["value"]
                mean, half = some.mean(), 1.96 * some.sem()
                at = np.arange(len(n)) + 0.26 * (place - 1)
                bars = axes.bar(at, mean, 0.26, yerr=half, capsize=2, color=ARM_COLOURS[mechanism],
                                label=name)  # fmt: skip
                axes.bar_label(bars, [f"{value:.2g}" for value in mean], padding=3, fontsize=7.5)
            axes.axhline(0, color="0.2", linewidth=0.8)
            axes.set_xticks(range(len(n)), [f"{x:.0f}" for x in n])
            axes.set(xlabel="number of nodes N", ylabel="mean utility of a node (currency)")
            axes.grid(visible=False, axis="x")
            axes.set_yscale("symlog", linthresh=1e-4)
            axes.set_ylim(-0.3, 1.0)
            axes.legend(loc="upper right")
            axes.set_title(
                "Everybody in the same way" if reading == "everybody"
                else "One node, the others at equilibrium"
            )  # fmt: skip
    return figure


def judge(values: pd.DataFrame) -> Iterator[Finding]:
    """See whether the equilibrium's epsilon leaves a node more than the two others."""
    for rival in ("static", "random"):
        for reading in READINGS:
            some = pick(values, reading=reading)
            ours, theirs = (curve(some, series=name) for name in ("stackelberg", rival))
            yield Finding(
                f"fig13-{rival}", reading, bool((ours > theirs).all()),
                f"at N = {listed(ours.index)}: ours {listed(ours)}; {rival} {listed(theirs)}",
            )  # fmt: skip


STUDY = Study(
    name="fig13",
    title="What a node earns under three ways to choose epsilon",
    setup="The EMNIST experiment as its numbers imply it: B = 1, rho = 0.001, N = 10, 50, 100; "
    "static means epsilon = 10, random is uniform from 1 to 100.",
    load=readings("fig13", READINGS),
    compute=compute,
    draw=draw,
    judge=judge,
)
