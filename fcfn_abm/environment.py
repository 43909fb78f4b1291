"""The market as a PettingZoo environment, for agents of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.errors import InvalidGameError, InvalidScenarioError, MissingExtraError, as_floats
from fcfn_abm.learning import LearningRule, Observation, ServerObservation, ServerRule
from fcfn_abm.mechanisms import Contracts
from fcfn_abm.mechanisms.terms import read_terms
from fcfn_abm.scenario import Scenario
from fcfn_abm.scenario.load import require_scenario

try:
    from gymnasium.spaces import Box
    from pettingzoo import ParallelEnv
except ImportError as error:
    raise MissingExtraError(
        "fcfn_abm.env needs PettingZoo: install the extra 'env' (pip install 'fcfn-abm[env]')."
    ) from error

type Floats = npt.NDArray[np.float64]
type ByAgent[T] = dict[str, T]

SERVER = "server"
NODE_NAMES = (*("budget", "rho", "epsilon", "others", "n_active", "payment", "utility", "moves"),)
"""What a node observes, in this order; then every report where reports are public."""
SERVER_NAMES = ("budget", "alpha", "beta", "total_epsilon", "n_active", "utility")
"""What the server observes, in this order; then every report."""


def env(scenario: Scenario | None = None, *, server: bool = False, rho: Any = None) -> MarketEnv:
    """Return the market of a scenario as a PettingZoo parallel environment.

    Parameters
    ----------
    scenario : Scenario, optional
        The experiment; the agents' actions replace its learning rule. By default the default
        scenario.
    server : bool, default False
        Whether the server is an agent as well; otherwise the scenario's server rule sets the cap.
    rho : array_like of float, shape (n_nodes,), optional
        Unit privacy costs, in place of those drawn by the scenario.

    Returns
    -------
    MarketEnv
        With an agent ``"node_0"``, ``"node_1"``, ... for each node, and ``"server"``.

    Raises
    ------
    MissingExtraError
        If PettingZoo, the extra ``env``, is not installed.
    InvalidScenarioError
        If the scenario has churn, or a mechanism that offers contracts instead of a contest.

    Examples
    --------
    >>> market = env(Scenario(seed=1), rho=[0.001] * 50)
    >>> observations, infos = market.reset(seed=1)
    >>> market.observation_names("node_0")[:4]
    ('budget', 'rho', 'epsilon', 'others')
    >>> actions = {agent: np.array([0.1]) for agent in market.agents}
    >>> rewards = market.step(actions)[1]
    >>> bool(np.isclose(rewards["node_0"], 5 / 50 - 0.1 * 5 / 4))  # B / n - rho epsilon
    True
    """
    return MarketEnv(Scenario() if scenario is None else scenario, server=server, rho=rho)


class MarketEnv(ParallelEnv[str, Floats, Floats]):
    """A market that is played by external agents; one step is one round.

    **Actions** are arrays of one number from 0 to 1. A node that takes ``a`` reports
    ``a * B / (4 rho)``: no best response exceeds ``B / (4 rho)``, and a larger report earns less
    than that one whatever the others do. A server that takes ``a`` sets the cap ``a * beta``, which
    B* never reaches (41): the cap of the next round, which nodes observe before they answer it; or,
    with ``rounds.payment = "after-reports"``, that of this round. All agents act on the state
    before
    the round, so that ``rounds.order`` has no effect. Actions of nodes that do not move in a round
    (``moves`` is 0 in their observation) are ignored.

    **Observations** are arrays of the numbers that :meth:`observation_names` lists, in currency and
    in units of epsilon, limited to what the scenario's ``[information]`` makes public: the others'
    total with its errors, and reports only where they are public.

    **Rewards** are the utilities of the round, in currency.

    Agents are truncated after ``rounds.maximum`` rounds. A node that has left for good, which
    requires ``exit.reentry = false``, is terminated.

    Attributes
    ----------
    market : PrivacyMarket
        The current market; :meth:`reset` creates a new one.
    agents, possible_agents : list of str
        Current agents, and all agents.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "fcfn_market_v0", "render_modes": []}

    def __init__(self, scenario: Scenario, *, server: bool = False, rho: Any = None) -> None:
        require_scenario(scenario, "env")
        if scenario.population.churn is not None:
            raise InvalidScenarioError(
                "an environment needs the same agents in all rounds.", table="population.churn"
            )
        if read_terms(scenario) is not None:
            raise InvalidScenarioError(
                "actions are shares of B / (4 rho), which assumes the cost rho * epsilon; remove "
                "cost, epsilon_max, fixed_cost and reserve."
            )
        self._scenario, self._rho, self.render_mode = scenario, rho, None
        n_nodes = scenario.population.n_nodes
        self._nodes = [f"node_{row}" for row in range(n_nodes)]
        self.possible_agents = [*self._nodes, *([SERVER] if server else [])]
        self.agents: list[str] = []
        self._chosen = np.zeros(n_nodes)
        self._cap = _ChosenCap()
        self._shows_reports = scenario.information.reports == "full"
        self._spaces = {agent: self._create_space(agent) for agent in self.possible_agents}
        self._actions = {agent: Box(0.0, 1.0, (1,), np.float64) for agent in self.possible_agents}
        self.market = self._create_market(None)

    def observation_names(self, agent: str) -> tuple[str, ...]:
        """Return the names of the entries of an agent's observation."""
        names = SERVER_NAMES if agent == SERVER else NODE_NAMES
        if agent == SERVER or self._shows_reports:
            names = (*names, *(f"epsilon of {node}" for node in self._nodes))
        return names

    def observation_space(self, agent: str) -> Box:
        """Return the space of an agent's observations."""
        return self._spaces[agent]

    def action_space(self, agent: str) -> Box:
        """Return the space of an agent's actions: one number from 0 to 1."""
        return self._actions[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ByAgent[Floats], ByAgent[dict[str, Any]]]:
        """Start a new market.

        Parameters
        ----------
        seed : int, optional
            Seed of all random numbers, costs included, in place of the scenario's.
        options : dict, optional
            PettingZoo's options; not used.

        Returns
        -------
        observations, infos : dict
            By agent; the infos are empty.
        """
        del options
        self.market = self._create_market(seed)
        self.agents = list(self.possible_agents)
        self.market.open_round()
        return self._observe(self.agents), {agent: {} for agent in self.agents}

    def step(
        self, actions: Mapping[str, Floats]
    ) -> tuple[
        ByAgent[Floats],
        ByAgent[float],
        ByAgent[bool],
        ByAgent[bool],
        ByAgent[dict[str, Any]],
    ]:
        """Play a round.

        Parameters
        ----------
        actions : dict
            A number from 0 to 1, or an array of one, for each of :attr:`agents`.

        Returns
        -------
        observations, rewards, terminations, truncations, infos : dict
            By agent. The info of a node holds its ``epsilon`` and ``payment`` in this round.

        Raises
        ------
        InvalidGameError
            If an agent has no action, or an action that is not a number from 0 to 1.
        """
        market, playing = self.market, self.agents
        columns = market.columns
        chosen = {agent: _check_action(actions, agent) for agent in playing}
        if SERVER in chosen:
            self._cap.value = chosen.pop(SERVER) * market.server.game.beta
        self._chosen[:] = 0.0
        for agent, share in chosen.items():
            self._chosen[self._row(agent)] = share
        self._chosen *= 0.25 * market.answered_pool / columns.rho
        market.close_round()
        rewards: ByAgent[float] = {}
        infos: ByAgent[dict[str, Any]] = {}
        gone = columns.exited.copy()
        for group in market.groups:
            gone[group.rows] &= not group.exit.reentry
        terminated = dict.fromkeys(playing, False)
        for agent in playing:
            if agent == SERVER:
                rewards[agent], infos[agent] = market.state.server_utility, {}
                continue
            row = self._row(agent)
            rewards[agent] = columns.utility.item(row)
            infos[agent] = {
                "epsilon": columns.epsilon.item(row),
                "payment": columns.payment.item(row),
            }
            terminated[agent] = bool(gone[row])
        ended = market.round_index >= market.scenario.rounds.maximum
        self.agents = [agent for agent in playing if not ended and not terminated[agent]]
        market.open_round()
        return (
            self._observe(playing),
            rewards,
            terminated,
            dict.fromkeys(playing, ended),
            infos,
        )

    def _create_market(self, seed: int | None) -> PrivacyMarket:
        """Return a market that waits for actions."""
        market = PrivacyMarket(self._scenario, rho=self._rho, rng=seed, collect_nodes=False)
        if isinstance(market.offer, Contracts):
            raise InvalidScenarioError(
                "an environment needs a contest, not a mechanism that offers contracts.",
                table="mechanism",
                key="kind",
            )
        market.set_rule(_ChosenReports(self._chosen))
        if SERVER in self.possible_agents:
            self._cap.value = market.budget
            market.server.rule = self._cap
        return market

    def _create_space(self, agent: str) -> Box:
        low = np.zeros(len(self.observation_names(agent)))
        names = SERVER_NAMES if agent == SERVER else NODE_NAMES
        low[names.index("utility")] = -np.inf
        return Box(low, np.inf, dtype=np.float64)

    @staticmethod
    def _row(agent: str) -> int:
        return int(agent.removeprefix("node_"))

    def _observe(self, agents: list[str]) -> ByAgent[Floats]:
        """Return the observations of agents before a round."""
        market = self.market
        columns, shown = market.columns, market.bulletin
        epsilon = columns.epsilon
        moves = np.zeros(epsilon.size)
        moves[market.movers] = 1.0
        own = np.column_stack(
            [
                np.full(epsilon.size, market.answered_pool),
                columns.rho,
                epsilon,
                shown.others(epsilon, slice(None)),
                np.full(epsilon.size, market.n_active),
                columns.payment,
                columns.utility,
                moves,
            ]
        )
        reports = shown.reports(epsilon)
        public = own[0, :0] if reports is None else reports
        seen = {
            agent: np.concatenate((own[self._row(agent)], public))
            for agent in agents
            if agent != SERVER
        }
        if SERVER in agents:
            game, played = market.server.game, market.round_index > 1
            utility = market.state.server_utility if played else 0.0
            known = (game.alpha, game.beta, float(epsilon.sum()), market.n_active, utility)
            seen[SERVER] = np.array([market.budget, *known, *epsilon], dtype=float)
        return seen


class _ChosenReports(LearningRule):
    """Reports that are set from outside."""

    def __init__(self, epsilon: Floats) -> None:
        self._epsilon = epsilon

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        chosen: Any = self._epsilon[seen.row]
        return float(chosen) if isinstance(seen.epsilon, float) else np.asarray(chosen)

    def watches_total(self) -> bool:
        return False


class _ChosenCap(ServerRule):
    """A cap that is set from outside."""

    def __init__(self) -> None:
        self.value = 0.0

    def next_budget(self, seen: ServerObservation) -> float:
        del seen
        return self.value


def _check_action(actions: Mapping[str, Any], agent: str) -> float:
    """Return the action of an agent as a number from 0 to 1."""
    if not (isinstance(actions, Mapping) and agent in actions):
        raise InvalidGameError(f"{agent!r} has no action.")
    action = as_floats(f"the action of {agent!r}", actions[agent])
    if action.size != 1 or not 0.0 <= action.item() <= 1.0:
        raise InvalidGameError(
            f"The action of {agent!r} must be one number from 0 to 1, but is {action.tolist()}."
        )
    return float(action.item())
