"""The report of a benchmark of mechanisms."""

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
    ("equal-epsilon", "server_payment"): "What the server pays, in currency",
    ("equal-spending", "participation"): "Participation",
    ("equal-spending", "unusual_third"): "Share that takes part of the third with the most unusual "
    "labels",
}
"""What is shown cell by cell; bench.csv has all of it."""
_TERMS = {
    "Participation": "the share of nodes that sell any privacy.",
    "Effective number": "S squared over the sum of the squares of epsilon: how many nodes sell, "
    "counted by how evenly they do.",
    "Expensive third": "the third of the nodes with the highest costs: the share of it that takes "
    "part.",
    "Rent": "what nodes are paid beyond their costs, as a share of what they are paid.",
    "Regret": "what one node would gain at most by another move that the mechanism leaves it, as a "
    "share of what is paid.",
    "True epsilon": "what a node has spent in the whole training, by composition, in the view that "
    "the scenario states.",
}


def bench_page(frame: pd.DataFrame, run: Mapping[str, Any], scenario: Any, toml: str) -> Page:
    """Return the report of a benchmark.

    Parameters
    ----------
    frame : DataFrame
        Its table, one row a cell, mode, mechanism and population.
    run : mapping
        Its ``run.json``.
    scenario : Scenario
        Resolved: every default written out.
    toml : str
        Its scenario file, to be shown.
    """
    n_cells = len(cells_of(frame, run["modes"][0]))
    meanings = " ".join(
        f"{MODES[name]}: {MEANING[name].format(reference=run['reference'])}."
        for name in run["modes"]
    )
    picture = Picture(
        "benchmark",
        benchmark(frame, run),
        f"{format_count(len(run['mechanisms']), 'mechanism')} at equal terms: the server's "
        "utility, the price of the same epsilon, who of the expensive third takes part, and the "
        "accuracy of the nets. The numbers stand in the tables.",
        "Each point is a cell: mean over its populations, and 95 % interval.",
    )
    results: list[Block] = [picture, *bench_tables(frame, run)]
    cells = [
        _cells_table(frame, run, mode, quantity, title)
        for (mode, quantity), title in _CELLS.items()
        if frame.loc[frame["mode"] == mode, quantity].notna().any()
    ]
    return Page(
        title=run["title"] or "Benchmark of mechanisms",
        subtitle=f"Report of a benchmark of mechanisms by fcfn_abm, seed {run['seed']}",
        lead=[
            Words(f"{n_cells} cells of costs, data and caps, at equal terms. {meanings}"),
            Facts(
                [
                    Fact("Mechanisms", number(len(run["mechanisms"]))),
                    Fact("Distributions of costs", number(len(run["costs"]))),
                    Fact("Dealings of data", number(len(run["data"]))),
                    Fact("Caps", ", ".join(f"{cap:g}" for cap in run["budgets"])),
                    Fact("Populations a cell", number(run["replications"]), "the same for all"),
                ]
            ),
        ],
        sections=[
            Section("The mechanisms at equal terms", results),
            Section("What breaks each of them", [Terms(breaking_points(frame, run))]),
            Section("How to read it", [*map(Words, notes(run)), Terms(_TERMS)]),
            Section("Cell by cell", cells),
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
    """Write a mean and half of the width of its interval."""
    if of.n == 0:
        return "-"
    if of.n == 1:
        return f"{of.mean:.3g}"
    return f"{of.mean:.3g} \u00b1 {(of.high - of.low) / 2:.1g}"
