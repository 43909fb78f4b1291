"""The end of a round: measurement and verdict."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from fcfn_abm.abm.changes import ChangingGame
from fcfn_abm.abm.columns import Floats
from fcfn_abm.abm.server import NOTHING
from fcfn_abm.abm.state import RoundState, Spending, measure_round, ratio
from fcfn_abm.abm.verdict import Leader
from fcfn_abm.game import (
    Equilibrium,
    averaged_nodes,
    best_linear_budget,
    server_regret,
    server_utility,
)
from fcfn_abm.mechanisms import Contracts
from fcfn_abm.population.manipulation import split_reports


class JudgedGame(ChangingGame):
    """The game of a market, with measurements and the verdict."""

    total_epsilon: float
    _state: RoundState | None
    _n_active: int

    @property
    def state(self) -> RoundState:
        """State measured after the last round; before the first round, of the first reports."""
        if self._state is None:
            self._state = self._measure_round(self.columns.epsilon)
        return self._state

    def measure(self, epsilon_before: Floats, budget_before: float) -> None:
        """Compute the state of this round, and whether the market has ended."""
        self._state = self._measure_round(epsilon_before)
        self.judge(budget_before)

    def judge(self, budget_before: float) -> None:
        """Determine whether the market has ended, from the state of this round."""
        state = self.state
        self.total_epsilon, self._n_active = state.total_epsilon, state.n_active
        self.verdict = self._judge.add_round(
            exploitability=state.exploitability,
            change=state.change,
            budget_change=ratio(abs(self.server.budget - budget_before), budget_before),
            distance=state.distance,
            content=self.server.is_content,
            exploring=self._explores,
            searching=self.server.is_searching,
            leader=self.leader,
            n_active=self._n_active,
            at_rest_without_trade=self._describe_no_trade(),
            stopped=self._describe_stop(),
            moving=self._name_changing(),
        )
        self.running = self.verdict is None

    def _measure_round(self, epsilon_before: Floats) -> RoundState:
        paid = replace(self.round, pool=self.pool)
        contest, solved = None, None
        if not isinstance(self.offer, Contracts):
            if self._rules.terms is None:
                contest = self.contest
            else:
                solved = self.solve_contest(self.pool)
        spending = None
        if self.account and self.account.limits_money:
            spending = Spending(self.account.money_spent, self.account.money_left)
        return measure_round(
            paid,
            epsilon_before,
            self.server,
            contest,
            self.churn,
            moving=bool(self._calendar or self.account),
            spending=spending,
            identities=self.identities,
            solved=solved,
            best_cap=self.best_budget if solved else 0.0,
        )

    @property
    def leader(self) -> Leader:
        """State of the server: its cap, the best cap, and what it would gain with that."""
        if self._rules.terms is not None:
            return self._searched_leader
        game, (best, unit_mean) = self._rules.game, self._best_cap
        regret = server_regret(self.server.budget, best, game.alpha, game.beta, unit_mean)
        return Leader(self.server.budget, best, regret, judged=self._chooses_cap)

    @property
    def _searched_leader(self) -> Leader:
        """State of the server under other terms: both caps with the nodes at equilibrium."""
        game, budget, found = self._rules.game, self.server.budget, self._primitives.search
        epsilon = self.solve_contest(budget).epsilon
        n_averaged = averaged_nodes(game.average_over, epsilon)
        mean = float(epsilon.sum()) / n_averaged if n_averaged else 0.0
        left = server_utility(mean, game.alpha, game.beta, budget if n_averaged else 0.0)
        regret = max(0.0, found.server_utility - left)
        return Leader(budget, found.budget, regret, searched=True, judged=self._chooses_cap)

    @property
    def best_budget(self) -> float:
        """B* for the nodes in the market (41), in currency; zero if no trade pays.

        Under terms other than the paper's it is found by a numerical search.
        """
        if self._rules.terms is not None:
            return self._primitives.search.budget
        return self._best_cap[0]

    @cached_property
    def _best_cap(self) -> tuple[float, float]:
        """B*, and the mean epsilon at equilibrium per unit of the cap.

        As in play, nodes with a negligible share do not count: for a cost exactly at the threshold,
        rounding would decide whether the server averages over one more node.
        """
        return self._find_best_cap(self.contest)

    def _find_best_cap(self, contest: Equilibrium) -> tuple[float, float]:
        game = self._rules.game
        reports = split_reports(contest.epsilon, self.identities)
        n_averaged = averaged_nodes(game.average_over, reports)
        unit_mean = contest.total_epsilon / n_averaged if n_averaged else 0.0
        return best_linear_budget(unit_mean, game.alpha, game.beta), unit_mean

    @property
    def _explores(self) -> bool:
        """Whether nodes in the market explore at random."""
        for group in self.groups:
            if group.rule.explores:
                rows = group.among(self.present)
                if group.rule.still_tries({n: values[rows] for n, values in group.memory.items()}):
                    return True
        return False

    @cached_property
    def _chooses_cap(self) -> bool:
        """Whether the server chooses the cap, and nothing else keeps it from B*."""
        chooses = self._rules.cap is None and self.offer.learns_cap
        return chooses and not self.population.misreports.any()

    def _name_changing(self) -> str:
        """Return what still changes besides the moves; empty if nothing does."""
        outside = self._name_changing_outside()
        return outside or ("what is left to pay and to sell" if self.account else "")

    def _name_changing_outside(self) -> str:
        """Return what is still changed from outside the market; empty if nothing is."""
        if self.churn and self.churn.changes_in(self.round_index):
            return "the population"
        return "the game" if self._calendar.may_change(self.round_index) else ""

    def _describe_stop(self) -> str:
        """Return why no further round is bought, if limits over all rounds ended the market."""
        account = self.account
        if account is None:
            return ""
        if account.money_left <= NOTHING * self._rules.game.beta:
            return f"the money, {account.money_spent:.6g}, is spent."
        n_sellers = np.count_nonzero(~account.sold_out)
        if self.churn is None and n_sellers < 2:
            return "all nodes, or all but one, have sold their total of epsilon."
        if self._calendar.may_change(self.round_index + 1) or (
            self.churn and self.churn.changes_in(self.round_index + 1)
        ):
            return ""
        best = self.best_budget
        if account.sold_out.any():  # some may have sold out in this round
            rows = np.flatnonzero(~account.sold_out)
            left = replace(self._primitives, rho=self.columns.rho[rows])
            best, _ = self._find_best_cap(self._solve_contest(left, rows))
        if best > 0:
            return ""
        return (
            "a further round does not pay: under no cap is the server's utility above zero, with "
            f"the {n_sellers} nodes that can still sell."
        )

    def _describe_no_trade(self) -> str:
        """Return why nobody trades, if nobody does and nobody will."""
        moving = self._name_changing_outside()
        if self._calendar.may_change(self.round_index + 1):
            return ""
        if self.churn and self.churn.is_deserted(self.round_index):
            return "fewer than two nodes are left, and none will come."
        if self.total_epsilon > 0:
            return ""
        if self._rules.cap == 0:
            return "the payment cap of the scenario is zero."
        if self.server.budget == 0 and not moving:
            best, source = self.leader.best_budget, self.leader.source
            if best == 0:
                return f"no payment cap pays off for the server: B* = 0 {source}."
            if self.server.has_given_up:
                return (
                    "the server has given up, and its cap is zero, though a cap would pay: "
                    f"B* = {best:.6g} {source}."
                )
        if isinstance(self.offer, Contracts) and not self.offer.epsilon.any():
            return f"the mechanism offers nothing: {self.outcome.reason}"
        return ""
