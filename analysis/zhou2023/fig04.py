"""Figure 4: a node's utility against its own epsilon, and the server's against its cap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import brentq, minimize_scalar

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.report.theme import BOUND, LEAVES, STAYS, theme
from fcfn_abm.scenario import Scenario
from fcfn_zhou2023.base import (
    MONEY,
    Finding,
    Floats,
    Scenarios,
    Setting,
    Study,
    number,
    pick,
    readings,
    rows,
    table,
)
from fcfn_zhou2023.claims import expected

READINGS = {"alpha-1": ["game.alpha=1.0"], "alpha-10": ["game.alpha=10.0"]}


def own_utility(own: float, others: Floats, rho: Floats, budget: float) -> float:
    """Return what the first node earns with an epsilon of its own while the others stand still."""
    return float(fa.node_utility(np.append(own, others), rho, budget)[0])


def server_utility_at(budget: float, rho: Floats, scenario: Scenario) -> float:
    """Return what the server earns if the nodes answer a cap with their equilibrium."""
    game = scenario.game
    answer = fa.nash_equilibrium(rho, budget)
    mean = answer.total_epsilon / answer.n_active if answer.n_active else 0.0
    return fa.server_utility(mean, game.alpha, game.beta, budget)


def equal_answer(rho: Floats, budget: float) -> float:
    """Return the epsilon of equal nodes from which none gains by a small step alone, by search."""
    step = 1e-3

    def gain(epsilon: float) -> float:
        others = np.full(rho.size - 1, epsilon)
        up, down = (own_profit(epsilon * f, others, rho, budget) for f in (1 + step, 1 - step))
        return up - down

    all_spent = budget / rho.sum()
    return float(brentq(gain, 1e-6 * all_spent, all_spent, xtol=1e-15, rtol=1e-14))


def own_profit(own: float, others: Floats, rho: Floats, budget: float) -> float:
    """Return what the first node is paid, less what its privacy costs it."""
    return float(fa.payments(np.append(own, others), budget)[0] - rho[0] * own)


def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Return both curves, the closed form, and what brute force finds in its place."""
    parts = []
    for reading, scenario in scenarios.items():
        rho = build.draw_population(scenario).rho
        form = build.solve_equilibrium(scenario, rho)
        others, best, at = form.epsilon[1:], form.epsilon[0], {"reading": reading}

        def own(
            e: float, others: Floats = others, rho: Floats = rho, b: float = form.budget
        ) -> float:
            return own_utility(e, others, rho, b)

        server = partial(server_utility_at, rho=rho, scenario=scenario)

        cap = _highest(server, 3 * form.budget)
        equal = equal_answer(rho, cap)
        earned = own_profit(equal, np.full(rho.size - 1, equal), rho, cap)
        epsilon = np.linspace(0.0, 2.4 * best, 241)
        budget = np.linspace(0.0, 2.4 * form.budget, 241)
        parts += [
            rows("node_utility", [own(e) for e in epsilon], panel="node", x_name="epsilon",
                 x=epsilon, unit=MONEY, **at),
            rows("server_utility", [server(b) for b in budget], panel="server", x_name="budget",
                 x=budget, unit=MONEY, **at),
            rows("budget", form.budget, panel="closed form", unit=MONEY, **at),
            rows("epsilon", best, panel="closed form", **at),
            rows("node_utility", form.utility[0], panel="closed form", unit=MONEY, **at),
            rows("budget", cap, panel="brute force", unit=MONEY, **at),
            rows("node_utility", earned, panel="brute force", unit=MONEY, **at),
            rows("epsilon", _highest(own, 3 * best), panel="brute force", **at),
            rows("break_even", brentq(own, 1.2 * best, 5 * best, xtol=1e-11), panel="brute force",
                 **at),
        ]  # fmt: skip
    return table(parts)


def _highest(function: Callable[[float], float], upper: float) -> float:
    """Return where a function is highest, by search alone."""
    found = minimize_scalar(
        lambda x: -function(x), bounds=(0.0, upper), method="bounded", options={"xatol": 1e-9}
    )
    return float(found.x)


def draw(values: pd.DataFrame) -> Figure:
    """Draw both curves as the printed numbers have them, alpha = 1, and beside it alpha = 10."""
    with theme():
        figure = Figure(figsize=(11, 4.2))
        node, server = figure.subplots(1, 2)
        for reading, colour, dashes in (("alpha-1", STAYS, ()), ("alpha-10", LEAVES, (4, 1.5))):
            some = pick(values, reading=reading)
            label = reading.replace("-", " = ")
            for axes, panel in ((node, "node"), (server, "server")):
                line = pick(some, panel=panel)
                axes.plot(line["x"], line["value"], color=colour, dashes=dashes or (None, None),
                          label=label)  # fmt: skip
        some = pick(values, reading="alpha-1")
        best, zero = (
            number(some, panel="brute force", quantity=name) for name in ("epsilon", "break_even")
        )
        _mark(node, best, number(some, panel="closed form", quantity="node_utility"),
              f"$\\epsilon^*$ = {best:.4g}", (0, -26))  # fmt: skip
        _mark(node, zero, 0.0, f"zero at {zero:.4g}", (34, 8))
        cap = number(some, panel="closed form", quantity="budget")
        _mark(server, cap, pick(some, panel="server")["value"].max(), f"B* = {cap:.4g}", (0, -24))
        node.axhline(0, color="0.2", linewidth=0.8)
        node.set(title="A node's utility", xlabel="its own epsilon, the others at equilibrium",
                 ylabel="utility (currency)", ylim=(-7e-4, 1.25e-3), xlim=(-10, 270))  # fmt: skip
        server.set(title="The server's utility", xlabel="cap B (currency)",
                   ylabel="utility (currency)")  # fmt: skip
        node.legend(loc="lower left")
        server.legend(loc="lower right")
    return figure


def _mark(axes: Axes, x: float, y: float, text: str, offset: tuple[float, float]) -> None:
    axes.plot([x], [y], "o", color=BOUND, zorder=4)
    axes.annotate(text, (x, y), xytext=offset, textcoords="offset points", ha="center", color=BOUND)


def judge(values: pd.DataFrame) -> Iterator[Finding]:
    """Compare with the printed numbers."""
    for reading in READINGS:
        some = pick(values, reading=reading)
        found = {
            name: number(some, panel="brute force", quantity=name)
            for name in ("budget", "epsilon", "break_even", "node_utility")
        }
        for claim, names in (
            ("fig4-equilibrium", ("budget", "epsilon")),
            ("fig4-break-even", ("break_even",)),
            ("fig4-utility", ("node_utility",)),
        ):
            printed = expected(claim)
            holds = all(abs(found[n] / float(printed[n]) - 1) < 1e-6 for n in names)
            yield Finding(claim, reading, holds, "; ".join(
                f"{n.replace('_', ' ')}: found {found[n]:.7g}, expected {_said(printed[n])}"
                for n in names
            ))  # fmt: skip
        curve = pick(some, panel="node").set_index("x")["value"]
        peak = float(curve.index[int(curve.argmax())])
        rising = curve[curve.index <= peak].is_monotonic_increasing
        falling = curve[curve.index >= peak].is_monotonic_decreasing
        holds = rising and falling and abs(peak / found["epsilon"] - 1) < 0.011
        yield Finding(
            "fig4-peak", reading, bool(holds),
            f"of {len(curve)} epsilons the best is {peak:.4g}; utility rises up to it and falls "
            f"from there; the closed form has "
            f"{number(some, panel='closed form', quantity='epsilon'):.4g}",
        )  # fmt: skip


def _said(value: Fraction) -> str:
    return f"{value} = {float(value):.7g}" if value.denominator > 1 else str(value)


STUDY = Study(
    name="fig4",
    title="Around the equilibrium of 100 equal nodes",
    setup="N = 100, rho = 0.001 and beta = 10 are the paper's; alpha is not stated.",
    load=readings("fig04", READINGS),
    compute=compute,
    draw=draw,
    judge=judge,
)
