"""Figure 16: epsilon at equilibrium and the noise that goes with it, under three methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

import fcfn_abm as fa
from fcfn_abm.report.theme import ARM_COLOURS, theme
from fcfn_zhou2023.base import (
    Finding,
    Floats,
    Scenarios,
    Setting,
    Study,
    format_numbers,
    number,
    pick,
    rows,
    table,
)
from fcfn_zhou2023.methods import (
    NAMES,
    STATIC,
    THREE,
    TYPES,
    costs_of,
    load_figure,
    solve_yang,
)

READINGS = {"n-10": 10, "n-100": 100, "n-1000": 1000, "two-types": 100}
LABELS = {"n-10": "N = 10", "n-100": "N = 100", "n-1000": "N = 1000",
          "two-types": "two types,\nN = 100"}  # fmt: skip
CALIBRATIONS: tuple[Literal["classical", "analytic"], ...] = ("classical", "analytic")
FAR = 2.0
"""Smallest ratio that counts as far larger."""


def compute_sold_epsilon(
    method: str, rho: Floats, alpha: float, beta: float, budget: float
) -> Floats:
    """Return the epsilon of the active clients under a method."""
    if method == "yang":
        sold = solve_yang(rho, alpha)
        assert sold is not None  # noqa: S101 - there is a solution at these numbers
        return sold.epsilon
    found = fa.price(method, rho, alpha=alpha, beta=beta, budget=budget)
    return found.epsilon[found.active]


def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return epsilon and noise for each data set, reading and method."""
    parts = []
    for data, scenario in scenarios.items():
        game, delta = scenario.game, scenario.privacy.delta
        for reading, n in READINGS.items():
            rho = costs_of(scenario, n, two_types=reading == "two-types")
            for method in THREE:
                sold = compute_sold_epsilon(method, rho, game.alpha, game.beta, game.budget or 0.0)
                at = {"panel": data, "reading": reading, "series": method}
                parts.append(rows("epsilon", sold.mean(), **at))
                parts.append(rows("n_active", sold.size, unit="nodes", **at))
                for calibration in CALIBRATIONS:
                    sigma = fa.gaussian_sigma(sold, delta, calibration=calibration)
                    parts.append(rows(f"noise_std_{calibration}", np.mean(sigma), **at))
        costs = costs_of(scenario, 100, two_types=True)
        parts += _gain_by_lying(scenario.game.budget or 0.0, costs, data)
    return table(parts)


def _gain_by_lying(budget: float, rho: Floats, data: str) -> list[pd.DataFrame]:
    """Return a client's gain from taking the other type's contract, in two readings of (56).

    As extracted, p_k - c_k eps_k >= p_k' - c_k eps_k for both types makes the payments equal, and
    the most epsilon that (55) allows is then p / c_k.
    """
    found = fa.price("ic-mle", rho, alpha=1.0, beta=1.0, budget=budget)
    first = [int(np.flatnonzero(rho == cost)[0]) for cost in TYPES]
    cost, equal = np.array(TYPES), budget / rho.size
    contracts = {
        "as-extracted": (np.full(2, equal), equal / cost),
        "prime-on-both": (found.payment[first], found.epsilon[first]),
    }
    return [
        rows("gain_by_lying", ((paid[::-1] - cost * epsilon[::-1]) - (paid - cost * epsilon)).max(),
             panel=data, reading=reading, series="ic-mle", unit="currency")
        for reading, (paid, epsilon) in contracts.items()
    ]  # fmt: skip


def draw(values: pd.DataFrame) -> Figure:
    """Draw epsilon and noise of the three methods, a group of bars for each reading."""
    plain = FuncFormatter(lambda y, _: f"{y:g}")
    with theme():
        figure = Figure(figsize=(13, 7.4))
        grid = figure.subplots(2, 2, sharey="col")
        for line, data in zip(grid, STATIC, strict=True):
            for axes, quantity, title in zip(
                line, ("epsilon", "noise_std_classical"),
                ("Fig. 16: ε at equilibrium", "Noise standard deviation, paper's formula"),
                strict=True,
            ):  # fmt: skip
                for place, method in enumerate(THREE):
                    heights = [
                        number(values, panel=data, reading=reading, series=method,
                               quantity=quantity)
                        for reading in READINGS
                    ]  # fmt: skip
                    at = np.arange(len(READINGS)) + 0.27 * (place - 1)
                    bars = axes.bar(at, heights, 0.27, color=ARM_COLOURS[method],
                                    label=NAMES[method])  # fmt: skip
                    axes.bar_label(
                        bars,
                        [f"{h:.{2 if h < 0.1 else 3}g}" for h in heights],
                        padding=2,
                        fontsize=8,
                    )
                axes.set_xticks(range(len(READINGS)), list(LABELS.values()))
                axes.set(yscale="log", title=f"{title}, {data}")
                axes.grid(visible=False, axis="x")
                axes.yaxis.set_major_formatter(plain)
            line[0].set_ylabel("mean ε of those who take part")
            line[1].set_ylabel(r"$\sigma$ / sensitivity, $\delta$ = 1e-5")
        grid[0, 0].legend(loc="upper right")
        grid[0, 0].set_ylim(0.4, 400)
        grid[0, 1].set_ylim(0.03, 20)
    return figure


def judge(values: pd.DataFrame) -> Iterator[Finding]:
    """Test whether ours has far more epsilon and less noise than the others."""
    for other in ("ic-mle", "yang"):
        for reading in READINGS:
            some = pick(values, reading=reading)
            for claim, quantity in (("epsilon", "epsilon"), ("noise", "noise_std_classical")):
                holds, described = [], []
                for data in STATIC:
                    ours, theirs = (
                        number(some, panel=data, series=name, quantity=quantity)
                        for name in ("stackelberg", other)
                    )
                    holds.append(ours >= FAR * theirs if claim == "epsilon" else ours < theirs)
                    described.append(f"{data}: ours {ours:.4g}, theirs {theirs:.4g}")
                yield Finding(f"fig16-{claim}-{other}", reading, all(holds), "; ".join(described))
    for reading in ("as-extracted", "prime-on-both"):
        gain = pick(values, quantity="gain_by_lying", reading=reading)["value"]
        yield Finding(
            "contracts-honest", reading, bool((gain <= 1e-12).all()),
            f"N = 100, costs {format_numbers(TYPES)}: the most that a client gains by taking the "
            f"other contract: {format_numbers(gain, 3)} (EMNIST, CIFAR-10)",
        )  # fmt: skip


STUDY = Study(
    name="fig16",
    title="Epsilon and noise under three methods",
    setup="EMNIST: alpha = beta = 10, B = 1, rho = 0.001; CIFAR-10: 20, 20, 2, 0.003. The paper "
    "does not state N, delta (1e-5 here), nor the sensitivity (1 here): these two scale all "
    "noise alike. Two types: costs of 0.001 and 0.003, half of the clients each.",
    load=load_figure("fig16"),
    compute=compute,
    draw=draw,
    judge=judge,
)
