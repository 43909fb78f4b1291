"""Pictures of the window: each function takes a frame and returns SVG with a text alternative."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from fcfn_abm.report.blocks import format_count
from fcfn_abm.report.theme import BOUND, LEAVES, STAYS
from fcfn_abm.viz.frame import Floats, Frame, Path, Rows
from fcfn_abm.viz.svg import (
    INK,
    MUTED,
    Chart,
    Scale,
    dots,
    end_of_rounds,
    number,
    path,
    picture,
    rectangles,
    round_up,
    text,
)

WIDTH, HEIGHT = 380.0, 260.0
SELLS_BY_NAME = 2000  # more participating nodes than this are drawn as a density
STRIP = 26.0  # width of the strip for nodes with costs beyond the axis

_LEVELS = ("#C5DDEF", "#8FBFE0", "#559DCB", "#0072B2", "#00517F", "#00243B")
_GREYS = ("#E1E4E8", "#C9CDD2", "#AEB3B9", "#8C8C8C", "#6B6F75", "#4A4D52")


@dataclass(frozen=True)
class Rings:
    """The rings of a star: the nodes in each, and its position."""

    order: Rows
    """The shown nodes by increasing cost."""
    edges: Rows
    """Rank at which each ring begins, followed by the end of the last ring."""
    centre: tuple[float, float]
    core: float
    """Radius of the inner edge of the first ring."""
    thick: float

    def ring_at(self, x: float, y: float) -> int | None:
        """Return the ring at a point, or None."""
        ring = math.floor(
            (math.hypot(x - self.centre[0], y - self.centre[1]) - self.core) / self.thick
        )
        return ring if 0 <= ring < self.edges.size - 1 else None

    def ring_of(self, node: int) -> int | None:
        """Return the ring of a node, or None."""
        ranks = np.flatnonzero(self.order == node)
        return int(np.searchsorted(self.edges, ranks[0], side="right")) - 1 if ranks.size else None

    def nodes_in(self, ring: int) -> Rows:
        """Return the nodes of a ring."""
        return self.order[self.edges[ring] : self.edges[ring + 1]]

    def radius(self, ring: int) -> float:
        """Return the radius of a ring."""
        return self.core + (ring + 0.5) * self.thick


@dataclass(frozen=True)
class Picture:
    """One picture with its text alternative."""

    name: str
    title: str
    alt: str
    svg: str
    places: tuple[Rows, Floats, Floats] | None = field(default=None, repr=False)
    """Positions of the nodes: rows, x and y."""
    rings: Rings | None = field(default=None, repr=False)
    """Rings, if the nodes are not drawn individually."""

    def node_at(self, x: float, y: float, radius: float = 18.0) -> int | None:
        """Return the nearest node within ``radius`` of a point, or None."""
        if self.places is None or not self.places[0].size:
            return None
        rows, across, down = self.places
        distance = (across - x) ** 2 + (down - y) ** 2
        nearest = int(np.argmin(distance))
        return int(rows[nearest]) if distance[nearest] < radius**2 else None

    def mark_node(self, node: int) -> dict[str, float] | None:
        """Return the circle that marks a node, or None if it is not drawn."""
        if self.rings:
            ring = self.rings.ring_of(node)
            return None if ring is None else self._mark_ring(self.rings, ring)
        if self.places is None:
            return None
        rows, across, down = self.places
        found = np.flatnonzero(rows == node)
        if not found.size:
            return None
        return {"x": float(across[found[0]]), "y": float(down[found[0]]), "r": 9.0}

    def mark_nodes(self, nodes: Rows) -> dict[str, float] | None:
        """Return the mark of nodes with adjacent costs: their ring, or the band of their costs."""
        if self.rings:
            return self.mark_node(int(nodes[0]))
        ends = [self.mark_node(int(node)) for node in (nodes[0], nodes[-1])]
        across = [end["x"] for end in ends if end]
        return {"left": min(across) - 3.0, "right": max(across) + 3.0} if across else None

    def _mark_ring(self, rings: Rings, ring: int) -> dict[str, float]:
        x, y = rings.centre
        return {"x": x, "y": y, "r": rings.radius(ring)}


def describe_place(frame: Frame, place: int) -> str:
    """Describe the node at a position of the columns: cost, report, payment and utility."""
    row, names = int(frame.nodes[place]), frame.scenario.population.node_names
    state = ""
    if not frame.epsilon[place]:
        state = ", exited" if frame.exited[place] else ", stays out"
    return (
        f"{(names and names[row]) or f'node {row}'}: ρ {number(frame.rho[place])}, "
        f"ε {number(frame.epsilon[place])}, payment {number(frame.payment[place])}, "
        f"utility {number(frame.utility[place])}{state}"
    )


def draw_rho_epsilon(frame: Frame, picked: int | None = None) -> Picture:
    """Draw epsilon against the unit privacy cost rho, with the threshold tau / (n - 1).

    Nodes with costs beyond the axis are drawn by rank in a strip at its right end. Many inactive
    nodes are drawn as counts along the axis, many active ones as cells of a density.
    """
    rho, epsilon = frame.rho, frame.epsilon
    low, high = _choose_costs(frame)
    line_x = np.linspace(low, high, 80)
    line_y = _closed_form(frame, line_x)
    most = max(float(epsilon.max(initial=0.0)), float(line_y.max(initial=0.0)))
    y = Scale(0.0, round_up(most), 220.0, 44.0)
    x = Scale(low, high, 50.0, WIDTH - 14.0 - STRIP)
    chart = Chart(x, y, "unit privacy cost ρ", "ε")
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
        "report a positive epsilon"
    )
    if sells.any():
        alt += f", at costs from {number(rho[sells].min())} to {number(rho[sells].max())}"
    alt += f"; {(~sells).sum():,} report zero."
    if frame.threshold:
        alt += f" In closed form, nodes with a cost of {number(frame.threshold)} or more stay out."
    return Picture(
        "rho-epsilon",
        "Privacy sold by cost",
        alt,
        picture(WIDTH, HEIGHT, [chart.render()]),
        (frame.nodes, across, down),
    )


def _closed_form(frame: Frame, rho: Floats) -> Floats:
    """Return epsilon = S (1 - rho (n - 1) / tau) of the contest at its current pool (29)."""
    if not frame.threshold:
        return np.zeros(rho.size)
    return np.asarray(np.maximum(frame.expected_total * (1.0 - rho / frame.threshold), 0.0))


def _choose_costs(frame: Frame) -> tuple[float, float]:
    """Return the ends of the cost axis, which is around the threshold, if there is one."""
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
    """Draw nodes that report zero along the axis, as points or as counts."""
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
    """Draw the number of nodes in each cell of a grid; darker cells have more nodes."""
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
    """Return the indices of positive counts, in six groups of equal log width."""
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
    return line + text(
        end + 4 + STRIP, y.end - 9, f"{n_costly:,} with higher costs ⟶", anchor="end"
    )


def draw_ring(x: float, y: float, radius: float) -> str:
    """Mark a node with a ring around it."""
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="none" stroke="{INK}" '
        'stroke-width="2.2" data-picked="true"/>'
    )


def draw_node_path(frame: Frame, node: int, known: Path) -> Picture:
    """Draw the epsilon of one node by round."""
    rounds = np.array(known.rounds, dtype=float)
    values = np.array(known.epsilon, dtype=float)
    y = Scale(0.0, round_up(float(values.max(initial=0.0))), 118.0, 26.0)
    x = Scale(0, end_of_rounds(frame.round), 58.0, WIDTH - 14)
    chart = Chart(x, y, "round", "ε of the node", whole_x=True)
    chart.parts.append(path(chart.x(rounds), y(values), STAYS, width=2))
    alt = f"Epsilon of node {node:,} by round: no data yet."
    if values.size:
        alt = (
            f"Epsilon of node {node:,} from {number(values[0])} in round {rounds[0]:.0f} to "
            f"{number(values[-1])} in round {rounds[-1]:.0f}."
        )
    return Picture("path", "Epsilon of the node", alt, picture(WIDTH, 160.0, [chart.render()]))
