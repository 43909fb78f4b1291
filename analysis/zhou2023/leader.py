"""Extras: the server's problem, (32) to (42), and its solution against the number of clients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.optimize import brentq

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.report.theme import BOUND, LEAVES, STAYS, theme
from fcfn_zhou2023.base import (
    MONEY,
    Finding,
    Scenarios,
    Setting,
    Study,
    axis_runs,
    curve,
    format_numbers,
    load_readings,
    number,
    pick,
    rows,
    table,
)
from fcfn_zhou2023.utility import answer_equally, own_utility, search_highest, server_utility_at

COSTS = np.geomspace(1e-3, 10.0, 81)
"""Equal costs at which rule (45) is tested."""


def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return payment f1, value f2 and slopes under every cap, and what a search finds."""
    scenario = scenarios["as-printed"]
    costs, game = build.draw_population(scenario).rho, scenario.game
    n, rho = costs.size, float(costs[0])
    form = build.solve_equilibrium(scenario, costs)
    parts = []
    for cap, _ in axis_runs(scenario, "game.budget"):
        mean = fa.nash_equilibrium(costs, cap).total_epsilon / n
        value = fa.server_utility(mean, game.alpha, game.beta, 0.0)
        step = 1e-4 * cap
        further = fa.nash_equilibrium(costs, cap + step).total_epsilon / n
        before = fa.nash_equilibrium(costs, cap - step).total_epsilon / n
        slope = game.beta * np.log1p(game.alpha * further) - game.beta * np.log1p(
            game.alpha * before
        )
        at = {"reading": "as-printed", "x": cap, "x_name": "budget"}
        parts += [
            rows("value", value, unit=MONEY, **at),
            rows("server_utility", value - cap, unit=MONEY, **at),
            rows("slope", slope / (2 * step), **at),
        ]

    def utility(cap: float) -> float:
        return server_utility_at(cap, n, rho, game.alpha, game.beta)

    best = search_highest(utility, 3 * form.budget)
    parts += [
        rows("budget", form.budget, panel="closed form", unit=MONEY),
        rows("server_utility", form.server_utility, panel="closed form", unit=MONEY),
        rows("budget", best, panel="search", unit=MONEY),
        rows("server_utility", utility(best), panel="search", unit=MONEY),
        rows("last_profit", brentq(utility, 2 * best, 100 * best, xtol=1e-10), panel="search",
             unit=MONEY),
        rows("slope_at_zero", utility(1e-7) / 1e-7, panel="search"),
        rows("slope_at_best", (utility(best + 0.01) - utility(best - 0.01)) / 0.02,
             panel="search"),
        rows("trade_index", COSTS * n * n / (game.alpha * (n - 1)) / game.beta, panel="trade",
             x=COSTS, x_name="rho"),
        rows("best_tried", [_find_best_cap(n, c, game.alpha, game.beta) for c in COSTS],
             panel="trade", x=COSTS, x_name="rho", unit=MONEY),
    ]  # fmt: skip
    return table(parts)


def _find_best_cap(n: int, rho: float, alpha: float, beta: float) -> float:
    """Return the best of many caps for the server; zero if each of them loses money."""
    caps = np.append(0.0, np.geomspace(1e-5, 1.0, 60) * beta)
    utility = [server_utility_at(float(cap), n, rho, alpha, beta) for cap in caps]
    return float(caps[int(np.argmax(utility))])


def draw(values: pd.DataFrame) -> Figure:
    """Draw payment and value, their difference, and their slopes."""
    value, utility, slope = (
        curve(values, quantity=name, reading="as-printed")
        for name in ("value", "server_utility", "slope")
    )
    best = number(values, panel="closed form", quantity="budget")
    end = number(values, panel="search", quantity="last_profit")
    with theme():
        figure = Figure(figsize=(13, 4.2))
        both, difference, slopes = figure.subplots(1, 3)
        both.plot(value.index, value.index, color=LEAVES, dashes=(4, 1.5), label="$f_1$: payment B")
        both.plot(value.index, value, color=STAYS, label="$f_2$: value of the model")
        both.set(title="Extra: payment and value", ylabel="currency", ylim=(0, None))
        difference.plot(utility.index, utility, color=STAYS, label="$f_2 - f_1$")
        difference.axhline(0, color="0.2", linewidth=0.8)
        difference.set(title="Utility of the server", ylabel="currency")
        slopes.axhline(1, color=LEAVES, dashes=(4, 1.5), label="$f_1'$ = 1")
        slopes.plot(slope.index, slope, color=STAYS, label="$f_2'$")
        slopes.set(title="Slopes", ylabel="slope", yscale="log")
        for axes in (both, difference, slopes):
            axes.axvline(best, color=BOUND, dashes=(1, 1), label=f"(37) ends at B* = {best:.4g}")
            axes.axvline(end, color="0.4", dashes=(6, 2), label=f"no profit above {end:.4g}")
            axes.set(xlabel="payment cap B (currency)")
        both.legend(loc="lower right", fontsize="small")
        slopes.legend(loc="upper right", fontsize="small")
    return figure


def judge(values: pd.DataFrame) -> Iterator[Finding]:
    """Test whether (34) to (42) hold, and where the step to (37) fails."""
    utility, slope, value = (
        curve(values, quantity=name, reading="as-printed")
        for name in ("server_utility", "slope", "value")
    )
    form, found = pick(values, panel="closed form"), pick(values, panel="search")
    best, top = (number(form, quantity=name) for name in ("budget", "server_utility"))
    rises, bends = bool((np.diff(value) > 0).all()), bool((np.diff(value, 2) < 0).all())
    yield Finding(
        "value-concave", "as-printed", rises and bends,
        f"at {len(value)} caps: the value rises at every step: {'yes' if rises else 'no'}; by "
        f"less each time: {'yes' if bends else 'no'}",
    )  # fmt: skip
    second = np.diff(utility, 2)
    yield Finding(
        "server-concave", "as-printed", bool((second < 0).all()),
        f"second differences of U_S from {second.min():.2g} to {second.max():.2g}",
    )  # fmt: skip
    last = number(found, quantity="last_profit")
    below, profit = slope >= 1, utility > 0
    yield Finding(
        "slopes-step", "as-printed", bool((below == profit).all()),
        f"U_S > 0, that is f1 < f2, up to B = {last:.5g}; f1' <= f2' up to B = {best:.5g} only: "
        f"{int((profit & ~below).sum())} of {int(profit.sum())} caps with a profit have f1' > f2'",
    )  # fmt: skip
    start, flat = (number(found, quantity=f"slope_at_{name}") for name in ("zero", "best"))
    yield Finding(
        "slopes-at-ends", "as-printed", start > 0 and abs(flat) < 1e-6,
        f"slope of U_S at B near 0: {start:.5g} = alpha beta (N-1)/(N Rho) - 1; at B*: {flat:.1g}",
    )  # fmt: skip
    searched, reached = (number(found, quantity=name) for name in ("budget", "server_utility"))
    yield Finding(
        "best-cap", "as-printed", abs(searched / best - 1) < 1e-6,
        f"B* by search {searched:.9g}, by (41) {best:.9g}",
    )  # fmt: skip
    yield Finding(
        "best-utility", "as-printed", abs(reached / top - 1) < 1e-9,
        f"U_S* by search {reached:.9g}, by (42) {top:.9g}",
    )  # fmt: skip
    index, tried = (
        curve(values, panel="trade", quantity=name) for name in ("trade_index", "best_tried")
    )
    right = (index < 1) == (tried > 0)
    yield Finding(
        "trade", "as-printed", bool(right.all() and (tried == 0).any() and (tried > 0).any()),
        f"{int(right.sum())} of {len(right)} costs agree: some cap pays up to rho = "
        f"{tried[tried > 0].index.max():.4g}, none from {tried[tried == 0].index.min():.4g} on; "
        f"(45) ends at rho = {float((index.index / index)[index.index[0]]):.4g}",
    )  # fmt: skip


def compute_nodes(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return the equilibrium for more and more clients, and a client's utility by search."""
    parts = []
    for n, run in axis_runs(scenarios["as-printed"], "population.n_nodes"):
        costs = build.draw_population(run).rho
        form = build.solve_equilibrium(run, costs)
        at = {"reading": "as-printed", "x": n, "x_name": "n_nodes"}
        searched, lost = 0.0, np.nan
        if form.budget > 0:
            rho = float(costs[0])
            epsilon = answer_equally(int(n), rho, form.budget)
            searched = float(own_utility(epsilon, (n - 1) * epsilon, rho, form.budget))
            lost = n * rho * epsilon / form.budget
        parts += [
            rows("budget", form.budget, unit=MONEY, **at),
            rows("epsilon", form.epsilon[0], **at),
            rows("server_utility", form.server_utility, unit=MONEY, **at),
            rows("node_utility", searched, unit=MONEY, **at),
            *([rows("rent_dissipation", lost, **at)] if lost == lost else []),
        ]
    return table(parts)


def draw_nodes(values: pd.DataFrame) -> Figure:
    """Draw cap, epsilon and utilities against the number of clients."""
    with theme():
        figure = Figure(figsize=(13, 4.2))
        cap, epsilon, earned = figure.subplots(1, 3)
        line = curve(values, quantity="budget")
        cap.plot(line.index, line, "o-", color=STAYS, label="B*")
        cap.axhline(10, color=BOUND, dashes=(4, 2), label=r"$\beta$")
        cap.set(title="Extra: the cap falls with N", ylabel="payment cap B* (currency)")
        cap.set_ylim(bottom=-0.3)
        line = curve(values, quantity="epsilon")
        epsilon.plot(line[line > 0].index, line[line > 0], "o-", color=STAYS, label="ε*")
        epsilon.set(title="Epsilon of a client", ylabel="ε*", yscale="log")
        line = curve(values, quantity="node_utility")
        law = curve(values, quantity="budget") / line.index.to_numpy() ** 2
        earned.plot(line[line > 0].index, line[line > 0], "o", color=STAYS,
                    label="utility of a client, by search")  # fmt: skip
        earned.plot(law[law > 0].index, law[law > 0], color=BOUND, dashes=(4, 1.5),
                    label="$B^*/N^2$, (31)")  # fmt: skip
        earned.set(title="What a client earns", ylabel="currency", yscale="log")
        for axes in (cap, epsilon, earned):
            axes.set(xlabel="number of clients N", xscale="log")
            axes.legend(loc="lower left")
    return figure


def judge_nodes(values: pd.DataFrame) -> Iterator[Finding]:
    """Test whether a client earns B/N^2 by (31), and compute the share of privacy costs."""
    rent, cap = (curve(values, quantity=name) for name in ("node_utility", "budget"))
    law = cap / rent.index.to_numpy() ** 2
    there = law > 0
    worst = float((rent[there] / law[there] - 1).abs().max())
    lost = curve(values, quantity="rent_dissipation")
    n = [10, 100, 1000]
    yield Finding(
        "rent", "as-printed", worst < 1e-6,
        f"a client's utility at N = {format_numbers(n)}: {format_numbers(rent[n])}; B*/N^2: "
        f"{format_numbers(law[n])}; of the payments {format_numbers(100 * lost[n])} % are privacy "
        "cost",
    )  # fmt: skip


STUDIES = (
    Study(
        name="extra-leader",
        title="The server's problem: payment, value and slopes",
        setup="The market of fig. 5 with N = 100.",
        load=load_readings("fig05", {"as-printed": []}),
        compute=compute,
        draw=draw,
        judge=judge,
    ),
    Study(
        name="extra-nodes",
        title="Cap, epsilon and utility against the number of clients",
        setup="The market of fig. 5 under the server's best cap; the paper shows no such figure.",
        load=load_readings("extra-nodes", {"as-printed": []}),
        compute=compute_nodes,
        draw=draw_nodes,
        judge=judge_nodes,
    ),
)
