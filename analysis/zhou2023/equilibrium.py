"""Figures 5 to 10: how the equilibrium moves with alpha, beta, N, rho and B."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.game import welfare
from fcfn_abm.report.theme import BOUND, LEAVES, STAYS, theme
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
    pick,
    readings,
    rows,
    table,
)
from fcfn_zhou2023.fig04 import equal_answer, own_profit, server_utility_at

AS_FIG4 = "N = 100, rho = 0.001, alpha = 1, beta = 10 as in fig. 4; the set-up is reconstructed."
LABELS = {
    "alpha": r"$\alpha$ (1 per unit of epsilon)",
    "beta": r"$\beta$ (currency)",
    "n_nodes": "number of nodes N",
    "rho": r"unit privacy cost $\rho$ (currency / epsilon)",
}
NAMES = {
    "fig4-market": "B*",
    "mean": "mean epsilon, as in (10)",
    "sum": "sum of all epsilons",
    "costs-shared": "mean; costs fall like 1/N",
}


def compute_axis(x_name: str) -> Callable[[Scenarios, Setting], pd.DataFrame]:
    """Return what solves the game along one parameter."""

    def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
        parts = []
        for reading, scenario in scenarios.items():
            for x, run in axis_runs(scenario):
                rho, alpha, beta = build.draw_population(run).rho, run.game.alpha, run.game.beta
                if reading == "sum":
                    alpha *= rho.size  # of alpha S = (alpha N) eps_g
                if reading == "costs-shared":
                    rho *= 100 / rho.size
                form = fa.stackelberg_equilibrium(rho, alpha, beta)
                at = {"reading": reading, "x": x, "x_name": x_name}
                kappa = (rho.size - 1) / (rho.size * rho.sum())
                parts += [
                    rows("budget", form.budget, unit=MONEY, **at),
                    rows("epsilon", form.epsilon.mean(), **at),
                    rows("server_utility", form.server_utility, unit=MONEY, **at),
                    rows("node_utility", form.utility.mean(), unit=MONEY, **at),
                    rows("beta", beta, unit=MONEY, **at),
                    rows("trade_index", alpha * kappa * beta, **at),
                ]
                if x_name == "rho":
                    parts.append(rows("tried_budget", _best_tried(rho, run), unit=MONEY, **at))
        return table(parts)

    return compute


def _best_tried(rho: Floats, scenario: Scenario) -> float:
    """Return the best of many caps for the server; zero if each of them loses money."""
    caps = np.append(0.0, np.geomspace(1e-4, 1.0, 100) * scenario.game.beta)
    return float(caps[np.argmax([server_utility_at(cap, rho, scenario) for cap in caps])])


def draw_axis(x_name: str) -> Callable[[pd.DataFrame], Figure]:
    """Return what draws cap, epsilon and utility along one parameter."""

    def draw(values: pd.DataFrame) -> Figure:
        names = list(dict.fromkeys(values["reading"]))
        styles = dict(zip(names, ((None, None), (4, 1.5), (1, 1)), strict=False))
        with theme():
            figure = Figure(figsize=(13, 4))
            for axes, (quantity, title, unit) in zip(
                figure.subplots(1, 3),
                (
                    ("budget", "The server's cap B*", "currency"),
                    ("epsilon", "A node's epsilon", "epsilon"),
                    ("server_utility", "The server's utility", "currency"),
                ),
                strict=True,
            ):
                wide = quantity == "epsilon" or x_name == "beta"
                for name in names:
                    line = curve(values, reading=name, quantity=quantity)
                    axes.plot(line.index, line.where(line > 0) if wide else line, color=STAYS,
                              dashes=styles[name], label=NAMES[name])  # fmt: skip
                if quantity == "budget":
                    limit = curve(values, reading=names[0], quantity="beta")
                    axes.plot(limit.index, limit, color=BOUND, linewidth=1, dashes=(6, 2),
                              label=r"$\beta$")  # fmt: skip
                axes.set(title=title, xlabel=LABELS[x_name], ylabel=unit, xscale="log",
                         yscale="log" if wide else "linear")  # fmt: skip
                _shade_no_trade(axes, curve(values, reading=names[0], quantity="budget"))
                if quantity == "budget":
                    axes.legend(loc="best")
        return figure

    return draw


def _shade_no_trade(axes: Axes, cap: pd.Series[float]) -> None:
    """Shade where the server offers nothing, which is at one end."""
    none = cap[cap == 0].index
    if len(none):
        axes.axvspan(none.min(), none.max(), color="0.93", linewidth=0, label="no trade", zorder=0)


def judge_alpha(values: pd.DataFrame) -> Iterator[Finding]:
    """See whether the cap rises to beta as alpha grows."""
    yield _limit("fig5-limit", "fig4-market", values, "alpha")


def _limit(claim: str, reading: str, values: pd.DataFrame, letter: str) -> Finding:
    cap = curve(values, reading=reading, quantity="budget")
    beta = curve(values, reading=reading, quantity="beta").iloc[-1]
    gap = 1 - cap.iloc[-1] / beta
    holds = bool(_rises(cap) and gap < 1e-3)
    return Finding(
        claim,
        reading,
        holds,
        f"B*/beta at {letter} = {listed(cap.index[[0, len(cap) // 2, -1]])}: "
        f"{listed(cap.iloc[[0, len(cap) // 2, -1]] / beta, 5)}"
        + ("" if _rises(cap) else f"; it is highest at {cap.idxmax():.4g}"),
    )


def _rises(line: pd.Series[float]) -> bool:
    """Return whether a line rises with every step, once it has left zero."""
    positive = line[line > 0]
    return bool(line.is_monotonic_increasing and positive.is_unique and len(positive) > 1)


def judge_beta(values: pd.DataFrame) -> Iterator[Finding]:
    """See whether the cap grows with beta, one for one once there is trade."""
    cap = curve(values, quantity="budget")
    trade = cap[cap > 0]
    slope = np.diff(trade) / np.diff(trade.index)
    yield Finding(
        "fig6-slope", "fig4-market", bool(len(slope) > 5 and np.allclose(slope, 1, rtol=1e-6)),
        f"once beta is above {float(trade.index[0] - trade.iloc[0]):.4g}, B* rises by "
        f"{slope.min():.6f} to {slope.max():.6f} for each unit of beta",
    )  # fmt: skip


def judge_n(values: pd.DataFrame) -> Iterator[Finding]:
    """See whether the cap rises to beta as nodes become many."""
    for reading in N_READINGS:
        yield _limit("fig7-limit", reading, values, "N")


def judge_rho(values: pd.DataFrame) -> Iterator[Finding]:
    """See whether trade ends exactly where (45) says, and who sells less when privacy is dearer."""
    cap, index = (curve(values, quantity=name) for name in ("tried_budget", "trade_index"))
    right = (cap > 0) == (index > 1)
    yield Finding(
        "fig8-trade", "fig4-market", bool(right.all() and (cap == 0).any() and (cap > 0).any()),
        f"{int(right.sum())} of {len(right)} costs agree: of 100 caps one pays up to rho = "
        f"{cap[cap > 0].index.max():.4g} and none from {cap[cap == 0].index.min():.4g} on; (45) "
        f"puts the end at rho = {_last_rho(values):.4g}",
    )  # fmt: skip
    epsilon = curve(values, quantity="epsilon")
    yield Finding(
        "fig8-epsilon", "fig4-market", _rises(epsilon[::-1]),
        f"epsilon at rho = {listed(epsilon.index[[0, 20, 40, -1]], 3)}: "
        f"{listed(epsilon.iloc[[0, 20, 40, -1]], 3)}",
    )  # fmt: skip


def _last_rho(values: pd.DataFrame) -> float:
    index = curve(values, quantity="trade_index")
    return float((index * index.index).iloc[0])  # the index falls like 1 / rho


def compute_budget(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return value, payment and utility of the server under every cap."""
    parts = []
    for reading, scenario in scenarios.items():
        game = scenario.game
        for budget, run in axis_runs(scenario):
            rho = build.draw_population(run).rho
            answer = fa.nash_equilibrium(rho, budget)
            value = fa.server_utility(answer.total_epsilon / rho.size, game.alpha, game.beta, 0.0)
            step = 1e-4 * budget
            further = fa.nash_equilibrium(rho, budget + step).total_epsilon / rho.size
            slope = (fa.server_utility(further, game.alpha, game.beta, 0.0) - value) / step
            at = {"reading": reading, "x": budget, "x_name": "budget", "unit": MONEY}
            parts += [
                rows("value", value, **at),
                rows("server_utility", value - budget, **at),
                rows("node_utility", answer.utility.mean(), **at),
                rows("slope", slope, **{**at, "unit": "1"}),
            ]
        best = build.solve_equilibrium(scenario).budget
        parts.append(rows("best_budget", best, reading=reading, unit=MONEY))
    return table(parts)


def draw_budget(values: pd.DataFrame) -> Figure:
    """Draw value and payment, and their difference."""
    value, utility, slope = (
        curve(values, quantity=name) for name in ("value", "server_utility", "slope")
    )
    best = float(pick(values, quantity="best_budget")["value"].iloc[0])
    end = _last_profit(utility)
    with theme():
        figure = Figure(figsize=(13, 4))
        both, difference, slopes = figure.subplots(1, 3)
        both.plot(value.index, value, color=STAYS, label=r"$f_1$: value of the model")
        both.plot(value.index, value.index, color=LEAVES, dashes=(4, 1.5), label="$f_2$: payment B")
        both.set(title="What the server gets and pays", xlabel="cap B (currency)",
                 ylabel="currency", ylim=(0, None))  # fmt: skip
        difference.plot(utility.index, utility, color=STAYS)
        difference.axhline(0, color="0.2", linewidth=0.8)
        difference.set(title="The server's utility", xlabel="cap B (currency)", ylabel="currency")
        slopes.plot(slope.index, slope, color=STAYS, label="$f_1'$")
        slopes.axhline(1, color=LEAVES, dashes=(4, 1.5), label="$f_2'$ = 1")
        slopes.set(title="Slopes", xlabel="cap B (currency)", ylabel="slope", yscale="log")
        for axes in (both, difference, slopes):
            axes.axvline(best, color=BOUND, dashes=(1, 1), label=f"B* = {best:.4g}")
            if end < utility.index.max():
                axes.axvline(end, color="0.4", dashes=(6, 2), label=f"no profit from {end:.3g} on")
            axes.legend(loc="best", frameon=True, framealpha=0.95, edgecolor="none")
    return figure


def _last_profit(utility: pd.Series[float]) -> float:
    return float(utility[utility > 0].index.max())


def judge_budget(values: pd.DataFrame) -> Iterator[Finding]:
    """See where the server's utility is highest (41), and what f1' <= f2' says (37)."""
    utility, slope = curve(values, quantity="server_utility"), curve(values, quantity="slope")
    best = float(pick(values, quantity="best_budget")["value"].iloc[0])
    step = float(utility.index[1] - utility.index[0])
    peak = float(utility.index[int(utility.argmax())])
    yield Finding(
        "fig9-optimum", "fig4-market", abs(peak - best) <= step,
        f"of {len(utility)} caps the best is {peak:.4g} (they lie {step:.2g} apart); (41) has "
        f"{best:.5g}",
    )  # fmt: skip
    profit, claimed = utility > 0, slope <= 1
    last = _last_profit(utility)
    yield Finding(
        "fig9-slopes", "slopes", bool((profit == claimed).all()),
        f"f1' <= f2' at {int((claimed & profit).sum())} of {int(profit.sum())} profitable caps and "
        f"at {int((claimed & ~profit).sum())} of {int((~profit).sum())} caps that lose money: it "
        f"starts at B* = {best:.4g}, while every cap up to {last:.4g} pays",
    )  # fmt: skip
    second = np.diff(utility, 2)
    inside = utility.index <= last
    yield Finding(
        "fig9-slopes", "interval", bool((profit == inside).all() and (second < 0).all()),
        f"f1 - f2 is concave (second differences from {second.min():.2g} to {second.max():.2g}) "
        f"and positive exactly on one interval, up to B = {last:.4g}",
    )  # fmt: skip


def compute_earnings(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return what nodes and server earn, and the price of anarchy in two readings."""
    parts = []
    for reading, scenario in scenarios.items():
        for n, run in axis_runs(scenario):
            rho, game = build.draw_population(run).rho, run.game
            form = build.solve_equilibrium(run, rho)
            paid = fa.payments(form.epsilon, form.budget)
            at = {"reading": reading, "x": n, "x_name": "n_nodes"}
            parts += [
                rows("budget", form.budget, unit=MONEY, **at),
                rows("node_utility", _earned(rho, form.budget), unit=MONEY, **at),
                rows("server_utility", form.server_utility, unit=MONEY, **at),
            ]
            for over in ("active", "population"):
                judged = welfare(form.epsilon, rho, paid, game.alpha, game.beta, over)
                parts.append(rows("price_of_anarchy", judged.price_of_anarchy, series=over, **at))
            parts.append(rows("rent_dissipation", judged.rent_dissipation, **at))
    return table(parts)


def _earned(rho: Floats, budget: float) -> float:
    """Return what each of equal nodes earns where none gains alone, by search."""
    epsilon = equal_answer(rho, budget)
    return own_profit(epsilon, np.full(rho.size - 1, epsilon), rho, budget)


def draw_earnings(values: pd.DataFrame) -> Figure:
    """Draw a node's rent, what of the payments is burnt, and the price of anarchy."""
    with theme():
        figure = Figure(figsize=(13, 4))
        rent, burnt, anarchy = figure.subplots(1, 3)
        line = curve(values, quantity="node_utility")
        law = curve(values, quantity="budget") / line.index.to_numpy() ** 2
        rent.plot(line.index, line, "o", color=STAYS, label="a node's utility")
        rent.plot(law.index, law, color=BOUND, dashes=(4, 1.5), label="$B/N^2$")
        rent.set(title="What a node earns", ylabel="currency", yscale="log")
        line = curve(values, quantity="rent_dissipation")
        burnt.plot(line.index, line, "o-", color=STAYS, label="burnt as privacy cost")
        burnt.set(title="What becomes of the payments", ylabel="share", ylim=(0, 1.05))
        for over, dashes, marker in (("active", (None, None), "o"), ("population", (4, 1.5), "s")):
            line = curve(values, quantity="price_of_anarchy", series=over)
            name = {"active": "planner may send nodes home", "population": "mean over all N"}[over]
            anarchy.plot(line.index, line, marker=marker, dashes=dashes, color=STAYS, label=name)
        anarchy.set(title="Extra: price of anarchy", ylabel="best welfare / welfare")
        anarchy.set(yscale="log")
        for axes in (rent, burnt, anarchy):
            axes.set(xlabel=LABELS["n_nodes"], xscale="log")
            axes.legend(loc="best")
    return figure


def judge_earnings(values: pd.DataFrame) -> Iterator[Finding]:
    """See whether a node's rent is B / N^2, and how much of the payments is burnt."""
    rent, cap = (curve(values, quantity=name) for name in ("node_utility", "budget"))
    law = cap / rent.index.to_numpy() ** 2
    burnt = curve(values, quantity="rent_dissipation")
    worst = float((rent / law - 1).abs().max())
    n = [10, 100, 1000]
    yield Finding(
        "fig10-rent", "fig4-market", worst < 1e-6,
        f"a node's utility at N = {listed(n)}: {listed(rent[n])}; B*/N^2: {listed(law[n])}; "
        f"of the payments {listed(100 * burnt[n])} % are burnt as privacy cost",
    )  # fmt: skip


def _axis_study(
    name: str,
    x_name: str,
    title: str,
    judge: Callable[[pd.DataFrame], Iterator[Finding]],
    overrides: dict[str, list[str]],
) -> Study:
    return Study(
        name=f"fig{name}",
        title=title,
        setup=AS_FIG4,
        load=readings(f"fig{int(name):02d}", overrides),
        compute=compute_axis(x_name),
        draw=draw_axis(x_name),
        judge=judge,
    )


ONE: dict[str, list[str]] = {"fig4-market": []}
N_READINGS: dict[str, list[str]] = {"mean": [], "sum": [], "costs-shared": []}

STUDIES = (
    _axis_study("5", "alpha", "Cap and epsilon against alpha", judge_alpha, ONE),
    _axis_study("6", "beta", "Cap and epsilon against beta", judge_beta, ONE),
    _axis_study("7", "n_nodes", "Cap and epsilon against the number of nodes", judge_n, N_READINGS),
    _axis_study("8", "rho", "Cap and epsilon against the cost of privacy", judge_rho, ONE),
    Study(
        name="fig9",
        title="The server's utility against its cap",
        setup=AS_FIG4,
        load=readings("fig09", ONE),
        compute=compute_budget,
        draw=draw_budget,
        judge=judge_budget,
    ),
    Study(
        name="fig10",
        title="What is earned, and what is lost, against the number of nodes",
        setup=AS_FIG4 + " The price of anarchy is an extra.",
        load=readings("fig10", ONE),
        compute=compute_earnings,
        draw=draw_earnings,
        judge=judge_earnings,
    ),
)
