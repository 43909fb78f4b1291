"""Labels of the window's settings: keys, tables and registered names."""

from __future__ import annotations

from typing import Any

_TABLES = {
    "population": "Population",
    "game": "Server's utility",
    "mechanism": "Payment mechanism",
    "server": "Server rule",
    "learning": "Learning of the nodes",
    "rounds": "Rounds",
    "exit": "Exit and re-entry",
    "information": "Information of the nodes",
}
_KEYS = {
    "seed": "Random seed",
    "population.n_nodes": "Number of nodes",
    "population.rho.kind": "Cost distribution",
    "population.rho.median": "Median cost",
    "population.rho.sigma": "Spread of costs",
    "population.rho.share": "Share of high-cost nodes",
    "population.rho.share_high": "Share of high-cost nodes",
    "population.rho.factor": "High cost over median",
    "population.rho.value": "Cost of each node",
    "population.rho.low": "Lowest cost",
    "population.rho.high": "Highest cost",
    "population.rho.minimum": "Lowest cost",
    "population.rho.exponent": "Tail exponent",
    "population.rho.rho0": "Cost of a node with average data",
    "population.rho.coupling": "Effect of unusual data on cost",
    "game.alpha": "Value of the net, alpha",
    "game.beta": "Value of the net, beta",
    "game.average_over": "Average epsilon over",
    "game.budget": "Payment cap B",
    "game.epsilon_floor": "Smallest report",
    "mechanism.kind": "Mechanism",
    "mechanism.epsilon": "Epsilon of each node",
    "mechanism.price": "Price per unit of epsilon",
    "server.kind": "Server rule",
    "server.settled": "Change below which reports count as settled",
    "server.longest_wait": "Longest wait, in rounds",
    "server.largest_cut": "Largest reduction of the cap",
    "learning.kind": "Learning rule",
    "learning.gain": "Step size towards the best response",
    "learning.learning_rate": "Learning rate",
    "rounds.order": "Order of moves",
    "rounds.turns": "Order of turns",
    "rounds.payment": "When the payment cap is set",
    "rounds.participation": "Participation rate per round",
    "rounds.start": "Initial reports",
    "rounds.maximum": "Maximum number of rounds",
    "rounds.patience": "Rounds without change until convergence",
    "exit.criterion": "Exit criterion",
    "exit.patience": "Rounds before a node exits",
    "exit.reentry": "Re-entry allowed",
    "information.reports": "Reports visible to nodes",
    "information.noise": "Noise on visible reports",
}
_NAMES = {
    "lognormal": "log-normal",
    "listed": "listed in the file",
    "stackelberg": "Stackelberg contest",
    "tullock": "Tullock contest",
    "weighted": "weighted contest",
    "ic-mle": "IC-MLE",
    "vcg": "VCG",
    "myerson-cap": "Myerson with a cap",
    "yang": "three parties (Yang)",
    "exp3": "Exp3",
    "q-learning": "Q-learning",
}
_COSTS = {
    "constant": "equal costs",
    "outliers": "costs with outliers",
    "two-group": "two cost groups",
    "divergence": "data-dependent costs",
    "pareto": "Pareto costs",
}
_BASIC = ("population.rho.", "mechanism.")
_BASIC_KEYS = frozenset({
    *("population.n_nodes", "game.alpha", "game.beta", "game.budget"),
    *("server.kind", "learning.kind", "seed"),
})  # fmt: skip


def name_key(path: str) -> str:
    """Return the label of a setting.

    Examples
    --------
    >>> name_key("population.n_nodes"), name_key("learning.longest_memory")
    ('Number of nodes', 'Longest memory')
    """
    return _KEYS.get(path) or path.rsplit(".", 1)[-1].replace("_", " ").capitalize()


def name_table(name: str) -> str:
    """Return the label of a table of settings."""
    return _TABLES.get(name) or name.capitalize()


def name_choice(value: Any) -> str:
    """Return the label of a choice.

    Examples
    --------
    >>> [name_choice(value) for value in ("lognormal", "best-response", None, True)]
    ['log-normal', 'best response', 'default', 'yes']
    """
    if value is None or isinstance(value, bool):
        return {None: "default", True: "yes", False: "no"}[value]
    return _NAMES.get(value) or str(value).replace("-", " ").replace("_", " ")


def name_costs(kind: str) -> str:
    """Return a description of costs from a distribution.

    Examples
    --------
    >>> name_costs("lognormal"), name_costs("outliers")
    ('log-normal costs', 'costs with outliers')
    """
    return _COSTS.get(kind) or f"{name_choice(kind)} costs"


def is_basic(path: str) -> bool:
    """Whether a setting is shown by default; the others are advanced."""
    return path in _BASIC_KEYS or path.startswith(_BASIC)
