"""What was run, in words: the scenario as a table, and how to run it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fcfn_abm.report.blocks import AVERAGED, Block, Code, Section, Table, Words, number

_MECHANISMS = {
    "stackelberg": "the server announces a cap, and nodes share it in proportion to epsilon",
    "tullock": "the server announces a cap, and nodes share it in proportion to a power of epsilon",
    "weighted": "the server announces a cap, and nodes share it in proportion to weighted epsilon",
    "fair-query": "nodes report costs; as many of the cheapest as the cap pays for sell the same",
    "vcg": "nodes report costs; the cheapest sell the same, at the cost of the next node",
    "myerson-cap": "nodes report costs; the server buys a fixed epsilon while virtual costs pay",
    "posted-price": "who costs less than a posted price sells",
    "pooled-weights": "nodes name the epsilon that they accept, and are weighed; nobody is paid",
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
    "in_turn": "one after another, each seeing the running total",
    "simultaneous": "all at once, answering the last round",
}
_VIEWS = {"full": "every report", "aggregate": "the sum of all reports alone"}
_REASONS = {
    "best-response": "staying out is best for it",
    "loss": "its present report loses money",
}
_UNITS = {"record": "one sample of a node's data", "client": "all data of a node"}
_SCHEDULES = {
    "at-equilibrium": "once the market has ended",
    "every-round": "one after each round of the market",
}
_HOLDS_AGAINST = {"local": "", "central": "it holds against a server that sees the sum alone; "}
_HORIZONS = {"round": "epsilon is spent in every round", "training": "epsilon is the total"}


def settings_table(scenario: Any) -> Table:
    """Return what a reader should know of a scenario, one line a matter.

    Parameters
    ----------
    scenario : Scenario
        Resolved: every default written out.
    """
    game, rounds, leave, view = scenario.game, scenario.rounds, scenario.exit, scenario.information
    rows = {
        "Nodes": f"{scenario.population.n_nodes:,}",
        "Unit privacy cost rho": (
            f"{describe_choice(scenario.population.rho)}; currency per unit of epsilon"
        ),
        **_describe_population(scenario),
        **_describe_costs(scenario),
        "Worth of the net to the server": (
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
        "The server's cap B": _describe_cap(scenario),
        "Nodes learn by": describe_choice(scenario.learning),
        "Moves": _ORDERS[rounds.order]
        + (
            f"; {rounds.participation:.0%} of the nodes a round" if rounds.participation < 1 else ""
        ),
        "Nodes see": _VIEWS[view.reports]
        + (f", wrong by {view.noise:.0%}" if view.noise else ", exactly"),
        "A node leaves": (
            f"once {_REASONS[leave.criterion]} {leave.patience} rounds in a row; "
            + ("it may come back" if leave.reentry else "it never comes back")
        ),
        "Start, end": (
            f"{rounds.start} reports; at rest within {rounds.tolerance:g} for {rounds.patience} "
            f"rounds, or after {rounds.maximum:,}"
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
        found["Class of the nodes"] = scenario.population.node_class
    for group in scenario.population.groups or ():
        found[f"Group {group.name}"] = _describe_keys(group, leave_out="name") or "the rest"
    return found


def _describe_costs(scenario: Any) -> dict[str, str]:
    """Say what taking part costs and allows, where that is not the paper's."""
    people, game = scenario.population, scenario.game
    found = {}
    if people.cost:
        found["Privacy costs a node"] = _COSTS[people.cost]
    cap = people.epsilon_max
    if cap is not None:
        one = isinstance(cap, (int, float))
        most = f"{cap:g}" if one else f"from {min(cap):g} to {max(cap):g}, listed for each"
        found["The most that a node can sell"] = f"an epsilon of {most}"
    if game.fixed_cost:
        found["Taking part costs"] = f"{game.fixed_cost:g} a round, whatever epsilon is"
    if game.reserve:
        found["The least epsilon that is paid"] = f"{game.reserve:g}"
    return found


def _describe_keys(table: Any, leave_out: str = "") -> str:
    """Return the keys of a table with their values, those that are not given left out."""
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
            f", clipping norm adapts ({_describe_keys(privacy.adaptive_clipping)})"
            if privacy.adaptive_clipping
            else ""
        ),
        "Training": (
            f"{training.rounds} rounds of {training.local_epochs} {passes} over the node's data, "
            f"{_SCHEDULES[training.schedule]}"
        ),
        "Net and data": f"{describe_choice(training.net)} on {describe_choice(training.data)}",
        "Data of a node": describe_choice(training.partition),
        "Aggregation": describe_choice(training.aggregation),
        "Server": _describe_server(training),
    }


def _describe_server(training: Any) -> str:
    """Say how the server moves the net, and which nets it averages."""
    text = f"optimiser {describe_choice(training.server)}"
    if training.averaging.kind == "none":
        return text
    return f"{text}; evaluated: the average of nets, {describe_choice(training.averaging)}"


def _describe_cap(scenario: Any) -> str:
    if scenario.chooses_cap:
        return f"chosen by the server: {describe_choice(scenario.server)}"
    if scenario.game.budget is None:
        return "B* of the closed form"
    return f"{number(scenario.game.budget)}, currency a round"


def _explain(name: str, words: str | None) -> str:
    return f"{name}: {words}" if words else name


def describe_choice(choice: Any) -> str:
    """Write a choice with its options: ``lognormal (median = 0.01, sigma = 0.1)``."""
    options = ", ".join(f"{name} = {format_value(value)}" for name, value in choice.options.items())
    return f"{choice.kind} ({options})" if options else choice.kind


def format_value(value: Any) -> str:
    """Write a value of a scenario, long lists cut short."""
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def reproduce(
    command: str, scenario_toml: str, run: Mapping[str, Any], seconds: str = ""
) -> Section:
    """Return the section that says how to get the same again.

    Parameters
    ----------
    command : str
        What to type in the folder of the results.
    scenario_toml : str
        The scenario's file.
    run : mapping
        ``run.json``: seed and versions.
    seconds : str, optional
        A sentence on how long it took.
    """
    words = (
        f"In the folder of these results; the seed is {run['seed']}. Equal scenarios, seeds and "
        f"versions give equal tables, byte for byte. {seconds}"
    )
    versions = [[name, version] for name, version in run["versions"].items()]
    for plugin in run.get("plugins", ()):
        digest = f"SHA-256 {plugin['sha256']}"
        version = f"{plugin['version']}, {digest}" if plugin["version"] else digest
        versions.append([plugin["name"], version])
    blocks: list[Block] = [
        Words(words.strip()),
        Code(command),
        Table(["made with", "version"], versions, words=frozenset({0, 1})),
        Code(scenario_toml.strip(), "toml", "The scenario, every default written out"),
    ]
    return Section("How to reproduce it", blocks)
