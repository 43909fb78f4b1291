"""The figures of a run's record."""

from __future__ import annotations

from matplotlib.figure import Figure

from fcfn_abm.records import Record
from fcfn_abm.report.figures.closed_loop import closed_loop
from fcfn_abm.report.figures.market import (
    convergence,
    participation,
    rho_against_epsilon,
    utilities,
)
from fcfn_abm.report.figures.training import accuracy, ledger


def main_figures(record: Record) -> dict[str, Figure]:
    """Draw the figures that every record has, by file name.

    Parameters
    ----------
    record : Record
        If it has traces of all nodes, a sample is read.
    """
    figures = {"convergence": convergence(record), "rho_epsilon": rho_against_epsilon(record)}
    if not record.training.empty:
        figures["accuracy"] = accuracy(record)
    if "value" in record.run:
        figures["closed_loop"] = closed_loop(record)
    return figures


class FiguresOf:
    """The figures of a record as methods without arguments.

    Parameters
    ----------
    record : Record
        The record to draw.
    """

    def __init__(self, record: Record) -> None:
        self._record = record

    def convergence(self) -> Figure:
        """Draw how epsilon and S approach the equilibrium."""
        return convergence(self._record)

    def participation(self) -> Figure:
        """Draw how many nodes take part, and when the others left."""
        return participation(self._record)

    def rho_against_epsilon(self) -> Figure:
        """Draw each node's epsilon against its unit privacy cost."""
        return rho_against_epsilon(self._record)

    def utilities(self) -> Figure:
        """Draw the utilities of the server and the nodes in each round."""
        return utilities(self._record)

    def accuracy(self) -> Figure:
        """Draw the test accuracy of each training."""
        return accuracy(self._record)

    def ledger(self) -> Figure:
        """Draw how much privacy has been spent by each round."""
        return ledger(self._record)

    def closed_loop(self) -> Figure:
        """Draw what a server that learns the value of epsilon pays, buys and learns."""
        return closed_loop(self._record)
