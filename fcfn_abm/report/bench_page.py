"""Report of a benchmark of mechanisms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from fcfn_abm.report.bench import (
    MEANING,
    MODES,
    Estimate,
    bench_tables,
    breaking_points,
    cell_name,
    cells_of,
    mean_of,
    notes,
)
from fcfn_abm.report.blocks import (
    Block,
    Fact,
    Facts,
    Page,
    Picture,
    Section,
    Table,
    Terms,
    Words,
    format_count,
    number,
)
from fcfn_abm.report.figures.bench import benchmark
from fcfn_abm.report.settings import reproduce, settings_table

_CELLS = {
    ("equal-cap", "server_utility"): "Utility of the server, in currency",
    ("equal-spending", "server_utility"): "Utility of the server, in currency",
    ("equal-epsilon", "server_payment"): "Payment by the server, in currency",
    ("equal-spending", "participation"): "Participation",
    ("equal-spending", "unusual_third"): "Participation of the third with the most unusual labels",
}
"""Quantities shown for each cell; bench.csv has all of them."""
_TERMS = {
    "Participation": "share of the nodes that sell any privacy.",
    "Effective number": "S squared over the sum of squared epsilons: the number of nodes that "
    "sell, weighted by how evenly they do.",
    "Expensive third": "participation of the third of the nodes with the highest costs.",
    "Rent": "payments minus privacy costs, as a share of the payments.",
    "Regret": "the largest gain of one node from a deviation that the mechanism allows, as a share "
    "of the payments.",
    "True epsilon": "what a node has spent in the whole training, by composition, in the view that "
    "the scenario states.",
}


def bench_page(frame: pd.DataFrame, run: Mapping[str, Any], scenario: Any, toml: str) -> Page:
    """Build the report of a benchmark.

    Parameters
    ----------
    frame : DataFrame
        Its table, one row per cell, mode, mechanism and population.
    run : mapping
        Its ``run.json``.
    scenario : Scenario
        Resolved: all defaults are filled in.
    toml : str
        Text of its scenario file.
    """
    n_cells = len(cells_of(frame, run["modes"][0]))
    meanings = " ".join(
        f"{MODES[name]}: {MEANING[name].format(reference=run['reference'])}."
        for name in run["modes"]
    )
    picture = Picture(
        "benchmark",
        benchmark(frame, run),
        f"{format_count(len(run['mechanisms']), 'mechanism')} on equal terms: server utility, "
        "price of the same epsilon, participation of the expensive third, and accuracy of the "
        "nets. The tables list the numbers.",
        "Each point is a cell: mean over its populations and 95 % interval.",
    )
    results: list[Block] = [picture, *bench_tables(frame, run)]
    cells = [
        _cells_table(frame, run, mode, quantity, title)
        for (mode, quantity), title in _CELLS.items()
        if frame.loc[frame["mode"] == mode, quantity].notna().any()
    ]
    return Page(
        title=run["title"] or "Benchmark of mechanisms",
        subtitle=f"fcfn_abm benchmark of mechanisms, seed {run['seed']}",
        lead=[
            Words(f"{n_cells} cells (costs, data and cap) on equal terms. {meanings}"),
            Facts(
                [
                    Fact("Mechanisms", number(len(run["mechanisms"]))),
                    Fact("Cost distributions", number(len(run["costs"]))),
                    Fact("Data partitions", number(len(run["data"]))),
                    Fact("Caps", ", ".join(f"{cap:g}" for cap in run["budgets"])),
                    Fact("Populations per cell", number(run["replications"]), "the same for all"),
                ]
            ),
        ],
        sections=[
            Section("Mechanisms on equal terms", results),
            Section("Where each mechanism fails", [Terms(breaking_points(frame, run))]),
            Section("How to read the results", [*map(Words, notes(run)), Terms(_TERMS)]),
            Section("Results by cell", cells),
            Section("What was compared", [settings_table(scenario)]),
            reproduce("fcfn bench scenario.toml --out again", toml, run, ""),
        ],
    )


def _cells_table(
    frame: pd.DataFrame, run: Mapping[str, Any], mode: str, quantity: str, title: str
) -> Table:
    rows = [
        [cell_name(key), *(_cell(mean_of(part, quantity, name)) for name in run["mechanisms"])]
        for key, part in cells_of(frame, mode).items()
    ]
    return Table(["", *run["mechanisms"]], rows, f"{title}, {MODES[mode].lower()}")


def _cell(of: Estimate) -> str:
    """Format a mean and half of the width of its interval."""
    if of.n == 0:
        return "-"
    if of.n == 1:
        return f"{of.mean:.3g}"
    return f"{of.mean:.3g} \u00b1 {(of.high - of.low) / 2:.1g}"
