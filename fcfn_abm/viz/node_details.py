"""A description of one node in sentences."""

from __future__ import annotations

from fcfn_abm.scenario import Exit
from fcfn_abm.viz.frame import Frame, Source
from fcfn_abm.viz.svg import number


def describe_node(frame: Frame, source: Source, node: int) -> list[str]:
    """Describe what a node reports and earns, and why it left.

    Parameters
    ----------
    frame : Frame
        The current state.
    source : Source
        What the window shows.
    node : int
        Row of the node.

    Returns
    -------
    list of str
        Sentences.
    """
    place = frame.place_of(node)
    if place is None:
        last = frame.scenario.population.n_nodes - 1
        if 0 <= node <= last:
            return [
                f"Nothing was kept of node {node:,} in this round. The last round shows all nodes "
                "that are there."
            ]
        return [f"There is no node {node:,}: they are numbered from 0 to {last:,}."]
    rho, epsilon = float(frame.rho[place]), float(frame.epsilon[place])
    group, names = frame.scenario.population.group_of(node), frame.scenario.population.node_names
    name = names[node] if names else None
    leave = group.exit if group and group.exit else frame.scenario.exit
    return [
        *([f"It is called {name}."] if name else []),
        *([f"It belongs to the group {group.name}."] if group else []),
        _cost(frame, rho),
        _present(frame, place, epsilon),
        *_absence(frame, leave, source.exit_round(node), rho, epsilon),
        *_since(source, node),
    ]


def _since(source: Source, node: int) -> list[str]:
    """Return from which round on the path of a node of a large market is known."""
    rounds = source.path(node).rounds
    if not source.live or not rounds or rounds[0] == 0:
        return []
    return [f"Its path is kept since it was first asked for, in round {rounds[0]}."]


def _cost(frame: Frame, rho: float) -> str:
    cheaper = int((frame.rho < rho).sum())
    among = "" if frame.nodes.size == frame.n_nodes else " of those shown"
    sentence = (
        f"A unit of epsilon costs it rho = {number(rho)}; {cheaper:,} nodes{among} are cheaper."
    )
    if not frame.threshold:
        return sentence
    times = rho / frame.threshold
    side = "so in closed form it takes part" if times < 1 else "so in closed form it stays out"
    return f"{sentence} That is {number(times)} times tau/(n-1), {side}."


def _present(frame: Frame, place: int, epsilon: float) -> str:
    if not frame.round:
        return f"It begins with epsilon = {number(epsilon)}."
    if not epsilon:
        return f"In round {frame.round} it reports nothing, and earns nothing."
    paid, utility = float(frame.payment[place]), float(frame.utility[place])
    keeps = (
        f"and keeps {number(utility)} of it after its privacy cost"
        if utility >= 0
        else f"which is {number(-utility)} less than its privacy costs it"
    )
    share = epsilon / max(float(frame.history["total_epsilon"][-1]), 1e-300)
    return (
        f"In round {frame.round} it reports epsilon = {number(epsilon)}, {share:.2%} of all; it is "
        f"paid {number(paid)}, {keeps}."
    )


def _absence(
    frame: Frame, settings: Exit, left: int | None, rho: float, epsilon: float
) -> list[str]:
    if left is None:
        if epsilon or not frame.round:
            return []
        return ["It has not left: it waits for a round in which a report pays."]
    return [
        f"It left at the end of round {left}: {_reason(frame, settings, left, rho)}",
        "It watches, and comes back when a report pays."
        if settings.reentry
        else "It does not come back: in this scenario an exit is final.",
    ]


def _reason(frame: Frame, settings: Exit, left: int, rho: float) -> str:
    rounds = frame.history["round"]
    for_so_long = (
        "in that round" if settings.patience == 1 else f"for {settings.patience} rounds in a row"
    )
    if not frame.threshold:
        return f"{for_so_long} its contract paid less than it costs."
    if settings.criterion == "loss":
        cause = f"{for_so_long} what it was paid lay below its privacy cost"
    else:
        cause = f"{for_so_long} its best reply to the others was to report nothing"
    if left not in rounds:
        return f"{cause}."
    at = list(rounds).index(left)
    total, cap = float(frame.history["total_epsilon"][at]), float(frame.history["budget"][at])
    if frame.form["mechanism"] != "stackelberg" or not total > 0:
        return f"{cause}."
    return (
        f"{cause}. In round {left} a unit of epsilon was paid B/S = {number(cap / total)}, "
        f"and costs it {number(rho)}."
    )
