"""Yang et al.: an agency stands between nodes and server; our game, and the printed equations."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import model_validator

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
from fcfn_abm.mechanisms.claims import Claims
from fcfn_abm.mechanisms.yang_equations import (
    EpsilonExponent,
    PriceRoot,
    Purchases,
    solve_yang_equations,
)

_NO_MONEY = "The server has no money to spend."
_OPTIONS = {
    "three-party": ("agency_knows_cap",),
    "printed": ("price_root", "epsilon_exponent", "payment"),
}


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

    This default is a game of our own on the primitives that all mechanisms share, not a quotation:
    Zhou et al. 2023 describe three parties and give (57)-(59).

    ``variant = "printed"`` is (57)-(59), solved for all sellers together by
    `solve_yang_equations`. **The root of (58) and the exponent of (59) are restored by us** (the
    options ``price_root`` and ``epsilon_exponent``), and `Outcome.note` says so. The equations are
    about purchases a_i, unit prices p_i and epsilon_i; what nodes earn and the server pays in
    currency is not stated in the paper. ``payment`` names our reading of it:

    - ``"purchase"``: the server pays p_i (1 + epsilon_i) a_i for node i's data, the cost of a
      purchase in (57), and the node receives all of it.
    - ``"compensation"``: the server pays the same; the node receives the compensation
      p_i epsilon_i a_i, and the agency keeps p_i a_i.
    - ``"shared-cap"``: the server pays the cap, in proportion to epsilon as in (3); a_i and p_i
      do not matter.

    The first two know no cap: the server pays what the equations say, also where that exceeds the
    given budget or the value of the data to it. Where (57)-(59) have no positive solution the
    status is "no-solution", and the reason says why.

    References
    ----------
    Zhou et al. 2023, section 7.4 and eqs. 57-59, after Yang et al. 2023 (Internet Technology
    Letters, doi:10.1002/itl2.443).
    """

    contested: ClassVar[bool] = True

    variant: Literal["three-party", "printed"] = "three-party"
    """The three-party game on our primitives, or (57)-(59) with their roots restored by us."""
    agency_knows_cap: bool = False
    """Whether the agency prices against the capped demand (three-party only)."""
    price_root: PriceRoot = "square"
    """The reading of (58): with a square root, without, or the exact optimum (printed only)."""
    epsilon_exponent: EpsilonExponent = "cube-root"
    """The reading of (59): (alpha / (a p)) ** (1/3), or alpha ** 3 / (a p) (printed only)."""
    payment: Literal["purchase", "compensation", "shared-cap"] = "purchase"
    """Our reading of what nodes earn and the server pays (printed only)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        other = "three-party" if self.variant == "printed" else "printed"
        for option in fields(self):  # type: ignore[arg-type]
            value = getattr(self, option.name)
            if option.name in _OPTIONS[other] and value != option.default:
                raise ValueError(f"{option.name} = {value!r} needs variant = {other!r}")
        return self

    @property
    def claims(self) -> Claims:
        """Of the printed equations nothing is claimed but that a shared cap is not exceeded.

        The three-party game is not monotone: with its cost a node raises the threshold, others
        enter, and what the server buys depends on how many take part.
        """
        if self.variant == "printed":
            return Claims(budget_balanced=self.payment == "shared-cap")
        return Claims(
            budget_balanced=True,
            individually_rational=("nodes", "server", "agency"),
            incentive_compatible=("epsilon",),
            anonymous=True,
            scale_invariant=True,
        )

    def quote(self, game: PricingGame) -> Quote:
        """Return the agency's price and what the server buys at it, in the three-party game."""
        market = nash_equilibrium(game.rho, 1.0)  # any pool shows who takes part
        if market.n_active < 2:
            return Quote(0.0, 0.0, 0.0, 0.0)
        cost = market.threshold
        n_averaged = averaged_nodes(game.average_over, market.epsilon)
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
        if self.variant == "printed":
            return self._printed_outcome(game)
        quote = self.quote(game)
        if quote.quantity == 0:
            nothing = np.zeros_like(game.rho)
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
        """Return the contest for the agency's pool, or what each seller is paid (printed).

        Where there is no trade or no solution, the contracts are empty.
        """
        if self.variant == "printed":
            return self._printed_contracts(self._purchases(game))
        quote = self.quote(game)
        if quote.quantity == 0:
            return Contracts(np.zeros_like(game.rho), np.zeros_like(game.rho))
        return Contest(pool=quote.pool, price=quote.price)

    def _purchases(self, game: PricingGame) -> Purchases:
        if game.rho.size == 0 or game.budget == 0:
            nothing = np.zeros_like(game.rho)
            why = "There are no sellers." if game.rho.size == 0 else _NO_MONEY
            return Purchases(nothing, nothing, nothing, why)
        return solve_yang_equations(game.rho, game.alpha, self.price_root, self.epsilon_exponent)

    def _printed_contracts(self, bought: Purchases) -> Contracts:
        if self.payment == "shared-cap" and bought.is_solved:
            return Contracts(bought.epsilon)
        if self.payment == "compensation":
            kept = bought.unit_price * bought.amount
            return Contracts(bought.epsilon, bought.compensation, margin=kept)
        return Contracts(bought.epsilon, bought.purchase_price)

    def _printed_outcome(self, game: PricingGame) -> Outcome:
        bought = self._purchases(game)
        if not bought.is_solved:
            traded = game.rho.size > 0 and game.budget != 0
            return settle(
                "yang",
                game,
                bought.epsilon,
                bought.amount,
                status="no-solution" if traded else "no-trade",
                reason=bought.reason,
            )
        contracts = self._printed_contracts(bought)
        payment = contracts.payment(bought.epsilon, game.cap)
        return settle(
            "yang",
            game,
            bought.epsilon,
            payment,
            server_payment=contracts.server_payment(bought.epsilon, payment),
            note=(
                "The root of (58) and the exponent of (59) are restored by us (price_root = "
                f"{self.price_root!r}, epsilon_exponent = {self.epsilon_exponent!r}); the payments "
                f"are our reading (payment = {self.payment!r}), the paper does not state them."
            ),
        )


def _why_no_trade(game: PricingGame, quote: Quote) -> str:
    if quote.unit_cost == 0:
        return "A contest needs two nodes."
    if game.budget == 0:
        return _NO_MONEY
    return (
        f"The nodes' unit cost m = {quote.unit_cost:g} is not below alpha beta / n_g = "
        f"{quote.first_unit_value:g}, what the server would pay for the first unit of epsilon."
    )
