"""Simulated training with a known value of epsilon, for tests and quick studies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.game import averaged_nodes, takes_part
from fcfn_abm.game.stackelberg import AverageOver
from fcfn_abm.records import Recorder
from fcfn_abm.records.tables import empty
from fcfn_abm.rng import stream
from fcfn_abm.runs.closed_loop import Regret, ValueLoop, compute_regret
from fcfn_abm.runs.rounds import Rounds
from fcfn_abm.scenario import RecordSettings, Scenario
from fcfn_abm.training import TrainingRound

type Floats = npt.NDArray[np.float64]

_FIRST = 0.1  # accuracy of the untrained net


@dataclass(frozen=True)
class TrueValue:
    """The true gain of a round of training: ``beta ln(1 + alpha eps) - k S``, and noise."""

    alpha: float
    """Per unit of epsilon."""
    beta: float
    """In units of accuracy: currency over ``value.price``."""
    depreciation: float = 0.1
    """k, the share of the stock S lost per round."""
    noise: float = 0.03
    """Standard deviation of the normal noise of a round's gain."""


class SimulatedTraining:
    """Acts like a training, but gains accuracy by a known rule instead of training a net.

    Accuracy is not limited to one, so that the rule holds exactly. The loss falls as it rises.

    Parameters
    ----------
    truth : TrueValue
        The rule.
    seed : int, default 0
        Root of the noise, which is the same for all epsilons.
    average_over : {"active", "population", "effective"}
        Nodes over which the mean epsilon is taken.

    Examples
    --------
    >>> training = SimulatedTraining(TrueValue(alpha=1.0, beta=0.1, noise=0.0))
    >>> round(training.step(np.array([1.0, 1.0])).accuracy, 4)  # 0.1 + 0.1 ln 2
    0.1693
    """

    def __init__(
        self, truth: TrueValue, seed: int = 0, average_over: AverageOver = "active"
    ) -> None:
        self._truth, self._seed, self._average_over = truth, seed, average_over
        self.results = [TrainingRound(0, _FIRST, -math.log(_FIRST), math.inf, 0)]

    @property
    def round_index(self) -> int:
        """The last finished round; 0 before the first."""
        return len(self.results) - 1

    def step(self, epsilon: Floats) -> TrainingRound:
        """Train one round; with all epsilons zero the net does not change."""
        truth, before, index = self._truth, self.results[-1], self.round_index + 1
        n_averaged = averaged_nodes(self._average_over, epsilon)
        gain = 0.0
        if n_averaged:
            noise = truth.noise * stream(self._seed, "simulated-gain", index).standard_normal()
            mean = float(epsilon.sum()) / n_averaged
            stock = before.accuracy - _FIRST
            gain = truth.beta * math.log1p(truth.alpha * mean) - truth.depreciation * stock + noise
        n_nodes = int(np.count_nonzero(takes_part(epsilon)))
        now = TrainingRound(index, before.accuracy + gain, before.loss - gain, math.inf, n_nodes)
        self.results.append(now)
        return now


@dataclass(frozen=True)
class SimulatedRun:
    """A closed loop with a simulated training."""

    rounds: pd.DataFrame
    """As in a record; no privacy is spent."""
    regret: Regret
    """Exact, computed with the true value."""
    learner: ValueLoop
    """Final estimates of the server."""


def simulate_loop(scenario: Scenario, truth: TrueValue) -> SimulatedRun:
    """Play the closed loop of a scenario with a simulated training in place of its net.

    Parameters
    ----------
    scenario : Scenario
        A complete, validated scenario with a [value] table.
    truth : TrueValue
        Rule of the simulated net.

    Raises
    ------
    InvalidScenarioError
        If the scenario has no [value] table.
    """
    if scenario.value is None or scenario.training is None:
        raise InvalidScenarioError("is required for a simulated loop.", table="value")
    market = PrivacyMarket(scenario, is_checked=True)
    learner = ValueLoop(market, scenario.value, scenario.training.rounds)
    recorder = Recorder(RecordSettings(traces="none"), market.columns.rho)
    rounds = Rounds(
        market,
        lambda: recorder(market),
        begin=lambda: SimulatedTraining(truth, scenario.seed, scenario.game.average_over),
        n_rounds=scenario.training.rounds,
        every_round=True,
        learner=learner,
    )
    while rounds.trains_next:
        rounds.step()
    table = learner.extend(recorder.rounds, empty("ledger"))
    regret = compute_regret(
        market,
        truth.alpha,
        truth.beta * scenario.value.price,
        table["mean_epsilon"].tolist(),
        table["payment"].tolist(),
    )
    return SimulatedRun(table, regret, learner)
