"""The market: a Mesa model in which one step is one communication round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import mesa
import numpy as np

from fcfn_abm.abm.columns import Floats, NodeColumns
from fcfn_abm.abm.node import EdgeNode
from fcfn_abm.abm.order import ORDERS
from fcfn_abm.abm.server import ParameterServer
from fcfn_abm.abm.verdict import Judge, Verdict
from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import (
    StackelbergEquilibrium,
    averaged_nodes,
    exploitability,
    nash_equilibrium,
    server_utility,
    stackelberg_equilibrium,
)
from fcfn_abm.learning import LEARNING_RULES, SERVER_RULES
from fcfn_abm.population import RHO_LAWS, draw_rho
from fcfn_abm.rng import stream
from fcfn_abm.scenario import Scenario


@dataclass(frozen=True)
class RoundState:
    """What is measured at the end of a round."""

    round: int
    """Number of the round, from 1."""
    budget: float
    """Announced payment cap B, in currency."""
    total_epsilon: float
    """S, the sum of all reports."""
    mean_epsilon: float
    """eps_g, over the nodes that ``game.average_over`` names."""
    n_active: int
    """Nodes that reported more than zero."""
    n_exited: int
    """Nodes that have left."""
    payment: float
    """What the server paid to all nodes together, in currency."""
    node_utility: float
    """Sum of the nodes' utilities, in currency."""
    server_utility: float
    """Utility of the server, in currency."""
    welfare: float
    """Sum of both, in currency."""
    exploitability: float
    """Largest gain of a node from moving alone, as a share of B."""
    change: float
    """Largest change of an epsilon since the last round, as a share of the largest epsilon."""
    distance: float
    """Largest distance of an epsilon to the closed form at this B, as a share of its largest."""


class PrivacyMarket(mesa.Model):
    """Edge nodes that sell privacy to a parameter server, round by round.

    Parameters
    ----------
    scenario : Scenario, optional
        The experiment; without one, the defaults.
    rho : array_like of float, shape (n_nodes,), optional
        Unit privacy costs, in place of those that the scenario's law would draw.
    rng : numpy.random.Generator or int, optional
        Source of chance for rules that draw, in place of the scenario's own stream.

    Attributes
    ----------
    columns : NodeColumns
        The state of all nodes, one array a quantity.
    nodes : list of EdgeNode
        The node agents, by row.
    server : ParameterServer
        The leader.
    datacollector : mesa.DataCollector
        One row a round, the fields of :class:`RoundState`; with ``record.traces = "all"`` also
        every node in every round.
    verdict : Verdict or None
        How the market ended; None while it is running.

    Raises
    ------
    InvalidGameError
        If ``rho`` does not fit the scenario.

    Examples
    --------
    >>> market = PrivacyMarket(Scenario(seed=1))
    >>> market.run_until().kind
    'converged'
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        rho: Any = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self._settings = scenario or Scenario()
        super().__init__(rng=stream(self._settings.seed, "game") if rng is None else rng)
        settings, game = self._settings, self._settings.game
        if rho is None:
            law = RHO_LAWS.create(settings.population.rho.kind, settings.population.rho.options)
            rho = draw_rho(law, settings.population.n_nodes, stream(settings.seed, "population"))
        self.rule = LEARNING_RULES.create(settings.learning.kind, settings.learning.options)
        self.columns = NodeColumns.of(np.array(rho, dtype=float), self.rule.memory)
        if len(self.columns) != settings.population.n_nodes:
            raise InvalidGameError(
                f"rho has {len(self.columns)} entries, but population.n_nodes = "
                f"{settings.population.n_nodes}."
            )
        self.equilibrium: StackelbergEquilibrium = stackelberg_equilibrium(
            self.columns.rho, game.alpha, game.beta, game.average_over
        )
        self._play = ORDERS[settings.rounds.order]
        self._judge = Judge(
            settings.rounds.tolerance, settings.rounds.patience, settings.rounds.maximum
        )
        self.server = ParameterServer(
            self,
            SERVER_RULES.create(settings.server.kind, settings.server.options),
            game.beta / 2 if game.budget is None else game.budget,
        )
        self.nodes = [EdgeNode(self, row) for row in range(len(self.columns))]
        self.round_index = 0
        self.verdict: Verdict | None = None
        self.columns.epsilon = self._first_reports()
        self.total_epsilon = float(self.columns.epsilon.sum())
        self.datacollector = mesa.DataCollector(
            model_reporters={f.name: _reporter(f.name) for f in fields(RoundState)},
            agenttype_reporters=(
                {EdgeNode: {name: name for name in ("epsilon", "payment", "utility")}}
                if settings.record.traces == "all"
                else {}
            ),
        )

    @property
    def scenario(self) -> Scenario:
        """The experiment that this market carries out."""
        return self._settings

    @scenario.setter
    def scenario(self, scenario: object) -> None:
        """Ignore the placeholder that Mesa puts here: ours is frozen and stays."""

    @property
    def budget(self) -> float:
        """The announced payment cap B, in currency."""
        return self.server.budget

    @property
    def n_active(self) -> int:
        """How many nodes reported more than zero in the last round that was played."""
        return self._n_active

    def step(self) -> None:
        """Play one round of the market, in the order of the paper's fig. 3."""
        self.round_index += 1
        before = (self.columns.epsilon.copy(), self.budget)
        self.server.announce_budget()
        self.withdraw()
        self._play(self)
        self.server.pay()
        self.leave()
        self.measure(*before)
        self.datacollector.collect(self)

    def withdraw(self) -> None:
        """Take out the reports of the nodes that left, and sum up afresh."""
        self.columns.epsilon = np.where(self.columns.exited, 0.0, self.columns.epsilon)
        self.total_epsilon = float(self.columns.epsilon.sum())

    def leave(self) -> None:
        """Let those nodes go for which staying out has been best for long enough."""
        columns = self.columns
        leaving = ~columns.exited & (columns.idle_rounds >= self.scenario.exit.patience)
        columns.exit_round[leaving] = self.round_index

    def measure(self, epsilon_before: Floats, budget_before: float) -> None:
        """Work out the state of this round, and whether the market is over."""
        columns, game = self.columns, self.scenario.game
        epsilon, budget = columns.epsilon, self.budget
        self.total_epsilon = float(epsilon.sum())
        self._n_active = int(np.count_nonzero(epsilon))
        n_averaged = averaged_nodes(game.average_over, self._n_active, epsilon.size)
        mean_epsilon = self.total_epsilon / n_averaged if n_averaged else 0.0
        paid = float(columns.payment.sum())
        server = server_utility(mean_epsilon, game.alpha, game.beta, paid)
        nodes = float(columns.utility.sum())
        target = budget * self._unit_equilibrium
        self.state = RoundState(
            round=self.round_index,
            budget=budget,
            total_epsilon=self.total_epsilon,
            mean_epsilon=mean_epsilon,
            n_active=self._n_active,
            n_exited=int(np.count_nonzero(columns.exited)),
            payment=paid,
            node_utility=nodes,
            server_utility=server,
            welfare=server + nodes,
            exploitability=exploitability(epsilon, columns.rho, budget, game.epsilon_floor),
            change=_relative(epsilon - epsilon_before, epsilon_before),
            distance=_relative(epsilon - target, target),
        )
        self.verdict = self._judge.see(
            exploitability=self.state.exploitability,
            change=self.state.change,
            budget_change=_relative(np.array([budget - budget_before]), np.array([budget_before])),
            distance=self.state.distance,
            resting=budget == 0 and self.total_epsilon == 0,
        )
        self.running = self.verdict is None

    def run_until(
        self,
        end_time: float | None = None,
        on_round: Callable[[PrivacyMarket], None] | None = None,
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

    @cached_property
    def _unit_equilibrium(self) -> Floats:
        """The closed form at B = 1; it grows in proportion to B."""
        return nash_equilibrium(self.columns.rho, 1.0).epsilon

    def _first_reports(self) -> Floats:
        """Return what nodes report before they have seen anything."""
        n_nodes, start = len(self.columns), self.scenario.rounds.start
        self._n_active = n_nodes
        if start == "cold":
            return np.full(n_nodes, self.scenario.game.epsilon_floor)
        if start == "warm":
            return self.budget * self._unit_equilibrium
        alike = self.budget * (n_nodes - 1) / (n_nodes**2 * self.columns.rho)
        chance = stream(self.scenario.seed, "game", 0)
        return np.asarray(alike * chance.uniform(0.5, 1.5, n_nodes))


def round_row(market: PrivacyMarket) -> dict[str, Any]:
    """Return the measurements of the last round."""
    return asdict(market.state)


def _reporter(name: str) -> Callable[[PrivacyMarket], Any]:
    return lambda market: getattr(market.state, name)


def _relative(difference: Floats, of: Floats) -> float:
    scale = float(np.abs(of).max(initial=0.0))
    size = float(np.abs(difference).max(initial=0.0))
    return size / scale if scale > 0 else (float("inf") if size > 0 else 0.0)
