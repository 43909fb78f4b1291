"""A server that infers the nodes' costs from their reports and anticipates their answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from fcfn_abm.game import averaged_nodes, marginal_budget, takes_part
from fcfn_abm.learning.base import SERVER_RULES, Floats, RetryingServer, ServerObservation

_CLOSE = 1e-7  # relative
_ROUNDING = 1e-12
_SILENCE = 10  # rounds without any report, after which it is no transient
_MINOR, _FALLING = 1e-3, 0.99  # a report that may be on its way out: its share, and how it falls


@SERVER_RULES.register("anticipate")
class Anticipate(RetryingServer):
    """Read rho off the reports, and announce the cap that is best on that estimate.

    A node whose report is a best response has ``rho_j = B s_j / S**2`` (15); summed over the
    nodes that take part this gives tau, and with it B* (41). Who takes part does not depend on the
    cap, so nothing need be known of those who stay out. No rho is ever shown to the server.

    The server announces once the reports have settled. How well they must have settled depends on
    how near trade is to not paying at all: an error of S is an error of B* that is ``(1 + d) / d``
    times as large, relative to it, with ``1 + d = alpha beta kappa``.
    """

    memory: ClassVar[Mapping[str, Any]] = {
        **RetryingServer.retries,
        "last_reports": None,
        "step": 1.0,  # of the last announcement, relative
        "age": 0,  # rounds since then
        "quiet": 0,  # of them in a row in which the reports had settled
        "gap": 1.0,  # between the cap and the best one on present estimates, relative
    }

    settled: Annotated[float, Field(gt=0)] = 1e-3
    """The server speaks when S moves by less than this share of its last step, or still less near
    the border of no trade: before that, the reports show how nodes adapt, and not what privacy
    costs them."""
    longest_wait: Annotated[int, Field(ge=1)] = 100
    """Rounds after which it speaks in any case; more where few nodes are asked in a round."""
    largest_cut: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """The cap falls by no more than this share at once: no trade is not declared on one look."""

    def content(self, memory: Mapping[str, Any]) -> bool:
        """Return whether the cap is the best one on what the reports show."""
        return bool(memory["gap"] <= _CLOSE)

    def next_budget(self, seen: ServerObservation) -> float:
        """Announce the next cap (41)."""
        kept = seen.memory
        again = self.next_try(seen)
        if again is not None:
            return again
        reports = seen.epsilon[takes_part(seen.epsilon)]
        total = float(reports.sum())
        moved = self._movement(seen.epsilon, kept["last_reports"], total)
        kept["last_reports"], kept["age"] = seen.epsilon.copy(), kept["age"] + 1
        if total == 0:
            if kept["age"] < _SILENCE * seen.rounds_a_turn:
                return seen.budget
            kept["age"] = 0
            return seen.budget * (1.0 - self.largest_cut)

        rho = seen.budget * ((total - reports) / total) / total
        n_averaged = averaged_nodes(seen.average_over, seen.epsilon)
        # one node alone is no contest, and gets nothing
        gain = marginal_budget(float(rho.sum()), reports.size, n_averaged, seen.alpha, seen.beta)
        best = max(0.0, gain)
        kept["gap"] = abs(best / seen.budget - 1.0)
        if self._waits(seen, moved, gain / seen.beta):
            return seen.budget
        budget = max(best, seen.budget * (1.0 - self.largest_cut))
        kept.update(step=abs(budget / seen.budget - 1.0), age=0, quiet=0)
        return budget

    def _movement(self, epsilon: Floats, last: Floats | None, total: float) -> float:
        """Return how far S moved in a round, relative to it; 1 while a node is on its way out.

        Such a node counts among those that take part, and costs the others nothing, until its
        share does not matter.
        """
        if last is None or last.shape != epsilon.shape or total == 0:
            return 1.0
        minor = epsilon < _MINOR * epsilon.max()
        if (takes_part(epsilon) & minor & (epsilon < _FALLING * last)).any():
            return 1.0
        return abs(total - float(last.sum())) / total

    def _waits(self, seen: ServerObservation, moved: float, margin: float) -> bool:
        """Return whether the reports have yet to settle.

        ``margin`` is the best cap before it is cut off at zero, as a share of beta: d / (1 + d).
        """
        kept = seen.memory
        enough = self.settled * kept["step"] * min(1.0, abs(margin))
        kept["quiet"] = kept["quiet"] + 1 if moved <= max(enough, _ROUNDING) else 0
        if kept["age"] >= self.longest_wait * seen.rounds_a_turn:
            return False
        return bool(kept["age"] < 2 or kept["quiet"] < seen.rounds_a_turn)
