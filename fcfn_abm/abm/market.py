"""The market: a Mesa model in which one step is one communication round."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from operator import attrgetter
from typing import Any, Self

import mesa
import numpy as np
import numpy.typing as npt

from fcfn_abm.abm import order
from fcfn_abm.abm.agentset import MarketAgents, NodeSet
from fcfn_abm.abm.bulletin import Bulletin
from fcfn_abm.abm.churn import Turnover
from fcfn_abm.abm.columns import NEVER, Floats
from fcfn_abm.abm.contracts import TakeOrLeave
from fcfn_abm.abm.events import Calendar
from fcfn_abm.abm.groups import GroupRules, find_group, group_nodes
from fcfn_abm.abm.news import learn_from
from fcfn_abm.abm.node import EdgeNode, NodeViews
from fcfn_abm.abm.round import Round, RowModel
from fcfn_abm.abm.scores import played_in_scores, playing, unit_equilibrium
from fcfn_abm.abm.server import ParameterServer
from fcfn_abm.abm.state import ChurnState, MovingState, RoundState, measure_round, ratio
from fcfn_abm.abm.verdict import Judge, Leader, Verdict
from fcfn_abm.errors import InvalidGameError, abbreviate, join_lines
from fcfn_abm.game import (
    Equilibrium,
    StackelbergEquilibrium,
    averaged_nodes,
    best_linear_budget,
    server_regret,
    server_utility,
    takes_part,
)
from fcfn_abm.learning import LearningRule, ServerRule
from fcfn_abm.learning.base import Rows
from fcfn_abm.mechanisms import Contest, Contracts, Mechanism, Offer, Outcome, PricingGame
from fcfn_abm.population import Population, draw_misreport_factors, require_sized
from fcfn_abm.rng import Chance, stream
from fcfn_abm.scenario import Churn, Event, Game, Information, Rounds, Scenario
from fcfn_abm.scenario import Population as PopulationSettings
from fcfn_abm.show import Shown

type NodeClass = type[EdgeNode] | Mapping[str, type[EdgeNode]]


@dataclass(frozen=True)
class MarketRules:
    """The tables of a scenario that shape a market, and nothing of its training or record."""

    game: Game
    rounds: Rounds
    information: Information
    churn: Churn | None
    """None where the same nodes stay."""
    events: tuple[Event, ...]
    """What changes the game while it is played."""
    misreport_factor: dict[str, float]
    """Reported over spent epsilon of nodes that misreport, by group; "" for all."""
    cap: float | None
    """The payment cap that stands in every round; None where the server chooses it."""
    mechanism: str
    """Registered name of the mechanism, which names the stream of its chance."""

    @classmethod
    def of(cls, scenario: Scenario) -> Self:
        """Take those of a scenario."""
        return cls(
            game=scenario.game,
            rounds=scenario.rounds,
            information=scenario.information,
            churn=scenario.population.churn,
            events=scenario.events or (),
            misreport_factor=_misreport_factors(scenario.population),
            cap=scenario.cap,
            mechanism=scenario.mechanism.kind,
        )


class Market(Shown, RowModel):
    """Edge nodes that sell privacy to a parameter server, round by round.

    A market is made of finished parts; :class:`fcfn_abm.PrivacyMarket` makes one of a scenario. It
    knows no data, no net and no privacy: whoever trains reads :attr:`epsilon` after a step.

    Parameters
    ----------
    population : Population
        Who plays, and what a unit of reported epsilon costs each of them.
    mechanism : Mechanism
        How the server prices.
    behaviour : sequence of GroupRules
        How nodes choose their epsilon, start and leave: of each group of the population, or of all.
    server : ServerRule
        How the server chooses its cap, where the mechanism leaves it open.
    rules : MarketRules
        How rounds are played, and what nodes see.
    seed : int, default 0
        Root of all chance in this market.
    collect_nodes : bool, default False
        Whether the data collector keeps every node in every round.
    node_class : type or mapping, optional
        A class derived from :class:`EdgeNode` for all nodes, or one for each name of a group. Nodes
        whose class has a ``respond``, ``choose_epsilon`` or ``learn`` of its own act by it, one by
        one; all others remain rows.

    Attributes
    ----------
    columns : NodeColumns
        The state of all nodes, one array a quantity.
    groups : tuple of NodeGroup
        Their rules, by rows; one group without a name where all nodes are alike.
    churn : Turnover or None
        Who came and went, where nodes do.
    nodes : NodeSet
        The node agents, by row: views that are made when they are looked at.
    server : ParameterServer
        The leader.
    datacollector : mesa.DataCollector
        One row a round, the fields of :class:`RoundState` (with churn, :class:`ChurnState`); with
        ``collect_nodes`` also every node in every round.
    verdict : Verdict or None
        How the market ended; None while it is running.
    """

    def __init__(
        self,
        population: Population,
        mechanism: Mechanism,
        behaviour: Sequence[GroupRules],
        server: ServerRule,
        rules: MarketRules,
        *,
        seed: int = 0,
        collect_nodes: bool = False,
        node_class: NodeClass | None = None,
    ) -> None:
        super().__init__(rng=stream(seed, "market"))
        if mechanism.reports == "cost":
            population = population.asked_for_costs()
        self.seed, self.population, self._rules = seed, population, rules
        game, rounds = rules.game, rules.rounds
        self._primitives = PricingGame(
            population.rho.copy(),
            game.alpha,
            game.beta,
            rules.cap,
            game.average_over,
            population.reported_cost,
            population.held,
        )
        self._primitives.rho.flags.writeable = False  # set_rho changes costs, and what follows
        self._mechanism = mechanism
        self.offer = mechanism.offer(self._primitives, stream(seed, "mechanism", rules.mechanism))
        self.columns, self.groups = group_nodes(
            self._primitives.rho, population.groups, behaviour, partial(_play_by, self.offer)
        )
        self.churn = None
        if rules.churn is not None:
            self.churn = Turnover(rules.churn, self.columns, self.groups, seed)
        self._calendar = Calendar(rules.events, seed)
        self._turns = None
        if rounds.order == "in_turn" and rounds.turns == "random":
            self._turns = order.Turns(seed, len(self.columns))
        self._play = order.ORDERS[rounds.order]
        # with few moving, quiet rounds may be those in which nobody moved that would
        patience = math.ceil(min(rounds.patience / rounds.participation, rounds.maximum))
        self._rounds_a_turn = math.ceil(min(1 / rounds.participation, rounds.maximum))
        self._judge = Judge(
            rounds.tolerance,
            patience,
            rounds.maximum,
            noisy=rules.information.noise > 0,
        )
        self._add_nodes(_classes_of(node_class, [group.name for group in self.groups]))
        opening = game.beta / 2 if game.budget is None else game.budget
        opening = opening if self.offer.learns_cap else self._primitives.cap
        self.server = ParameterServer(self, server, self.offer, game, opening)
        self._register_nodes()
        self.round_index = 0
        self.verdict: Verdict | None = None
        self._state: RoundState | None = None
        self.columns.epsilon = self._first_reports()
        self.total_epsilon = float(self.columns.epsilon.sum())
        self.movers: Rows = slice(0)
        self.answered_pool = self.pool
        self.publish()
        self.views.make_acting(slice(None))
        if self.views.acting and isinstance(self.offer, Contest) and not self.offer.is_linear:
            raise InvalidGameError(
                "nodes of a class of one's own act where payments are shared by epsilon, and "
                f"{rules.mechanism!r} shares them by a score of it."
            )
        self.learn()
        state = ChurnState if self.churn else MovingState if self._calendar else RoundState
        self.datacollector = mesa.DataCollector(
            # partial and attrgetter, unlike names and lambdas, can be pickled
            model_reporters={field.name: partial(_measure, field.name) for field in fields(state)},
            agenttype_reporters=(
                {
                    self._node_class: {
                        name: attrgetter(name) for name in ("epsilon", "payment", "utility")
                    }
                }
                if collect_nodes
                else {}
            ),
        )

    def _add_nodes(self, classes: Mapping[str, type[EdgeNode]]) -> None:
        """Make the sets of nodes, which are rows until somebody looks at them."""
        kinds = {classes.get(group.name, EdgeNode) for group in self.groups}
        self._node_class = kinds.pop() if len(kinds) == 1 else EdgeNode
        self.views = NodeViews(self, classes)
        self.nodes = NodeSet(self.columns, self.views, self.random)
        every = NodeSet(self.columns, self.views, self.random, self.nodes.rows)
        self._all_agents = MarketAgents(every, self.random)

    def _register_nodes(self) -> None:
        """Give the nodes the numbers after the server's."""
        self._agents_by_type[self._node_class] = self.nodes
        self.first_node_id = self.agent_id_counter
        self.agent_id_counter += len(self.columns)

    def deregister_agent(self, agent: mesa.Agent) -> None:
        """Take an agent that a user added out of the market; nodes stay."""
        if isinstance(agent, EdgeNode):
            agent.remove()  # which says why not
        super().deregister_agent(agent)

    def remove_all_agents(self) -> None:
        """Refuse: a market is its server and its nodes."""
        raise InvalidGameError(
            "A market cannot be without its server and its nodes: make another market, or remove "
            "the agents that you added, each with agent.remove()."
        )

    @property
    def state(self) -> RoundState:
        """What was measured of the last round; before the first, of the first reports."""
        if self._state is None:
            self._state = self._measure_round(self.columns.epsilon)
        return self._state

    @property
    def budget(self) -> float:
        """The announced payment cap B, in currency."""
        return self.server.budget

    @property
    def epsilon(self) -> Floats:
        """The reports of the nodes that take part, zero for the others, shape (n_nodes,)."""
        return np.where(takes_part(self.columns.epsilon), self.columns.epsilon, 0.0)

    @property
    def pool(self) -> float:
        """What the nodes share in proportion to epsilon, in currency: the cap, or an agency's."""
        return self.server.pool

    @property
    def pays_after_reports(self) -> bool:
        """Whether the server sets its cap from the reports of the round, as in fig. 3."""
        return self._rules.rounds.payment == "after-reports"

    @property
    def present(self) -> Rows:
        """Rows of the nodes that are there: all of them, unless nodes come and go."""
        return self.churn.present if self.churn else slice(None)

    @property
    def n_active(self) -> int:
        """How many nodes took part in the last round that was played."""
        return self._n_active

    @property
    def round(self) -> Round:
        """What the present round is played with."""
        rules = self._rules
        return Round(
            index=self.round_index,
            columns=self.columns,
            bulletin=self.bulletin,
            groups=self.groups,
            pool=self.answered_pool,
            n_active=self.n_active,
            present=self.present,
            movers=self.movers,
            epsilon_floor=rules.game.epsilon_floor,
            turns=self._turns,
            seed=self.seed,
            rng=self.rng,
            agents=self.views.acting,
            contest=None if isinstance(self.offer, Contracts) else self.offer,
        )

    def step(self) -> None:
        """Play one round of the market.

        The server announces its cap first, and nodes answer it (section 4.4 of the paper, steps 3
        and 4); or, with ``rounds.payment = "after-reports"``, it sets the cap from their reports
        (fig. 3), which answer the cap of the round before.
        """
        self.open_round()
        self.close_round()

    def open_round(self) -> None:
        """Do what comes before the moves: nodes see the cap and the reports that stand."""
        self.round_index += 1
        self.carry_out_events()
        self._before = (self.columns.epsilon.copy(), self.budget)
        if not self.pays_after_reports:
            self.announce_budget()
        self.answered_pool = self.pool
        self.update_population()
        self.clear_exited_reports()
        self.publish()
        self.inform_newcomers()
        self.draw_movers()

    def close_round(self) -> None:
        """Let nodes move, and do what comes after that."""
        with played_in_scores(self.round) as played:
            self._play(played)
        self.require_reports()
        if self.pays_after_reports:
            self.set_budget()
        self.server.pay(self.columns)
        self.learn()
        self.let_nodes_leave()
        self.measure(*self._before)
        self.datacollector.collect(self)

    def require_reports(self) -> None:
        """Raise where a rule has reported something that is no epsilon.

        Raises
        ------
        InvalidGameError
            If a report is not a finite number, or is below zero.
        """
        epsilon = self.columns.epsilon
        if epsilon.min() >= 0 and epsilon.max() < math.inf:
            return
        row = int(np.argmin((epsilon >= 0) & (epsilon < math.inf)))
        rule = type(find_group(self.groups, row).rule).__name__
        raise InvalidGameError(
            f"an epsilon must be a finite number, zero or more, but the rule {rule} reports "
            f"{epsilon[row]:g} for node {row} in round {self.round_index}."
        )

    def _describe(self) -> tuple[str, Mapping[str, object]]:
        verdict = self.verdict.kind if self.verdict else "still running"
        return f"{type(self).__name__}, round {self.round_index:,}: {verdict}", {
            "nodes that take part": f"{self.n_active:,} of {len(self.columns):,}",
            "payment cap B": float(self.budget),
            "total epsilon S": float(self.total_epsilon),
            "mechanism": self._rules.mechanism,
        }

    def set_budget(self) -> None:
        """Let the server set the cap of this round from the reports of this round."""
        game = self._rules.game
        epsilon = self.columns.epsilon[self.present]
        n_averaged = averaged_nodes(game.average_over, epsilon)
        mean_epsilon = float(epsilon.sum()) / n_averaged if n_averaged else 0.0
        unchanged = server_utility(mean_epsilon, game.alpha, game.beta, self.budget)
        self.server.choose_budget(epsilon, unchanged, self._rounds_a_turn)

    def announce_budget(self) -> None:
        """Let the server announce its cap; in the first round the opening cap stands."""
        if self.round_index > 1:
            self.server.choose_budget(
                self.columns.epsilon[self.present], self.state.server_utility, self._rounds_a_turn
            )

    def update_population(self) -> None:
        """Let nodes come and go, and costs drift, where the scenario says so."""
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
                    self.budget
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
        try:
            rho[rows] = values
        except (IndexError, TypeError, ValueError) as error:
            raise InvalidGameError(f"costs cannot be set: {join_lines(str(error))}.") from None
        require_sized(rho=rho)
        if self.churn:
            self.churn.set_rho(rows, rho[rows])
        self.columns.rho = rho
        self._replace_population(rho * self.population.misreport_factor, None)

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
            made its offer for the game as it was.
        """
        self._require_contest()
        given = {"alpha": alpha, "beta": beta, "budget": budget}
        changed = {name: float(value) for name, value in given.items() if value is not None}
        require_sized(**{name: value for name, value in changed.items() if name != "budget"})
        if budget is not None:
            if self._rules.cap is None:
                raise InvalidGameError("the server chooses its cap itself, and it cannot be set.")
            if budget != 0:
                require_sized(budget=budget)
            self.server.budget = float(budget)
        game = self._rules.game.model_copy(update=changed)
        cap = self._rules.cap if budget is None else float(budget)
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
        for known in ("equilibrium", "outcome", "contest", "_best_cap"):
            self.__dict__.pop(known, None)

    def clear_exited_reports(self) -> None:
        """Set the reports of the nodes that left to zero."""
        self.columns.epsilon = np.where(self.columns.exited, 0.0, self.columns.epsilon)

    def publish(self) -> None:
        """Show the reports that stand, as far as nodes may see them."""
        chance = stream(self.seed, "observation-errors", self.round_index)
        offer = self.offer
        shown = self.columns.epsilon
        if not isinstance(offer, Contracts):
            shown = offer.score(shown)
        self.bulletin = Bulletin.of(shown, self._rules.information, chance)

    def inform_newcomers(self) -> None:
        """Let newcomers learn from what stands, as all nodes did before the first round."""
        if self.churn and self.churn.arrived.size:
            self.learn(self.churn.arrived)

    def draw_movers(self) -> None:
        """Draw who moves in this round: nobody, if it opens with the requests of nodes."""
        if self.pays_after_reports and self.round_index == 1:
            self.movers = slice(0)
            return
        share = self._rules.rounds.participation
        self.movers = order.draw_movers(
            self.present, len(self.columns), share, self.seed, self.round_index
        )

    def learn(self, rows: Rows | None = None) -> None:
        """Let nodes learn from the round: those that are there, or some newcomers."""
        with played_in_scores(self.round) as played:
            learn_from(
                played,
                self.present if rows is None else rows,
                noise=self._rules.information.noise,
                changing=bool(self._calendar or (self.churn and self.churn.changing)),
                newcomers=rows is not None,
            )

    def let_nodes_leave(self) -> None:
        """Let those nodes leave that had a reason to for long enough."""
        for group in self.groups:
            exit_round = self.columns.exit_round[group.rows]
            idle_rounds = self.columns.idle_rounds[group.rows]
            leaving = (exit_round == NEVER) & (idle_rounds >= group.exit.patience)
            exit_round[leaving] = self.round_index  # a view

    def measure(self, epsilon_before: Floats, budget_before: float) -> None:
        """Work out the state of this round, and whether the market is over."""
        self._state = self._measure_round(epsilon_before)
        self.total_epsilon, self._n_active = self.state.total_epsilon, self.state.n_active
        self.verdict = self._judge.see(
            exploitability=self.state.exploitability,
            change=self.state.change,
            budget_change=ratio(abs(self.budget - budget_before), budget_before),
            distance=self.state.distance,
            content=self.server.is_content,
            exploring=self._explores,
            searching=self.server.is_searching,
            leader=self.leader,
            n_active=self.n_active,
            at_rest_without_trade=self._no_trade(),
            moving=self._name_changing(),
        )
        self.running = self.verdict is None

    def _measure_round(self, epsilon_before: Floats) -> RoundState:
        contest = None if isinstance(self.offer, Contracts) else self.contest
        paid = replace(self.round, pool=self.pool)
        return measure_round(
            paid, epsilon_before, self.server, contest, self.churn, moving=bool(self._calendar)
        )

    @property
    def leader(self) -> Leader:
        """Where the server stands: its cap, the best one, and what it would gain by that."""
        game, (best, unit_mean) = self._rules.game, self._best_cap
        regret = server_regret(self.budget, best, game.alpha, game.beta, unit_mean)
        return Leader(self.budget, best, regret, self._chooses_cap)

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

    def set_rule(self, rule: LearningRule) -> None:
        """Let all nodes move by another rule, which starts without memory."""
        self.groups = tuple(replace(group, rule=rule) for group in self.groups)

    @property
    def _chooses_cap(self) -> bool:
        """Whether the server chooses the cap, and nothing but its own choice keeps it from B*."""
        misreports = bool(self.population.misreports.any())
        return self._rules.cap is None and self.offer.learns_cap and not misreports

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
        if self.budget == 0 and not moving:
            best = self.leader.best_budget
            if best == 0:
                return "no payment cap pays the server: B* = 0 (45)."
            if self.server.has_given_up:
                return (
                    "the server has given up, and its cap is zero, though a cap would pay: "
                    f"B* = {best:.6g} (41)."
                )
        if isinstance(self.offer, Contracts) and not self.offer.epsilon.any():
            return f"the mechanism offers nothing: {self.outcome.reason}"
        return ""

    def run_until(
        self,
        end_time: float | None = None,
        on_round: Callable[[Self], None] | None = None,
    ) -> Verdict | None:
        """Play until there is a verdict, or until a round.

        Parameters
        ----------
        end_time : float, optional
            Last round to play; without it, the scenario's maximum.
        on_round : callable, optional
            Called with the market after each round: for progress, and for records.

        Returns
        -------
        Verdict or None
            How the market ended; None if ``end_time`` came first.
        """
        while self.running and (end_time is None or self.round_index < end_time):
            self.step()
            if on_round:
                on_round(self)
        return self.verdict

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
        """The nodes' equilibrium at B = 1, in closed form; it grows in proportion to B."""
        offer = Contest() if isinstance(self.offer, Contracts) else self.offer
        return unit_equilibrium(offer, self._primitives.rho)

    def _first_reports(self) -> Floats:
        """Return what nodes report before they have seen anything."""
        self._n_active = n_nodes = len(self.columns)
        reports = np.zeros(n_nodes)
        if isinstance(self.offer, Contracts):
            return reports
        chance = stream(self.seed, "first-reports")
        for group in self.groups:
            rows = group.rows
            if group.start == "cold":
                reports[rows] = self._rules.game.epsilon_floor
            elif group.start == "warm":
                reports[rows] = self.pool * self.contest.epsilon[rows]
            else:
                alike = self.pool * (n_nodes - 1) / (n_nodes**2 * self.columns.rho[rows])
                if self.offer.exponent != 1:
                    alike *= self.offer.exponent
                reports[rows] = alike * chance.uniform(0.5, 1.5, alike.size)
        return reports


def _misreport_factors(people: PopulationSettings) -> dict[str, float]:
    """Return reported over spent epsilon of nodes that misreport, by group; "" for all."""
    tables = {"": people.misreport} | {g.name: g.misreport for g in people.groups or ()}
    return {name: table.factor for name, table in tables.items() if table}


def _play_by(offer: Offer, rule: LearningRule) -> LearningRule:
    """Return the rule by which nodes with a learning rule answer an offer."""
    return TakeOrLeave(offer) if isinstance(offer, Contracts) else playing(offer, rule)


def _classes_of(node_class: NodeClass | None, names: Sequence[str]) -> dict[str, type[EdgeNode]]:
    """Return the class of the nodes of each group that has one of its own."""
    if node_class is None:
        return {}
    classes = node_class if isinstance(node_class, Mapping) else dict.fromkeys(names, node_class)
    for name, kind in classes.items():
        if name not in names:
            known = ", ".join(map(repr, names)) if any(names) else "it has no groups"
            raise InvalidGameError(
                f"node_class names the group {name!r}, which the market lacks: {known}."
            )
        if not (isinstance(kind, type) and issubclass(kind, EdgeNode)):
            raise InvalidGameError(
                f"node_class must be a class derived from EdgeNode, not {abbreviate(kind)}."
            )
    return dict(classes)


def _measure(name: str, market: Market) -> Any:
    return getattr(market.state, name)
