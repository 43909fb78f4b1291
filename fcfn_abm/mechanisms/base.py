"""Inputs and outcomes of mechanisms, and the primitives by which all are evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import repeat
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, as_floats, as_number
from fcfn_abm.game import (
    AverageOver,
    ContestEquilibrium,
    LeaderSearch,
    StackelbergEquilibrium,
    Terms,
    averaged_nodes,
    contest_equilibrium,
    payments,
    search_best_cap,
    server_utility,
)
from fcfn_abm.game.costs import profits
from fcfn_abm.game.equilibrium import ActiveSet, Equilibrium, as_budgets, as_costs, solve_nodes
from fcfn_abm.game.exact import PerGame
from fcfn_abm.game.stackelberg import average_per_node, solve_leader
from fcfn_abm.game.welfare import as_numbers
from fcfn_abm.mechanisms.claims import Claims
from fcfn_abm.population import Holdings, require_sized
from fcfn_abm.registry import Registry
from fcfn_abm.rng import Chance, as_generator
from fcfn_abm.scenario.schema import LARGEST

type Floats = npt.NDArray[np.float64]
type Rows = slice | npt.NDArray[np.intp]


@dataclass(frozen=True)
class PricingGame:
    """The primitives of a game, common to all mechanisms."""

    rho: Floats
    """Unit privacy costs, in currency per unit of epsilon, shape (n,); for k populations, (k,
    n)."""
    alpha: float
    """Model-value parameter of the server, per unit of epsilon."""
    beta: float
    """Model-value parameter of the server, in currency."""
    budget: PerGame | None = None
    """Payment cap B of a round, in currency; None lets the mechanism choose."""
    average_over: AverageOver = "active"
    """Nodes over which the mean epsilon is averaged."""
    reported_cost: Floats | None = None
    """Unit costs that the nodes report, of the shape of rho; None for truthful reports."""
    held: Holdings = field(default_factory=Holdings)
    """The nodes' data, for mechanisms that use them; empty without data."""
    terms: Terms | None = None
    """Costs and limits of taking part; None in the game of the paper."""
    find: Callable[[Floats], ActiveSet] | None = field(default=None, repr=False, compare=False)
    """Faster equal of :func:`fcfn_abm.game.equilibrium.active_set`, for one population."""

    @property
    def bids(self) -> Floats:
        """Unit costs that are reported to a mechanism that asks for costs, shape (n,)."""
        return self.rho if self.reported_cost is None else self.reported_cost

    @cached_property
    def answer_to(self) -> Callable[[Floats], Equilibrium]:
        """The function from a cap to the nodes' equilibrium in the contest of the paper."""
        return solve_nodes(as_costs(self.rho), self.find)

    @cached_property
    def search(self) -> LeaderSearch:
        """The best cap of one population under terms other than the paper's, by a search."""
        terms = self.terms or Terms()
        return search_best_cap(self.rho, self.alpha, self.beta, terms, self.average_over)

    def solve(self, budget: float) -> ContestEquilibrium:
        """Return the nodes' equilibrium under terms other than the paper's."""
        if self.budget is None and budget == self.search.budget:
            return self.search.equilibrium
        return contest_equilibrium(self.rho, budget, self.terms)

    @cached_property
    def stackelberg(self) -> StackelbergEquilibrium:
        """The leader-follower equilibrium of these primitives.

        Under terms other than the paper's it is found by a search, and tau and threshold are zero,
        because they are not defined.
        """
        if self.terms is not None:
            found, form = self.search, self.search.equilibrium
            return StackelbergEquilibrium(
                epsilon=form.epsilon,
                active=form.active,
                n_active=form.n_active,
                total_epsilon=form.total_epsilon,
                tau=0.0,
                utility=form.utility,
                rho=form.rho,
                budget=found.budget,
                server_utility=found.server_utility,
                mean_epsilon=found.mean_epsilon,
                average_over=self.average_over,
            )
        return solve_leader(self.answer_to, self.alpha, self.beta, self.average_over)

    @property
    def cap(self) -> PerGame:
        """The payment cap for mechanisms that need one: the given one, otherwise B*."""
        return self.stackelberg.budget if self.budget is None else self.budget

    def games(self) -> Iterator[PricingGame]:
        """Yield the game of each population."""
        budgets = np.broadcast_to(np.asarray(self.budget), len(self.rho)).tolist()
        for row, (rho, budget) in enumerate(zip(self.rho, budgets, strict=True)):
            reported = None if self.reported_cost is None else self.reported_cost[row]
            yield PricingGame(
                rho,
                self.alpha,
                self.beta,
                budget,
                self.average_over,
                reported,
                self.held,
                self.terms,
            )

    def sellable(self, epsilon: Floats) -> Floats:
        """Return what nodes sell when asked for some epsilon: at most their caps.

        An epsilon below the reserve is not sold.
        """
        if self.terms is None:
            return epsilon
        sold = np.minimum(epsilon, self.terms.caps(epsilon.shape[-1]))
        return np.where(sold >= self.terms.reserve, sold, 0.0)

    def costs(self, epsilon: Floats) -> Floats:
        """Return the costs of epsilon, in currency."""
        if self.terms is None:
            return self.rho * epsilon
        return -profits(epsilon, self.rho, np.zeros_like(epsilon), self.terms)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a mechanism, evaluated by the primitives common to all mechanisms.

    For k populations priced together, arrays of shape (n,) have shape (k, n), and numbers and
    strings shape (k,).
    """

    mechanism: str
    """Registered name of the mechanism."""
    epsilon: Floats
    """Privacy budgets, dimensionless, shape (n,); zero for nodes that stay out."""
    payment: Floats
    """Payment of each node, in currency, shape (n,)."""
    active: npt.NDArray[np.bool_]
    """Which nodes take part, shape (n,)."""
    node_utility: Floats
    """Payment minus rho * epsilon, in currency, shape (n,)."""
    server_utility: PerGame
    """beta ln(1 + alpha mean_epsilon) minus ``server_payment``, in currency."""
    server_payment: PerGame
    """Total payment of the server, in currency."""
    agency_utility: PerGame
    """Part of ``server_payment`` that an agency keeps, in currency; zero without an agency."""
    mean_epsilon: PerGame
    """Average privacy budget eps_g."""
    average_over: AverageOver
    """Nodes over which ``mean_epsilon`` is averaged."""
    status: PerGame = "solved"
    """``"solved"``, ``"no-trade"`` or ``"no-solution"``."""
    reason: PerGame = ""
    """Why there is no trade or no solution, in a sentence."""
    note: PerGame = ""
    """What in a solution is our interpretation, not the paper's statement, in a sentence."""
    contest: ContestEquilibrium | None = None
    """How a contest under terms other than the paper's was solved; None otherwise."""

    @property
    def n_active(self) -> PerGame:
        """Number of nodes that take part."""
        return as_numbers(np.count_nonzero(self.active, axis=-1))

    @property
    def paid(self) -> PerGame:
        """Total payment of the server, in currency; short for ``server_payment``."""
        return self.server_payment


@dataclass(frozen=True)
class Contest:
    """An offer that shares a pool in proportion to a score of epsilon, which nodes choose freely.

    The score is epsilon itself, unless there are weights or an exponent:
    ``weight * epsilon**exponent``.
    """

    pool: float | None = None
    """What is shared, in currency; None for the cap that the server announces each round."""
    price: float | None = None
    """Server's payment to an agency per unit of epsilon; None without an agency."""
    exponent: float = 1.0
    """Exponent of epsilon in the score; above zero and at most one."""
    weight: Floats | None = None
    """Weight of each node in the score, shape (n,); None for equal weights."""

    @property
    def learns_cap(self) -> bool:
        """Whether the server chooses the cap round by round."""
        return self.pool is None

    @property
    def is_linear(self) -> bool:
        """Whether the score is epsilon itself, as in the contest of the paper."""
        return self.exponent == 1 and self.weight is None

    def among(self, rows: Rows) -> Contest:
        """Return the same contest for the nodes in some rows."""
        return self if self.weight is None else replace(self, weight=self.weight[rows])

    def payment(self, epsilon: Floats, pool: float) -> Floats:
        """Return the payment of each node, in currency."""
        return payments(self.score(epsilon), pool)

    def score(self, epsilon: Floats) -> Floats:
        """Return the scores by which payments are shared, shape (n,)."""
        score = epsilon if self.exponent == 1 else epsilon**self.exponent
        return score if self.weight is None else self.weight * score

    def epsilon(self, score: Floats) -> Floats:
        """Return the epsilon with a given score: the inverse of `score`."""
        own = score if self.weight is None else score / self.weight
        return own if self.exponent == 1 else own ** (1.0 / self.exponent)

    def server_payment(self, epsilon: Floats, payment: Floats) -> float:
        """Return the total payment of the server, in currency."""
        if self.price is None:
            return float(payment.sum())
        return float(self.price * epsilon.sum())


@dataclass(frozen=True)
class Contracts:
    """An offer of one epsilon for each node, which a node in a market may accept or refuse."""

    epsilon: Floats
    """Epsilon with which each node would train, shape (n,); zero for no contract."""
    fee: Floats | None = None
    """Payment of each contract, in currency; None shares the cap in proportion to epsilon."""
    margin: Floats | None = None
    """What an agency keeps for each contract, in currency; None without an agency."""

    learns_cap: ClassVar[bool] = False

    def payment(self, epsilon: Floats, pool: float) -> Floats:
        """Return the payment of each node, in currency."""
        if self.fee is None:
            return payments(epsilon, pool)
        return np.where(epsilon > 0, self.fee, 0.0)

    def server_payment(self, epsilon: Floats, payment: Floats) -> float:
        """Return the total payment of the server, in currency."""
        to_nodes = float(payment.sum())
        if self.margin is None:
            return to_nodes
        return to_nodes + float(self.margin[epsilon > 0].sum())


type Offer = Contest | Contracts


class Mechanism(Protocol):
    """Sets epsilon and payment of every node."""

    contested: ClassVar[bool] = False
    """Whether nodes share a pool by epsilon, so that high-cost nodes stay out (48)."""
    reports: ClassVar[Literal["epsilon", "cost"]] = "epsilon"
    """What nodes report: the epsilon that they sell, or their unit cost."""
    knobs: ClassVar[tuple[str, ...]] = ("budget",)
    """What determines how much it buys: "budget" (the cap), or the name of an option. The first one
    is raised until the mechanism buys enough; if that overshoots the target, the second one is
    lowered. Empty if nothing does. See :func:`fcfn_abm.mechanisms.matching.match_outcome`."""

    @property
    def claims(self) -> Claims:
        """Properties that the mechanism claims, with its options."""
        return Claims()

    @property
    def needs_data(self) -> bool:
        """Whether it uses the nodes' data."""
        return False

    @property
    def knows_terms(self) -> bool:
        """Whether it supports costs other than rho * epsilon, caps, fixed costs and a reserve."""
        return False

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price one round in closed form, without exits other than those of the closed form."""
        ...

    def outcomes(self, game: PricingGame, rngs: Iterable[np.random.Generator]) -> Outcome:
        """Price many populations, with ``rho`` of shape (k, n), and one generator for each.

        Bitwise equal to `outcome` for one population after another; mechanisms that can process all
        rows at once override this method.
        """
        pairs = zip(game.games(), rngs, strict=False)
        return stack([self.outcome(one, rng) for one, rng in pairs])

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Offer:
        """Return the server's offer in a market, in which taking part is voluntary."""
        ...


MECHANISMS: Registry[Mechanism] = Registry("mechanism")


def refusal(kind: str, mechanism: Mechanism) -> str:
    """Return why a mechanism does not support other terms; empty if it does."""
    if mechanism.knows_terms:
        return ""
    with_options = " with these options" if kind in ("tullock", "weighted") else ""
    return (
        f"{kind!r}{with_options} requires privacy costs rho * epsilon, without caps, a fixed "
        "cost or a reserve; use 'stackelberg', 'static' or 'random' with cost, epsilon_max, "
        "fixed_cost or reserve."
    )


def keep_willing(epsilon: Floats, game: PricingGame) -> Floats:
    """Set to zero the epsilon of nodes whose costs the cap, shared by epsilon, does not cover.

    The cap B pays B / S per unit, for every seller, so that the nodes with the highest costs leave
    until it covers the cost of every remaining node. In order of cost, those nodes stay for which
    ``rho_k * (epsilon_1 + ... + epsilon_k) <= B``. If nodes sell unequal epsilons, a market may
    come to rest with other nodes, because who leaves first depends on who moves first.
    """
    unit_cost = game.rho
    if game.terms is not None:  # cost of a unit of epsilon on average
        unit_cost = game.costs(epsilon) / np.where(epsilon > 0, epsilon, 1.0)
    order = np.argsort(unit_cost, axis=-1, kind="stable")
    supply = np.cumsum(np.take_along_axis(epsilon, order, axis=-1), axis=-1)
    stays = np.empty(epsilon.shape, dtype=bool)
    covered = np.take_along_axis(unit_cost, order, axis=-1) * supply <= np.expand_dims(game.cap, -1)
    np.put_along_axis(stays, order, covered, axis=-1)
    return np.where(stays, epsilon, 0.0)


def settle(
    mechanism: str,
    game: PricingGame,
    epsilon: Floats,
    payment: Floats,
    *,
    server_payment: PerGame | None = None,
    status: PerGame | None = None,
    reason: PerGame = "",
    note: PerGame = "",
    contest: ContestEquilibrium | None = None,
) -> Outcome:
    """Compute all utilities from the epsilon and payment of each node (6, 10).

    For one population, or for k with ``epsilon`` and ``payment`` of shape (k, n). The server pays
    what the nodes receive, unless ``server_payment`` includes the part of an agency.
    """
    to_nodes = as_numbers(payment.sum(axis=-1))
    if server_payment is None:
        server_payment = to_nodes
    active = epsilon > 0
    n_averaged = averaged_nodes(game.average_over, epsilon)
    mean_epsilon = average_per_node(epsilon.sum(axis=-1), n_averaged)
    if status is None:
        status = as_numbers(np.where(active.any(axis=-1), "solved", "no-trade"))
    if epsilon.ndim == 2:
        status, reason, note = (
            np.broadcast_to(text, len(epsilon)) for text in (status, reason, note)
        )
    return Outcome(
        mechanism=mechanism,
        epsilon=epsilon,
        payment=payment,
        active=active,
        node_utility=payment - game.costs(epsilon),
        server_utility=server_utility(mean_epsilon, game.alpha, game.beta, server_payment),
        server_payment=server_payment,
        agency_utility=server_payment - to_nodes,
        mean_epsilon=mean_epsilon,
        average_over=game.average_over,
        status=status,
        reason=reason,
        note=note,
        contest=contest,
    )


def settle_contest(mechanism: str, game: PricingGame) -> Outcome:
    """Price the contest of the paper under other terms, at the given cap or the best one."""
    cap = float(game.cap)
    found = game.solve(cap)
    status, reason = None, ""
    if found.status == "none-found":
        status = "no-solution"
        reason = (
            f"No equilibrium of the nodes was found at a cap of {cap:.6g}, and there may be none."
        )
    return settle(
        mechanism,
        game,
        found.epsilon,
        payments(found.epsilon, cap),
        status=status,
        reason=reason,
        note="" if game.budget is not None else "B* was found by a numerical search.",
        contest=found,
    )


def stack(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcomes of several populations as one."""
    first = outcomes[0]
    stacked: dict[str, Any] = {
        field.name: np.stack([getattr(outcome, field.name) for outcome in outcomes])
        for field in fields(Outcome)
        if field.name not in ("mechanism", "average_over", "contest")
    }
    return Outcome(mechanism=first.mechanism, average_over=first.average_over, **stacked)


def price(
    mechanism: str,
    rho: npt.ArrayLike,
    *,
    alpha: float,
    beta: float,
    budget: npt.ArrayLike | None = None,
    average_over: AverageOver = "active",
    reported_cost: npt.ArrayLike | None = None,
    terms: Terms | None = None,
    rng: Chance | None = None,
    **options: Any,
) -> Outcome:
    """Price one round with any registered mechanism.

    With ``"random"`` and ``"static"`` taking part is compulsory here, as in the paper: nodes that
    lose money stay. In a market (``PrivacyMarket``, ``fcfn run``) it is voluntary, and they leave.

    Parameters
    ----------
    mechanism : str
        A registered name, such as ``"stackelberg"`` or ``"random"``.
    rho : array_like of float, shape (n,) or (k, n)
        Unit privacy costs, in currency per unit of epsilon; positive. Each row of a table is a
        population; results equal those of one call per row. ``"stackelberg"``, ``"random"`` and
        ``"static"`` process all rows at once, the others one after another.
    alpha, beta : float
        The server's model-value parameters: it gains ``beta * ln(1 + alpha * mean_epsilon)``.
    budget : float, or array_like of float, shape (k,), optional
        Payment cap B of the round, in currency; one for all, or one per population. By default a
        mechanism chooses its own if it can, and uses the Stackelberg leader's B* otherwise. The
        printed equations of ``"yang"`` have no cap, except with ``payment = "shared-cap"``.
    average_over : {"active", "population", "effective"}, default "active"
        Nodes over which epsilon is averaged: those that take part, all, or their effective number
        ``S**2 / sum epsilon**2``.
    reported_cost : array_like of float, of the shape of rho, optional
        Unit costs that the nodes report to a mechanism that asks for costs; truthful by default.
    terms : Terms, optional
        Costs other than rho * epsilon, caps, a fixed cost or a reserve, for mechanisms that support
        them.
    rng : Generator, BitGenerator, SeedSequence, int or list of int, optional
        Source of randomness for mechanisms with random draws, used for one population after
        another.
    **options
        Options of the mechanism.

    Returns
    -------
    Outcome
        Epsilon, payment and utility of every node, and the server's utility.

    Raises
    ------
    UnknownNameError
        If there is no such mechanism.
    OptionError
        If the mechanism does not have an option, or does not allow its value.
    InvalidGameError
        If a number is outside its range, or the mechanism does not support the terms.

    Examples
    --------
    >>> price("stackelberg", [1.0, 1.0, 5.0], alpha=1.0, beta=10.0).epsilon
    array([1.5, 1.5, 0. ])
    >>> price("static", [[1.0, 1.0], [2.0, 3.0]], alpha=1.0, beta=10.0).server_utility.shape
    (2,)
    """
    rho, alpha, beta = as_costs(rho), as_number("alpha", alpha), as_number("beta", beta)
    require_sized(rho=rho, alpha=alpha, beta=beta)
    if budget is not None:
        budgets = as_budgets(budget, rho)
        budget = as_numbers(budgets)
        if budgets.max(initial=0.0) > LARGEST:
            raise InvalidGameError(f"budget must not exceed {LARGEST:g}, but is {budgets.max():g}.")
    if reported_cost is not None:
        reported_cost = as_floats("reported_cost", reported_cost)
        if reported_cost.shape != rho.shape:
            raise InvalidGameError(
                f"reported_cost must have the shape of rho, {rho.shape}, "
                f"but has {reported_cost.shape}."
            )
        require_sized(rho=reported_cost, alpha=alpha, beta=beta)
    if terms is not None and terms.is_paper:
        terms = None
    game = PricingGame(rho, alpha, beta, budget, average_over, reported_cost, terms=terms)
    priced, chance = MECHANISMS.create(mechanism, options), as_generator(rng)
    if terms is not None:
        terms.caps(rho.shape[-1])
        if why := refusal(mechanism, priced):
            raise InvalidGameError(why)
    if rho.ndim == 1:
        return priced.outcome(game, chance)
    if not len(rho):
        raise InvalidGameError("rho must contain at least one population, but has shape (0, n).")
    if terms is not None:  # each population needs its own search for the best cap
        return stack([priced.outcome(one, chance) for one in game.games()])
    return priced.outcomes(game, repeat(chance))
