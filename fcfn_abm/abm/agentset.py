"""Mesa's agent sets over columns: nodes are rows, and become agents on access."""

from __future__ import annotations

import math
import operator
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from random import Random
from typing import Any, Self, overload

import mesa
import numpy as np
import numpy.typing as npt
from mesa.agentset import AbstractAgentSet

from fcfn_abm.abm.columns import NodeColumns
from fcfn_abm.abm.node import EdgeNode
from fcfn_abm.errors import InvalidGameError

type RowNumbers = npt.NDArray[np.intp]


class _Agents(AbstractAgentSet):
    """Common part of sets of rows and sets of agents."""

    def __copy__(self) -> Self:
        return self.copy()

    @abstractmethod
    def copy(self) -> Self:
        """Return the same agents as another set."""

    def to_list(self) -> list[Any]:
        """Return the agents as a list."""
        return list(self)

    def get(
        self,
        attr_names: str | list[str],
        handle_missing: str = "error",
        default_value: Any = None,
    ) -> list[Any]:
        """Return an attribute of every agent, or several."""
        _require_known(handle_missing)
        if not isinstance(attr_names, str):
            columns = [self.get(name, handle_missing, default_value) for name in attr_names]
            if not columns:
                return [[] for _ in range(len(self))]
            return [list(row) for row in zip(*columns, strict=True)]
        if handle_missing == "error":
            return [getattr(agent, attr_names) for agent in self]
        return [getattr(agent, attr_names, default_value) for agent in self]

    def do(self, method: str | Callable[..., Any], *args: Any, **kwargs: Any) -> Self:
        """Call a method of every agent, or a function with it."""
        self.map(method, *args, **kwargs)
        return self

    def map(self, method: str | Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Call a method of every agent, or a function with it, and return the results."""
        if isinstance(method, str):
            return [getattr(agent, method)(*args, **kwargs) for agent in self]
        return [method(agent, *args, **kwargs) for agent in self]


def _require_known(handle_missing: str) -> None:
    """Raise the error that Mesa raises for an unknown option about missing attributes."""
    if handle_missing not in ("error", "default"):
        raise ValueError(
            f"Unknown handle_missing option: {handle_missing}, "
            "should be one of 'error' or 'default'"
        )


def _count(at_most: float, size: int) -> int:
    """Return how many agents ``at_most`` of Mesa's ``select`` allows: a share, or a number."""
    if isinstance(at_most, float) and at_most <= 1.0:
        at_most = int(size * at_most)
    return max(0, math.ceil(min(at_most, size)))


class NodeSet(_Agents, Sequence[EdgeNode]):
    """Edge nodes of one market, in some order: an array of row numbers.

    Behaves like Mesa's ``AgentSet``. The agent of a row is created on access, and stays the same
    object while it is referenced; its attributes are read from the market's columns.

    Parameters
    ----------
    columns : NodeColumns
        The state of all nodes of the market.
    view : callable
        Returns the agent of a row.
    random : random.Random
        Generator for shuffling.
    rows : ndarray of int, optional
        Rows of the nodes. By default all, in order.
    """

    def __init__(
        self,
        columns: NodeColumns,
        view: Callable[[int], EdgeNode],
        random: Random,
        rows: RowNumbers | None = None,
    ) -> None:
        self.columns, self.view, self.random = columns, view, random
        self.rows = np.arange(len(columns), dtype=np.intp) if rows is None else rows

    def __len__(self) -> int:
        return self.rows.size

    def __iter__(self) -> Iterator[EdgeNode]:
        return (self.view(row) for row in self.rows.tolist())

    def __contains__(self, agent: object) -> bool:
        if not isinstance(agent, EdgeNode) or agent.model.columns is not self.columns:
            return False
        return bool((self.rows == agent.row).any())

    @overload
    def __getitem__(self, item: int) -> EdgeNode: ...
    @overload
    def __getitem__(self, item: slice) -> list[EdgeNode]: ...
    def __getitem__(self, item: int | slice) -> EdgeNode | list[EdgeNode]:
        """Return one node, or a list of nodes."""
        if isinstance(item, slice):
            return [self.view(row) for row in self.rows[item].tolist()]
        return self.view(self.rows.item(item))

    def copy(self) -> NodeSet:
        """Return the same nodes as another set."""
        return self._of(self.rows.copy())

    def get(
        self,
        attr_names: str | list[str],
        handle_missing: str = "error",
        default_value: Any = None,
    ) -> list[Any]:
        """Return one or several attributes of every node; fast for columns."""
        _require_known(handle_missing)
        if isinstance(attr_names, str) and attr_names in EdgeNode.COLUMNS:
            values = getattr(self.columns, attr_names)[self.rows]
            return list(values.tolist())
        return super().get(attr_names, handle_missing, default_value)

    def select(
        self,
        filter_func: Callable[[EdgeNode], bool] | None = None,
        at_most: float = float("inf"),
        inplace: bool = False,
        agent_type: type | None = None,
    ) -> NodeSet:
        """Return the nodes for which ``filter_func`` holds; see Mesa's ``AgentSet.select``."""
        rows = self.rows
        if agent_type is not None and not issubclass(EdgeNode, agent_type):
            if not issubclass(agent_type, EdgeNode):
                rows = rows[:0]
            kept = [isinstance(self.view(row), agent_type) for row in rows.tolist()]
            rows = rows[np.array(kept, dtype=bool)]
        if filter_func is not None:
            kept = [bool(filter_func(self.view(row))) for row in rows.tolist()]
            rows = rows[np.array(kept, dtype=bool)]
        rows = rows[: _count(at_most, len(self))]
        return self._with(rows, inplace=inplace)

    def shuffle(self, inplace: bool = False) -> NodeSet:
        """Return the nodes in random order."""
        return self._with(self._shuffled(), inplace=inplace)

    def sort(
        self, key: Callable[[EdgeNode], Any] | str, ascending: bool = False, inplace: bool = False
    ) -> NodeSet:
        """Return the nodes in the order of a key; fast for attributes that are columns."""
        if isinstance(key, str) and key in EdgeNode.COLUMNS:
            values = getattr(self.columns, key)[self.rows]
            values = values.astype(np.int8) if values.dtype == bool else values
            order = np.argsort(values if ascending else -values, kind="stable")
        else:
            of = operator.attrgetter(key) if isinstance(key, str) else key
            keys = [of(node) for node in self]
            order = np.array(sorted(range(len(keys)), key=keys.__getitem__, reverse=not ascending))
        return self._with(self.rows[order.astype(np.intp)], inplace=inplace)

    def groupby(self, by: Callable[[EdgeNode], Any] | str, result_type: str = "agentset") -> Any:
        """Group the nodes; see Mesa's ``AgentSet.groupby``."""
        groups = super().groupby(by, result_type="list")
        if result_type == "agentset":
            groups.groups = {
                name: self._of(np.array([node.row for node in nodes], dtype=np.intp))
                for name, nodes in groups.groups.items()
            }
        return groups

    def shuffle_do(self, method: str | Callable[..., Any], *args: Any, **kwargs: Any) -> NodeSet:
        """Call a method of every node in random order; the order of the set does not change."""
        self._of(self._shuffled()).map(method, *args, **kwargs)
        return self

    def add(self, agent: EdgeNode) -> None:
        """Add a node of the same market, unless it is in the set."""
        if agent not in self:
            self._require_own([agent])
            self.rows = np.append(self.rows, agent.row)

    def discard(self, agent: EdgeNode) -> None:
        """Remove a node from this set, if it is in it."""
        self.rows = self.rows[self.rows != agent.row]

    def remove(self, agent: EdgeNode) -> None:
        """Remove a node from this set."""
        if agent not in self:
            raise KeyError(agent)
        self.discard(agent)

    def _update(self, agents: Iterable[EdgeNode]) -> NodeSet:
        agents = list(agents)
        self._require_own(agents)
        self.rows = np.array([agent.row for agent in agents], dtype=np.intp)
        return self

    def _from_iterable(self, agents: Iterable[EdgeNode]) -> Any:
        """Return the result of operators such as ``|``: a set of nodes, or of any agents."""
        agents = list(agents)
        if not all(map(self._is_own, agents)):
            return AgentList(agents, self.random)
        rows = dict.fromkeys(agent.row for agent in agents)
        return self._of(np.array(list(rows), dtype=np.intp))

    def _is_own(self, agent: object) -> bool:
        return isinstance(agent, EdgeNode) and agent.model.columns is self.columns

    def _require_own(self, agents: Iterable[object]) -> None:
        if not all(map(self._is_own, agents)):
            raise InvalidGameError(
                "A set of nodes can hold nodes of one market only; use mesa.agent.AgentSet(agents) "
                "for agents of any kind."
            )

    def _of(self, rows: RowNumbers) -> NodeSet:
        return NodeSet(self.columns, self.view, self.random, rows)

    def _with(self, rows: RowNumbers, *, inplace: bool) -> NodeSet:
        if not inplace:
            return self._of(rows)
        self.rows = rows
        return self

    def _shuffled(self) -> RowNumbers:
        rows = self.rows.tolist()
        self.random.shuffle(rows)
        return np.array(rows, dtype=np.intp)


class AgentList(_Agents):
    """Agents of any kind, in order; holds strong references, unlike Mesa's ``AgentSet``.

    Parameters
    ----------
    agents : iterable of mesa.Agent
        The agents.
    random : random.Random
        Generator for shuffling.
    """

    def __init__(self, agents: Iterable[mesa.Agent], random: Random) -> None:
        self._agents = _by_id(agents)
        self.random = random

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for copy and pickle, without object ids, which differ in copies."""
        return {**vars(self), "_agents": list(self._agents.values())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _agents=_by_id(state["_agents"]))

    def __len__(self) -> int:
        return len(self._agents)

    def __iter__(self) -> Iterator[mesa.Agent]:
        return iter(list(self._agents.values()))

    def __contains__(self, agent: object) -> bool:
        return id(agent) in self._agents

    def _from_iterable(self, agents: Iterable[mesa.Agent]) -> AgentList:
        return AgentList(agents, self.random)

    def __getitem__(self, item: int | slice) -> Any:
        """Return one agent, or a list of agents."""
        return self.to_list()[item]

    def copy(self) -> AgentList:
        """Return the same agents as another set."""
        return AgentList(self, self.random)

    def select(
        self,
        filter_func: Callable[[mesa.Agent], bool] | None = None,
        at_most: float = float("inf"),
        inplace: bool = False,
        agent_type: type | None = None,
    ) -> AgentList:
        """Return the agents for which ``filter_func`` holds; see Mesa's ``AgentSet.select``."""
        at_most = _count(at_most, len(self))
        selected: list[mesa.Agent] = []
        for agent in self:
            if len(selected) >= at_most:
                break
            if (agent_type is None or isinstance(agent, agent_type)) and (
                filter_func is None or filter_func(agent)
            ):
                selected.append(agent)
        return self._update(selected) if inplace else AgentList(selected, self.random)

    def shuffle(self, inplace: bool = False) -> AgentList:
        """Return the agents in random order."""
        agents = self.to_list()
        self.random.shuffle(agents)
        return self._update(agents) if inplace else AgentList(agents, self.random)

    def sort(
        self,
        key: Callable[[mesa.Agent], Any] | str,
        ascending: bool = False,
        inplace: bool = False,
    ) -> AgentList:
        """Return the agents in the order of a key."""
        of = operator.attrgetter(key) if isinstance(key, str) else key
        agents = sorted(self, key=of, reverse=not ascending)
        return self._update(agents) if inplace else AgentList(agents, self.random)

    def groupby(self, by: Callable[[mesa.Agent], Any] | str, result_type: str = "agentset") -> Any:
        """Group the agents; see Mesa's ``AgentSet.groupby``."""
        groups = super().groupby(by, result_type="list")
        if result_type == "agentset":
            groups.groups = {k: AgentList(v, self.random) for k, v in groups.groups.items()}
        return groups

    def shuffle_do(self, method: str | Callable[..., Any], *args: Any, **kwargs: Any) -> AgentList:
        """Call a method of every agent in random order; the order of the set does not change."""
        self.shuffle().map(method, *args, **kwargs)
        return self

    def add(self, agent: mesa.Agent) -> None:
        """Add an agent."""
        self._agents[id(agent)] = agent

    def discard(self, agent: mesa.Agent) -> None:
        """Remove an agent, if it is in the set."""
        self._agents.pop(id(agent), None)

    def remove(self, agent: mesa.Agent) -> None:
        """Remove an agent."""
        if agent not in self:
            raise KeyError(agent)
        self.discard(agent)

    def _update(self, agents: Iterable[mesa.Agent]) -> AgentList:
        self._agents = _by_id(agents)
        return self


def _by_id(agents: Iterable[mesa.Agent]) -> dict[int, mesa.Agent]:
    """Return agents by object id; hashing a node would keep it alive in its market."""
    return {id(agent): agent for agent in agents}


class MarketAgents(AgentList):
    """All agents of a market, in this order: the server, agents that a user adds, the nodes."""

    def __init__(self, nodes: NodeSet, random: Random) -> None:
        super().__init__((), random)
        self._nodes = nodes

    def __len__(self) -> int:
        return len(self._agents) + len(self._nodes)

    def __iter__(self) -> Iterator[mesa.Agent]:
        return chain(super().__iter__(), self._nodes)

    def __contains__(self, agent: object) -> bool:
        return super().__contains__(agent) or agent in self._nodes

    def add(self, agent: mesa.Agent) -> None:
        """Add an agent; the nodes are always included."""
        if agent not in self._nodes:
            super().add(agent)

    def discard(self, agent: mesa.Agent) -> None:
        """Remove an agent, if it is in the set; nodes cannot be removed."""
        if agent in self._nodes:
            agent.remove()  # raises with the reason
        super().discard(agent)

    def _update(self, agents: Iterable[mesa.Agent]) -> AgentList:  # noqa: ARG002
        raise InvalidGameError(
            "The order of a market's agents is fixed; use a copy, market.agents.copy()."
        )
