"""An edge node: a view of its row that leaves every decision to its learning rule."""

from __future__ import annotations

from typing import ClassVar
from weakref import WeakValueDictionary

import mesa

from fcfn_abm.abm import order
from fcfn_abm.abm.columns import NEVER
from fcfn_abm.abm.round import RowModel
from fcfn_abm.abm.scores import played_in_scores
from fcfn_abm.errors import InvalidGameError


class EdgeNode(mesa.Agent):
    """One edge node: a view of a row of the market's columns, which is a place.

    Where nodes come and go, it shows the node that holds the place.
    """

    model: RowModel
    COLUMNS: ClassVar = frozenset(
        {"rho", "epsilon", "payment", "utility", "idle_rounds", "exit_round", "present"}
    )
    """What is a column, and so can be read for all nodes at once."""

    @classmethod
    def of_row(cls, market: RowModel, row: int) -> EdgeNode:
        """Return the node of a row; nothing is registered, since the market knows its rows."""
        node = cls.__new__(cls)
        node.model, node.row, node.pos = market, row, None
        node.unique_id = market.first_node_id + row
        return node

    def remove(self) -> None:
        """Refuse: rows stay, and nodes leave by `exit_round`."""
        raise InvalidGameError(
            "A node cannot be removed from a market: it leaves when staying does not pay."
        )

    @property
    def rho(self) -> float:
        """Unit privacy cost, currency per unit of epsilon."""
        return self.model.columns.rho.item(self.row)

    @property
    def epsilon(self) -> float:
        """Report of this round, dimensionless."""
        return self.model.columns.epsilon.item(self.row)

    @property
    def payment(self) -> float:
        """What the server paid in this round, in currency."""
        return self.model.columns.payment.item(self.row)

    @property
    def utility(self) -> float:
        """Payment less privacy cost of this round, in currency."""
        return self.model.columns.utility.item(self.row)

    @property
    def present(self) -> bool:
        """Whether there is a node in this place."""
        return self.model.columns.present.item(self.row)

    @property
    def exited(self) -> bool:
        """Whether the node has left the market."""
        return self.model.columns.exit_round.item(self.row) != NEVER

    @property
    def idle_rounds(self) -> int:
        """For how many rounds in a row there has been a reason to leave."""
        return self.model.columns.idle_rounds.item(self.row)

    @property
    def exit_round(self) -> int:
        """Round at whose end the node left, or -1."""
        return self.model.columns.exit_round.item(self.row)

    def respond(self) -> None:
        """See the running total, and choose the epsilon of this round."""
        with played_in_scores(self.model.round) as played:
            order.respond(played, self.row)


class NodeViews:
    """The nodes of a market that somebody looks at, by row.

    A node is the same object for as long as it is held.
    """

    def __init__(self, model: RowModel) -> None:
        self._model = model
        self._held: WeakValueDictionary[int, EdgeNode] = WeakValueDictionary()

    def __call__(self, row: int) -> EdgeNode:
        """Return the node of a row."""
        node = self._held.get(row)
        if node is None:
            self._held[row] = node = EdgeNode.of_row(self._model, row)
        return node
