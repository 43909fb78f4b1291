"""The figures that belong to the record of a run."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from fcfn_abm.records import Record, sample_rows
from fcfn_abm.report.figures.market import convergence, rho_against_epsilon
from fcfn_abm.report.figures.training import accuracy


def main_figures(record: Record) -> dict[str, Figure]:
    """Draw the figures that every record holds, by the names of their files.

    Parameters
    ----------
    record : Record
        Of traces of all nodes a sample is read.
    """
    form = record.run["equilibrium"]
    figures = {
        "convergence": convergence(record.rounds, few_traces(record), form["total_epsilon"]),
        "rho_epsilon": rho_against_epsilon(record.nodes, form["threshold"]),
    }
    if not record.training.empty:
        task = record.run["training"]
        figures["accuracy"] = accuracy(record.training, task["arms"], task["data"])
    return figures


def few_traces(record: Record) -> pd.DataFrame:
    """Return the traces of as many nodes as a sample holds, whatever was kept."""
    nodes, settings = record.nodes, record.scenario.record
    if settings.traces in ("none", "sample") or len(nodes) <= settings.sample_size:
        return record.traces
    expected = (nodes["equilibrium_epsilon"] > 0).to_numpy()
    rows = sample_rows(nodes["rho"].to_numpy(), settings.sample_size, expected)
    return record.traces_of(nodes["node"].iloc[rows])  # places may be empty
