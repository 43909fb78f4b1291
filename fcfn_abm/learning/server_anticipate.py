"""A server that infers the nodes' costs from their reports and anticipates their response."""

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

_STEP, _AGE, _QUIET, _GAP = range(3, 7)  # indices in the memory of the form, after the retries
_FRESH = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0)
_CLOSE = 1e-7  # relative
_STANDS = 1e-2  # relative: a report that moved less in a round counts as settled
_SAME = 1e-8  # relative: cost changes without a new search
_SEARCHED = 1e-6  # relative: accuracy of a search
_ROUNDING = 1e-12
_SILENCE = 10  # rounds without any report that rule out a transient
MINOR, FALLING = 1e-3, 0.99  # a report that may be vanishing: its share, and its rate of decline


@SERVER_RULES.register("anticipate")
class Anticipate(RetryingServer):
    """Infer rho from the reports, and announce the best cap for that estimate.

    A node whose report is a best response has ``rho_j = B s_j / S**2`` (15); the sum over the
    participants gives tau, and with it B* (41). The active set does not depend on the cap, so that
    nothing about the other nodes is needed. The server never observes rho.

    Under other costs, caps, a fixed cost or a reserve (41) does not apply. The server then infers
    each node's cost from the first-order condition under these terms, remembers the costs of nodes
    that have left, and searches for the best cap for the nodes that it knows.

    The server announces a new cap once the reports have settled. The required precision depends on
    how close trade is to not paying at all: a relative error of S is a relative error of B* that is
    ``(1 + d) / d`` times as large, with ``1 + d = alpha beta kappa``.
    """

    memory: ClassVar[Mapping[str, Any]] = {
        **RetryingServer.retries,
        "last_reports": None,
        "step": _FRESH[_STEP],  # relative step of the last announcement
        "age": _FRESH[_AGE],  # rounds since then
        "quiet": _FRESH[_QUIET],  # consecutive rounds in which the reports had settled
        "gap": _FRESH[_GAP],  # relative gap between the cap and the best one on current estimates
        "inferred_rho": None,  # under other terms: each node's cost, and whether it is a bound
        "searched": None,  # costs of the last search, and the cap that it found
    }

    settled: Annotated[float, Field(gt=0)] = 1e-3
    """The server announces a new cap when S changes by less than this share of its last step, or by
    less still near the border of no trade; before that, the reports reflect how nodes adapt, not
    their privacy costs."""
    longest_wait: Annotated[int, Field(ge=1)] = 100
    """Largest number of rounds between announcements; more if few nodes are asked per round."""
    largest_cut: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Largest relative fall of the cap at once, so that one reading does not end trade."""

    def is_content(self, memory: Mapping[str, Any]) -> bool:
        """Return whether the cap is the best one according to the reports."""
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
        if memory["gap"] <= _SEARCHED:  # the accuracy of the search
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
    """Return the next cap of a server that infers costs from the reports."""
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
    # a single node is no contest, and is paid nothing
    gain = marginal_budget(seen.tau, seen.n_active, seen.n_averaged, seen.alpha, seen.beta)
    best = max(0.0, gain)
    memory[_GAP] = abs(best / seen.budget - 1.0)
    # gain / beta is the unclipped best cap as a share of beta: d / (1 + d)
    enough = settled * memory[_STEP] * min(1.0, abs(gain / seen.beta))
    memory[_QUIET] = memory[_QUIET] + 1.0 if seen.moved <= max(enough, _ROUNDING) else 0.0
    if memory[_AGE] < longest_wait * seen.rounds_a_turn and (
        memory[_AGE] < 2.0 or memory[_QUIET] < seen.rounds_a_turn
    ):
        return seen.budget  # the reports have not settled yet
    budget = max(best, seen.budget * (1.0 - largest_cut))
    memory[_STEP] = abs(budget / seen.budget - 1.0)
    memory[_AGE] = memory[_QUIET] = 0.0
    return budget


def _infer_costs(terms: Terms, seen: ServerObservation, last: Floats | None) -> Floats:
    """Return the cost of each node that its last settled positive report implies.

    Shape (n,); zero if there was none. A falling report of a node that is leaving reveals nothing
    else. A node at its cap reveals the largest cost that is consistent with it. As long as nothing
    else is known of such a node, the server assumes half of that cost: at a lower cap it then
    learns more.
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
    """Return the best cap for nodes with these costs; searches again only if they changed."""
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
    """Return whether the cap is the best one according to the reports."""
    return memory[_GAP] <= _CLOSE  # type: ignore[no-any-return]


def _read(seen: ServerObservation, last: Floats | None) -> Reading:
    """Return a summary of the reports that answered the last cap."""
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
    """Return the relative change of S in a round; 1 while a node is leaving.

    Such a node counts as a participant, and has no effect on the others, until its share is
    negligible.
    """
    if last is None or last.shape != epsilon.shape or total == 0:
        return 1.0
    minor = epsilon < MINOR * epsilon.max()
    if (takes_part(epsilon) & minor & (epsilon < FALLING * last)).any():
        return 1.0
    return abs(total - float(last.sum())) / total
