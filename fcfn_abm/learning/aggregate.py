"""The share function: all act on one guess of S, and the public total corrects it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from fcfn_abm.game import Terms
from fcfn_abm.learning.base import LEARNING_RULES, Floats, LearningRule, News, Observation

_TELLING = 1e-6  # relative step: over a shorter one rounding errors drown the slope
_CLEAR = 10.0  # by so many standard errors two ratios must differ, to tell a slope
_MOST = 1e100  # nobody takes part any more: the guess may stay where it is
_LEAST = 1e-300  # all take part as if for nothing: the guess is far too small


@LEARNING_RULES.register("aggregate")
class Aggregate(LearningRule):
    """Play one's part of a guessed total, and correct the guess by a secant step.

    Whoever believes in a total S_hat reports ``S_hat (1 - rho S_hat / B)+``, its equilibrium share
    (29). The ratio ``phi = S / S_hat`` of the public total to the guess is convex and falls with
    S_hat; it is one at the equilibrium. The guess is kept per unit of B, which makes it last when
    the cap changes. Needs no other report than the total, at any N. Where few nodes move in a
    round, the guess stands until all have acted on it. Where nodes come and go, or costs drift, a
    secant would join two markets: the slope of phi then follows from how many take part (Newton).

    References
    ----------
    Cornes and Hartley 2005, "Asymmetric contests with general technologies" (share functions).
    """

    memory: ClassVar[Mapping[str, float]] = {
        "guess": 0.0,
        "low": 0.0,  # the equilibrium lies between these two
        "high": np.inf,
        "anchor": 0.0,  # an earlier guess, and the ratio that it gave: where the slope starts
        "anchor_ratio": 0.0,
        "slope": -np.inf,
        "answered": 0.0,  # whether the node has acted on the present guess
    }
    knows_terms: ClassVar[bool] = True
    newcomers_ask: ClassVar[bool] = True  # with guesses of their own, nodes never agree again

    largest_step: Annotated[float, Field(gt=1, le=1e6)] = 10.0
    """The guess grows by no more than this factor in a round."""

    def refuses(self, terms: Terms) -> str:
        """Return why it does not play under some terms: where no share follows from a total."""
        if terms.has_one_equilibrium:
            return ""
        return (
            "a node's share does not follow from a guess of the total with a fixed cost, a reserve "
            "or cost = 'sqrt'"
        )

    def watches_total(self) -> bool:
        """Return False: it acts on what it learnt from the last round."""
        return False

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return the part of the guessed total."""
        guess = seen.remembered("guess")
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
            anchor_ratio[first] = total.size  # phi(0): for nothing, all would take part
            return
        answered[news.moved] = 1.0
        if not answered.all():
            return  # the total still holds answers to older guesses
        answered[:] = 0.0
        ratio = total / guess
        if news.changing:
            guess[:] = self._newton(guess, ratio, news.n_active)
            return
        off = np.abs(ratio - 1.0)
        misled = (ratio > 1) & (guess >= high) | (ratio < 1) & (guess <= low)
        misled |= (high - low <= _TELLING * guess) & (off > _TELLING)
        misled |= np.full(guess.shape, news.noise > 0)  # no bound that noise has set is one
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
        """Return the guess after a Newton step: phi falls by the tau of those who take part.

        ``phi = n - tau S_hat`` gives ``tau``, and the next guess is ``S_hat (n - 1) / (n - phi)``.
        """
        factor = (n_active - 1) / np.maximum(n_active - ratio, _LEAST)
        return np.minimum(guess * np.clip(factor, 0.5, self.largest_step), _MOST)
