"""A description of one node in sentences."""

from __future__ import annotations

from fcfn_abm.scenario import Exit
from fcfn_abm.viz.frame import Frame, Source
from fcfn_abm.viz.svg import number


def describe_node(frame: Frame, source: Source, node: int) -> list[str]:
    """Describe the reports and earnings of a node, and why it exited.

    Parameters
    ----------
    frame : Frame
        The current state.
    source : Source
        Source of the window's data.
    node : int
        Number of the node.

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
                f"This round has no data on node {node:,}. The last round shows all present nodes."
            ]
        return [f"There is no node {node:,}: nodes are numbered from 0 to {last:,}."]
    rho, epsilon = float(frame.rho[place]), float(frame.epsilon[place])
    group, names = frame.scenario.population.group_of(node), frame.scenario.population.node_names
    name = names[node] if names else None
    leave = group.exit if group and group.exit else frame.scenario.exit
    return [
        *([f"Its name is {name}."] if name else []),
        *([f"It belongs to the group {group.name}."] if group else []),
        _cost(frame, rho),
        _present(frame, place, epsilon),
        *_absence(frame, leave, source.exit_round(node), rho, epsilon),
        *_since(source, node),
    ]


def _since(source: Source, node: int) -> list[str]:
    """Return from which round the reports of a node of a large market are known."""
    rounds = source.path(node).rounds
    if not source.live or not rounds or rounds[0] == 0:
        return []
    return [f"Its reports were recorded from round {rounds[0]} on, when it was first selected."]


def _cost(frame: Frame, rho: float) -> str:
    cheaper = int((frame.rho < rho).sum())
    among = "" if frame.nodes.size == frame.n_nodes else " of those shown"
    sentence = (
        f"Its unit privacy cost is rho = {number(rho)}; {cheaper:,} nodes{among} have lower costs."
    )
    if not frame.threshold:
        return sentence
    times = rho / frame.threshold
    side = "so it takes part in closed form" if times < 1 else "so it stays out in closed form"
    return f"{sentence} This is {number(times)} times τ/(n−1), {side}."


def _present(frame: Frame, place: int, epsilon: float) -> str:
    if not frame.round:
        return f"It starts with epsilon = {number(epsilon)}."
    if not epsilon:
        return f"In round {frame.round} it reports nothing and earns nothing."
    paid, utility = float(frame.payment[place]), float(frame.utility[place])
    keeps = (
        f"and its utility after privacy costs is {number(utility)}"
        if utility >= 0
        else f"which is {number(-utility)} less than its privacy cost"
    )
    share = epsilon / max(float(frame.history["total_epsilon"][-1]), 1e-300)
    return (
        f"In round {frame.round} it reports epsilon = {number(epsilon)}, {share:.2%} of the total; "
        f"it is paid {number(paid)}, {keeps}."
    )


def _absence(
    frame: Frame, settings: Exit, left: int | None, rho: float, epsilon: float
) -> list[str]:
    if left is None:
        if epsilon or not frame.round:
            return []
        return ["It has not exited: it waits for a round in which reporting pays off."]
    return [
        f"It exited at the end of round {left}: {_reason(frame, settings, left, rho)}",
        "It re-enters when reporting pays off."
        if settings.reentry
        else "It does not re-enter: exits are final in this scenario.",
    ]


def _reason(frame: Frame, settings: Exit, left: int, rho: float) -> str:
    rounds = frame.history["round"]
    for_so_long = (
        "in that round" if settings.patience == 1 else f"for {settings.patience} rounds in a row"
    )
    if not frame.threshold:
        return f"{for_so_long} its contract paid less than its privacy cost."
    if settings.criterion == "loss":
        cause = f"{for_so_long} its payment was below its privacy cost"
    else:
        cause = f"{for_so_long} its best response was to report nothing"
    if left not in rounds:
        return f"{cause}."
    at = list(rounds).index(left)
    total, cap = float(frame.history["total_epsilon"][at]), float(frame.history["budget"][at])
    if frame.form["mechanism"] != "stackelberg" or not total > 0:
        return f"{cause}."
    return (
        f"{cause}. In round {left} the payment per unit of epsilon was B/S = "
        f"{number(cap / total)}, and its unit cost is {number(rho)}."
    )
