"""How a run ended, in a word and in a sentence; never silent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

type VerdictKind = Literal["converged", "cycling", "diverged", "no-trade", "max-rounds"]

_NEAR = 1e-3  # rest this far from the closed form is worth a word: reports at the floor, exits


@dataclass(frozen=True)
class Verdict:
    """How a market ended."""

    kind: VerdictKind
    """One of five words."""
    rounds: int
    """Rounds that were played."""
    reason: str
    """Why, in a sentence."""


@dataclass
class Judge:
    """Follows a market round by round, and says when it is over, and how.

    Convergence is measured: exploitability, the relative change of epsilon and that of the cap
    must stay below ``tolerance`` for ``patience`` rounds in a row. At the last round, a market
    that came no closer in the second half of the play than in the quarter before does not settle:
    it is diverging where it ends farther from the equilibrium than it began, and cycling
    otherwise. One that comes closer in nearly every round, however slowly, is neither. With noise
    in what nodes see it cannot rest, and is not said to cycle. As long as the population itself
    changes, it is said how far behind the market is; once it does not, all begins anew.
    """

    tolerance: float
    patience: int
    maximum: int
    noisy: bool = False
    calm_rounds: int = 0
    distances: list[float] = field(default_factory=list)
    still_from: int = 0

    _FEWEST = 16  # rounds in which nothing can be said
    _NEARLY_ALL = 0.9  # rounds
    _NO_PROGRESS = 0.8  # fictitious play, the slowest that settles, goes like 1 / sqrt(t): 0.7

    def see(
        self,
        *,
        exploitability: float,
        change: float,
        budget_change: float,
        distance: float,
        content: bool = True,
        at_rest_without_trade: str = "",
        moving: bool = False,
    ) -> Verdict | None:
        """Take in a round; return the verdict when there is one.

        Parameters
        ----------
        exploitability : float
            Largest gain from moving alone, as a share of the cap.
        change, budget_change : float
            Relative change of epsilon and of the cap since the last round.
        distance : float
            Relative distance of epsilon to the closed form.
        content : bool, default True
            Whether the server would leave its cap as it is.
        at_rest_without_trade : str, optional
            Why nobody trades, where nobody does and nobody will.
        moving : bool, default False
            Whether nodes come and go, or their costs change, so that there is no rest.
        """
        self.distances.append(distance)
        played = len(self.distances)
        if at_rest_without_trade:
            return Verdict("no-trade", played, at_rest_without_trade)
        if moving:
            self.still_from = played
            return Verdict("max-rounds", played, self._behind()) if played >= self.maximum else None
        calm = content and max(exploitability, change, budget_change) <= self.tolerance
        self.calm_rounds = self.calm_rounds + 1 if calm else 0
        if self.calm_rounds >= self.patience:
            return Verdict(
                "converged",
                played,
                f"exploitability and change stayed below {self.tolerance:g} "
                f"for {self.patience} rounds" + self._where(distance),
            )
        if played < self.maximum:
            return None
        resting_elsewhere = change <= self.tolerance
        still = self.distances[self.still_from :]
        unsettled = None if resting_elsewhere else self._unsettled(still, played)
        return unsettled or Verdict(
            "max-rounds", played, self._at_end(still, exploitability, change)
        )

    @staticmethod
    def _where(distance: float) -> str:
        """Say so where a market rests, and not where it was computed to."""
        if distance <= _NEAR:
            return "."
        return f"; it rests {distance:.2g} of the largest epsilon away from what was computed."

    def _behind(self) -> str:
        """Say how far behind a moving equilibrium the market was, once it had begun to follow."""
        late = np.array(self.distances[len(self.distances) // 2 :])
        late = late[np.isfinite(late)]  # there is no equilibrium where fewer than two nodes are
        return (
            f"{self.maximum} rounds were allowed; the population keeps changing, and the market "
            "follows the moving equilibrium at a mean distance of "
            f"{late.mean() if late.size else np.inf:.2g} of the largest epsilon."
        )

    def _at_end(self, still: list[float], exploitability: float, change: float) -> str:
        allowed = f"{len(self.distances)} rounds were allowed; "
        if change <= self.tolerance < exploitability:
            return (
                f"{allowed}epsilon rests, but not at an equilibrium: a node could gain "
                f"{exploitability:.2g} of B by moving alone."
            )
        if self.noisy:
            late = float(np.median(still[len(still) // 2 :]))
            return (
                f"{allowed}what nodes see is noisy, and keeps them moving around the equilibrium "
                f"(median distance {late:.2g} of the largest epsilon)."
            )
        return f"{allowed}it has not settled yet."

    def _unsettled(self, still: list[float], played: int) -> Verdict | None:
        n_still = len(still)
        if n_still < self._FEWEST:
            return None
        late = np.array(still[n_still // 2 :])
        if (late[1:] < late[:-1]).mean() > self._NEARLY_ALL:
            return None
        if not np.isfinite(late).all() or (late[1:] > late[:-1]).mean() > self._NEARLY_ALL:
            return Verdict("diverged", played, "epsilon moves away from the equilibrium for good.")
        earlier = float(np.mean(still[n_still // 4 : n_still // 2]))
        later = float(late.mean())
        if later <= max(self._NO_PROGRESS * earlier, self.tolerance):
            return None
        if later > 2 * still[0]:
            return Verdict(
                "diverged",
                played,
                f"epsilon ends farther from the equilibrium than it began (distances "
                f"{later:.2g} and {still[0]:.2g} of the largest epsilon).",
            )
        if self.noisy:
            return None  # noise alone keeps the distance from falling
        return Verdict(
            "cycling",
            played,
            f"epsilon keeps moving and comes no closer to the equilibrium "
            f"(mean distance {later:.2g} of the largest epsilon).",
        )
