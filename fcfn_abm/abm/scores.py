"""Contests that share payments by a score of epsilon: played in scores, stored in epsilon.

With weights the score ``w * epsilon`` gives the contest of the paper with costs ``rho / w``, which
every learning rule can play. With an exponent the best response differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from fcfn_abm.abm.columns import Floats
from fcfn_abm.abm.round import Round
from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import Equilibrium, exploitability, nash_equilibrium, tullock_equilibrium
from fcfn_abm.game.tullock import tullock_exploitability, tullock_reply, tullock_reply_one
from fcfn_abm.learning import LearningRule, Observation
from fcfn_abm.learning.best_response import RECOVERY, BestResponse
from fcfn_abm.mechanisms import Contest


@contextmanager
def use_scores(played: Round) -> Iterator[Round]:
    """Yield the round converted to scores, and convert the scores back to epsilon at the end."""
    contest = played.contest
    if contest is None or contest.is_linear:
        yield played
        return
    columns = played.columns
    scored = replace(
        columns, rho=score_costs(contest, columns.rho), epsilon=contest.score(columns.epsilon)
    )
    left = None if played.epsilon_left is None else contest.score(played.epsilon_left)
    yield replace(played, columns=scored, epsilon_left=left)
    columns.epsilon = contest.epsilon(scored.epsilon)


def score_costs(contest: Contest, rho: Floats) -> Floats:
    """Return the cost of a unit of score or, with an exponent, of a unit of epsilon."""
    return rho if contest.weight is None else rho / contest.weight


def unit_equilibrium(contest: Contest, rho: Floats) -> Equilibrium:
    """Return the nodes' equilibrium at B = 1, in epsilon; it is proportional to B."""
    if contest.weight is None:
        return tullock_equilibrium(rho, 1.0, contest.exponent)
    form = nash_equilibrium(score_costs(contest, rho), 1.0)
    epsilon = contest.epsilon(form.epsilon)
    return replace(form, epsilon=epsilon, total_epsilon=float(epsilon.sum()), rho=rho)


def contest_exploitability(
    contest: Contest, epsilon: Floats, rho: Floats, pool: float, floor: float
) -> float:
    """Return the largest gain of a node by moving alone, as a share of the pool."""
    if contest.exponent == 1:
        scored = contest.score(epsilon), score_costs(contest, rho)
        return exploitability(*scored, pool, floor)
    return tullock_exploitability(epsilon, rho, pool, contest.exponent)


def adapt_rule(contest: Contest, rule: LearningRule) -> LearningRule:
    """Return the rule by which nodes play a contest: their own, or its form for an exponent.

    Raises
    ------
    InvalidGameError
        If there is no such form.
    """
    if contest.exponent == 1:
        return rule
    if type(rule) is not BestResponse:
        raise InvalidGameError(
            f"{type(rule).__name__} supports the contest with exponent = 1 only; with another "
            "exponent the learning rule must be 'best-response'."
        )
    return PowerReply(contest.exponent, rule)


@dataclass(frozen=True)
class PowerReply(LearningRule):
    """Move part of the way to the best score ``y = epsilon**exponent``.

    As in `BestResponse`, a node with a steep reaction takes shorter steps: with ``a = 1/exponent -
    1`` the slope of its best score y in the others' total o is
    ``(y - o) / (2 o + a o (y + o) / y)``.
    """

    memory: ClassVar[Mapping[str, float]] = {"caution": 1.0}

    exponent: float
    rule: BestResponse

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return the best score against the others' total."""
        if isinstance(seen.others, float):
            return self._reply_one(seen.rho, seen.others, seen)
        alone = np.array([self._reply_one(float(rho), 0.0, seen) for rho in seen.rho])
        if seen.budget <= 0:
            return alone
        others = np.where(seen.others > 0, seen.others, 1.0)
        reply = tullock_reply(seen.rho, others, seen.budget, self.exponent)
        return np.where(seen.others > 0, reply, alone)

    def _reply_one(self, rho: Any, others: float, seen: Observation[Any]) -> float:
        if seen.budget <= 0:
            return 0.0
        if others > 0:
            return tullock_reply_one(rho, others, seen.budget, self.exponent)
        pays = seen.budget > rho * seen.epsilon_floor
        return math.pow(seen.epsilon_floor, self.exponent) if pays else 0.0

    def next_epsilon[Value: (float, Floats)](
        self,
        seen: Observation[Value],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> Value:
        """Choose the score of this round."""
        planned: Any = np.asarray(self.plan(seen))[()]  # NumPy divides by zero without an error
        others: Any = seen.others
        total = planned + others
        with np.errstate(divide="ignore", invalid="ignore"):
            bend = (1.0 / self.exponent - 1.0) * others * (total / planned)
            slope = (planned - others) / (2.0 * others + bend)
        steep = (planned > others) & (others > 0)
        now = np.where(steep, 1.0 / (1.0 + slope), 1.0)
        caution = np.minimum(now, seen.recall("caution") * RECOVERY)
        seen.memory["caution"][seen.row] = caution
        step = self.rule.gain_for(seen.n_active) * (planned - seen.epsilon)
        chosen: Any = seen.epsilon + (step * caution if self.rule.is_cautious else step)
        return float(chosen) if isinstance(seen.epsilon, float) else chosen  # type: ignore[no-any-return]
