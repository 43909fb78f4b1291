"""A server that infers the nodes' costs from their reports and anticipates their answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from fcfn_abm.game import averaged_nodes, best_budget
from fcfn_abm.learning.base import SERVER_RULES, ServerObservation, ServerRule

_CLOSE = 1e-7  # relative
_ROUNDING = 1e-12
_SILENCE = 10  # rounds without any report, after which it is no transient


@SERVER_RULES.register("anticipate")
class Anticipate(ServerRule):
    """Read rho off the reports, and announce the cap that is best on that estimate.

    A node whose report is a best response has ``rho_j = B s_j / S**2`` (15); summed over the
    nodes that take part this gives tau, and with it B* (41). Who takes part does not depend on the
    cap, so nothing need be known of those who stay out. No rho is ever shown to the server.
    """

    memory: ClassVar[Mapping[str, Any]] = {
        "last_total": 0.0,
        "step": 1.0,  # of the last announcement, relative
        "age": 0,  # rounds since then
        "gap": 1.0,  # between the cap and the best one on present estimates, relative
    }

    settled: Annotated[float, Field(gt=0)] = 1e-3
    """The server speaks when S moves by less than this share of its last step: before that, the
    reports tell how nodes adapt, and not what privacy costs them."""
    longest_wait: Annotated[int, Field(ge=1)] = 100
    """Rounds after which it speaks in any case."""
    largest_cut: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """The cap falls by no more than this share at once: no trade is not declared on one look."""

    def content(self, memory: Mapping[str, Any]) -> bool:
        """Return whether the cap is the best one on what the reports show."""
        return bool(memory["gap"] <= _CLOSE)

    def next_budget(self, seen: ServerObservation) -> float:
        """Announce the next cap (41)."""
        kept, reports = seen.memory, seen.epsilon[seen.epsilon > 0]
        if seen.budget == 0:
            return 0.0
        total = float(reports.sum())
        moved = abs(total - kept["last_total"]) / total if total > 0 else 0.0
        kept["last_total"], kept["age"] = total, kept["age"] + 1
        if total == 0:
            if kept["age"] < _SILENCE:
                return seen.budget
            kept["age"] = 0
            return seen.budget * (1.0 - self.largest_cut)

        rho = seen.budget * ((total - reports) / total) / total
        n_averaged = averaged_nodes(seen.average_over, seen.epsilon)
        # one node alone is no contest, and best_budget gives it nothing
        best = best_budget(float(rho.sum()), reports.size, n_averaged, seen.alpha, seen.beta)
        kept["gap"] = abs(best / seen.budget - 1.0)
        waits = kept["age"] < 2 or moved > max(self.settled * kept["step"], _ROUNDING)
        if waits and kept["age"] < self.longest_wait:
            return seen.budget
        budget = max(best, seen.budget * (1.0 - self.largest_cut))
        kept.update(step=abs(budget / seen.budget - 1.0), age=0)
        return budget
