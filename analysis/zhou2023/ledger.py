"""The ledger: each claim, its readings with their numbers, and the verdict."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from html import escape

from fcfn_zhou2023.base import Finding, Setting, Study, figure_file
from fcfn_zhou2023.claims import HOLDS, NOT, UNDER, UNSTATED, Row

TITLE = "Zhou et al. 2023, figure by figure"
STATUS = {
    "printed": "printed: the paper states it",
    "implied": "implied: follows from what the paper states",
    "our reading": "our reading: the paper leaves it open",
}
NOTE = (
    "Reference: Zan Zhou et al., Chinese Journal of Computers 46 (12), 2023. Each claim names its "
    "place there. What the paper leaves open is a named reading, and the readings stand side by "
    "side. A verdict is computed from the numbers beside it: a claim holds if it holds under the "
    "reading that its words suggest (marked with *), or under all readings; it is not stated where "
    "it depends on something that the paper leaves open and holds under none of our readings. "
    "Extras are figures that the paper does not have."
)


def summary(rows: Sequence[Row]) -> str:
    """Count the verdicts, in a sentence."""
    counts = Counter(_kind(row) for row in rows)
    return (
        f"{len(rows)} claims: {counts[HOLDS]} hold, {counts[UNDER]} hold under some reading, "
        f"{counts[NOT]} do not hold, and {counts[UNSTATED]} depend on what is not stated."
    )


def _kind(row: Row) -> str:
    return UNDER if row.verdict.startswith(UNDER) else row.verdict


def markdown(rows: Sequence[Row], studies: Sequence[Study], size: str) -> str:
    """Return the ledger as Markdown: a table of all claims, and a part for each figure."""
    lines = [f"# {TITLE}", "", f"{summary(rows)} Size: {size}.", "", NOTE, ""]
    lines += ["| claim | where | status | verdict |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {_cell(r.claim.text)} | {_cell(r.claim.where)} | {r.claim.status} | {r.verdict} |"
        for r in rows
    ]
    for study in studies:
        name = figure_file(study.name)
        lines += ["", f"## {_heading(study)}", "", study.setup, ""]
        lines += [f"![{study.title}](figures/{name}.png)", ""]
        for row in (row for row in rows if row.claim.figure == study.name):
            lines += [f"**{row.claim.text}** ({row.claim.where}; {row.claim.status})", ""]
            lines += [f"Setting: {row.claim.setting}", ""]
            lines += ["| reading | holds | numbers |", "| --- | --- | --- |"]
            lines += [
                f"| {_cell(_reading(row, f))} | {_yes(f)} | {_cell(f.numbers)} |"
                for f in row.findings
            ]
            lines += ["", f"Verdict: **{row.verdict}**. {_why(row)}", ""]
    return "\n".join(lines).rstrip() + "\n"


def page(rows: Sequence[Row], studies: Sequence[Study], setting: Setting) -> str:
    """Return the ledger as one HTML file with the figures inside."""
    body = [f"<h1>{escape(TITLE)}</h1>", f"<p><strong>{escape(summary(rows))}</strong> "
            f"Size: {setting.size}.</p>", f"<p>{escape(NOTE)}</p>"]  # fmt: skip
    body.append("<table><tr><th>claim</th><th>where</th><th>status</th>"
                "<th>verdict</th></tr>")  # fmt: skip
    body += [
        f'<tr><td><a href="#{row.claim.name}">{escape(row.claim.text)}</a></td>'
        f"<td>{escape(row.claim.where)}</td><td>{escape(row.claim.status)}</td>"
        f"<td>{_badge(row)}</td></tr>"
        for row in rows
    ]
    body.append("</table>")
    for study in studies:
        picture = setting.out / "figures" / f"{figure_file(study.name)}.png"
        data = base64.b64encode(picture.read_bytes()).decode()
        body += [
            f'<h2 id="{study.name}">{escape(_heading(study))}</h2>',
            f"<p>{escape(study.setup)}</p>",
            f'<img alt="{escape(study.title)}" src="data:image/png;base64,{data}">',
        ]
        for row in (row for row in rows if row.claim.figure == study.name):
            body += [
                f'<h3 id="{row.claim.name}">{escape(row.claim.text)}</h3>',
                f"<p>{_badge(row)} {escape(row.claim.where)}; "
                f"{escape(STATUS[row.claim.status])}. Setting: {escape(row.claim.setting)}</p>",
                "<table><tr><th>reading</th><th>holds</th><th>numbers</th></tr>",
            ]
            body += [
                f"<tr><td>{escape(_reading(row, f))}</td><td>{_yes(f)}</td>"
                f"<td>{escape(f.numbers)}</td></tr>"
                for f in row.findings
            ]
            body += ["</table>", f"<p>{escape(_why(row))}</p>"]
    return _PAGE.format(title=escape(TITLE), body="\n".join(body))


def _heading(study: Study) -> str:
    kind = "Extra" if study.name.startswith("extra") else f"Figure {study.name[3:]}"
    return f"{kind}: {study.title}"


def _why(row: Row) -> str:
    missing = f" Not stated: {row.claim.missing}." if row.claim.missing else ""
    return row.claim.why + missing


def _reading(row: Row, finding: Finding) -> str:
    star = "*" if finding.reading == row.claim.plain else ""
    return f"{finding.reading}{star}: {row.claim.readings[finding.reading]}"


def _yes(finding: Finding) -> str:
    return "yes" if finding.holds else "no"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _badge(row: Row) -> str:
    kind = {HOLDS: "holds", UNDER: "under", NOT: "not", UNSTATED: "unstated"}[_kind(row)]
    return f'<span class="{kind}">{escape(row.verdict)}</span>'


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }}
h2 {{ margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1rem; }}
h3 {{ margin: 2rem 0 .3rem; font-size: 1.05rem; }}
img {{ max-width: 100%; }}
table {{ border-collapse: collapse; width: 100%; margin: .6rem 0; font-size: .92rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .6rem;
  border-bottom: 1px solid #ddd; }}
span {{ border-radius: .3rem; padding: .1rem .45rem; color: #fff; font-size: .85rem;
  line-height: 1.75; -webkit-box-decoration-break: clone; box-decoration-break: clone; }}
.holds {{ background: #00664a; }} .under {{ background: #7a5200; }} .not {{ background: #a83f00; }}
.unstated {{ background: #555; }}
a {{ color: #0b4f80; }}
@media print {{ h2 {{ break-before: page; }} span {{ border: 1px solid #555; color: #222; }} }}
</style></head><body>
{body}
</body></html>
"""
