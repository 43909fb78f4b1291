"""Report of a comparison: several mechanisms on the same populations, under the same cap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

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
from fcfn_abm.report.claims import claims_table
from fcfn_abm.report.compare import (
    averages,
    averages_table,
    comparison_tables,
    failures,
    notes,
)
from fcfn_abm.report.estimates import Average, average, interval
from fcfn_abm.report.figures.mechanisms import comparison
from fcfn_abm.report.settings import reproduce, settings_table

_MORE = {
    "payment by the server": "server_payment",
    "share of payments burnt": "rent_dissipation",
    "Gini index": "gini",
}
_COMPARED = {
    "utility per node": "mean_node_utility",
    "server": "server_utility",
    "welfare": "welfare",
    "mean epsilon": "mean_epsilon",
}
_TERMS = {
    "Utility per node": "payment minus privacy cost, mean over all nodes, including those that "
    "stay out.",
    "Welfare": "the sum of all utilities.",
    "Price of anarchy": "the best possible welfare divided by the welfare under the mechanism; "
    "1 is best.",
    "Participation": "share of the nodes that sell any privacy.",
    "Losing nodes": "nodes with a negative utility: they would be better off outside.",
    "Share of payments burnt": "the nodes' privacy costs divided by their payments.",
    "Gini index": "inequality of the nodes' utilities: 0 is equal; undefined if one is negative.",
}


def comparison_page(frame: pd.DataFrame, run: Mapping[str, Any], scenario: Any, toml: str) -> Page:
    """Build the report of a comparison.

    Parameters
    ----------
    frame : DataFrame
        Its table, one row per replication and mechanism.
    run : mapping
        Its ``run.json``.
    scenario : Scenario
        Resolved: all defaults are filled in.
    toml : str
        Text of its scenario file.
    """
    names = list(dict.fromkeys(frame["mechanism"]))
    n = run["replications"]
    populations = (
        f"{n} populations of {run['n_nodes']:,} nodes are drawn from one distribution, and each is "
        "priced by every mechanism under the same payment cap. Numbers are means over the "
        "populations with half of their 95 % t-interval, or with both ends where a bound cuts it."
        if n > 1
        else f"One population of {run['n_nodes']:,} nodes is priced by every mechanism under the "
        "same payment cap. With one population there are no intervals."
    )
    picture = Picture(
        "comparison",
        comparison(frame),
        f"{format_count(len(names), 'mechanism')} compared: utility per node and of the server, "
        "welfare, price of anarchy, participation, mean epsilon and noise. The tables list the "
        "numbers.",
        "Large: mean and 95 % interval. Small: single populations. Each mechanism has the same "
        "colour and marker in all figures.",
        frame,
        "comparison.parquet",
    )
    more = averages_table(frame, _MORE, "Payments")
    results: list[Block] = [picture, *comparison_tables(frame), more]
    if n > 1 and len(names) > 1:
        results.append(_differences(frame, names))
    results.append(claims_table(run["claims"]))
    remarks = [*failures(frame), *notes(frame, run)]
    command = f"fcfn compare scenario.toml --mechanisms {','.join(names)} --replications {n}"
    return Page(
        title=run["title"] or "Comparison of mechanisms",
        subtitle=f"fcfn_abm comparison of mechanisms, seed {run['seed']}",
        lead=[
            Words(populations),
            Facts(
                [
                    Fact("Populations", number(n), f"of {run['n_nodes']:,} nodes"),
                    Fact("Payment cap B", number(float(frame["budget"].mean()), 4), run["cap"]),
                    _best(frame, names, "mean_node_utility", "Best for nodes"),
                    _best(frame, names, "server_utility", "Best for the server"),
                    _best(frame, names, "welfare", "Best welfare"),
                ]
            ),
        ],
        sections=[
            Section("Results", results),
            Section("How to read the results", [*map(Words, remarks), Terms(_TERMS)]),
            Section("Scenario", [settings_table(scenario)]),
            reproduce(f"{command} --out again", toml, run, f"It took {run['seconds']:.3g} s."),
        ],
    )


def _differences(frame: pd.DataFrame, names: list[str]) -> Table:
    """Return the differences between each mechanism and the first in the same populations."""
    first, *others = names
    rows = []
    for name in others:
        cells = [interval(_difference(frame, name, first, q)) for q in _COMPARED.values()]
        rows.append([name, *cells])
    return Table(
        ["", *_COMPARED],
        rows,
        f"Difference from {first}, paired by population",
        "Every mechanism prices the same populations, so differences are paired, and their "
        "intervals are narrower than those of the means suggest. If an interval excludes zero, the "
        "mechanisms differ at the 95 % level.",
    )


def _difference(frame: pd.DataFrame, name: str, other: str, quantity: str) -> Average:
    solved = frame[frame["status"] != "no-solution"]
    wide = solved.pivot_table(
        index="replication", columns="mechanism", values=quantity, dropna=False
    )
    wide = wide.reindex(columns=[name, other])
    both = wide[np.isfinite(wide).all(axis=1)]
    return average((both[name] - both[other]).to_numpy(dtype=float))


def _best(frame: pd.DataFrame, names: list[str], quantity: str, label: str) -> Fact:
    """Name the mechanism with the best mean and those that are not distinguishable from it."""
    found = averages(frame)
    means = {name: found[name, quantity].mean for name in names}
    means = {name: mean for name, mean in means.items() if math.isfinite(mean)}
    if not means:
        return Fact(label, "-")
    best = max(means, key=lambda name: means[name])
    note = f"{number(means[best], 4)} on average"
    if found[best, quantity].n < 2:
        return Fact(label, best, f"{number(means[best], 4)} in this population")
    close = [
        name
        for name in means
        if name != best and not _difference(frame, best, name, quantity).low > 0
    ]
    if close:
        shown = ", ".join(close[:2]) + (f" and {len(close) - 2} more" if len(close) > 2 else "")
        note += f"; not distinguishable from {shown}"
    return Fact(label, best, note)
