"""The share function: all nodes act on one guess of S, which the public total corrects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from fcfn_abm.game import Terms
from fcfn_abm.learning.base import LEARNING_RULES, Floats, LearningRule, News, Observation

_TELLING = 1e-6  # smallest relative step: below it rounding errors dominate the slope
_CLEAR = 10.0  # standard errors by which two ratios must differ to give a slope
_MOST = 1e100  # largest guess: nobody takes part any more
_LEAST = 1e-300  # smallest guess: all take part, as if at no cost


@LEARNING_RULES.register("aggregate")
class Aggregate(LearningRule):
    """Play the share of a guessed total, and correct the guess by a secant step.

    A node that expects a total S_hat reports ``S_hat (1 - rho S_hat / B)+``, its equilibrium share
    (29). The ratio ``phi = S / S_hat`` of the public total to the guess is convex and falls with
    S_hat; it is one at the equilibrium. The guess is stored per unit of B, so that it stays valid
    when the cap changes. The rule observes only the total, for any number of nodes. If few nodes
    move in a round, the guess is kept until all have acted on it. With churn or drifting costs, a
    secant would combine two markets: the slope of phi is then computed from the number of
    participants (Newton's method).

    References
    ----------
    Cornes and Hartley 2005, "Asymmetric contests with general technologies" (share functions).
    """

    memory: ClassVar[Mapping[str, float]] = {
        "guess": 0.0,
        "low": 0.0,  # bounds of the equilibrium
        "high": np.inf,
        "anchor": 0.0,  # an earlier guess and its ratio, from which the slope is computed
        "anchor_ratio": 0.0,
        "slope": -np.inf,
        "answered": 0.0,  # whether the node has acted on the current guess
    }
    knows_terms: ClassVar[bool] = True
    newcomers_ask: ClassVar[bool] = True  # with different guesses, nodes would never agree again

    largest_step: Annotated[float, Field(gt=1, le=1e6)] = 10.0
    """Largest factor by which the guess grows per round."""

    def refuses(self, terms: Terms) -> str:
        """Return why the rule does not support some terms: those without a share for each total."""
        if terms.has_one_equilibrium:
            return ""
        return (
            "a node's share does not follow from a guess of the total with a fixed cost, a reserve "
            "or cost = 'sqrt'"
        )

    def watches_total(self) -> bool:
        """Return False: the rule acts on what it learned from the last round."""
        return False

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return the share of the guessed total."""
        guess = seen.recall("guess")
        if seen.terms is not None and seen.terms.form.share is not None:
            total = np.atleast_1d(np.asarray(seen.budget * guess, dtype=float))
            believed: Any = np.where(total > 0, total, 1.0)
            part = seen.terms.form.share(np.atleast_1d(seen.rho * guess), believed)
            cap: Any = seen.cap
            own: Any = np.minimum(total * part, cap)
            return own.item() if isinstance(seen.epsilon, float) else own  # type: ignore[no-any-return]
        share = np.maximum(1.0 - seen.rho * guess, 0.0)
        epsilon = seen.budget * guess * share
        return float(epsilon) if isinstance(seen.epsilon, float) else epsilon

    def learn(self, news: News) -> None:
        """Correct the guess."""
        if news.budget == 0:
            return
        guess, low, high, anchor, anchor_ratio, slope, answered = (
            news.memory[name] for name in self.memory
        )
        total = (news.others + news.epsilon) / news.budget
        first = guess == 0
        if first.any():
            guess[first] = total[first]
            anchor_ratio[first] = total.size  # phi(0): without costs all would take part
            return
        answered[news.moved] = 1.0
        if not answered.all():
            return  # the total still contains answers to older guesses
        answered[:] = 0.0
        ratio = total / guess
        if news.changing:
            guess[:] = self._newton(guess, ratio, news.n_active)
            return
        off = np.abs(ratio - 1.0)
        misled = (ratio > 1) & (guess >= high) | (ratio < 1) & (guess <= low)
        misled |= (high - low <= _TELLING * guess) & (off > _TELLING)
        misled |= np.full(guess.shape, news.noise > 0)  # bounds found under noise are not valid
        low[misled], high[misled] = 0.0, np.inf
        low[ratio >= 1], high[ratio <= 1] = guess[ratio >= 1], guess[ratio <= 1]
        telling = np.abs(guess - anchor) > _TELLING * guess
        telling &= np.abs(ratio - anchor_ratio) > _CLEAR * news.noise * np.maximum(ratio, 1.0)
        telling &= ratio > 0
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            slope[telling] = ((ratio - anchor_ratio) / (guess - anchor))[telling]
            anchor[telling], anchor_ratio[telling] = guess[telling], ratio[telling]
            wanted = guess + (1.0 - ratio) / slope
        wanted = np.minimum(wanted, self.largest_step * guess)
        inside = (slope < 0) & (ratio > 0) & (low <= wanted) & (wanted <= high) & (wanted > 0)
        middle = np.where(np.isfinite(high), (low + high) / 2, 2 * guess)
        if news.noise > 0:
            middle = np.where(ratio > 1, 2 * guess, guess / 2)
        guess[:] = np.where(inside, wanted, middle)

    def _newton(self, guess: Floats, ratio: Floats, n_active: int) -> Floats:
        """Return the guess after a Newton step: phi falls by the tau of the participants.

        ``phi = n - tau S_hat`` gives ``tau``, and the next guess is ``S_hat (n - 1) / (n - phi)``.
        """
        factor = (n_active - 1) / np.maximum(n_active - ratio, _LEAST)
        return np.minimum(guess * np.clip(factor, 0.5, self.largest_step), _MOST)
