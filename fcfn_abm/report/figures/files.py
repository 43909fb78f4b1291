"""Figures as files, and as SVG that can share a page with others."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from fcfn_abm.errors import OutputError, escape_control_characters
from fcfn_abm.report.theme import SALT, plain_settings

_LEFT_OUT = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL)
_NAMES = re.compile(r'(\bid="|url\(#|href="#)')
_LEAST = 0.68  # smallest width as a share of the full one; on a narrower screen it scrolls
_SIZE = re.compile(r'\s(?:width|height)="[0-9.]+pt"')


def write_png(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write figures as PNG files, and return their paths; equal figures give identical files."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    with plain_settings():
        for path, figure in zip(paths, figures.values(), strict=True):
            figure.savefig(path, metadata={"Software": "fcfn_abm"})
    return paths


PRINT_DPI = 300
_FORMATS = (".png", ".svg", ".pdf")


def require_format(path: Path) -> None:
    """Raise OutputError unless a figure can be written under this file name."""
    if path.suffix.lower() not in _FORMATS:
        raise OutputError(f"{path}: the format of a figure must be one of {', '.join(_FORMATS)}.")


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, SVG or PDF, according to the suffix of the file.

    Raises
    ------
    OutputError
        If the suffix is another one, or the file cannot be written.
    """
    require_format(path)
    try:
        path.write_bytes(encode_figure(figure, path.suffix.lower().removeprefix(".")))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}.") from None


def encode_figure(figure: Figure, form: str) -> bytes:
    """Return the bytes of a figure for print as PNG, SVG or PDF; equal figures give equal bytes.

    Parameters
    ----------
    figure : Figure
        The figure.
    form : {"png", "svg", "pdf"}
        PNG has :data:`PRINT_DPI` dots per inch.
    """
    metadata: dict[str, Any] = {"Software": "fcfn_abm"}
    if form != "png":
        metadata = {"Creator": "fcfn_abm", "Date" if form == "svg" else "CreationDate": None}
    out = io.BytesIO()
    with plain_settings(), rc_context({"svg.hashsalt": SALT, "pdf.fonttype": 42}):
        figure.savefig(out, format=form, metadata=metadata, dpi=PRINT_DPI)
    if form == "svg":  # control characters are not allowed in XML
        return escape_control_characters(out.getvalue().decode()).encode()
    return out.getvalue()


def svg_of(figure: Figure, *, text: bool = False) -> str:
    """Return a figure as SVG; equal figures give identical text.

    Parameters
    ----------
    figure : Figure
        The figure.
    text : bool, default False
        Whether text stays text, in the reader's font, instead of becoming outlines.
    """
    out = io.StringIO()
    with (
        plain_settings(),
        rc_context({"svg.hashsalt": SALT, "svg.fonttype": "none" if text else "path"}),
    ):
        figure.savefig(out, format="svg", metadata={"Creator": "fcfn_abm", "Date": None})
    return escape_control_characters(out.getvalue())  # control characters are not allowed in XML


def inline_svg(figure: Figure, prefix: str) -> str:
    """Return a figure as an element of a page.

    Parameters
    ----------
    figure : Figure
        The figure.
    prefix : str
        Prefix of every identifier, so that several figures of a page do not share one.
    """
    svg = svg_of(figure, text=True)
    svg = _LEFT_OUT.sub("", svg[svg.index("<svg") :])
    opening, rest = svg.split(">", 1)
    width = 72 * float(figure.get_figwidth()) / 16  # rem: figure text has the page's text size
    size = f' style="max-width: {width:.4g}rem; min-width: {_LEAST * width:.4g}rem"'
    svg = _SIZE.sub("", opening) + size + ">" + _NAMES.sub(rf"\g<1>{prefix}-", rest)
    return "\n".join(line for line in svg.splitlines() if line.strip())
