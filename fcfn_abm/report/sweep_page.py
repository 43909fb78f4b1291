"""Report of a sweep: the effect of its axes on the main outcomes, and the failed runs."""

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
from fcfn_abm.report.estimates import MEDIANS, interval, is_skewed
from fcfn_abm.report.figures.sweeps import (
    average_runs,
    group_values,
    is_sampled,
    label_of,
    lines_by,
    sweep_overview,
)
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
_KEYS = ("run", "replication", "seed", "status")
_ROUNDING = 1e-9  # outcomes that differ by less count as equal
_COLUMNS = 3  # most axes in one figure
_POINTS = 40  # largest grid whose points get a row each
_FAILED = 20  # most failed runs listed


def sweep_page(
    frame: pd.DataFrame,
    run: Mapping[str, Any],
    scenario: Any,
    toml: str,
    sensitivity: pd.DataFrame | None = None,
) -> Page:
    """Build the report of a sweep, complete or not.

    Parameters
    ----------
    frame : DataFrame
        Its table, one row per run.
    run : mapping
        Its ``run.json``.
    scenario : Scenario
        The scenario with its sweep, resolved.
    toml : str
        Text of its scenario file.
    sensitivity : DataFrame, optional
        Its Sobol indices, as returned by :meth:`fcfn_abm.Sweep.sensitivity`.
    """
    axes = list(run["axes"])
    sections = [_axes(frame, run, axes), *describe_outcomes(frame, axes)]
    if sensitivity is not None and len(sensitivity):
        sections.append(_sensitivity(sensitivity))
    if (frame["status"] == "failed").any():
        sections.append(_failures(frame, axes))
    sections += [
        Section(
            "Scenario",
            [Words("Settings other than the axes:"), settings_table(scenario, axes)],
        ),
        reproduce("fcfn sweep scenario.toml --out again", toml, run),
    ]
    return Page(
        title=run["title"] or "Sweep",
        subtitle=f"fcfn_abm sweep, seed {run['seed']}",
        lead=[*_state(frame), _facts(frame, run, axes)],
        sections=sections,
    )


def describe_outcomes(frame: pd.DataFrame, axes: Sequence[str]) -> list[Section]:
    """Return figures and tables of the outcomes against the axes; empty if no run is done.

    Parameters
    ----------
    frame : DataFrame
        One row per run.
    axes : sequence of str
        Its columns that are axes.
    """
    done = frame[frame["status"] == "done"]
    if done.empty:
        return []
    known = _find_outcomes(done)
    outcomes = [name for name in known if _varies(done[name])] or known
    return [
        _pictures(frame, axes, outcomes),
        _tables(done, axes, outcomes),
        Section("How the markets ended", [_verdicts(done)]),
    ]


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
                "Incomplete",
                f"{missing:,} of {len(frame):,} runs are missing, and this report covers the "
                "others. 'fcfn sweep' runs them.",
                "fair",
            )
        )
    if failed:
        blocks.append(
            Notice("Failures", f"{format_count(failed, 'run')} failed; see the list below.", "bad")
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
    n = run["replications"]
    words = (
        f"Every point was run {n} times, with the same {n} seeds at all points, so that "
        "differences between points are due to the axes and not to the seeds."
        if n > 1
        else "Every point was run once, with the same seed, so the results hold for this seed only."
    )
    head = ["scenario key", "values"]
    blocks: list[Block] = [Words(words)]
    if rows:
        blocks.append(Table(head, rows, words=frozenset({0, 1})))
    if not axes:
        blocks = [Words(f"No axes: one point with {run['replications']} replications.")]
    return Section("Axes", blocks)


def _pictures(frame: pd.DataFrame, axes: Sequence[str], outcomes: Sequence[str]) -> Section:
    blocks: list[Block] = [
        Words(
            "Each panel shows averages over all runs with the same value of the axis, with the "
            "intervals of the tables. Other axes are averaged over, unless they have lines of "
            "their own."
        )
    ]
    rows = -(-len(axes) // _COLUMNS)
    columns = -(-len(axes) // max(rows, 1))
    for i in range(rows):
        some = axes[i * columns : (i + 1) * columns]
        lines = [
            f"{axis}, one line per {by}" for axis in some if (by := lines_by(frame, axis, axes))
        ]
        blocks.append(
            Picture(
                f"outcomes-{i + 1}",
                sweep_overview(frame, some, outcomes, axes),
                f"{', '.join(label_of(name) for name in outcomes)} against {', '.join(some)}. The "
                "tables list the numbers.",
                f"Against {'; '.join(lines)}." if lines else "",
                frame[[*(n for n in _KEYS if n in frame), *axes, *outcomes]],
                "sweep.parquet",
            )
        )
    return Section("Effect of the axes", blocks if axes else [Words("No axes.")])


def _tables(done: pd.DataFrame, axes: Sequence[str], outcomes: Sequence[str]) -> Section:
    sampled = is_sampled(done, axes)
    blocks: list[Block] = [Words(_explain_averages(done, sampled=sampled))]
    points = done[list(axes)].drop_duplicates() if axes else done.head(1)
    if len(axes) > 1 and len(points) <= _POINTS:
        groups: dict[Any, pd.DataFrame] = dict(iter(done.groupby(list(axes), sort=False)))
        title = f"By {' and '.join(axes)}"
        blocks.append(_averages_table(groups, _shorten(axes), outcomes, title, sampled=sampled))
    for axis, name in zip(axes, _shorten(axes), strict=True):
        by = done.groupby(group_values(done[axis]), sort=pd.api.types.is_numeric_dtype(done[axis]))
        title = f"By {axis}" + (", averaged over all other axes" if len(axes) > 1 else "")
        groups = {(key,): some for key, some in by}
        blocks.append(_averages_table(groups, [name], outcomes, title, sampled=sampled))
    same = [
        f"{label_of(name)} = {number(float(done[name].iloc[0]))}"
        for name in _find_outcomes(done)
        if name not in outcomes
    ]
    if same:
        blocks.append(Words(f"Equal in all runs: {', '.join(same)}."))
    if not axes:
        blocks.append(_averages_table({("all runs",): done}, [""], outcomes, "", sampled=False))
    return Section("Tables", blocks)


def _explain_averages(done: pd.DataFrame, *, sampled: bool) -> str:
    """Describe what the averages and their intervals are over."""
    n = done["replication"].nunique()
    if sampled:
        return (
            "Values are means with 95 % t-intervals over the runs counted in the last column: the "
            "points are a sample."
        )
    if n == 1:
        return (
            "Values are means over the runs counted in the last column. With one replication there "
            "is one seed and one population, so there are no intervals."
        )
    return (
        "Values are means over the runs counted in the last column, with 95 % t-intervals over "
        f"the {n} replications. All points share their seeds, so the runs of one replication are "
        "not independent and are averaged first."
    )


def _averages_table(
    groups: Mapping[Any, pd.DataFrame],
    names: Sequence[str],
    outcomes: Sequence[str],
    title: str,
    *,
    sampled: bool,
) -> Table:
    """Return the averages of outcomes, one row per group of runs."""
    found = {
        name: [average_runs(some, name, sampled=sampled) for some in groups.values()]
        for name in outcomes
    }
    skewed = {name for name, of in found.items() if is_skewed(of)}
    head = [f"{label_of(name)}{', median' if name in skewed else ''}" for name in outcomes]
    rows = [
        [
            *map(_value, key),
            *(interval(found[name][i], as_median=name in skewed) for name in outcomes),
            f"{len(some):,}",
        ]
        for i, (key, some) in enumerate(groups.items())
    ]
    words = frozenset(range(len(names)))
    return Table([*names, *head, "runs"], rows, title, MEDIANS if skewed else "", words)


def _shorten(axes: Sequence[str]) -> list[str]:
    """Return the last parts of the axes' paths if they are unique, else the full paths."""
    last = [axis.rsplit(".", 1)[-1] for axis in axes]
    return last if len(set(last)) == len(last) else list(axes)


def _verdicts(done: pd.DataFrame) -> Table:
    rows = [
        [str(kind), f"{len(some):,}", f"{len(some) / len(done):.0%}", _describe_rounds(some)]
        for kind, some in done.groupby("verdict", sort=True)
    ]
    return Table(["verdict", "runs", "share", "rounds played, median"], rows)


def _describe_rounds(runs: pd.DataFrame) -> str:
    low, middle, high = runs["rounds"].dropna().quantile([0.0, 0.5, 1.0])
    return number(middle) if low == high else f"{number(middle)} ({number(low)} to {number(high)})"


def _sensitivity(frame: pd.DataFrame) -> Section:
    words = (
        "The share of an outcome's variance that an axis explains: on its own (first order), and "
        "including its interactions with other axes (total order)."
    )
    rows = [
        [label_of(row["outcome"]), row["axis"], _index(row, "first"), _index(row, "total")]
        for row in frame.to_dict("records")
    ]
    head = ["outcome", "axis", "first order", "total order"]
    note = "In parentheses: 95 % bootstrap intervals. Sampling error can make an estimate negative."
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
    note = f"{more:,} more in sweep.parquet." if more > 0 else ""
    table = Table(["run", *axes, "error"], rows, note=note, words=frozenset({0, len(axes) + 1}))
    words = "Failed runs are excluded from all means. 'fcfn sweep --retry' runs them again."
    return Section("Failed runs", [Words(words), table])


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else format_value(value)
