"""The market: a Mesa model in which one step is one communication round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from operator import attrgetter
from typing import Any

import mesa
import numpy as np

from fcfn_abm.abm import order, stretch
from fcfn_abm.abm.account import open_account
from fcfn_abm.abm.agentset import MarketAgents, NodeSet
from fcfn_abm.abm.ahead import NOBODY, PlaysAhead, plays_like
from fcfn_abm.abm.bulletin import Bulletin
from fcfn_abm.abm.churn import Turnover
from fcfn_abm.abm.collector import RoundCollector
from fcfn_abm.abm.columns import NEVER, Floats
from fcfn_abm.abm.events import Calendar
from fcfn_abm.abm.groups import GroupRules, find_group, group_nodes
from fcfn_abm.abm.news import learn_from
from fcfn_abm.abm.node import EdgeNode, NodeViews
from fcfn_abm.abm.round import Round, admit
from fcfn_abm.abm.rules import MarketRules, NodeClass, classes_of, play_by
from fcfn_abm.abm.scores import use_scores
from fcfn_abm.abm.server import ParameterServer
from fcfn_abm.abm.start import draw_first_reports
from fcfn_abm.abm.state import RoundState, state_class
from fcfn_abm.abm.turns import Turns
from fcfn_abm.abm.verdict import Judge, Verdict
from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import RoundGain, averaged_nodes, server_utility, takes_part
from fcfn_abm.learning import LearningRule, ServerRule
from fcfn_abm.learning.base import Rows
from fcfn_abm.mechanisms import Contest, Contracts, Mechanism, PricingGame
from fcfn_abm.population import Population
from fcfn_abm.rng import stream
from fcfn_abm.show import Shown


class Market(Shown, PlaysAhead):
    """Edge nodes that sell privacy to a parameter server, round by round.

    A market is built from ready-made parts; :class:`fcfn_abm.PrivacyMarket` builds one from a
    scenario. It knows nothing of data, nets and noise: a trainer reads :attr:`epsilon` after a
    step.

    Parameters
    ----------
    population : Population
        The nodes, and their costs per unit of reported epsilon.
    mechanism : Mechanism
        How the server sets payments.
    behaviour : sequence of GroupRules
        Learning rule, start and exit of each group of the population, or of all nodes.
    server : ServerRule
        How the server chooses its cap, if the mechanism leaves it open.
    rules : MarketRules
        How rounds are played, and what nodes observe.
    seed : int, default 0
        Seed of all random numbers of this market.
    collect_nodes : bool, default False
        Whether the data collector keeps every node in every round.
    node_class : type or mapping, optional
        A class derived from :class:`EdgeNode` for all nodes, or a mapping from names of groups to
        classes. Nodes whose class overrides ``respond``, ``choose_epsilon`` or ``learn`` act one by
        one; all others remain rows.

    Attributes
    ----------
    columns : NodeColumns
        The state of all nodes, one array per quantity.
    groups : tuple of NodeGroup
        Groups of nodes and their rules; one group without a name if all nodes are alike.
    churn : Turnover or None
        Arrivals and departures, if the scenario has churn.
    account : Account or None
        Payments and sales over all rounds, if one of them is limited.
    nodes : NodeSet
        The node agents, by row: views that are created on access.
    server : ParameterServer
        The leader.
    datacollector : mesa.DataCollector
        One row per round with the fields of :class:`RoundState` (with churn, :class:`ChurnState`);
        with ``collect_nodes`` also every node in every round.
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
        self._caps: Floats = np.zeros(0)
        if mechanism.reports == "cost":
            population = population.report_costs()
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
            rules.terms,
            stretch.find_active,
        )
        if rules.terms is not None:
            self._caps = np.array(rules.terms.caps(population.n_nodes))
        self._primitives.rho.flags.writeable = False  # costs change only through set_rho
        self._mechanism = mechanism
        self.offer = mechanism.offer(self._primitives, stream(seed, "mechanism", rules.mechanism))
        self.columns, self.groups = group_nodes(
            self._primitives.rho,
            population.groups,
            behaviour,
            partial(play_by, self.offer, rules.terms),
        )
        self.churn = None
        if rules.churn is not None:
            self.churn = Turnover(rules.churn, self.columns, self.groups, seed)
        self.account = open_account(
            game, rules.total_epsilon, self.groups, len(self.columns), rules.last_round
        )
        self._calendar = Calendar(rules.events, seed)
        self._turns = None
        if rounds.order == "in_turn" and rounds.turns == "random":
            self._turns = Turns(seed, len(self.columns))
        self._play = order.ORDERS[rounds.order]
        # if few nodes move, calm rounds may be rounds in which no node moved that would
        patience = math.ceil(min(rounds.patience / rounds.participation, rounds.maximum))
        self._rounds_a_turn = math.ceil(min(1 / rounds.participation, rounds.maximum))
        self._judge = Judge(
            rounds.tolerance,
            patience,
            rules.last_round,
            noisy=rules.information.noise > 0,
        )
        self._add_nodes(classes_of(node_class, [group.name for group in self.groups]))
        opening = game.beta / 2 if game.budget is None else game.budget
        opening = opening if self.offer.learns_cap else self._primitives.cap
        self.server = ParameterServer(self, server, self.offer, game, opening, rules.terms)
        self._register_nodes()
        self.round_index = 0
        self.verdict: Verdict | None = None
        self._state: RoundState | None = None
        self.limit_budget()
        self._plan: tuple[int, Rows] = (1, NOBODY)
        self._traces = np.empty((0, 3, 0))
        warm = rules.terms is not None and any(group.start == "warm" for group in self.groups)
        self.columns.epsilon = draw_first_reports(
            self.columns,
            self.groups,
            self.offer,
            self.pool,
            game.epsilon_floor,
            seed,
            rules.terms,
            self.solve_contest(self.pool).epsilon if warm else None,
        )
        self.limit_reports()
        if population.manipulation is not None:
            self.columns.epsilon[population.manipulation.silent] = 0.0
        self._n_active = len(self.columns)
        self.total_epsilon = float(self.columns.epsilon.sum())
        self.movers: Rows = slice(0)
        self.answered_pool = self.pool
        if rules.terms is not None:
            self.columns.epsilon = admit(self.columns.epsilon, rules.terms, self._caps)
        self.publish()
        self.views.make_acting(slice(None))
        if self.views.acting and isinstance(self.offer, Contest) and not self.offer.is_linear:
            raise InvalidGameError(
                "a custom node class needs a mechanism that shares payments by epsilon, but "
                f"{rules.mechanism!r} shares them by a score of it."
            )
        self.learn()
        state = state_class(
            churn=self.churn is not None,
            moving=bool(self._calendar or self.account),
            spending=self.account is not None and self.account.limits_money,
        )
        # partial and attrgetter can be pickled, unlike lambdas
        self._reporters = {field.name: partial(_measure, field.name) for field in fields(state)}
        self.datacollector = RoundCollector(
            model_reporters=dict(self._reporters),
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
        """Create the sets of nodes, whose agents are created on access."""
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
        """Remove an agent that a user added; nodes cannot be removed."""
        if isinstance(agent, EdgeNode):
            agent.remove()  # raises with the reason
        super().deregister_agent(agent)

    def remove_all_agents(self) -> None:
        """Raise an error: a market always has its server and its nodes."""
        raise InvalidGameError(
            "A market cannot be without its server and its nodes; create another market, or remove "
            "the agents that you added, each with agent.remove()."
        )

    @property
    def budget(self) -> float:
        """Announced payment cap B, in currency."""
        return self.server.budget

    @property
    def epsilon(self) -> Floats:
        """Reports of the nodes that take part, zero for the others, shape (n_nodes,)."""
        return np.where(takes_part(self.columns.epsilon), self.columns.epsilon, 0.0)

    @property
    def sells(self) -> bool:
        """Whether nodes may sell in a further round; False once the server has stopped buying."""
        return self.verdict is None or self.verdict.kind != "stopped"

    @property
    def pool(self) -> float:
        """What nodes share in proportion to epsilon, in currency: the cap or an agency's pool."""
        return self.server.pool

    @property
    def pays_after_reports(self) -> bool:
        """Whether the server sets its cap from the reports of the round, as in fig. 3."""
        return self._rules.rounds.payment == "after-reports"

    @property
    def n_active(self) -> int:
        """Number of nodes that took part in the last round."""
        return self._n_active

    @property
    def round(self) -> Round:
        """Inputs of the current round."""
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
            epsilon_left=self._epsilon_left,
            turns=self._turns,
            seed=self.seed,
            rng=self.rng,
            agents=self.views.acting,
            contest=None if isinstance(self.offer, Contracts) else self.offer,
            terms=rules.terms,
            caps=self._caps,
        )

    def step(self) -> None:
        """Play one round of the market.

        The server announces its cap, and nodes answer it (section 4.4 of the paper, steps 3 and 4);
        or, with ``rounds.payment = "after-reports"``, it sets the cap from their reports (fig. 3),
        which answer the cap of the previous round.
        """
        (most, traced), self._plan = self._plan, (1, NOBODY)
        forms = self.find_forms() if plays_like(type(self), Market) else None
        if forms is None or (most > 1 and not self._is_unwatched):
            stretch.count_single_moves(len(self.columns))
            self.open_round()
            self.close_round()
            now = (self.columns.epsilon, self.columns.payment, self.columns.utility)
            self._traces = np.array([[column[traced] for column in now]])
            return
        self.round_index += 1
        self.apply_events()
        self._traces = self.play_ahead(forms, most, self.round, traced)
        n_further = len(self._traces) - 1
        self.steps += n_further  # Mesa's clock has counted one of them
        self.time += n_further

    def open_round(self) -> None:
        """Run the part of a round before the moves: publish the cap and the current reports."""
        self.round_index += 1
        self.apply_events()
        self._before = (self.columns.epsilon.copy(), self.budget)
        if not self.pays_after_reports:
            self.announce_budget()
        self.answered_pool = self.pool
        self.update_population()
        self.clear_exited_reports()
        self.limit_reports()
        self.publish()
        self.inform_newcomers()
        self.draw_movers()

    def close_round(self) -> None:
        """Move the nodes, and run the rest of the round."""
        with use_scores(self.round) as played:
            self._play(played)
        self.settle_round()
        self.datacollector.collect(self)

    def settle_round(self) -> None:
        """Run the part of a round after the moves: pay, learn, leave, measure."""
        self.require_reports()
        self.limit_reports()  # again: converting a score to a report rounds it
        if self.pays_after_reports:
            self.set_budget()
        self.pay()
        self.learn()
        self.let_nodes_leave()
        self.measure(*self._before)

    def require_reports(self) -> None:
        """Raise if a learning rule has reported an invalid epsilon.

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
        """Set the cap of this round from the reports of this round."""
        game = self._rules.game
        epsilon = self.reports_seen
        n_averaged = averaged_nodes(game.average_over, epsilon)
        mean_epsilon = float(epsilon.sum()) / n_averaged if n_averaged else 0.0
        unchanged = server_utility(mean_epsilon, game.alpha, game.beta, self.budget)
        self.server.choose_budget(epsilon, unchanged, self._rounds_a_turn)
        self.limit_budget()

    def announce_budget(self) -> None:
        """Announce the server's cap; the first round keeps the opening cap."""
        if self.round_index > 1:
            self.server.choose_budget(
                self.reports_seen, self.state.server_utility, self._rounds_a_turn
            )
        self.limit_budget()

    def limit_budget(self) -> None:
        """Limit the cap of this round by the money left and the spending rule."""
        if self.account and self.account.limits_money:
            cap = self._rules.cap  # for a fixed cap, as last round's may have been limited
            limit = self.account.allow(max(self.round_index, 1), self.gain)
            announced = self.server.budget if cap is None else cap * self.server.factor
            self.server.budget = min(announced, limit)
            self.server.limit = limit

    @property
    def gain(self) -> RoundGain | None:
        """Gain of a cap for the server in one round, from the last round; None before any trade."""
        if self._state is None or not (self.state.mean_epsilon > 0 and self.pool > 0):
            return None
        game = self._rules.game
        return RoundGain(game.alpha, game.beta, self.state.mean_epsilon / self.pool)

    def limit_reports(self) -> None:
        """Limit reports to what the nodes may still sell."""
        if (left := self._epsilon_left) is not None:
            self.columns.epsilon = np.minimum(self.columns.epsilon, left)

    @property
    def _epsilon_left(self) -> Floats | None:
        """What each node may still sell; None without a limit."""
        if self.account is None or not self.account.limits_epsilon:
            return None
        return self.account.epsilon_left

    def pay(self) -> None:
        """Pay for the reports of this round."""
        if self.account is None:
            self.server.pay(self.columns)
            return
        self.server.pay(self.columns, self.account.money_left)
        leaving = self.account.enter(self.server.paid, self.columns.epsilon)
        self.columns.exit_round[leaving] = self.round_index

    def clear_exited_reports(self) -> None:
        """Set the reports of nodes that have left to zero."""
        self.columns.epsilon = np.where(self.columns.exited, 0.0, self.columns.epsilon)

    def publish(self) -> None:
        """Publish the current reports, as far as nodes may see them."""
        offer, settings, chance = self.offer, self._rules.information, None
        if settings.noise > 0:  # creating a generator costs more than publishing
            chance = stream(self.seed, "observation-errors", self.round_index)
        shown = self.columns.epsilon
        if not isinstance(offer, Contracts):
            shown = offer.score(shown)
        self.bulletin = Bulletin.of(shown, settings, chance)

    def inform_newcomers(self) -> None:
        """Let newcomers learn from the current reports, as all nodes do before the first round."""
        if self.churn and self.churn.arrived.size:
            self.learn(self.churn.arrived)

    def draw_movers(self) -> None:
        """Draw which nodes move in this round; none if the round starts with requests of nodes."""
        if self.pays_after_reports and self.round_index == 1:
            self.movers = slice(0)
            return
        share = self._rules.rounds.participation
        self.movers = order.draw_movers(
            self.present, len(self.columns), share, self.seed, self.round_index
        )

    def learn(self, rows: Rows | None = None) -> None:
        """Let nodes learn from the round: all nodes in the market, or some newcomers."""
        with use_scores(self.round) as played:
            learn_from(
                played,
                self.present if rows is None else rows,
                noise=self._rules.information.noise,
                changing=bool(self._calendar or (self.churn and self.churn.changing)),
                newcomers=rows is not None,
            )

    def let_nodes_leave(self) -> None:
        """Remove nodes that had a reason to leave for enough rounds."""
        for group in self.groups:
            exit_round = self.columns.exit_round[group.rows]
            idle_rounds = self.columns.idle_rounds[group.rows]
            leaving = (exit_round == NEVER) & (idle_rounds >= group.exit.patience)
            exit_round[leaving] = self.round_index  # a view

    def set_rule(self, rule: LearningRule) -> None:
        """Give all nodes another rule, which starts without memory."""
        n_nodes, terms = len(self.columns), self._rules.terms
        if terms is not None and (why := rule.refuses(terms)):
            raise InvalidGameError(f"nodes cannot learn by {type(rule).__name__}: {why}.")
        self.groups = tuple(
            replace(group, rule=rule.for_population(group.distribution, n_nodes))
            for group in self.groups
        )


def _measure(name: str, market: Market) -> Any:
    return getattr(market.state, name)
