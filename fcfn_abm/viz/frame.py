"""The state that the window shows, of a live market or of a replayed record."""

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
    """Rounds and accuracy of each training."""
    rounds: int
    """Rounds of training in total."""


@dataclass(frozen=True)
class Frame:
    """The state of a market at a moment."""

    scenario: Scenario
    n_nodes: int
    """Number of nodes in the population."""
    round: int
    """Rounds played so far."""
    nodes: Rows
    """Rows of the nodes that can be shown, shape (k,): all, or those with traces."""
    rho: Floats
    """Unit privacy cost of each, shape (k,), in currency per unit of epsilon."""
    epsilon: Floats
    """Reported epsilon of each, shape (k,)."""
    payment: Floats
    """Payment of each, shape (k,), in currency."""
    utility: Floats
    """Utility of each, shape (k,), in currency."""
    exited: npt.NDArray[np.bool_]
    """Whether they had exited before this round, shape (k,); exited nodes report nothing."""
    history: Mapping[str, Sequence[float]]
    """Measures of the rounds so far, by column of the records' table of rounds."""
    form: Mapping[str, Any]
    """The closed form, as in a record's ``run.json``."""
    priced: Floats | None = None
    """Epsilon under a mechanism without a contest, shape (k,)."""
    by_cost: Rows = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    """The shown nodes in ascending order of rho, as places in these columns."""
    training: Training | None = None
    note: str = ""
    """A sentence about missing data."""

    @property
    def threshold(self) -> float:
        """The cost tau / (n - 1) from which a node stays out; zero without a contest."""
        return float(self.form["threshold"])

    @property
    def expected_total(self) -> float:
        """S of the closed form at the cap of this round, B (n - 1) / tau; zero without a contest.

        For contests other than the paper's, S of their own closed form.
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
    """The reports of one node by round."""

    rounds: Sequence[int]
    epsilon: Sequence[float]


class Source(Protocol):
    """Source of the window's data: a live market or a record."""

    live: bool
    """Whether a market is played (True) or a record replayed (False)."""

    @property
    def moment(self) -> int:
        """The shown moment: rounds of the market, followed by rounds of training."""
        ...

    @property
    def first_moment(self) -> int:
        """The first moment that can be shown."""
        ...

    @property
    def moments(self) -> int:
        """The last moment that can be shown; in a live market, the last one played."""
        ...

    @property
    def over(self) -> bool:
        """Whether no further step is possible."""
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
        """Return the state whose curves are drawn; those of a live market are always complete."""
        ...

    def path(self, node: int) -> Path:
        """Return the known reports of a node so far."""
        ...

    def exit_round(self, node: int) -> int | None:
        """Return the round at whose end a node exited, or None if it has not exited."""
        ...
