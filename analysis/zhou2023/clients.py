"""Figure 13: a client's utility under five methods."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import fcfn_abm as fa
from fcfn_abm.report.theme import ARM_COLOURS, theme
from fcfn_abm.rng import stream
from fcfn_abm.scenario import Scenario
from fcfn_zhou2023.base import (
    MONEY,
    Finding,
    Floats,
    Scenarios,
    Setting,
    Study,
    curve,
    format_numbers,
    number,
    pick,
    rows,
    table,
)
from fcfn_zhou2023.methods import (
    NAMES,
    RANDOM,
    STATIC,
    costs_of,
    load_figure,
    price,
    solve_yang,
)
from fcfn_zhou2023.utility import own_utility

N_CLIENTS = (10, 50, 100)
N_DRAWS = 200
"""Draws of the random method where its mean has no formula."""
READINGS = {
    "all-clients": "All clients use the method",
    "one-client": "One client uses it, others at ε*",
    "one-client-may-leave": "One client, which may leave",
    "all-may-leave": "All clients; losers leave",
    "two-types": "Two types of cost; losers leave",
}
LABELS = {
    "static": "static (10; 5)",
    "random": "random in [1, 100], mean",
    "yang": "Yang et al. (all: compensated; one: paid by (3))",
    "yang-purchase": "Yang et al., paid p (1 + ε) a",
}
OTHERS = ("yang", "ic-mle", "static", "random")
YANG = {
    "compensated": "yang",
    "purchase": "yang-purchase",
    "three-party": "yang-three-party",
}
"""Readings of what the sellers of Yang et al. earn, and the series that have it."""


def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return a client's mean utility for each data set, reading, method and number of clients."""
    parts = []
    for data, scenario in scenarios.items():
        for reading in READINGS:
            for n in N_CLIENTS:
                at = {"panel": data, "reading": reading, "x": n, "x_name": "n_nodes", "unit": MONEY}
                earned = _earn(reading, data, scenario, n)
                parts += [
                    rows("node_utility", value, series=series, replication=np.arange(value.size),
                         **at)
                    for series, value in earned.items()
                ]  # fmt: skip
        parts += _compare_sides(data, scenario)
    return table(parts)


def _compare_sides(data: str, scenario: Scenario) -> list[pd.DataFrame]:
    """Return the utilities of clients and server under ours and the other methods, for N = 100."""
    rho = costs_of(scenario, N_CLIENTS[-1])
    ours = price("stackelberg", rho, scenario, None)
    found = {
        "own-spending": price("ic-mle", rho, scenario, scenario.game.budget),
        "equal-spending": price("ic-mle", rho, scenario, ours.server_payment),
        "three-party-game": price("yang", rho, scenario, scenario.game.budget),
    }
    return [
        rows(quantity, value, panel=data, reading=reading, series=series, unit=MONEY)
        for reading, theirs in found.items()
        for series, outcome in (("stackelberg", ours), ("other", theirs))
        for quantity, value in (
            ("node_utility", outcome.node_utility.mean()),
            ("server_utility", outcome.server_utility),
        )
    ]


def _earn(reading: str, data: str, scenario: Scenario, n: int) -> dict[str, Floats]:
    """Return a client's mean utility under each method, one number for each draw."""
    if reading.startswith("one-client"):
        alone = _deviate(data, scenario, n)
        if reading == "one-client-may-leave":
            alone = {name: max(value, 0.0) for name, value in alone.items()}
            alone["random"] = _mean_of_random(*_market_of_one(scenario, n), may_leave=True)
        return {name: np.array([value]) for name, value in alone.items()}
    rho = costs_of(scenario, n, two_types=reading == "two-types")
    cap = scenario.game.budget or 0.0
    means = {m: float(price(m, rho, scenario, cap).node_utility.mean())
             for m in ("stackelberg", "ic-mle")}  # fmt: skip
    static = np.full(n, STATIC[data])
    earned: dict[str, Floats] = {name: np.array([value]) for name, value in means.items()}
    earned["yang"] = np.zeros(1)  # sellers are compensated for their cost, and no more
    if reading == "all-clients":
        sold = solve_yang(rho, scenario.game.alpha)
        assert sold is not None  # noqa: S101 - there is a solution at these numbers
        earned |= {
            "static": np.array([cap / n - float(rho[0]) * STATIC[data]]),
            "random": np.array([cap / n - float(rho[0]) * (RANDOM[0] + RANDOM[1]) / 2]),
            "yang-purchase": (sold.purchase_price - rho * sold.epsilon).mean(keepdims=True),
            "yang-three-party": price("yang", rho, scenario, cap).node_utility.mean(keepdims=True),
        }
        return earned
    rng = stream(scenario.seed, "mechanism", n)
    earned["static"] = np.array([_leave(static, rho, cap)])
    earned["random"] = np.array(
        [_leave(rng.uniform(*RANDOM, size=n), rho, cap) for _ in range(N_DRAWS)]
    )
    return earned


def _leave(epsilon: Floats, rho: Floats, cap: float) -> float:
    """Return the mean utility after the worst-off clients leave one by one until none loses."""
    inside = np.ones(rho.size, dtype=bool)
    while inside.any():
        utility = np.where(inside, epsilon * (cap / epsilon[inside].sum() - rho), 0.0)
        if utility.min() >= -1e-12:
            return float(utility.mean())
        inside[int(utility.argmin())] = False
    return 0.0


def _market_of_one(scenario: Scenario, n: int) -> tuple[float, float, float]:
    """Return the others' sum at the equilibrium, the cost and the cap."""
    rho, cap = costs_of(scenario, n), scenario.game.budget or 0.0
    return float(fa.nash_equilibrium(rho, cap).epsilon[1:].sum()), float(rho[0]), cap


def _deviate(data: str, scenario: Scenario, n: int) -> dict[str, float]:
    """Return the utility of one client with a method's epsilon while the others do not change."""
    others, cost, cap = _market_of_one(scenario, n)
    rho = costs_of(scenario, n)
    sold = solve_yang(rho, scenario.game.alpha)
    assert sold is not None  # noqa: S101 - there is a solution at these numbers
    epsilon = {
        "stackelberg": others / (n - 1),
        "ic-mle": float(price("ic-mle", rho, scenario, cap).epsilon[0]),
        "yang": float(sold.epsilon[0]),
        "static": STATIC[data],
    }
    earned = {name: float(own_utility(e, others, cost, cap)) for name, e in epsilon.items()}
    return earned | {"random": _mean_of_random(others, cost, cap)}


def _mean_of_random(others: float, cost: float, cap: float, *, may_leave: bool = False) -> float:
    """Return the mean utility of one client whose epsilon is uniform, the others' sum fixed."""
    low, high = RANDOM
    end = min(high, cap / cost - others) if may_leave else high
    if end <= low:
        return 0.0
    paid = cap * (end - low - others * math.log((end + others) / (low + others)))
    return (paid - cost * (end**2 - low**2) / 2) / (high - low)


def draw(values: pd.DataFrame) -> Figure:
    """Draw a row for each data set, and a panel for each reading."""
    series = (*NAMES, "yang-purchase")
    with theme():
        figure = Figure(figsize=(19, 7.6))
        grid = figure.subplots(2, len(READINGS), sharex=True, sharey=True)
        for line, data in zip(grid, STATIC, strict=True):
            for axes, (reading, title) in zip(line, READINGS.items(), strict=True):
                for place, name in enumerate(series):
                    some = pick(values, panel=data, reading=reading, series=name)
                    if some.empty:
                        continue
                    mean = some.groupby("x")["value"].mean()
                    half = 1.96 * some.groupby("x")["value"].sem().fillna(0.0)
                    at = np.arange(len(mean)) + 0.15 * (place - 2.5)
                    base = name.removesuffix("-purchase")
                    label = LABELS.get(name, NAMES[base])
                    axes.bar(at, mean, 0.15, yerr=half, color=ARM_COLOURS[base], label=label,
                             hatch="///" if name != base else "", edgecolor="white",
                             linewidth=0.3, error_kw={"elinewidth": 0.8})  # fmt: skip
                    zero = (mean == 0).to_numpy()  # no bar would show
                    axes.plot(at[zero], mean[zero], "o", color=ARM_COLOURS[base], markersize=5)
                axes.axhline(0, color="0.2", linewidth=0.8)
                axes.set_xticks(range(len(N_CLIENTS)), [str(n) for n in N_CLIENTS])
                axes.grid(visible=False, axis="x")
                axes.set_yscale("symlog", linthresh=1e-4)
                axes.set_yticks([-1, -1e-2, -1e-4, 0, 1e-4, 1e-2, 1, 100])
                axes.set_ylim(-1, 100)
                if data == "EMNIST":
                    axes.set_title(title, fontsize="small")
            line[0].set_ylabel(f"{data}\nutility $U_C$ (currency)")
        for axes in grid[-1]:
            axes.set_xlabel("number of clients N")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    return figure


def judge(values: pd.DataFrame) -> Iterator[Finding]:
    """Test whether ours gives a client the highest utility, and Yang et al. the lowest."""
    for other in ("static", "random", "ic-mle"):
        for reading in READINGS:
            some = pick(values, reading=reading)
            yield _judge_pair(f"fig13-{other}", reading, some, other)
    one = pick(values, reading="one-client")
    yield _judge_pair("fig13-yang", "one-client", one, "yang")
    for reading, series in YANG.items():
        some = pick(values, reading="all-clients")
        yield _judge_pair("fig13-yang", reading, some, series)
    for reading in READINGS:
        yield _judge_gap(reading, pick(values, reading=reading))
    for reading in READINGS:
        yield _judge_lowest(reading, pick(values, reading=reading), "yang")
    for reading in ("purchase", "three-party"):
        some = pick(values, reading="all-clients")
        yield _judge_lowest(reading, some, YANG[reading])
    for reading in ("own-spending", "equal-spending", "three-party-game"):
        yield _judge_sides(reading, pick(values, reading=reading))


def _judge_sides(reading: str, some: pd.DataFrame) -> Finding:
    holds, described = [], []
    for data in STATIC:
        for quantity in ("node_utility", "server_utility"):
            ours, theirs = (
                number(some, panel=data, series=name, quantity=quantity)
                for name in ("stackelberg", "other")
            )
            holds.append(ours > theirs)
            described.append(
                f"{data}, {quantity.replace('_', ' ')}: ours {ours:.4g}, theirs {theirs:.4g}"
            )
    return Finding("utility-of-both", reading, all(holds), "; ".join(described))


def _judge_pair(claim: str, reading: str, some: pd.DataFrame, other: str) -> Finding:
    holds, described = [], []
    for data in STATIC:
        ours, theirs = (curve(some, panel=data, series=name) for name in ("stackelberg", other))
        holds.append(bool((ours > theirs).all()))
        described.append(f"{data}: ours {format_numbers(ours)}; theirs {format_numbers(theirs)}")
    return Finding(claim, reading, all(holds), f"N = 10, 50, 100, {'; '.join(described)}")


def _judge_gap(reading: str, some: pd.DataFrame) -> Finding:
    holds: list[bool] = []
    described = []
    for data in STATIC:
        ours = curve(some, panel=data, series="stackelberg")
        gaps = {name: ours - curve(some, panel=data, series=name) for name in OTHERS}
        falls = {name: bool((gap > 0).all() and (np.diff(gap) < 0).all())
                 for name, gap in gaps.items()}  # fmt: skip
        holds += falls.values()
        described.append(
            f"{data}: "
            + "; ".join(f"{NAMES[name]} {format_numbers(gap, 3)}" for name, gap in gaps.items())
        )
    return Finding(
        "fig13-gap",
        reading,
        all(holds),
        f"ours less theirs, N = 10, 50, 100, {'. '.join(described)}",
    )


def _judge_lowest(reading: str, some: pd.DataFrame, yang: str) -> Finding:
    holds, described = [], []
    for data in STATIC:
        theirs = curve(some, panel=data, series=yang)
        rest = pd.concat(
            [curve(some, panel=data, series=name) for name in NAMES if name != "yang"], axis=1
        ).min(axis=1)
        holds.append(bool((theirs < rest).all()))
        described.append(
            f"{data}: Yang et al. {format_numbers(theirs)}; the lowest other {format_numbers(rest)}"
        )
    return Finding(
        "fig13-yang-lowest", reading, all(holds), f"N = 10, 50, 100, {'; '.join(described)}"
    )


STUDY = Study(
    name="fig13",
    title="A client's utility under five methods",
    setup="EMNIST: alpha = beta = 10, B = 1, rho = 0.001, static 10; CIFAR-10: 20, 20, 2, 0.003, "
    "static 5; random in [1, 100]; N = 10, 50, 100. The paper does not state whether all clients "
    "or one play static and random, how they are paid ((3) here), what Yang et al.'s sellers earn, "
    "nor IC-MLE's types.",
    load=load_figure("fig13"),
    compute=compute,
    draw=draw,
    judge=judge,
)
