"""The claims of mechanisms and the results of checking them, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from fcfn_abm.report.blocks import Table, format_count
from fcfn_abm.report.marks import heading, join, mark_verdict, wrap

_HEADS = {  # headers of the table of claims, by field of Claims
    "budget_balanced": "within cap",
    "individually_rational": "rational for",
    "incentive_compatible": "compatible in",
    "monotone": "monotone",
    "anonymous": "anonymous",
    "scale_invariant": "scale-free",
}
_NOTE = (
    "Largest violations are shares of the payments (of epsilon, where epsilon is compared). A "
    "property holds within {tolerance:g}; the cap and individual rationality within {strict:g}."
)


def claims_table(claims: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the claims of mechanisms, one row each.

    Parameters
    ----------
    claims : mapping
        From the mechanism's name to the fields of its claims, as in ``run.json``.
    """
    return Table(
        ["", *_HEADS.values()],
        [[name, *(_cell(of[field]) for field in _HEADS)] for name, of in claims.items()],
        "Claims under a given cap",
        words=frozenset(range(len(_HEADS) + 1)),
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "-"
    return ", ".join(value) or "-"


def check_text(facts: Mapping[str, Any]) -> Text:
    """Describe which claims of a mechanism hold on random games, with an example of each failure.

    Parameters
    ----------
    facts : mapping
        What :meth:`fcfn_abm.mechanisms.check.MechanismCheck.facts` returns.
    """
    tolerance = facts["claims"]["tolerance"]
    parts: list[str | Text] = [
        _heading(facts),
        _properties(facts).to_rich_text(),
        wrap(_NOTE.format(tolerance=tolerance, strict=1e-3 * tolerance)),
    ]
    failed = [row for row in facts["properties"] if row["claimed"] and row["verdict"] != "holds"]
    parts += [_failure(row) for row in failed]
    word = "violated" if failed else "holds"
    claims = "A claim is" if len(failed) == 1 else "Claims are" if failed else "Every claim"
    line = f"{claims} {word}."
    parts.append(mark_verdict(line, word, line.index(word)))
    return join("\n\n", parts)


def _heading(facts: Mapping[str, Any]) -> Text:
    options = ", ".join(f"{name} = {value!r}" for name, value in facts["options"].items())
    return heading(
        f"{facts['mechanism']}{f' ({options})' if options else ''}: "
        f"{format_count(facts['n_games'], 'random game')}, seed {facts['seed']}"
    )


def _properties(facts: Mapping[str, Any]) -> Table:
    return Table(
        ["", "claimed", "found", "fails in", "largest violation"],
        [
            [
                row["name"],
                "yes" if row["claimed"] else "-",
                row["verdict"],
                f"{row['n_violated']:,} of {row['n_games']:,}",
                _size(row["size"]) if row["n_violated"] else "0",
            ]
            for row in facts["properties"]
        ],
        words=frozenset({0, 1, 2}),
    )


def _size(size: float | None) -> str:
    return "infinite" if size is None else f"{size:.2g}"


def _failure(row: Mapping[str, Any]) -> str:
    example = row["example"]
    if example is None:
        return f"{_sentence(row['name'])} is claimed, but no game tests it."
    game = (
        f"rho = [{', '.join(f'{cost:.6g}' for cost in example['rho'])}], "
        f"budget = {example['budget']:.6g}, alpha = {example['alpha']:.6g}, "
        f'beta = {example["beta"]:.6g}, average_over = "{example["average_over"]}"'
    )
    return "\n".join(
        [
            f"{_sentence(row['name'])} is claimed, but fails. Smallest counterexample:",
            wrap(game, "  ", "  "),
            wrap(example["says"], "  ", "  "),
        ]
    )


def _sentence(name: str) -> str:
    return name[0].upper() + name[1:]
