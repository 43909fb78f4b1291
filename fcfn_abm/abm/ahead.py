"""A market that plays several rounds in one call, where nothing looks in between."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import mesa

from fcfn_abm.abm import stretch
from fcfn_abm.abm.bulletin import Bulletin
from fcfn_abm.abm.columns import Floats
from fcfn_abm.abm.judged import JudgedGame
from fcfn_abm.abm.round import Round
from fcfn_abm.abm.server import ParameterServer
from fcfn_abm.abm.state import MovingState, RoundState, expect_equilibrium
from fcfn_abm.abm.stretch import Standing
from fcfn_abm.learning.base import Rows, scalar_server
from fcfn_abm.mechanisms import Contest


class PlaysAhead(JudgedGame):
    """A market whose rounds can be played compiled, with the same digits."""

    datacollector: mesa.DataCollector
    bulletin: Bulletin
    answered_pool: float
    movers: Rows
    _reporters: dict[str, Any]
    """What its data collector reports, unless somebody adds to it."""
    _before: tuple[Floats, float]

    def find_forms(self) -> stretch.Forms | None:
        """Return the rules in compiled form, or None where rounds are played one by one."""
        rules, offer, collector = self._rules, self.offer, self.datacollector
        if not (
            stretch.pays(len(self.columns))
            and isinstance(offer, Contest)
            and offer.is_linear
            and self.churn is None
            and not self.views.acting
            and type(self.server) is ParameterServer
            and rules.information.noise == 0
            and rules.rounds.participation == 1
            and rules.game.average_over != "effective"
            and (rules.rounds.payment == "announced" or self.round_index > 0)
            and type(collector) is mesa.DataCollector
            and collector.model_reporters == self._reporters
            and not (collector.agent_reporters or collector.agenttype_reporters)
        ):
            return None
        moves = stretch.forms_of(self.groups, self._n_active)
        server = scalar_server(self.server.rule)
        return stretch.Forms(moves, server) if moves and server else None

    def play_ahead(self, forms: stretch.Forms, most: int, played: Round, traced: Rows) -> Floats:
        """Play rounds compiled, from the present one on; return the traces of some nodes.

        Parameters
        ----------
        forms : Forms
            The rules, from `find_forms`.
        most : int
            Rounds to play at most; the next event, or a verdict, may come first.
        played : Round
            The first of them, whose events have happened.
        traced : slice or ndarray of int
            Whose traces are kept.

        Returns
        -------
        ndarray of float, shape (n_rounds, 3, n_traced)
            Epsilon, payment and utility.
        """
        server, first, judge, offer = self.server, self.round_index, self._judge, self.offer
        if not isinstance(offer, Contest):
            raise TypeError("rounds of contracts are played one by one")
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
                self.state.server_utility if first > 1 else 0.0,  # it announces from round 2 on
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
        whole = found.status == stretch.PLAYED
        columns = found.columns(first, found.n_rounds if whole else found.n_rounds - 1)
        if self._calendar:
            columns |= self._expect(columns["budget"])
        for name, values in columns.items():
            self.datacollector.model_vars[name] += values
        times = getattr(self.datacollector, "_collection_steps", [])  # which Mesa's batch_run reads
        now = self.time
        times += [now + place for place in range(len(columns["round"]))]
        has_best = self._chooses_cap and self.best_budget > 0
        before = slice(found.n_rounds - 1)
        judge.take_in(
            columns["distance"][before],
            columns["change"][before],
            [has_best and budget == 0 for budget in columns["budget"][before]],
            calm_rounds=found.calm_rounds,
            moving=moving,
        )
        if columns["round"]:
            last = {name: values[-1] for name, values in columns.items()}
            self._state = MovingState(**last) if self._calendar else RoundState(**last)
        if whole:
            self.judge(found.budget_before)
        elif found.status == stretch.MOVED:
            self.settle_round()
            self.datacollector.collect(self)
        else:
            self.measure(found.before, found.budget_before)  # which says what is out of range
        return found.traces

    @abstractmethod
    def settle_round(self) -> None:
        """Do what comes after the moves of a round."""

    def _take_over(self, forms: stretch.Forms, found: stretch.Stretch) -> None:
        """Let server and market stand where a stretch has ended."""
        server, columns = self.server, self.columns
        server.budget = found.budget
        server.memory.update(zip(forms.server.memory, found.server_memory.tolist(), strict=True))
        if "last_reports" in server.memory:
            after = self._rules.rounds.payment == "after-reports"
            seen = columns.epsilon if after and found.status != stretch.MOVED else found.before
            server.memory["last_reports"] = seen.copy() if found.looked else None
        if found.status == stretch.PLAYED:
            server.paid = found.table[-1, stretch.PAYMENT].item()
            self.bulletin.total = found.table[-1, stretch.TOTAL].item()
        self.answered_pool = found.answered_pool
        self.movers = slice(None)
        self._before = (found.before, found.budget_before)

    def _expect(self, budgets: list[float]) -> dict[str, list[float]]:
        """Return where the nodes should be under some caps, where events change the game."""
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
