"""Words for the settings of the window: what keys, tables and registered names are called."""

from __future__ import annotations

from typing import Any

_TABLES = {
    "population": "Nodes and their costs",
    "game": "What the server gains",
    "mechanism": "How the server pays",
    "server": "How the server learns",
    "learning": "How nodes learn",
    "rounds": "Rounds",
    "exit": "Leaving and coming back",
    "information": "What nodes see",
}
_KEYS = {
    "seed": "Seed of all chance",
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
    "population.rho.rho0": "Cost of a node with usual data",
    "population.rho.coupling": "Cost of unusual data",
    "game.alpha": "Server's gain, alpha",
    "game.beta": "Server's gain, beta",
    "game.average_over": "Mean epsilon is over",
    "game.budget": "Payment cap B",
    "game.epsilon_floor": "Smallest report",
    "mechanism.kind": "Mechanism",
    "mechanism.epsilon": "Epsilon of each node",
    "mechanism.price": "Price of a unit of epsilon",
    "server.kind": "Server rule",
    "server.settled": "Reports have settled below",
    "server.longest_wait": "Longest wait, in rounds",
    "server.largest_cut": "Largest cut of the cap",
    "learning.kind": "Learning rule",
    "learning.gain": "Step towards the best response",
    "learning.learning_rate": "Learning rate",
    "rounds.order": "Order of moves",
    "rounds.turns": "Order of turns",
    "rounds.payment": "Payment cap of a round is set",
    "rounds.participation": "Chance to move in a round",
    "rounds.start": "First reports",
    "rounds.maximum": "Most rounds",
    "rounds.patience": "Calm rounds until rest",
    "exit.criterion": "Reason to leave",
    "exit.patience": "Rounds before a node leaves",
    "exit.reentry": "Nodes may come back",
    "information.reports": "Reports that nodes see",
    "information.noise": "Noise on what nodes see",
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
    "two-group": "costs of two kinds",
    "divergence": "costs by data",
    "pareto": "Pareto costs",
}
_BASIC = ("population.rho.", "mechanism.")
_BASIC_KEYS = frozenset({
    *("population.n_nodes", "game.alpha", "game.beta", "game.budget"),
    *("server.kind", "learning.kind", "seed"),
})  # fmt: skip


def name_key(path: str) -> str:
    """Return what a setting is called.

    Examples
    --------
    >>> name_key("population.n_nodes"), name_key("learning.longest_memory")
    ('Number of nodes', 'Longest memory')
    """
    return _KEYS.get(path) or path.rsplit(".", 1)[-1].replace("_", " ").capitalize()


def name_table(name: str) -> str:
    """Return what a table of settings is called."""
    return _TABLES.get(name) or name.capitalize()


def name_choice(value: Any) -> str:
    """Return what a choice is called.

    Examples
    --------
    >>> [name_choice(value) for value in ("lognormal", "best-response", None, True)]
    ['log-normal', 'best response', 'default', 'yes']
    """
    if value is None or isinstance(value, bool):
        return {None: "default", True: "yes", False: "no"}[value]
    return _NAMES.get(value) or str(value).replace("-", " ").replace("_", " ")


def name_costs(kind: str) -> str:
    """Return what the costs of a distribution are called.

    Examples
    --------
    >>> name_costs("lognormal"), name_costs("outliers")
    ('log-normal costs', 'costs with outliers')
    """
    return _COSTS.get(kind) or f"{name_choice(kind)} costs"


def is_basic(path: str) -> bool:
    """Whether a setting is shown at once; the others are advanced."""
    return path in _BASIC_KEYS or path.startswith(_BASIC)
