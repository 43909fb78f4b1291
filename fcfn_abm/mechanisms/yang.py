"""Yang et al.'s three-party game: an agency buys epsilon from the nodes and sells it on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fcfn_abm.game import averaged_nodes, nash_equilibrium, payments
from fcfn_abm.mechanisms.base import (
    MECHANISMS,
    Contest,
    Contracts,
    Mechanism,
    Offer,
    Outcome,
    PricingGame,
    settle,
)


@dataclass(frozen=True)
class Quote:
    """What the agency posts on both sides of the market, and how much it sells."""

    unit_cost: float
    """m = tau / (n - 1), what a unit of epsilon costs the agency; zero without a market."""
    first_unit_value: float
    """alpha beta / n_g, what the server would pay for the first unit of epsilon, in currency."""
    price: float
    """p, what it asks from the server for a unit of epsilon, in currency."""
    quantity: float
    """S, how much epsilon the server buys; zero where no trade pays."""

    @property
    def pool(self) -> float:
        """``unit_cost * quantity``, what the nodes share in proportion to epsilon, in currency."""
        return self.unit_cost * self.quantity

    @property
    def server_payment(self) -> float:
        """``price * quantity``, what the server pays, in currency."""
        return self.price * self.quantity


@MECHANISMS.register("yang")
class ThreeParty(Mechanism):
    """The agency posts a price for epsilon, the server says how much it buys, nodes share the pool.

    Notes
    -----
    ``variant = "three-party"``, solved backwards. Nodes play the contest for whatever pool the
    agency puts up, so that S units of epsilon cost it m S with ``m = tau / (n - 1)``, the cost from
    which on nodes stay out. At the price p the server buys what maximises
    ``beta ln(1 + alpha S / n_g) - p S``: ``S = beta / p - n_g / alpha``. The agency's profit
    ``(p - m) S`` is then greatest at ``p = sqrt(m alpha beta / n_g)``. Where m reaches
    ``alpha beta / n_g``, no price is both above its cost and below the server's value: no trade.

    A given cap B is the most that the server spends; a server that would rather spend less does. So
    it buys the least of ``B / p`` and its free demand. The agency is taken not to know the cap: it
    asks the price above. ``agency_knows_cap = true`` is the other reading: along ``B / p`` its
    profit ``B (1 - m / p)`` rises with p, so where the cap binds it raises the price to
    ``(beta - B) alpha / n_g``, at which the server's free demand costs just B.

    ``variant = "printed"``. In print (57)-(59) are circular: the agency's share a needs epsilon,
    and epsilon needs a and p. **This is a reconstruction from that description and not a
    transcription**: the formulas themselves were not at hand. Each letter is the optimum of its
    owner while the other parties' letters stand still, only the nodes' contest being foreseen (how
    the printed a needs epsilon, this does not show):

    - (57) epsilon_i is the equilibrium of the contest for ``a p``: total ``S = a p / m``;
    - (58) the share a that the agency passes on maximises what it keeps, ``(1 - a) p``;
    - (59) the server's payment p maximises ``beta ln(1 + alpha a p / (n_g m)) - p``:
      ``p = beta - n_g m / (alpha a)``.

    No positive (epsilon, a, p) solves them, whatever the parameters. The slope of (58) is -p: at
    every share at which the server pays at all, the agency gains by passing on less, until at
    ``a = n_g m / (alpha beta)`` payment and epsilon reach zero; below, p is negative. The status is
    "no-solution", and the reason gives these numbers. With the server's answer (59) foreseen in
    (58), the same letters give the three-party game: ``a = m / p_unit``. A cap changes nothing.

    References
    ----------
    Zhou et al. 2023, eqs. 57-59.
    """

    contested: ClassVar[bool] = True

    variant: Literal["three-party", "printed"] = "three-party"
    """The well-posed game, or the circular equations as printed (reconstructed)."""
    agency_knows_cap: bool = False
    """Whether the agency prices against the capped demand (three-party only)."""

    def quote(self, game: PricingGame) -> Quote:
        """Return the agency's price and what the server buys at it, in the three-party game."""
        market = nash_equilibrium(game.rho, 1.0)  # any pool shows who takes part
        if market.n_active < 2:
            return Quote(0.0, 0.0, 0.0, 0.0)
        cost = market.threshold
        n_averaged = averaged_nodes(game.average_over, market.n_active, game.rho.size)
        value = game.alpha * (game.beta / n_averaged)
        price = math.sqrt(cost) * math.sqrt(value)
        if cost >= value:
            return Quote(cost, value, price, 0.0)
        # beta / price - n_g / alpha, which loses all digits where the server buys little
        quantity = n_averaged / game.alpha * ((value - cost) / cost) / (1.0 + value / price)
        if game.budget is not None and price * quantity > game.budget:
            if self.agency_knows_cap:
                price = value * (1.0 - game.budget / game.beta)
            quantity = game.budget / price
        return Quote(cost, value, price, quantity)

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:  # noqa: ARG002
        """Price one round of the game."""
        quote = self.quote(game)
        nothing = np.zeros_like(game.rho)
        solvable = quote.unit_cost > 0 and game.budget != 0
        if solvable and self.variant == "printed":
            return settle(
                "yang",
                game,
                nothing,
                nothing,
                status="no-solution",
                reason=_why_no_solution(game, quote),
            )
        if quote.quantity == 0:
            return settle("yang", game, nothing, nothing, reason=_why_no_trade(game, quote))
        epsilon = nash_equilibrium(game.rho, quote.pool).epsilon
        return settle(
            "yang",
            game,
            epsilon,
            payments(epsilon, quote.pool),
            server_payment=quote.server_payment,
        )

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Offer:  # noqa: ARG002
        """Return the contest for the agency's pool; where there is no trade, empty contracts."""
        quote = self.quote(game)
        if self.variant == "printed" or quote.quantity == 0:
            return Contracts(np.zeros_like(game.rho), np.zeros_like(game.rho))
        return Contest(pool=quote.pool, price=quote.price)


def _why_no_trade(game: PricingGame, quote: Quote) -> str:
    if quote.unit_cost == 0:
        return "A contest needs two nodes."
    if game.budget == 0:
        return "The server has no money to spend."
    return (
        f"The nodes' unit cost m = {quote.unit_cost:g} is not below alpha beta / n_g = "
        f"{quote.first_unit_value:g}, what the server would pay for the first unit of epsilon."
    )


def _why_no_solution(game: PricingGame, quote: Quote) -> str:
    least = quote.unit_cost / quote.first_unit_value  # n_g m / (alpha beta)
    end = "(57)-(59), as reconstructed, have no positive fixed point."
    if least >= 1.0:
        return (
            f"The server's payment p is not positive whatever share a <= 1 the agency passes on, "
            f"since n_g m / (alpha beta) = {least:g}: {end}"
        )
    return (
        "At every share a that the agency may pass on, from 1 (payment p = "
        f"{game.beta * (1.0 - least):g}) down to {least:g} (p = 0), it gains p for each unit by "
        f"which it passes on less; at {least:g} payment and epsilon are zero, below it p is "
        f"negative: {end}"
    )
