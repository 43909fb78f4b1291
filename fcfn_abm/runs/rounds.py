"""The rounds of a run: the market moves, the net trains, and both are recorded.

Runs, sweeps, calibrations and the live window all share this loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fcfn_abm.training import TrainingRound

type Floats = npt.NDArray[np.float64]


class Reporters(Protocol):
    """A source of reports: a market, or nodes with known reports."""

    @property
    def running(self) -> bool:
        """Whether reports may still change."""
        ...

    @property
    def epsilon(self) -> Floats:
        """The current reports, shape (n_nodes,)."""
        ...

    @property
    def sells(self) -> bool:
        """Whether the server still buys the current reports."""
        ...

    def step(self) -> None:
        """Make the reports of the next round."""
        ...


class Trains(Protocol):
    """Trains a net round by round: :class:`fcfn_abm.training.Training`, or a stand-in for it."""

    results: list[TrainingRound]
    """One entry per finished round; the first is the net before training."""

    @property
    def round_index(self) -> int:
        """The last finished round; 0 before the first."""
        ...

    def step(self, epsilon: Floats) -> TrainingRound:
        """Train one round with these reports, shape (n_nodes,)."""
        ...


class Learns(Protocol):
    """A learner from the rounds of training: :class:`fcfn_abm.runs.closed_loop.ValueLoop`."""

    def begin_round(self) -> None:
        """Prepare the next round of the reporters, which has not started."""
        ...

    def end_round(self, results: Sequence[TrainingRound]) -> None:
        """Process a round of training, whose result is the last."""
        ...


class KnownReports:
    """Known reports, one array per round; the last ones stay.

    Parameters
    ----------
    reports : sequence of ndarray of float, shape (n_nodes,)
        The reports of the first rounds, one round or more.
    """

    def __init__(self, reports: Sequence[Floats]) -> None:
        self._reports = reports
        self._n_made = 0

    @property
    def running(self) -> bool:
        """Whether reports may still change."""
        return len(self._reports) > 1 and self._n_made < len(self._reports)

    @property
    def sells(self) -> bool:
        """Whether the server still buys the current reports: always."""
        return True

    @property
    def epsilon(self) -> Floats:
        """The current reports, shape (n_nodes,)."""
        return self._reports[max(self._n_made - 1, 0)]

    def step(self) -> None:
        """Advance to the reports of the next round."""
        self._n_made += 1


class Rounds[Trainee: Trains]:
    """The rounds of a run, one by one.

    Parameters
    ----------
    reporters : Reporters
        Source of the reports, such as a :class:`fcfn_abm.PrivacyMarket`.
    record : callable, optional
        Called after each round of the reporters, before the net trains.
    begin : callable, optional
        Starts the training when its first round is due; without it no net is trained.
    n_rounds : int, default 0
        Number of rounds of training.
    every_round : bool, default False
        Whether a round of training follows each round of reports; otherwise training starts when
        reports no longer change, unless all of them are zero.
    learner : Learns, optional
        With ``every_round``, learns from each round of training before the next one starts.

    Attributes
    ----------
    training : Trains or None
        None before it starts.
    reports : list of ndarray of float
        With ``every_round``, the reports in each round of training.
    """

    def __init__(
        self,
        reporters: Reporters,
        record: Callable[[], None] | None = None,
        *,
        begin: Callable[[], Trainee] | None = None,
        n_rounds: int = 0,
        every_round: bool = False,
        learner: Learns | None = None,
    ) -> None:
        self._reporters, self._record = reporters, record
        self._begin, self._n_rounds, self._every_round = begin, n_rounds, every_round
        self._n_trained, self._learner = 0, learner
        self.training: Trainee | None = None
        self.reports: list[Floats] = []

    @property
    def trains_next(self) -> bool:
        """Whether the net trains in the next round."""
        if self._begin is None or self._n_trained == self._n_rounds or not self._reporters.sells:
            return False
        if self._every_round:
            return True
        return not self._reporters.running and bool((self._reporters.epsilon > 0).any())

    @property
    def over(self) -> bool:
        """Whether reports no longer change and training is complete."""
        return not (self._reporters.running or self.trains_next)

    def begin_training(self) -> Trainee:
        """Start the training now: evaluate the initial net, or resume from a checkpoint."""
        if self._begin is None:
            raise ValueError("these rounds have no training")
        if self.training is None:
            self.training = self._begin()
        return self.training

    def stop_training(self) -> None:
        """Stop training; the remaining rounds are rounds of the market."""
        self._begin = None

    def step(self) -> TrainingRound | None:
        """Run one round; return the result of its training, if any.

        A resumed training has already trained its first rounds: in those, nodes report as they
        did, and nothing is returned.

        Raises
        ------
        RunFailedError
            If training fails.
        """
        training = self.begin_training() if self.trains_next else None
        if self._reporters.running:
            if self._learner:
                self._learner.begin_round()
            self._reporters.step()
            if self._record:
                self._record()
        if training is None:
            return None
        epsilon = self._reporters.epsilon
        if self._every_round:
            epsilon = epsilon.copy()
            self.reports.append(epsilon)
        self._n_trained += 1
        result = training.step(epsilon) if self._n_trained > training.round_index else None
        if self._learner:
            self._learner.end_round(training.results[: self._n_trained + 1])
        return result
