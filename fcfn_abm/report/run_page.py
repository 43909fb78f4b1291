"""Report of a run: scenario, verdict, equilibrium, participation, utilities and training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from fcfn_abm.records import Record
from fcfn_abm.report.blocks import (
    AVERAGED,
    Block,
    Fact,
    Facts,
    Notice,
    Page,
    Picture,
    Section,
    Table,
    Terms,
    Tone,
    Words,
    format_count,
    number,
)
from fcfn_abm.report.figures.closed_loop import closed_loop
from fcfn_abm.report.figures.frames import sample_traces
from fcfn_abm.report.figures.market import (
    convergence,
    participation,
    rho_against_epsilon,
    utilities,
)
from fcfn_abm.report.settings import reproduce, settings_table
from fcfn_abm.report.summary import (
    ZCDP_NOTE,
    describe_beliefs,
    equilibrium_table,
    groups_table,
    name_node,
)
from fcfn_abm.report.theme import training_label
from fcfn_abm.report.trained_page import training_sections

_NEAR = 1e-3  # with a larger distance from the closed form, the verdict is shown as a warning
_NODES = ("node", "name", "rho", "epsilon", "equilibrium_epsilon", "utility", "active")
_AROUND = 6  # nodes listed on either side of the threshold
_VERDICTS: dict[str, tuple[Tone, str]] = {
    "converged": ("good", "The market has converged."),
    "no-trade": ("fair", "No node trades."),
    "max-rounds": ("fair", "The market did not converge within the allowed rounds."),
    "paused": ("fair", "The run was paused before the market ended."),
    "stopped": ("good", "The server buys no further round."),
    "cycling": ("bad", "The market does not settle: reports cycle."),
    "diverged": ("bad", "The market moves away from its equilibrium."),
}


_GROUPS = (
    "Results of each group of nodes in the last round; the outcome of the mechanism is in "
    "parentheses. The column group of nodes.parquet assigns each node to its group."
)


def run_page(record: Record, scenario_toml: str) -> Page:
    """Build the report of a run.

    Parameters
    ----------
    record : Record
        A record read from disk.
    scenario_toml : str
        Text of its scenario file.
    """
    sections = [
        Section("Scenario", [settings_table(record.scenario)]),
        _describe_settling(record),
        _equilibrium(record),
        _who_left(record),
        _earnings(record),
    ]
    if groups := groups_table(record):
        sections.insert(3, Section("Groups of nodes", [Words(_GROUPS), groups]))
    if "tracking" in record.run:
        sections.insert(2, _describe_tracking(record.run["tracking"]))
    if "value" in record.run:
        sections.append(_describe_learning(record))
    if "training" in record.run:
        sections += training_sections(record)
    seconds = record.run["seconds"]
    took = f"The market took {seconds['market']:.3g} s"
    took += f" and training {seconds['training']:.3g} s." if "training" in record.run else "."
    command = "fcfn run scenario.toml --out again"
    sections.append(reproduce(command, scenario_toml, record.run, took))
    return Page(
        title=record.scenario.title or "Privacy market",
        subtitle=f"fcfn_abm run, seed {record.scenario.seed}",
        lead=[_verdict(record), _facts(record), *map(Words, _summarise(record))],
        sections=sections,
    )


def _verdict(record: Record) -> Notice:
    verdict = record.run["verdict"]
    tone, words = _VERDICTS[verdict["kind"]]
    market = record.run["market"]
    if tone == "good" and max(market["distance"], market["exploitability"]) > _NEAR:
        tone = "fair"
    reason = verdict["reason"]
    return Notice(
        f"{verdict['kind'].capitalize()} after {format_count(verdict['rounds'], 'round')}",
        f"{words} {reason[:1].upper()}{reason[1:]}",
        tone,
    )


def _facts(record: Record) -> Facts:
    market = record.run["market"]
    facts = [
        Fact("Active nodes", number(market["n_active"]), f"of {len(record.nodes):,}"),
        Fact("Payment", number(market["payment"], 4), "currency per round"),
        *_describe_cap(record.run["verdict"]),
        Fact("Mean epsilon", number(market["mean_epsilon"], 4), _describe_mean(record)),
        Fact("Utility of the server", number(market["server_utility"], 4), "currency per round"),
        Fact("Utility of all nodes", number(market["node_utility"], 4), "currency per round"),
    ]
    arms = record.run.get("training", {}).get("arms", [])
    if arms:
        own = arms[0]
        facts.append(Fact("Test accuracy", f"{own['accuracy']:.1%}", training_label(own["name"])))
        central = record.scenario.privacy.view == "central" and "epsilon_central" in record.nodes
        spent = record.nodes["epsilon_central" if central else "epsilon_total"].max()
        note = "by one node, in all rounds" + (", from the server's view" if central else "")
        facts.append(Fact("Largest epsilon spent", number(float(spent), 4), note))
    return Facts(facts)


def _describe_cap(verdict: Mapping[str, Any]) -> list[Fact]:
    """Describe how far the cap is from the server's optimal one, if there is one."""
    ratio, regret = verdict.get("budget_ratio"), verdict.get("server_regret")
    if ratio is None or regret is None:
        return []
    return [Fact("B / B*", number(ratio), f"{number(regret, 3)} more at B*")]


def _describe_mean(record: Record) -> str:
    over = record.run["equilibrium"]["average_over"]
    return f"over {AVERAGED[over]}"


def _summarise(record: Record) -> list[str]:
    market, form = record.run["market"], record.run["equilibrium"]
    n, n_nodes = market["n_active"], len(record.nodes)
    if not n:
        return [f"None of the {n_nodes:,} nodes sells privacy at the end. {form['reason']}".strip()]
    text = (
        f"{n:,} of {format_count(n_nodes, 'node')} sell privacy at the end. The server pays "
        f"{number(market['payment'], 4)} per round for a mean epsilon of "
        f"{number(market['mean_epsilon'], 4)}; its utility (value of the net minus payment) is "
        f"{number(market['server_utility'], 4)}. The nodes' utility (payment minus privacy cost) "
        f"is {number(market['node_utility'], 4)} in total."
    )
    others = record.nodes.loc[~record.nodes["active"], "rho"]
    if len(others) and form["threshold"] and others.min() >= form["threshold"]:
        text += (
            f" The other nodes stay out, because their unit privacy cost is at least "
            f"{number(form['threshold'], 4)}."
        )
    paragraphs = [text]
    arms = record.run.get("training", {}).get("arms", [])
    if arms:
        reached = ", ".join(
            f"{one['accuracy']:.1%} ({training_label(one['name'])})" for one in arms
        )
        paragraphs.append(
            f"Training on {record.run['training']['data']} reaches a test accuracy of {reached}."
        )
    return paragraphs


def _describe_settling(record: Record) -> Section:
    market, form = record.run["market"], record.run["equilibrium"]
    text = (
        f"In the last round, the largest gain of a node from deviating alone was "
        f"{number(market['exploitability'], 3)} of the cap, the largest change of epsilon was "
        f"{number(market['change'], 3)} of the largest epsilon, and the largest distance of a node "
        f"from the {'equilibrium' if 'solution' in form else 'closed form'} was "
        f"{number(market['distance'], 3)} of the largest epsilon."
    )
    picture = Picture(
        "convergence",
        convergence(record.rounds, sample_traces(record), form["total_epsilon"]),
        f"Three panels over {len(record.rounds)} rounds: epsilon of single nodes; their sum S, "
        f"which ends at {number(market['total_epsilon'], 4)} (closed form: "
        f"{number(form['total_epsilon'], 4)}); and three distances from equilibrium, with a final "
        f"exploitability of {number(market['exploitability'], 2)}.",
        "a: reports of single nodes (of a sample, if the market is large). b: sum of all reports. "
        "c: distance from equilibrium, on a log scale.",
        record.rounds[["round", "total_epsilon", "distance", "exploitability", "change"]],
        "rounds.parquet and traces.parquet",
        interactive=True,
    )
    terms = Terms(
        {
            "Exploitability": "the largest gain of any node from changing its epsilon alone, as a "
            "share of the cap B. It is zero at a Nash equilibrium.",
            "Distance to the closed form": "the largest difference between a node's epsilon and "
            "that of the closed form, as a share of the largest epsilon.",
            "Change": "the largest change of the last round, as a share of the largest epsilon.",
        }
    )
    return Section("Did the market settle?", [Words(text), picture, terms])


def _describe_tracking(facts: Mapping[str, Any]) -> Section:
    words = (
        "Nodes come and go in this market, or their costs drift, so the equilibrium moves. These "
        "measures show how closely the market follows it. They are means over the last "
        f"{format_count(facts['n_rounds'], 'round')}, the second half of the period of change."
    )
    rows = [
        [name.removeprefix("tracking_").replace("_", " "), number(value)]
        for name, value in facts.items()
        if name != "n_rounds"
    ]
    return Section(
        "Did the market follow the moving equilibrium?", [Words(words), Table(["", "mean"], rows)]
    )


def _equilibrium(record: Record) -> Section:
    form, market = record.run["equilibrium"], record.run["market"]
    reference = (
        "the closed form of the game" if form["threshold"] else "the outcome of the mechanism"
    )
    words = (
        "Nodes reach the market's result round by round, from the information they have; "
        f"{reference} is computed from all costs."
    )
    terms = {
        "Epsilon": "how much privacy a node gives up: at zero it reveals nothing; the larger "
        "epsilon, the smaller the noise on what the node sends. It is dimensionless.",
        "Utility": f"of a node: payment minus {_name_cost(record)}. Of the server: value of the "
        "net minus payment. In currency per round.",
    }
    if form["threshold"]:
        terms["tau"] = (
            "the sum of the unit privacy costs of the n active nodes. A node whose cost reaches "
            "tau/(n-1) does better by staying out."
        )
    sold = ZCDP_NOTE if record.scenario.privacy.currency == "zcdp" else ""
    words = " ".join(text for text in (words, describe_beliefs(record.run), sold) if text)
    return Section("Equilibrium", [Words(words), equilibrium_table(form, market), Terms(terms)])


def _name_cost(record: Record) -> str:
    """Return the cost of epsilon to a node, in words."""
    people, game = record.scenario.population, record.scenario.game
    cost = {
        "power": "rho times epsilon²",
        "sqrt": "2 rho times √epsilon",
        "exponential": "rho times (e^epsilon - 1)",
    }.get(people.cost or "", "rho times epsilon")
    return f"{cost} and the fixed cost of {game.fixed_cost:g}" if game.fixed_cost else cost


def _who_left(record: Record) -> Section:
    nodes, form = record.nodes, record.run["equilibrium"]
    threshold = form["threshold"]
    blocks: list[Block] = []
    if threshold:
        blocks.append(
            Words(
                "The cap is shared in proportion to epsilon, so a node earns a positive utility "
                f"only if its unit cost rho is below tau/(n-1), here {number(threshold, 6)}. When "
                "a high-cost node leaves, tau and this threshold fall, so that the node with the "
                "next highest cost may leave too. "
                f"{format_count(int((~nodes['active']).sum()), 'node')} of {len(nodes):,} stay out "
                "at the end."
            )
        )
    picture = Picture(
        "rho_epsilon",
        rho_against_epsilon(nodes, threshold),
        f"Epsilon of each node against its unit privacy cost: {int(nodes['active'].sum()):,} "
        f"take part, and {int((~nodes['active']).sum()):,} stay out"
        + (f", those with a cost of {number(threshold, 4)} or more." if threshold else "."),
        data=nodes[[c for c in _NODES if c in nodes]],
        source="nodes.parquet",
    )
    blocks += [picture, _groups(nodes, threshold)]
    if threshold and not nodes["active"].all():
        blocks.append(_list_around_bound(nodes, threshold))
    blocks.append(
        Picture(
            "participation",
            participation(record.rounds, nodes),
            f"Active nodes over {len(record.rounds)} rounds, ending at "
            f"{int(nodes['active'].sum()):,}; and the number of nodes that left for good in each "
            "round.",
            data=record.rounds[["round", "n_active", "n_exited"]],
            source="rounds.parquet and nodes.parquet",
            interactive=True,
        )
    )
    return Section("Who left, and why", blocks)


def _groups(nodes: pd.DataFrame, threshold: float) -> Table:
    """Count nodes by their final state."""
    active, cheap = nodes["active"], nodes["rho"] < threshold
    if threshold:
        groups = {
            "takes part": active & cheap,
            "takes part, although rho is tau/(n-1) or more": active & ~cheap,
            "stays out: rho is tau/(n-1) or more": ~active & ~cheap,
            "stays out, although active in equilibrium": ~active & cheap,
        }
    else:
        groups = {"takes part": active, "stays out": ~active}
    rows = [
        [
            label,
            f"{len(some):,}",
            _format_range(some["rho"]),
            _rounds(some),
            f"{_count_silent(some):,}",
        ]
        for label, some in ((label, nodes[mask]) for label, mask in groups.items())
        if len(some)
    ]
    head = ["final state", "nodes", "rho", "left in round", "not exited, reports zero"]
    return Table(head, rows, "Nodes by final state")


def _format_range(values: pd.Series) -> str:
    low, high = float(values.min()), float(values.max())
    return number(low, 4) if low == high else f"{number(low, 4)} to {number(high, 4)}"


def _rounds(nodes: pd.DataFrame) -> str:
    left = nodes.loc[~nodes["active"], "exit_round"].dropna()
    if left.empty:
        return "-"
    first, last = int(left.min()), int(left.max())
    return f"{first}" if first == last else f"{first} to {last}"


def _count_silent(nodes: pd.DataFrame) -> int:
    return int((~nodes["active"] & nodes["exit_round"].isna()).sum())


def _list_around_bound(nodes: pd.DataFrame, threshold: float) -> Table:
    """List the active nodes with the highest costs and the others with the lowest."""
    stays = nodes[nodes["active"]].nlargest(_AROUND, "rho").sort_values("rho")
    out = nodes[~nodes["active"]].nsmallest(_AROUND, "rho")
    rows = [_list_node(node, threshold) for node in [*stays.itertuples(), *out.itertuples()]]
    head = ["", "", "rho", "above threshold", "epsilon", "utility", "left in round"]
    return Table(
        head,
        rows,
        "Active nodes with the highest costs, and other nodes with the lowest",
        "Above threshold: rho minus tau/(n-1), as a share of tau/(n-1). A node with a positive "
        "value is better off outside. nodes.parquet lists all nodes.",
        frozenset({0, 1}),
    )


def _describe_learning(record: Record) -> Section:
    """Describe what a server has learned about the value of epsilon from its rounds."""
    facts, rounds = record.run["value"], record.rounds
    (alpha_low, alpha_high), (low, high) = facts["alpha_interval"], facts["beta_interval"]
    frozen = record.scenario.value is not None and record.scenario.value.frozen
    follows = (
        "The estimates were not used to set the cap"
        if frozen
        else "The cap of each round follows from the estimates of earlier rounds"
    )
    words = (
        f"The server measured the gain of {format_count(facts['n_rounds'], 'round')} of training "
        f"and fitted beta ln(1 + alpha eps) to it. The final estimates are "
        f"alpha = {number(facts['alpha'], 3)} ({number(alpha_low, 2)} to {number(alpha_high, 2)}) "
        f"and beta = {number(facts['beta'], 3)} ({number(low, 2)} to {number(high, 2)}); "
        f"{facts['depreciation']:.1%} of the accuracy gained so far is lost per round. {follows}."
    )
    regret = (
        f"By the final estimate, a constant cap of {number(facts['best_cap'], 3)} would have given "
        f"the server {number(facts['best_server_value'], 4)}; its own caps gave "
        f"{number(facts['server_value'], 4)}, a regret of {number(facts['regret'], 3)}. The best "
        f"concave curve differs from the logarithm by {number(facts['misfit'], 2)} (root mean "
        "square over the rounds)."
    )
    picture = Picture(
        "closed_loop",
        closed_loop(rounds),
        "Eight panels over the rounds: payment cap, mean epsilon, active and exited nodes, privacy "
        "spent, test accuracy, alpha and beta with their intervals, and the measured value of "
        "each round with the expected one.",
        "Dots: announced cap, and measured value of each round. Bands: 95 % credible intervals.",
    )
    return Section("What the server learned", [Words(words), Words(regret), picture])


def _list_node(node: Any, threshold: float) -> list[str]:
    return [
        name_node(node),
        "takes part" if node.active else "out",
        number(node.rho, 7),
        number(node.rho / threshold - 1, 3),
        number(node.epsilon, 4),
        number(node.utility, 3),
        "-" if node.active or pd.isna(node.exit_round) else str(node.exit_round),
    ]


def _earnings(record: Record) -> Section:
    market, nodes = record.run["market"], record.nodes
    losing = int((nodes["utility"] < 0).sum())
    words = (
        f"In the last round the server pays {number(market['payment'])} and has a utility of "
        f"{number(market['server_utility'])}; the utility of all nodes together is "
        f"{number(market['node_utility'])}. "
        + (
            f"{format_count(losing, 'node')} lost money in it."
            if losing
            else "No node lost money in it."
        )
    )
    picture = Picture(
        "utilities",
        utilities(record),
        f"The server's utility and payment, and the utility of all nodes together, over "
        f"{len(record.rounds)} rounds; they end at {number(market['server_utility'], 4)}, "
        f"{number(market['payment'], 4)} and {number(market['node_utility'], 4)}.",
        data=record.rounds[["round", "server_utility", "payment", "node_utility"]],
        source="rounds.parquet",
        interactive=True,
    )
    return Section("Payments and utilities", [Words(words), picture])
