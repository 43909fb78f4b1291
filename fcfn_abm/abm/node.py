"""An edge node: a view of its row that leaves every decision to its learning rule."""

from __future__ import annotations

from typing import Any, ClassVar
from weakref import WeakValueDictionary

import mesa

from fcfn_abm.abm import order
from fcfn_abm.abm.columns import NEVER
from fcfn_abm.abm.round import RowModel
from fcfn_abm.errors import InvalidGameError, ReadOnlyError


class EdgeNode(mesa.Agent):
    """One edge node: a view of a row of the market's columns, which is a place.

    Where nodes come and go, it shows the node that holds the place. The market keeps a node as long
    as it lives itself once an attribute is set on it, or it is put into a set or a dict; other
    nodes are made anew when they are looked at.
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
        node.__dict__.update(model=market, row=row, pos=None, unique_id=market.first_node_id + row)
        return node

    def __init__(self, *_: Any, **__: Any) -> None:
        raise InvalidGameError(
            "A market makes its nodes itself, as many as population.n_nodes says: "
            "market.nodes[row] is one of them."
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute of one's own; those of the game are computed."""
        computed = getattr(type(self), name, None)
        if isinstance(computed, property) and computed.fset is None:
            raise ReadOnlyError(
                f"{name} of a node is computed by its market, and cannot be set; give costs to "
                "the market, PrivacyMarket(scenario, rho=...), or use another name."
            )
        super().__setattr__(name, value)
        self._keep()

    def __hash__(self) -> int:
        """Return a number of this object: who asks, as Mesa's ``AgentSet``, relies on it."""
        self._keep()
        return object.__hash__(self)

    def _keep(self) -> None:
        """Let the market hold this object; a node that is just being unpickled is held already."""
        views = getattr(vars(self).get("model"), "views", None)
        if views is not None:
            views.keep(self)

    def remove(self) -> None:
        """Refuse: rows stay, and nodes leave by `exit_round`."""
        raise InvalidGameError(
            "A node cannot be removed from a market: it leaves when staying does not pay. Take it "
            "out of a set of your own with discard, or make a market with fewer nodes."
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
        order.respond(self.model.round, self.row)


class NodeViews:
    """The nodes of a market that somebody looks at, by row.

    A node is the same object for as long as it is held, and for good once it is kept.
    """

    def __init__(self, model: RowModel) -> None:
        self._model = model
        self._held: WeakValueDictionary[int, EdgeNode] = WeakValueDictionary()
        self._kept: dict[int, EdgeNode] = {}

    def keep(self, node: EdgeNode) -> None:
        """Hold the node of a row, so that it is not made anew."""
        if self._held.get(node.row) is node:  # and not a copy of it
            self._kept[node.row] = node

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: weak references cannot be."""
        return {**vars(self), "_held": dict(self._held)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._held = WeakValueDictionary(state["_held"])

    def __call__(self, row: int) -> EdgeNode:
        """Return the node of a row."""
        node = self._held.get(row)
        if node is None:
            self._held[row] = node = EdgeNode.of_row(self._model, row)
        return node
