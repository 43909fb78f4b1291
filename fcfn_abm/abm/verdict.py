"""How a run ended, in a word and in a sentence; never silent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

type VerdictKind = Literal["converged", "cycling", "diverged", "no-trade", "max-rounds"]


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
    must stay below ``tolerance`` for ``patience`` rounds in a row. A market that does not come
    closer while the number of rounds doubles, from `_FIRST_LOOK` on, does not settle: it is
    diverging where it ends farther from the equilibrium than it began, and cycling otherwise.
    """

    tolerance: float
    patience: int
    maximum: int
    calm_rounds: int = 0
    distances: list[float] = field(default_factory=list)

    _FIRST_LOOK = 64
    _NO_PROGRESS = 0.9  # a sequence like 1/t, the slowest that settles, halves

    def see(
        self,
        *,
        exploitability: float,
        change: float,
        budget_change: float,
        distance: float,
        resting: bool,
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
        resting : bool
            Whether the server pays nothing and nobody reports.
        """
        self.distances.append(distance)
        played = len(self.distances)
        if resting:
            return Verdict("no-trade", played, "no payment cap pays the server: B* = 0 (45).")
        calm = max(exploitability, change, budget_change) <= self.tolerance
        self.calm_rounds = self.calm_rounds + 1 if calm else 0
        if self.calm_rounds >= self.patience:
            return Verdict(
                "converged",
                played,
                f"exploitability and change stayed below {self.tolerance:g} "
                f"for {self.patience} rounds.",
            )
        at_end = played >= self.maximum
        if played >= self._FIRST_LOOK and (at_end or played.bit_count() == 1):
            unsettled = self._unsettled(played)
            if unsettled:
                return unsettled
        if at_end:
            return Verdict(
                "max-rounds", played, f"{played} rounds were allowed; it has not settled yet."
            )
        return None

    def _unsettled(self, played: int) -> Verdict | None:
        earlier = float(np.median(self.distances[played // 4 : played // 2]))
        later = float(np.median(self.distances[played // 2 :]))
        if math.isfinite(later) and later <= max(self._NO_PROGRESS * earlier, self.tolerance):
            return None
        if not later <= 2 * self.distances[0]:
            return Verdict(
                "diverged",
                played,
                f"epsilon ends {later / self.distances[0]:.3g} times as far from the equilibrium "
                "as it began.",
            )
        return Verdict(
            "cycling",
            played,
            f"epsilon keeps moving and comes no closer to the equilibrium "
            f"(median distance {later:.2g} of the largest epsilon).",
        )
