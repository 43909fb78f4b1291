"""The parameter server: announces a payment cap, and pays."""

from __future__ import annotations

import math

import mesa
import numpy as np

from fcfn_abm.abm.columns import Floats, NodeColumns
from fcfn_abm.game import Terms
from fcfn_abm.game.costs import profits
from fcfn_abm.learning import ServerObservation, ServerRule
from fcfn_abm.mechanisms import Contest, Offer
from fcfn_abm.scenario import Game

NOTHING = 1e-9
"""Share of beta below which a cap is set to zero."""


def announce(chosen: float, last: float, beta: float) -> float:
    """Return the cap to announce; a cap close to zero becomes zero."""
    return 0.0 if chosen < last and chosen <= NOTHING * beta else chosen


class ParameterServer(mesa.Agent):
    """The leader of the game; it never observes rho."""

    def __init__(
        self,
        model: mesa.Model,
        rule: ServerRule,
        offer: Offer,
        game: Game,
        budget: float,
        terms: Terms | None = None,
    ) -> None:
        super().__init__(model)
        self.rule = rule
        self.offer = offer
        self.game = game
        self.terms = terms
        self.budget = budget
        self.memory = dict(rule.memory)
        self.paid = 0.0
        self.factor = 1.0
        """Announced cap divided by the cap that the rule has chosen; not one in a trial."""
        self.next_factor = 1.0
        """The same for the next cap."""
        self.measured_value: float | None = None
        """Measured value of the last round's training, in currency."""
        self.limit = math.inf
        """Largest cap that the money left allows, in currency."""

    @property
    def pool(self) -> float:
        """What nodes share in proportion to epsilon, in currency: the cap or an agency's pool."""
        fixed = self.offer.pool if isinstance(self.offer, Contest) else None
        return self.budget if fixed is None else fixed

    @property
    def is_content(self) -> bool:
        """Whether the server would keep its cap."""
        return not self.offer.learns_cap or self.rule.is_content(self.memory)

    @property
    def is_searching(self) -> bool:
        """Whether the server keeps trying caps, by design of its rule."""
        return self.rule.searches and not self.is_content

    @property
    def has_given_up(self) -> bool:
        """Whether the cap is zero, and will stay zero."""
        if self.budget > 0 or self.limit == 0:
            return False
        return not self.offer.learns_cap or self.rule.has_given_up(self.memory)

    def choose_budget(self, epsilon: Floats, utility: float, rounds_a_turn: int) -> None:
        """Choose the next payment cap from the reports and their value.

        Parameters
        ----------
        epsilon : ndarray of float
            Reports of the nodes in the market.
        utility : float
            Server's utility from those reports under the current cap, in currency.
        rounds_a_turn : int
            Number of rounds in which as many moves are requested as there are nodes.

        Notes
        -----
        A rule does not observe trials: epsilon is proportional to the cap, and the rule is given
        the cap that it chose itself, with the reports that this cap would have had.
        """
        if not self.offer.learns_cap:
            return  # the offer is fixed, and so is the opening cap
        game, chosen = self.game, self.budget / self.factor
        if self.rule.sees_measured_value and self.measured_value is not None:
            utility = self.measured_value - self.paid
        seen = ServerObservation(
            chosen,
            epsilon / self.factor,
            game.alpha,
            game.beta,
            game.average_over,
            utility,
            rounds_a_turn,
            self.memory,
            self.terms,
        )
        self.factor = self.next_factor
        self.budget = self.factor * announce(self.rule.next_budget(seen), chosen, game.beta)

    def pay(self, columns: NodeColumns, money_left: float = math.inf) -> None:
        """Pay the nodes as the offer promises; a contest shares a pool by epsilon (3).

        Parameters
        ----------
        columns : NodeColumns
            With the reports of the round; payments and utilities are set.
        money_left : float, optional
            Largest sum that may be paid, in currency; at least the cap.
        """
        columns.payment = self.offer.payment(columns.epsilon, self.pool)
        self.paid = self.offer.server_payment(columns.epsilon, columns.payment)
        while self.paid > money_left:  # because of rounding: reduce each payment by its last bit
            columns.payment = np.nextafter(columns.payment, 0.0)
            self.paid = self.offer.server_payment(columns.epsilon, columns.payment)
        if self.terms is None:
            columns.utility = columns.payment - columns.rho * columns.epsilon
        else:
            columns.utility = profits(columns.epsilon, columns.rho, columns.payment, self.terms)
