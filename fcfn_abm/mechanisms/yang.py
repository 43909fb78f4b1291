"""Yang et al.: an agency between nodes and server, as a game or by the printed equations."""

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
    """The agency's prices on both sides of the market, and its sales."""

    unit_cost: float
    """m = tau / (n - 1), the agency's cost per unit of epsilon; zero without a market."""
    first_unit_value: float
    """alpha beta / n_g, the server's value of the first unit of epsilon, in currency."""
    price: float
    """p, the server's price per unit of epsilon, in currency."""
    quantity: float
    """S, the epsilon that the server buys; zero if no trade pays."""

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
    """The agency posts a price for epsilon, the server chooses a quantity, nodes share the pool.

    Notes
    -----
    ``variant = "three-party"``, solved backwards. Nodes play the contest for the pool that the
    agency offers, so that S units of epsilon cost it m S with ``m = tau / (n - 1)``, the cost from
    which nodes stay out. At the price p the server buys the quantity that maximizes ``beta ln(1 +
    alpha S / n_g) - p S``: ``S = beta / p - n_g / alpha``. The agency's profit ``(p - m) S`` is
    then largest at ``p = sqrt(m alpha beta / n_g)``. If m is at least ``alpha beta / n_g``, no
    price is both above its cost and below the server's value: no trade.

    A given cap B is the most that the server spends; it may spend less, so that it buys the minimum
    of ``B / p`` and its unlimited demand. The agency is assumed not to know the cap: it asks the
    price above. ``agency_knows_cap = true`` is the alternative: along ``B / p`` its profit ``B (1 -
    m / p)`` rises with p, so that for a binding cap it raises the price to ``(beta - B) alpha /
    n_g``, at which the server's unlimited demand costs exactly B.

    This default is a game of our own on the primitives common to all mechanisms, not one from the
    paper: Zhou et al. 2023 describe three parties and give (57)-(59).

    ``variant = "printed"`` is (57)-(59), solved for all sellers together by `solve_yang_equations`.
    **The root of (58) and the exponent of (59) are restored by us** (options ``price_root`` and
    ``epsilon_exponent``), as `Outcome.note` states. The equations contain purchases a_i, unit
    prices p_i and epsilon_i; the nodes' earnings and the server's payment in currency are not
    stated in the paper. ``payment`` selects an interpretation:

    - ``"purchase"``: the server pays p_i (1 + epsilon_i) a_i for node i's data, the cost of a
    purchase in (57), and the node receives all of it.
    - ``"compensation"``: the server pays the same; the node receives the compensation
      p_i epsilon_i a_i, and the agency keeps p_i a_i.
    - ``"shared-cap"``: the server pays the cap, in proportion to epsilon as in (3); a_i and p_i
      do not matter.

    The first two have no cap: the server pays what the equations give, even if that exceeds the
    given budget or the value of the data to it. If (57)-(59) have no positive solution, the status
    is "no-solution", with a reason.

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
    """Interpretation of (58): with a square root, without, or the exact optimum (printed only)."""
    epsilon_exponent: EpsilonExponent = "cube-root"
    """Interpretation of (59): (alpha / (a p)) ** (1/3), or alpha ** 3 / (a p) (printed only)."""
    payment: Literal["purchase", "compensation", "shared-cap"] = "purchase"
    """Interpretation of the nodes' earnings and the server's payment (printed only)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        other = "three-party" if self.variant == "printed" else "printed"
        for option in fields(self):  # type: ignore[arg-type]
            value = getattr(self, option.name)
            if option.name in _OPTIONS[other] and value != option.default:
                raise ValueError(f"{option.name} = {value!r} requires variant = {other!r}")
        return self

    @property
    def claims(self) -> Claims:
        """Claims; for the printed equations only that a shared cap is not exceeded.

        The three-party game is not monotone: a node's cost raises the threshold, others enter, and
        the server's purchase depends on the number of participants.
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
        """Return the agency's price, and the server's purchase at it, in the three-party game."""
        market = nash_equilibrium(game.rho, 1.0)  # the active set is the same for any pool
        if market.n_active < 2:
            return Quote(0.0, 0.0, 0.0, 0.0)
        cost = market.threshold
        n_averaged = averaged_nodes(game.average_over, market.epsilon)
        value = game.alpha * (game.beta / n_averaged)
        price = math.sqrt(cost) * math.sqrt(value)
        if cost >= value:
            return Quote(cost, value, price, 0.0)
        # beta / price - n_g / alpha, which loses all digits if the server buys little
        quantity = n_averaged / game.alpha * ((value - cost) / cost) / (1.0 + value / price)
        if game.budget is not None and price * quantity > game.budget:
            if self.agency_knows_cap:
                price = value * (1.0 - game.budget / game.beta)
            quantity = game.budget / price
        return Quote(cost, value, price, quantity)

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:  # noqa: ARG002
        """Price one round of the game."""
        if self.variant == "printed":
            return self._settle_purchases(game)
        quote = self.quote(game)
        if quote.quantity == 0:
            nothing = np.zeros_like(game.rho)
            return settle("yang", game, nothing, nothing, reason=_describe_no_trade(game, quote))
        epsilon = nash_equilibrium(game.rho, quote.pool).epsilon
        return settle(
            "yang",
            game,
            epsilon,
            payments(epsilon, quote.pool),
            server_payment=quote.server_payment,
        )

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Offer:  # noqa: ARG002
        """Return the contest for the agency's pool, or each seller's contract (printed).

        Without trade or without a solution, the contracts are empty.
        """
        if self.variant == "printed":
            return self._create_contracts(self._purchases(game))
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

    def _create_contracts(self, bought: Purchases) -> Contracts:
        if self.payment == "shared-cap" and bought.is_solved:
            return Contracts(bought.epsilon)
        if self.payment == "compensation":
            kept = bought.unit_price * bought.amount
            return Contracts(bought.epsilon, bought.compensation, margin=kept)
        return Contracts(bought.epsilon, bought.purchase_price)

    def _settle_purchases(self, game: PricingGame) -> Outcome:
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
        contracts = self._create_contracts(bought)
        payment = contracts.payment(bought.epsilon, game.cap)
        return settle(
            "yang",
            game,
            bought.epsilon,
            payment,
            server_payment=contracts.server_payment(bought.epsilon, payment),
            note=(
                "The root in eq. 58 of Zhou et al. 2023 and the exponent in eq. 59 are our "
                f"restoration (price_root = {self.price_root!r}, epsilon_exponent = "
                f"{self.epsilon_exponent!r}). So are the payments, which the paper does not state "
                f"(payment = {self.payment!r})."
            ),
        )


def _describe_no_trade(game: PricingGame, quote: Quote) -> str:
    if quote.unit_cost == 0:
        return "A contest needs two nodes."
    if game.budget == 0:
        return _NO_MONEY
    return (
        f"The nodes' unit cost m = {quote.unit_cost:g} is not below alpha beta / n_g = "
        f"{quote.first_unit_value:g}, what the server would pay for the first unit of epsilon."
    )
