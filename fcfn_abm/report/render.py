"""Pages as HTML and as Markdown, one file each; equal pages give equal files."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from html import escape
from importlib.resources import files
from urllib.parse import quote

from jinja2 import Environment, Template
from markupsafe import Markup

from fcfn_abm.errors import escape_control_characters
from fcfn_abm.report.blocks import (
    Block,
    Code,
    Facts,
    Notice,
    Page,
    Picture,
    Table,
    Terms,
    Words,
    csv_of,
    data_name,
)
from fcfn_abm.report.charts import chart_json, chart_script
from fcfn_abm.report.figures.files import inline_svg
from fcfn_abm.report.theme import dark_style, recolour

_TEMPLATES = files("fcfn_abm.report") / "templates"
_NEGATIVE = re.compile(r"(?<![\w.])-(?=[\d.])")
_POWER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)e([+-]\d+)\b")
_SYMBOLS = {  # formulas as written in texts for the terminal
    "beta ln(1 + alpha eps)": "β ln(1 + α ε)",
    "tau/(n-1)": "τ/(n−1)",
    "alpha * beta": "α β",
    "R^2": "R²",
    " &gt;= ": " ≥ ",
}
_SMALL = 3  # largest power of ten that is written out
_IN_ADDRESS = ",.:;()/+-_=*!|@"
_MARKED = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def render_html(page: Page, *, interactive: bool = False) -> str:
    """Return a page as a self-contained HTML file with style, figures and data.

    Parameters
    ----------
    page : Page
        The page; all of its text is escaped.
    interactive : bool, default False
        Whether a script (0.3 MB) draws curves with a crosshair and zoom. Without scripts, and on
        paper, the static figures are shown.
    """
    prefixes = {picture.name: f"f{i}" for i, picture in enumerate(page.pictures(), 1)}
    drawn = {
        picture.name: recolour(inline_svg(picture.figure, prefixes[picture.name]))
        for picture in page.pictures()
    }
    colours = sorted({colour for _, found in drawn.values() for colour in found})

    def svg(picture: Picture) -> Markup:
        return Markup(drawn[picture.name][0])  # noqa: S704 - matplotlib escapes the texts in it

    def chart(picture: Picture) -> Markup:
        if not (interactive and picture.interactive):
            return Markup("")
        return Markup(chart_json(picture.figure))  # noqa: S704 - no sign in it closes the script

    style = (_TEMPLATES / "page.css").read_text(encoding="utf-8").strip()
    style += f"\n{dark_style(colours)}"
    text = _template().render(
        page=page,
        style=Markup(style),  # noqa: S704 - our own
        script=Markup(chart_script() if interactive else ""),  # noqa: S704 - our own
        svg=svg,
        chart=chart,
        csv_link=_csv_link,
        data_name=data_name,
    )
    return escape_control_characters(text)


def _csv_link(block: Block) -> str:
    """Return the data of a figure or table as a data URL; empty if there are none."""
    text = csv_of(block)
    return "" if text is None else f"data:text/csv;charset=utf-8,{quote(text, safe=_IN_ADDRESS)}"


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["typeset"] = typeset
    return environment.from_string((_TEMPLATES / "page.html.jinja").read_text(encoding="utf-8"))


def typeset(text: str) -> Markup:
    """Typeset numbers: minus signs instead of hyphens, and powers of ten as superscripts.

    Examples
    --------
    >>> str(typeset("-3.0e-14 of <B>"))
    '\u22123.0\u202f\u00d7\u202f10<sup>\u221214</sup> of &lt;B&gt;'
    >>> [str(typeset(text)) for text in ("0.0e+00", "1.3e-01", "2e+03", "rho >= tau/(n-1)")]
    ['0', '0.13', '2000', 'rho ≥ τ/(n−1)']
    """
    safe = _NEGATIVE.sub("\u2212", _POWER.sub(_power, escape(text)))
    for written, sign in _SYMBOLS.items():
        safe = safe.replace(written, sign)
    return Markup(safe)  # noqa: S704 - escaped above


def _power(found: re.Match[str]) -> str:
    mantissa, exponent = found.groups()
    if float(mantissa) == 0:
        return "0"
    power = int(exponent)
    if abs(power) <= _SMALL:
        digits = len(mantissa.partition(".")[2])
        return f"{float(found.group()):.{max(digits - power, 0)}f}"
    high = str(power).replace("-", "\u2212")
    times = "" if mantissa == "1" else f"{mantissa}\u202f\u00d7\u202f"
    return f"{times}10<sup>{high}</sup>"


def render_markdown(
    page: Page, picture_at: Callable[[str], str], data_at: Callable[[str], str]
) -> str:
    """Return a page as Markdown.

    Parameters
    ----------
    page : Page
        The page; all of its text is escaped.
    picture_at : callable
        Address of a figure's file by its name.
    data_at : callable
        Address of a CSV file by its name.
    """

    def write(block: Block) -> str:
        text = _markdown(block, picture_at)
        if csv_of(block) is None:
            return text
        return f"{text}\n\n[CSV]({data_at(data_name(block))})"

    parts = [f"# {_escape(page.title)}", _escape(page.subtitle), *map(write, page.lead)]
    for section in page.sections:
        parts += [f"## {_escape(section.title)}", *map(write, section.blocks)]
    return escape_control_characters("\n\n".join(parts) + "\n")


def _markdown(block: Block, picture_at: Callable[[str], str]) -> str:
    match block:
        case Words(text):
            return _escape(text)
        case Notice(word, text):
            return f"> **{_escape(word)}.** {_escape(text)}"
        case Facts(facts):
            rows = [
                f"- {_escape(f.label)}: **{_escape(f.value)}** {_escape(f.note)}" for f in facts
            ]
            return "\n".join(row.rstrip() for row in rows)
        case Terms(terms):
            return "\n".join(f"- **{_escape(t)}**: {_escape(m)}" for t, m in terms.items())
        case Table():
            return _markdown_table(block)
        case Picture():
            parts = [
                f"![{_escape(block.alt)}]({picture_at(block.name)})",
                _escape(block.caption),
            ]
            return "\n\n".join(part for part in parts if part)
        case Code(text, language, summary):
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            code = f"{fence}{language}\n{text}\n{fence}"
            return f"{_escape(summary)}:\n\n{code}" if summary else code


def _markdown_table(block: Table) -> str:
    rule = [":--" if i in block.left else "--:" for i in range(len(block.head))]
    lines = [[_escape(cell) for cell in row] for row in (block.head, *block.rows)]
    lines.insert(1, rule)
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    title = f"**{_escape(block.title)}**" if block.title else ""
    return "\n\n".join(part for part in (title, body, _escape(block.note)) if part)


def _escape(text: str) -> str:
    """Escape characters that Markdown or HTML would interpret."""
    return _MARKED.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")
