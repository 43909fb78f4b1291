"""A common look of all figures: colours of trainings and mechanisms, readable in grey."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fcfn_abm.errors import escape_control_characters

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette; line styles distinguish trainings in grey
ARM_COLOURS = {
    "stackelberg": "#0072B2",
    "no-noise": "#000000",
    "random": "#D55E00",
    "static": "#E69F00",
    "ic-mle": "#009E73",
    "yang": "#CC79A7",
    "tullock": "#56B4E9",  # from here on Tol's muted colours
    "weighted": "#332288",
    "fair-query": "#882255",
    "vcg": "#999933",
    "myerson-cap": "#44AA99",
    "posted-price": "#AA4499",
    "pooled-weights": "#117733",
}
ARM_DASHES: dict[str, tuple[float, ...] | str] = {
    "stackelberg": "",
    "no-noise": (1.0, 1.0),
    "random": (4.0, 1.5),
    "static": (6.0, 2.0, 1.0, 2.0),
    "ic-mle": (2.0, 1.0),
    "yang": (8.0, 2.0),
    "tullock": (3.0, 1.0),
    "weighted": (5.0, 1.0),
    "fair-query": (1.0, 2.0),
    "vcg": (1.0, 3.0),
    "myerson-cap": (6.0, 1.0, 1.0, 1.0),
    "posted-price": (4.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    "pooled-weights": (10.0, 3.0),
}
ARM_MARKERS = {
    "stackelberg": "o",
    "random": "D",
    "static": "^",
    "ic-mle": "s",
    "yang": "v",
    "tullock": "h",
    "weighted": "p",
    "fair-query": "<",
    "vcg": ">",
    "myerson-cap": "*",
    "posted-price": "P",
    "pooled-weights": "X",
}
TRAINING_LABELS = {
    "stackelberg": "equilibrium",
    "no-noise": "equilibrium's nodes, no noise",
}
SALT = "fcfn_abm"
"""Seed of the identifiers in SVG files, so that equal figures give equal files."""
STAYS, LEAVES, BOUND = "#0072B2", "#8C8C8C", "#D55E00"


@contextmanager
def plain_settings() -> Iterator[None]:
    """Ignore the settings of the user's matplotlibrc, except the backend."""
    from matplotlib import style

    with style.context("default"):
        yield


@contextmanager
def theme() -> Iterator[None]:
    """Draw in the project's style, and restore matplotlib's settings afterwards."""
    import matplotlib as mpl
    import seaborn as sns

    with (
        plain_settings(),
        sns.axes_style(
            "ticks", {"axes.grid": True, "grid.color": "0.92", "axes.edgecolor": "0.35"}
        ),
        sns.plotting_context("notebook", font_scale=0.95),
        mpl.rc_context(
            {
                "figure.constrained_layout.use": True,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "legend.edgecolor": "none",
                "legend.fancybox": False,
                "legend.framealpha": 0.8,  # lines behind it show through
                "axes.titleweight": "bold",
                "axes.titlelocation": "left",
                "savefig.dpi": 150,
                "svg.hashsalt": SALT,
            }
        ),
    ):
        yield


def letter_panels(panels: Iterable[Axes]) -> None:
    """Put the letters a, b, c before panel titles, so that text can refer to them."""
    for letter, axes in zip("abcdefghijklmnopqrstuvwxyz", panels, strict=False):
        title = axes.get_title(loc="left")
        axes.set_title(f"{letter}  {title}".rstrip(), loc="left")


def round_ticks(n: int = 6) -> MaxNLocator:
    """Return a locator for rounds: integer ticks in steps of 1, 2, 5, 10 and so on."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(n, integer=True, steps=[1, 2, 5, 10])


def spans_decades(values: Any, ratio: float = 30.0) -> bool:
    """Whether a linear scale would hide most of some positive values.

    Parameters
    ----------
    values : array_like of float
        Plotted values; nan are ignored.
    ratio : float
        Ratio of the 90th to the 10th percentile.
    """
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if not known.size or known.min() <= 0:
        return False
    low, high = np.quantile(known, (0.1, 0.9))
    return bool(high > ratio * low)


def fix_ticks(figure: Figure) -> Figure:
    """Fix the ticks under the current settings, which may differ when the figure is drawn."""
    with plain_settings():
        for axes in figure.axes:
            for part in (axes, *axes.child_axes):
                for axis in (part.xaxis, part.yaxis):
                    axis.get_major_ticks(1)  # matplotlib copies the others from the first
                    axis.get_minor_ticks(1)
    return figure


_COLOUR = re.compile(r"#([0-9a-f]{6})\b")
_DARK_PAPER, _DARK_INK = 0x1C, 0xE6
_LIGHTEST_DARK = 0.6  # least lightness of a colour on a dark background


def recolour(svg: str) -> tuple[str, set[str]]:
    """Return an SVG with CSS variables as colours, and the colours."""
    found = set(_COLOUR.findall(svg))
    return re.sub(r": #([0-9a-f]{6})\b", r": var(--c\1, #\1)", svg), found


def dark_style(colours: Iterable[str]) -> str:
    """Return the CSS that recolours figures on a dark background; greys are inverted.

    Examples
    --------
    >>> dark_style(["ffffff"]).splitlines()[1].strip()
    'figure svg { --cffffff: #1c1c1c; }'
    """
    rules = " ".join(f"--c{colour}: {_on_dark(colour)};" for colour in colours)
    return (
        "@media screen and (prefers-color-scheme: dark) {\n"
        f"  figure svg {{ {rules} }}\n"
        "  figure svg text { fill: #e6e6e6; }\n"
        "}"
    )


def _on_dark(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (0, 2, 4))
    if max(red, green, blue) - min(red, green, blue) < 8:
        grey = round(_DARK_INK - (_DARK_INK - _DARK_PAPER) * green / 255)
        return f"#{grey:02x}{grey:02x}{grey:02x}"
    hue, lightness, saturation = colorsys.rgb_to_hls(red / 255, green / 255, blue / 255)
    lighter = colorsys.hls_to_rgb(hue, max(lightness, _LIGHTEST_DARK), min(saturation, 0.75))
    return "#" + "".join(f"{round(255 * part):02x}" for part in lighter)


def training_label(arm: str) -> str:
    """Return the label of a training in figures and tables."""
    return TRAINING_LABELS.get(arm, arm)


def format_power(value: float) -> str:
    """Format a small number with a typeset power of ten.

    Examples
    --------
    >>> format_power(1e-5), format_power(2e-4), format_power(0.25)
    ('10⁻⁵', '2×10⁻⁴', '0.25')
    """
    mantissa, _, power = f"{value:.3g}".partition("e")
    if not power:
        mantissa, _, power = (
            f"{value:.2e}".partition("e") if 0 < value < 1e-2 else (mantissa, "", "")
        )
        mantissa = f"{float(mantissa):g}"
    if not power:
        return mantissa
    high = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{high}" if float(mantissa) == 1 else f"{float(mantissa):g}×10{high}"


def escape_text(text: str) -> str:
    """Escape a user's text so that matplotlib draws it without interpreting formulas."""
    return escape_control_characters(text).replace("$", r"\$")
