"""Charts as small SVG strings, fast enough to draw several times per second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

type Floats = npt.NDArray[np.float64]

INK, MUTED, GRID = "#1f2328", "#57606a", "#e4e7eb"

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MOST_POINTS = 600  # more points make no visible difference


def number(value: float) -> str:
    """Format a number: three digits, thousands separators, powers of ten with superscripts.

    Examples
    --------
    >>> [number(x) for x in (0.0, 12, 0.01234, 98765.4, 3.2e-9, 4.5e9)]
    ['0', '12', '0.0123', '98,765', '3.2·10⁻⁹', '4.5·10⁹']
    """
    if not math.isfinite(value):
        return "-" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    size = abs(value)
    if size == 0 or 1e-4 <= size < 1e3:
        text = f"{value:.3g}"
        return f"{value:.0f}" if "e" in text else text
    if 1e3 <= size < 1e7:
        return f"{value:,.0f}"
    power = math.floor(math.log10(size))
    digits = f"{value / 10.0**power:.2g}"
    tens = f"10{str(power).translate(_SUPERSCRIPTS)}"
    return tens if digits == "1" else f"{digits}·{tens}"


def power_of_ten(value: float) -> str:
    """Format a power of ten with a superscript."""
    return f"10{str(round(math.log10(value))).translate(_SUPERSCRIPTS)}"


def short(value: float, *, log: bool = False) -> str:
    """Format a number for an axis: as :func:`number`, with suffixes for large ones.

    Examples
    --------
    >>> short(2_000_000.0), short(-250_000.0), short(100_000.0, log=True), short(20_000.0)
    ('2 M', '-250 k', '10⁵', '20,000')
    """
    if log and not 1e-3 <= value < 1e5:
        return power_of_ten(value)
    if 1e5 <= abs(value) < 1e6:
        return f"{value / 1e3:.3g} k"
    if 1e6 <= abs(value) < 1e9:
        return f"{value / 1e6:.3g} M"
    return number(value)


def text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    colour: str = MUTED,
    size: float = 13,
    bold: bool = False,
    turned: bool = False,
) -> str:
    """Return a text element; markup in ``words`` is escaped."""
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
        f'font-size="{size:g}"{weight}{turn}>{escape(words)}</text>'
    )


def path(
    x: Floats, y: Floats, colour: str, *, width: float = 1.8, dashes: str = "", opacity: float = 1
) -> str:
    """Return a line through points, with gaps at values that are not finite."""
    if x.size > _MOST_POINTS:
        some = np.unique(np.linspace(0, x.size - 1, _MOST_POINTS).round().astype(int))
        x, y = x[some], y[some]
    words, pen = [], "M"
    for px, py in zip(x.tolist(), y.tolist(), strict=True):
        if not (math.isfinite(px) and math.isfinite(py)):
            pen = "M"
            continue
        words.append(f"{pen}{px:.1f} {py:.1f}")
        pen = "L"
    if len(words) == 1:  # a single point is a line of length zero
        words.append("h0")
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    faint = f' opacity="{opacity:g}"' if opacity < 1 else ""
    return (
        f'<path d="{"".join(words)}" fill="none" stroke="{colour}" stroke-width="{width:g}" '
        f'stroke-linejoin="round" stroke-linecap="{"butt" if dashes else "round"}"{dashed}{faint}/>'
    )


def dots(x: Floats, y: Floats, colour: str, *, size: float, opacity: float = 1) -> str:
    """Return many equal dots as one element."""
    d = "".join(f"M{px:.1f} {py:.1f}h0" for px, py in zip(x.tolist(), y.tolist(), strict=True))
    return (
        f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="{size:g}" '
        f'stroke-linecap="round" opacity="{opacity:g}"/>'
    )


def rectangles(x: Floats, y: Floats, width: float, height: float, colour: str) -> str:
    """Return many equal rectangles as one element."""
    d = "".join(
        f"M{px:.1f} {py:.1f}h{width:.2f}v{height:.2f}h{-width:.2f}z"
        for px, py in zip(x.tolist(), y.tolist(), strict=True)
    )
    return f'<path d="{d}" fill="{colour}"/>'


def picture(width: float, height: float, parts: Sequence[str]) -> str:
    """Return a complete SVG, hidden from screen readers, which read its text alternative."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg" '
        f'aria-hidden="true" focusable="false">{"".join(parts)}</svg>'
    )


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers between two values.

    Examples
    --------
    >>> ticks(0.0, 1.0, 2)
    [0.0, 0.5, 1.0]
    """
    span = high - low
    if not span > 0:
        return [low]
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def labels(values: Sequence[float], *, log: bool = False) -> list[str]:
    """Return labels for the ticks of an axis, with enough digits to distinguish them.

    Examples
    --------
    >>> labels([0.0005, 0.0005005, 0.000501])
    ['0.0005', '0.0005005', '0.000501']
    """
    words = [short(value, log=log) for value in values]
    for digits in range(4, 16):
        if len(set(words)) == len(words):
            break
        words = [f"{value:.{digits}g}" for value in values]
    return words


def end_of_rounds(latest: int) -> float:
    """Return the end of an axis of rounds, which grows in steps so that it rarely moves.

    Examples
    --------
    >>> [end_of_rounds(latest) for latest in (0, 9, 10, 40)]
    [10.0, 10.0, 12.0, 40.0]
    """
    return max(10.0, ticks(0, max(latest, 1) * 1.2, 6)[-1], float(latest))


def round_up(value: float) -> float:
    """Return the next round number above, so that axes rarely move.

    Examples
    --------
    >>> [round_up(value) for value in (0.0, 0.7, 11.0, 99.0)]
    [1.0, 0.8, 12.0, 100.0]
    """
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value * 1.02))
    return next(m * power for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if m * power >= value)


def decades(low: float, high: float, most: int = 5) -> list[float]:
    """Return powers of ten between two values, at most about ``most``."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / most))
    return [10.0**power for power in range(first, last + 1) if (power - last) % every == 0]


@dataclass
class Scale:
    """A linear or logarithmic map from values to coordinates."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: npt.ArrayLike) -> Floats:
        """Return the coordinates of values; on a log scale zero gives NaN."""
        given = np.asarray(values, dtype=float)
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.log(given / self.low) / math.log(self.high / self.low)
            share = np.where(given > 0, share, np.nan)
        else:
            share = (given - self.low) / (self.high - self.low)
        return np.asarray(self.start + share * (self.end - self.start))

    def at(self, value: float) -> float:
        """Return the coordinate of one value."""
        return float(self(value))

    @property
    def ticks(self) -> list[float]:
        """Return round values for the labels, as many as fit."""
        most = max(2, min(5, round(abs(self.end - self.start) / 24)))
        if self.log:
            tens = decades(self.low, self.high, most)
            return tens if len(tens) > 1 else [*tens, self.high]
        return ticks(self.low, self.high, most)


@dataclass
class Chart:
    """Axes, lines and a legend."""

    x: Scale
    y: Scale
    x_label: str = ""
    y_label: str = ""
    whole_x: bool = False
    """Whether ticks are at integers only, as for rounds."""
    parts: list[str] = field(default_factory=list)
    legend: list[tuple[str, str, str]] = field(default_factory=list)
    """Label, colour and dashes."""

    def line(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        colour: str,
        label: str = "",
        *,
        dashes: str = "",
        width: float = 1.8,
    ) -> None:
        """Add a line, and its label to the legend."""
        self.parts.append(path(self.x(x), self.y(y), colour, width=width, dashes=dashes))
        if label:
            self.legend.append((label, colour, dashes))

    def render(self) -> str:
        """Return the SVG of axes, labels, lines and legend."""
        left, right = self.x.start, self.x.end
        bottom, top = self.y.start, self.y.end
        parts = []
        values = self.y.ticks
        for value, words in zip(values, labels(values, log=self.y.log), strict=True):
            y = self.y.at(value)
            parts.append(
                f'<path d="M{left:.1f} {y:.1f}H{right:.1f}" stroke="{GRID}" stroke-width="1"/>'
            )
            parts.append(text(left - 6, y + 4, words, anchor="end"))
        values = [x for x in self.x.ticks if not self.whole_x or x == round(x)]
        named = labels(values)
        places = self.x(values).tolist()
        gap = min(np.diff(places), default=math.inf)
        every = math.ceil((7.0 * max(map(len, named), default=0) + 8.0) / gap) or 1
        for rank, (x, words) in enumerate(zip(places, named, strict=True)):
            parts.append(f'<path d="M{x:.1f} {bottom:.1f}v4" stroke="{MUTED}" stroke-width="1"/>')
            if rank % every == 0:
                parts.append(text(x, bottom + 17, words, anchor="middle"))
        parts.append(
            f'<path d="M{left:.1f} {bottom:.1f}H{right:.1f}" stroke="{MUTED}" stroke-width="1"/>'
        )
        if self.x_label:
            middle = (left + right) / 2
            parts.append(text(middle, bottom + 34, self.x_label, anchor="middle"))
        if self.y_label:
            parts.append(text(left - 6, top - 9, self.y_label, anchor="start"))
        return "".join([*parts, *self.parts, *self._legend(left, right, top)])

    def _legend(self, left: float, right: float, top: float) -> list[str]:
        widths = [24 + 7.0 * len(label) for label, _, _ in self.legend]
        needed = sum(widths) + 8 * (len(widths) - 1)
        parts, x, y = [], max(2.0, min(left, right - needed)), top - 26
        for width, (label, colour, dashes) in zip(widths, self.legend, strict=True):
            dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
            parts.append(
                f'<path d="M{x:.1f} {y - 4:.1f}h16" stroke="{colour}" stroke-width="2.4"{dashed}/>'
                + text(x + 20, y, label, colour=INK)
            )
            x += width + 8
        return parts
