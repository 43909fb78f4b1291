"""How a round ends: it is measured, and judged."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from fcfn_abm.abm.changes import ChangingGame
from fcfn_abm.abm.columns import Floats
from fcfn_abm.abm.state import RoundState, measure_round, ratio
from fcfn_abm.abm.verdict import Leader
from fcfn_abm.game import averaged_nodes, best_linear_budget, server_regret, server_utility
from fcfn_abm.mechanisms import Contracts


class JudgedGame(ChangingGame):
    """The game of a market, and whether its play is over."""

    total_epsilon: float
    _state: RoundState | None
    _n_active: int

    @property
    def state(self) -> RoundState:
        """What was measured of the last round; before the first, of the first reports."""
        if self._state is None:
            self._state = self._measure_round(self.columns.epsilon)
        return self._state

    def measure(self, epsilon_before: Floats, budget_before: float) -> None:
        """Work out the state of this round, and whether the market is over."""
        self._state = self._measure_round(epsilon_before)
        self.judge(budget_before)

    def judge(self, budget_before: float) -> None:
        """Work out whether the market is over, once its round has been measured."""
        state = self.state
        self.total_epsilon, self._n_active = state.total_epsilon, state.n_active
        self.verdict = self._judge.see(
            exploitability=state.exploitability,
            change=state.change,
            budget_change=ratio(abs(self.server.budget - budget_before), budget_before),
            distance=state.distance,
            content=self.server.is_content,
            exploring=self._explores,
            searching=self.server.is_searching,
            leader=self.leader,
            n_active=self._n_active,
            at_rest_without_trade=self._no_trade(),
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
        return measure_round(
            paid,
            epsilon_before,
            self.server,
            contest,
            self.churn,
            moving=bool(self._calendar),
            solved=solved,
            best_cap=self.best_budget if solved else 0.0,
        )

    @property
    def leader(self) -> Leader:
        """Where the server stands: its cap, the best one, and what it would gain by that."""
        if self._rules.terms is not None:
            return self._searched_leader
        game, (best, unit_mean) = self._rules.game, self._best_cap
        regret = server_regret(self.server.budget, best, game.alpha, game.beta, unit_mean)
        return Leader(self.server.budget, best, regret, judged=self._chooses_cap)

    @property
    def _searched_leader(self) -> Leader:
        """Where the server stands under other terms: both caps with the nodes at equilibrium."""
        game, budget, found = self._rules.game, self.server.budget, self._primitives.search
        epsilon = self.solve_contest(budget).epsilon
        n_averaged = averaged_nodes(game.average_over, epsilon)
        mean = float(epsilon.sum()) / n_averaged if n_averaged else 0.0
        left = server_utility(mean, game.alpha, game.beta, budget if n_averaged else 0.0)
        regret = max(0.0, found.server_utility - left)
        return Leader(budget, found.budget, regret, "(searched)", self._chooses_cap)

    @property
    def best_budget(self) -> float:
        """B* of the nodes that are there (41), in currency; zero where no trade pays.

        Under other terms than the paper's it is searched.
        """
        if self._rules.terms is not None:
            return self._primitives.search.budget
        return self._best_cap[0]

    @cached_property
    def _best_cap(self) -> tuple[float, float]:
        """B*, and the mean epsilon at equilibrium per unit of the cap.

        Nodes whose share would not matter do not count, as in play: with a cost at the threshold to
        the last digit, rounding would decide whether the server averages over one node more.
        """
        game, contest = self._rules.game, self.contest
        n_averaged = averaged_nodes(game.average_over, contest.epsilon)
        unit_mean = contest.total_epsilon / n_averaged if n_averaged else 0.0
        return best_linear_budget(unit_mean, game.alpha, game.beta), unit_mean

    @property
    def _explores(self) -> bool:
        """Whether nodes that are there try reports at random."""
        for group in self.groups:
            rows = group.among(self.present)
            kept = {name: values[rows] for name, values in group.memory.items()}
            if group.rule.explores and group.rule.still_tries(kept):
                return True
        return False

    @cached_property
    def _chooses_cap(self) -> bool:
        """Whether the server chooses the cap, and nothing but its own choice keeps it from B*."""
        chooses = self._rules.cap is None and self.offer.learns_cap
        return chooses and not self.population.misreports.any()

    def _name_changing(self) -> str:
        """Return what still changes from outside of the market: empty if nothing does."""
        if self.churn and self.churn.moving(self.round_index):
            return "the population"
        return "the game" if self._calendar.may_change(self.round_index) else ""

    def _no_trade(self) -> str:
        """Return why nobody trades, where nobody does and nobody will."""
        moving = self._name_changing()
        if self._calendar.may_change(self.round_index + 1):
            return ""
        if self.churn and self.churn.deserted(self.round_index):
            return "fewer than two nodes are left, and none will come."
        if self.total_epsilon > 0:
            return ""
        if self._rules.cap == 0:
            return "the payment cap of the scenario is zero."
        if self.server.budget == 0 and not moving:
            best, by = self.leader.best_budget, self.leader.found_by
            if best == 0:
                by = "(45)" if by == "(41)" else by
                return f"no payment cap pays the server: B* = 0 {by}."
            if self.server.has_given_up:
                return (
                    "the server has given up, and its cap is zero, though a cap would pay: "
                    f"B* = {best:.6g} {by}."
                )
        if isinstance(self.offer, Contracts) and not self.offer.epsilon.any():
            return f"the mechanism offers nothing: {self.outcome.reason}"
        return ""
