"""The report of a comparison: the same populations and cap, priced by several mechanisms."""

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
    "what the server pays": "server_payment",
    "share of payments burnt": "rent_dissipation",
    "Gini index": "gini",
}
_COMPARED = {
    "utility of a node": "mean_node_utility",
    "server": "server_utility",
    "welfare": "welfare",
    "mean epsilon": "mean_epsilon",
}
_TERMS = {
    "Utility of a node": "what it is paid less rho times epsilon, mean over all nodes, those "
    "outside included.",
    "Welfare": "all utilities together.",
    "Price of anarchy": "the best welfare that anybody could arrange, over the welfare that the "
    "mechanism leads to; 1 is best.",
    "Participation": "the share of nodes that sell any privacy.",
    "Nodes that lose": "nodes with a negative utility, who would rather have stayed out.",
    "Share of payments burnt": "what the nodes' privacy costs them, over what they are paid.",
    "Gini index": "how unequal the nodes' utilities are: 0 is equal; none where one is negative.",
}


def comparison_page(frame: pd.DataFrame, run: Mapping[str, Any], scenario: Any, toml: str) -> Page:
    """Return the report of a comparison.

    Parameters
    ----------
    frame : DataFrame
        Its table, one row a replication and mechanism.
    run : mapping
        Its ``run.json``.
    scenario : Scenario
        Resolved: every default written out.
    toml : str
        Its scenario file, to be shown.
    """
    names = list(dict.fromkeys(frame["mechanism"]))
    n = run["replications"]
    populations = (
        f"{n} populations of {run['n_nodes']:,} nodes are drawn from one law, and each is priced "
        "by every mechanism under the same payment cap. Numbers are means over the populations, "
        "with half of their 95 % t-interval, or with its ends where it meets a bound."
        if n > 1
        else f"One population of {run['n_nodes']:,} nodes is priced by every mechanism under the "
        "same payment cap. One population gives no intervals."
    )
    picture = Picture(
        "comparison",
        comparison(frame),
        f"{format_count(len(names), 'mechanism')} side by side: utility of a node and of the "
        "server, welfare, price of anarchy, participation, mean epsilon and noise. The numbers "
        "stand in the tables.",
        "Large: mean and 95 % interval. Small: the single populations. Each mechanism has the same "
        "colour and sign in all figures.",
        frame,
        "comparison.parquet",
    )
    more = averages_table(frame, _MORE, "Where the money goes")
    results: list[Block] = [picture, *comparison_tables(frame), more]
    if n > 1 and len(names) > 1:
        results.append(_differences(frame, names))
    results.append(claims_table(run["claims"]))
    remarks = [*failures(frame), *notes(frame, run)]
    command = f"fcfn compare scenario.toml --mechanisms {','.join(names)} --replications {n}"
    return Page(
        title=run["title"] or "Mechanisms side by side",
        subtitle=f"Report of a comparison of mechanisms by fcfn_abm, seed {run['seed']}",
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
            Section("The mechanisms side by side", results),
            Section("How to read it", [*map(Words, remarks), Terms(_TERMS)]),
            Section("What was priced", [settings_table(scenario)]),
            reproduce(f"{command} --out again", toml, run, f"It took {run['seconds']:.3g} s."),
        ],
    )


def _differences(frame: pd.DataFrame, names: list[str]) -> Table:
    """Return by how much mechanisms differ from the first one in the same populations."""
    first, *others = names
    rows = []
    for name in others:
        cells = [interval(_difference(frame, name, first, q)) for q in _COMPARED.values()]
        rows.append([name, *cells])
    return Table(
        ["", *_COMPARED],
        rows,
        f"Difference from {first}, population by population",
        "The same populations are priced by every mechanism, so that these differences are paired: "
        "their intervals are narrower than those of the means suggest. An interval without zero is "
        "a difference.",
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
    """Name the mechanism with the best mean, and those that cannot be told apart from it."""
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
