"""Figure 16: epsilon as noise, what the printed noise is worth, and what all rounds cost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.optimize import brentq

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.dp import Clipping, multiplier_for_releases, spent_epsilon
from fcfn_abm.report.theme import ARM_COLOURS, ARM_DASHES, ARM_MARKERS, BOUND, STAYS, theme
from fcfn_abm.scenario import Scenario
from fcfn_zhou2023 import fig04
from fcfn_zhou2023.base import (
    Finding,
    Scenarios,
    Setting,
    Study,
    curve,
    listed,
    number,
    pick,
    readings,
    rows,
    scenario_of,
    table,
)
from fcfn_zhou2023.rivals import NAMES, TWO_TYPES

NOISE: dict[str, list[str]] = {
    "printed-round": ["privacy.calibration=classical", "privacy.horizon=round"],
    "exact-round": ["privacy.calibration=analytic", "privacy.horizon=round"],
    "printed-training": ["privacy.calibration=classical", "privacy.horizon=training"],
    "exact-training": ["privacy.calibration=analytic", "privacy.horizon=training"],
}
"""What the noise is calibrated for. The paper's d is sqrt(2 ln(1.25/delta)), the textbook constant:
the printed formula and the "classical" calibration are the same."""
NOISE_NAMES = {
    "printed-round": "printed formula, per round",
    "exact-round": "exact, per round",
    "printed-training": "printed formula, all rounds",
    "exact-training": "exact, all rounds",
}
IMAGES = {"EMNIST": 651_404, "CIFAR-10": 48_000}
"""Training images of the whole data sets, split 8:2."""
FIG4 = "fig4-epsilon"
CLAIMED = {"hundred-nodes": 100, "thousand-nodes": 1000}
"""Readings that claim the equilibrium's epsilon of the market with so many nodes."""
ROUNDED = 10.0
"""An epsilon of one round that the total is told for."""


def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return epsilon and noise of every mechanism, and true privacy of the printed noise."""
    parts = []
    markets = dict(scenarios)
    claimed = {FIG4: float(build.solve_equilibrium(markets.pop(FIG4)).epsilon[0])}
    for reading, scenario in markets.items():
        game, privacy, training = scenario.game, scenario.privacy, scenario.training
        assert training is not None  # noqa: S101 - the scenario has the table
        releases = 1 if privacy.horizon == "round" else training.rounds
        for run in build.list_runs(scenario):
            rho = build.draw_population(run.scenario).rho
            for mechanism in NAMES:
                found = fa.price(mechanism, rho, alpha=game.alpha, beta=game.beta,
                                 budget=game.budget)  # fmt: skip
                at = {"reading": reading, "series": mechanism, "x": rho.size, "x_name": "n_nodes"}
                sold = found.epsilon[found.active]
                z = multiplier_for_releases(sold, privacy.delta, releases, privacy.calibration)
                parts += [
                    rows("epsilon", sold.mean(), panel="economics", **at),
                    rows("noise_multiplier", z.mean(), panel="economics", **at),
                ]
                for data, images in IMAGES.items():
                    moved = Clipping(privacy.clipping_norm).sensitivity(
                        "record", privacy.neighbours, share=rho.size / images
                    )
                    parts.append(rows("noise_std", z.mean() * moved.l2, panel=data, **at))
    market = next(iter(markets.values()))
    economics = pick(table(parts), reading="printed-round", series="stackelberg")
    mean_epsilon = curve(economics, quantity="epsilon")
    claimed |= {name: float(mean_epsilon[n]) for name, n in CLAIMED.items()}
    return table([*parts, *_printed(market.privacy.delta, claimed), *_totals(market)])


def _printed(delta: float, claimed: dict[str, float]) -> list[pd.DataFrame]:
    """Return what the printed noise truly gives, over all epsilons and at those claimed."""

    def excess(claimed: float) -> float:
        noise = fa.gaussian_sigma(claimed, delta, calibration="classical")
        return float(fa.gaussian_epsilon(noise, delta)) - claimed

    parts = []
    points: dict[str, npt.ArrayLike] = {"": np.geomspace(0.1, 200.0, 67), **claimed}
    for reading, epsilon in points.items():
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


def _totals(scenario: Scenario) -> list[pd.DataFrame]:
    """Return what nodes have spent after so many rounds, each with exact noise."""
    delta = scenario.privacy.delta
    rho = next(
        rho
        for run in build.list_runs(scenario)
        if (rho := build.draw_population(run.scenario).rho).size == 100
    )
    assert scenario.training is not None  # noqa: S101 - the scenario has the table
    rounds = np.unique(np.geomspace(1, scenario.training.rounds, 40).astype(int))
    claims = {
        mechanism: float(
            fa.price(mechanism, rho, alpha=scenario.game.alpha,
                     beta=scenario.game.beta, budget=scenario.game.budget).epsilon[0]
        )
        for mechanism in NAMES
    }  # fmt: skip
    return [
        rows(
            "epsilon_total",
            spent_epsilon(fa.gaussian_sigma(epsilon, delta), rounds, delta),
            panel="total", series=series, x=rounds, x_name="round",
        )
        for series, epsilon in {**claims, "ten": ROUNDED}.items()
    ]  # fmt: skip


def draw(values: pd.DataFrame) -> Figure:
    """Draw epsilon, noise on both data sets, what printed noise is worth, and the total."""
    n = sorted(pick(values, panel="economics")["x"].unique())
    plain = FuncFormatter(lambda y, _: f"{y:g}")
    with theme():
        figure = Figure(figsize=(13, 8))
        epsilon, noise, worth, total = figure.subplots(2, 2).ravel()
        for mechanism, name in NAMES.items():
            style = {
                "color": ARM_COLOURS[mechanism], "marker": ARM_MARKERS[mechanism], "markersize": 5,
                "dashes": ARM_DASHES[mechanism] or (None, None),
            }  # fmt: skip
            line = curve(values, panel="economics", reading="printed-round", series=mechanism,
                         quantity="epsilon")  # fmt: skip
            epsilon.plot(line.index, line, label=name, **style)
            for data, alpha in (("EMNIST", 1.0), ("CIFAR-10", 0.5)):
                line = curve(values, panel=data, reading="printed-round", series=mechanism)
                noise.plot(line.index, line, alpha=alpha, label=f"{name}, {data}", **style)
            line = curve(values, panel="total", series=mechanism)
            total.plot(line.index, line, label=f"{name} ({line.iloc[0]:.3g} a round)",
                       **{**style, "marker": ""})  # fmt: skip
        for axes in (epsilon, noise):
            axes.set(xlabel="number of nodes N", xscale="log", yscale="log")
            axes.xaxis.set_major_locator(FixedLocator(n))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(plain)
        epsilon.yaxis.set_major_formatter(plain)
        epsilon.set(title="Epsilon of a node, one round", ylabel="epsilon")
        noise.set(title="Noise on a node's gradient, printed formula",
                  ylabel="standard deviation / clipping norm")  # fmt: skip
        line = curve(values, panel="printed", quantity="true_epsilon")
        worth.plot(line.index, line, color=STAYS, label="true epsilon of the printed noise")
        worth.plot(line.index, line.index, color="0.4", dashes=(4, 2), label="as claimed")
        end = number(values, panel="printed", quantity="too_small_above")
        worth.axvline(end, color=BOUND, dashes=(1, 1), label=f"too little noise above {end:.2g}")
        point = pick(values, panel="claimed", reading=FIG4, quantity="true_epsilon")
        claimed, true = point[["x", "value"]].to_numpy()[0]
        worth.plot([claimed], [true], "o", color=BOUND)
        worth.annotate(f"fig. 4: {claimed:.3g} claimed,\n{true:.0f} true", (claimed, true),
                       xytext=(0.74, 0.2), textcoords="axes fraction", color=BOUND,
                       arrowprops={"arrowstyle": "->", "color": BOUND})  # fmt: skip
        worth.set(title=r"What the printed noise is worth, $\delta = 10^{-5}$", xscale="log",
                  yscale="log", xlabel="claimed epsilon", ylabel="epsilon")  # fmt: skip
        total.set(title="Extra: privacy spent over all rounds, N = 100", xlabel="round",
                  ylabel="total epsilon", xscale="log", yscale="log")  # fmt: skip
        for axes in (worth, total):
            axes.xaxis.set_major_formatter(plain)
            axes.yaxis.set_major_formatter(plain)
        for axes in (epsilon, worth, total):
            axes.legend(loc="best")
        noise.legend(loc="lower right", fontsize="small", ncols=2)
        noise.set_ylim(bottom=3e-8)
    return figure


def judge(values: pd.DataFrame) -> Iterator[Finding]:
    """See who adds less noise, whether the printed noise is private, and what 200 rounds cost."""
    for rival in ("ic-mle", "yang"):
        for reading in LOADED:
            some = pick(values, panel="EMNIST", reading=reading, quantity="noise_std")
            ours, theirs = (curve(some, series=name) for name in ("stackelberg", rival))
            yield Finding(
                f"fig16-{rival}", reading, bool((ours < theirs).all()),
                f"EMNIST, at N = {listed(ours.index)}: ours {listed(ours, 3)}; {NAMES[rival]} "
                f"{listed(theirs, 3)} (noise over clipping norm)",
            )  # fmt: skip
    end, delta = (
        number(values, panel="printed", quantity=name) for name in ("too_small_above", "delta")
    )
    for reading in (FIG4, *CLAIMED):
        some = pick(values, panel="claimed", reading=reading)
        claimed = float(some["x"].iloc[0])
        true, failing = (number(some, quantity=name) for name in ("true_epsilon", "true_delta"))
        yield Finding(
            "fig16-private", reading, failing <= delta,
            f"claimed: epsilon = {claimed:.3g} at delta = {delta:.0e}; true: delta = {failing:.2g} "
            f"at that epsilon, or epsilon = {true:.4g} at that delta; the formula falls short "
            f"above epsilon = {end:.3g}",
        )  # fmt: skip
    ours, ten = (
        curve(values, panel="total", series=series, quantity="epsilon_total")
        for series in ("stackelberg", "ten")
    )
    for reading, last in (("one-round", ours.index[0]), ("all-rounds", ours.index[-1])):
        yield Finding(
            "fig16-total", reading, bool(ours[last] <= ours.iloc[0] * (1 + 1e-9)),
            f"a node that sells {ours.iloc[0]:.3g} a round has spent {ours[last]:.4g} after "
            f"{last:.0f} round{'s' if last > 1 else ''} (a node that sells {ROUNDED:.0f}: "
            f"{ten[last]:.4g})",
        )  # fmt: skip


LOADED = {**NOISE, "two-types": [*NOISE["printed-round"], *TWO_TYPES]}


def load(setting: Setting) -> Scenarios:
    """Return the market under each reading, and that of fig. 4."""
    fig4 = scenario_of("fig04", fig04.READINGS["alpha-1"])
    return {**readings("fig16", LOADED)(setting), FIG4: fig4}


STUDY = Study(
    name="fig16",
    title="Epsilon and noise under three mechanisms",
    setup="The market of figs. 13 to 15 with up to 1,000 nodes; noise of one release a round on "
    "images dealt out evenly, delta = 1e-5; the set-up is reconstructed. The total is an extra.",
    load=load,
    compute=compute,
    draw=draw,
    judge=judge,
)
