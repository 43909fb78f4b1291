"""What a mechanism leads to, in a sentence, and what becomes of every node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fcfn_abm.errors import OutputError
from fcfn_abm.records.tables import insert_names
from fcfn_abm.report.blocks import Table, format_count, number
from fcfn_abm.report.summary import name_node

_SHOWN = 60  # nodes that are listed; of more, those with the lowest costs
_STAYS_OUT = ("-", "-", "stays out")


def describe_outcome(facts: Mapping[str, Any], n_nodes: int, *, fixed: bool) -> str:
    """Say in a sentence who takes part, and what is paid.

    Parameters
    ----------
    facts : mapping
        ``equilibrium`` of a record's ``run.json``.
    n_nodes : int
        How many nodes there are.
    fixed : bool
        Whether the payment cap is given, and not the server's best one.
    """
    if not facts["n_active"]:
        why = facts["reason"] or "no payment cap pays the server (45)."
        best = "" if fixed or facts["mechanism"] != "stackelberg" else " B* = 0:"
        return f"None of {format_count(n_nodes, 'node')} takes part.{best} {why}"
    paid = number(facts["payment"])
    if facts["mechanism"] == "stackelberg":
        paid = f"{'B' if fixed else 'B*'} = {paid}"
    cost = facts["payment"] - facts["node_utility"]
    return (
        f"{facts['n_active']:,} of {format_count(n_nodes, 'node')} take part; the server pays "
        f"{paid} a round and keeps {number(facts['server_utility'])}; privacy costs the nodes "
        f"{number(cost)} of the payment."
    )


def nodes_frame(outcome: Any, rho: Any, names: Sequence[str | None] | None) -> pd.DataFrame:
    """Return one row a node: what its epsilon costs, sells for and leaves it.

    Parameters
    ----------
    outcome : Outcome
        Of a mechanism.
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
    """List the nodes, from the lowest cost up."""
    ranked = nodes.sort_values("rho", kind="stable")
    rows = [_list_node(node) for node in ranked.head(_SHOWN).itertuples()]
    more = len(ranked) - len(rows)
    note = f"{more:,} nodes with higher costs are not listed; --table writes all." if more else ""
    return Table(["node", "rho", "epsilon", "paid", "keeps"], rows, note=note)


def _list_node(node: Any) -> list[str]:
    sells = [number(node.epsilon, 4), number(node.payment, 4), number(node.utility, 4)]
    return [name_node(node), number(node.rho, 4), *(sells if node.active else _STAYS_OUT)]


def write_nodes(nodes: pd.DataFrame, path: Path) -> None:
    """Write the table of nodes as a CSV file.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        nodes.to_csv(path, index=False)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}.") from None
