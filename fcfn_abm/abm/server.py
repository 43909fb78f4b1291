"""The parameter server: announces a payment cap, and pays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mesa

from fcfn_abm.learning import ServerObservation, ServerRule

if TYPE_CHECKING:
    from fcfn_abm.abm.market import PrivacyMarket

_NOTHING = 1e-9  # a cap that falls below this share of beta is given up


class ParameterServer(mesa.Agent):
    """The leader of the game; it never sees a rho."""

    model: PrivacyMarket

    def __init__(self, model: PrivacyMarket, rule: ServerRule, budget: float) -> None:
        super().__init__(model)
        self.rule = rule
        self.budget = budget
        self.memory = dict(rule.memory)
        self.paid = 0.0

    def announce_budget(self) -> None:
        """Choose the payment cap of this round from what the last one showed."""
        market, game = self.model, self.model.scenario.game
        if market.round_index == 1 or not market.offer.learns_cap:
            return  # nothing has been seen yet, or the offer stands: so does the opening cap
        seen = ServerObservation(
            self.budget,
            market.columns.epsilon[market.present],
            game.alpha,
            game.beta,
            game.average_over,
            market.state.server_utility,
            self.memory,
        )
        budget = self.rule.next_budget(seen)
        given_up = budget < self.budget and budget <= _NOTHING * game.beta
        self.budget = 0.0 if given_up else budget

    def pay(self) -> None:
        """Pay the nodes what the offer promises; the contest shares a pool by epsilon (3)."""
        market, columns = self.model, self.model.columns
        columns.payment = market.offer.payment(columns.epsilon, market.pool)
        columns.utility = columns.payment - columns.rho * columns.epsilon
        self.paid = market.offer.server_payment(columns.epsilon, columns.payment)
