"""A comparison of mechanisms, as numbers and as aligned text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.text import Text

from fcfn_abm.errors import join_lines
from fcfn_abm.report.blocks import AVERAGED, Table
from fcfn_abm.report.claims import claims_table
from fcfn_abm.report.estimates import ANY, BOUNDS, MEDIANS, Average, average, interval, is_skewed
from fcfn_abm.report.marks import heading, join, wrap

_ROUNDING = 1e-9
QUANTITIES = (
    "budget",
    "n_active",
    "n_losing",
    "participation",
    "mean_epsilon",
    "noise_multiplier",
    "mean_node_utility",
    "node_utility",
    "server_utility",
    "agency_utility",
    "server_payment",
    "welfare",
    "price_of_anarchy",
    "rent_dissipation",
    "gini",
)
"""Columns of a comparison that are averaged over its replications."""

_CELLS = {  # the two tables of the text: columns by header
    "Utilities, in currency per round": {
        "per node": "mean_node_utility",
        "server": "server_utility",
        "welfare": "welfare",
        "price of anarchy": "price_of_anarchy",
    },
    "Privacy": {
        "participation": "participation",
        "losing nodes": "n_losing",
        "mean epsilon": "mean_epsilon",
        "noise multiplier": "noise_multiplier",
    },
}


type Averages = dict[tuple[str, str], Average]


def averages(frame: pd.DataFrame) -> Averages:
    """Average a comparison over its replications.

    Parameters
    ----------
    frame : DataFrame
        Table of a comparison, one row per replication and mechanism.

    Returns
    -------
    dict
        From mechanism and quantity to :class:`Average`. Replications without a solution have no
        value; replications without trade count as zeros.
    """
    found: Averages = {}
    for name in dict.fromkeys(frame["mechanism"]):
        solved = frame[(frame["mechanism"] == name) & (frame["status"] != "no-solution")]
        for quantity in QUANTITIES:
            values = solved[quantity].dropna().to_numpy(dtype=float)
            found[name, quantity] = average(values, BOUNDS.get(quantity, ANY))
    return found


def averages_tree(frame: pd.DataFrame) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return the averages by mechanism and quantity, for JSON: None if not finite."""
    tree: dict[str, dict[str, dict[str, float | None]]] = {}
    for (name, quantity), of in averages(frame).items():
        names = ("mean", "half_width", "median", "n", "n_infinite", "low", "high")
        values = {key: getattr(of, key) for key in (*names, "median_low", "median_high")}
        tree.setdefault(name, {})[quantity] = {
            key: value if math.isfinite(value) else None for key, value in values.items()
        }
    return tree


def status_counts(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count the statuses of each mechanism: ``{"yang": {"solved": 17, "no-trade": 3}}``."""
    counts: dict[str, dict[str, int]] = {}
    for mechanism, status in zip(frame["mechanism"], frame["status"], strict=True):
        of = counts.setdefault(mechanism, {})
        of[status] = of.get(status, 0) + 1
    return counts


def comparison_text(frame: pd.DataFrame, run: Mapping[str, Any]) -> Text:
    """Describe a comparison: the common settings, means with intervals, and failures.

    Parameters
    ----------
    frame : DataFrame
        Table of a comparison, one row per replication and mechanism.
    run : mapping
        Its ``run.json``.
    """
    said = [*failures(frame), *notes(frame, run)]
    parts: list[str | Text] = [
        _heading(frame, run),
        *(each.to_rich_text() for each in comparison_tables(frame)),
        claims_table(run["claims"]).to_rich_text(),
        "\n".join(wrap(line, rest="  ") for line in said),
    ]
    return join("\n\n", parts)


def comparison_tables(frame: pd.DataFrame) -> list[Table]:
    """Return means with half of their 95 % intervals, one row per mechanism: utilities and privacy.

    Parameters
    ----------
    frame : DataFrame
        Table of a comparison, one row per replication and mechanism.
    """
    return [averages_table(frame, cells, title) for title, cells in _CELLS.items()]


def averages_table(frame: pd.DataFrame, cells: Mapping[str, str], title: str) -> Table:
    """Return averages with their intervals, one row per mechanism.

    Parameters
    ----------
    frame : DataFrame
        Table of a comparison, one row per replication and mechanism.
    cells : mapping of str to str
        From column header to quantity.
    title : str
        Title of the table.
    """
    found = averages(frame)
    names = list(dict.fromkeys(frame["mechanism"]))
    skewed = {q for q in cells.values() if is_skewed(found[name, q] for name in names)}
    return Table(
        ["", *(f"{head}, median" if q in skewed else head for head, q in cells.items())],
        [
            [name, *(interval(found[name, q], as_median=q in skewed) for q in cells.values())]
            for name in names
        ],
        title,
        wrap(MEDIANS) if skewed else "",
    )


def _heading(frame: pd.DataFrame, run: Mapping[str, Any]) -> Text:
    n = run["replications"]
    budgets = frame.drop_duplicates("replication")["budget"]
    over = AVERAGED[run["average_over"]]
    if n == 1:
        populations = (
            f"One population of {run['n_nodes']} nodes (the scenario's seed), no intervals."
        )
    else:
        populations = (
            f"{n} populations of {run['n_nodes']} nodes; the first has the scenario's seed. Values "
            "are mean ± half of the 95 % t-interval."
        )
    cap = f"{budgets.mean():.6g}" + (" on average" if budgets.min() < budgets.max() else "")
    return join(
        "\n",
        [
            heading(
                f"{join_lines(run['title']) or 'Comparison of mechanisms'} (seed {run['seed']})"
            ),
            "",
            wrap(populations),
            f"Every mechanism has the same payment cap: {run['cap']}, {cap}.",
            f"Mean epsilon is over {over}.",
        ],
    )


def failures(frame: pd.DataFrame) -> list[str]:
    """Describe which mechanisms found no trade or no solution, how often and why."""
    lines = []
    for status, words in (("no-trade", "no trade"), ("no-solution", "no solution")):
        for name, group in frame.groupby("mechanism", sort=False):
            failed = group[group["status"] == status]
            if len(failed):
                reason = failed["reason"].iloc[0]
                lines.append(f"{name}: {words} in {len(failed)} of {len(group)}. {reason}")
    return lines


def notes(frame: pd.DataFrame, run: Mapping[str, Any]) -> list[str]:
    """Explain how to read the numbers of a comparison."""
    found = averages(frame)
    lines = ["Welfare is the sum of all utilities; the price of anarchy is best welfare / welfare."]
    for name in run["mechanisms"]:
        anarchy, kept = found[name, "price_of_anarchy"], found[name, "agency_utility"].mean
        if anarchy.n_infinite:
            finite = math.isfinite(anarchy.median)
            median = f"; the median is {anarchy.median:.4g}" if finite else ""
            lines.append(
                f"{name}: the price of anarchy is infinite in {anarchy.n_infinite} of {anarchy.n} "
                f"populations, where welfare is not positive{median}."
            )
        paid, cap = found[name, "server_payment"].mean, found[name, "budget"].mean
        if paid > cap * (1.0 + _ROUNDING):
            lines.append(f"{name}: ignores the cap and pays {paid:.4g} on average.")
        if kept > 0:
            lines.append(f"{name}: an agency keeps {kept:.4g} on average; welfare includes it.")
    lines.append(
        "Noise multiplier: noise over sensitivity if all of epsilon is spent in one release, mean "
        f"over the active nodes (delta = {run['delta']:g}, {run['calibration']} calibration)."
    )
    return lines
