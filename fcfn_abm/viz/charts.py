"""The charts of rounds: their descriptions and the columns behind them.

The browser draws them (``charts.vue``); it gets the columns as binary increments, since most of a
curve is the same in every frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fcfn_abm.report.theme import ARM_COLOURS, ARM_DASHES, BOUND, LEAVES, STAYS, training_label
from fcfn_abm.viz.frame import Floats, Frame
from fcfn_abm.viz.svg import INK, MUTED, end_of_rounds, number, round_up

SERVER_COLOUR, WELFARE_COLOUR = "#009E73", INK
MARKET = "market"
"""Name of the table of rounds."""
_COLUMNS = (
    "round",
    "total_epsilon",
    "budget",
    "distance",
    "exploitability",
    "change",
    "n_active",
    "n_exited",
    "server_utility",
    "welfare",
    "node_utility",
)

_LEARNED = (
    *("alpha", "alpha_low", "alpha_high"),
    *("beta", "beta_low", "beta_high"),
    *("epsilon_spent", "measured_value", "expected_value"),
)
"""Additional columns if the server learns the value of epsilon."""

type Columns = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Line:
    """A curve: two columns of a table, its label, colour and dashes."""

    label: str
    column: str
    colour: str
    dashes: Sequence[float] = ()
    table: str = MARKET
    x: str = "round"
    run: str = ""
    """Name of the pinned run, if it is one."""


@dataclass(frozen=True)
class Ghost:
    """The curves of a run drawn next to those of the shown run."""

    name: str
    colour: str
    tables: Mapping[str, Columns]


@dataclass(frozen=True)
class LineChart:
    """A chart of lines over rounds, with its text alternative."""

    name: str
    title: str
    alt: str
    y_label: str
    lines: Sequence[Line]
    x_end: float
    """End of the axis of rounds, which starts at zero."""
    low: float
    high: float
    log: bool
    """Ends and scale of the vertical axis, until the user changes them."""
    level: float | None = None
    """A horizontal line: the reference value."""
    level_label: str = ""
    x_label: str = "round"
    linked: bool = True
    """Whether crosshair and zoom are shared with the charts of the market's rounds."""
    ghosts: Sequence[Line] = ()
    """The same lines of the compared runs."""
    about: str = ""
    """What the chart will show, displayed before the first round."""


_ABOUT = {
    "totals": "Press Play to see the total epsilon that the nodes report in each round. The dashed "
    "line is its value in closed form.",
    "caps": "Press Play to see the payment cap that the server announces in each round, and the "
    "optimal cap in closed form.",
    "distances": "Press Play to see how far the reports are from equilibrium. All three lines fall "
    "if the market converges.",
    "participation": "Press Play to see how many nodes sell privacy, and how many have exited.",
    "utilities": "Press Play to see the utility of the server, and the welfare.",
    "node-utilities": "Press Play to see the sum of the nodes' utilities (payment minus privacy "
    "cost).",
    "accuracy": "Press Play to see the test accuracy. Training starts after the market, with the "
    "epsilon that the server bought.",
    "spent": "Press Play to see the total epsilon of the node that has spent most.",
    "alpha": "Press Play to see the server's estimate of alpha with its interval.",
    "beta": "Press Play to see the server's estimate of beta with its interval.",
    "round-value": "Press Play to see the value of each round of training to the server.",
}


def describe_charts(frame: Frame, ghosts: Sequence[Ghost] = ()) -> list[LineChart]:
    """Describe the charts of a frame, in the order of the page.

    Parameters
    ----------
    frame : Frame
        The shown run.
    ghosts : sequence of Ghost, optional
        Runs to compare it with.
    """
    tables = list_tables(frame)
    return [
        _add_ghosts(chart, ghosts)
        if ghosts or len(tables[chart.lines[0].table]["round"])
        else replace(chart, about=_ABOUT.get(chart.name, ""))
        for chart in _describe_own(frame)
    ]


def _describe_own(frame: Frame) -> list[LineChart]:
    accuracy = describe_accuracy(frame)
    return [
        *describe_totals(frame),
        describe_distances(frame),
        describe_participation(frame),
        *describe_utilities(frame),
        *([accuracy] if accuracy else []),
        *(describe_learning(frame) if "alpha" in frame.history else []),
    ]


def _add_ghosts(chart: LineChart, ghosts: Sequence[Ghost]) -> LineChart:
    """Return a chart with the lines of other runs and axes that fit them."""
    low, high, x_end, lines = chart.low, chart.high, chart.x_end, []
    for ghost in ghosts:
        for line, table in _matching_lines(chart, ghost):
            columns = ghost.tables[table]
            label, name = f"{line.label}, {ghost.name}", f"{ghost.name}/{table}"
            lines.append(
                replace(line, label=label, colour=ghost.colour, table=name, run=ghost.name)
            )
            rounds = columns[line.x]
            if chart.linked and len(rounds):
                x_end = max(x_end, end_of_rounds(int(rounds[-1])))
            low, high = _widen((low, high), columns[line.column], log=chart.log)
    return replace(chart, low=low, high=high, x_end=x_end, ghosts=lines)


def _matching_lines(chart: LineChart, ghost: Ghost) -> list[tuple[Line, str]]:
    """Return the lines of a chart that another run also has, with their tables."""
    if chart.linked:
        return [(x, x.table) for x in chart.lines if x.column in ghost.tables.get(x.table, ())]
    own = [table for table in ghost.tables if table != MARKET]
    return list(zip(chart.lines, own, strict=False))  # the own mechanism of a run comes first


def _widen(ends: tuple[float, float], column: Sequence[float], *, log: bool) -> tuple[float, float]:
    """Return the ends of an axis that fits another line: all gains, and its last value."""
    low, high = ends
    values = np.asarray(column, dtype=float)
    values = values[np.isfinite(values)]
    if log:
        values = values[values > 0]
    if not values.size:
        return ends
    most, last = float(values.max()), float(values[-1])
    if log:
        least = 10.0 ** math.floor(math.log10(max(float(values.min()), 1e-17)))
        return min(low, least), max(high, 10.0 ** math.ceil(math.log10(most)))
    return min(low, -round_up(-last) if last < 0 else low), max(
        high, round_up(most) if most > 0 else high
    )


def list_tables(frame: Frame) -> dict[str, Columns]:
    """Return the columns behind the charts: those of the rounds, and two per training."""
    names = (*_COLUMNS, *_LEARNED) if "alpha" in frame.history else _COLUMNS
    tables: dict[str, Columns] = {MARKET: {name: frame.history[name] for name in names}}
    if frame.training:
        for arm, (rounds, accuracy) in frame.training.curves.items():
            tables[_table_of(arm)] = {"round": rounds, "accuracy": accuracy}
    return tables


def describe_totals(frame: Frame) -> list[LineChart]:
    """Describe S and B by round, with the closed form."""
    total, cap = float(frame.form["total_epsilon"]), float(frame.form["payment"])
    return [
        _describe_rounds(
            frame,
            ("totals", "Total epsilon S", "sum of all ε"),
            [Line("S", "total_epsilon", STAYS)],
            total,
        ),
        _describe_rounds(
            frame,
            ("caps", "Payment cap B", "currency per round"),
            [Line("B", "budget", STAYS)],
            cap,
        ),
    ]


def describe_distances(frame: Frame) -> LineChart:
    """Describe distance, exploitability and change by round, on a log scale."""
    lines = [
        Line("distance", "distance", STAYS),
        Line("exploitability", "exploitability", BOUND, (5, 3)),
        Line("change", "change", MUTED, (1.5, 3)),
    ]
    every = np.concatenate([_column(frame, line) for line in lines])
    every = every[np.isfinite(every) & (every > 0)]
    low, high = (float(every.min()), float(every.max())) if every.size else (1e-3, 1.0)
    low = 10.0 ** math.floor(math.log10(max(low, 1e-17)))  # smaller values are rounding errors
    high = max(10.0 ** math.ceil(math.log10(high)), 10 * low)
    alt = "Distance of the market from equilibrium; no round has been played yet."
    if frame.round:
        latest = ", ".join(f"{x.label} {number(frame.history[x.column][-1])}" for x in lines)
        alt = f"Round {frame.round}, on a log scale: {latest}."
    return LineChart(
        "distances",
        "Distance from equilibrium",
        alt,
        "relative",
        lines,
        end_of_rounds(frame.round),
        low,
        high,
        log=True,
    )


def describe_participation(frame: Frame) -> LineChart:
    """Describe the numbers of active and exited nodes in each round."""
    n_form, n_nodes = int(frame.form["n_active"]), frame.n_nodes
    few = 0 < n_form < n_nodes / 30  # on a linear scale the line would coincide with the axis
    alt = f"In closed form {n_form:,} of {n_nodes:,} nodes are active."
    if frame.round:
        active, left = (frame.history[name][-1] for name in ("n_active", "n_exited"))
        counts = [f"{active:,.0f} active", f"{left:,.0f} exited"]
        if "n_inactive" in frame.history:  # absent from records of earlier versions
            counts.insert(1, f"{frame.history['n_inactive'][-1]:,} inactive")
        alt = f"Round {frame.round}: {', '.join(counts)}. {alt}"
    return LineChart(
        "participation",
        "Participation",
        alt,
        "nodes",
        [
            Line("active", "n_active", STAYS),
            Line("exited", "n_exited", LEAVES, (5, 3)),
        ],
        end_of_rounds(frame.round),
        low=1.0 if few else 0.0,
        high=10.0 ** math.ceil(math.log10(n_nodes)) if few else round_up(n_nodes),
        log=few,
        level=float(n_form) if n_form else None,
        level_label=_reference(frame),
    )


def describe_utilities(frame: Frame) -> list[LineChart]:
    """Describe the utilities of the server and the nodes, and the welfare."""
    server, nodes = float(frame.form["server_utility"]), float(frame.form["node_utility"])
    return [
        _describe_rounds(
            frame,
            ("utilities", "Server and welfare", "currency per round"),
            [
                Line("server", "server_utility", SERVER_COLOUR),
                Line("welfare", "welfare", WELFARE_COLOUR, (1.5, 3)),
            ],
            server,
        ),
        _describe_rounds(
            frame,
            ("node-utilities", "Utility of all nodes", "currency per round"),
            [Line("all nodes", "node_utility", STAYS)],
            nodes,
        ),
    ]


def describe_accuracy(frame: Frame) -> LineChart | None:
    """Describe the test accuracy of each training, or None if no net is trained."""
    training = frame.training
    if training is None:
        return None
    lines, latest = [], []
    for arm, (_, values) in training.curves.items():
        label = {"no-noise": "no noise"}.get(arm, training_label(arm))
        dashes = tuple(2 * float(dash) for dash in ARM_DASHES.get(arm, ()))
        colour = ARM_COLOURS.get(arm, MUTED)
        lines.append(Line(label, "accuracy", colour, dashes, table=_table_of(arm)))
        if len(values):
            latest.append(f"{label} {values[-1]:.1%}")
    alt = f"Test accuracy on {training.data}, of {training.rounds} rounds: "
    return LineChart(
        "accuracy",
        f"Training on {training.data}",
        alt + (", ".join(latest) or "training has not started") + ".",
        "test accuracy",
        lines,
        float(max(training.rounds, 1)),
        low=0.0,
        high=1.0,
        log=False,
        x_label="training round",
        linked=False,
    )


def describe_learning(frame: Frame) -> list[LineChart]:
    """Describe the privacy spent and the server's estimates by round."""
    faint = (2, 3)
    charts = {
        ("spent", "Privacy spent", "ε of the node that spent most"): [
            Line("largest total", "epsilon_spent", BOUND),
        ],
        ("alpha", "The server's estimate of α", "per unit of ε"): [
            Line("estimate", "alpha", BOUND),
            Line("95 % low", "alpha_low", MUTED, faint),
            Line("to", "alpha_high", MUTED, faint),
        ],
        ("beta", "The server's estimate of β", "currency"): [
            Line("estimate", "beta", BOUND),
            Line("95 % low", "beta_low", MUTED, faint),
            Line("to", "beta_high", MUTED, faint),
        ],
        ("round-value", "Value of each round", "currency"): [
            Line("measured", "measured_value", MUTED, (1.5, 3)),
            Line("expected", "expected_value", BOUND),
        ],
    }
    return [
        _describe_lines(frame, names, lines, log=names[0] == "alpha")
        for names, lines in charts.items()
    ]


def _describe_lines(
    frame: Frame, names: tuple[str, str, str], lines: Sequence[Line], *, log: bool
) -> LineChart:
    """Describe a chart of measures without a reference value."""
    name, title, y_label = names
    columns = [column[np.isfinite(column)] for column in (_column(frame, x) for x in lines)]
    every = np.concatenate(columns)
    if log and every.size:
        low = 10.0 ** math.floor(math.log10(float(every.min())))
        high = 10.0 ** math.ceil(math.log10(float(every.max())))
        high = max(high, 10.0 * low)
    else:
        low, high, log = choose_range(columns, math.nan)
    now = "no round has been played yet"
    if every.size:
        latest = [
            f"{line.label} {number(column[-1])}"
            for line, column in zip(lines, columns, strict=True)
            if column.size
        ]
        now = f"round {frame.round}: {', '.join(latest)}"
    return LineChart(
        name,
        title,
        f"{title}, {now}.",
        y_label,
        lines,
        end_of_rounds(frame.round),
        low,
        high,
        log,
    )


def _describe_rounds(
    frame: Frame, names: tuple[str, str, str], lines: Sequence[Line], level: float
) -> LineChart:
    """Describe a chart of measures whose reference value is known."""
    name, title, y_label = names
    low, high, log = choose_range([_column(frame, line) for line in lines], level)
    label = _reference(frame)
    now = "no round has been played yet"
    if frame.round:
        latest = ", ".join(f"{x.label} {number(frame.history[x.column][-1])}" for x in lines)
        now = f"round {frame.round}: {latest}"
    alt = f"{title}, {now}. {label.capitalize()}: {lines[0].label} {number(level)}."
    return LineChart(
        name,
        title,
        alt,
        y_label,
        lines,
        end_of_rounds(frame.round),
        low,
        high,
        log,
        level if math.isfinite(level) else None,
        label,
    )


def choose_range(columns: Sequence[Floats], level: float) -> tuple[float, float, bool]:
    """Return the ends of an axis, and whether it is logarithmic.

    Large early losses may lie below the axis; the latest values do not.
    """
    every = np.append(np.concatenate(columns), level)
    every = every[np.isfinite(every)]
    gains = every[every > 0]
    most = float(gains.max()) if gains.size else 1.0
    if gains.size == every.size and most > 1000 * float(gains.min(initial=math.inf)):
        low = 10.0 ** math.floor(math.log10(float(gains.min())))
        return low, 10.0 ** math.ceil(math.log10(most)), True
    latest = min((float(line[-1]) for line in columns if line.size), default=0.0)
    floor = -1.5 * max(most, abs(level))
    low = max(float(every.min(initial=0.0)), floor if latest >= floor else 10 * latest)
    return -round_up(-low) if low < 0 else 0.0, round_up(most), False


def _column(frame: Frame, line: Line) -> Floats:
    return np.array(frame.history[line.column], dtype=float)


def _table_of(arm: str) -> str:
    return f"training {arm}"


def _reference(frame: Frame) -> str:
    """Return the name of the reference value."""
    return "closed form" if frame.threshold else "as priced"


class Feed:
    """Sends the table rows that the browser does not have yet.

    Rows that were sent do not change, but a table may become shorter, for example when a replay
    goes back; a new version of a table starts empty.

    Parameters
    ----------
    send : callable
        Receives a list with one entry per table, and one buffer per table with the new
        rows: column after column, as 64-bit floats in the byte order of the browser.
    """

    def __init__(self, send: Callable[[list[dict[str, Any]], list[bytes]], None]) -> None:
        self._send = send
        self._sent: dict[str, tuple[int, int]] = {}

    def restart(self) -> None:
        """Forget which rows were sent, because the browser has lost them."""
        self._sent.clear()

    def push(self, tables: Mapping[str, Columns], version: int) -> None:
        """Send the new rows of the tables.

        Parameters
        ----------
        tables : mapping of str to Columns
            Columns of equal length per table.
        version : int
            Changes if rows that were sent may have changed.
        """
        heads, buffers = [], []
        for name, columns in tables.items():
            length = min(map(len, columns.values()), default=0)
            known, sent = self._sent.get(name, (version, 0))
            start = min(sent, length) if known == version else 0
            if self._sent.get(name) == (version, length):
                continue
            rows = np.array([list(c[start:length]) for c in columns.values()], dtype="<f8")
            heads.append(
                {"table": name, "version": version, "start": start, "columns": list(columns)}
            )
            buffers.append(rows.tobytes())
            self._sent[name] = (version, length)
        if heads:
            self._send(heads, buffers)
