"""What every mechanism gets and gives, and the primitives on which all are judged."""

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
from fcfn_abm.game.equilibrium import Equilibrium, as_budgets, as_costs, solve_nodes
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
    """The primitives that all mechanisms share."""

    rho: Floats
    """Unit privacy costs, currency per unit of epsilon, shape (n,); of k populations, (k, n)."""
    alpha: float
    """Model-value parameter of the server, per unit of epsilon."""
    beta: float
    """Model-value parameter of the server, in currency."""
    budget: PerGame | None = None
    """Payment cap B of a round, in currency; None leaves it to the mechanism."""
    average_over: AverageOver = "active"
    """Which nodes the mean epsilon is averaged over."""
    reported_cost: Floats | None = None
    """Unit costs that the nodes report, of the shape of rho; None where they report the truth."""
    held: Holdings = field(default_factory=Holdings)
    """The data that nodes hold, for a mechanism that looks at them; empty where there are none."""
    terms: Terms | None = None
    """What taking part costs and allows; None in the game of the paper."""

    @property
    def bids(self) -> Floats:
        """The unit costs that a mechanism goes by which asks for costs, shape (n,)."""
        return self.rho if self.reported_cost is None else self.reported_cost

    @cached_property
    def answer_to(self) -> Callable[[Floats], Equilibrium]:
        """The function from a cap to the nodes' equilibrium in the contest of the paper."""
        return solve_nodes(as_costs(self.rho))

    @cached_property
    def search(self) -> LeaderSearch:
        """The best cap of one population under other terms than the paper's, which is searched."""
        terms = self.terms or Terms()
        return search_best_cap(self.rho, self.alpha, self.beta, terms, self.average_over)

    def solve(self, budget: float) -> ContestEquilibrium:
        """Return the nodes' equilibrium under other terms than the paper's."""
        if self.budget is None and budget == self.search.budget:
            return self.search.equilibrium
        return contest_equilibrium(self.rho, budget, self.terms)

    @cached_property
    def stackelberg(self) -> StackelbergEquilibrium:
        """The leader-follower equilibrium of these primitives.

        Under other terms than the paper's it is searched, and has no tau and no threshold: they are
        zero.
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
        """The payment cap where a mechanism needs one: the given one, else B*."""
        return self.stackelberg.budget if self.budget is None else self.budget

    def games(self) -> Iterator[PricingGame]:
        """Yield the game of each of many populations."""
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
        """Return what nodes sell that are asked for some epsilon: no more than they can.

        What would lie below the least that is paid is not sold.
        """
        if self.terms is None:
            return epsilon
        sold = np.minimum(epsilon, self.terms.caps(epsilon.shape[-1]))
        return np.where(sold >= self.terms.reserve, sold, 0.0)

    def costs(self, epsilon: Floats) -> Floats:
        """Return what epsilon costs the nodes, in currency."""
        if self.terms is None:
            return self.rho * epsilon
        return -profits(epsilon, self.rho, np.zeros_like(epsilon), self.terms)


@dataclass(frozen=True)
class Outcome:
    """What a mechanism leads to, judged on the primitives that all mechanisms share.

    Of k populations that were priced together, arrays of shape (n,) have shape (k, n), and numbers
    and texts shape (k,).
    """

    mechanism: str
    """Registered name of the mechanism."""
    epsilon: Floats
    """Privacy budgets, dimensionless, shape (n,); zero where a node stays out."""
    payment: Floats
    """What each node gets, in currency, shape (n,)."""
    active: npt.NDArray[np.bool_]
    """Which nodes take part, shape (n,)."""
    node_utility: Floats
    """Payment less rho * epsilon, in currency, shape (n,)."""
    server_utility: PerGame
    """beta ln(1 + alpha mean_epsilon) less ``server_payment``, in currency."""
    server_payment: PerGame
    """What the server pays in all, in currency."""
    agency_utility: PerGame
    """What a middleman keeps of ``server_payment``, in currency; zero where there is none."""
    mean_epsilon: PerGame
    """Average privacy budget eps_g."""
    average_over: AverageOver
    """Which nodes ``mean_epsilon`` is averaged over."""
    status: PerGame = "solved"
    """``"solved"``, ``"no-trade"`` or ``"no-solution"``."""
    reason: PerGame = ""
    """Why there is no trade or no solution, in a sentence."""
    note: PerGame = ""
    """What is our reading rather than the paper's statement in a solution, in a sentence."""
    contest: ContestEquilibrium | None = None
    """How a contest under other terms than the paper's was solved; None elsewhere."""

    @property
    def n_active(self) -> PerGame:
        """How many nodes take part."""
        return as_numbers(np.count_nonzero(self.active, axis=-1))

    @property
    def paid(self) -> PerGame:
        """What the server pays in all, in currency: ``server_payment`` by its short name."""
        return self.server_payment


@dataclass(frozen=True)
class Contest:
    """An offer: a pool is shared in proportion to a score of epsilon, which nodes choose freely.

    The score is epsilon itself, unless there are weights or an exponent:
    ``weight * epsilon**exponent``.
    """

    pool: float | None = None
    """What is shared, in currency; None is the cap that the server announces each round."""
    price: float | None = None
    """What the server pays a middleman for a unit of epsilon; None where there is none."""
    exponent: float = 1.0
    """Of epsilon in the score; above zero and at most one."""
    weight: Floats | None = None
    """Of each node in the score, shape (n,); None where all weigh the same."""

    @property
    def learns_cap(self) -> bool:
        """Whether the server chooses the cap round by round."""
        return self.pool is None

    @property
    def is_linear(self) -> bool:
        """Whether the score is epsilon itself, as in the contest of the paper."""
        return self.exponent == 1 and self.weight is None

    def among(self, rows: Rows) -> Contest:
        """Return the same contest of the nodes in some rows."""
        return self if self.weight is None else replace(self, weight=self.weight[rows])

    def payment(self, epsilon: Floats, pool: float) -> Floats:
        """Return what each node gets, in currency."""
        return payments(self.score(epsilon), pool)

    def score(self, epsilon: Floats) -> Floats:
        """Return what payments are in proportion to, shape (n,)."""
        score = epsilon if self.exponent == 1 else epsilon**self.exponent
        return score if self.weight is None else self.weight * score

    def epsilon(self, score: Floats) -> Floats:
        """Return the epsilon that scores so much: the inverse of `score`."""
        own = score if self.weight is None else score / self.weight
        return own if self.exponent == 1 else own ** (1.0 / self.exponent)

    def server_payment(self, epsilon: Floats, payment: Floats) -> float:
        """Return what the server pays in all, in currency."""
        if self.price is None:
            return float(payment.sum())
        return float(self.price * epsilon.sum())


@dataclass(frozen=True)
class Contracts:
    """An offer: one epsilon for each node, which in a market may accept it or leave."""

    epsilon: Floats
    """The epsilon that each node would train with, shape (n,); zero where no contract suits."""
    fee: Floats | None = None
    """What each contract pays, in currency; None shares the cap in proportion to epsilon."""
    margin: Floats | None = None
    """What a middleman keeps for each contract, in currency; None where there is none."""

    learns_cap: ClassVar[bool] = False

    def payment(self, epsilon: Floats, pool: float) -> Floats:
        """Return what each node gets, in currency."""
        if self.fee is None:
            return payments(epsilon, pool)
        return np.where(epsilon > 0, self.fee, 0.0)

    def server_payment(self, epsilon: Floats, payment: Floats) -> float:
        """Return what the server pays in all, in currency."""
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
    """What sets how much it buys: "budget", the cap, or the name of an option. The first one is
    raised until the mechanism buys enough; where that jumps over the aim, the second one is
    lowered. Empty where nothing does. See :func:`fcfn_abm.mechanisms.matching.match_outcome`."""

    @property
    def claims(self) -> Claims:
        """What the mechanism claims of itself, with its options."""
        return Claims()

    @property
    def needs_data(self) -> bool:
        """Whether it looks at the data that nodes hold."""
        return False

    @property
    def knows_terms(self) -> bool:
        """Whether it stands for other costs than rho * epsilon, caps, fixed costs and a reserve."""
        return False

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price one round in closed form, without exits other than those of the closed form."""
        ...

    def outcomes(self, game: PricingGame, rngs: Iterable[np.random.Generator]) -> Outcome:
        """Price many populations: ``rho`` of the game has shape (k, n), and each its own chance.

        The numbers are those of `outcome` one by one, bit for bit; a mechanism that can work on
        all rows at once overrides this.
        """
        pairs = zip(game.games(), rngs, strict=False)
        return stack([self.outcome(one, rng) for one, rng in pairs])

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Offer:
        """Return what the server posts in a market, where taking part is voluntary."""
        ...


MECHANISMS: Registry[Mechanism] = Registry("mechanism")


def refusal(kind: str, mechanism: Mechanism) -> str:
    """Return why a mechanism does not stand for other terms; empty if it does."""
    if mechanism.knows_terms:
        return ""
    with_options = " with these options" if kind in ("tullock", "weighted") else ""
    return (
        f"{kind!r}{with_options} is derived for nodes whose privacy costs rho * epsilon, without "
        "caps, a fixed cost or a reserve: another cost, epsilon_max, fixed_cost and reserve go "
        "together with 'stackelberg', 'static' and 'random'."
    )


def keep_willing(epsilon: Floats, game: PricingGame) -> Floats:
    """Set to zero the epsilon of nodes that the cap, shared in proportion to it, does not pay for.

    The cap B pays B / S for each unit, whoever sells it, so those with the highest costs leave
    until it covers the cost of each that is left. By cost, those stay for which
    ``rho_k * (epsilon_1 + ... + epsilon_k) <= B``. A market may come to rest with other nodes
    where they sell unequal epsilons: who leaves first depends on who moves first.
    """
    unit_cost = game.rho
    if game.terms is not None:  # of a unit of epsilon on average
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
    """Work out everybody's utility from what each node reports and is paid (6, 10).

    Of one population, or of k with ``epsilon`` and ``payment`` of shape (k, n).
    The server pays what the nodes get, unless ``server_payment`` says that a middleman keeps a
    part.
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
        note="" if game.budget is not None else "B* is searched, since (41) does not stand here.",
        contest=found,
    )


def stack(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcomes of one population or more as one."""
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

    Under ``"random"`` and ``"static"`` taking part is compulsory here, as in the paper: nodes that
    lose stay. In a market (``PrivacyMarket``, ``fcfn run``) it is voluntary, and they leave.

    Parameters
    ----------
    mechanism : str
        A registered name, such as ``"stackelberg"`` or ``"random"``.
    rho : array_like of float, shape (n,) or (k, n)
        Unit privacy costs, in currency per unit of epsilon; positive. Each row of a table is a
        population: all are priced, with the numbers of one call a row. ``"stackelberg"``,
        ``"random"`` and ``"static"`` work on all rows at once, the others on one after another.
    alpha, beta : float
        The server's model-value parameters: it gains ``beta * ln(1 + alpha * mean_epsilon)``.
    budget : float, or array_like of float, shape (k,), optional
        Payment cap B of the round, in currency; one for all, or one a population. Without it a
        mechanism that can chooses its own, and the others get the Stackelberg leader's B*. The
        printed equations of ``"yang"`` know no cap, except with ``payment = "shared-cap"``.
    average_over : {"active", "population", "effective"}, default "active"
        Over how many nodes epsilon is averaged: those that take part, all, or their effective
        number ``S**2 / sum epsilon**2``.
    reported_cost : array_like of float, of the shape of rho, optional
        Unit costs that the nodes report to a mechanism that asks for costs; without it, the truth.
    terms : Terms, optional
        Other costs than rho * epsilon, caps, a fixed cost or a reserve, for mechanisms that know of
        them.
    rng : Generator, BitGenerator, SeedSequence, int or list of int, optional
        Source of chance, for mechanisms that draw; populations draw from it one after another.
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
        If the mechanism does not take an option, or not that value.
    InvalidGameError
        If a number is outside its range, or the mechanism is made for the costs of the paper alone.

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
        raise InvalidGameError("rho must hold one population or more, but has shape (0, n).")
    if terms is not None:  # each has its own best cap, which is searched
        return stack([priced.outcome(one, chance) for one in game.games()])
    return priced.outcomes(game, repeat(chance))
