"""A market that plays several rounds in one compiled call, when nothing observes it in between."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, Self

import numpy as np

from fcfn_abm.abm import stretch
from fcfn_abm.abm.bulletin import Bulletin
from fcfn_abm.abm.collector import RoundCollector
from fcfn_abm.abm.columns import Floats
from fcfn_abm.abm.judged import JudgedGame
from fcfn_abm.abm.play_types import MOVED, PLAYED, Standing
from fcfn_abm.abm.round import Round
from fcfn_abm.abm.server import ParameterServer
from fcfn_abm.abm.state import MovingState, RoundState, expect_equilibrium
from fcfn_abm.abm.verdict import Verdict
from fcfn_abm.errors import as_number
from fcfn_abm.learning.base import Rows, scalar_server
from fcfn_abm.mechanisms import Contest

NOBODY = slice(0)
_methods_of = attrgetter(
    "step",
    "open_round",
    "close_round",
    "apply_events",
    "announce_budget",
    "set_budget",
    "update_population",
    "clear_exited_reports",
    "publish",
    "inform_newcomers",
    "draw_movers",
    "settle_round",
    "limit_budget",
    "limit_reports",
    "require_reports",
    "pay",
    "learn",
    "let_nodes_leave",
    "measure",
    "judge",
    "leader",
    "state",
    "pool",
    "round",
    "contest",
)
"""Returns the methods of a round; a class that overrides one of them plays rounds one by one."""


class PlaysAhead(JudgedGame):
    """A market whose rounds can be played by compiled loops, with bitwise equal results."""

    datacollector: RoundCollector
    bulletin: Bulletin
    answered_pool: float
    movers: Rows
    _reporters: dict[str, Any]
    """Model reporters of the data collector, unless a user adds one."""
    _before: tuple[Floats, float]
    _plan: tuple[int, Rows]
    """Number of rounds that the next step may play, and nodes whose traces it keeps."""
    _traces: Floats
    """Results of the last step."""

    def find_forms(self) -> stretch.Forms | None:
        """Return the rules in compiled form, or None if rounds must be played one by one."""
        rules, offer, collector = self._rules, self.offer, self.datacollector
        if not (
            stretch.pays(len(self.columns))
            and isinstance(offer, Contest)
            and offer.is_linear
            and rules.terms is None
            and self.churn is None
            and self.account is None
            and self.population.manipulation is None
            and not self.views.acting
            and type(self.server) is ParameterServer
            and self.server.factor == self.server.next_factor == 1
            and rules.information.noise == 0
            and rules.rounds.participation == 1
            and rules.game.average_over != "effective"
            and (rules.rounds.payment == "announced" or self.round_index > 0)
            and type(collector) is RoundCollector
            and collector.model_reporters == self._reporters
            and not (collector.agent_reporters or collector.agenttype_reporters)
        ):
            return None
        moves = stretch.forms_of(self.groups, self._n_active)
        server = scalar_server(self.server.rule)
        return stretch.Forms(moves, server) if moves and server else None

    def play_ahead(self, forms: stretch.Forms, most: int, played: Round, traced: Rows) -> Floats:
        """Play rounds compiled, starting with the current one; return the traces of some nodes.

        Parameters
        ----------
        forms : Forms
            The rules, from `find_forms`.
        most : int
            Largest number of rounds; an event or a verdict may end the stretch earlier.
        played : Round
            The first of these rounds, after its events.
        traced : slice or ndarray of int
            Nodes whose traces are kept.

        Returns
        -------
        ndarray of float, shape (n_rounds, 3, n_traced)
            Epsilon, payment and utility.
        """
        server, first, judge, offer = self.server, self.round_index, self._judge, self.offer
        if not isinstance(offer, Contest):
            raise TypeError("rounds with contracts are played one by one")
        most = max(1, min(most, judge.maximum - len(judge.distances)))
        most = self._calendar.count_quiet(first, most)
        moving = self._calendar.may_change(first)
        found = stretch.play(
            played,
            forms,
            self._rules.rounds,
            server.game,
            offer,
            self.contest.epsilon,
            self._largest_unit_epsilon,
            Standing(
                server.budget,
                self.state.server_utility if first > 1 else 0.0,  # announced from round 2 on
                self._n_active,
                judge.calm_rounds,
            ),
            server.memory,
            best_budget=self.best_budget if self._chooses_cap else None,
            patience=judge.patience,
            n_rounds=most,
            moving=moving,
            traced=traced,
        )
        self.round_index += found.n_rounds - 1
        self._take_over(forms, found)
        whole = found.status == PLAYED
        n_before = found.n_rounds - 1
        table = found.table if whole else found.table[:n_before]
        more = self._expect(table[:, stretch.BUDGET].tolist()) if self._calendar else {}
        self.datacollector.add_rounds(partial(stretch.list_rounds, table, first, **more), self.time)
        before, has_best = table[:n_before], self._chooses_cap and self.best_budget > 0
        judge.add_rounds(
            before[:, stretch.DISTANCE],
            before[:, stretch.CHANGE],
            before[:, stretch.BUDGET] == 0 if has_best else np.zeros(n_before, dtype=bool),
            calm_rounds=found.calm_rounds,
            moving=moving,
        )
        if len(table):
            last = stretch.last_round(table, first)
            self._state = RoundState(**last)
            if self._calendar:
                self._state = MovingState(**last, **{name: more[name][-1] for name in more})
        if whole:
            self.judge(found.budget_before)
        elif found.status == MOVED:
            self.settle_round()
            self.datacollector.collect(self)
        else:
            self.measure(found.before, found.budget_before)  # raises if something is out of range
        return found.traces

    @abstractmethod
    def settle_round(self) -> None:
        """Run the part of a round that follows the moves."""

    def _take_over(self, forms: stretch.Forms, found: stretch.Stretch) -> None:
        """Set server and market to the state at the end of a stretch."""
        server, columns = self.server, self.columns
        server.budget = found.budget
        server.memory.update(zip(forms.server.memory, found.server_memory.tolist(), strict=True))
        if "last_reports" in server.memory:
            after = self._rules.rounds.payment == "after-reports"
            seen = columns.epsilon if after and found.status != MOVED else found.before
            server.memory["last_reports"] = seen.copy() if found.looked else None
        if found.status == PLAYED:
            server.paid = found.table[-1, stretch.PAYMENT].item()
            self.bulletin.total = found.table[-1, stretch.TOTAL].item()
        self.answered_pool = found.answered_pool
        self.movers = slice(None)
        self._before = (found.before, found.budget_before)

    def _expect(self, budgets: list[float]) -> dict[str, list[Any]]:
        """Return the equilibrium reports under some caps, if events change the game."""
        game, contest, n_rounds = self._rules.game, self.contest, len(budgets)
        fixed = self.offer.pool if isinstance(self.offer, Contest) else None
        best, n_active = expect_equilibrium(contest, game)
        return {
            "equilibrium_budget": [best] * n_rounds,
            "equilibrium_n_active": [n_active] * n_rounds,
            "equilibrium_total_epsilon": [
                (budget if fixed is None else fixed) * contest.total_epsilon for budget in budgets
            ],
        }

    def run_until(
        self,
        end_time: float | None = None,
        on_round: Callable[[Self], None] | None = None,
    ) -> Verdict | None:
        """Play until there is a verdict, or until a round is reached.

        Parameters
        ----------
        end_time : float, optional
            Last round to play. By default the scenario's maximum.
        on_round : callable, optional
            Called with the market after each round, for progress and for records.

        Returns
        -------
        Verdict or None
            How the market ended; None if ``end_time`` was reached first.
        """
        last = math.inf if end_time is None else as_number("end_time", end_time)
        while self.running and self.round_index < last:
            left = min(last - self.round_index, self._rules.rounds.maximum)
            self._step_ahead(1 if on_round else math.ceil(left), NOBODY)
            if on_round:
                on_round(self)
        return self.verdict

    def step_ahead(self, most: int, traced: Rows = NOBODY) -> stretch.Passed:
        """Play one round, or several if one compiled call can play them.

        Parameters
        ----------
        most : int
            Largest number of rounds.
        traced : slice or ndarray of int, default nobody
            Nodes whose epsilon, payment and utility are returned for each round.

        Returns
        -------
        Passed
            Results of these rounds.
        """
        if (n_rounds := self._step_ahead(most, traced)) == 1:
            rounds = {name: [value] for name, value in vars(self.state).items()}
        else:
            collected = self.datacollector.model_vars
            rounds = {name: values[-n_rounds:] for name, values in collected.items()}
        return stretch.Passed(rounds, self._traces)

    def _step_ahead(self, most: int, traced: Rows) -> int:
        """Play rounds as in `step_ahead`; return their number."""
        first = self.round_index
        self._plan = most, traced
        self.step()
        n_rounds = self.round_index - first
        self.time += n_rounds - 1  # Mesa's clock has advanced by one
        return n_rounds

    @property
    def _is_unwatched(self) -> bool:
        """Whether only the market itself uses Mesa's clock."""
        scheduled = getattr(self, "_event_list", (None,))
        return not (len(scheduled) or any(self.subscribers.values()))


def plays_like(kind: Any, base: Any) -> bool:
    """Return whether a class of markets plays its rounds with the methods of another."""
    return _methods_of(kind) == _methods_of(base)
