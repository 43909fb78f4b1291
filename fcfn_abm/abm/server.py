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
"""A cap that falls below this share of beta is given up."""


def announce(chosen: float, last: float, beta: float) -> float:
    """Return the cap that is announced: a cap that falls to nearly nothing is given up."""
    return 0.0 if chosen < last and chosen <= NOTHING * beta else chosen


class ParameterServer(mesa.Agent):
    """The leader of the game; it never sees a rho."""

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
        """Announced cap over the one that the rule has chosen: more or less than one in a trial."""
        self.next_factor = 1.0
        """The same of the cap that is announced next."""
        self.measured_value: float | None = None
        """What the training of the last round was measured to be worth, in currency."""
        self.limit = math.inf
        """The highest cap that the money left allows, in currency."""

    @property
    def pool(self) -> float:
        """What the nodes share in proportion to epsilon, in currency: the cap, or an agency's."""
        fixed = self.offer.pool if isinstance(self.offer, Contest) else None
        return self.budget if fixed is None else fixed

    @property
    def is_content(self) -> bool:
        """Whether the server would leave its cap as it is."""
        return not self.offer.learns_cap or self.rule.content(self.memory)

    @property
    def is_searching(self) -> bool:
        """Whether the server keeps trying caps, as its rule is to."""
        return self.rule.searches and not self.is_content

    @property
    def has_given_up(self) -> bool:
        """Whether the cap is zero, and will stay so."""
        if self.budget > 0 or self.limit == 0:
            return False
        return not self.offer.learns_cap or self.rule.has_given_up(self.memory)

    def choose_budget(self, epsilon: Floats, utility: float, rounds_a_turn: int) -> None:
        """Choose the next payment cap from reports and from what they are worth.

        Parameters
        ----------
        epsilon : ndarray of float
            Reports of the nodes that are there.
        utility : float
            What those reports left the server under its present cap, in currency.
        rounds_a_turn : int
            In how many rounds as many nodes are asked to move as there are.

        Notes
        -----
        A rule does not see trials: epsilon grows in proportion to the cap, and it is shown the cap
        that it chose itself, with the reports that this one would have had.
        """
        if not self.offer.learns_cap:
            return  # the offer stands, and so does the opening cap
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
        """Pay the nodes what the offer promises; the contest shares a pool by epsilon (3).

        Parameters
        ----------
        columns : NodeColumns
            With the reports of the round; payments and utilities are set.
        money_left : float, optional
            The most that may be paid, in currency: no less than the cap.
        """
        columns.payment = self.offer.payment(columns.epsilon, self.pool)
        self.paid = self.offer.server_payment(columns.epsilon, columns.payment)
        while self.paid > money_left:  # by rounding: a last bit of each payment is kept
            columns.payment = np.nextafter(columns.payment, 0.0)
            self.paid = self.offer.server_payment(columns.epsilon, columns.payment)
        if self.terms is None:
            columns.utility = columns.payment - columns.rho * columns.epsilon
        else:
            columns.utility = profits(columns.epsilon, columns.rho, columns.payment, self.terms)
