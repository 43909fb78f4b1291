"""What a round needs to be played, paid, learnt from and measured: less than the whole market."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import mesa
import numpy as np

from fcfn_abm.abm.bulletin import Bulletin
from fcfn_abm.abm.columns import NodeColumns
from fcfn_abm.learning import LearningRule
from fcfn_abm.learning.base import Rows
from fcfn_abm.mechanisms import Contest
from fcfn_abm.scenario import Exit


@dataclass(frozen=True)
class Round:
    """One round: moves change its columns and its bulletin, and nothing else."""

    index: int
    """Number of the round, from 1."""
    columns: NodeColumns
    """The state of all nodes."""
    bulletin: Bulletin
    """The reports that stand, as far as nodes may see them."""
    rule: LearningRule
    """How nodes move."""
    pool: float
    """What the nodes share in proportion to epsilon, in currency."""
    n_active: int
    """How many nodes took part in the last round."""
    present: Rows
    """Rows of the nodes that are there."""
    movers: Rows
    """Rows of the nodes that move."""
    exit: Exit
    """When nodes leave, and whether they come back."""
    epsilon_floor: float
    """Smallest admissible report."""
    turns: Literal["random", "fixed"]
    """Whether nodes that move in turn do so in another order each round."""
    seed: int
    """Root of all chance in the market."""
    rng: np.random.Generator
    """Chance for rules that draw as they move."""
    contest: Contest | None = None
    """What payments are shared by; None where nodes answer contracts."""


class RowModel(mesa.Model):
    """A Mesa model whose nodes are rows of columns: what a node needs of its market."""

    columns: NodeColumns
    first_node_id: int
    views: Any
    """Makes the agent of a row, and keeps those agents that hold something of their own."""

    @property
    @abstractmethod
    def round(self) -> Round:
        """The round that is being played, or was played last."""
