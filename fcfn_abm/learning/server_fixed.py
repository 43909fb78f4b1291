"""A server that announces the same cap in every round."""

from __future__ import annotations

from fcfn_abm.learning.base import SERVER_RULES, ServerObservation, ServerRule


@SERVER_RULES.register("fixed")
class FixedBudget(ServerRule):
    """Keep the payment cap of the scenario, ``game.budget``."""

    def next_budget(self, seen: ServerObservation) -> float:
        """Announce the last cap again."""
        return seen.budget
