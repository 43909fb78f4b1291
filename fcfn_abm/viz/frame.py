"""The state that the window shows, of a market that is played or a record that is replayed."""

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
    """Training so far."""

    data: str
    """Name of the data set."""
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]
    """Rounds and accuracy of each trained run."""
    rounds: int
    """Rounds of training in total."""


@dataclass(frozen=True)
class Frame:
    """The state of a market at one moment."""

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
    """Reported epsilon of each, shape (k,)."""
    payment: Floats
    """Payment of each, shape (k,), in currency."""
    utility: Floats
    """Utility of each, shape (k,), in currency."""
    exited: npt.NDArray[np.bool_]
    """Which of them had left before this round, shape (k,); they report nothing in it."""
    history: Mapping[str, Sequence[float]]
    """Measures of the rounds so far, by the names of the records' table of rounds."""
    form: Mapping[str, Any]
    """The closed form, as in a record's ``run.json``."""
    priced: Floats | None = None
    """Epsilon under a mechanism without a contest, shape (k,)."""
    by_cost: Rows = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    """The shown nodes in ascending order of rho, as places in these columns."""
    training: Training | None = None
    note: str = ""
    """A sentence about data that are missing."""

    @property
    def threshold(self) -> float:
        """The cost tau / (n - 1) from which on a node stays out; zero without a contest."""
        return float(self.form["threshold"])

    @property
    def expected_total(self) -> float:
        """S of the closed form at the cap of this round, B (n - 1) / tau; zero without a contest.

        For contests other than the one of the paper, S of their own closed form.
        """
        if not self.threshold:
            return 0.0
        caps = self.history["budget"]
        if self.form["mechanism"] != "stackelberg" or not len(caps):
            return float(self.form["total_epsilon"])
        return caps[-1] / self.threshold

    def place_of(self, node: int) -> int | None:
        """Return the position of a node in the columns, or None if it is not shown."""
        places = np.flatnonzero(self.nodes == node)
        return int(places[0]) if places.size else None


@dataclass(frozen=True)
class Path:
    """The reports of one node, round by round."""

    rounds: Sequence[int]
    epsilon: Sequence[float]


class Source(Protocol):
    """What a window shows: a live market or a record."""

    live: bool
    """Whether a market is played; False for a replay."""

    @property
    def moment(self) -> int:
        """The moment that is shown: rounds of the market, and of training after them."""
        ...

    @property
    def first_moment(self) -> int:
        """The first moment that can be shown."""
        ...

    @property
    def moments(self) -> int:
        """The last moment that can be shown: of a live market, that which was played last."""
        ...

    @property
    def over(self) -> bool:
        """Whether no step is left."""
        ...

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """Kind, rounds and reason, once the market has ended."""
        ...

    def step(self) -> None:
        """Advance by one round."""
        ...

    def seek(self, moment: int) -> None:
        """Show another moment."""
        ...

    def frame(self) -> Frame:
        """Return the state at this moment."""
        ...

    def latest(self) -> Frame:
        """Return the state whose curves are drawn; a live market's are never cut."""
        ...

    def path(self, node: int) -> Path:
        """Return the known reports of a node so far."""
        ...

    def exit_round(self, node: int) -> int | None:
        """Return the round at whose end a node left; None if it has not left."""
        ...
