"""The report of a run: what was played, how it ended, who sells privacy, and what it bought."""

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
from fcfn_abm.report.figures.frames import few_traces
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
from fcfn_abm.report.theme import arm_label
from fcfn_abm.report.trained_page import training_sections

_NEAR = 1e-3  # farther from the closed form than this share, rest is worth a second look
_NODES = ("node", "name", "rho", "epsilon", "equilibrium_epsilon", "utility", "active")
_AROUND = 6  # nodes on either side of the threshold that are listed
_VERDICTS: dict[str, tuple[Tone, str]] = {
    "converged": ("good", "The market came to rest."),
    "no-trade": ("fair", "Nobody trades."),
    "max-rounds": ("fair", "The market had not come to rest when its rounds were over."),
    "paused": ("fair", "The market was still being played."),
    "stopped": ("good", "No further round is bought."),
    "cycling": ("bad", "The market never settles: reports go round and round."),
    "diverged": ("bad", "The market moves away from its equilibrium."),
}


_GROUPS = (
    "What the groups of nodes reached in the last round, beside where the mechanism leads to. The "
    "column group of nodes.parquet says to which group a node belongs."
)


def run_page(record: Record, scenario_toml: str) -> Page:
    """Return the report of a run.

    Parameters
    ----------
    record : Record
        As it was read from disk.
    scenario_toml : str
        Its scenario file, to be shown.
    """
    sections = [
        Section("What was run", [settings_table(record.scenario)]),
        _describe_settling(record),
        _equilibrium(record),
        _who_left(record),
        _earnings(record),
    ]
    if groups := groups_table(record):
        sections.insert(3, Section("The groups", [Words(_GROUPS), groups]))
    if "tracking" in record.run:
        sections.insert(2, _describe_tracking(record.run["tracking"]))
    if "value" in record.run:
        sections.append(_describe_learning(record))
    if "training" in record.run:
        sections += training_sections(record)
    seconds = record.run["seconds"]
    took = f"It took {seconds['market']:.3g} s to play"
    took += f" and {seconds['training']:.3g} s to train." if "training" in record.run else "."
    command = "fcfn run scenario.toml --out again"
    sections.append(reproduce(command, scenario_toml, record.run, took))
    return Page(
        title=record.scenario.title or "Privacy market",
        subtitle=f"Report of a run of fcfn_abm, seed {record.scenario.seed}",
        lead=[_verdict(record), _facts(record), *map(Words, _in_short(record))],
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
        Fact("Nodes that take part", number(market["n_active"]), f"of {len(record.nodes):,}"),
        Fact("The server pays", number(market["payment"], 4), "currency a round"),
        *_describe_cap(record.run["verdict"]),
        Fact("Mean epsilon", number(market["mean_epsilon"], 4), _describe_mean(record)),
        Fact("Utility of the server", number(market["server_utility"], 4), "currency a round"),
        Fact("Utility of all nodes", number(market["node_utility"], 4), "currency a round"),
    ]
    arms = record.run.get("training", {}).get("arms", [])
    if arms:
        own = arms[0]
        facts.append(Fact("Test accuracy", f"{own['accuracy']:.1%}", arm_label(own["name"])))
        central = record.scenario.privacy.view == "central" and "epsilon_central" in record.nodes
        spent = record.nodes["epsilon_central" if central else "epsilon_total"].max()
        note = "by one node, in all" + (", as the server sees it" if central else "")
        facts.append(Fact("Most epsilon spent", number(float(spent), 4), note))
    return Facts(facts)


def _describe_cap(verdict: Mapping[str, Any]) -> list[Fact]:
    """Say how far the cap is from the server's best one, where there is one."""
    ratio, regret = verdict.get("budget_ratio"), verdict.get("server_regret")
    if ratio is None or regret is None:
        return []
    return [Fact("B / B*", number(ratio), f"{number(regret, 3)} to gain by B*")]


def _describe_mean(record: Record) -> str:
    over = record.run["equilibrium"]["average_over"]
    return f"over {AVERAGED[over]}"


def _in_short(record: Record) -> list[str]:
    market, form = record.run["market"], record.run["equilibrium"]
    n, n_nodes = market["n_active"], len(record.nodes)
    if not n:
        return [f"None of the {n_nodes:,} nodes sells privacy in the end. {form['reason']}".strip()]
    text = (
        f"{n:,} of {format_count(n_nodes, 'node')} sell privacy in the end. For "
        f"{number(market['payment'], 4)} a round the server gets a mean epsilon of "
        f"{number(market['mean_epsilon'], 4)}, and keeps {number(market['server_utility'], 4)} of "
        f"what the net is worth to it; the nodes keep {number(market['node_utility'], 4)} of the "
        "payment when the cost of their privacy is taken off."
    )
    others = record.nodes.loc[~record.nodes["active"], "rho"]
    if len(others) and form["threshold"] and others.min() >= form["threshold"]:
        text += (
            f" The others stay out: privacy costs them {number(form['threshold'], 4)} for a unit "
            "of epsilon or more."
        )
    paragraphs = [text]
    arms = record.run.get("training", {}).get("arms", [])
    if arms:
        reached = ", ".join(f"{arm['accuracy']:.1%} ({arm_label(arm['name'])})" for arm in arms)
        paragraphs.append(
            f"Training on {record.run['training']['data']} then reaches this test accuracy: "
            f"{reached}."
        )
    return paragraphs


def _describe_settling(record: Record) -> Section:
    market, form = record.run["market"], record.run["equilibrium"]
    text = (
        f"In the last round the most that a node could gain by moving alone was "
        f"{number(market['exploitability'], 3)} of the cap, epsilon had changed by "
        f"{number(market['change'], 3)} times the largest one, and the farthest node was "
        f"{number(market['distance'], 3)} times the largest epsilon away from the "
        f"{'equilibrium' if 'solution' in form else 'closed form'}."
    )
    picture = Picture(
        "convergence",
        convergence(record.rounds, few_traces(record), form["total_epsilon"]),
        f"Three panels over {len(record.rounds)} rounds: epsilon of single nodes; their sum S, "
        f"which ends at {number(market['total_epsilon'], 4)} where the closed form has "
        f"{number(form['total_epsilon'], 4)}; and three measures of distance from equilibrium, "
        f"with exploitability ending at {number(market['exploitability'], 2)}.",
        "a: what single nodes report (a sample of a large market). b: the sum of all reports. "
        "c: how far the market is from equilibrium, on a log scale.",
        record.rounds[["round", "total_epsilon", "distance", "exploitability", "change"]],
        "rounds.parquet and traces.parquet",
        interactive=True,
    )
    terms = Terms(
        {
            "Exploitability": "the largest gain that any node has left by changing its epsilon "
            "alone, as a share of the cap B. Zero is a Nash equilibrium.",
            "Distance to the closed form": "the largest difference between a node's epsilon and "
            "the one that the formulas give, as a share of the largest epsilon.",
            "Change": "the largest move of the last round, as a share of the largest epsilon.",
        }
    )
    return Section("Did the market settle?", [Words(text), picture, terms])


def _describe_tracking(facts: Mapping[str, Any]) -> Section:
    words = (
        "Nodes come and go in this market, or their costs drift: the equilibrium itself moves, and "
        "what counts is how closely the market follows it. Means over the "
        f"{format_count(facts['n_rounds'], 'round')} in the second half of the moving."
    )
    rows = [
        [name.removeprefix("tracking_").replace("_", " "), number(value)]
        for name, value in facts.items()
        if name != "n_rounds"
    ]
    return Section(
        "Did it follow the moving equilibrium?", [Words(words), Table(["", "mean"], rows)]
    )


def _equilibrium(record: Record) -> Section:
    form, market = record.run["equilibrium"], record.run["market"]
    reference = (
        "the closed form of the game" if form["threshold"] else "what the mechanism leads to"
    )
    words = (
        f"What the market reached, round by round and from what nodes may see, beside {reference}, "
        "which knows every cost."
    )
    terms = {
        "Epsilon": "how much privacy a node gives up: zero reveals nothing, and with a larger one "
        "the noise on what the node sends is smaller. It has no unit.",
        "Utility": f"of a node: what it is paid less {_name_cost(record)}. Of the server: what "
        "the net is worth to it less what it pays. Currency a round.",
    }
    if form["threshold"]:
        terms["tau"] = (
            "the unit privacy costs of the n nodes that take part, added up. tau/(n-1) is the "
            "cost from which on a node does better to stay out."
        )
    sold = ZCDP_NOTE if record.scenario.privacy.currency == "zcdp" else ""
    words = " ".join(text for text in (words, describe_beliefs(record.run), sold) if text)
    return Section("The equilibrium", [Words(words), equilibrium_table(form, market), Terms(terms)])


def _name_cost(record: Record) -> str:
    """Return what epsilon costs a node, in words."""
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
                "The cap is shared in proportion to epsilon, so a node earns something only where "
                f"its unit cost rho lies below tau/(n-1), here {number(threshold, 6)}. Whenever a "
                "costly node leaves, tau falls and this bound with it, and the next costliest may "
                f"have to go. Here {format_count(int((~nodes['active']).sum()), 'node')} of "
                f"{len(nodes):,} stay out in the end."
            )
        )
    picture = Picture(
        "rho_epsilon",
        rho_against_epsilon(nodes, threshold),
        f"Epsilon of each node against its unit privacy cost: {int(nodes['active'].sum()):,} "
        f"take part, and {int((~nodes['active']).sum()):,} stay out"
        + (f", from a cost of {number(threshold, 4)} on." if threshold else "."),
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
            f"Nodes that take part over {len(record.rounds)} rounds, ending at "
            f"{int(nodes['active'].sum()):,}; and how many nodes left for good in each round.",
            data=record.rounds[["round", "n_active", "n_exited"]],
            source="rounds.parquet and nodes.parquet",
            interactive=True,
        )
    )
    return Section("Who left, and why", blocks)


def _groups(nodes: pd.DataFrame, threshold: float) -> Table:
    """Count nodes by what became of them."""
    active, cheap = nodes["active"], nodes["rho"] < threshold
    if threshold:
        groups = {
            "takes part": active & cheap,
            "takes part, though costlier than tau/(n-1)": active & ~cheap,
            "priced out: rho is tau/(n-1) or more": ~active & ~cheap,
            "out, though the equilibrium has a place for it": ~active & cheap,
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
    head = ["what became of it", "nodes", "rho", "left in round", "never left, reports zero"]
    return Table(head, rows, "Nodes by what became of them")


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
    """List the costliest nodes that stay and the cheapest that are out."""
    stays = nodes[nodes["active"]].nlargest(_AROUND, "rho").sort_values("rho")
    out = nodes[~nodes["active"]].nsmallest(_AROUND, "rho")
    rows = [_list_node(node, threshold) for node in [*stays.itertuples(), *out.itertuples()]]
    head = ["", "", "rho", "beyond bound", "epsilon", "utility", "left in round"]
    return Table(
        head,
        rows,
        "The costliest nodes that stay, and the cheapest that are out",
        "Beyond bound: by how much rho is larger than tau/(n-1), as a share of it; where that is "
        "positive a node is better off outside. nodes.parquet has all nodes.",
        frozenset({0, 1}),
    )


def _describe_learning(record: Record) -> Section:
    """Say what a server has learned of the value of epsilon from its own rounds."""
    facts, rounds = record.run["value"], record.rounds
    (alpha_low, alpha_high), (low, high) = facts["alpha_interval"], facts["beta_interval"]
    frozen = record.scenario.value is not None and record.scenario.value.frozen
    follows = "It did not price by them" if frozen else "Each round was priced by the rounds before"
    words = (
        f"The server measured what {format_count(facts['n_rounds'], 'round')} of training gained, "
        f"and fitted beta ln(1 + alpha eps) to it: in the end alpha = {number(facts['alpha'], 3)} "
        f"({number(alpha_low, 2)} to {number(alpha_high, 2)}) and beta = "
        f"{number(facts['beta'], 3)} ({number(low, 2)} to {number(high, 2)}), while "
        f"{facts['depreciation']:.1%} of the accuracy gained so far is lost in a round. {follows}."
    )
    regret = (
        f"By that last estimate a cap of {number(facts['best_cap'], 3)} in every round would have "
        f"left it {number(facts['best_server_value'], 4)}, and its own caps left it "
        f"{number(facts['server_value'], 4)}: a regret of {number(facts['regret'], 3)}. The best "
        f"concave curve lies {number(facts['misfit'], 2)} away from the logarithm (root mean "
        "square over the rounds)."
    )
    picture = Picture(
        "closed_loop",
        closed_loop(rounds),
        "Eight panels over the rounds: the payment cap, mean epsilon, nodes that take part and "
        "that have left, privacy spent, test accuracy, alpha and beta with their intervals, and "
        "the measured value of each round beside the expected one.",
        "Dots: the announced cap, and what each round was measured to be worth. Bands: 95 % "
        "credible intervals.",
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
        f"In the last round the server pays {number(market['payment'])} and keeps a utility of "
        f"{number(market['server_utility'])}; all nodes together keep "
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
        f"The server's utility and what it pays, and the utility of all nodes together, over "
        f"{len(record.rounds)} rounds; they end at {number(market['server_utility'], 4)}, "
        f"{number(market['payment'], 4)} and {number(market['node_utility'], 4)}.",
        data=record.rounds[["round", "server_utility", "payment", "node_utility"]],
        source="rounds.parquet",
        interactive=True,
    )
    return Section("What everybody earns", [Words(words), picture])
