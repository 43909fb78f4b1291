"""The parameter server: announces a payment cap, and pays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mesa

from fcfn_abm.game import payments
from fcfn_abm.learning import ServerObservation, ServerRule

if TYPE_CHECKING:
    from fcfn_abm.abm.market import PrivacyMarket


class ParameterServer(mesa.Agent):
    """The leader of the game; it never sees a rho."""

    model: PrivacyMarket

    def __init__(self, model: PrivacyMarket, rule: ServerRule, budget: float) -> None:
        super().__init__(model)
        self.rule = rule
        self.budget = budget

    def announce_budget(self) -> None:
        """Choose the payment cap of this round from what the last one showed."""
        market, game = self.model, self.model.scenario.game
        if market.round_index == 1:
            return  # nothing has been seen yet: the opening cap stands
        seen = ServerObservation(
            self.budget, market.columns.epsilon, game.alpha, game.beta, game.average_over
        )
        budget = self.rule.next_budget(seen)
        nothing = market.scenario.rounds.tolerance * game.beta
        self.budget = budget if budget > nothing else 0.0

    def pay(self) -> None:
        """Share the cap among the nodes in proportion to what they report (3)."""
        columns = self.model.columns
        columns.payment = payments(columns.epsilon, self.budget)
        columns.utility = columns.payment - columns.rho * columns.epsilon
