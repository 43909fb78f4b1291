"""Figures 14 and 15: the server's utility under three methods, against alpha and beta."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

import fcfn_abm as fa
from fcfn_abm.report.theme import ARM_COLOURS, ARM_DASHES, ARM_MARKERS, theme
from fcfn_abm.scenario import Scenario
from fcfn_zhou2023.base import (
    MONEY,
    Finding,
    Scenarios,
    Setting,
    Study,
    axis_runs,
    curve,
    format_numbers,
    pick,
    rows,
    table,
)
from fcfn_zhou2023.methods import STATIC, costs_of, load_figure, price, solve_yang

BUDGET = {"EMNIST": 1.0, "CIFAR-10": 2.0}
"""What IC-MLE spends in figures 13 and 16."""
READINGS = {
    "n-1000": "N = 1000; ours at B*, IC-MLE spends {1, 2}",
    "n-100": "The same with N = 100",
    "n-50": "The same with N = 50",
    "n-10": "The same with N = 10",
    "equal-spending": "N = 1000; IC-MLE spends our B*",
    "two-types": "N = 100; two types of cost, all spend {1, 2}",
}
SHOWN = ("n-1000", "n-100", "equal-spending", "two-types")
N_CLIENTS = {"n-1000": 1000, "n-100": 100, "n-50": 50, "n-10": 10, "equal-spending": 1000,
             "two-types": 100}  # fmt: skip
YANG = ("yang", "yang-purchase", "yang-budget")
"""Our three-party game; sellers are paid p (1 + epsilon) a; the buyer spends what IC-MLE does."""


def compute(x_name: str, scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return the server's utility, for each data set, reading and method."""
    parts = []
    for data, scenario in scenarios.items():
        for x, run in axis_runs(scenario, f"game.{x_name}"):
            for reading in READINGS:
                at = {"panel": data, "reading": reading, "x": x, "x_name": x_name}
                parts += [
                    rows("server_utility", utility, series=series, unit=MONEY, **at)
                    for series, utility in _earn(reading, BUDGET[data], run).items()
                ]
    return table(parts)


def _earn(reading: str, budget: float, scenario: Scenario) -> dict[str, float]:
    """Return the server's utility under each method."""
    n, game = N_CLIENTS[reading], scenario.game
    rho = costs_of(scenario, n, two_types=reading == "two-types")
    best = price("stackelberg", rho, scenario, None).server_payment
    ours, theirs = {
        "equal-spending": (best, best),
        "two-types": (budget, budget),
    }.get(reading, (best, budget))
    earned = {
        "stackelberg": price("stackelberg", rho, scenario, ours).server_utility,
        "ic-mle": price("ic-mle", rho, scenario, theirs).server_utility,
        "yang": price("yang", rho, scenario, theirs).server_utility,
    }
    if (sold := solve_yang(rho, game.alpha)) is not None:
        mean = float(sold.epsilon.mean())
        for series, paid in (("yang-purchase", sold.purchase_price.sum()), ("yang-budget", theirs)):
            earned[series] = fa.server_utility(mean, game.alpha, game.beta, float(paid))
    return earned


def draw(x_name: str, values: pd.DataFrame) -> Figure:
    """Draw a row for each data set, and a panel for each reading."""
    with theme():
        figure = Figure(figsize=(16, 7.2))
        grid = figure.subplots(2, len(SHOWN), sharex=True, sharey="row")
        for line, data in zip(grid, STATIC, strict=True):
            for axes, reading in zip(line, SHOWN, strict=True):
                for series, label, colour, dashes, marker in (
                    ("stackelberg", "ours", "stackelberg", None, None),
                    ("ic-mle", "IC-MLE", "ic-mle", None, None),
                    (
                        "yang-budget",
                        "Yang et al., spending as IC-MLE",
                        "yang",
                        (1, 1),
                        "x",
                    ),
                    ("yang", "Yang et al. as a three-party game of ours", "yang", None, None),
                ):
                    y = curve(values, panel=data, reading=reading, series=series)
                    axes.plot(y.index, y, color=ARM_COLOURS[colour], label=label,
                              dashes=dashes or ARM_DASHES[colour] or (None, None),
                              marker=marker or ARM_MARKERS[colour])  # fmt: skip
                gap = (curve(values, panel=data, reading=reading, series="stackelberg")
                       - curve(values, panel=data, reading=reading, series="ic-mle"))  # fmt: skip
                axes.text(0.04, 0.97, "ours less IC-MLE:\n"
                          + ", ".join(f"{g:+,.3g}" for g in gap), transform=axes.transAxes,
                          va="top", fontsize="small", color="0.25")  # fmt: skip
                if data == "EMNIST":
                    axes.set_title(READINGS[reading], fontsize="small")
                axes.set(xscale="log", yscale="symlog")
                axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
                axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            line[0].set_ylabel(f"{data}\nutility $U_S$ (currency)")
            top = pick(values, panel=data)["value"].max()
            line[0].set_ylim(0, 30 * top)
        for axes in grid[-1]:
            axes.set_xlabel(rf"$\{x_name}$")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def judge(figure_number: int, values: pd.DataFrame) -> Iterator[Finding]:
    """Test whether ours gives the server a higher utility than the others."""
    for reading in READINGS:
        yield _judge_pair(f"fig{figure_number}-ic-mle", reading, pick(values, reading=reading),
                          "ic-mle")  # fmt: skip
    for reading in ("n-1000", "n-100"):
        some = pick(values, reading=reading)
        for series, name in zip(YANG, ("three-party", "purchase", "budget"), strict=True):
            yield _judge_pair(f"fig{figure_number}-yang", f"{name}-{reading}", some, series)


def _judge_pair(claim: str, reading: str, some: pd.DataFrame, other: str) -> Finding:
    holds, described = [], []
    for data in STATIC:
        ours, theirs = (curve(some, panel=data, series=name) for name in ("stackelberg", other))
        solved = ours.index.intersection(theirs.index)
        holds.append(bool((ours[solved] > theirs[solved]).all()))
        described.append(
            f"{data}, {some['x_name'].iloc[0]} = {format_numbers(solved)}: ours "
            f"{format_numbers(ours[solved])}; theirs {format_numbers(theirs[solved])}"
        )
        if len(solved) < len(ours):
            described.append("no positive solution of (57)-(59) elsewhere")
    return Finding(claim, reading, all(holds), "; ".join(described))


STUDIES = tuple(
    Study(
        name=f"fig{figure}",
        title=f"The server's utility under three methods against {x_name}",
        setup=f"{x_name} = 1, 10, 100. EMNIST: {other} = 10, rho = 0.001; CIFAR-10: 20, 0.003. The "
        "paper does not state N, what the other methods spend, IC-MLE's types, nor what Yang et "
        "al.'s buyer pays.",
        load=load_figure(f"fig{figure}"),
        compute=partial(compute, x_name),
        draw=partial(draw, x_name),
        judge=partial(judge, figure),
    )
    for figure, x_name, other in ((14, "alpha", "beta"), (15, "beta", "alpha"))
)
