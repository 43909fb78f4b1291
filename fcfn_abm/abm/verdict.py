"""How a market ended, as a word and a sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.columns import Floats

type VerdictKind = Literal["converged", "cycling", "diverged", "no-trade", "max-rounds", "stopped"]

_NEAR = 1e-3  # a larger distance from the closed form at rest is reported: floor reports, exits
LEADER_TOLERANCE = 1e-3
"""Largest relative distance of a cap chosen by the server from B*, at convergence."""


@dataclass(frozen=True)
class Leader:
    """State of the server at the end of a round."""

    budget: float
    """Payment cap B, in currency."""
    best_budget: float
    """B* of the nodes in the market (41), in currency; zero if no trade pays."""
    regret: float
    """Server's gain from B*, with the nodes at equilibrium under both caps, in currency."""
    searched: bool = False
    """Whether B* was found by a search, because (41) does not hold."""
    judged: bool = True
    """Whether the server chooses the cap and could reach B*; otherwise B/B* is only reported."""

    @property
    def source(self) -> str:
        """Where B* comes from, in parentheses."""
        if self.searched:
            return "(by search)"
        return f"(Zhou et al. 2023, eq. {41 if self.best_budget > 0 else 45})"

    @property
    def budget_ratio(self) -> float | None:
        """B/B*; None if no trade pays."""
        return self.budget / self.best_budget if self.best_budget > 0 else None

    @property
    def is_near_best(self) -> bool:
        """Whether a cap chosen by the server is B*, up to `LEADER_TOLERANCE`."""
        if not self.judged:
            return True
        return abs(self.budget - self.best_budget) <= LEADER_TOLERANCE * self.best_budget

    @property
    def has_no_cap(self) -> bool:
        """Whether a cap chosen by the server is zero, although another one would pay."""
        return self.judged and self.budget == 0 and self.best_budget > 0

    def describe(self) -> str:
        """Describe the position of the cap, in a clause."""
        if self.best_budget == 0:
            return f"the cap is {self.budget:.4g}, and B* = 0"
        ratio = self.budget / self.best_budget
        said = f"{ratio:.5f}" if 0.5 < ratio < 2 else f"{ratio:.3g}"  # 0.99950 is not 1
        return f"B/B* = {said}, which leaves the server {self.regret:.2g} to gain"


@dataclass(frozen=True)
class Verdict:
    """How a market ended."""

    kind: VerdictKind
    """One of six words."""
    rounds: int
    """Number of rounds played."""
    reason: str
    """The reason, in a sentence."""
    budget_ratio: float | None = None
    """B/B* in the last round; None if no trade pays."""
    server_regret: float | None = None
    """Server's gain from B*, with the nodes at equilibrium under both caps, in currency."""


@dataclass
class Judge:
    """Follows a market round by round, and determines when and how it ends.

    Convergence is measured in the same way for both orders of moves: exploitability, the relative
    change of epsilon and that of the cap must stay below ``tolerance`` for ``patience`` consecutive
    rounds, and a cap that the server has chosen must be B*, up to `LEADER_TOLERANCE`. At the last
    round, a market that came no closer in the second half of the play than in the quarter before
    does not settle: it diverges if the distance still grows, and cycles otherwise. The first
    quarter does not count. A market that comes closer in nearly every round, however slowly, or
    whose moves keep shrinking, neither diverges nor cycles. With noise in the observations, or
    nodes that explore at random, a market cannot rest, and is not classified as cycling; nor is one
    whose server keeps trying caps. While the population changes, the verdict states how far the
    market lags behind; once it stays constant, the judgement restarts.
    """

    tolerance: float
    patience: int
    maximum: int
    noisy: bool = False
    calm_rounds: int = 0
    distances: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    without_cap: list[bool] = field(default_factory=list)
    still_from: int = 0

    _FEWEST = 16  # rounds needed for any classification
    _NEARLY_ALL = 0.9  # rounds
    _NO_PROGRESS = 0.8  # above 0.7, the ratio of the slowest rule, fictitious play: 1 / sqrt(t)
    _GROWTH = 1.5  # of the mean distance, from a quarter of the play to the half after it

    def restart(self) -> None:
        """Judge only later rounds: the game has changed."""
        self.still_from, self.calm_rounds = len(self.distances), 0

    def add_rounds(
        self,
        distances: Floats,
        changes: Floats,
        without_cap: npt.NDArray[np.bool_],
        *,
        calm_rounds: int,
        moving: bool,
    ) -> None:
        """Add rounds after which play continued.

        Parameters
        ----------
        distances, changes : ndarray of float, shape (n_rounds,)
            As in :meth:`add_round`, one number per round.
        without_cap : ndarray of bool, shape (n_rounds,)
            Whether the server had no cap, although one would pay.
        calm_rounds : int
            Number of consecutive calm rounds before the next one.
        moving : bool
            Whether something changed, so that the market was not at rest.
        """
        self.distances += distances.tolist()
        self.changes += np.minimum(changes, 1.0).tolist()
        self.without_cap += without_cap.tolist()
        if moving:
            self.restart()
        else:
            self.calm_rounds = calm_rounds

    def add_round(
        self,
        *,
        exploitability: float,
        change: float,
        budget_change: float,
        distance: float,
        content: bool = True,
        exploring: bool = False,
        searching: bool = False,
        leader: Leader | None = None,
        n_active: int = 2,
        at_rest_without_trade: str = "",
        stopped: str = "",
        moving: str = "",
    ) -> Verdict | None:
        """Add a round; return the verdict if there is one.

        Parameters
        ----------
        exploitability : float
            Largest gain of a node by moving alone, as a share of the cap.
        change, budget_change : float
            Relative change of epsilon and of the cap since the last round.
        distance : float
            Relative distance of epsilon to the closed form.
        content : bool, default True
            Whether the server would keep its cap.
        exploring : bool, default False
            Whether nodes explore at random; repetitions are then due to chance.
        searching : bool, default False
            Whether the server keeps trying caps.
        leader : Leader, optional
            State of the server. By default only the nodes' game is judged.
        n_active : int, default 2
            Number of nodes that take part.
        at_rest_without_trade : str, optional
            Why nobody trades, if nobody does and nobody will.
        stopped : str, optional
            Why no further round is bought, if the server has stopped buying.
        moving : str, optional
            What changes, so that the market is not at rest: "the population", "the game".
        """
        self.distances.append(distance)
        self.changes.append(min(change, 1.0))  # relative to tiny reports, any change is huge
        self.without_cap.append(leader is not None and leader.has_no_cap)
        ended = self._judge_end(
            max(exploitability, change, budget_change) <= self.tolerance
            and content
            and not exploring,
            exploitability,
            change,
            leader,
            exploring,
            searching,
            n_active,
            at_rest_without_trade,
            stopped,
            moving,
        )
        if ended is None:
            return None
        kind, reason = ended
        ratio, regret = (leader.budget_ratio, leader.regret) if leader else (None, None)
        return Verdict(kind, len(self.distances), reason, ratio, regret)

    def _judge_end(
        self,
        calm: bool,
        exploitability: float,
        change: float,
        leader: Leader | None,
        exploring: bool,
        searching: bool,
        n_active: int,
        at_rest_without_trade: str,
        stopped: str,
        moving: str,
    ) -> tuple[VerdictKind, str] | None:
        """Return word and reason if the market has ended."""
        played = len(self.distances)
        if at_rest_without_trade:
            return "no-trade", at_rest_without_trade
        if stopped:
            return "stopped", stopped
        if moving:
            self.restart()
            return ("max-rounds", self._describe_lag(moving)) if played >= self.maximum else None
        if exploring:
            self.still_from = played
        self.calm_rounds = self.calm_rounds + 1 if calm else 0
        at_rest = self.calm_rounds >= self.patience
        if at_rest and n_active == 0:
            return "no-trade", "nobody takes part, and nobody would gain by it alone."
        if at_rest and (leader is None or leader.is_near_best):
            return "converged", self._describe_rest(leader)
        if played < self.maximum:
            return None
        if at_rest and leader:
            return "max-rounds", self._describe_cap_gap(leader)
        if leader and any(late := self.without_cap[played // 2 :]):
            return "max-rounds", self._describe_giving_up(sum(late), len(late), leader)
        if searching and leader and leader.judged:
            allowed = f"{self.maximum} rounds were allowed"
            return "max-rounds", f"{allowed}; the server keeps trying caps: {leader.describe()}."
        if exploring:
            return "max-rounds", self._describe_exploration()
        unsettled = None if change <= self.tolerance else self._judge_unsettled()
        return unsettled or ("max-rounds", self._describe_end(exploitability, change))

    def _describe_rest(self, leader: Leader | None) -> str:
        """Describe a market at rest, and its distance to the computed equilibrium if not small."""
        said = (
            f"exploitability and change stayed below {self.tolerance:g} for {self.patience} rounds"
        )
        if leader and leader.judged:
            said += f"; {leader.describe()}"
        if (distance := self.distances[-1]) > _NEAR:
            said += f"; it rests {distance:.2g} of the largest epsilon away from what was computed"
        return f"{said}."

    def _describe_cap_gap(self, leader: Leader) -> str:
        return (
            f"{self.maximum} rounds were allowed; the nodes are at rest, but the server is not at "
            f"its best cap: {leader.describe()}."
        )

    def _describe_giving_up(self, n_without: int, n_late: int, leader: Leader) -> str:
        return (
            f"{self.maximum} rounds were allowed; the server keeps giving up: its cap was zero in "
            f"{n_without} of the last {n_late} rounds, though B* = {leader.best_budget:.6g} "
            f"{leader.source}."
        )

    def _describe_exploration(self) -> str:
        late = float(np.median(self.distances[len(self.distances) // 2 :]))
        return (
            f"{self.maximum} rounds were allowed; nodes still try reports at random, at a median "
            f"distance of {late:.2g} of the largest epsilon to the equilibrium."
        )

    def _describe_lag(self, moving: str) -> str:
        """Describe the mean distance to a moving equilibrium, after the first rounds."""
        late = np.array(self.distances[len(self.distances) // 2 :])
        late = late[np.isfinite(late)]  # no equilibrium with fewer than two nodes
        return (
            f"{self.maximum} rounds were allowed; {moving} keeps changing, and the market "
            "follows the moving equilibrium at a mean distance of "
            f"{late.mean() if late.size else np.inf:.2g} of the largest epsilon."
        )

    def _describe_end(self, exploitability: float, change: float) -> str:
        allowed = f"{len(self.distances)} rounds were allowed; "
        if change <= self.tolerance < exploitability:
            return (
                f"{allowed}epsilon rests, but not at an equilibrium: a node could gain "
                f"{exploitability:.2g} of B by moving alone."
            )
        if self.noisy:
            still = self.distances[self.still_from :]
            late = float(np.median(still[len(still) // 2 :]))
            return (
                f"{allowed}what nodes see is noisy, and keeps them moving around the equilibrium "
                f"(median distance {late:.2g} of the largest epsilon)."
            )
        return f"{allowed}it has not settled yet."

    def _judge_unsettled(self) -> tuple[VerdictKind, str] | None:
        """Return word and reason of a market that evidently does not settle."""
        still = self.distances[self.still_from :]
        n_still = len(still)
        if n_still < self._FEWEST:
            return None
        late = np.array(still[n_still // 2 :])
        if (late[1:] < late[:-1]).mean() > self._NEARLY_ALL:
            return None
        if not np.isfinite(late).all() or (late[1:] > late[:-1]).mean() > self._NEARLY_ALL:
            return "diverged", "epsilon moves away from the equilibrium for good."
        earlier, later = _late_means(still)
        if later <= max(self._NO_PROGRESS * earlier, self.tolerance):
            return None
        changed_earlier, changes = _late_means(self.changes[self.still_from :])
        if changes <= self._NO_PROGRESS * changed_earlier or self.noisy:
            return None  # its moves keep shrinking, or only noise keeps it moving
        if later > self._GROWTH * earlier:
            return (
                "diverged",
                f"epsilon moves away from the equilibrium (mean distances {earlier:.2g} and then "
                f"{later:.2g} of the largest epsilon).",
            )
        return (
            "cycling",
            f"epsilon keeps moving and comes no closer to the equilibrium "
            f"(mean distance {later:.2g} of the largest epsilon).",
        )


def _late_means(values: list[float]) -> tuple[float, float]:
    """Return the means of the second quarter and of the second half."""
    n = len(values)
    return float(np.mean(values[n // 4 : n // 2])), float(np.mean(values[n // 2 :]))
