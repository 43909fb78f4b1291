"""Tuning of a mechanism to a given spending or purchase, for comparisons at equal terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from fcfn_abm.errors import FcfnError
from fcfn_abm.mechanisms.base import Mechanism, Outcome, PricingGame

type Quantity = Literal["server_payment", "mean_epsilon"]

BUDGET = "budget"
"""The knob that is the payment cap, not an option of the mechanism."""
_WORDS: dict[Quantity, tuple[str, str]] = {
    "server_payment": ("pays", ""),
    "mean_epsilon": ("buys", " of epsilon"),
}
_CLOSE = 1e-6  # relative distance to the target at which the search ends
_STEPS = 40  # largest number of halvings or doublings of a knob
_HALVINGS = 60  # halvings of the interval of a knob
_POINT = 1e-12  # log ratio of positions that count as equal
_LIFTED = 1e6  # factor for a cap that is not binding
_STUCK = 8  # consecutive steps without any change


@dataclass(frozen=True)
class Match:
    """A mechanism tuned to a target, or as close to it as possible."""

    outcome: Outcome
    """Its outcome."""
    mechanism: Mechanism
    """The mechanism with the tuned options."""
    game: PricingGame
    """The game with the tuned cap."""
    settings: dict[str, float]
    """Tuned knobs with their values; empty if none was needed."""
    reached: bool
    """Whether the outcome is within the tolerance of the target."""
    reason: str = ""
    """Why it is not, in a sentence."""


def match_outcome(
    mechanism: Mechanism,
    game: PricingGame,
    chance: Callable[[], np.random.Generator],
    quantity: Quantity,
    aim: float,
    tolerance: float = 0.01,
) -> Match:
    """Tune the knobs of a mechanism until it spends, or buys, a given amount.

    Parameters
    ----------
    mechanism : Mechanism
        With its options; ``mechanism.knobs`` names the knobs.
    game : PricingGame
        One population, with a payment cap at which the search starts.
    chance : callable
        Returns the mechanism's generator, always in the same state, so that draws stay the same.
    quantity : {"server_payment", "mean_epsilon"}
        The quantity to match.
    aim : float
        Target value: currency, or epsilon.
    tolerance : float, default 0.01
        Largest relative distance from the target.

    Returns
    -------
    Match
        The outcome and the knobs.

    Notes
    -----
    The first knob is halved or doubled from its position until the quantity crosses the target, and
    the interval is divided (by interpolation in logarithms and by bisection, alternating) until the
    quantity is within 1e-6 of the target or the interval is a point. If the quantity jumps over the
    target there, because one more node sells, the second knob is lowered from its position. If the
    first knob does not reach the target, the second is searched instead. If the cap is not a knob
    and keeps the target out of reach, it is raised, for a mechanism that does not spend its whole
    cap. If several positions reach the target, as for a mechanism that spends the cap at every
    price above some price, the lowest one near the knob's position is used. This search knows the
    costs of a population, so that no server could use it as a rule; it only makes outcomes
    comparable.

    Examples
    --------
    >>> from fcfn_abm.mechanisms import MECHANISMS
    >>> game = PricingGame(np.array([1.0, 1.0, 5.0]), alpha=1.0, beta=10.0, budget=4.0)
    >>> contest = MECHANISMS.create("stackelberg")
    >>> found = match_outcome(contest, game, np.random.default_rng, "mean_epsilon", 2.0)
    >>> found.reached, {knob: round(value, 5) for knob, value in found.settings.items()}
    (True, {'budget': 8.0})
    """
    return _Search(mechanism, game, chance, quantity, aim, tolerance).run()


@dataclass(frozen=True)
class _Point:
    """A mechanism's outcome with a knob in one position."""

    position: float
    outcome: Outcome
    amount: float
    """Amount of the matched quantity."""


@dataclass(frozen=True)
class _Search:
    """One search: a mechanism in a game, and the target amount."""

    mechanism: Mechanism
    game: PricingGame
    chance: Callable[[], np.random.Generator]
    quantity: Quantity
    aim: float
    tolerance: float

    def run(self) -> Match:
        start = self._match({}, self._outcome({}))
        if self._is_close(self._amount(start.outcome), _CLOSE):
            return start
        if self.aim <= 0:
            return replace(start, reached=False, reason="There is nothing to match: it is zero.")
        match = self._turn_knobs(start)
        if match.reached or BUDGET in self.mechanism.knobs:
            return match
        lifted = replace(self.game, budget=_LIFTED * float(self.game.cap))
        freely = replace(self, game=lifted)._turn_knobs(start)
        spends_all = freely.outcome.server_payment > lifted.cap / 2
        return freely if freely.reached and not spends_all else match

    def _turn_knobs(self, start: Match) -> Match:
        """Return the first match that reaches the target, otherwise the closest one."""
        tried: list[Match] = []
        kept: dict[str, float] = {}
        for knob in self.mechanism.knobs:
            below, above = self._bracket(knob, kept)
            if below is None or above is None:
                match = self._fail(knob, kept, below or above)
            else:
                below, above = self._close_in(knob, kept, below, above)
                match = self._settle(knob, kept, below, above)
                kept = {**kept, knob: above.position}
            if match.reached:
                return match
            tried.append(match)
        return min(tried, key=self._distance, default=start)

    def _distance(self, match: Match) -> float:
        return abs(self._amount(match.outcome) - self.aim)

    def _bracket(self, knob: str, kept: dict[str, float]) -> tuple[_Point | None, _Point | None]:
        """Return adjacent positions of a knob below and above the target, as far as they exist."""
        below: _Point | None = None
        above: _Point | None = None
        for point in self._walk(knob, kept, 0.5):
            if self._is_below(point):
                below = point
                break
            above = point
        if above is None and not kept:
            for point in self._walk(knob, kept, 2.0):
                if not self._is_below(point):
                    above = point
                    break
                below = point
        return below, above

    def _walk(self, knob: str, kept: dict[str, float], factor: float) -> Iterator[_Point]:
        """Yield outcomes for a knob, step by step, as long as they change."""
        position, last, stuck = self._position(knob), math.nan, 0
        for _ in range(_STEPS):
            point = self._try(knob, kept, position)
            if point is None:
                return
            yield point
            stuck = stuck + 1 if math.isclose(point.amount, last, rel_tol=1e-12) else 0
            if stuck == _STUCK:
                return
            last = point.amount
            position *= factor

    def _close_in(
        self, knob: str, kept: dict[str, float], below: _Point, above: _Point
    ) -> tuple[_Point, _Point]:
        """Return the closest positions around the target, or one that is close to it."""
        for step in range(_HALVINGS):
            if self._is_close(above.amount, _CLOSE) and self._is_close(below.amount):
                break
            position = self._divide(below, above, halve=step % 2 == 1)
            if position is None:
                break
            point = self._try(knob, kept, position)
            if point is None:
                break
            if self._is_below(point):
                below = point
            else:
                above = point
        return below, above

    def _divide(self, below: _Point, above: _Point, *, halve: bool) -> float | None:
        """Return a position between two others; None if they are adjacent."""
        first, last = math.log(below.position), math.log(above.position)
        share = 0.5
        if not halve and 0 < below.amount < above.amount:
            share = math.log(self.aim / below.amount) / math.log(above.amount / below.amount)
        low, high = sorted((below.position, above.position))
        for part in (share, 0.5):
            position = math.exp(first + part * (last - first))
            if low < position < high and abs(last - first) > _POINT:
                return position
        return None

    def _settle(self, knob: str, kept: dict[str, float], below: _Point, above: _Point) -> Match:
        """Return the match of two adjacent positions."""
        low = self._is_close(below.amount) and not self._is_close(above.amount)
        nearer = below if low else above
        verb, unit = _WORDS[self.quantity]
        return self._match(
            {**kept, knob: nearer.position},
            nearer.outcome,
            f"It {verb} {below.amount:.4g} or {above.amount:.4g}{unit}, and nothing between.",
        )

    def _fail(self, knob: str, kept: dict[str, float], point: _Point | None) -> Match:
        """Return the match of a knob that reaches only one side of the target."""
        if point is None:
            return self._match(kept, self._outcome(kept), f"Its {knob!r} cannot be set.")
        verb, unit = _WORDS[self.quantity]
        bound = "at most" if point.amount < self.aim else "at least"
        reason = f"It {verb} {bound} {point.amount:.4g}{unit}."
        return self._match({**kept, knob: point.position}, point.outcome, reason)

    def _match(self, settings: dict[str, float], outcome: Outcome, reason: str = "") -> Match:
        reached = self._is_close(self._amount(outcome))
        mechanism, game = self._set(settings)
        why = "" if reached else reason or "It has no knob."
        return Match(outcome, mechanism, game, settings, reached, why)

    def _position(self, knob: str) -> float:
        """Return the position of a knob, or where to start."""
        if knob == BUDGET:
            return float(self.game.cap) or 1.0
        value = getattr(self.mechanism, knob)
        return float(np.median(self.game.rho)) if value is None else float(value)

    def _try(self, knob: str, kept: dict[str, float], position: float) -> _Point | None:
        """Return the outcome at a position; None if the mechanism refuses it."""
        try:
            outcome = self._outcome({**kept, knob: position})
        except (FcfnError, ValueError):  # pydantic raises ValueError
            return None
        amount = self._amount(outcome)
        return _Point(position, outcome, amount) if math.isfinite(amount) else None

    def _outcome(self, settings: dict[str, float]) -> Outcome:
        mechanism, game = self._set(settings)
        return mechanism.outcome(game, self.chance())

    def _set(self, settings: dict[str, float]) -> tuple[Mechanism, PricingGame]:
        options: dict[str, Any] = {k: v for k, v in settings.items() if k != BUDGET}
        mechanism: Any = self.mechanism
        if options:
            mechanism = replace(mechanism, **options)
        game = replace(self.game, budget=settings[BUDGET]) if BUDGET in settings else self.game
        return mechanism, game

    def _amount(self, outcome: Outcome) -> float:
        return float(getattr(outcome, self.quantity))

    def _is_below(self, point: _Point) -> bool:
        return point.amount < self.aim and not self._is_close(point.amount, _CLOSE)

    def _is_close(self, amount: float, tolerance: float | None = None) -> bool:
        share = self.tolerance if tolerance is None else tolerance
        return abs(amount - self.aim) <= share * self.aim
