"""A server that infers the nodes' costs from their reports and anticipates their answer."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from fcfn_abm.game import averaged_nodes, best_budget
from fcfn_abm.learning.base import SERVER_RULES, ServerObservation, ServerRule


@SERVER_RULES.register("anticipate")
class Anticipate(ServerRule):
    """Read rho off the reports, and announce the cap that is best on that estimate.

    A node whose report is a best response has ``rho_j = B s_j / S**2`` (15); summed over the
    nodes that take part this gives tau, and with it B* (41). No rho is ever shown to the server.
    """

    gain: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Fraction of the way from the last cap to the estimated best one."""
    largest_cut: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The cap falls by no more than this share a round, so that no transient closes the market."""

    def next_budget(self, seen: ServerObservation) -> float:
        """Announce the next cap (41)."""
        reports = seen.epsilon[seen.epsilon > 0]
        if reports.size < 2 or seen.budget == 0:
            return seen.budget
        total = reports.sum()
        rho = seen.budget * ((total - reports) / total) / total
        n_averaged = averaged_nodes(seen.average_over, reports.size, seen.epsilon.size)
        best = best_budget(float(np.sum(rho)), reports.size, n_averaged, seen.alpha, seen.beta)
        return max(
            seen.budget + self.gain * (best - seen.budget),
            seen.budget * (1.0 - self.largest_cut),
        )
