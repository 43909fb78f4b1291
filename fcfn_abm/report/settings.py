"""The scenario as a table in words, and how to reproduce its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
_HORIZONS = {"round": "epsilon is spent in every round", "training": "epsilon is the total"}


def settings_table(scenario: Any) -> Table:
    """Return the settings of a scenario that matter to a reader, one row each.

    Parameters
    ----------
    scenario : Scenario
        Resolved: all defaults are filled in.
    """
    game, rounds, leave, view = scenario.game, scenario.rounds, scenario.exit, scenario.information
    rows = {
        "Nodes": f"{scenario.population.n_nodes:,}",
        "Unit privacy cost rho": (
            f"{describe_choice(scenario.population.rho)}; currency per unit of epsilon"
        ),
        **_describe_population(scenario),
        **_describe_costs(scenario),
        "Value of the net to the server": (
            f"beta ln(1 + alpha eps), alpha = {number(game.alpha)}, beta = {number(game.beta)} "
            f"(currency), eps the mean epsilon over {AVERAGED[game.average_over]}"
        ),
        **{
            f"Event {index}": _describe_keys(event)
            for index, event in enumerate(scenario.events or (), start=1)
        },
        "Mechanism": _explain(
            describe_choice(scenario.mechanism), _MECHANISMS.get(scenario.mechanism.kind)
        ),
        "Payment cap B": _describe_cap(scenario),
        "Learning rule": describe_choice(scenario.learning),
        "Moves": _ORDERS[rounds.order]
        + (f"; {rounds.participation:.0%} of nodes per round" if rounds.participation < 1 else ""),
        "Information of a node": _VIEWS[view.reports]
        + (f", with {view.noise:.0%} noise" if view.noise else ", exactly"),
        "Exit of a node": (
            f"when {_REASONS[leave.criterion]} for {leave.patience} rounds in a row; "
            + ("it may come back" if leave.reentry else "it does not come back")
        ),
        "Start and end": (
            f"{rounds.start} reports; converged when changes stay within {rounds.tolerance:g} for "
            f"{rounds.patience} rounds, or ended after {rounds.maximum:,} rounds"
        ),
        **(
            _describe_training(scenario)
            if scenario.trains
            else {"Training": "none: economics only"}
        ),
    }
    return Table(["", ""], [list(row) for row in rows.items()], words=frozenset({0, 1}))


def _describe_population(scenario: Any) -> dict[str, str]:
    found = {}
    for name in type(scenario.population).model_fields:
        value = getattr(scenario.population, name)
        if hasattr(value, "model_fields_set") and name != "rho":
            found[f"Population: {name}"] = _describe_keys(value)
    if scenario.population.node_class:
        found["Class of nodes"] = scenario.population.node_class
    for group in scenario.population.groups or ():
        found[f"Group {group.name}"] = _describe_keys(group, leave_out="name") or "the rest"
    return found


def _describe_costs(scenario: Any) -> dict[str, str]:
    """Describe costs and limits of participation that differ from the paper's."""
    people, game = scenario.population, scenario.game
    found = {}
    if people.cost:
        found["Privacy cost of a node"] = _COSTS[people.cost]
    cap = people.epsilon_max
    if cap is not None:
        one = isinstance(cap, (int, float))
        most = f"{cap:g}" if one else f"from {min(cap):g} to {max(cap):g}, listed per node"
        found["Largest epsilon of a node"] = f"{most}"
    if game.fixed_cost:
        found["Fixed cost of taking part"] = f"{game.fixed_cost:g} per round, for any epsilon"
    if game.reserve:
        found["Smallest epsilon that is paid"] = f"{game.reserve:g}"
    return found


def _describe_keys(table: Any, leave_out: str = "") -> str:
    """Format the keys of a table with their values, without keys that are not set."""
    shown = []
    for key, value in table:
        if value is None or key == leave_out:
            continue
        if hasattr(value, "kind"):
            value = describe_choice(value)
        elif hasattr(value, "model_fields_set"):
            value = f"({_describe_keys(value)})"
        else:
            value = format_value(value)
        shown.append(f"{key} = {value}")
    return ", ".join(shown)


def _describe_training(scenario: Any) -> dict[str, str]:
    privacy, training = scenario.privacy, scenario.training
    passes = "pass" if training.local_epochs == 1 else "passes"
    return {
        "Privacy": (
            f"{'the rho of zCDP' if privacy.currency == 'zcdp' else 'epsilon'} protects "
            f"{_UNITS[privacy.unit]}; {_HORIZONS[privacy.horizon]}; "
            f"{_HOLDS_AGAINST[privacy.view]}delta = {privacy.delta:g}"
        ),
        "Noise": f"{describe_choice(privacy.placement)}, {privacy.calibration} calibration"
        + (
            f", adaptive clipping norm ({_describe_keys(privacy.adaptive_clipping)})"
            if privacy.adaptive_clipping
            else ""
        ),
        "Training": (
            f"{training.rounds} rounds of {training.local_epochs} {passes} over the node's data, "
            f"{_SCHEDULES[training.schedule]}"
        ),
        "Net and data": f"{describe_choice(training.net)} on {describe_choice(training.data)}",
        "Data partition": describe_choice(training.partition),
        "Aggregation": describe_choice(training.aggregation),
        "Server": _describe_server(training),
    }


def _describe_server(training: Any) -> str:
    """Describe the server's optimiser, and the average of nets that is evaluated."""
    text = f"optimiser {describe_choice(training.server)}"
    if training.averaging.kind == "none":
        return text
    return f"{text}; evaluated net: average, {describe_choice(training.averaging)}"


def _describe_cap(scenario: Any) -> str:
    if scenario.chooses_cap:
        return f"chosen by the server: {describe_choice(scenario.server)}"
    if scenario.game.budget is None:
        return "B* of the closed form"
    return f"{number(scenario.game.budget)}, currency per round"


def _explain(name: str, words: str | None) -> str:
    return f"{name}: {words}" if words else name


def describe_choice(choice: Any) -> str:
    """Format a choice with its options: ``lognormal (median = 0.01, sigma = 0.1)``."""
    options = ", ".join(f"{name} = {format_value(value)}" for name, value in choice.options.items())
    return f"{choice.kind} ({options})" if options else choice.kind


def format_value(value: Any) -> str:
    """Format a value of a scenario; long lists are cut."""
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
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
