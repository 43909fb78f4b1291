"""Extra: section 6 in numbers, who takes part when costs differ, (43) to (48)."""

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
    format_numbers,
    load_readings,
    number,
    pick,
    rows,
    table,
)
from fcfn_zhou2023.utility import own_utility

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
SPREADS = {"within-0.05-percent": 5e-4, "within-1-percent": 0.01, "within-50-percent": 0.5}
"""Readings of "needs differ little": distance of 1,000 clients' costs from their mean."""


def find_violators(rho: Floats, inside: Mask) -> Mask:
    """Return the members of a set that a single application of rule (48) removes."""
    threshold = rho[inside].sum() / (inside.sum() - 1)
    return np.asarray(inside & (rho >= threshold * (1 - 1e-12)))


def find_outliers(rho: Floats) -> Mask:
    """Return which costs lie above the upper fence of a box plot, 1.5 quartile ranges up."""
    low, high = np.quantile(rho, [0.25, 0.75])
    return np.asarray(rho > high + 1.5 * (high - low))


def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return the active set, by the rule and by the closed form, and what clients sell and earn."""
    parts = []
    for reading, scenario in scenarios.items():
        for run in build.list_runs(scenario):
            rho = build.draw_population(run.scenario).rho
            at = {
                "reading": reading, "panel": "sizes", "x": rho.size, "x_name": "n_nodes",
                "replication": run.replication, "unit": "nodes",
            }  # fmt: skip
            everybody = np.ones(rho.size, dtype=bool)
            once = everybody & ~find_violators(rho, everybody)
            parts += [
                rows("n_active", fa.nash_equilibrium(rho, 1.0).n_active, **at),
                rows("n_once", once.sum(), **at),
                rows("n_once_violating", find_violators(rho, once).sum(), **at),
                rows("n_outliers", find_outliers(rho).sum(), **at),
            ]
        parts += _describe_population(
            reading, build.draw_population(scenario).rho, scenario.game.beta
        )
    return table([*parts, *_spread_costs(), *_add_outlier()])


def _describe_population(reading: str, rho: Floats, beta: float) -> list[pd.DataFrame]:
    """Return the steps of the rule, and who sells what, in the scenario's own population."""
    form = fa.nash_equilibrium(rho, 1.0)
    inside, left = np.ones(rho.size, dtype=bool), [rho.size]
    while (out := find_violators(rho, inside)).any():
        inside &= ~out
        left.append(int(inside.sum()))
    order = np.argsort(rho)
    paid = fa.payments(form.epsilon, 1.0)
    tried = np.geomspace(1e-6, 1.0, 50) * form.epsilon.max()
    total = form.total_epsilon
    excluded = [float(own_utility(tried, total, r, 1.0).max()) for r in rho[~form.active]]
    active = rho[form.active]
    tried_alone = np.linspace(0.02, 4.0, 200) * form.epsilon.max()
    gains = [
        float(own_utility(tried_alone, total - own, cost, 1.0).max() - utility)
        for own, cost, utility in zip(form.epsilon, rho, form.utility, strict=True)
    ]
    alpha = rho.size * form.threshold / beta / 0.99  # (45) holds by one part in a hundred
    at = {"reading": reading, "panel": "nodes"}
    return [
        rows("n_left", left, reading=reading, panel="steps", x=np.arange(len(left)),
             x_name="removal", unit="nodes"),
        rows("same_set", float((inside == form.active).all()), reading=reading, panel="steps"),
        rows("epsilon", form.epsilon[order], x=rho[order], x_name="rho", **at),
        rows("payment", paid[order], x=rho[order], x_name="rho", **at),
        rows("threshold", form.threshold, **at),
        rows("highest_active", active.max(), **at),
        rows("ceiling", alpha * beta / rho.size, **at),
        rows("gain_alone", max(gains), unit="currency", **at),
        rows("best_of_excluded", max(excluded), unit="currency", **at),
        rows("variation_all", rho.std() / rho.mean(), **at),
        rows("variation_active", active.std() / active.mean(), **at),
    ]  # fmt: skip


def _spread_costs() -> list[pd.DataFrame]:
    """Return how many of 1,000 clients take part, by how far their costs lie apart."""
    parts = []
    for reading, spread in SPREADS.items():
        rho = np.linspace(1 - spread, 1 + spread, 1000)
        form = fa.nash_equilibrium(rho, 1.0)
        least = form.epsilon.min() / form.epsilon.mean()
        at = {"panel": "spread", "reading": reading}
        parts += [
            rows("n_active", form.n_active, unit="nodes", **at),
            rows("least_epsilon", least, **at),
        ]
    return parts


def _add_outlier() -> list[pd.DataFrame]:
    """Return the mean epsilon of 100 equal clients before and after one of other cost joins."""
    alone = fa.nash_equilibrium(np.ones(100), 1.0).epsilon.mean()
    parts = []
    for reading, cost in (("high-cost", 5.0), ("low-cost", 0.2)):
        joined = fa.nash_equilibrium(np.append(np.ones(100), cost), 1.0).epsilon[:100].mean()
        parts.append(rows("change", joined / alone - 1, panel="outlier", reading=reading))
    return parts


def draw(values: pd.DataFrame) -> Figure:
    """Draw who sells what, the steps of the rule, and the size of the active set."""
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
        nodes.set(title="Extra: who takes part (even spread)",
                  xlabel=r"unit privacy cost $\rho$ (currency / ε)",
                  ylabel="ε")  # fmt: skip
        for reading, (colour, dashes) in styles.items():
            line = curve(values, reading=reading, panel="steps", quantity="n_left")
            steps.plot(line.index, line, "o-", color=colour, dashes=dashes, label=reading)
            line = curve(values, reading=reading, panel="sizes", quantity="n_active")
            sizes.plot(line.index, line, "o-", color=colour, dashes=dashes, label=reading)
        n = curve(values, panel="sizes", quantity="n_active").index.to_numpy()
        sizes.plot(n, n, color="0.8", linewidth=1, label="all")
        steps.set(title="Rule (48), reapplied", xlabel="how often it was applied",
                  ylabel="clients left", yscale="log")  # fmt: skip
        sizes.set(title="The active set", xlabel="number of clients N",
                  ylabel="clients that take part", xscale="log", yscale="log")  # fmt: skip
        for axes in (nodes, steps, sizes):
            axes.legend(loc="best")
    return figure


def judge(values: pd.DataFrame) -> Iterator[Finding]:
    """Test which clients rule (48) removes, and the effect on the others."""
    even = pick(values, reading="even-spread")
    means = pick(even, panel="sizes", x=1000.0).groupby("quantity")["value"].mean()
    yield Finding(
        "rule-48", "once", bool(means["n_once_violating"] == 0),
        f"applied once it leaves {means['n_once']:.4g} of 1,000 clients, of which "
        f"{means['n_once_violating']:.4g} violate it for those who are left",
    )  # fmt: skip
    same = pick(values, panel="steps", quantity="same_set")["value"]
    left = curve(even, panel="steps", quantity="n_left")
    yield Finding(
        "rule-48", "reapplied", bool((same == 1).all()),
        f"clients left: {format_numbers(left)}; the same clients as in the equilibrium, in "
        f"{int(same.sum())} of {len(same)} populations",
    )  # fmt: skip
    for reading in READINGS:
        some = pick(values, reading=reading, panel="nodes")
        yield from _judge_population(reading, some)
        sizes = pick(values, reading=reading, panel="sizes", x=1000.0)
        means = sizes.groupby("quantity")["value"].mean()
        removed = 1000 - means["n_active"]
        yield Finding(
            "excluded-are-outliers", reading,
            bool(removed > 0 and abs(removed - means["n_outliers"]) <= 0.01 * 1000),
            f"of 1,000 clients {means['n_outliers']:.4g} are outliers and {removed:.4g} are "
            f"removed (means of {sizes['replication'].nunique()} draws)",
        )  # fmt: skip
    for reading in SPREADS:
        some = pick(values, panel="spread", reading=reading)
        n, least = (number(some, quantity=name) for name in ("n_active", "least_epsilon"))
        yield Finding(
            "similar-needs", reading, bool(n == 1000 and least > 0),
            f"{n:.0f} of 1,000 clients take part; the least epsilon is {least:.3g} of the mean",
        )  # fmt: skip
    for reading in ("high-cost", "low-cost"):
        change = number(values, panel="outlier", reading=reading, quantity="change")
        yield Finding(
            "outliers-harmless", reading, abs(change) < 0.01,
            f"100 equal clients: epsilon of each changes by {100 * change:+.3g} % when one joins "
            f"whose cost is {'five times' if reading == 'high-cost' else 'a fifth of'} theirs",
        )  # fmt: skip


def _judge_population(reading: str, some: pd.DataFrame) -> Iterator[Finding]:
    highest, ceiling, threshold = (
        number(some, quantity=name) for name in ("highest_active", "ceiling", "threshold")
    )
    yield Finding(
        "ceiling", reading, highest < threshold < ceiling,
        f"highest cost of a client that takes part {highest:.6g} < tau/(n-1) = {threshold:.6g} < "
        f"alpha beta/N = {ceiling:.6g}",
    )  # fmt: skip
    best = number(some, quantity="best_of_excluded")
    yield Finding(
        "high-costs-leave", reading, best < 0,
        f"the best that an excluded client could earn with a positive epsilon: {best:.2g}",
    )  # fmt: skip
    gain = number(some, quantity="gain_alone")
    yield Finding(
        "nash", reading, gain <= 1e-12,
        f"1,000 clients, 200 alternatives each: the most that one gains alone is {gain:.1g}",
    )  # fmt: skip
    of_all, of_active = (number(some, quantity=f"variation_{who}") for who in ("all", "active"))
    yield Finding(
        "similar-selected", reading, of_active < of_all,
        f"coefficient of variation of costs: {of_all:.3g} of all, {of_active:.3g} of those who "
        "take part",
    )  # fmt: skip
    epsilon, paid = (
        pick(some, quantity=name).sort_values("x")["value"] for name in ("epsilon", "payment")
    )
    sells, earns = (bool((np.diff(y) <= 1e-15).all()) for y in (epsilon, paid))
    yield Finding(
        "deviating-earn-less", reading, sells and earns and epsilon.iloc[0] > epsilon.iloc[-1],
        f"in order of cost epsilon falls from {epsilon.iloc[0]:.4g} to {epsilon.iloc[-1]:.4g} and "
        f"the payment from {paid.iloc[0]:.4g} to {paid.iloc[-1]:.4g}",
    )  # fmt: skip


STUDY = Study(
    name="extra-participation",
    title="Who takes part when costs differ",
    setup="Section 6 in numbers; 1,000 clients, and distributions of costs that are ours. The "
    "paper shows no such figure.",
    load=load_readings("extra-participation", READINGS),
    compute=compute,
    draw=draw,
    judge=judge,
)
