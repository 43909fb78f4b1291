"""The state of all nodes as columns; agents are views of one row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

type Floats = npt.NDArray[np.float64]

NEVER = -1
"""Exit round of a node that has not left."""


@dataclass
class NodeColumns:
    """One entry per place, which holds a node or is empty, shape (n,)."""

    rho: Floats
    """Unit privacy cost, in currency per unit of epsilon. Read only: `Market.set_rho` changes it
    together with the equilibria that depend on it."""
    epsilon: Floats
    """Report of this round, dimensionless."""
    payment: Floats
    """Payment of the server for it, in currency."""
    utility: Floats
    """Payment minus privacy cost, in currency."""
    idle_rounds: npt.NDArray[np.int64]
    """Number of consecutive rounds in which staying out was the best response."""
    exit_round: npt.NDArray[np.int64]
    """Round at whose end the node left, or `NEVER`."""
    present: npt.NDArray[np.bool_]
    """Which places hold a node: all, unless there is churn."""
    memory: dict[str, Floats]
    """Memory of the learning rule, by name, shape (n,) or (n, width)."""

    @classmethod
    def of(cls, rho: Floats, memory: dict[str, Floats]) -> NodeColumns:
        """Return the columns of nodes that have not reported yet."""
        n_nodes = rho.size
        return cls(
            rho=rho,
            epsilon=np.zeros(n_nodes),
            payment=np.zeros(n_nodes),
            utility=np.zeros(n_nodes),
            idle_rounds=np.zeros(n_nodes, dtype=np.int64),
            exit_round=np.full(n_nodes, NEVER),
            present=np.ones(n_nodes, dtype=bool),
            memory=memory,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "rho":
            value = value.view()
            value.flags.writeable = False
        super().__setattr__(name, value)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Restore a copied or pickled state; copies of read-only arrays would be writable."""
        for name, value in state.items():
            setattr(self, name, value)

    @property
    def exited(self) -> npt.NDArray[np.bool_]:
        """Which nodes have left."""
        return np.asarray(self.exit_round != NEVER)

    def find_exited(self, round_index: int) -> npt.NDArray[np.bool_]:
        """Return which nodes had left before a round, and report nothing in it."""
        return np.asarray(self.exited & (self.exit_round < round_index))

    def __len__(self) -> int:
        return self.rho.size
