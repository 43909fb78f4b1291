"""The pictures of the window: each takes a frame, and returns SVG with a text alternative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fcfn_abm.report.blocks import format_count
from fcfn_abm.report.theme import ARM_COLOURS, ARM_DASHES, BOUND, LEAVES, STAYS, arm_label
from fcfn_abm.viz.frame import Floats, Frame, Path, Rows
from fcfn_abm.viz.svg import (
    INK,
    MUTED,
    Chart,
    Scale,
    dots,
    number,
    path,
    picture,
    rectangles,
    text,
    ticks,
)

WIDTH, HEIGHT = 380.0, 260.0
SELLS_BY_NAME = 2000  # more participating nodes than this are drawn as a density
STRIP = 26.0  # width of the strip for nodes with costs beyond the axis

SERVER_COLOUR, WELFARE_COLOUR = "#009E73", INK

_LEVELS = ("#C5DDEF", "#8FBFE0", "#559DCB", "#0072B2", "#00517F", "#00243B")
_GREYS = ("#E1E4E8", "#C9CDD2", "#AEB3B9", "#8C8C8C", "#6B6F75", "#4A4D52")


@dataclass(frozen=True)
class Picture:
    """One picture with its text alternative."""

    name: str
    title: str
    alt: str
    svg: str
    places: Sequence[tuple[Rows, Floats, Floats]] = field(default=(), repr=False)
    """Positions of the nodes: rows, x and y."""

    def node_at(self, x: float, y: float, radius: float = 18.0) -> int | None:
        """Return the nearest node within ``radius`` of a point, or None."""
        found, nearest = None, radius**2
        for rows, across, down in self.places:
            if rows.size:
                distance = (across - x) ** 2 + (down - y) ** 2
                first = int(np.argmin(distance))
                if distance[first] < nearest:
                    found, nearest = int(rows[first]), float(distance[first])
        return found


def draw_rho_epsilon(frame: Frame, picked: int | None = None) -> Picture:
    """Draw epsilon against the unit privacy cost rho, and the threshold tau / (n - 1).

    Nodes with costs beyond the axis are drawn in a strip at its right end, by rank. Large numbers
    of inactive nodes are drawn as counts along the axis, large numbers of active ones as cells.
    """
    rho, epsilon = frame.rho, frame.epsilon
    low, high = _choose_costs(frame)
    line_x = np.linspace(low, high, 80)
    line_y = _closed_form(frame, line_x)
    most = max(float(epsilon.max(initial=0.0)), float(line_y.max(initial=0.0)))
    y = Scale(0.0, _round_up(most), 220.0, 44.0)
    x = Scale(low, high, 50.0, WIDTH - 14.0 - STRIP)
    chart = Chart(x, y, "unit privacy cost rho", "epsilon")
    costly = rho > high
    across = x(np.minimum(rho, high))
    if costly.any():
        order = frame.by_cost[costly[frame.by_cost]]
        steps = (np.arange(order.size) + 0.5) / order.size
        across[order] = x.end + 8.0 + steps * (STRIP - 10.0)
    down = y(epsilon)
    sells = epsilon > 0
    chart.parts += _draw_outside(across[~sells], y.start)
    if np.count_nonzero(sells) <= SELLS_BY_NAME:
        n_sells = np.count_nonzero(sells)
        size = 8.0 if n_sells <= 300 else 4.0
        chart.parts.append(dots(across[sells], down[sells], STAYS, size=size, opacity=0.75))
    else:
        chart.parts += _draw_cells(across[sells], down[sells], y)
    if frame.threshold:
        at = x.at(frame.threshold)
        if x.start <= at <= x.end:
            chart.parts.append(
                f'<path d="M{at:.1f} {y.start:.1f}V{y.end:.1f}" stroke="{BOUND}" '
                'stroke-width="1.6" stroke-dasharray="5 4"/>'
            )
            chart.legend.append((f"τ/(n-1) = {number(frame.threshold)}", BOUND, "5 4"))
        if line_y.any():
            chart.line(line_x, line_y, INK, "closed form", width=1.2)
    elif frame.priced is not None and frame.priced.size <= SELLS_BY_NAME:
        chart.parts.append(dots(across, y(frame.priced), INK, size=2.5))
        chart.legend.append(("as priced", INK, "1 3"))
    if costly.any():
        chart.parts.append(_draw_strip(x.end, y, int(costly.sum())))
    place = None if picked is None else frame.place_of(picked)
    if place is not None:
        chart.parts.append(draw_ring(float(across[place]), float(down[place]), 7.0))
    alt = (
        f"Epsilon against unit privacy cost of {format_count(rho.size, 'node')}: {sells.sum():,} "
        "report more than zero"
    )
    if sells.any():
        alt += f", at costs from {number(rho[sells].min())} to {number(rho[sells].max())}"
    alt += f"; {(~sells).sum():,} report zero."
    if frame.threshold:
        alt += f" In closed form nodes stay out from {number(frame.threshold)} on."
    return Picture(
        "rho-epsilon",
        "Who sells privacy, and how much",
        alt,
        picture(WIDTH, HEIGHT, [chart.render()]),
        [(frame.nodes, across, down)],
    )


def _closed_form(frame: Frame, rho: Floats) -> Floats:
    """Return epsilon = S (1 - rho (n - 1) / tau) of the contest at its present pool, (29)."""
    if not frame.threshold:
        return np.zeros(rho.size)
    return np.asarray(np.maximum(frame.expected_total * (1.0 - rho / frame.threshold), 0.0))


def _choose_costs(frame: Frame) -> tuple[float, float]:
    """Return the costs between which the axis lies: around the threshold, if there is one."""
    rho = frame.rho
    if not rho.size:
        return 0.0, 1.0
    least, most = float(rho.min()), float(rho.max())
    threshold = frame.threshold
    if threshold > least:
        most = min(most, threshold + 1.2 * (threshold - least))
    room = 0.04 * (most - least) or 0.5 * least
    return max(least - room, 0.0), most + room


def _draw_outside(across: Floats, bottom: float) -> list[str]:
    """Draw nodes that report zero along the axis: as points, or as counts."""
    if across.size <= SELLS_BY_NAME:
        return [dots(across, np.full(across.size, bottom), LEAVES, size=6.0, opacity=0.8)]
    width = 5.0
    counts = np.bincount((across / width).astype(np.intp))
    parts = []
    for level, colour in zip(_group_by_count(counts), _GREYS, strict=True):
        if level.size:
            left, top = width * level.astype(float), np.full(level.size, bottom - 7.0)
            parts.append(rectangles(left, top, width, 7.0, colour))
    return parts


def _draw_cells(across: Floats, down: Floats, y: Scale) -> list[str]:
    """Draw the number of nodes in each cell of a grid; darker cells hold more."""
    size, columns = 6.0, int(WIDTH // 6.0) + 1
    cell = (down / size).astype(np.intp) * columns + (across / size).astype(np.intp)
    counts = np.bincount(cell)
    parts = []
    for level, colour in zip(_group_by_count(counts), _LEVELS, strict=True):
        if level.size:
            row, column = np.divmod(level.astype(float), columns)
            top = np.minimum(row * size, y.start - size)
            parts.append(rectangles(column * size, top, size, size, colour))
    return parts


def _group_by_count(counts: Rows) -> list[Rows]:
    """Return where counts are positive, in six groups of equal steps of their logarithm."""
    filled = np.flatnonzero(counts)
    if not filled.size:
        return [filled] * len(_LEVELS)
    share = np.log1p(counts[filled]) / math.log1p(float(counts.max()))
    level = np.minimum((share * len(_LEVELS)).astype(int), len(_LEVELS) - 1)
    return [filled[level == k] for k in range(len(_LEVELS))]


def _draw_strip(end: float, y: Scale, n_costly: int) -> str:
    line = (
        f'<path d="M{end + 4:.1f} {y.start:.1f}V{y.end:.1f}" stroke="{MUTED}" '
        'stroke-width="1" stroke-dasharray="1 3"/>'
        f'<path d="M{end + 4:.1f} {y.start:.1f}h{STRIP:.1f}" stroke="{MUTED}" stroke-width="1"/>'
    )
    return line + text(end + 4 + STRIP, y.end - 9, f"{n_costly:,} costlier ⟶", anchor="end")


def draw_ring(x: float, y: float, radius: float) -> str:
    """Mark a node with a ring around it."""
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="none" stroke="{INK}" '
        'stroke-width="2.2" data-picked="true"/>'
    )


@dataclass(frozen=True)
class _Part:
    """One chart over rounds: label, reference level, and the measures with their line styles."""

    label: str
    level: float
    lines: Sequence[tuple[str, str, str, str]]
    """Name of a measure, its label, colour and dashes."""


def draw_totals(frame: Frame) -> Picture:
    """Draw S and B round by round, and the closed form."""
    history, form = frame.history, frame.form
    total, cap = float(form["total_epsilon"]), float(form["payment"])
    svg = _draw_rounds(
        frame,
        _Part("S, sum of all epsilon", total, [("total_epsilon", "market", STAYS, "")]),
        _Part("B, payment cap in currency", cap, [("budget", "", STAYS, "")]),
    )
    alt = f"{_reference(frame).capitalize()}: S = {number(total)}, B = {number(cap)}."
    if frame.round:
        alt = (
            f"Round {frame.round}: S = {number(history['total_epsilon'][-1])}, "
            f"B = {number(history['budget'][-1])}. {alt}"
        )
    return Picture("totals", "Total epsilon and payment cap", alt, svg)


def _reference(frame: Frame) -> str:
    """Return the name of the mechanism's reference result."""
    return "closed form" if frame.threshold else "as priced"


def _draw_rounds(frame: Frame, *charts: _Part) -> str:
    """Draw one chart of rounds, or two above each other."""
    places = [(220.0, 44.0)] if len(charts) == 1 else [(128.0, 44.0), (220.0, 158.0)]
    parts = []
    for chart, (bottom, top) in zip(charts, places, strict=True):
        lowest = chart is charts[-1]
        seen = [np.array(frame.history[name], dtype=float) for name, *_ in chart.lines]
        y = _y_scale(seen, chart.level, bottom, top)
        axes = Chart(
            _rounds_scale(frame),
            y,
            "round" if lowest else "",
            chart.label,
            whole_x=True,
            named_x=lowest,
        )
        for values, (_, label, colour, dashes) in zip(seen, chart.lines, strict=True):
            inside = np.where(values < y.low, np.nan, values)
            axes.line(_rounds(frame), inside, colour, label, dashes=dashes)
        axes.level(chart.level, BOUND, _reference(frame) if chart is charts[0] else "")
        parts.append(axes.render())
    return picture(WIDTH, HEIGHT, parts)


def draw_distances(frame: Frame) -> Picture:
    """Draw distance, exploitability and change round by round, on a log scale."""
    kinds = (
        ("distance", "distance", STAYS, ""),
        ("exploitability", "exploitability", BOUND, "5 3"),
        ("change", "change", MUTED, "1.5 3"),
    )
    seen = {name: np.array(frame.history[name], dtype=float) for name, *_ in kinds}
    every = np.concatenate(list(seen.values()))
    every = every[np.isfinite(every) & (every > 0)]
    low, high = (float(every.min()), float(every.max())) if every.size else (1e-3, 1.0)
    low = 10.0 ** math.floor(math.log10(max(low, 1e-17)))
    high = max(10.0 ** math.ceil(math.log10(high)), 10 * low)
    y = Scale(low, high, 220.0, 44.0, log=True)
    chart = Chart(_rounds_scale(frame), y, "round", "relative, log scale", whole_x=True)
    for name, label, colour, dashes in kinds:
        above = np.where(
            seen[name] < low, np.nan, seen[name]
        )  # below this are rounding errors only
        chart.line(_rounds(frame), above, colour, label, dashes=dashes)
    if frame.round and not every.size:
        chart.parts.append(text(WIDTH / 2, 136.0, "all three are zero", anchor="middle"))
    alt = "How far from equilibrium the market is; nothing has been played yet."
    if frame.round:
        latest = ", ".join(f"{label} {number(seen[name][-1])}" for name, label, *_ in kinds)
        alt = f"Round {frame.round}, on a log scale: {latest}."
    return Picture(
        "distances", "How far from equilibrium", alt, picture(WIDTH, HEIGHT, [chart.render()])
    )


def draw_participation(frame: Frame) -> Picture:
    """Draw the numbers of active and of exited nodes while the reports of a round stand."""
    n_form, n_nodes = int(frame.form["n_active"]), frame.n_nodes
    few = 0 < n_form < n_nodes / 30  # on a linear scale the line would lie on the axis
    y = (
        Scale(1.0, 10.0 ** math.ceil(math.log10(n_nodes)), 220.0, 44.0, log=True)
        if few
        else Scale(0.0, _round_up(n_nodes), 220.0, 44.0)
    )
    label = "nodes, log scale" if few else "nodes"
    chart = Chart(_rounds_scale(frame), y, "round", label, whole_x=True)
    active = np.array(frame.history["n_active"], dtype=float)
    left = np.array(frame.history["n_exited"], dtype=float)
    chart.line(_rounds(frame), active, STAYS, "take part")
    chart.line(_rounds(frame), left, LEAVES, "have left", dashes="5 3")
    name = _reference(frame)
    chart.level(float(n_form) if n_form else math.nan, BOUND, f"{name}: {n_form:,}")
    alt = f"In closed form {n_form:,} of {n_nodes:,} nodes take part."
    if frame.round:
        counts = [f"{active[-1]:,.0f} take part", f"{left[-1]:,.0f} have left"]
        if "n_inactive" in frame.history:  # not in records of earlier versions
            counts.insert(1, f"{frame.history['n_inactive'][-1]:,} report nothing")
        alt = f"Round {frame.round}: {', '.join(counts)}. {alt}"
    return Picture("participation", "Who takes part", alt, picture(WIDTH, HEIGHT, [chart.render()]))


def draw_utilities(frame: Frame) -> list[Picture]:
    """Draw the utilities of nodes and server: in one picture, or in two if no net is trained."""
    server, nodes = float(frame.form["server_utility"]), float(frame.form["node_utility"])
    both = _Part(
        "server and welfare, currency a round",
        server,
        [
            ("server_utility", "server", SERVER_COLOUR, ""),
            ("welfare", "welfare", WELFARE_COLOUR, "1.5 3"),
        ],
    )
    own = _Part("all nodes together, currency a round", nodes, [("node_utility", "", STAYS, "")])
    alt = [
        _describe_utility(frame, both, "server"),
        _describe_utility(frame, own, "all nodes together"),
    ]
    if frame.training:
        svg = _draw_rounds(frame, both, own)
        return [Picture("utilities", "Utilities and welfare", " ".join(alt), svg)]
    return [
        Picture("utilities", "Server and welfare", alt[0], _draw_rounds(frame, both)),
        Picture("node-utilities", "What all nodes earn", alt[1], _draw_rounds(frame, own)),
    ]


def _describe_utility(frame: Frame, part: _Part, whose: str) -> str:
    ends = f"{_reference(frame).capitalize()}: {whose} {number(part.level)} a round, in currency."
    if not frame.round:
        return ends
    now = ", ".join(
        f"{label or whose} {number(frame.history[name][-1])}" for name, label, *_ in part.lines
    )
    return f"Round {frame.round}: {now}. {ends}"


def draw_accuracy(frame: Frame) -> Picture | None:
    """Draw the test accuracy of each run; None if no net is trained."""
    training = frame.training
    if training is None:
        return None
    y = Scale(0.0, 1.0, 220.0, 44.0)
    x = Scale(0, max(training.rounds, 1), 58.0, WIDTH - 14)
    chart = Chart(x, y, "round of training", "test accuracy", whole_x=True)
    latest = []
    for arm, (rounds, values) in training.curves.items():
        dashes = " ".join(f"{2 * float(dash):g}" for dash in ARM_DASHES.get(arm, ()))
        label = {"no-noise": "no noise"}.get(arm, arm_label(arm))
        chart.line(rounds, values, ARM_COLOURS.get(arm, MUTED), label, dashes=dashes)
        if len(values):
            latest.append(f"{label} {values[-1]:.1%}")
    alt = f"Test accuracy on {training.data}, of {training.rounds} rounds: "
    alt += (", ".join(latest) or "training has not begun") + "."
    return Picture(
        "accuracy",
        f"Training on {training.data}",
        alt,
        picture(WIDTH, HEIGHT, [chart.render()]),
    )


def draw_node_path(frame: Frame, node: int, known: Path) -> Picture:
    """Draw the epsilon of one node, round by round."""
    rounds = np.array(known.rounds, dtype=float)
    values = np.array(known.epsilon, dtype=float)
    y = Scale(0.0, _round_up(float(values.max(initial=0.0))), 118.0, 26.0)
    chart = Chart(_rounds_scale(frame), y, "round", "its epsilon", whole_x=True)
    chart.parts.append(path(chart.x(rounds), y(values), STAYS, width=2))
    alt = f"Epsilon of node {node:,} round by round: nothing is known yet."
    if values.size:
        alt = (
            f"Epsilon of node {node:,} from {number(values[0])} in round {rounds[0]:.0f} to "
            f"{number(values[-1])} in round {rounds[-1]:.0f}."
        )
    return Picture("path", "Its epsilon", alt, picture(WIDTH, 160.0, [chart.render()]))


def _rounds(frame: Frame) -> Floats:
    return np.array(frame.history["round"], dtype=float)


def _rounds_scale(frame: Frame) -> Scale:
    return Scale(0, _last_round(frame), 58.0, WIDTH - 14)


def _last_round(frame: Frame) -> float:
    """Return the end of the axis of rounds; it grows in steps, so that the axis rarely moves."""
    return max(10.0, ticks(0, max(frame.round, 1) * 1.2, 6)[-1], float(frame.round))


def _y_scale(seen: list[Floats], level: float, bottom: float, top: float) -> Scale:
    """Return a scale for some lines; large early losses may lie below it, the latest value not."""
    every = np.append(np.concatenate(seen), level)
    every = every[np.isfinite(every)]
    gains = every[every > 0]
    most = float(gains.max()) if gains.size else 1.0
    if gains.size == every.size and most > 1000 * float(gains.min()):
        low = 10.0 ** math.floor(math.log10(float(gains.min())))
        return Scale(low, 10.0 ** math.ceil(math.log10(most)), bottom, top, log=True)
    now = min((float(line[-1]) for line in seen if line.size), default=0.0)
    floor = -1.5 * max(most, abs(level))
    low = max(float(every.min(initial=0.0)), floor if now >= floor else 10 * now)
    return Scale(-_round_up(-low) if low < 0 else 0.0, _round_up(most), bottom, top)


def _round_up(value: float) -> float:
    """Return the next round number above, so that axes rarely move."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value * 1.02))
    return next(m * power for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if m * power >= value)
