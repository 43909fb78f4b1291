"""A server that announces the same cap in every round."""

from __future__ import annotations

from typing import Any

from fcfn_abm.learning.base import (
    SERVER_RULES,
    Reading,
    ScalarServer,
    ServerObservation,
    ServerRule,
)


@SERVER_RULES.register("fixed")
class FixedBudget(ServerRule):
    """Keep the payment cap of the scenario, ``game.budget``."""

    def next_budget(self, seen: ServerObservation) -> float:
        """Announce the last cap again."""
        return seen.budget

    def scalar_server(self) -> ScalarServer:
        """Return the rule for compiled play."""
        return ScalarServer(keep_budget, is_content)


def keep_budget(seen: Reading, parameters: tuple[()], memory: Any) -> float:  # noqa: ARG001
    """Return the last cap."""
    return seen.budget


def is_content(parameters: tuple[()], memory: Any) -> bool:  # noqa: ARG001
    """Return True: the cap stays the same."""
    return True
