"""The report of a sweep: what its axes do to the main outcomes, and which runs failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fcfn_abm.report.blocks import (
    Block,
    Fact,
    Facts,
    Notice,
    Page,
    Picture,
    Section,
    Table,
    Words,
    format_count,
    number,
)
from fcfn_abm.report.compare import average, interval
from fcfn_abm.report.figures.sweeps import group_values, label_of, lines_by, sweep_overview
from fcfn_abm.report.settings import format_value, reproduce, settings_table

_OUTCOMES = (
    "participation",
    "mean_epsilon",
    "payment",
    "node_utility",
    "server_utility",
    "welfare",
    "accuracy",
)
_ROUNDING = 1e-9  # outcomes that differ by less are the same
_COLUMNS = 3  # of axes in one figure at most
_POINTS = 40  # points of a grid that get a row each
_FAILED = 20  # failed runs that are listed


def sweep_page(
    frame: pd.DataFrame,
    run: Mapping[str, Any],
    scenario: Any,
    toml: str,
    sensitivity: pd.DataFrame | None = None,
) -> Page:
    """Return the report of a sweep, whether it has ended or not.

    Parameters
    ----------
    frame : DataFrame
        Its table, one row a run.
    run : mapping
        Its ``run.json``.
    scenario : Scenario
        With its sweep, resolved.
    toml : str
        Its scenario file, to be shown.
    sensitivity : DataFrame, optional
        Its Sobol indices, as :meth:`fcfn_abm.Sweep.sensitivity` has them.
    """
    axes, done = list(run["axes"]), frame[frame["status"] == "done"]
    known = _find_outcomes(done)
    outcomes = [name for name in known if _varies(done[name])] or known
    sections = [_axes(frame, run, axes)]
    if len(done):
        sections += [_pictures(frame, axes, outcomes), _tables(done, axes, outcomes)]
        sections.append(Section("How the markets ended", [_verdicts(done)]))
    if sensitivity is not None and len(sensitivity):
        sections.append(_sensitivity(sensitivity))
    if (frame["status"] == "failed").any():
        sections.append(_failures(frame, axes))
    sections += [
        Section(
            "What was run",
            [Words("Where an axis does not say otherwise:"), settings_table(scenario)],
        ),
        reproduce("fcfn sweep scenario.toml --out again", toml, run),
    ]
    return Page(
        title=run["title"] or "Sweep",
        subtitle=f"Report of a sweep by fcfn_abm, seed {run['seed']}",
        lead=[*_state(frame), _facts(frame, run, axes)],
        sections=sections,
    )


def _find_outcomes(done: pd.DataFrame) -> list[str]:
    return [name for name in _OUTCOMES if name in done and done[name].notna().any()]


def _varies(values: pd.Series) -> bool:
    low, high = float(values.min()), float(values.max())
    return high - low > _ROUNDING * max(abs(low), abs(high))


def _state(frame: pd.DataFrame) -> list[Block]:
    counts = frame["status"].value_counts()
    missing, failed = int(counts.get("missing", 0)), int(counts.get("failed", 0))
    blocks: list[Block] = []
    if missing:
        blocks.append(
            Notice(
                "Not ended",
                f"{missing:,} of {len(frame):,} runs are missing, and this report is about the "
                "others. 'fcfn sweep' goes on with them.",
                "fair",
            )
        )
    if failed:
        blocks.append(
            Notice("Failures", f"{format_count(failed, 'run')} failed; see below.", "bad")
        )
    if not blocks:
        blocks.append(Notice("Complete", f"All {len(frame):,} runs are done.", "good"))
    return blocks


def _facts(frame: pd.DataFrame, run: Mapping[str, Any], axes: Sequence[str]) -> Facts:
    points = frame[list(axes)].drop_duplicates() if axes else frame.head(1)
    return Facts(
        [
            Fact("Runs", number(len(frame)), f"{run['mode']}"),
            Fact("Axes", number(len(axes))),
            Fact("Points", number(len(points))),
            Fact("Replications", number(run["replications"]), "of each point"),
        ]
    )


def _axes(frame: pd.DataFrame, run: Mapping[str, Any], axes: Sequence[str]) -> Section:
    rows = []
    for axis in axes:
        values = list(dict.fromkeys(frame[axis].dropna()))
        if pd.api.types.is_numeric_dtype(frame[axis]) and len(values) > 8:
            low, high = format_value(min(values)), format_value(max(values))
            shown = f"{len(values)} values from {low} to {high}"
        else:
            shown = ", ".join(_value(value) for value in values)
        rows.append([axis, shown])
    words = (
        "Every point of the axes was run as often as there are replications, with the same seeds "
        "at all points: points differ by their axes, and not by their luck."
    )
    head = ["key of the scenario", "what it goes through"]
    blocks: list[Block] = [Words(words)]
    if rows:
        blocks.append(Table(head, rows, words=frozenset({0, 1})))
    if not axes:
        blocks = [Words(f"No axes: one point, {run['replications']} times.")]
    return Section("The axes", blocks)


def _pictures(frame: pd.DataFrame, axes: Sequence[str], outcomes: Sequence[str]) -> Section:
    blocks: list[Block] = [
        Words(
            "Each panel has means over all runs with a value of the axis below, and their 95 % "
            "t-intervals. What is neither below nor in the legend is averaged over."
        )
    ]
    rows = -(-len(axes) // _COLUMNS)
    columns = -(-len(axes) // max(rows, 1))
    for i in range(rows):
        some = axes[i * columns : (i + 1) * columns]
        lines = [
            f"{axis}, a line for each {by}" for axis in some if (by := lines_by(frame, axis, axes))
        ]
        blocks.append(
            Picture(
                f"outcomes-{i + 1}",
                sweep_overview(frame, some, outcomes, axes),
                f"{', '.join(label_of(name) for name in outcomes)} against {', '.join(some)}. The "
                "numbers stand in the tables.",
                f"Against {'; '.join(lines)}." if lines else "",
            )
        )
    return Section("What the axes do", blocks if axes else [Words("No axes.")])


def _tables(done: pd.DataFrame, axes: Sequence[str], outcomes: Sequence[str]) -> Section:
    head = [label_of(name) for name in outcomes]
    blocks: list[Block] = [
        Words(
            "Means and half of their 95 % t-intervals, over the runs that the last column counts."
        )
    ]
    points = done[list(axes)].drop_duplicates() if axes else done.head(1)
    if len(axes) > 1 and len(points) <= _POINTS:
        short = _shorten(axes)
        rows = [
            [*map(_value, key), *_means(some, outcomes)]
            for key, some in done.groupby(list(axes), sort=False)
        ]
        words = frozenset(range(len(axes)))
        blocks.append(Table([*short, *head, "runs"], rows, f"By {' and '.join(axes)}", words=words))
    for axis, name in zip(axes, _shorten(axes), strict=True):
        groups = done.groupby(
            group_values(done[axis]), sort=pd.api.types.is_numeric_dtype(done[axis])
        )
        rows = [[_value(key), *_means(some, outcomes)] for key, some in groups]
        title = f"By {axis}" + (", all else averaged over" if len(axes) > 1 else "")
        blocks.append(Table([name, *head, "runs"], rows, title))
    same = [
        f"{label_of(name)} = {number(float(done[name].iloc[0]))}"
        for name in _find_outcomes(done)
        if name not in outcomes
    ]
    if same:
        blocks.append(Words(f"The same in all runs: {', '.join(same)}."))
    if not axes:
        blocks.append(Table(["", *head, "runs"], [["all runs", *_means(done, outcomes)]]))
    return Section("The outcomes in numbers", blocks)


def _shorten(axes: Sequence[str]) -> list[str]:
    """Return the last words of the axes' paths, where these tell them apart."""
    last = [axis.rsplit(".", 1)[-1] for axis in axes]
    return last if len(set(last)) == len(last) else list(axes)


def _means(runs: pd.DataFrame, outcomes: Sequence[str]) -> list[str]:
    cells = [interval(average(runs[name].dropna().to_numpy(dtype=float))) for name in outcomes]
    return [*cells, f"{len(runs):,}"]


def _verdicts(done: pd.DataFrame) -> Table:
    rows = [
        [str(kind), f"{len(some):,}", f"{len(some) / len(done):.0%}", interval(_rounds(some))]
        for kind, some in done.groupby("verdict", sort=True)
    ]
    return Table(["verdict", "runs", "share", "rounds played"], rows)


def _rounds(runs: pd.DataFrame) -> Any:
    return average(runs["rounds"].dropna().to_numpy(dtype=float))


def _sensitivity(frame: pd.DataFrame) -> Section:
    words = (
        "How much of an outcome's variance an axis explains: by itself (first order), and with "
        "all that it does together with others (total order)."
    )
    rows = [
        [label_of(row["outcome"]), row["axis"], _index(row, "first"), _index(row, "total")]
        for row in frame.to_dict("records")
    ]
    head = ["outcome", "axis", "first order", "total order"]
    note = "In brackets: 95 % bootstrap intervals. Sampling can put an estimate a little below 0."
    table = Table(head, rows, note=note, words=frozenset({0, 1}))
    return Section("Which axes matter: Sobol indices", [Words(words), table])


def _index(row: Mapping[Any, Any], order: str) -> str:
    value, low, high = (row[f"{order}_order{end}"] for end in ("", "_low", "_high"))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def _failures(frame: pd.DataFrame, axes: Sequence[str]) -> Section:
    failed = frame[frame["status"] == "failed"]
    rows = [
        [str(row["run"]), *(_value(row[axis]) for axis in axes), str(row["error"])]
        for _, row in failed.head(_FAILED).iterrows()
    ]
    more = len(failed) - _FAILED
    note = f"{more:,} more in the table." if more > 0 else ""
    table = Table(["run", *axes, "why"], rows, note=note, words=frozenset({0, len(axes) + 1}))
    words = "Failed runs are left out of all means. 'fcfn sweep --retry' runs them again."
    return Section("Runs that failed", [Words(words), table])


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else format_value(value)
