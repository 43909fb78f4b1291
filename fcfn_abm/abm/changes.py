"""The game that a market plays, its closed form, and how both change while it is played."""

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
    """The game of a market: primitives, closed form, and what changes them."""

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
    """What nodes share, and the equilibrium that was found for it last."""

    @property
    def present(self) -> Rows:
        """Rows of the nodes that are there: all, unless nodes come and go, or sell their total."""
        if self.churn:
            return self.churn.present
        if self._speakers is not None:
            return self._speakers
        return self.account.sellers if self.account else slice(None)

    @cached_property
    def _speakers(self) -> Places | None:
        """Rows of those that report in a contest; None where all do."""
        manipulation = self.population.manipulation
        if manipulation is None or isinstance(self.offer, Contracts):
            return None  # contracts of nodes that say nothing are empty
        return np.flatnonzero(~manipulation.silent) if manipulation.silent.any() else None

    @property
    def reports_seen(self) -> Floats:
        """The reports that the server sees: one an identity, of the nodes that are there."""
        return split_reports(self.columns.epsilon[self.present], self.identities)

    @property
    def identities(self) -> Counts | None:
        """As how many the nodes come that are there; None where each of them comes as one."""
        manipulation = self.population.manipulation
        return None if manipulation is None else manipulation.identities[self.present]

    @property
    def primitives(self) -> PricingGame:
        """What the mechanism knows of: the costs of those who are there, and the server's side."""
        return self._primitives

    @cached_property
    def equilibrium(self) -> StackelbergEquilibrium:
        """The leader-follower equilibrium of those who are there, in closed form."""
        return self._primitives.stackelberg

    @cached_property
    def outcome(self) -> Outcome:
        """What the mechanism leads to at the scenario's cap, without play, for the same nodes."""
        chance = stream(self.seed, "mechanism", self._rules.mechanism)
        return self._mechanism.outcome(self._primitives, chance)

    @cached_property
    def contest(self) -> Equilibrium:
        """The nodes' equilibrium at B = 1, in closed form; it grows in proportion to B.

        Under other terms than the paper's it does not: see :meth:`solve_contest`.
        """
        game = self._primitives
        if self._speakers is not None:
            game = replace(game, rho=game.rho[self._speakers])
        return self._solve_contest(game, self.present)

    def _solve_contest(self, game: PricingGame, rows: Rows) -> Equilibrium:
        """Return the equilibrium at B = 1 of the nodes in some rows, whose game it is."""
        offer = Contest() if isinstance(self.offer, Contracts) else self.offer
        if offer.is_linear:  # who takes part is found once, for this and for what follows
            return game.answer_to(np.ones(()))
        return unit_equilibrium(offer.among(rows), game.rho)

    def solve_contest(self, pool: float) -> ContestEquilibrium:
        """Return the nodes' equilibrium under other terms than the paper's, for what they share.

        Where the cap keeps changing, with a fixed cost or a reserve, the first one that is found.
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
        """Let nodes come and go, and costs drift, where the scenario says so."""
        if self.account and self.account.open_round():
            self._renew()
        if self.churn and self.churn.update(self.round_index):
            self._renew()
            self.views.make_acting(self.churn.arrived)

    def carry_out_events(self) -> None:
        """Let the events of this round happen."""
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
        """Set unit privacy costs while the market plays; the closed form follows.

        Parameters
        ----------
        rows : slice, int, or array_like of int or bool
            Whose.
        values : array_like of float
            Currency per unit of reported epsilon: one for all, or one each.

        Raises
        ------
        InvalidGameError
            If there is no such row, or a cost is not positive, or out of range; or if the mechanism
            made its offer for the costs as they were.
        """
        self._require_contest()
        rho = self.columns.rho.copy()
        if not isinstance(rows, slice):
            rows = self._as_rows(rows)
        try:
            rho[rows] = as_floats("values", values)
        except (IndexError, TypeError, ValueError) as error:
            raise InvalidGameError(f"costs cannot be set: {join_lines(str(error))}.") from None
        require_sized(rho=rho)
        if self.churn:
            self.churn.set_rho(rows, rho[rows])
        self.columns.rho = rho
        self._replace_population(rho * self.population.misreport_factor, None)

    def _as_rows(self, rows: Any) -> npt.NDArray[Any]:
        """Return rows that a user gave as an index: numbers, or a mask of all nodes."""
        try:
            index = np.asarray(rows)
        except ValueError:  # lists of several lengths
            index = np.asarray(None)
        index = index if index.size else index.astype(int)
        is_mask = index.dtype == bool and index.shape == self.columns.rho.shape
        if not (is_mask or (index.dtype.kind in "iu" and index.ndim < 2)):
            raise InvalidGameError(
                f"rows must be numbers of nodes, or a mask of all, not {abbreviate(rows)}."
            )
        return index

    def set_game(
        self,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        budget: float | None = None,
    ) -> None:
        """Set primitives of the server while the market plays; the closed form follows.

        Parameters
        ----------
        alpha, beta : float, optional
            Model-value parameters.
        budget : float, optional
            Payment cap of the next rounds, in currency, where it stands in the scenario.

        Raises
        ------
        InvalidGameError
            If a number is out of range, or the server chooses its cap itself; or if the mechanism
            made its offer for the game as it was. In a contest whose cap the server announces round
            by round, the offer does not depend on alpha and beta.
        """
        if budget is not None or not self.offer.learns_cap:
            self._require_contest()
        given = {"alpha": alpha, "beta": beta, "budget": budget}
        changed = {n: as_number(n, value) for n, value in given.items() if value is not None}
        require_sized(**{name: value for name, value in changed.items() if name != "budget"})
        if budget is not None:
            if self._rules.cap is None:
                raise InvalidGameError("the server chooses its cap itself, and it cannot be set.")
            if changed["budget"] != 0:
                require_sized(budget=changed["budget"])
            self.server.budget, self.server.factor = changed["budget"], 1.0
        game = self._rules.game.model_copy(update=changed)
        cap = changed.get("budget", self._rules.cap)
        self._rules = replace(self._rules, game=game, cap=cap)
        self.server.game = game
        self._primitives = replace(self._primitives, alpha=game.alpha, beta=game.beta, budget=cap)
        self._begin_anew()

    def _set_misreports(self, group: str | None, share: float, chance: Chance) -> None:
        """Draw anew who misreports; what nodes truly pay for privacy stays."""
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
                f"{self._rules.mechanism!r} makes its offer once, in the game as it is at first: "
                "the game of a market with the mechanism 'stackelberg' alone can be changed."
            )

    def _replace_population(self, true_rho: Floats, misreport_factor: Floats | None) -> None:
        """Let the population, and all that is computed from it, follow the costs."""
        old = self.population
        self.population = replace(
            old,
            rho=self.columns.rho,
            true_rho=true_rho,
            misreport_factor=old.misreport_factor if misreport_factor is None else misreport_factor,
        )
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget what was computed of the game as it was; play goes on."""
        self._renew()
        self._judge.begin_anew()
        self.verdict, self.running = None, True

    def _renew(self) -> None:
        """Let the closed form follow those who are there, and their costs."""
        self._primitives = replace(self._primitives, rho=self.columns.rho[self.present])
        self._solved = None
        known_of_game = ("equilibrium", "outcome", "contest", "_largest_unit_epsilon", "_best_cap")
        for known in (*known_of_game, "_chooses_cap"):
            self.__dict__.pop(known, None)
