"""Inputs of a round: what is needed to play, pay, learn and measure it."""

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
    """Return reports limited to what nodes may report: none above its cap or below the reserve.

    Zero (staying out) is always allowed.
    """
    within = np.minimum(np.maximum(epsilon, terms.reserve), cap)
    return np.where(epsilon > 0, within, 0.0)


class Actor(Protocol):
    """A node that overrides methods of the move."""

    def respond(self) -> None:
        """Move."""

    def choose_epsilon(self, seen: Observation[float]) -> float:
        """Return the epsilon of this round."""

    def learn(self, news: News) -> None:
        """Learn from a round."""


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
    """The current reports, as far as nodes may see them."""
    groups: tuple[NodeGroup, ...]
    """Rules by which nodes move and leave; the groups cover all rows."""
    pool: float
    """What the nodes share in proportion to epsilon, in currency."""
    n_active: int
    """Number of nodes that took part in the last round."""
    present: Rows
    """Rows of the nodes in the market."""
    movers: Rows
    """Rows of the nodes that move."""
    epsilon_floor: float
    """Smallest admissible report."""
    turns: Turns | None
    """Numbers that give the order of moves in turn; None for the order of the rows."""
    seed: int
    """Seed of all random numbers of the market."""
    rng: np.random.Generator
    """Generator for rules that draw as they move."""
    agents: Mapping[int, Actor]
    """Nodes that override methods of the move, by row; all others follow the rule of their
    group."""
    epsilon_left: Floats | None = None
    """Largest epsilon that each node may still sell, shape (n,); None without a limit."""
    contest: Contest | None = None
    """Contest by which payments are shared; None if nodes answer contracts."""
    terms: Terms | None = None
    """Form of the cost, fixed cost and reserve; None in the game of the paper."""
    caps: Floats = field(default_factory=_no_caps)
    """Largest epsilon that each node can sell, shape (n,), used with terms."""

    def admit(self, epsilon: Floats, rows: Rows) -> Floats:
        """Return reports of some nodes limited to what they may report; see :func:`admit`."""
        return epsilon if self.terms is None else admit(epsilon, self.terms, self.caps[rows])

    def select_acting(self, rows: Rows) -> list[int]:
        """Return those of some rows whose nodes override methods of the move, ascending."""
        if not self.agents:
            return []
        among = np.zeros(len(self.columns), dtype=bool)
        among[rows] = True
        return [row for row in sorted(self.agents) if among[row]]


class RowModel(mesa.Model):
    """A Mesa model whose nodes are rows of columns; the part that a node uses of its market."""

    columns: NodeColumns
    groups: tuple[NodeGroup, ...]
    first_node_id: int
    views: Any
    """Creates the agent of a row, and keeps agents that have attributes of their own."""

    @abstractmethod
    def set_rho(self, rows: Any, values: Any) -> None:
        """Set unit privacy costs."""

    @property
    @abstractmethod
    def round(self) -> Round:
        """The current or last round."""
