"""One look for all figures: one colour for each arm, readable in grey and for colour-blind eyes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fcfn_abm.errors import visible

# Okabe and Ito's palette; line styles tell arms apart in grey
ARM_COLOURS = {
    "stackelberg": "#0072B2",
    "no-noise": "#000000",
    "random": "#D55E00",
    "static": "#E69F00",
    "ic-mle": "#009E73",
    "yang": "#CC79A7",
}
ARM_DASHES: dict[str, tuple[float, ...] | str] = {
    "stackelberg": "",
    "no-noise": (1.0, 1.0),
    "random": (4.0, 1.5),
    "static": (6.0, 2.0, 1.0, 2.0),
    "ic-mle": (2.0, 1.0),
    "yang": (8.0, 2.0),
}
ARM_MARKERS = {
    "stackelberg": "o",
    "random": "D",
    "static": "^",
    "ic-mle": "s",
    "yang": "v",
}
ARM_LABELS = {
    "stackelberg": "equilibrium",
    "no-noise": "equilibrium's nodes, no noise",
}
SALT = "fcfn_abm"
"""Makes the names in SVG files: equal figures give equal files."""
STAYS, LEAVES, BOUND = "#0072B2", "#8C8C8C", "#D55E00"


@contextmanager
def theme() -> Iterator[None]:
    """Draw in the project's style, and leave matplotlib's settings as they were."""
    import matplotlib as mpl
    import seaborn as sns

    with (
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


def arm_label(arm: str) -> str:
    """Return what an arm is called in figures and tables."""
    return ARM_LABELS.get(arm, arm)


def plain(text: str) -> str:
    """Return a text of the user's so that matplotlib reads no formulas in it, and can draw it."""
    return visible(text).replace("$", r"\$")
