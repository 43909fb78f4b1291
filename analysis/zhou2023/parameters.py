"""Figures 6 to 12: how the equilibrium moves with rho, N, B, alpha and beta."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.report.theme import BOUND, theme
from fcfn_abm.scenario import Scenario
from fcfn_zhou2023.base import (
    MONEY,
    Finding,
    Scenarios,
    Setting,
    Study,
    curve,
    format_numbers,
    load_readings,
    pick,
    rows,
    table,
)

LABELS = {
    "rho": r"unit privacy cost $\rho$ (currency / ε)",
    "n_nodes": "number of clients N",
    "alpha": r"$\alpha$ (1 / ε)",
    "beta": r"$\beta$ (currency)",
    "epsilon": "ε* of a client",
    "node_utility": "utility $U_C^*$ of a client (currency)",
    "budget": "payment cap B* (currency)",
    "server_utility": "utility $U_S^*$ of the server (currency)",
}
CURVES = {
    "B = 1": ("#0072B2", (1.0, 1.0), "v"),
    "B = 5": ("#009E73", (2.0, 1.0), "s"),
    "B = 10": ("#D55E00", (5.0, 2.0), "^"),
    "B = 20": ("#000000", (None, None), "o"),
}
N_TRIED = 400
"""Alternatives that a player tries in the search for a gain."""


@dataclass(frozen=True)
class Plot:
    """What one of the paper's seven plots shows."""

    figure: int
    quantity: str
    x_name: str
    axis: str
    """Axis of the scenario's sweep that is on x."""
    title: str
    setup: str

    @property
    def has_caps(self) -> bool:
        """Whether it has a curve for each of four payment caps."""
        return self.quantity in ("epsilon", "node_utility")


PLOTS = (
    Plot(6, "epsilon", "rho", "population.rho.value", "Epsilon against the unit privacy cost",
         "N = 100, alpha = beta = 10, equal costs, B = 1, 5, 10, 20."),
    Plot(7, "epsilon", "n_nodes", "population.n_nodes", "Epsilon against the number of clients",
         "alpha = beta = 10, rho = 0.01, B = 1, 5, 10, 20."),
    Plot(8, "node_utility", "n_nodes", "population.n_nodes",
         "A client's utility against the number of clients",
         "alpha = beta = 10, rho = 0.001, B = 1, 5, 10, 20. The text says epsilon* where caption "
         "and heading say utility. At N = 1 a client gets all of B for any epsilon above zero: "
         "(29) and (31) give the limits 0 and B."),
    Plot(9, "budget", "alpha", "game.alpha", "The best payment cap against alpha",
         "N = 100, beta = 10, costs that add up to 1."),
    Plot(10, "budget", "beta", "game.beta", "The best payment cap against beta",
         "N = 100, alpha = 10, costs that add up to 1."),
    Plot(11, "server_utility", "alpha", "game.alpha", "The server's utility against alpha",
         "N = 100, beta = 10, costs that add up to 1."),
    Plot(12, "server_utility", "beta", "game.beta", "The server's utility against beta",
         "N = 100, alpha = 10, costs that add up to 1."),
)  # fmt: skip


def compute(plot: Plot, scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return the curves, and the gain of a player that deviates alone from the closed form."""
    parts = []
    scenario = scenarios["as-printed"]
    for run in build.list_runs(scenario):
        point, game = run.point, run.scenario.game
        rho = build.draw_population(run.scenario).rho
        at = {"reading": "as-printed", "x": float(point[plot.axis]), "x_name": plot.x_name}
        if plot.has_caps:
            cap = float(point["game.budget"])
            at["series"] = f"B = {cap:g}"
            answer = fa.nash_equilibrium(rho, cap)
            epsilon, utility = float(answer.epsilon[0]), float(answer.utility[0])
            others = (rho.size - 1) * epsilon
            tried = epsilon * np.linspace(0.01, 4.0, N_TRIED)
            best = (cap * tried / (tried + others) - rho[0] * tried).max()
            parts += [
                rows("epsilon", epsilon, **at),
                rows("node_utility", utility, unit=MONEY, **at),
                rows("gain_alone", best - utility, unit=MONEY, panel="search", **at),
            ]
        else:
            form = build.solve_equilibrium(run.scenario, rho)
            caps = form.budget * np.linspace(0.01, 4.0, N_TRIED)
            tried = caps * (rho.size - 1) / (rho.size * rho.sum())  # (26) over N
            best = (game.beta * np.log1p(game.alpha * tried) - caps).max()
            parts += [
                rows("budget", form.budget, unit=MONEY, **at),
                rows("server_utility", form.server_utility, unit=MONEY, **at),
                rows("beta", game.beta, unit=MONEY, **at),
                rows("gain_alone", best - form.server_utility, unit=MONEY, panel="search", **at),
            ]
    if plot.x_name == "n_nodes":
        parts += _add_lone_client(scenario)
    return table(parts)


def _add_lone_client(scenario: Scenario) -> list[pd.DataFrame]:
    """Return the limits at N = 1, where a client is paid B for any epsilon above zero."""
    caps = sorted({float(run.point["game.budget"]) for run in build.list_runs(scenario)})
    at = {"reading": "as-printed", "x": 1.0, "x_name": "n_nodes",
          "series": [f"B = {cap:g}" for cap in caps]}  # fmt: skip
    return [
        rows("epsilon", np.zeros(len(caps)), **at),
        rows("node_utility", caps, unit=MONEY, **at),
    ]


def draw(plot: Plot, values: pd.DataFrame) -> Figure:
    """Draw the paper's plot; with a logarithmic one if curves fall by orders of magnitude."""
    with theme():
        if plot.has_caps:
            figure = Figure(figsize=(11, 4.3))
            linear, logarithmic = figure.subplots(1, 2)
            _draw_curves(plot, linear, values)
            _draw_curves(plot, logarithmic, values, markers=False)
            logarithmic.set(xscale="log", yscale="log", title="Extra: logarithmic axes")
            linear.set(title=f"Fig. {plot.figure}: {plot.title[0].lower()}{plot.title[1:]}")
            linear.legend(loc="upper right")
            return figure
        figure = Figure(figsize=(7, 4.3))
        axes = figure.subplots()
        line = curve(values, quantity=plot.quantity)
        axes.plot(line.index, line, color="#0072B2", label=LABELS[plot.quantity].split(" (")[0])
        if plot.quantity == "budget":
            limit = curve(values, quantity="beta")
            axes.plot(
                limit.index, limit, color=BOUND, linewidth=1.2, dashes=(4, 2), label=r"$\beta$"
            )
        axes.set(title=f"Fig. {plot.figure}: {plot.title[0].lower()}{plot.title[1:]}",
                 xlabel=LABELS[plot.x_name], ylabel=LABELS[plot.quantity])  # fmt: skip
        axes.set_xlim(left=0)
        axes.legend(loc="lower right")
    return figure


def _draw_curves(plot: Plot, axes: Axes, values: pd.DataFrame, *, markers: bool = True) -> None:
    for name, (colour, dashes, marker) in CURVES.items():
        line = curve(values, panel="", series=name, quantity=plot.quantity)
        if not markers:  # logarithmic axes have no zero
            line = line[line > 0]
        every = max(1, len(line) // 12)
        axes.plot(line.index, line, color=colour, dashes=dashes, label=name,
                  marker=marker if markers else "", markersize=4, markevery=every)  # fmt: skip
    axes.set(xlabel=LABELS[plot.x_name], ylabel=LABELS[plot.quantity])


def judge(plot: Plot, values: pd.DataFrame) -> Iterator[Finding]:
    """Test the trend that the paper states, and whether a player gains by deviating."""
    if plot.has_caps:
        lines = {name: curve(values, panel="", series=name, quantity=plot.quantity)
                 for name in CURVES}  # fmt: skip
        yield {6: _judge_cost, 7: _judge_clients, 8: _judge_rent}[plot.figure](lines)
        yield _judge_order(plot, lines)
    else:
        line = curve(values, quantity=plot.quantity)
        cap = curve(values, quantity="budget")
        yield {9: _judge_limit, 10: _judge_slope, 11: _judge_rise, 12: _judge_rise}[plot.figure](
            plot, line, cap
        )
    gains = pick(values, quantity="gain_alone")["value"]
    yield Finding(
        "parameters", f"fig{plot.figure}", bool((gains <= 1e-9).all()),
        f"at {len(gains)} points {N_TRIED} alternatives each: the largest gain is "
        f"{gains.max():.1g}",
    )  # fmt: skip


def _judge_cost(lines: dict[str, pd.Series[float]]) -> Finding:
    convex = [bool((np.diff(np.diff(y) / np.diff(y.index)) > 0).all()) for y in lines.values()]
    falls = [y.is_monotonic_decreasing and y.is_unique for y in lines.values()]
    first = lines["B = 20"]
    early = float(np.interp(0.05, first.index, first) / first.iloc[0])
    return Finding(
        "fig6-falls", "as-printed", all(convex) and all(falls) and early < 0.05,
        f"B = 20: epsilon* at rho = {format_numbers(first.index[[0, 20, 40, -1]], 3)}: "
        f"{format_numbers(first.iloc[[0, 20, 40, -1]])}; at 5 % of the axis "
        f"{100 * early:.2g} % of the start are left",
    )  # fmt: skip


def _judge_clients(lines: dict[str, pd.Series[float]]) -> Finding:
    fine = []
    for y in lines.values():
        peak = y.index[int(y.argmax())]
        after = y[y.index >= peak]
        slope = np.diff(after) / np.diff(after.index)
        fine.append(bool(y.iloc[0] == 0 and after.is_monotonic_decreasing
                         and y.max() / (peak - 1) > -slope.min()))  # fmt: skip
    y = lines["B = 1"]
    return Finding(
        "fig7-rises-and-falls", "as-printed", all(fine),
        f"B = 1: epsilon* at N = 1, 2, 10, 100, 1000: {format_numbers(y[[1, 2, 10, 100, 1000]])}; "
        f"the peak is at N = {y.idxmax():.0f}",
    )  # fmt: skip


def _judge_rent(lines: dict[str, pd.Series[float]]) -> Finding:
    falls = [y.is_monotonic_decreasing and y.is_unique for y in lines.values()]
    y = lines["B = 1"]
    return Finding(
        "fig8-falls", "as-printed", all(falls),
        f"B = 1: utility at N = 1, 2, 10, 100: {format_numbers(y[[1, 2, 10, 100]])}",
    )  # fmt: skip


def _judge_order(plot: Plot, lines: dict[str, pd.Series[float]]) -> Finding:
    columns = pd.DataFrame(lines)
    if plot.figure == 7:  # at N = 1 all are zero
        columns = columns[columns.index > 1]
    ordered = bool((np.diff(columns.to_numpy(), axis=1) > 0).all())
    last = columns.iloc[-1]
    return Finding(
        f"fig{plot.figure}-caps", "as-printed", ordered,
        f"at {plot.x_name.replace('n_nodes', 'N')} = {columns.index[-1]:g}, B = 1, 5, 10, 20: "
        f"{format_numbers(last)}; in this order at all {len(columns)} points",
    )  # fmt: skip


def _judge_limit(plot: Plot, line: pd.Series[float], cap: pd.Series[float]) -> Finding:  # noqa: ARG001
    slope = np.diff(line)
    rises = bool((slope > 0).all() and (np.diff(slope) < 0).all())
    gap = 10 - line.iloc[-1]
    return Finding(
        "fig9-limit", "as-printed", rises and 0 < gap < 0.02 and line.iloc[4] > 0.5 * 10,
        f"B* at alpha = {format_numbers(line.index[[0, 4, 49, -1]])}: "
        f"{format_numbers(line.iloc[[0, 4, 49, -1]], 6)}; beta = 10",
    )  # fmt: skip


def _judge_slope(plot: Plot, line: pd.Series[float], cap: pd.Series[float]) -> Finding:  # noqa: ARG001
    slope = np.diff(line) / np.diff(line.index)
    return Finding(
        "fig10-linear", "as-printed", bool(np.allclose(slope, 1, rtol=1e-9)),
        f"B* rises by {slope.min():.9f} to {slope.max():.9f} for each unit of beta; "
        f"beta - B* = {line.index[0] - line.iloc[0]:.6g} everywhere",
    )  # fmt: skip


def _judge_rise(plot: Plot, line: pd.Series[float], cap: pd.Series[float]) -> Finding:
    half = len(line) // 2
    rises = bool((np.diff(line) > 0).all())
    found = (
        f"U_S* at {plot.x_name} = {format_numbers(line.index[[0, half, -1]])}: "
        f"{format_numbers(line.iloc[[0, half, -1]], 6)}"
    )
    if plot.figure == 11:
        settled = float(cap.iloc[-1] - cap.iloc[half])
        gained = float(line.iloc[-1] - line.iloc[half])
        rises = rises and settled < 0.01 * gained
        found += f"; over the second half B* gains {settled:.2g}, U_S* {gained:.3g}"
    return Finding(f"fig{plot.figure}-rises", "as-printed", rises, found)


STUDIES = tuple(
    Study(
        name=f"fig{plot.figure}",
        title=plot.title,
        setup=plot.setup,
        load=load_readings(f"fig{plot.figure:02d}", {"as-printed": []}),
        compute=partial(compute, plot),
        draw=partial(draw, plot),
        judge=partial(judge, plot),
    )
    for plot in PLOTS
)
