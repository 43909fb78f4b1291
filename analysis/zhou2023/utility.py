"""Figures 4 and 5: the utility of a client against its epsilon, of the server against its cap."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import brentq, minimize_scalar

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.report.theme import BOUND, LEAVES, STAYS, theme
from fcfn_zhou2023.base import (
    MONEY,
    Finding,
    Floats,
    Scenarios,
    Setting,
    Study,
    format_numbers,
    load_readings,
    number,
    pick,
    rows,
    table,
)
from fcfn_zhou2023.claims import expected

FIG4 = {
    "alpha-1": ["game.alpha=1.0", "game.beta=10.0"],
    "alpha-10": ["game.alpha=10.0", f"game.beta={981 / 99!r}"],
    "both-10": ["game.alpha=10.0", "game.beta=10.0"],
}
FIG4_LABELS = {
    "alpha-1": r"$\alpha$ = 1, $\beta$ = 10",
    "alpha-10": r"$\alpha$ = 10, $\beta$ = 981/99",
    "both-10": r"$\alpha = \beta$ = 10",
}
FIG5 = {f"n-{n}": [f"population.n_nodes={n}"] for n in (10, 100, 1000)}
STYLES = ((STAYS, (None, None)), (BOUND, (5, 2)), (LEAVES, (1, 1)))


def own_utility(own: float | Floats, others: float, rho: float, budget: float) -> Floats:
    """Return a client's utility (6) for its own epsilon, with the others' sum fixed."""
    own = np.asarray(own, dtype=float)
    return np.asarray(budget * own / (own + others) - rho * own)


def search_highest(function: Callable[[float], float], upper: float) -> float:
    """Return the maximiser of a function, found by search."""
    found = minimize_scalar(
        lambda x: -function(x), bounds=(0.0, upper), method="bounded", options={"xatol": 1e-10}
    )
    return float(found.x)


def answer_equally(n: int, rho: float, budget: float) -> float:
    """Return by search the epsilon of equal clients at which none gains from a small deviation."""
    step = 1e-3

    def gain(epsilon: float) -> float:
        others = (n - 1) * epsilon
        up, down = (own_utility(f * epsilon, others, rho, budget) for f in (1 + step, 1 - step))
        return float(up - down)

    all_spent = budget / (n * rho)
    return float(brentq(gain, 1e-6 * all_spent, all_spent, xtol=1e-15, rtol=1e-14))


def server_utility_at(budget: float, n: int, rho: float, alpha: float, beta: float) -> float:
    """Return the server's utility (10) when equal clients respond to a cap, by search."""
    epsilon = answer_equally(n, rho, budget) if budget > 0 else 0.0
    return beta * float(np.log1p(alpha * epsilon)) - budget


def compute_client(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return the curve, the closed form, and what a search finds without it."""
    parts = []
    for reading, scenario in scenarios.items():
        costs, game = build.draw_population(scenario).rho, scenario.game
        n, rho, at = costs.size, float(costs[0]), {"reading": reading}
        form = build.solve_equilibrium(scenario, costs)
        best, cap = float(form.epsilon[0]), form.budget
        others = (n - 1) * best
        zero = cap / rho - others
        epsilon = np.unique(np.append(np.linspace(0.0, zero, 198), best))
        along = {"panel": "", "x_name": "epsilon", "x": epsilon, "unit": MONEY, **at}
        parts += [
            rows("node_utility", own_utility(epsilon, others, rho, cap), **along),
            rows("payment", cap * epsilon / (epsilon + others), **along),
            rows("budget", cap, panel="closed form", unit=MONEY, **at),
            rows("epsilon", best, panel="closed form", **at),
            rows("node_utility", form.utility[0], panel="closed form", unit=MONEY, **at),
            rows("zero_at", zero, panel="closed form", **at),
        ]
        found_cap = search_highest(
            lambda b: server_utility_at(b, n, rho, game.alpha, game.beta),  # noqa: B023
            3 * cap,
        )
        found = answer_equally(n, rho, cap)

        def own(e: float, s: float = (n - 1) * found, rho: float = rho, cap: float = cap) -> float:
            return float(own_utility(e, s, rho, cap))

        parts += [
            rows("budget", found_cap, panel="search", unit=MONEY, **at),
            rows("epsilon", search_highest(own, 3 * best), panel="search", **at),
            rows("node_utility", own(found), panel="search", unit=MONEY, **at),
            rows("zero_at", brentq(own, 1.2 * best, 5 * best, xtol=1e-11), panel="search", **at),
        ]
        if reading == "alpha-1":
            parts += _find_zeros(best, n, rho, cap)
    return table(parts)


def _find_zeros(best: float, n: int, rho: float, cap: float) -> list[pd.DataFrame]:
    """Return by search the epsilon from which a client loses, for decreasing sales of others."""
    shares = np.array([1.0, 0.5, 0.1, 1e-2, 1e-4, 1e-6])
    zeros = [
        brentq(
            lambda e, s=share * (n - 1) * best: float(own_utility(e, s, rho, cap)),
            np.sqrt(cap * share * (n - 1) * best / rho) - share * (n - 1) * best,
            1.01 * cap / rho,
            xtol=1e-10,
        )
        for share in shares
    ]
    return [
        rows("zero_at", zeros, panel="bound", reading="alpha-1", x=shares, x_name="others_share"),
        rows("bound", cap / rho, panel="bound", reading="alpha-1"),
    ]


def draw_client(values: pd.DataFrame) -> Figure:
    """Draw a client's utility up to where it is zero, and beside it the bound (52)."""
    with theme():
        figure = Figure(figsize=(11, 4.3))
        axes, bound = figure.subplots(1, 2, width_ratios=(1.5, 1))
        for (reading, label), (colour, dashes) in zip(FIG4_LABELS.items(), STYLES, strict=True):
            line = pick(values, reading=reading, panel="", quantity="node_utility")
            axes.plot(line["x"], line["value"], color=colour, dashes=dashes, label=label,
                      linewidth=4 if reading == "alpha-1" else 1.8,
                      alpha=0.45 if reading == "alpha-1" else 1)  # fmt: skip
        form = pick(values, reading="alpha-1", panel="closed form")
        best, top, zero = (
            number(form, quantity=name) for name in ("epsilon", "node_utility", "zero_at")
        )
        _mark(axes, best, top, f"ε* = {best:.4g}\nU* = {top:.4g}", (0, -42))
        _mark(axes, zero, 0.0, f"zero at {zero:.6g}", (-70, 10))
        axes.axhline(0, color="0.2", linewidth=0.8)
        axes.set(title="Fig. 4: a client's utility", xlabel="its own ε, all others at ε*",
                 ylabel="utility $U_{C,i}$ (currency)", ylim=(-1e-4, 1.2e-3))  # fmt: skip
        axes.legend(loc="upper right")
        line = pick(values, panel="bound", quantity="zero_at")
        limit = number(values, panel="bound", quantity="bound")
        bound.plot(line["x"], line["value"], "o-", color=STAYS, label="a client loses above")
        bound.axhline(limit, color=BOUND, dashes=(4, 2), label=rf"B/$\rho$ = {limit:.6g}")
        bound.set(title="Extra: the bound (52)", xlabel="others' ε, share of the equilibrium",
                  ylabel="ε", xscale="log", ylim=(0, 1.25 * limit))  # fmt: skip
        bound.legend(loc="lower left")
    return figure


def _mark(axes: Axes, x: float, y: float, text: str, offset: tuple[float, float]) -> None:
    axes.plot([x], [y], "o", color=BOUND, zorder=4)
    axes.annotate(text, (x, y), xytext=offset, textcoords="offset points", ha="center", color=BOUND)


def judge_client(values: pd.DataFrame) -> Iterator[Finding]:
    """Compare with the printed numbers, and test the shape of the curve and the bound."""
    printed = {**expected("fig4-numbers"), **expected("client-utility")}
    for reading in FIG4:
        some = pick(values, reading=reading, panel="search")
        found = {name: number(some, quantity=name) for name in printed}
        for claim in ("fig4-numbers", "client-utility"):
            names = list(expected(claim))
            holds = all(abs(found[n] / float(printed[n]) - 1) < 1e-6 for n in names)
            yield Finding(claim, reading, holds, "; ".join(
                f"{n.replace('_', ' ')}: found {found[n]:.7g}, printed or implied {printed[n]}"
                for n in names
            ))  # fmt: skip
    some = pick(values, reading="alpha-1")
    line = pick(some, panel="", quantity="node_utility").set_index("x")["value"]
    best = number(some, panel="closed form", quantity="epsilon")
    yield judge_peak("fig4-shape", "alpha-1", line, best, "epsilons")
    slope = np.diff(line) / np.diff(line.index)
    yield Finding(
        "client-concave", "alpha-1", bool((np.diff(slope) < 0).all()),
        f"slopes fall at all {len(slope)} steps, from {slope[0]:.3g} to {slope[-1]:.3g}; "
        "by (17) and (21) they go from B/s - rho > 0 to -rho",
    )  # fmt: skip
    paid = pick(some, panel="", quantity="payment")["value"]
    yield Finding(
        "larger-earns-more", "alpha-1", bool((np.diff(paid) > 0).all()),
        f"the payment rises at all {len(paid) - 1} steps, up to {paid.max():.4g}",
    )  # fmt: skip
    zeros = pick(values, panel="bound", quantity="zero_at")["value"]
    limit = number(values, panel="bound", quantity="bound")
    yield Finding(
        "fig4-bound", "alpha-1",
        bool((zeros < limit).all() and zeros.is_monotonic_increasing
             and 0 < 1 - zeros.iloc[-1] / limit < 1e-5),
        f"B/rho = {limit:.8g}; a client loses from {format_numbers(zeros, 6)} on where the others "
        "sell 1, 0.5, 0.1, 0.01, 1e-4, 1e-6 of their equilibrium",
    )  # fmt: skip


def judge_peak(claim: str, reading: str, line: pd.Series[float], best: float, of: str) -> Finding:
    """Test whether a curve rises to a single optimum, then falls, and is concave."""
    peak = float(line.index[int(line.argmax())])
    rises = line[line.index <= peak].is_monotonic_increasing
    falls = line[line.index >= peak].is_monotonic_decreasing
    slope = np.diff(line) / np.diff(line.index)
    concave = bool((np.diff(slope) < 0).all())
    holds = bool(rises and falls and concave and abs(peak / best - 1) < 1e-9)
    return Finding(
        claim, reading, holds,
        f"of {len(line)} {of} up to {line.index[-1]:.6g} the best is {peak:.6g} (closed form "
        f"{best:.6g}); rises to it: {'yes' if rises else 'no'}; falls from it: "
        f"{'yes' if falls else 'no'}; concave: {'yes' if concave else 'no'}",
    )  # fmt: skip


def compute_server(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return the server's utility under every cap, for several numbers of clients."""
    parts = []
    for reading, scenario in scenarios.items():
        rho, game = build.draw_population(scenario).rho, scenario.game
        form = build.solve_equilibrium(scenario, rho)
        axis = [float(run.point["game.budget"]) for run in build.list_runs(scenario)]
        caps = np.unique([0.0, *axis, form.budget])
        utility = [
            fa.server_utility(
                fa.nash_equilibrium(rho, cap).total_epsilon / rho.size, game.alpha, game.beta, cap
            ) if cap > 0 else 0.0
            for cap in caps
        ]  # fmt: skip
        at = {"reading": reading, "unit": MONEY}
        parts += [
            rows("server_utility", utility, x=caps, x_name="budget", **at),
            rows("budget", form.budget, panel="closed form", **at),
            rows("server_utility", form.server_utility, panel="closed form", **at),
        ]
    return table(parts)


def draw_server(values: pd.DataFrame) -> Figure:
    """Draw the server's utility against its cap, a curve for each number of clients."""
    with theme():
        figure = Figure(figsize=(7, 4.3))
        axes = figure.subplots()
        for reading, (colour, dashes) in zip(FIG5, STYLES[::-1], strict=True):
            some = pick(values, reading=reading)
            line = pick(some, panel="")
            n = reading.removeprefix("n-")
            axes.plot(line["x"], line["value"], color=colour, dashes=dashes, label=f"N = {n}")
            best, top = (
                number(some, panel="closed form", quantity=name)
                for name in ("budget", "server_utility")
            )
            axes.plot([best], [top], "o", color=colour)
            axes.annotate(f"B* = {best:.4g}, U* = {top:.4g}", (best, top), xytext=(8, 4),
                          textcoords="offset points", color=colour, fontsize="small")  # fmt: skip
        axes.axhline(0, color="0.2", linewidth=0.8)
        axes.set(title="Fig. 5: the server's utility", xlabel="payment cap B (currency)",
                 ylabel="utility $U_S$ (currency)")  # fmt: skip
        axes.legend(loc="lower left")
    return figure


def judge_server(values: pd.DataFrame) -> Iterator[Finding]:
    """Test whether the curve has a single optimum, at B*."""
    for reading in FIG5:
        some = pick(values, reading=reading)
        line = pick(some, panel="").set_index("x")["value"]
        best = number(some, panel="closed form", quantity="budget")
        yield judge_peak("fig5-shape", reading, line, best, "caps")


STUDIES = (
    Study(
        name="fig4",
        title="A client's utility against its own epsilon",
        setup="The paper states rho = 0.001, B* = 980/99, epsilon* = 98 and the zero at 19502/99, "
        "which fix N = 100. It states neither N nor alpha nor beta; three readings of the last "
        "two. The bound is an extra panel.",
        load=load_readings("fig04", FIG4),
        compute=compute_client,
        draw=draw_client,
        judge=judge_client,
    ),
    Study(
        name="fig5",
        title="The server's utility against its payment cap",
        setup="The paper states alpha = beta = 10, rho = 0.01; clients answer each cap with their "
        "equilibrium. It states neither N nor the range of B.",
        load=load_readings("fig05", FIG5),
        compute=compute_server,
        draw=draw_server,
        judge=judge_server,
    ),
)
