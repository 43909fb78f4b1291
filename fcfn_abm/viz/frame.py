"""What the window shows at one moment, whether a market is played or a record replayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fcfn_abm.scenario import Scenario

type Floats = npt.NDArray[np.float64]
type Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Training:
    """How the nets do, as far as they have been trained."""

    data: str
    """What the images are."""
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]
    """Rounds and accuracy of each arm."""
    rounds: int
    """Rounds that are trained in all."""


@dataclass(frozen=True)
class Frame:
    """One moment of a market."""

    scenario: Scenario
    n_nodes: int
    """Nodes of the population."""
    round: int
    """Rounds that have been played."""
    nodes: Rows
    """Rows of the nodes that can be shown, shape (k,): all, or those of which traces were kept."""
    rho: Floats
    """Unit privacy cost of each, shape (k,), in currency per unit of epsilon."""
    epsilon: Floats
    """Report of each, shape (k,)."""
    payment: Floats
    """Payment of each, shape (k,), in currency."""
    utility: Floats
    """Utility of each, shape (k,), in currency."""
    exited: npt.NDArray[np.bool_]
    """Which of them have left, shape (k,)."""
    history: Mapping[str, Sequence[float]]
    """Measures of the rounds so far, by the names of the records' table of rounds."""
    form: Mapping[str, Any]
    """The closed form, as in a record's ``run.json``."""
    priced: Floats | None = None
    """Epsilon that a mechanism without a contest leads to, shape (k,)."""
    by_cost: Rows = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    """The shown nodes in ascending order of rho, as places in these columns."""
    training: Training | None = None
    note: str = ""
    """What is missing, in a sentence."""

    @property
    def threshold(self) -> float:
        """The cost tau / (n - 1) from which on a node stays out; zero without a contest."""
        return float(self.form["threshold"])

    @property
    def expected_total(self) -> float:
        """S of the closed form at the cap of this round, B (n - 1) / tau; zero without a contest.

        Other contests than the paper's share a pool of their own.
        """
        if not self.threshold:
            return 0.0
        caps = self.history["budget"]
        if self.form["mechanism"] != "stackelberg" or not len(caps):
            return float(self.form["total_epsilon"])
        return caps[-1] / self.threshold

    def place_of(self, node: int) -> int | None:
        """Return where a node stands in the columns, or None if it is not shown."""
        places = np.flatnonzero(self.nodes == node)
        return int(places[0]) if places.size else None


@dataclass(frozen=True)
class Path:
    """What a node reported, round by round."""

    rounds: Sequence[int]
    epsilon: Sequence[float]


class Source(Protocol):
    """What a window is opened on."""

    live: bool
    """Whether it is played, and not replayed."""

    @property
    def moment(self) -> int:
        """How many steps have been made: rounds of the market, and then of training."""
        ...

    @property
    def moments(self) -> int | None:
        """How many there are in all; None where that is not known."""
        ...

    @property
    def over(self) -> bool:
        """Whether there is nothing to come."""
        ...

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """Kind, rounds and reason, once the market has ended."""
        ...

    def step(self) -> None:
        """Go on by a round."""
        ...

    def frame(self) -> Frame:
        """Return what there is to see now."""
        ...

    def path(self, node: int) -> Path:
        """Return what is known of a node's reports so far."""
        ...

    def left(self, node: int) -> int | None:
        """Return the round at whose end a node left; None if it is in the market."""
        ...

    def close(self) -> None:
        """Let go of threads and memory."""
        ...
