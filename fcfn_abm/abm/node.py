"""An edge node: a view of its row that leaves every decision to its learning rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mesa

from fcfn_abm.abm.columns import NEVER
from fcfn_abm.learning import Observation

if TYPE_CHECKING:
    from fcfn_abm.abm.market import PrivacyMarket


class EdgeNode(mesa.Agent):
    """One edge node; its state stands in the market's columns."""

    model: PrivacyMarket

    def __init__(self, model: PrivacyMarket, row: int) -> None:
        super().__init__(model)
        self.row = row

    @property
    def rho(self) -> float:
        """Unit privacy cost, currency per unit of epsilon."""
        return self.model.columns.rho.item(self.row)

    @property
    def epsilon(self) -> float:
        """Report of this round, dimensionless."""
        return self.model.columns.epsilon.item(self.row)

    @property
    def payment(self) -> float:
        """What the server paid in this round, in currency."""
        return self.model.columns.payment.item(self.row)

    @property
    def utility(self) -> float:
        """Payment less privacy cost of this round, in currency."""
        return self.model.columns.utility.item(self.row)

    @property
    def exited(self) -> bool:
        """Whether the node has left the market."""
        return self.model.columns.exit_round.item(self.row) != NEVER

    def respond(self) -> None:
        """See the running total, and choose the epsilon of this round."""
        market, columns, row = self.model, self.model.columns, self.row
        settings = market.scenario.exit
        epsilon = columns.epsilon.item(row)
        seen = Observation(
            columns.rho.item(row),
            epsilon,
            market.bulletin.others(epsilon, row),
            market.pool,
            market.n_active,
            market.scenario.game.epsilon_floor,
            row,
            columns.memory,
        )
        pays = market.rule.planned(seen) > 0
        if columns.exit_round.item(row) != NEVER:
            if not (pays and settings.reentry):
                return
            columns.exit_round[row] = NEVER
        reason = not pays
        if settings.criterion == "loss":
            reason = epsilon > 0 and seen.budget < seen.rho * (seen.others + epsilon)
        columns.idle_rounds[row] = columns.idle_rounds.item(row) + 1 if reason else 0
        columns.epsilon[row] = chosen = market.rule.next_epsilon(seen, market.rng)
        market.bulletin.move(row, epsilon, chosen)
