"""An edge node: a view of its row; its learning rule makes all decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

import mesa
import numpy as np

from fcfn_abm.abm import order
from fcfn_abm.abm.columns import NEVER
from fcfn_abm.abm.groups import find_group
from fcfn_abm.abm.round import RowModel
from fcfn_abm.abm.scores import use_scores
from fcfn_abm.errors import InvalidGameError, ReadOnlyError
from fcfn_abm.learning import News, Observation
from fcfn_abm.learning.base import Rows


class EdgeNode(mesa.Agent):
    """One edge node: a view of a row (a place) of the market's columns.

    With churn it shows the node that currently holds the place. The market keeps a node object
    permanently once an attribute is set on it, or it is put into a set or a dict; other node
    objects are created on access.

    A custom class, ``PrivacyMarket(scenario, node_class=MyNode)``, may override :meth:`respond`,
    :meth:`choose_epsilon` and :meth:`learn`. Its nodes are created once, with ``__init__(self,
    model)``, and may have attributes of their own.
    """

    model: RowModel
    COLUMNS: ClassVar = frozenset(
        {"rho", "epsilon", "payment", "utility", "idle_rounds", "exit_round", "present"}
    )
    """Attributes that are columns, which can be read for all nodes at once."""

    @classmethod
    def of_row(cls, market: RowModel, row: int) -> Self:
        """Return the node of a row; it is not registered, because the market knows its rows."""
        node = cls.__new__(cls)
        node.__dict__.update(model=market, row=row, pos=None, unique_id=market.first_node_id + row)
        if cls.__init__ is not EdgeNode.__init__:
            node.__init__(market)  # type: ignore[misc]
        return node

    def __init__(self, model: RowModel) -> None:
        if vars(self).get("model") is not model or "row" not in vars(self):
            raise InvalidGameError(
                "Nodes are created by their market, as many as population.n_nodes; use "
                "market.nodes[row]."
            )

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute of the object; attributes of the game are computed."""
        computed = getattr(type(self), name, None)
        if isinstance(computed, property) and computed.fset is None:
            raise ReadOnlyError(
                f"{name} of a node is computed by its market and cannot be set; use another name."
            )
        super().__setattr__(name, value)
        self._keep()

    def __hash__(self) -> int:
        """Return a hash by object identity, and keep the object, on which sets and dicts rely."""
        self._keep()
        return object.__hash__(self)

    def _keep(self) -> None:
        """Let the market keep this object; during unpickling it is kept already."""
        views = getattr(vars(self).get("model"), "views", None)
        if views is not None:
            views.keep(self)

    def remove(self) -> None:
        """Raise an error: rows are permanent, and nodes leave through `exit_round`."""
        raise InvalidGameError(
            "A node cannot be removed from a market; it leaves when staying does not pay. Use "
            "discard to remove it from a set, or create a market with fewer nodes."
        )

    @property
    def rho(self) -> float:
        """Unit privacy cost, currency per unit of epsilon."""
        return self.model.columns.rho.item(self.row)

    @rho.setter
    def rho(self, rho: float) -> None:
        self.model.set_rho([self.row], rho)

    @property
    def epsilon(self) -> float:
        """Report of this round, dimensionless."""
        return self.model.columns.epsilon.item(self.row)

    @property
    def payment(self) -> float:
        """Payment of the server in this round, in currency."""
        return self.model.columns.payment.item(self.row)

    @property
    def utility(self) -> float:
        """Payment minus privacy cost of this round, in currency."""
        return self.model.columns.utility.item(self.row)

    @property
    def present(self) -> bool:
        """Whether there is a node in this place."""
        return self.model.columns.present.item(self.row)

    @property
    def group_name(self) -> str:
        """Name of the node's group in the scenario; empty without groups."""
        return find_group(self.model.groups, self.row).name

    @property
    def exited(self) -> bool:
        """Whether the node has left the market."""
        return self.model.columns.exit_round.item(self.row) != NEVER

    @property
    def idle_rounds(self) -> int:
        """Number of consecutive rounds with a reason to leave."""
        return self.model.columns.idle_rounds.item(self.row)

    @property
    def exit_round(self) -> int:
        """Round at whose end the node left, or -1."""
        return self.model.columns.exit_round.item(self.row)

    def respond(self) -> None:
        """Observe the running total, and choose the epsilon of this round."""
        with use_scores(self.model.round) as played:
            order.respond(played, self.row)

    def choose_epsilon(self, seen: Observation[float]) -> float:
        """Return the epsilon of this round; by default that of the learning rule.

        Called while the node is in the market, which depends on the exit settings.
        """
        played = self.model.round
        return find_group(played.groups, self.row).rule.next_epsilon(seen, played.rng)

    def learn(self, news: News) -> None:
        """Learn from a round or, before the first one, from the first reports.

        Does nothing by default: the learning rule has learned already. The arrays of ``news`` have
        one entry, this node's, except the published reports of all nodes.
        """

    def report(self, epsilon: float) -> None:
        """Report an epsilon; for use in a custom :meth:`respond`."""
        order.report(self.model.round, self.row, epsilon)

    @classmethod
    def acts(cls) -> bool:
        """Return whether this class overrides methods of the move."""
        return any(
            getattr(cls, name) is not getattr(EdgeNode, name)
            for name in ("respond", "choose_epsilon", "learn")
        )


class NodeViews:
    """Node objects of a market in use, by row.

    A node is the same object while it is referenced, and permanently once it is kept.
    """

    def __init__(self, model: RowModel, classes: Mapping[str, type[EdgeNode]]) -> None:
        self._model, self._classes = model, classes
        self.acting: dict[int, EdgeNode] = {}
        """Nodes of classes that override methods of the move, by row."""
        self._held: WeakValueDictionary[int, EdgeNode] = WeakValueDictionary()
        self._kept: dict[int, EdgeNode] = {}

    def keep(self, node: EdgeNode) -> None:
        """Keep the node object of a row, so that it is not created again."""
        if self._held.get(node.row) is node:  # not a copy of it
            self._kept[node.row] = node

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for copy and pickle, without weak references."""
        return {**vars(self), "_held": dict(self._held)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._held = WeakValueDictionary(state["_held"])

    def __call__(self, row: int) -> EdgeNode:
        """Return the node of a row."""
        node = self._held.get(row)
        if node is None:
            node_class = self._class_of(row)
            self._held[row] = node = node_class.of_row(self._model, row)
            if node_class.__init__ is not EdgeNode.__init__:
                self._kept[row] = node  # its __init__ may set attributes
        return node

    def _class_of(self, row: int) -> type[EdgeNode]:
        if not self._classes:
            return EdgeNode
        return self._classes.get(find_group(self._model.groups, row).name, EdgeNode)

    def make_acting(self, rows: Rows) -> None:
        """Create the nodes in these rows that override methods of the move; replace older ones."""
        if not any(kind.acts() for kind in self._classes.values()):
            return
        for row in np.arange(len(self._model.columns))[rows].tolist():
            if self._class_of(row).acts():
                self._held.pop(row, None)
                self._kept.pop(row, None)
                self.acting[row] = self(row)
