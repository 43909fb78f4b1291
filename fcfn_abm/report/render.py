"""Pages as HTML and as Markdown: one file each, the same for the same page."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from html import escape
from importlib.resources import files

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
)
from fcfn_abm.report.figures.files import inline_svg

_TEMPLATES = files("fcfn_abm.report") / "templates"
_NEGATIVE = re.compile(r"(?<![\w.])-(?=[\d.])")
_POWER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)e([+-]\d+)\b")
_SMALL = 3  # powers of ten up to this one are written out
_MARKED = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def render_html(page: Page) -> str:
    """Return a page as HTML that needs nothing else: style and figures are in it.

    Parameters
    ----------
    page : Page
        What to say; every text in it is shown as text, whatever it holds.
    """
    prefixes = {picture.name: f"f{i}" for i, picture in enumerate(page.pictures(), 1)}

    def svg(picture: Picture) -> Markup:
        svg = inline_svg(picture.figure, prefixes[picture.name])
        return Markup(svg)  # noqa: S704 - matplotlib escapes the texts in it

    style = Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8").strip())  # noqa: S704
    return escape_control_characters(_template().render(page=page, style=style, svg=svg))


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["typeset"] = typeset
    return environment.from_string((_TEMPLATES / "page.html.jinja").read_text(encoding="utf-8"))


def typeset(text: str) -> Markup:
    """Set numbers as in print: a minus is no hyphen, and powers of ten stand high.

    Examples
    --------
    >>> str(typeset("-3.0e-14 of <B>"))
    '\u22123.0\u202f\u00d7\u202f10<sup>\u221214</sup> of &lt;B&gt;'
    >>> [str(typeset(text)) for text in ("0.0e+00", "1.3e-01", "2e+03", "tau/(n-1)")]
    ['0', '0.13', '2000', 'tau/(n-1)']
    """
    safe = _NEGATIVE.sub("\u2212", _POWER.sub(_power, escape(text)))
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


def render_markdown(page: Page, picture_at: Callable[[str], str]) -> str:
    """Return a page as Markdown.

    Parameters
    ----------
    page : Page
        What to say; every text in it is shown as text, whatever it holds.
    picture_at : callable
        From the name of a figure to the address of its file.
    """
    parts = [f"# {_escape(page.title)}", _escape(page.subtitle)]
    parts += [_markdown(block, picture_at) for block in page.lead]
    for section in page.sections:
        parts.append(f"## {_escape(section.title)}")
        parts += [_markdown(block, picture_at) for block in section.blocks]
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
    """Take the meaning from signs that Markdown or HTML would read."""
    return _MARKED.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")
