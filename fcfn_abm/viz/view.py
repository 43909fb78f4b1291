"""The page's content as plain data: numbers, status, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fcfn_abm.viz.frame import Frame, Source
from fcfn_abm.viz.pictures import Picture, draw_rho_epsilon
from fcfn_abm.viz.star import ColourBy, draw_star
from fcfn_abm.viz.svg import number

_AVERAGED = {
    "active": "active nodes",
    "population": "all nodes",
    "effective": "the effective number",
}
_VERDICT_NAMES = {
    "converged": "Converged",
    "cycling": "Cycling",
    "diverged": "Diverged",
    "no-trade": "No trade",
    "max-rounds": "Not converged",
    "stopped": "Stopped",
    "paused": "Saved",
}


@dataclass
class View:
    """The state sent to the browser, as plain data."""

    title: str
    subtitle: str = ""
    """Description of the changed settings, if any."""
    status: str = "Opening the market."
    tone: str = "calm"
    problem: str = ""
    """A sentence about what failed or was rejected."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Invalid settings, with a sentence each."""
    note: str = ""
    live: bool = True
    playing: bool = False
    over: bool = False
    moment: int = 0
    first_moment: int = 0
    moments: int = 0
    speed: float = 5.0
    colour_by: str = "payment"
    picked: int | None = None
    hover: dict[str, Any] = field(default_factory=dict)
    """The mark in all pictures: ``label``, and ``marks`` by picture name."""
    n_nodes: int = 0
    link: str | None = ""
    """The settings as the query of a link; None if a link cannot hold them."""
    tiles: list[dict[str, str]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, str]] = field(default_factory=list)
    charts: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    """The compared runs, as returned by :func:`fcfn_abm.viz.pins.compare_runs`."""
    can_pin: bool = False
    marker: int | None = None
    """The round of the pictures, if the curves continue beyond it."""
    path: dict[str, str] | None = None
    node_details: list[str] = field(default_factory=list)


def draw_pictures(frame: Frame, colour_by: ColourBy, picked: int | None) -> list[Picture]:
    """Draw the pictures of nodes, in page order."""
    return [draw_star(frame, colour_by, picked), draw_rho_epsilon(frame, picked)]


def list_tiles(frames: Sequence[Frame]) -> list[dict[str, str]]:
    """Return the main numbers of frames, each with its reference value.

    Returns
    -------
    list of dict
        With ``label``, ``value`` and ``note`` of the first frame, and ``other`` of the second.
    """
    first, *others = [_numbers(frame) for frame in frames]
    beside = {label: value for other in others for label, value, _ in other}
    return [
        {"label": label, "value": value, "note": note, "other": beside.get(label, "")}
        for label, value, note in first
    ]


def _numbers(frame: Frame) -> list[tuple[str, str, str]]:
    form = frame.form
    name = "closed form" if frame.threshold else "as priced"

    def now(measure: str) -> str:
        values = frame.history[measure]
        return number(values[-1]) if len(values) else "-"

    over = _AVERAGED[form["average_over"]]
    rows: list[tuple[str, str, str]] = [
        ("Round", f"{frame.round:,}", f"at most {frame.scenario.rounds.maximum:,}"),
        ("Payment cap B", now("budget"), f"{name} {number(form['payment'])}"),
        (
            "Active nodes",
            f"{frame.history['n_active'][-1]:,}" if frame.round else "-",
            f"{name} {form['n_active']:,} of {frame.n_nodes:,}",
        ),
        ("Total epsilon S", now("total_epsilon"), f"{name} {number(form['total_epsilon'])}"),
        ("Mean epsilon", now("mean_epsilon"), f"over {over}"),
        ("Utility of all nodes", now("node_utility"), f"{name} {number(form['node_utility'])}"),
        (
            "Utility of the server",
            now("server_utility"),
            f"{name} {number(form['server_utility'])}",
        ),
    ]
    if frame.training:
        rounds, values = next(iter(frame.training.curves.values()), ([], []))
        done = f"round {rounds[-1] if len(rounds) else 0:,} of {frame.training.rounds:,}"
        rows.append(("Test accuracy", f"{values[-1]:.1%}" if len(values) else "-", done))
    return rows


def describe_status(source: Source, frame: Frame, *, playing: bool) -> tuple[str, str]:
    """Return the status line, and its tone: "calm", "good" or "alert"."""
    if source.live and source.moment < source.moments:
        words = f"Showing round {frame.round:,}. Play continues from the last round."
        return words, "calm"
    verdict = source.verdict
    if verdict is None:
        if playing:
            return "Playing." if source.live else "Replaying.", "calm"
        if frame.round == 0:
            return (
                f"Ready: {frame.n_nodes:,} nodes have made their initial reports. Press Play to "
                "start the market."
            ), "calm"
        return f"Paused after round {frame.round:,}; the market has not ended.", "calm"
    kind = str(verdict["kind"])
    name = _VERDICT_NAMES.get(kind, kind)
    words = f"{name} after {verdict['rounds']:,} rounds: {verdict['reason']}"
    if not source.over:
        started = frame.training and any(len(r) > 1 for r, _ in frame.training.curves.values())
        pending = "is paused" if started else "comes next"
        words += f" Training {'continues' if playing else pending}."
    return words, "good" if kind == "converged" else "alert"
