"""The five methods of section 7.4 in the markets of EMNIST and CIFAR-10."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

import fcfn_abm as fa
from fcfn_abm.mechanisms import Outcome
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
    """Return what loads a figure's scenarios for the two data sets."""

    def load(_: Setting) -> Scenarios:
        return {"EMNIST": scenario_of(name), "CIFAR-10": scenario_of(f"{name}-cifar10")}

    return load


def costs_of(scenario: Scenario, n: int, *, two_types: bool = False) -> Floats:
    """Return costs of n clients: all alike, or of two types."""
    if two_types:
        return np.repeat(TYPES, [n - n // 2, n // 2])
    return np.full(n, scenario.population.rho.options["value"])


def price(method: str, rho: Floats, scenario: Scenario, budget: float | None) -> Outcome:
    """Price clients with one of our mechanisms; the mean epsilon is over all N, as in (8)."""
    game = scenario.game
    return fa.price(method, rho, alpha=game.alpha, beta=game.beta, budget=budget,
                    average_over="population")  # fmt: skip


@dataclass(frozen=True)
class PrintedYang:
    """A solution of (57) to (59), one entry for each seller."""

    epsilon: Floats
    price: Floats
    """Unit price p of a seller's data, in currency."""
    purchase: Floats
    """How much a the buyer purchases from each seller."""

    @property
    def payment(self) -> Floats:
        """What each seller is paid where a unit costs p and a compensation p epsilon."""
        return self.price * (1.0 + self.epsilon) * self.purchase


def solve_yang(rho: npt.ArrayLike, alpha: float) -> PrintedYang | None:
    """Solve (57) to (59) as we restore them; None where no positive numbers do.

    (58) is p = A / (sqrt(alpha A / c) - Q) with Q the sum of 1/p over the others and
    A = Q + 1 + epsilon, and (59) a cube root. Only equal costs and two groups of equal costs occur
    here, for which a damped iteration from equal costs is enough.
    """
    rho = np.asarray(rho, dtype=float)
    cost, group, count = np.unique(rho, return_inverse=True, return_counts=True)
    start = _solve_equal(float(np.exp(np.log(rho).mean())), rho.size, alpha)
    if start is None:
        return None
    epsilon, price = (np.full(cost.size, x) for x in start)
    for _ in range(5_000 if cost.size > 1 else 0):
        others = (count / price).sum() - 1.0 / price
        top = others + 1.0 + epsilon
        step = np.log(top / (np.sqrt(alpha * top / cost) - others) / price)
        price = price * np.exp(0.1 * step)
        epsilon = np.array([
            brentq(lambda e, p=p: e**3 * (alpha / (1.0 + e) - p) - alpha, 1.0, 3.0, xtol=1e-15)
            for p in price
        ])  # fmt: skip
        if np.abs(step).max() < 1e-13:
            break
    purchase = alpha / (price * (1.0 + epsilon)) - 1.0
    return PrintedYang(epsilon[group], price[group], purchase[group])


def _solve_equal(cost: float, n: int, alpha: float) -> tuple[float, float] | None:
    """Return epsilon and price of n sellers of equal cost."""

    def price_at(epsilon: float) -> float:
        def excess(log_price: float) -> float:
            price = math.exp(log_price)
            top = (n - 1) / price + 1.0 + epsilon
            return price * math.sqrt(alpha * top / cost) - (top + n - 1)

        return math.exp(brentq(excess, -40.0, 20.0, xtol=1e-15, rtol=1e-14))

    def excess(epsilon: float) -> float:  # (59) with a p of (57)
        return float(epsilon**3 * (alpha / (1.0 + epsilon) - price_at(epsilon)) - alpha)

    above = [epsilon for epsilon in np.linspace(1.35, 3.0, 34) if excess(epsilon) > 0]
    if not above:
        return None
    epsilon = float(brentq(excess, 1.3, above[0], xtol=1e-15, rtol=1e-14))
    return epsilon, price_at(epsilon)
