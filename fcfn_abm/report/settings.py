"""The scenario as a table in words, and how to reproduce its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from fcfn_abm.report.blocks import AVERAGED, Block, Code, Section, Table, Words, number

_MECHANISMS = {
    "stackelberg": "the server announces a cap, and nodes share it in proportion to epsilon",
    "tullock": "the server announces a cap, and nodes share it in proportion to a power of epsilon",
    "weighted": "the server announces a cap, and nodes share it in proportion to weighted epsilon",
    "fair-query": "nodes report costs; as many low-cost nodes as the cap can pay sell the same "
    "epsilon",
    "vcg": "nodes report costs; the low-cost nodes sell the same epsilon at the cost of the next "
    "node",
    "myerson-cap": "nodes report costs; the server buys a fixed epsilon from nodes with low enough "
    "virtual costs",
    "posted-price": "nodes whose cost is below a posted price sell",
    "pooled-weights": "nodes state the epsilon they accept and get weights; there are no payments",
    "random": "each node takes a random epsilon",
    "static": "all nodes take the same epsilon",
    "ic-mle": "each node picks a contract from a menu",
    "yang": "an agency buys epsilon from the nodes and sells it to the server",
}
_COSTS = {
    "linear": "rho epsilon",
    "power": "rho epsilon²",
    "sqrt": "2 rho √epsilon",
    "exponential": "rho (e^epsilon - 1)",
}
_ORDERS = {
    "in_turn": "one after another; each node sees the running total",
    "simultaneous": "all at once, in response to the previous round",
}
_VIEWS = {"full": "every report", "aggregate": "only the sum of all reports"}
_REASONS = {
    "best-response": "staying out is best for it",
    "loss": "its current report loses money",
}
_UNITS = {"record": "one sample of a node's data", "client": "all data of a node"}
_SCHEDULES = {
    "at-equilibrium": "after the market has ended",
    "every-round": "one after each round of the market",
}
_HOLDS_AGAINST = {"local": "", "central": "for a server that sees only the sum; "}
_AXIS = "(axis)"  # in place of a value that a sweep varies
_MECHANISM_AXES = {"mechanism", "mechanism.kind"}
_HORIZONS = {"round": "epsilon is spent in every round", "training": "epsilon is the total"}


def settings_table(scenario: Any, axes: Sequence[str] = ()) -> Table:
    """Return the settings of a scenario that matter to a reader, one row each.

    Parameters
    ----------
    scenario : Scenario
        Resolved: all defaults are filled in.
    axes : sequence of str, optional
        Paths of the axes of a sweep, whose values are not shown.
    """
    rows = _Settings(scenario, frozenset(axes)).rows()
    shown = [[label, text] for label, text in rows.items() if text != _AXIS]
    return Table(["", ""], shown, words=frozenset({0, 1}))


@dataclass(frozen=True)
class _Settings:
    """A scenario in words."""

    scenario: Any
    axes: frozenset[str]

    def rows(self) -> dict[str, str]:
        """Return texts by label; a row that is all axis is `_AXIS`."""
        scenario = self.scenario
        mechanism = self.choice(scenario.mechanism, "mechanism")
        explained = _MECHANISMS.get(scenario.mechanism.kind)
        if explained and mechanism != _AXIS:
            mechanism = f"{mechanism}: {explained}"
        rho = self.choice(scenario.population.rho, "population.rho")
        average = self.value("game.average_over", AVERAGED[scenario.game.average_over])
        return {
            "Nodes": self.value("population.n_nodes", f"{scenario.population.n_nodes:,}"),
            "Unit privacy cost rho": (
                rho if rho == _AXIS else f"{rho}; currency per unit of epsilon"
            ),
            **self._population(),
            **self._costs(),
            "Value of the net to the server": (
                f"beta ln(1 + alpha eps), alpha = {self.number('game.alpha')}, "
                f"beta = {self.number('game.beta')} (currency), eps the mean epsilon over {average}"
            ),
            **{
                f"Event {index}": self.keys(event, f"events.{index}")
                for index, event in enumerate(scenario.events or (), start=1)
            },
            "Mechanism": mechanism,
            "Payment cap B": self._cap(),
            "Learning rule": self.choice(scenario.learning, "learning"),
            **self._play(),
            **(self._training() if scenario.trains else {"Training": "none: economics only"}),
        }

    def value(self, path: str, text: str) -> str:
        """Return the text of a value, unless it is an axis."""
        return _AXIS if path in self.axes else text

    def number(self, path: str) -> str:
        """Format the number at a path, unless it is an axis."""
        return self.value(path, number(attrgetter(path)(self.scenario)))

    def choice(self, choice: Any, path: str) -> str:
        """Format a choice with the options that are set: ``lognormal (median = 0.01)``."""
        if not self.axes.isdisjoint({path, f"{path}.kind"}):
            return _AXIS
        options = self._assignments(choice.options.items(), path)
        return f"{choice.kind} ({options})" if options else str(choice.kind)

    def keys(self, table: Any, path: str, leave_out: str = "") -> str:
        """Format the keys of a table that are set, with their values."""
        return self.value(path, self._assignments((k for k in table if k[0] != leave_out), path))

    def _assignments(self, pairs: Iterable[tuple[str, Any]], path: str) -> str:
        shown = []
        for key, value in pairs:
            below = f"{path}.{key}"
            if value is None and below not in self.axes:
                continue
            if hasattr(value, "kind"):
                text = self.choice(value, below)
            elif hasattr(value, "model_fields_set"):
                text = f"({self.keys(value, below)})"
            else:
                text = self.value(below, format_value(value))
            shown.append(f"{key} = {text}")
        return ", ".join(shown)

    def _population(self) -> dict[str, str]:
        people = self.scenario.population
        found = {}
        for name in type(people).model_fields:
            value = getattr(people, name)
            if hasattr(value, "model_fields_set") and name != "rho":
                found[f"Population: {name}"] = self.keys(value, f"population.{name}")
        if people.node_class:
            found["Class of nodes"] = people.node_class
        for group in people.groups or ():
            path = f"population.groups.{group.name}"
            found[f"Group {group.name}"] = self.keys(group, path, leave_out="name") or "the rest"
        return found

    def _costs(self) -> dict[str, str]:
        """Describe costs and limits of participation that differ from the paper's."""
        people, game = self.scenario.population, self.scenario.game
        found = {}
        if people.cost:
            found["Privacy cost of a node"] = self.value("population.cost", _COSTS[people.cost])
        cap = people.epsilon_max
        if cap is not None:
            one = isinstance(cap, (int, float))
            most = f"{cap:g}" if one else f"from {min(cap):g} to {max(cap):g}, listed per node"
            found["Largest epsilon of a node"] = self.value("population.epsilon_max", most)
        if game.fixed_cost:
            text = f"{game.fixed_cost:g} per round, for any epsilon"
            found["Fixed cost of taking part"] = self.value("game.fixed_cost", text)
        if game.reserve:
            found["Smallest epsilon that is paid"] = self.value("game.reserve", f"{game.reserve:g}")
        return found

    def _cap(self) -> str:
        scenario = self.scenario
        chosen = f"chosen by the server: {self.choice(scenario.server, 'server')}"
        given = "B* of the closed form"
        if scenario.game.budget is not None:
            given = f"{number(scenario.game.budget)}, currency per round"
        if "game.budget" in self.axes:
            given = _AXIS
        if scenario.server.kind != "fixed" and not self.axes.isdisjoint(_MECHANISM_AXES):
            return f"in a contest, {chosen}; under other mechanisms, {given}"
        return chosen if scenario.chooses_cap else given

    def _play(self) -> dict[str, str]:
        """Describe moves, information, exits, and how the market starts and ends."""
        rounds, leave = self.scenario.rounds, self.scenario.exit
        view = self.scenario.information
        share = self.value("rounds.participation", f"{rounds.participation:.0%}")
        noise = self.value("information.noise", f"{view.noise:.0%}")
        reason = self.value("exit.criterion", _REASONS[leave.criterion])
        back = "it may come back" if leave.reentry else "it does not come back"
        return {
            "Moves": self.value("rounds.order", _ORDERS[rounds.order])
            + (f"; {share} of nodes per round" if rounds.participation < 1 else ""),
            "Information of a node": self.value("information.reports", _VIEWS[view.reports])
            + (f", with {noise} noise" if view.noise else ", exactly"),
            "Exit of a node": f"when {reason} for {self.number('exit.patience')} rounds in a row; "
            f"{self.value('exit.reentry', back)}",
            "Start and end": (
                f"{self.value('rounds.start', rounds.start)} reports; converged when changes stay "
                f"within {self.value('rounds.tolerance', f'{rounds.tolerance:g}')} for "
                f"{self.number('rounds.patience')} rounds, or ended after "
                f"{self.value('rounds.maximum', f'{rounds.maximum:,}')} rounds"
            ),
        }

    def _training(self) -> dict[str, str]:
        privacy, training = self.scenario.privacy, self.scenario.training
        passes = "pass" if training.local_epochs == 1 else "passes"
        adaptive = privacy.adaptive_clipping
        data = self.choice(training.data, "training.data")
        return {
            "Privacy": (
                f"{'the rho of zCDP' if privacy.currency == 'zcdp' else 'epsilon'} protects "
                f"{self.value('privacy.unit', _UNITS[privacy.unit])}; "
                f"{self.value('privacy.horizon', _HORIZONS[privacy.horizon])}; "
                f"{_HOLDS_AGAINST[privacy.view]}"
                f"delta = {self.value('privacy.delta', f'{privacy.delta:g}')}"
            ),
            "Noise": f"{self.choice(privacy.placement, 'privacy.placement')}, "
            f"{self.value('privacy.calibration', privacy.calibration)} calibration"
            + (
                f", adaptive clipping norm ({self.keys(adaptive, 'privacy.adaptive_clipping')})"
                if adaptive
                else ""
            ),
            "Training": (
                f"{self.number('training.rounds')} rounds of "
                f"{self.number('training.local_epochs')} {passes} over the node's data, "
                f"{self.value('training.schedule', _SCHEDULES[training.schedule])}"
            ),
            "Net and data": f"{self.choice(training.net, 'training.net')} on {data}",
            "Data partition": self.choice(training.partition, "training.partition"),
            "Aggregation": self.choice(training.aggregation, "training.aggregation"),
            "Server": self._server(),
        }

    def _server(self) -> str:
        """Describe the server's optimiser, and the average of nets that is evaluated."""
        training = self.scenario.training
        text = f"optimiser {self.choice(training.server, 'training.server')}"
        if training.averaging.kind == "none":
            return text
        averaging = self.choice(training.averaging, "training.averaging")
        return f"{text}; evaluated net: average, {averaging}"


def format_value(value: Any) -> str:
    """Format a value of a scenario; long lists are cut."""
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value).lower() if isinstance(value, (bool, np.bool_)) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def reproduce(
    command: str, scenario_toml: str, run: Mapping[str, Any], seconds: str = ""
) -> Section:
    """Return the section on reproducing the results.

    Parameters
    ----------
    command : str
        Command to run in the folder of the results.
    scenario_toml : str
        Text of the scenario file.
    run : mapping
        ``run.json``, for seed and versions.
    seconds : str, optional
        A sentence on the run time.
    """
    words = (
        f"Run this in the folder of these results. The seed is {run['seed']}. Equal scenarios, "
        f"seeds and versions give identical tables. {seconds}"
    )
    versions = [[name, version] for name, version in run["versions"].items()]
    for plugin in run.get("plugins", ()):
        digest = f"SHA-256 {plugin['sha256']}"
        version = f"{plugin['version']}, {digest}" if plugin["version"] else digest
        versions.append([plugin["name"], version])
    blocks: list[Block] = [
        Words(words.strip()),
        Code(command),
        Table(["package", "version"], versions, words=frozenset({0, 1})),
        Code(scenario_toml.strip(), "toml", "The scenario with all defaults"),
    ]
    return Section("How to reproduce the results", blocks)
