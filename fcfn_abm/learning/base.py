"""What a rule may see, what it gives back, and the registries of rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fcfn_abm.game import AverageOver, Terms
from fcfn_abm.game.best_response import reply_all, reply_one
from fcfn_abm.game.costs import reply_under, utilities
from fcfn_abm.registry import Registry

type Floats = npt.NDArray[np.float64]
type Memory = Mapping[str, Floats]
type Start = float | tuple[float, ...]
"""What a node starts from: a number, or a fixed number of them."""
type Rows = slice | npt.NDArray[np.intp]
type Reports = Literal["full", "aggregate"]


def _nothing() -> Floats:
    return np.zeros(0)


@dataclass(frozen=True, slots=True)
class Observation[Value: (float, Floats)]:
    """What a node sees when it moves: floats for one node in turn, arrays for all at once."""

    rho: Value
    """Its own unit privacy cost, currency per unit of epsilon."""
    epsilon: Value
    """Its own last report."""
    others: Value
    """The sum of all other reports, as it sees it."""
    budget: float
    """The announced payment cap, in currency."""
    n_active: int
    """How many nodes took part in the last round."""
    epsilon_floor: float
    """Smallest admissible report."""
    row: int | Rows = slice(None)
    """Whose entries of ``memory`` these are: one node's, or those of all that move."""
    memory: Memory = field(default_factory=dict)
    """What nodes keep from round to round, one array of shape (n,) or (n, width) for each name in
    :attr:`LearningRule.memory`; a rule reads and writes its ``row`` only."""
    terms: Terms | None = None
    """Form of the cost, fixed cost and reserve; None in the game of the paper, whose privacy costs
    rho * epsilon."""
    cap: Value | None = None
    """The most that it can sell, where there are terms; infinite where nothing limits it."""

    @property
    def best_response(self) -> Value:
        """The epsilon that would be best if all others stood still (22)."""
        return self.reply(self.others)

    def reply(self, others: Value) -> Value:
        """Return what would be best against a total of the others (22)."""
        if self.terms is not None:
            rho, total = self._as_arrays(self.rho, others)
            cap = np.inf if self.cap is None else self.cap
            return self._like(reply_under(rho, total, self.budget, self.terms, cap))
        best = reply_one if isinstance(others, float) else reply_all
        return best(self.rho, others, self.budget, self.epsilon_floor)

    def utility(self, epsilon: Value) -> Value:
        """Return what a report would earn if all others stood still, in currency (6)."""
        terms = self.terms or Terms()
        own, rho, others = self._as_arrays(epsilon, self.rho, self.others)
        return self._like(utilities(own, rho, others, self.budget, terms))

    def _as_arrays(self, *values: Any) -> tuple[Floats, ...]:
        return tuple(np.atleast_1d(np.asarray(value, dtype=float)) for value in values)

    def _like(self, values: Floats) -> Value:
        """Return a float for one node, an array for many."""
        found: Any = values.item() if isinstance(self.epsilon, float) else values
        return found  # type: ignore[no-any-return]

    def remembered(self, name: str) -> Value:
        """Return the node's entries of a memory: a float for one, an array for all.

        Of a memory with a width, these are an array of one dimension for one, and of two for all.
        """
        kept = self.memory[name]
        is_number = isinstance(self.row, int) and kept.ndim == 1
        entries: Any = kept[self.row].item() if is_number else kept[self.row]
        return entries  # type: ignore[no-any-return]


def create_memory(rule: LearningRule, n_nodes: int) -> dict[str, Floats]:
    """Return what so many nodes remember before they have seen anything, by name."""
    return {
        name: np.full((n_nodes, *np.shape(start)), start, dtype=float)
        for name, start in rule.memory.items()
    }


@dataclass(frozen=True, slots=True)
class News:
    """What a round has shown, for all nodes at once; arrays have shape (n,)."""

    budget: float
    """The payment cap of the round, in currency."""
    epsilon: Floats
    """What each node itself reported."""
    others: Floats
    """The sum of all other reports, as each node sees it."""
    reports: Floats | None
    """Every report as it was published; None where the total alone is."""
    moved: npt.NDArray[np.bool_]
    """Who moved in this round; the others' reports stand from an earlier one."""
    noise: float
    """Relative error of what is seen; those who see it know how far to trust it."""
    memory: Memory
    """What nodes keep, as in :class:`Observation`."""
    n_active: int = 0
    """How many nodes took part."""
    changing: bool = False
    """Whether nodes come and go, or their costs change: old rounds tell of another market then."""
    rho: Floats = field(default_factory=_nothing)
    """Unit privacy cost of each node, which it alone knows."""
    payment: Floats = field(default_factory=_nothing)
    """What each node was paid, in currency; zero before the first round."""
    utility: Floats = field(default_factory=_nothing)
    """Its payment less its privacy cost, in currency."""
    chance: Floats = field(default_factory=_nothing)
    """A random number of each node, uniform in [0, 1), where :attr:`LearningRule.explores`: it
    depends on the seed, the round and the place of the node, and on nothing else."""
    terms: Terms | None = None
    """Form of the cost, fixed cost and reserve, and the most that each of these nodes can sell;
    None in the game of the paper."""


def plan_reply(
    rho: float,
    others: float,
    own: float,  # noqa: ARG001
    budget: float,
    epsilon_floor: float,
) -> float:
    """Return the best response of one node: what most rules plan."""
    return reply_one(rho, others, budget, epsilon_floor)


@dataclass(frozen=True, slots=True)
class ScalarMoves:
    """A learning rule as two functions of numbers, which play compiles for many nodes.

    Numba compiles them: they may use `math`, `min`, `max`, constants of their module and
    :func:`fcfn_abm.game.best_response.reply_one`.
    """

    step: Callable[..., tuple[float, float]]
    """``step(rho, others, own, planned, budget, epsilon_floor, parameters, remembered)`` returns
    the next epsilon of a node, and what it remembers: the same digits as `next_epsilon`."""
    plan: Callable[..., float] = plan_reply
    """``plan(rho, others, own, budget, epsilon_floor)``: the same digits as `LearningRule.plan`."""
    parameters: tuple[float | bool, ...] = ()
    """What ``step`` is given besides, the same for all nodes in a round."""
    memory: str | None = None
    """Which entry of :attr:`LearningRule.memory` a step reads and writes: at most one."""
    constant: bool = False
    """Whether ``parameters`` are the same however many nodes take part."""


class LearningRule(Protocol):
    """Turns what a node sees into its next epsilon, of the same shape and never negative."""

    needs: ClassVar[Reports] = "aggregate"
    """Whether it must see each report, or the total alone."""
    newcomers_ask: ClassVar[bool] = False
    """Whether a newcomer starts from what another node keeps, and not from nothing."""
    rests_at_equilibrium: ClassVar[bool] = True
    """Whether nodes that are at the Nash equilibrium stay there."""
    explores: ClassVar[bool] = False
    """Whether nodes try reports at random, drawn from :attr:`News.chance`."""
    knows_terms: ClassVar[bool] = False
    """Whether it plays other games than the paper's as well: see :meth:`refuses`."""

    def refuses(self, terms: Terms) -> str:
        """Return why it does not play under some terms, in a clause; empty if it does.

        Parameters
        ----------
        terms : Terms
            Others than the paper's: form of the cost, caps, fixed cost, reserve.
        """
        del terms
        return "" if self.knows_terms else "it knows the costs rho * epsilon of the paper alone"

    def for_population(self, distribution: Any, n_nodes: int) -> LearningRule:
        """Return the rule as nodes play it that know the law of their costs and how many they are.

        Parameters
        ----------
        distribution : RhoDistribution or None
            The distribution of costs; None where groups have their own.
        n_nodes : int
            How many nodes there are.
        """
        del distribution, n_nodes
        return self

    @property
    def memory(self) -> Mapping[str, Start]:
        """What each node keeps from round to round, with the value that it starts from.

        A tuple gives a memory with a width. A class attribute of this name does as well, where no
        option changes what is kept.
        """
        return {}

    def next_epsilon[Value: (float, Floats)](
        self, seen: Observation[Value], rng: np.random.Generator
    ) -> Value:
        """Choose the epsilon of this round; by default what is planned, all the way."""
        del rng
        return self.plan(seen)

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return what the node would report if it could move all the way: zero is to stay out."""
        return seen.best_response

    def loses[Value: (float, Floats)](self, seen: Observation[Value]) -> Any:
        """Return whether the present report costs more than it is paid (3, 5)."""
        if seen.terms is not None:
            return seen.utility(seen.epsilon) < 0
        return (seen.epsilon > 0) & (seen.budget < seen.rho * (seen.others + seen.epsilon))

    def watches_total(self) -> bool:
        """Return whether what it plans and chooses depends on the others' total as it moves.

        An answer holds for the class that gives it, and not for its subclasses.
        """
        return True

    def scalar_moves(self, n_active: int) -> ScalarMoves | None:
        """Return the rule for compiled play when so many nodes take part, if there is a form of it.

        An answer holds for the class that gives it, and not for its subclasses: these may move in
        another way.
        """
        del n_active
        return None

    def still_tries(self, memory: Memory) -> bool:
        """Return whether nodes that explore still do; before they stop, no market is at rest."""
        del memory
        return self.explores

    def learn(self, news: News) -> None:
        """Take in what a round has shown (and, before the first one, the first reports)."""
        del news  # most rules see enough when they move


def scalar_moves(rule: LearningRule, n_active: int) -> ScalarMoves | None:
    """Return a rule for compiled play, or None where its own class does not say how.

    Compiled play knows the losses of a contest only, and so no rule with losses of its own.
    """
    if "scalar_moves" not in vars(type(rule)) or type(rule).loses is not LearningRule.loses:
        return None
    return rule.scalar_moves(n_active)


def watches_total(rule: LearningRule) -> bool:
    """Return whether a rule depends on the total as it moves: yes, unless its own class says no."""
    return rule.watches_total() or "watches_total" not in vars(type(rule))


class Reading(NamedTuple):
    """What a server reads off a round, in numbers: for rules that decide by them alone."""

    budget: float
    """The cap that it announced last, in currency."""
    utility: float
    """What the last round left it, in currency."""
    alpha: float
    """Its own model-value parameter, per unit of epsilon."""
    beta: float
    """Its own model-value parameter, in currency."""
    rounds_a_turn: int
    """In how many rounds as many nodes are asked to move as there are."""
    total: float = 0.0
    """Sum of the reports of those that take part."""
    tau: float = 0.0
    """Sum of the unit costs that these reports reveal: ``B (S - eps_j) / S**2`` each (15)."""
    n_active: int = 0
    """How many nodes take part."""
    n_averaged: float = 0.0
    """How many nodes eps_g averages over."""
    moved: float = 1.0
    """How far S moved since the server last looked, relative to it; 1 while a node is on its way
    out, and where the server has not looked before."""


@dataclass(frozen=True, slots=True)
class ScalarServer:
    """A server rule as a function of numbers, which play compiles.

    Numba compiles it, as it does `ScalarMoves`.
    """

    choose: Callable[..., float]
    """``choose(reading, parameters, memory)`` returns the next cap, and changes the memory, a list
    of floats: the same digits as `next_budget`."""
    is_content: Callable[..., bool]
    """``is_content(parameters, memory)``: the same as `content`."""
    memory: tuple[str, ...] = ()
    """Names of the entries of the memory."""
    parameters: tuple[float, ...] = ()
    """What ``choose`` is given besides."""
    reads_reports: bool = False
    """Whether it decides by the reports, and not by its utility alone."""


@dataclass(frozen=True, slots=True)
class ServerObservation:
    """What the server sees when it announces: the last round, as far as it was reported."""

    budget: float
    """The cap that it announced last, in currency."""
    epsilon: Floats
    """The reports that answered it, shape (n,)."""
    alpha: float
    """Its own model-value parameter, per unit of epsilon."""
    beta: float
    """Its own model-value parameter, in currency."""
    average_over: AverageOver
    """Which nodes eps_g averages over."""
    utility: float = 0.0
    """What the last round left it, in currency."""
    rounds_a_turn: int = 1
    """In how many rounds as many nodes are asked to move as there are: more than one where a part
    of them is asked in a round, and a quiet round shows little."""
    memory: dict[str, Any] = field(default_factory=dict)
    """What it keeps from round to round, by the names in :attr:`ServerRule.memory`."""
    terms: Terms | None = None
    """What taking part costs the nodes and allows them; None in the game of the paper."""


class ServerRule(Protocol):
    """Turns what the server sees into the next payment cap, never negative."""

    memory: ClassVar[Mapping[str, Any]] = {}
    """What it keeps from round to round, with the value that it starts from."""
    searches: ClassVar[bool] = False
    """Whether it tries caps until it is content, however long that takes."""
    sees_measured_value: ClassVar[bool] = False
    """Whether it decides by what a round of training was measured to be worth, where that is
    measured, and not by alpha and beta."""

    def next_budget(self, seen: ServerObservation) -> float:
        """Choose the cap of this round, in currency."""
        ...

    def content(self, memory: Mapping[str, Any]) -> bool:
        """Return whether the server would leave its cap as it is; before, nothing has converged."""
        del memory
        return True

    def has_given_up(self, memory: Mapping[str, Any]) -> bool:
        """Return whether a cap of zero is final; only asked while the cap is zero."""
        del memory
        return True

    def scalar_server(self) -> ScalarServer | None:
        """Return the rule for compiled play, if there is a form of it.

        An answer holds for the class that gives it, and not for its subclasses.
        """
        return None


def scalar_server(rule: ServerRule) -> ScalarServer | None:
    """Return a server rule for compiled play, or None where its own class does not say how."""
    return rule.scalar_server() if "scalar_server" in vars(type(rule)) else None


def choose_by_form(form: ScalarServer, seen: Reading, memory: dict[str, Any]) -> float:
    """Return the next cap that a compiled form chooses, outside of compiled play."""
    kept = [memory[name] for name in form.memory]
    budget = form.choose(seen, form.parameters, kept)
    memory.update(zip(form.memory, kept, strict=True))
    return budget


class RetryingServer(ServerRule):
    """A server that opens again after it has given up, since from a cap of zero it learns nothing.

    It waits for 20 rounds, then for 40, and so on, and opens as it did at first. A rule puts
    `retries` first into its own memory, and asks `try_again` before anything else.
    """

    retries: ClassVar[Mapping[str, float]] = {
        "opening": 0.0,  # the first cap
        "pause": 0.0,  # rounds at a cap of zero
        "tries": 0.0,  # how often the server began again
    }
    most_tries: ClassVar[int] = 3
    """Retries in vain after which a market in which nothing else changes is over."""

    def has_given_up(self, memory: Mapping[str, Any]) -> bool:
        """Return whether the server has tried again often enough."""
        return bool(memory["tries"] >= self.most_tries)


OPENING, PAUSE, TRIES = range(3)
"""Places of `RetryingServer.retries` in the memory of a form."""
_FIRST_PAUSE = 20.0


def try_again(seen: Reading, memory: Any, fresh: tuple[float, ...]) -> float:
    """Return the next cap of a server whose cap is zero; below zero where it is not.

    All memory but that of retries is then ``fresh`` again, what it starts from.
    """
    if memory[OPENING] == 0.0:
        memory[OPENING] = seen.budget if seen.budget > 0.0 else seen.beta / 2
    if seen.budget > 0.0:
        memory[PAUSE] = 0.0
        return -1.0
    for place in range(TRIES + 1, len(memory)):
        memory[place] = fresh[place]
    memory[PAUSE] += 1.0
    if memory[PAUSE] < _FIRST_PAUSE * 2.0 ** memory[TRIES]:
        return 0.0
    memory[PAUSE] = 0.0
    memory[TRIES] += 1.0
    return float(memory[OPENING])


LEARNING_RULES: Registry[LearningRule] = Registry("learning rule")
SERVER_RULES: Registry[ServerRule] = Registry("server rule")
