"""Figures as interactive charts: with a crosshair, zoom, and lines that can be hidden."""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

_LIBRARY = ("viz", "assets", "echarts.common.min.js")  # shared with the window
_DIGITS = 6


def chart_json(figure: Figure) -> str:
    """Return the lines of a figure as JSON that can stand in a script element.

    Panels without a line of two or more points are left out.
    """
    panels = [_describe_panel(axes) for axes in figure.axes]
    text = json.dumps([panel for panel in panels if panel["lines"]], separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _describe_panel(axes: Axes) -> dict[str, Any]:
    return {
        "title": axes.get_title(loc="left") or axes.get_title(),
        "x": axes.get_xlabel(),
        "y": axes.get_ylabel(),
        "log": [axes.get_xscale() == "log", axes.get_yscale() == "log"],
        "low": None if axes.get_yscale() == "log" or axes.get_ylim()[0] != 0 else 0,
        "lines": [line for drawn in axes.lines if (line := _describe_line(axes, drawn))],
    }


def _describe_line(axes: Axes, line: Line2D) -> dict[str, Any] | None:
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    if line.get_transform() == axes.get_yaxis_transform():  # a horizontal line over the whole width
        x = np.array(axes.dataLim.intervalx)
    elif line.get_transform() == axes.get_xaxis_transform() or x.size < 2:
        return None
    label = str(line.get_label())
    points = zip(x, y, strict=True)
    return {
        "label": "" if label.startswith("_") else label.replace(r"\$", "$"),
        "colour": to_hex(line.get_color()),
        "dashes": [] if line.get_linestyle() == "-" else [5, 3],
        "width": float(line.get_linewidth()),
        "points": [[_shorten(a), _shorten(b)] for a, b in points],
    }


def _shorten(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None


@cache
def chart_script() -> str:
    """Return the script that draws the charts of a page, including the compressed library."""
    package = files("fcfn_abm")
    library = package.joinpath(*_LIBRARY).read_bytes()
    packed = base64.b64encode(gzip.compress(library, 9, mtime=0)).decode()
    script = package.joinpath("report", "templates", "charts.js").read_text(encoding="utf-8")
    return script.replace("LIBRARY", packed)
