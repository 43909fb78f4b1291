"""The star: the server in the middle, the nodes around it by increasing cost."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import numpy as np

from fcfn_abm.report.blocks import format_count
from fcfn_abm.report.theme import LEAVES
from fcfn_abm.viz.frame import Floats, Frame
from fcfn_abm.viz.pictures import WIDTH, Picture, Rings, draw_ring
from fcfn_abm.viz.svg import INK, MUTED, number, picture, power_of_ten, text

CROWD = 300
"""Larger numbers of nodes are drawn as rings."""

type ColourBy = Literal["payment", "utility"]

_HEIGHT = 428.0
_X, _Y, _RADIUS = WIDTH / 2, 184.0, 156.0
_PER_DECADE, _CORE, _RIM = 3, 30.0, 178.0
_LABEL = 26.0  # width of the label of a ring
_OUT = "#D5D9DE"
_STOPS = ((0.0, (214, 230, 243)), (0.55, (0, 114, 178)), (1.0, (0, 36, 59)))
_LOSS = ((0.0, (250, 219, 200)), (1.0, (168, 63, 0)))


def draw_star(frame: Frame, colour_by: ColourBy, picked: int | None = None) -> Picture:
    """Draw the server and its nodes; more than :data:`CROWD` nodes are drawn as rings."""
    draw = _draw_nodes if frame.nodes.size <= CROWD else _draw_rings
    return draw(frame, colour_by, picked)


def _draw_nodes(frame: Frame, colour_by: ColourBy, picked: int | None) -> Picture:
    n_shown = frame.nodes.size
    order = frame.by_cost
    angle = np.empty(n_shown)
    angle[order] = 2.0 * math.pi * np.arange(n_shown) / max(n_shown, 1)
    x, y = _X + _RADIUS * np.sin(angle), _Y - _RADIUS * np.cos(angle)
    largest = min(15.0, max(4.5, 0.46 * 2.0 * math.pi * _RADIUS / max(n_shown, 1)))
    most = float(frame.epsilon.max(initial=0.0))
    radius = largest * np.sqrt(frame.epsilon / most) if most > 0 else np.zeros(n_shown)
    values = frame.payment if colour_by == "payment" else frame.utility
    scale = float(np.abs(values).max(initial=0.0))
    spokes, circles = [], []
    for place in range(n_shown):
        px, py, size = float(x[place]), float(y[place]), float(radius[place])
        if size > 0:
            colour = _colour(float(values[place]), scale)
            inner = 26.0 / _RADIUS
            spokes.append(
                f'<path d="M{_X + inner * (px - _X):.1f} {_Y + inner * (py - _Y):.1f}'
                f'L{px:.1f} {py:.1f}" stroke="{colour}" stroke-width="1.2" opacity="0.55"/>'
            )
            circle = (
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{max(size, 1.5):.1f}" fill="{colour}" '
                'stroke="#fff" stroke-width="0.8"/>'
            )
        else:
            fill = LEAVES if frame.exited[place] else "#fff"
            circle = (
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{min(4.0, largest):.1f}" fill="{fill}" '
                f'stroke="{LEAVES}" stroke-width="1.2"/>'
            )
        circles.append(circle)
    parts = [*spokes, *circles, _server(frame)]
    at = None if picked is None else frame.place_of(picked)
    if at is not None:
        parts.append(draw_ring(float(x[at]), float(y[at]), max(float(radius[at]), 4) + 4))
        out = 1.0 - 30.0 / _RADIUS
        parts.append(
            text(
                _X + out * (float(x[at]) - _X),
                _Y + out * (float(y[at]) - _Y) + 4,
                str(picked),
                anchor="middle",
                colour=INK,
                size=13,
                bold=True,
            )
        )
    lines = ["clockwise by increasing cost; the area of a disc shows its ε"]
    if most > 0:
        lines = [f"clockwise by increasing cost; area: ε, up to {number(most)}"]
    parts.append(_legend(colour_by, values, scale, LEAVES, lines))
    n_sell, n_left = int((frame.epsilon > 0).sum()), int(frame.exited.sum())
    alt = (
        f"The server and {format_count(n_shown, 'node')} around it, clockwise by increasing "
        f"cost from the top: {n_sell} report a positive epsilon, up to {number(most)}; {n_left} "
        "have left."
    )
    return Picture(
        "star", "Server and nodes", alt, picture(WIDTH, _HEIGHT, parts), (frame.nodes, x, y)
    )


def _draw_rings(frame: Frame, colour_by: ColourBy, picked: int | None) -> Picture:
    """Draw nodes in rings by rank of cost; the ranks grow by a factor of ten every few rings."""
    order, n_shown = frame.by_cost, frame.nodes.size
    powers = np.arange(_PER_DECADE * math.log10(n_shown)) / _PER_DECADE
    edges = np.append(0, np.append(np.unique((10.0**powers).round()), n_shown)).astype(np.intp)
    starts, counts = edges[:-1], np.diff(edges)
    values = frame.payment if colour_by == "payment" else frame.utility
    sells = np.add.reduceat((frame.epsilon > 0)[order].astype(np.intp), starts)
    earned = np.add.reduceat(values[order], starts)
    mean = earned / np.maximum(sells, 1)
    scale = float(np.abs(mean).max(initial=0.0))
    thick = (_RIM - _CORE) / starts.size
    parts, counts_within, marks = [], [], []
    for ring in range(starts.size):
        r = _CORE + (ring + 0.5) * thick
        share = float(sells[ring] / counts[ring])
        parts.append(_arc(r, 1.0, thick - 1.0, _OUT))
        if share > 0:
            parts.append(_arc(r, share, thick - 1.0, _colour(float(mean[ring]), scale)))
    largest = math.floor(math.log10(n_shown))
    every = 1 if _PER_DECADE * thick > _LABEL else 2  # labelled powers of ten
    for ring, edge in enumerate(edges.tolist()):
        whole = edge >= 10 and math.log10(edge).is_integer()
        if not (whole or edge == n_shown):
            continue
        counts_within.append(
            f"{int(sells[:ring].sum()):,} of the {edge:,} nodes with the lowest costs are active"
        )
        if whole and (largest - round(math.log10(edge))) % every == 0:
            label = str(edge) if edge < 1000 else power_of_ten(edge)
            marks.append(_halo(_X - _CORE - ring * thick + 2, _Y + 4, label))
    parts += [*marks, _server(frame)]
    parts.append(
        _legend(
            colour_by,
            mean,
            scale,
            _OUT,
            [
                "rings from inside: the 10, 100, 10³ … lowest-cost nodes",
                "coloured arc: active share of the ring",
            ],
        )
    )
    if picked is not None and (place := frame.place_of(picked)) is not None:
        rank = int(np.flatnonzero(order == place)[0])
        ring = int(np.searchsorted(edges, rank, side="right")) - 1
        parts.append(draw_ring(_X, _Y, _CORE + (ring + 0.5) * thick))
    alt = (
        f"{n_shown:,} nodes as rings around the server, lowest costs innermost: "
        + "; ".join(counts_within)
        + "."
    )
    rings = Rings(frame.nodes[order], edges, (_X, _Y), _CORE, thick)
    return Picture("star", "Server and nodes", alt, picture(WIDTH, _HEIGHT, parts), rings=rings)


def _arc(radius: float, share: float, width: float, colour: str) -> str:
    around = 2.0 * math.pi * radius
    cut = f' stroke-dasharray="{share * around:.2f} {around:.2f}"' if share < 1 else ""
    return (
        f'<circle cx="{_X}" cy="{_Y}" r="{radius:.2f}" fill="none" stroke="{colour}" '
        f'stroke-width="{width:.2f}"{cut} transform="rotate(-90 {_X} {_Y})"/>'
    )


def _halo(x: float, y: float, words: str) -> str:
    """Return text with a white outline, readable on any background."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="10.5" fill="{INK}" stroke="#fff" '
        f'stroke-width="3" paint-order="stroke" stroke-linejoin="round">{words}</text>'
    )


def _server(frame: Frame) -> str:
    cap = frame.history["budget"][-1] if len(frame.history["budget"]) else None
    lines = [("server", 4.0)] if cap is None else [("B", -4.0), (number(cap), 11.0)]
    return f'<circle cx="{_X}" cy="{_Y}" r="26" fill="{INK}"/>' + "".join(
        text(_X, _Y + down, words, anchor="middle", colour="#fff", size=12, bold=True)
        for words, down in lines
    )


def _legend(colour_by: str, values: Floats, scale: float, out: str, lines: list[str]) -> str:
    """Return the legend of colours and sizes, below the picture."""
    top, left, width = 382.0, 84.0, 96.0
    losses = bool((values < 0).any())
    steps = np.linspace(-1.0 if losses else 0.0, 1.0, 25)
    bar = "".join(
        f'<rect x="{left + i * width / 25:.1f}" y="{top - 9}" width="{width / 25 + 0.3:.1f}" '
        f'height="10" fill="{_colour(float(s), 1.0)}"/>'
        for i, s in enumerate(steps)
    )
    low = f"-{number(scale)}" if losses and scale else "0"
    after = left + width + 24.0 + 8.0 * len(number(scale))
    parts = [
        text(left - 14 - 7.0 * len(low), top, colour_by, anchor="end", colour=INK),
        text(left - 6, top, low, anchor="end"),
        bar,
        text(left + width + 6, top, number(scale)),
        f'<circle cx="{after:.1f}" cy="{top - 4}" r="4.5" fill="{out}"/>',
        text(after + 10, top, "stays out", colour=INK),
    ]
    for i, line in enumerate(lines):
        parts.append(text(_X, top + 22 + 16 * i, line, anchor="middle", colour=MUTED))
    return "".join(parts)


def _colour(value: float, scale: float) -> str:
    """Return a shade of blue for gains, of orange for losses."""
    share = min(abs(value) / scale, 1.0) if scale > 0 else 0.0
    stops = _STOPS if value >= 0 else _LOSS
    for (low, below), (high, above) in pairwise(stops):
        if share <= high:
            t = (share - low) / (high - low)
            mixed = (round(a + t * (b - a)) for a, b in zip(below, above, strict=True))
            return "#" + "".join(f"{part:02x}" for part in mixed)
    return "#000000"
