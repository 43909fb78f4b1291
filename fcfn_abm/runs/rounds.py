"""What a round of a run is: the market moves, the net trains, and both are recorded.

The one loop of the program: runs, sweeps, calibrations and the live window take their steps here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fcfn_abm.training import TrainingRound

type Floats = npt.NDArray[np.float64]


class Reporters(Protocol):
    """Who reports epsilon round by round: a market, or nodes whose reports are known."""

    @property
    def running(self) -> bool:
        """Whether reports may still change."""
        ...

    @property
    def epsilon(self) -> Floats:
        """The reports that stand, shape (n_nodes,)."""
        ...

    @property
    def sells(self) -> bool:
        """Whether the reports that stand are still for sale: a server may have stopped buying."""
        ...

    def step(self) -> None:
        """Make the reports of the next round."""
        ...


class Trains(Protocol):
    """Trains a net round by round: :class:`fcfn_abm.training.Training`, or a stand-in for it."""

    results: list[TrainingRound]
    """One entry for each finished round; the first is of the net before training."""

    @property
    def round_index(self) -> int:
        """The last finished round; 0 before the first."""
        ...

    def step(self, epsilon: Floats) -> TrainingRound:
        """Train one round with these reports, shape (n_nodes,)."""
        ...


class Learns(Protocol):
    """What learns from the rounds of training: :class:`fcfn_abm.runs.closed_loop.ValueLoop`."""

    def begin_round(self) -> None:
        """Prepare the next round of the reporters, which has not begun."""
        ...

    def end_round(self, results: Sequence[TrainingRound]) -> None:
        """Take in a round of training, whose result is the last."""
        ...


class KnownReports:
    """Reports that are known beforehand, one array a round; the last ones stand for good.

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
        """Whether the reports that stand are still for sale: always."""
        return True

    @property
    def epsilon(self) -> Floats:
        """The reports that stand, shape (n_nodes,)."""
        return self._reports[max(self._n_made - 1, 0)]

    def step(self) -> None:
        """Take the reports of the next round."""
        self._n_made += 1


class Rounds[Trainee: Trains]:
    """The rounds of a run, taken one by one.

    Parameters
    ----------
    reporters : Reporters
        Who reports epsilon; a :class:`fcfn_abm.PrivacyMarket`.
    record : callable, optional
        Called after each round of the reporters, before the net trains.
    begin : callable, optional
        Begins the training, when its first round is due; without it no net is trained.
    n_rounds : int, default 0
        How many rounds the net trains.
    every_round : bool, default False
        Whether a round of training follows each round of reports; else training begins when
        reports no longer change, and not at all where all of them are zero.
    learner : Learns, optional
        With ``every_round``, learns from each round of training before the next one begins.

    Attributes
    ----------
    training : Trains or None
        None before it begins.
    reports : list of ndarray of float
        With ``every_round``, what nodes reported in each round of training.
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
        """Whether reports no longer change, and the net has trained its last round."""
        return not (self._reporters.running or self.trains_next)

    def begin_training(self) -> Trainee:
        """Begin the training now: the net is tested as it is, or taken up where it stood."""
        if self._begin is None:
            raise ValueError("these rounds train no net")
        if self.training is None:
            self.training = self._begin()
        return self.training

    def stop_training(self) -> None:
        """Train no more: the rounds that are left are the market's alone."""
        self._begin = None

    def step(self) -> TrainingRound | None:
        """Take one round; return how good the net is after it, if it has trained.

        A training that was taken up where it stood has trained its first rounds already: in those
        nodes report as they did, and nothing is returned.

        Raises
        ------
        RunFailedError
            If training breaks down.
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
