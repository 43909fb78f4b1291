"""A server that infers the nodes' costs from their reports and anticipates their answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from fcfn_abm.game import Terms, averaged_nodes, marginal_budget, search_best_cap, takes_part
from fcfn_abm.game.costs import marginal_cost
from fcfn_abm.learning.base import (
    SERVER_RULES,
    Floats,
    Reading,
    RetryingServer,
    ScalarServer,
    ServerObservation,
    choose_by_form,
    try_again,
)

_STEP, _AGE, _QUIET, _GAP = range(3, 7)  # places in the memory of the form, after the retries
_FRESH = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0)
_CLOSE = 1e-7  # relative
_STANDS = 1e-2  # relative: a report that moved less from one round to the next stands
_SAME = 1e-8  # relative: costs for which a cap is not searched again
_SEARCHED = 1e-6  # relative: caps that a search cannot tell apart
_ROUNDING = 1e-12
_SILENCE = 10  # rounds without any report, after which it is no transient
MINOR, FALLING = 1e-3, 0.99  # a report that may be on its way out: its share, and how it falls


@SERVER_RULES.register("anticipate")
class Anticipate(RetryingServer):
    """Read rho off the reports, and announce the cap that is best on that estimate.

    A node whose report is a best response has ``rho_j = B s_j / S**2`` (15); summed over the
    nodes that take part this gives tau, and with it B* (41). Who takes part does not depend on the
    cap, so nothing need be known of those who stay out. No rho is ever shown to the server.

    Under other costs, caps, a fixed cost or a reserve (41) does not stand. The server then infers
    each node's cost from the first-order condition under these terms, keeps what it knows of those
    who have left, and searches the cap that is best for the nodes it knows of.

    The server announces once the reports have settled. How well they must have settled depends on
    how near trade is to not paying at all: an error of S is an error of B* that is ``(1 + d) / d``
    times as large, relative to it, with ``1 + d = alpha beta kappa``.
    """

    memory: ClassVar[Mapping[str, Any]] = {
        **RetryingServer.retries,
        "last_reports": None,
        "step": _FRESH[_STEP],  # of the last announcement, relative
        "age": _FRESH[_AGE],  # rounds since then
        "quiet": _FRESH[_QUIET],  # of them in a row in which the reports had settled
        "gap": _FRESH[_GAP],  # between the cap and the best one on present estimates, relative
        "inferred_rho": None,  # under other terms: of each node, and whether it is a bound
        "searched": None,  # for which costs a cap was searched last, and which was best
    }

    settled: Annotated[float, Field(gt=0)] = 1e-3
    """The server speaks when S moves by less than this share of its last step, or still less near
    the border of no trade: before that, the reports show how nodes adapt, and not what privacy
    costs them."""
    longest_wait: Annotated[int, Field(ge=1)] = 100
    """Rounds after which it speaks in any case; more where few nodes are asked in a round."""
    largest_cut: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """The cap falls by no more than this share at once: no trade is not declared on one look."""

    def content(self, memory: Mapping[str, Any]) -> bool:
        """Return whether the cap is the best one on what the reports show."""
        return bool(memory["gap"] <= _CLOSE)

    def next_budget(self, seen: ServerObservation) -> float:
        """Announce the next cap (41)."""
        last = seen.memory["last_reports"]
        seen.memory["last_reports"] = seen.epsilon.copy() if seen.budget > 0 else None
        if seen.terms is not None:
            return self._search(seen.terms, seen, last)
        return choose_by_form(self._form, _read(seen, last), seen.memory)

    def _search(self, terms: Terms, seen: ServerObservation, last: Floats | None) -> float:
        """Announce the next cap under other terms, once the reports have settled."""
        memory, movement = seen.memory, _movement(seen.epsilon, last, float(seen.epsilon.sum()))
        reading = Reading(
            seen.budget, seen.utility, seen.alpha, seen.beta, seen.rounds_a_turn, moved=movement
        )
        kept = [memory[name] for name in self._form.memory]
        again = try_again(reading, kept, _FRESH)
        memory.update(zip(self._form.memory, kept, strict=True))
        if again >= 0.0:
            return again
        memory["age"] += 1.0
        silent = not seen.epsilon.any()
        if silent and memory["age"] < _SILENCE * seen.rounds_a_turn:
            return seen.budget
        if silent:
            memory["age"] = 0.0
            return seen.budget * (1.0 - self.largest_cut)
        enough = self.settled * min(1.0, memory["step"])
        memory["quiet"] = memory["quiet"] + 1.0 if movement <= max(enough, _ROUNDING) else 0.0
        if memory["age"] < self.longest_wait * seen.rounds_a_turn and (
            memory["age"] < 2.0 or memory["quiet"] < seen.rounds_a_turn
        ):
            return seen.budget
        best = _search_cap(terms, seen, _infer_costs(terms, seen, last))
        budget = max(best, seen.budget * (1.0 - self.largest_cut))
        memory["gap"] = abs(best / seen.budget - 1.0)
        if memory["gap"] <= _SEARCHED:  # the search is no finer than this
            memory["gap"], budget = 0.0, seen.budget
        memory["step"] = abs(budget / seen.budget - 1.0)
        memory["age"] = memory["quiet"] = 0.0
        return budget

    def scalar_server(self) -> ScalarServer:
        """Return the rule for compiled play."""
        return self._form

    @property
    def _form(self) -> ScalarServer:
        return ScalarServer(
            anticipate,
            is_gap_closed,
            (*self.retries, "step", "age", "quiet", "gap"),
            (self.settled, float(self.longest_wait), self.largest_cut),
            reads_reports=True,
        )


def anticipate(seen: Reading, parameters: tuple[float, float, float], memory: Any) -> float:
    """Return the next cap of a server that reads costs off the reports."""
    settled, longest_wait, largest_cut = parameters
    again = try_again(seen, memory, _FRESH)
    if again >= 0.0:
        return again
    memory[_AGE] += 1.0
    if seen.total == 0.0:
        if memory[_AGE] < _SILENCE * seen.rounds_a_turn:
            return seen.budget
        memory[_AGE] = 0.0
        return seen.budget * (1.0 - largest_cut)
    # one node alone is no contest, and gets nothing
    gain = marginal_budget(seen.tau, seen.n_active, seen.n_averaged, seen.alpha, seen.beta)
    best = max(0.0, gain)
    memory[_GAP] = abs(best / seen.budget - 1.0)
    # gain / beta is the best cap before it is cut off at zero, as a share: d / (1 + d)
    enough = settled * memory[_STEP] * min(1.0, abs(gain / seen.beta))
    memory[_QUIET] = memory[_QUIET] + 1.0 if seen.moved <= max(enough, _ROUNDING) else 0.0
    if memory[_AGE] < longest_wait * seen.rounds_a_turn and (
        memory[_AGE] < 2.0 or memory[_QUIET] < seen.rounds_a_turn
    ):
        return seen.budget  # the reports have yet to settle
    budget = max(best, seen.budget * (1.0 - largest_cut))
    memory[_STEP] = abs(budget / seen.budget - 1.0)
    memory[_AGE] = memory[_QUIET] = 0.0
    return budget


def _infer_costs(terms: Terms, seen: ServerObservation, last: Floats | None) -> Floats:
    """Return what each node's cost must be, by its last positive report that stood.

    Shape (n,); zero where there was none. A report that falls, of a node on its way out, reveals
    nothing but that. Who sells the most that it can reveals the
    largest cost that fits. As long as nothing else is known of a node, the server believes in half
    of that: with a lower cap it then sees more.
    """
    reports = np.where(takes_part(seen.epsilon), seen.epsilon, 0.0)
    rho, is_bound = seen.memory["inferred_rho"] or (np.zeros(reports.size), reports > np.inf)
    rho, is_bound = rho.copy(), is_bound.copy()
    others = reports.sum() - reports
    stood = np.abs(reports - (0.0 if last is None else last)) <= _STANDS * reports
    spoke = (reports > 0) & (others > 0) & stood
    revealed = marginal_cost(reports[spoke], others[spoke], seen.budget, terms)
    at_cap = reports[spoke] >= terms.caps(reports.size)[spoke]
    before = np.where(rho[spoke] > 0, rho[spoke], np.inf)
    is_bound[spoke] = at_cap & (is_bound[spoke] | (revealed < before))
    rho[spoke] = np.where(at_cap, np.minimum(before, revealed), revealed)
    seen.memory["inferred_rho"] = rho, is_bound
    return np.where(is_bound, rho / 2.0, rho)


def _search_cap(terms: Terms, seen: ServerObservation, rho: Floats) -> float:
    """Return the best cap for nodes with these costs, searched again if they changed."""
    searched = seen.memory["searched"]
    if searched and np.allclose(searched[0], rho, rtol=_SAME, atol=0.0):
        return float(searched[1])
    known, best = rho > 0, 0.0
    if np.count_nonzero(known) >= 2:
        own = terms.of(known)
        best = search_best_cap(rho[known], seen.alpha, seen.beta, own, seen.average_over).budget
    seen.memory["searched"] = rho, best
    return best


def is_gap_closed(parameters: tuple[float, float, float], memory: Any) -> bool:  # noqa: ARG001
    """Return whether the cap is the best one on what the reports show."""
    return memory[_GAP] <= _CLOSE  # type: ignore[no-any-return]


def _read(seen: ServerObservation, last: Floats | None) -> Reading:
    """Return what the reports show, which answered the last cap."""
    reports = seen.epsilon[takes_part(seen.epsilon)]
    total = float(reports.sum())
    rho = seen.budget * ((total - reports) / total) / total if total > 0 else reports
    return Reading(
        seen.budget,
        seen.utility,
        seen.alpha,
        seen.beta,
        seen.rounds_a_turn,
        total,
        float(rho.sum()),
        reports.size,
        averaged_nodes(seen.average_over, seen.epsilon),
        _movement(seen.epsilon, last, total),
    )


def _movement(epsilon: Floats, last: Floats | None, total: float) -> float:
    """Return how far S moved in a round, relative to it; 1 while a node is on its way out.

    Such a node counts among those that take part, and costs the others nothing, until its share
    does not matter.
    """
    if last is None or last.shape != epsilon.shape or total == 0:
        return 1.0
    minor = epsilon < MINOR * epsilon.max()
    if (takes_part(epsilon) & minor & (epsilon < FALLING * last)).any():
        return 1.0
    return abs(total - float(last.sum())) / total
