"""The game that a market plays, its closed form, and how both change during the market."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.account import Account
from fcfn_abm.abm.churn import Turnover
from fcfn_abm.abm.columns import Floats
from fcfn_abm.abm.events import Calendar
from fcfn_abm.abm.round import RowModel
from fcfn_abm.abm.rules import MarketRules
from fcfn_abm.abm.scores import unit_equilibrium
from fcfn_abm.abm.server import ParameterServer
from fcfn_abm.abm.verdict import Judge, Verdict
from fcfn_abm.errors import InvalidGameError, abbreviate, as_floats, as_number, join_lines
from fcfn_abm.game import (
    ContestEquilibrium,
    Equilibrium,
    StackelbergEquilibrium,
    Terms,
    contest_equilibrium,
)
from fcfn_abm.game.contest import find_equilibrium
from fcfn_abm.learning.base import Rows
from fcfn_abm.mechanisms import Contest, Contracts, Mechanism, Offer, Outcome, PricingGame
from fcfn_abm.population import Population, draw_misreport_factors, require_sized
from fcfn_abm.population.manipulation import Counts, Places, split_reports
from fcfn_abm.rng import Chance, stream


class ChangingGame(RowModel):
    """The game of a market: primitives, closed form, and changes to them."""

    seed: int
    population: Population
    server: ParameterServer
    offer: Offer
    churn: Turnover | None
    account: Account | None
    round_index: int
    verdict: Verdict | None
    _rules: MarketRules
    _mechanism: Mechanism
    _primitives: PricingGame
    _calendar: Calendar
    _judge: Judge
    _solved: tuple[float, ContestEquilibrium] | None = None
    """The pool that nodes share, and the last equilibrium found for it."""

    @property
    def present(self) -> Rows:
        """Rows of the nodes in the market: all, unless there is churn or nodes sell out."""
        if self.churn:
            return self.churn.present
        if self._speakers is not None:
            return self._speakers
        return self.account.sellers if self.account else slice(None)

    @cached_property
    def _speakers(self) -> Places | None:
        """Rows of the nodes that report in a contest; None if all do."""
        manipulation = self.population.manipulation
        if manipulation is None or isinstance(self.offer, Contracts):
            return None  # nodes without a report get empty contracts
        return np.flatnonzero(~manipulation.silent) if manipulation.silent.any() else None

    @property
    def reports_seen(self) -> Floats:
        """Reports as the server sees them: one per identity, of the nodes in the market."""
        return split_reports(self.columns.epsilon[self.present], self.identities)

    @property
    def identities(self) -> Counts | None:
        """Number of identities of each node in the market; None if each has one."""
        manipulation = self.population.manipulation
        return None if manipulation is None else manipulation.identities[self.present]

    @property
    def primitives(self) -> PricingGame:
        """What the mechanism knows: costs of the nodes in the market, and the server's side."""
        return self._primitives

    @cached_property
    def equilibrium(self) -> StackelbergEquilibrium:
        """The leader-follower equilibrium of the nodes in the market, in closed form."""
        return self._primitives.stackelberg

    @cached_property
    def outcome(self) -> Outcome:
        """The mechanism's outcome at the scenario's cap, without play, for the same nodes."""
        chance = stream(self.seed, "mechanism", self._rules.mechanism)
        return self._mechanism.outcome(self._primitives, chance)

    @cached_property
    def contest(self) -> Equilibrium:
        """The nodes' equilibrium at B = 1, in closed form; it is proportional to B.

        Under other terms than the paper's it is not: see :meth:`solve_contest`.
        """
        game = self._primitives
        if self._speakers is not None:
            game = replace(game, rho=game.rho[self._speakers])
        return self._solve_contest(game, self.present)

    def _solve_contest(self, game: PricingGame, rows: Rows) -> Equilibrium:
        """Return the equilibrium at B = 1 of the nodes in some rows."""
        offer = Contest() if isinstance(self.offer, Contracts) else self.offer
        if offer.is_linear:  # the active set is found once, also for later use
            return game.answer_to(np.ones(()))
        return unit_equilibrium(offer.among(rows), game.rho)

    def solve_contest(self, pool: float) -> ContestEquilibrium:
        """Return the nodes' equilibrium for a pool, under terms other than the paper's.

        With a fixed cost or a reserve, for a cap that keeps changing, the first one that is found.
        """
        if self._solved is None or self._solved[0] != pool:
            terms = self._rules.terms or Terms()
            stands = self._rules.cap is not None or not self.offer.learns_cap
            if pool > 0 and not stands:
                found = find_equilibrium(self._primitives.rho, pool, terms)
            else:
                found = contest_equilibrium(self._primitives.rho, pool, terms)
            self._solved = pool, found
        return self._solved[1]

    @cached_property
    def _largest_unit_epsilon(self) -> float:
        """The largest epsilon of :attr:`contest`."""
        return float(self.contest.epsilon.max(initial=0.0))

    def update_population(self) -> None:
        """Apply churn and cost drift, if the scenario has any."""
        if self.account and self.account.open_round():
            self._renew()
        if self.churn and self.churn.update(self.round_index):
            self._renew()
            self.views.make_acting(self.churn.arrived)

    def apply_events(self) -> None:
        """Apply the events of this round."""
        for index, event in self._calendar.list_due(self.round_index):
            if event.change == "rho":
                rows = self.rows_of(event.group)
                scale, value = event.scale or 1.0, event.value
                self.set_rho(rows, self.columns.rho[rows] * scale if value is None else value)
            elif event.change == "misreport":
                chance = stream(self.seed, "event-misreports", self.round_index, index)
                self._set_misreports(event.group, event.value or 0.0, chance)
            else:
                old = (
                    self.server.budget
                    if event.change == "budget"
                    else getattr(self._rules.game, event.change)
                )
                new = old * (event.scale or 1.0) if event.value is None else event.value
                self.set_game(**{event.change: new})

    def rows_of(self, group: str | None) -> slice:
        """Return the rows of a group, or of all nodes."""
        if group is None:
            return slice(None)
        return next((g.rows for g in self.groups if g.name == group), slice(0))

    def set_rho(self, rows: Any, values: npt.ArrayLike) -> None:
        """Set unit privacy costs during the market; the closed form is updated.

        Parameters
        ----------
        rows : slice, int, or array_like of int or bool
            Rows of the nodes.
        values : array_like of float
            Currency per unit of reported epsilon: one value for all, or one per node.

        Raises
        ------
        InvalidGameError
            If there is no such row, if a cost is not positive or is out of range, or if the
            mechanism made its offer for the initial costs.
        """
        self._require_contest()
        rho = self.columns.rho.copy()
        if not isinstance(rows, slice):
            rows = self._as_rows(rows)
        try:
            rho[rows] = as_floats("values", values)
        except (IndexError, TypeError, ValueError) as error:
            raise InvalidGameError(f"invalid costs: {join_lines(str(error))}.") from None
        require_sized(rho=rho)
        if self.churn:
            self.churn.set_rho(rows, rho[rows])
        self.columns.rho = rho
        self._replace_population(rho * self.population.misreport_factor, None)

    def _as_rows(self, rows: Any) -> npt.NDArray[Any]:
        """Convert rows given by a user to an index: row numbers, or a mask of all nodes."""
        try:
            index = np.asarray(rows)
        except ValueError:  # lists of different lengths
            index = np.asarray(None)
        index = index if index.size else index.astype(int)
        is_mask = index.dtype == bool and index.shape == self.columns.rho.shape
        if not (is_mask or (index.dtype.kind in "iu" and index.ndim < 2)):
            raise InvalidGameError(
                f"rows must be row numbers or a mask of all nodes, not {abbreviate(rows)}."
            )
        return index

    def set_game(
        self,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        budget: float | None = None,
    ) -> None:
        """Set parameters of the server during the market; the closed form is updated.

        Parameters
        ----------
        alpha, beta : float, optional
            Model-value parameters.
        budget : float, optional
            Payment cap of the next rounds, in currency, if the scenario fixes it.

        Raises
        ------
        InvalidGameError
            If a number is out of range, if the server chooses its cap itself, or if the mechanism
            made its offer for the initial game. In a contest whose cap the server announces round
            by round, the offer does not depend on alpha and beta.
        """
        if budget is not None or not self.offer.learns_cap:
            self._require_contest()
        given = {"alpha": alpha, "beta": beta, "budget": budget}
        changed = {n: as_number(n, value) for n, value in given.items() if value is not None}
        require_sized(**{name: value for name, value in changed.items() if name != "budget"})
        if budget is not None:
            if self._rules.cap is None:
                raise InvalidGameError("the cap cannot be set: the server chooses it itself.")
            if changed["budget"] != 0:
                require_sized(budget=changed["budget"])
            self.server.budget, self.server.factor = changed["budget"], 1.0
        game = self._rules.game.model_copy(update=changed)
        cap = changed.get("budget", self._rules.cap)
        self._rules = replace(self._rules, game=game, cap=cap)
        self.server.game = game
        self._primitives = replace(self._primitives, alpha=game.alpha, beta=game.beta, budget=cap)
        self._restart()

    def _set_misreports(self, group: str | None, share: float, chance: Chance) -> None:
        """Draw again which nodes misreport; true costs stay the same."""
        rows, factors = self.rows_of(group), self._rules.misreport_factor
        factor = factors.get(group or "", factors.get("", 1.0))
        misreport_factor = self.population.misreport_factor.copy()
        n_nodes = misreport_factor[rows].size
        misreport_factor[rows] = draw_misreport_factors(n_nodes, share, factor, chance)
        self.columns.rho = self.population.true_rho / misreport_factor
        require_sized(rho=self.columns.rho)
        self._replace_population(self.population.true_rho, misreport_factor)

    def _require_contest(self) -> None:
        if self._rules.mechanism != "stackelberg":
            raise InvalidGameError(
                f"{self._rules.mechanism!r} makes one offer, for the initial game; only a market "
                "with the mechanism 'stackelberg' can change its game."
            )

    def _replace_population(self, true_rho: Floats, misreport_factor: Floats | None) -> None:
        """Update the population, and everything computed from it, to new costs."""
        old = self.population
        self.population = replace(
            old,
            rho=self.columns.rho,
            true_rho=true_rho,
            misreport_factor=old.misreport_factor if misreport_factor is None else misreport_factor,
        )
        self._restart()

    def _restart(self) -> None:
        """Discard what was computed of the earlier game; play continues."""
        self._renew()
        self._judge.restart()
        self.verdict, self.running = None, True

    def _renew(self) -> None:
        """Update the closed form to the nodes in the market and their costs."""
        self._primitives = replace(self._primitives, rho=self.columns.rho[self.present])
        self._solved = None
        known_of_game = ("equilibrium", "outcome", "contest", "_largest_unit_epsilon", "_best_cap")
        for known in (*known_of_game, "_chooses_cap"):
            self.__dict__.pop(known, None)
