"""Interfaces of learning rules, what they observe, and their registries."""

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
"""Initial value of a memory: a number, or a tuple of numbers."""
type Rows = slice | npt.NDArray[np.intp]
type Reports = Literal["full", "aggregate"]


def _nothing() -> Floats:
    return np.zeros(0)


@dataclass(frozen=True, slots=True)
class Observation[Value: (float, Floats)]:
    """What a node observes when it moves: floats for one node in turn, arrays for all at once."""

    rho: Value
    """Its own unit privacy cost, in currency per unit of epsilon."""
    epsilon: Value
    """Its own last report."""
    others: Value
    """Sum of all other reports, as the node observes it."""
    budget: float
    """The announced payment cap, in currency."""
    n_active: int
    """Number of nodes that took part in the last round."""
    epsilon_floor: float
    """Smallest admissible report."""
    row: int | Rows = slice(None)
    """Rows of ``memory`` that belong to this node, or to all nodes that move."""
    memory: Memory = field(default_factory=dict)
    """Memory of the nodes, one array of shape (n,) or (n, width) for each name in
    :attr:`LearningRule.memory`; a rule reads and writes its ``row`` only."""
    terms: Terms | None = None
    """Form of the cost, fixed cost and reserve; None in the game of the paper, whose privacy costs
    rho * epsilon."""
    cap: Value | None = None
    """Largest epsilon that it can sell, used with terms; infinite without a limit."""

    @property
    def best_response(self) -> Value:
        """Best epsilon if all other reports stayed the same (22)."""
        return self.reply(self.others)

    def reply(self, others: Value) -> Value:
        """Return the best response to a total of the others (22)."""
        if self.terms is not None:
            rho, total = self._as_arrays(self.rho, others)
            cap = np.inf if self.cap is None else self.cap
            return self._like(reply_under(rho, total, self.budget, self.terms, cap))
        best = reply_one if isinstance(others, float) else reply_all
        return best(self.rho, others, self.budget, self.epsilon_floor)

    def utility(self, epsilon: Value) -> Value:
        """Return the utility of a report if all other reports stayed the same, in currency (6)."""
        terms = self.terms or Terms()
        own, rho, others = self._as_arrays(epsilon, self.rho, self.others)
        return self._like(utilities(own, rho, others, self.budget, terms))

    def _as_arrays(self, *values: Any) -> tuple[Floats, ...]:
        return tuple(np.atleast_1d(np.asarray(value, dtype=float)) for value in values)

    def _like(self, values: Floats) -> Value:
        """Return a float for one node, an array for many."""
        found: Any = values.item() if isinstance(self.epsilon, float) else values
        return found  # type: ignore[no-any-return]

    def recall(self, name: str) -> Value:
        """Return the node's entries of a memory: a float for one node, an array for all.

        For a memory with a width, an array with one dimension for one node, and with two for all.
        """
        kept = self.memory[name]
        is_number = isinstance(self.row, int) and kept.ndim == 1
        entries: Any = kept[self.row].item() if is_number else kept[self.row]
        return entries  # type: ignore[no-any-return]


def create_memory(rule: LearningRule, n_nodes: int) -> dict[str, Floats]:
    """Return the initial memory of ``n_nodes`` nodes, by name."""
    return {
        name: np.full((n_nodes, *np.shape(start)), start, dtype=float)
        for name, start in rule.memory.items()
    }


@dataclass(frozen=True, slots=True)
class News:
    """Results of a round, for all nodes at once; arrays have shape (n,)."""

    budget: float
    """Payment cap of the round, in currency."""
    epsilon: Floats
    """Each node's own report."""
    others: Floats
    """Sum of all other reports, as each node observes it."""
    reports: Floats | None
    """Every published report; None if only the total is published."""
    moved: npt.NDArray[np.bool_]
    """Which nodes moved in this round; the reports of the others are from an earlier round."""
    noise: float
    """Relative error of observations, which is known to the nodes."""
    memory: Memory
    """Memory of the nodes, as in :class:`Observation`."""
    n_active: int = 0
    """Number of nodes that took part."""
    changing: bool = False
    """Whether there is churn, or costs change; old rounds then describe another market."""
    rho: Floats = field(default_factory=_nothing)
    """Unit privacy cost of each node, known only to itself."""
    payment: Floats = field(default_factory=_nothing)
    """Payment of each node, in currency; zero before the first round."""
    utility: Floats = field(default_factory=_nothing)
    """Payment minus privacy cost, in currency."""
    chance: Floats = field(default_factory=_nothing)
    """A random number per node, uniform in [0, 1), if :attr:`LearningRule.explores`; it depends
    only on the seed, the round and the node's place."""
    terms: Terms | None = None
    """Form of the cost, fixed cost and reserve, and the largest epsilon that each of these nodes
    can sell; None in the game of the paper."""


def plan_reply(
    rho: float,
    others: float,
    own: float,  # noqa: ARG001
    budget: float,
    epsilon_floor: float,
) -> float:
    """Return the best response of one node, which most rules plan."""
    return reply_one(rho, others, budget, epsilon_floor)


@dataclass(frozen=True, slots=True)
class ScalarMoves:
    """A learning rule as two scalar functions, compiled to play many nodes.

    Numba compiles them; they may use `math`, `min`, `max`, constants of their module and
    :func:`fcfn_abm.game.best_response.reply_one`.
    """

    step: Callable[..., tuple[float, float]]
    """``step(rho, others, own, planned, budget, epsilon_floor, parameters, remembered)`` returns a
    node's next epsilon and memory, bitwise equal to `next_epsilon`."""
    plan: Callable[..., float] = plan_reply
    """``plan(rho, others, own, budget, epsilon_floor)``, bitwise equal to `LearningRule.plan`."""
    parameters: tuple[float | bool, ...] = ()
    """Further arguments of ``step``, the same for all nodes in a round."""
    memory: str | None = None
    """Entry of :attr:`LearningRule.memory` that a step reads and writes; at most one."""
    constant: bool = False
    """Whether ``parameters`` are independent of the number of participants."""


class LearningRule(Protocol):
    """Turns what a node observes into its next epsilon, of the same shape and never negative."""

    needs: ClassVar[Reports] = "aggregate"
    """Whether the rule needs every report, or only their total."""
    newcomers_ask: ClassVar[bool] = False
    """Whether a newcomer starts from another node's memory, instead of the initial one."""
    rests_at_equilibrium: ClassVar[bool] = True
    """Whether nodes at the Nash equilibrium stay there."""
    explores: ClassVar[bool] = False
    """Whether nodes explore at random, using :attr:`News.chance`."""
    knows_terms: ClassVar[bool] = False
    """Whether the rule supports games other than the paper's; see :meth:`refuses`."""

    def refuses(self, terms: Terms) -> str:
        """Return why the rule does not support some terms, in a clause; empty if it does.

        Parameters
        ----------
        terms : Terms
            Terms other than the paper's: form of the cost, caps, fixed cost, reserve.
        """
        del terms
        return "" if self.knows_terms else "it supports the paper's costs rho * epsilon only"

    def for_population(self, distribution: Any, n_nodes: int) -> LearningRule:
        """Return the rule for nodes that know the distribution of costs and the number of nodes.

        Parameters
        ----------
        distribution : RhoDistribution or None
            Distribution of costs; None if groups have their own.
        n_nodes : int
            Number of nodes.
        """
        del distribution, n_nodes
        return self

    @property
    def memory(self) -> Mapping[str, Start]:
        """Names of what each node remembers from round to round, with initial values.

        A tuple gives a memory with a width. A class attribute of this name is sufficient if no
        option changes the memory.
        """
        return {}

    def next_epsilon[Value: (float, Floats)](
        self, seen: Observation[Value], rng: np.random.Generator
    ) -> Value:
        """Choose the epsilon of this round; by default the planned one."""
        del rng
        return self.plan(seen)

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return the report that the node would make without damping; zero means to stay out."""
        return seen.best_response

    def loses[Value: (float, Floats)](self, seen: Observation[Value]) -> Any:
        """Return whether the current report costs more than its payment (3, 5)."""
        if seen.terms is not None:
            return seen.utility(seen.epsilon) < 0
        return (seen.epsilon > 0) & (seen.budget < seen.rho * (seen.others + seen.epsilon))

    def watches_total(self) -> bool:
        """Return whether plan or choice depend on the others' total at the time of the move.

        The result holds for this class, but not for its subclasses.
        """
        return True

    def scalar_moves(self, n_active: int) -> ScalarMoves | None:
        """Return the compiled form of the rule for this number of participants, if it has one.

        The result holds for this class, but not for its subclasses, which may move differently.
        """
        del n_active
        return None

    def still_tries(self, memory: Memory) -> bool:
        """Return whether exploring nodes still explore; until they stop, no market is at rest."""
        del memory
        return self.explores

    def learn(self, news: News) -> None:
        """Learn from a round or, before the first one, from the first reports."""
        del news  # most rules need only what they observe when they move


def scalar_moves(rule: LearningRule, n_active: int) -> ScalarMoves | None:
    """Return a rule for compiled play, or None unless its own class defines it.

    Compiled play supports the losses of a contest only, not a rule's own definition of losses.
    """
    if "scalar_moves" not in vars(type(rule)) or type(rule).loses is not LearningRule.loses:
        return None
    return rule.scalar_moves(n_active)


def watches_total(rule: LearningRule) -> bool:
    """Return whether a rule depends on the current total: yes, unless its own class denies it."""
    return rule.watches_total() or "watches_total" not in vars(type(rule))


class Reading(NamedTuple):
    """Summary of a round for a server, in numbers, for rules that need nothing else."""

    budget: float
    """Its last announced cap, in currency."""
    utility: float
    """Its utility in the last round, in currency."""
    alpha: float
    """Its own model-value parameter, per unit of epsilon."""
    beta: float
    """Its own model-value parameter, in currency."""
    rounds_a_turn: int
    """Number of rounds in which as many moves are requested as there are nodes."""
    total: float = 0.0
    """Sum of the reports of the participants."""
    tau: float = 0.0
    """Sum of the unit costs implied by these reports: ``B (S - eps_j) / S**2`` each (15)."""
    n_active: int = 0
    """Number of nodes that take part."""
    n_averaged: float = 0.0
    """Number of nodes over which eps_g is averaged."""
    moved: float = 1.0
    """Relative change of S since the server's last reading; 1 while a node is leaving, and at the
    first reading."""


@dataclass(frozen=True, slots=True)
class ScalarServer:
    """A server rule as a scalar function, compiled for play.

    Numba compiles it, like `ScalarMoves`.
    """

    choose: Callable[..., float]
    """``choose(reading, parameters, memory)`` returns the next cap and updates the memory, a list
    of floats; bitwise equal to `next_budget`."""
    is_content: Callable[..., bool]
    """``is_content(parameters, memory)``; the same as `ServerRule.is_content`."""
    memory: tuple[str, ...] = ()
    """Names of the entries of the memory."""
    parameters: tuple[float, ...] = ()
    """Further arguments of ``choose``."""
    reads_reports: bool = False
    """Whether it decides by the reports, not only by its utility."""


@dataclass(frozen=True, slots=True)
class ServerObservation:
    """What the server observes when it announces: the last round, as it was reported."""

    budget: float
    """Its last announced cap, in currency."""
    epsilon: Floats
    """Reports that answered it, shape (n,)."""
    alpha: float
    """Its own model-value parameter, per unit of epsilon."""
    beta: float
    """Its own model-value parameter, in currency."""
    average_over: AverageOver
    """Nodes over which eps_g is averaged."""
    utility: float = 0.0
    """Its utility in the last round, in currency."""
    rounds_a_turn: int = 1
    """Number of rounds in which as many moves are requested as there are nodes: above one if only
    some nodes are asked per round, so that a calm round proves little."""
    memory: dict[str, Any] = field(default_factory=dict)
    """Memory of the server, by the names in :attr:`ServerRule.memory`."""
    terms: Terms | None = None
    """Costs and limits of the nodes; None in the game of the paper."""


class ServerRule(Protocol):
    """Turns what the server observes into the next payment cap, never negative."""

    memory: ClassVar[Mapping[str, Any]] = {}
    """Names of what the server remembers from round to round, with initial values."""
    searches: ClassVar[bool] = False
    """Whether it keeps trying caps until it is content, however long that takes."""
    sees_measured_value: ClassVar[bool] = False
    """Whether it uses the measured value of the training, if there is one, instead of alpha and
    beta."""

    def next_budget(self, seen: ServerObservation) -> float:
        """Choose the cap of this round, in currency."""
        ...

    def is_content(self, memory: Mapping[str, Any]) -> bool:
        """Return whether the server would keep its cap; until then nothing has converged."""
        del memory
        return True

    def has_given_up(self, memory: Mapping[str, Any]) -> bool:
        """Return whether a cap of zero is final; called only while the cap is zero."""
        del memory
        return True

    def scalar_server(self) -> ScalarServer | None:
        """Return the rule for compiled play, if it has such a form.

        The result holds for this class, but not for its subclasses.
        """
        return None


def scalar_server(rule: ServerRule) -> ScalarServer | None:
    """Return a server rule for compiled play, or None unless its own class defines it."""
    return rule.scalar_server() if "scalar_server" in vars(type(rule)) else None


def choose_by_form(form: ScalarServer, seen: Reading, memory: dict[str, Any]) -> float:
    """Return the next cap of a compiled form, outside compiled play."""
    kept = [memory[name] for name in form.memory]
    budget = form.choose(seen, form.parameters, kept)
    memory.update(zip(form.memory, kept, strict=True))
    return budget


class RetryingServer(ServerRule):
    """A server that reopens after it has given up, because a cap of zero teaches it nothing.

    It waits for 20 rounds, then for 40, and so on, and reopens as at the start. A subclass puts
    `retries` first into its memory, and calls `try_again` before anything else.
    """

    retries: ClassVar[Mapping[str, float]] = {
        "opening": 0.0,  # the first cap
        "pause": 0.0,  # rounds at a cap of zero
        "tries": 0.0,  # number of restarts
    }
    most_tries: ClassVar[int] = 3
    """Unsuccessful retries after which a market without other changes ends."""

    def has_given_up(self, memory: Mapping[str, Any]) -> bool:
        """Return whether the server has retried often enough."""
        return bool(memory["tries"] >= self.most_tries)


OPENING, PAUSE, TRIES = range(3)
"""Indices of `RetryingServer.retries` in the memory of a form."""
_FIRST_PAUSE = 20.0


def try_again(seen: Reading, memory: Any, fresh: tuple[float, ...]) -> float:
    """Return the next cap of a server whose cap is zero; negative if its cap is not zero.

    All memory except that of retries is then reset to ``fresh``.
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
