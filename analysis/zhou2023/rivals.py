"""Figures 14 and 15: server utility and epsilon, the paper's mechanism against two rivals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.optimize import minimize_scalar

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.mechanisms import Outcome
from fcfn_abm.report.theme import ARM_COLOURS, ARM_DASHES, ARM_MARKERS, theme
from fcfn_abm.scenario import Scenario
from fcfn_zhou2023.base import (
    MONEY,
    Finding,
    Floats,
    Scenarios,
    Setting,
    Study,
    axis_runs,
    curve,
    listed,
    number,
    pick,
    readings,
    rows,
    table,
)

TWO_TYPES = [
    "population.rho.kind=two-group", "population.rho.low=0.0005", "population.rho.high=0.0015",
]  # fmt: skip
READINGS: dict[str, list[str]] = {
    "one-type": [],
    "own-spending": ["game.budget=20.0"],
    "fixed-contract": [],
    "two-types": TWO_TYPES,
    "two-types-mean-over-all": [*TWO_TYPES, "game.average_over=population"],
}
PANELS = {
    "one-type": "One known cost, B = 1 spent by all",
    "own-spending": "Each may spend 20",
    "fixed-contract": "A contract written for 1,000 nodes",
    "two-types": "Two costs that the server cannot tell apart",
    "two-types-mean-over-all": "The same, mean over all N",
}
NAMES = {"stackelberg": "ours", "ic-mle": "IC-MLE", "yang": "Yang et al."}
LIMITS = {"server_utility": (-12.0, 80.0), "epsilon": (0.1, 1e4)}
WRITTEN_FOR = 1000
"""Nodes for whom the fixed contract is written: the paper's largest population."""


def priced(mechanism: str, rho: Floats, scenario: Scenario, reading: str) -> Outcome:
    """Price nodes as a reading has it."""
    game = scenario.game
    budget = game.budget or 0.0
    if reading == "own-spending" and mechanism != "ic-mle":  # which spends all it may
        free = fa.price(mechanism, rho, alpha=game.alpha, beta=game.beta)
        budget = min(free.server_payment, budget)
    return fa.price(
        mechanism, rho, alpha=game.alpha, beta=game.beta, budget=budget,
        average_over=game.average_over,
    )  # fmt: skip


def contract_kept(rho: Floats, scenario: Scenario) -> tuple[float, float]:
    """Return epsilon and server utility where the contract for many nodes is kept for few."""
    game = scenario.game
    many = np.full(WRITTEN_FOR, rho[0])
    written = fa.price("ic-mle", many, alpha=game.alpha, beta=game.beta, budget=game.budget)
    epsilon, fee = float(written.epsilon[0]), float(written.payment[0])
    return epsilon, fa.server_utility(epsilon, game.alpha, game.beta, fee * rho.size)


def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return epsilon, spending and utilities under every reading."""
    parts = []
    for reading, scenario in scenarios.items():
        for run in build.list_runs(scenario):
            rho = build.draw_population(run.scenario).rho
            for mechanism in NAMES:
                found = priced(mechanism, rho, run.scenario, reading)
                epsilon, utility = found.mean_epsilon, found.server_utility
                paid = found.server_payment
                if reading == "fixed-contract" and mechanism == "ic-mle":
                    epsilon, utility = contract_kept(rho, run.scenario)
                    paid = rho[0] * epsilon * rho.size
                at = {
                    "reading": reading, "series": mechanism, "x": rho.size, "x_name": "n_nodes",
                }  # fmt: skip
                parts += [
                    rows("epsilon", epsilon, **at),
                    rows("server_utility", utility, unit=MONEY, **at),
                    rows("spent", paid, unit=MONEY, **at),
                    rows("n_active", found.n_active, unit="nodes", **at),
                    rows("node_utility", found.node_utility.mean(), unit=MONEY, **at),
                ]
    return table(parts)


def compute_with_rules(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:
    """Return the same, and what (56) and (57)-(59) lead to as printed and as meant."""
    _, mixed = axis_runs(scenarios["two-types"])[-1]
    return table([compute(scenarios, setting), *_honesty(mixed), *_solutions(mixed)])


def _honesty(scenario: Scenario) -> list[pd.DataFrame]:
    """Return what the cheap gain by taking the contract of the dear."""
    rho, cap = build.draw_population(scenario).rho, scenario.game.budget or 0.0
    cost, count = np.unique(rho, return_counts=True)

    def epsilons(share: float) -> Floats:  # paid their cost, the cheap get this share of the cap
        return cap * np.array([share, 1 - share]) / (count * cost)

    best = minimize_scalar(
        # the sum of coth(eps / 2)**2 less its limit, in logarithms: where eps is large it is flat
        lambda share: math.log(count @ np.sinh(epsilons(share) / 2) ** -2.0),
        bounds=(1e-6, 1 - 1e-6),
        method="bounded",
        options={"xatol": 1e-12},
    )
    menu = {"as-printed": (cost * epsilons(best.x), epsilons(best.x))}
    found = priced("ic-mle", rho, scenario, "two-types")
    first = [int(np.flatnonzero(rho == c)[0]) for c in cost]
    menu["with-prime"] = (found.payment[first], found.epsilon[first])
    return [
        rows("gain_by_lying", (fee[1] - cost[0] * epsilon[1]) - (fee[0] - cost[0] * epsilon[0]),
             panel="rules", reading=reading, unit=MONEY)
        for reading, (fee, epsilon) in menu.items()
    ]  # fmt: skip


def _solutions(scenario: Scenario) -> list[pd.DataFrame]:
    """Return whether the equations of Yang et al. have a solution."""
    rho, game = build.draw_population(scenario).rho, scenario.game
    parts = []
    for reading, variant in (("as-printed", "printed"), ("three-party", "three-party")):
        found = fa.price("yang", rho, alpha=game.alpha, beta=game.beta, budget=game.budget,
                         variant=variant)  # fmt: skip
        parts.append(rows("solved", float(found.status == "solved"), panel="rules",
                          reading=reading, series=found.status))  # fmt: skip
    return parts


def judge_with_rules(values: pd.DataFrame) -> Iterator[Finding]:
    """See this, whether contracts keep nodes honest, and whether the agency's game is solved."""
    yield from judge_quantity("fig14", "server_utility")(pick(values, panel=""))
    for reading in ("as-printed", "with-prime"):
        gain = number(values, panel="rules", quantity="gain_by_lying", reading=reading)
        yield Finding(
            "fig14-honest", reading, gain <= 1e-9,
            f"N = 100, costs 0.0005 and 0.0015: a cheap node gains {gain:.3g} by taking the other "
            "contract",
        )  # fmt: skip
    for reading in ("as-printed", "three-party"):
        found = pick(values, panel="rules", quantity="solved", reading=reading).iloc[0]
        yield Finding("fig14-agency", reading, found["value"] == 1, f"N = 100: {found['series']}")


def draw_quantity(quantity: str, label: str) -> Callable[[pd.DataFrame], Figure]:
    """Return what draws one quantity, a panel for each reading."""

    def draw(values: pd.DataFrame) -> Figure:
        with theme():
            figure = Figure(figsize=(15, 4.1))
            grid = figure.subplots(1, len(READINGS), sharey=True)
            for axes, reading in zip(grid, READINGS, strict=True):
                for mechanism, name in NAMES.items():
                    line = curve(values, reading=reading, series=mechanism, quantity=quantity)
                    axes.plot(line.index, line, marker=ARM_MARKERS[mechanism], label=name,
                              color=ARM_COLOURS[mechanism],
                              dashes=ARM_DASHES[mechanism] or (None, None))  # fmt: skip
                axes.set_title(fill(PANELS[reading], 26), fontsize="medium")
                axes.text(0.04, 0.04, _gap(values, reading, quantity), transform=axes.transAxes,
                          fontsize="small", color="0.25")  # fmt: skip
                axes.set(xlabel="number of nodes N", xscale="log",
                         yscale="log" if quantity == "epsilon" else "linear")  # fmt: skip
                axes.xaxis.set_major_locator(FixedLocator(sorted(values["x"].dropna().unique())))
                axes.xaxis.set_minor_locator(NullLocator())
                axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
                if quantity == "epsilon":
                    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            grid[0].set_ylabel(label)
            grid[0].set_ylim(*LIMITS[quantity])
            grid[0].legend(loc="upper right")
        return figure

    return draw


def _gap(values: pd.DataFrame, reading: str, quantity: str) -> str:
    """Say by how much ours is above IC-MLE."""
    ours, theirs = (
        curve(values, reading=reading, series=name, quantity=quantity)
        for name in ("stackelberg", "ic-mle")
    )
    return "ours less IC-MLE:\n" + ", ".join(f"{gap:+,.1f}" for gap in ours - theirs)


def judge_quantity(figure: str, quantity: str) -> Callable[[pd.DataFrame], Iterator[Finding]]:
    """Return what sees whether the paper's mechanism gets more of a quantity than its rivals."""

    def judge(values: pd.DataFrame) -> Iterator[Finding]:
        for rival in ("ic-mle", "yang"):
            for reading in READINGS:
                if rival == "yang" and reading == "fixed-contract":
                    continue  # Yang et al. have no contract
                some = pick(values, reading=reading)
                ours, theirs = (
                    curve(some, series=name, quantity=quantity) for name in ("stackelberg", rival)
                )
                spent = [
                    listed(curve(some, series=name, quantity="spent"), 3)
                    for name in ("stackelberg", rival)
                ]
                yield Finding(
                    f"{figure}-{rival}", reading, bool((ours > theirs).all()),
                    f"at N = {listed(ours.index)}: ours {listed(ours)}; {NAMES[rival]} "
                    f"{listed(theirs)} (spent: {spent[0]}; {spent[1]})",
                )  # fmt: skip

    return judge


_SETUP = (
    "The EMNIST experiment as its numbers imply it: B = 1, rho = 0.001, N = 10, 50, 100; alpha = 1 "
    "and beta = 10 from fig. 4. The set-up is reconstructed; that of CIFAR-10 is not known to us."
)
STUDIES = tuple(
    Study(
        name=name,
        title=title,
        setup=_SETUP,
        load=readings(name, READINGS),
        compute=calculate,
        draw=draw_quantity(quantity, label),
        judge=judge,
    )
    for name, title, quantity, label, calculate, judge in (
        ("fig14", "The server's utility under three mechanisms", "server_utility",
         "server utility (currency)", compute_with_rules, judge_with_rules),
        ("fig15", "Epsilon under three mechanisms", "epsilon", "mean epsilon", compute,
         judge_quantity("fig15", "epsilon")),
    )
)  # fmt: skip
