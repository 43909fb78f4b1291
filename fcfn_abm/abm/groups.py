"""Groups of nodes, with their rules for learning, start and exit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.columns import Floats, NodeColumns
from fcfn_abm.learning import LearningRule
from fcfn_abm.learning.base import Rows, create_memory
from fcfn_abm.population import Group, RhoDistribution
from fcfn_abm.scenario import Exit
from fcfn_abm.scenario.schema import Start

type Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class GroupRules:
    """Rules of the nodes of a group."""

    learning: LearningRule
    """Learning rule, used if the mechanism is a contest."""
    exit: Exit
    """When they leave, and whether they can return."""
    start: Start
    """Their first reports."""
    distribution: RhoDistribution
    """Distribution of the costs of newcomers, if there is churn."""


@dataclass(frozen=True)
class NodeGroup:
    """Contiguous rows of a market whose nodes follow the same rules."""

    name: str
    """Empty if all nodes are one group."""
    rows: slice
    """Rows of its nodes, with start and stop."""
    rule: LearningRule
    """Learning rule of its nodes."""
    exit: Exit
    """When they leave."""
    start: Start
    """Their first reports."""
    distribution: RhoDistribution
    """Distribution of the costs of newcomers."""
    memory: dict[str, Floats]
    """Memory of its rule, by the names in :attr:`LearningRule.memory`: arrays over all rows of the
    market, because a rule that reads all reports also remembers the other nodes."""

    @overload
    def among(self, rows: Places) -> Places: ...
    @overload
    def among(self, rows: Rows) -> Rows: ...
    def among(self, rows: Rows) -> Rows:
        """Return those of some ascending rows that belong to the group; a view if all do."""
        if isinstance(rows, slice):
            return self.rows if rows == slice(None) else slice(0)
        first, last = np.searchsorted(rows, (self.rows.start, self.rows.stop))
        return rows[first:last]


def group_nodes(
    rho: Floats,
    groups: Sequence[Group],
    rules: Sequence[GroupRules],
    play_by: Callable[[LearningRule], LearningRule],
) -> tuple[NodeColumns, tuple[NodeGroup, ...]]:
    """Return the columns of a market, and its groups.

    Parameters
    ----------
    rho : ndarray of float, shape (n,)
        Unit privacy costs.
    groups : sequence of Group
        Names and rows, which cover the market; without groups all nodes are one group.
    rules : sequence of GroupRules
        Rules of each group.
    play_by : callable
        Returns how nodes with a learning rule answer the mechanism.
    """
    groups = groups or Group.partition({"": rho.size})
    learning = [play_by(own.learning) for own in rules]
    kept = [create_memory(rule, rho.size) for rule in learning]
    columns = NodeColumns.of(
        rho,
        {
            f"{group.name}.{name}" if group.name else name: values
            for group, memory in zip(groups, kept, strict=True)
            for name, values in memory.items()
        },
    )
    return columns, tuple(
        NodeGroup(group.name, group.rows, rule, own.exit, own.start, own.distribution, memory)
        for group, rule, own, memory in zip(groups, learning, rules, kept, strict=True)
        if group.rows.stop > group.rows.start
    )


def find_group(groups: Sequence[NodeGroup], row: int) -> NodeGroup:
    """Return the group of a row."""
    return next(group for group in groups if row < group.rows.stop)
