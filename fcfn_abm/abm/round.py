"""What a round needs to be played, paid, learnt from and measured: less than the whole market."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import mesa
import numpy as np

from fcfn_abm.abm.bulletin import Bulletin
from fcfn_abm.abm.columns import Floats, NodeColumns
from fcfn_abm.abm.groups import NodeGroup
from fcfn_abm.game import Terms
from fcfn_abm.learning import News, Observation
from fcfn_abm.learning.base import Rows
from fcfn_abm.mechanisms import Contest


def _no_caps() -> Floats:
    return np.zeros(0)


def admit(epsilon: Floats, terms: Terms, cap: Floats) -> Floats:
    """Return reports as nodes can make them: none above its cap, or below the reserve.

    Staying out, zero, is no report.
    """
    within = np.minimum(np.maximum(epsilon, terms.reserve), cap)
    return np.where(epsilon > 0, within, 0.0)


class Actor(Protocol):
    """A node that acts by methods of its own."""

    def respond(self) -> None:
        """Move."""

    def choose_epsilon(self, seen: Observation[float]) -> float:
        """Return the epsilon of this round."""

    def learn(self, news: News) -> None:
        """Take in what a round has shown."""


class Turns(Protocol):
    """Random numbers for the orders of moves."""

    def draw(self, first_round: int, n_rounds: int = 1) -> Floats:
        """Return numbers that are uniform in [0, 1), shape (n_rounds, n_nodes)."""


@dataclass(frozen=True)
class Round:
    """One round: moves change its columns and its bulletin, and nothing else."""

    index: int
    """Number of the round, from 1."""
    columns: NodeColumns
    """The state of all nodes."""
    bulletin: Bulletin
    """The reports that stand, as far as nodes may see them."""
    groups: tuple[NodeGroup, ...]
    """By which rules nodes move and leave; they cover all rows."""
    pool: float
    """What the nodes share in proportion to epsilon, in currency."""
    n_active: int
    """How many nodes took part in the last round."""
    present: Rows
    """Rows of the nodes that are there."""
    movers: Rows
    """Rows of the nodes that move."""
    epsilon_floor: float
    """Smallest admissible report."""
    turns: Turns | None
    """Numbers that give the order of moves in turn; None where it is that of the rows."""
    seed: int
    """Root of all chance in the market."""
    rng: np.random.Generator
    """Chance for rules that draw as they move."""
    agents: Mapping[int, Actor]
    """Nodes that act by methods of their own, by row; all others follow the rule of their group."""
    epsilon_left: Floats | None = None
    """The most that each node may still sell, shape (n,); None without a limit."""
    contest: Contest | None = None
    """What payments are shared by; None where nodes answer contracts."""
    terms: Terms | None = None
    """Form of the cost, fixed cost and reserve; None in the game of the paper."""
    caps: Floats = field(default_factory=_no_caps)
    """The most that each node can sell, shape (n,), where there are terms."""

    def admit(self, epsilon: Floats, rows: Rows) -> Floats:
        """Return reports of some nodes as they can make them: :func:`admit`."""
        return epsilon if self.terms is None else admit(epsilon, self.terms, self.caps[rows])

    def acting_among(self, rows: Rows) -> list[int]:
        """Return those of some rows whose nodes act by methods of their own, ascending."""
        if not self.agents:
            return []
        among = np.zeros(len(self.columns), dtype=bool)
        among[rows] = True
        return [row for row in sorted(self.agents) if among[row]]


class RowModel(mesa.Model):
    """A Mesa model whose nodes are rows of columns: what a node needs of its market."""

    columns: NodeColumns
    groups: tuple[NodeGroup, ...]
    first_node_id: int
    views: Any
    """Makes the agent of a row, and keeps those agents that hold something of their own."""

    @abstractmethod
    def set_rho(self, rows: Any, values: Any) -> None:
        """Set unit privacy costs."""

    @property
    @abstractmethod
    def round(self) -> Round:
        """The round that is being played, or was played last."""
