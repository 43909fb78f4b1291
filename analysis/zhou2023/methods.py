"""The five methods of section 7.4 in the markets of EMNIST and CIFAR-10."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

import fcfn_abm as fa
from fcfn_abm.mechanisms import Outcome
from fcfn_abm.mechanisms.yang_equations import Purchases, solve_yang_equations
from fcfn_abm.scenario import Scenario
from fcfn_zhou2023.base import Floats, Scenarios, Setting, scenario_of

NAMES = {
    "stackelberg": "ours",
    "yang": "Yang et al.",
    "ic-mle": "IC-MLE",
    "static": "static",
    "random": "random",
}
THREE = ("stackelberg", "ic-mle", "yang")
"""Methods of figures 14 to 17."""
STATIC = {"EMNIST": 10.0, "CIFAR-10": 5.0}
"""Epsilon of the static method in figure 13."""
RANDOM = (1.0, 100.0)
"""Range of the random method's epsilon in figure 13; uniform is our reading."""
TYPES = (0.001, 0.003)
"""Costs of the two types in the readings that have them, half of the clients each."""


def load_figure(name: str) -> Callable[[Setting], Scenarios]:
    """Return a function that loads a figure's scenarios for the two data sets."""

    def load(_: Setting) -> Scenarios:
        return {"EMNIST": scenario_of(name), "CIFAR-10": scenario_of(f"{name}-cifar10")}

    return load


def costs_of(scenario: Scenario, n: int, *, two_types: bool = False) -> Floats:
    """Return costs of n clients: equal, or of two types."""
    if two_types:
        return np.repeat(TYPES, [n - n // 2, n // 2])
    return np.full(n, scenario.population.rho.options["value"])


def price(method: str, rho: Floats, scenario: Scenario, budget: float | None) -> Outcome:
    """Price clients with one of our mechanisms; the mean epsilon is over all N, as in (8)."""
    game = scenario.game
    return fa.price(method, rho, alpha=game.alpha, beta=game.beta, budget=budget,
                    average_over="population")  # fmt: skip


def solve_yang(rho: npt.ArrayLike, alpha: float) -> Purchases | None:
    """Solve (57) to (59) as we restore them; None without a positive solution."""
    sold = solve_yang_equations(np.asarray(rho, dtype=float), alpha)
    return sold if sold.is_solved else None
