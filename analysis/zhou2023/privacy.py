"""Extra: what the printed noise (2) protects, what 200 rounds cost, and what linear prices do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from scipy.optimize import brentq

import fcfn_abm as fa
from fcfn_abm.dp import spent_epsilon
from fcfn_abm.report.theme import ARM_COLOURS, ARM_DASHES, BOUND, STAYS, theme
from fcfn_zhou2023.base import (
    Finding,
    Scenarios,
    Setting,
    Study,
    curve,
    load_readings,
    number,
    pick,
    rows,
    table,
)
from fcfn_zhou2023.methods import NAMES, THREE, costs_of
from fcfn_zhou2023.noise import compute_sold_epsilon

FIG4 = "epsilon-98"
CLAIMED = {"epsilon-0.999": 0.999, "epsilon-5": 5.0, "epsilon-10": 10.0, FIG4: 98.0}
"""Readings of (2) by the epsilon that is claimed: figs. 16 (N = 1000), 13, 13 and 4."""
ROUNDED = 10.0
"""An epsilon of one round whose total is shown besides."""
N_ROUNDS = 200
PURCHASES = np.array([1, 2, 5, 10, 100])


def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return the true privacy of the noise, the total of all rounds, and split purchases."""
    scenario = scenarios["as-printed"]
    delta, game = scenario.privacy.delta, scenario.game
    rounds = np.unique(np.geomspace(1, N_ROUNDS, 40).astype(int))
    rho = costs_of(scenario, 100)
    sold = {
        method: float(
            compute_sold_epsilon(method, rho, game.alpha, game.beta, game.budget or 0.0).mean()
        )
        for method in THREE
    }
    totals = [
        rows("epsilon_total", spent_epsilon(fa.gaussian_sigma(epsilon, delta), rounds, delta),
             panel="total", series=series, x=rounds, x_name="round")
        for series, epsilon in {**sold, "ten": ROUNDED}.items()
    ]  # fmt: skip
    # an average of k releases of epsilon / k, which cost the same together
    split = [
        fa.gaussian_sigma(ROUNDED / k, delta, calibration="classical") / np.sqrt(k)
        for k in PURCHASES
    ]
    return table([
        *_test_noise(delta), *totals,
        rows("noise_std", split, panel="arbitrage", x=PURCHASES, x_name="purchases"),
    ])  # fmt: skip


def _test_noise(delta: float) -> list[pd.DataFrame]:
    """Return the true privacy of the printed noise, over all epsilons and at the claimed ones."""

    def excess(claimed: float) -> float:
        noise = fa.gaussian_sigma(claimed, delta, calibration="classical")
        return float(fa.gaussian_epsilon(noise, delta)) - claimed

    parts = []
    grids = {"": np.geomspace(0.1, 200.0, 67)} | {r: np.array([e]) for r, e in CLAIMED.items()}
    for reading, epsilon in grids.items():
        sigma = fa.gaussian_sigma(epsilon, delta, calibration="classical")
        at = {"panel": "claimed" if reading else "printed", "reading": reading, "x": epsilon,
              "x_name": "epsilon"}  # fmt: skip
        parts += [
            rows("true_epsilon", fa.gaussian_epsilon(sigma, delta), **at),
            rows("true_delta", fa.gaussian_delta(epsilon, sigma), **at),
        ]
    return [
        *parts,
        rows("too_small_above", brentq(excess, 1.0, 50.0), panel="printed"),
        rows("delta", delta, panel="printed"),
    ]


def draw(values: pd.DataFrame) -> Figure:
    """Draw the true epsilon of the printed noise, and the total of all rounds."""
    plain = FuncFormatter(lambda y, _: f"{y:g}")
    with theme():
        figure = Figure(figsize=(11.5, 4.4))
        true, total = figure.subplots(1, 2)
        line = curve(values, panel="printed", quantity="true_epsilon")
        true.plot(line.index, line, color=STAYS, label="true ε of the noise")
        true.plot(line.index, line.index, color="0.4", dashes=(4, 2), label="ε as claimed")
        end = number(values, panel="printed", quantity="too_small_above")
        true.axvline(end, color=BOUND, dashes=(1, 1), label=f"too little noise above {end:.2g}")
        point = pick(values, panel="claimed", reading=FIG4, quantity="true_epsilon")
        claimed, found = point[["x", "value"]].to_numpy()[0]
        true.plot([claimed], [found], "o", color=BOUND)
        true.annotate(f"fig. 4: {claimed:.3g} claimed,\n{found:.0f} true", (claimed, found),
                      xytext=(0.72, 0.16), textcoords="axes fraction", color=BOUND,
                      arrowprops={"arrowstyle": "->", "color": BOUND})  # fmt: skip
        true.set(title="Extra: noise by (2), δ = 1e-5", xlabel="claimed ε", ylabel="ε")
        for method in THREE:
            line = curve(values, panel="total", series=method)
            under = {"linewidth": 4, "alpha": 0.5} if method == "stackelberg" else {}
            total.plot(line.index, line, color=ARM_COLOURS[method], **under,
                       dashes=ARM_DASHES[method] or (None, None),
                       label=f"{NAMES[method]} ({line.iloc[0]:.3g} a round)")  # fmt: skip
        total.set(title="Privacy spent over all rounds, N = 100", xlabel="round",
                  ylabel="total ε")  # fmt: skip
        for axes in (true, total):
            axes.set(xscale="log", yscale="log")
            axes.xaxis.set_major_formatter(plain)
            axes.yaxis.set_major_formatter(plain)
            axes.legend(loc="upper left")
    return figure


def judge(values: pd.DataFrame) -> Iterator[Finding]:
    """Test where the printed noise is private, the total of 200 rounds, and split purchases."""
    end, delta = (
        number(values, panel="printed", quantity=name) for name in ("too_small_above", "delta")
    )
    line = pick(values, panel="printed", quantity="true_delta")
    below = line[line["x"] < 1]["value"]
    yield Finding(
        "noise-formula", "below-one", bool((below <= delta).all() and len(below) > 5),
        f"at {len(below)} epsilons below 1 the true delta is at most {below.max():.2g}; delta = "
        f"{delta:.0e}",
    )  # fmt: skip
    for reading in CLAIMED:
        some = pick(values, panel="claimed", reading=reading)
        claimed = float(some["x"].iloc[0])
        true, failing = (number(some, quantity=name) for name in ("true_epsilon", "true_delta"))
        yield Finding(
            "noise-formula", reading, failing <= delta,
            f"claimed: epsilon = {claimed:.3g} at delta = {delta:.0e}; true: delta = {failing:.2g} "
            f"at that epsilon, or epsilon = {true:.4g} at that delta; too little noise above "
            f"epsilon = {end:.3g}",
        )  # fmt: skip
    ours, ten = (
        curve(values, panel="total", series=series, quantity="epsilon_total")
        for series in ("stackelberg", "ten")
    )
    for reading, last in (("one-round", ours.index[0]), ("all-rounds", ours.index[-1])):
        yield Finding(
            "composition", reading, bool(ours[last] <= ours.iloc[0] * (1 + 1e-9)),
            f"a client that sells {ours.iloc[0]:.3g} a round has spent {ours[last]:.4g} after "
            f"{last:.0f} round{'s' if last > 1 else ''} (one that sells {ROUNDED:.0f}: "
            f"{ten[last]:.4g})",
        )  # fmt: skip
    split = curve(values, panel="arbitrage", quantity="noise_std")
    yield Finding(
        "arbitrage", "as-printed", bool((split.iloc[1:] > split.iloc[0]).all()),
        "noise of an average of 1, 2, 5, 10, 100 purchases that cost the same together: "
        + ", ".join(f"{value:.3g}" for value in split),
    )  # fmt: skip


STUDY = Study(
    name="extra-privacy",
    title="What the printed noise protects",
    setup="Delta = 1e-5 (the paper states none), sensitivity 1, neighbours differ in one record "
    "added or removed. The paper states (2) for epsilon below 1, and uses 5, 10 and 98.",
    load=load_readings("fig16", {"as-printed": []}),
    compute=compute,
    draw=draw,
    judge=judge,
)
