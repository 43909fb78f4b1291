"""The outcome of a mechanism, in a sentence and as a table of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fcfn_abm.errors import OutputError
from fcfn_abm.records.tables import insert_names
from fcfn_abm.report.blocks import Table, format_count, number
from fcfn_abm.report.summary import name_node

_SHOWN = 60  # nodes listed; if there are more, those with the lowest costs
_STAYS_OUT = ("-", "-", "stays out")


def describe_outcome(facts: Mapping[str, Any], n_nodes: int, *, fixed: bool) -> str:
    """Describe in a sentence how many nodes take part and what is paid.

    Parameters
    ----------
    facts : mapping
        ``equilibrium`` of a record's ``run.json``.
    n_nodes : int
        Number of nodes.
    fixed : bool
        Whether the payment cap is given rather than chosen optimally.
    """
    if not facts["n_active"]:
        why = (
            facts["reason"] or "no payment cap pays off for the server (Zhou et al. 2023, eq. 45)."
        )
        best = "" if fixed or facts["mechanism"] != "stackelberg" else " B* = 0:"
        return f"None of {format_count(n_nodes, 'node')} takes part.{best} {why}"
    paid = number(facts["payment"])
    if facts["mechanism"] == "stackelberg":
        paid = f"{'B' if fixed else 'B*'} = {paid}"
    cost = facts["payment"] - facts["node_utility"]
    return (
        f"{facts['n_active']:,} of {format_count(n_nodes, 'node')} take part. The server pays "
        f"{paid} per round and has a utility of {number(facts['server_utility'])}. Privacy costs "
        f"the nodes {number(cost)} of the payment."
    )


def nodes_frame(outcome: Any, rho: Any, names: Sequence[str | None] | None) -> pd.DataFrame:
    """Return each node's epsilon, payment and utility, one row per node.

    Parameters
    ----------
    outcome : Outcome
        Outcome of a mechanism.
    rho : ndarray of float, shape (n,)
        Unit privacy costs, in currency per unit of epsilon.
    names : sequence of str or None, optional
        Names of the nodes.
    """
    frame = pd.DataFrame(
        {
            "node": range(len(rho)),
            "rho": rho,
            "epsilon": outcome.epsilon,
            "payment": outcome.payment,
            "utility": outcome.node_utility,
            "active": outcome.active,
        }
    )
    return insert_names(frame, names)


def nodes_table(nodes: pd.DataFrame) -> Table:
    """List the nodes in order of increasing cost."""
    ranked = nodes.sort_values("rho", kind="stable")
    rows = [_list_node(node) for node in ranked.head(_SHOWN).itertuples()]
    more = len(ranked) - len(rows)
    note = f"{more:,} nodes with higher costs are omitted; --table writes all." if more else ""
    return Table(["node", "rho", "epsilon", "paid", "keeps"], rows, note=note)


def _list_node(node: Any) -> list[str]:
    sells = [number(node.epsilon, 4), number(node.payment, 4), number(node.utility, 4)]
    return [name_node(node), number(node.rho, 4), *(sells if node.active else _STAYS_OUT)]


def write_nodes(nodes: pd.DataFrame, path: Path) -> None:
    """Write the table of nodes as a CSV file.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    try:
        nodes.to_csv(path, index=False)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}.") from None
