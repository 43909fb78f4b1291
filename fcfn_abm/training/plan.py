"""The plan of a training and its results, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp import AdaptiveClipping, Calibration, Currency, Relation
from fcfn_abm.errors import (
    InvalidDataError,
    InvalidPrivacyError,
    require_between,
    require_counts,
    require_one_of,
)
from fcfn_abm.training.aggregate import Aggregation
from fcfn_abm.training.gradients import Precision
from fcfn_abm.training.local_steps import LocalSteps
from fcfn_abm.training.nets import Net
from fcfn_abm.training.placements import Placement, ReleasePlan
from fcfn_abm.training.server_steps import (
    Averaging,
    NoAveraging,
    ServerOptimiser,
    ServerSgd,
)

type Floats = npt.NDArray[np.float64]
type Horizon = Literal["round", "training"]
type NoiseOf = Literal["nodes", "sum"]
type View = Literal["local", "central"]


@dataclass(frozen=True)
class Chances:
    """Probabilities that a node takes part in a round, independently in each round."""

    participation: float = 1.0
    """Probability that it is asked."""
    dropping: float = 0.0
    """Probability that it fails before sending anything: nothing is released."""
    straggling: float = 0.0
    """Probability that it sends too late: its privacy is spent, but its update is not used."""

    def __post_init__(self) -> None:
        """Raise InvalidDataError for values that are not probabilities or exclude all nodes."""
        if not 0 < self.participation <= 1:
            raise InvalidDataError(
                f"participation must be above 0 and at most 1, not {self.participation}."
            )
        for name in ("dropping", "straggling"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidDataError(
                    f"{name} must be at least 0 and below 1, not {getattr(self, name)}."
                )


@dataclass(frozen=True)
class TrainingPlan:
    """Task, method and privacy of a training."""

    net: Net
    placement: Placement
    aggregation: Aggregation
    rounds: int
    steps: LocalSteps
    delta: float
    calibration: Calibration
    horizon: Horizon
    neighbours: Relation
    seed: int
    secure_noise: bool = False
    """Whether noise comes from the operating system, on a grid that releases are rounded to."""
    false_alarm: float | None = None
    """Probability that the server's check ever flags a truthful node; None for no
    check."""
    chances: Chances = Chances()
    """Probabilities that a node takes part in a round."""
    noise_of: NoiseOf = "nodes"
    """Whether noise is drawn for each node, or once for the weighted sum. Both have the same
    distribution if each node adds noise once per round, without a grid, and uploads are
    unchecked."""
    adaptive_clipping: AdaptiveClipping | None = None
    """Adaptation of the clipping norm; None keeps that of :attr:`steps`."""
    view: View = "local"
    """Whether an epsilon holds against an observer of a node's own messages, or against a server
    that sees only the weighted sum."""
    quorum: float = 1.0
    """In the central view: share of the nodes asked whose updates must arrive in time for the sum
    to be revealed; this many nodes suffice to hide each of them as agreed."""
    precision: Precision = "fp32"
    """Precision of the layers."""
    max_participations: int | None = None
    """Most rounds in which a node takes part; None for the default, :attr:`participation_limit`."""
    server: ServerOptimiser = field(default_factory=ServerSgd)
    """Optimiser with which the server applies an aggregate."""
    averaging: Averaging = field(default_factory=NoAveraging)
    """Average of the rounds' parameters that is evaluated."""
    currency: Currency = "epsilon"
    """What nodes report: epsilon at :attr:`delta`, or the rho of zCDP, for which sigma is
    ``sensitivity / sqrt(2 rho)`` and no calibration is needed."""

    def __post_init__(self) -> None:
        """Raise InvalidPrivacyError or InvalidDataError for inconsistent settings."""
        wrong = InvalidPrivacyError
        require_one_of(Relation, error=wrong, neighbours=self.neighbours)
        require_one_of(Horizon, error=wrong, horizon=self.horizon)
        require_one_of(Calibration, error=wrong, calibration=self.calibration)
        require_one_of(NoiseOf, error=wrong, noise_of=self.noise_of)
        require_one_of(View, error=wrong, view=self.view)
        require_one_of(Currency, error=wrong, currency=self.currency)
        if self.currency == "zcdp" and self.placement.sampling_rate < 1:
            raise InvalidPrivacyError(
                "zCDP has no advantage with sampled data, and its rho is not defined here, but the "
                f"sampling rate is {self.placement.sampling_rate:g}."
            )
        if not 0 < self.quorum <= 1:
            raise InvalidPrivacyError(f"quorum must be above 0 and at most 1, not {self.quorum:g}.")
        require_one_of(Precision, error=InvalidDataError, precision=self.precision)
        require_between(0, 1, error=wrong, delta=self.delta)
        if self.false_alarm is not None:
            require_between(0, 1, error=wrong, false_alarm=self.false_alarm)
        require_counts(error=InvalidDataError, rounds=self.rounds)
        if self.adaptive_clipping and self.secure_noise:
            raise InvalidPrivacyError(
                "secure noise needs a fixed clipping norm for its grid, not an adaptive one."
            )
        if self.max_participations is not None:
            require_counts(error=wrong, max_participations=self.max_participations)
        if self.placement.sampling_rate < 1 and self.steps.batch_size is not None:
            raise InvalidDataError(
                f"batch_size = {self.steps.batch_size} is incompatible with a sampling rate "
                f"of {self.placement.sampling_rate:g}, which sets the number of samples per step."
            )

    @property
    def participation_limit(self) -> int:
        """Most rounds in which a node takes part, which a total epsilon covers.

        By default all rounds if epsilon is per round; if it is a total, the expected number of
        rounds in which a node takes part, rounded up.
        """
        if self.max_participations is not None:
            return min(self.max_participations, self.rounds)
        if self.horizon == "round":
            return self.rounds
        expected = self.rounds * self.chances.participation * (1 - self.chances.dropping)
        return max(math.ceil(expected - 1e-9), 1)  # a product of decimals may be slightly larger

    def count_quorum(self, n_asked: int) -> int:
        """Return the number of updates that must arrive in time if ``n_asked`` nodes are asked."""
        return max(math.ceil(self.quorum * n_asked - 1e-9), 1)

    def plan_releases(self, n_samples: npt.NDArray[np.int64]) -> list[ReleasePlan]:
        """Return the releases of each node per round; nodes with equal sizes share a plan.

        Parameters
        ----------
        n_samples : ndarray of int, shape (n_nodes,)
            Samples of each node.
        """
        by_size = {
            size: self.placement.releases(self.steps, size, self.neighbours)
            for size in np.unique(n_samples).tolist()
        }
        return [by_size[size] for size in n_samples.tolist()]


@dataclass(frozen=True)
class NodePrivacy:
    """Noise and true epsilon of each node in this training, arrays of shape (n_nodes,).

    The noise is that which hides the node from the adversary of its epsilon: its own noise; or,
    against the server, the noise of the weighted sum, in units of the node's share of it.
    """

    sensitivity: Floats
    """L2 sensitivity of one release, including rounding with secure noise."""
    noise_multiplier: Floats
    """Noise standard deviation divided by sensitivity; infinite for inactive nodes."""
    noise_std: Floats
    """Noise standard deviation on each parameter, in units of the release."""
    epsilon_per_round: Floats
    """True epsilon of one round."""
    epsilon_total: Floats
    """True epsilon of all rounds in which the node may take part, by composition: exact, or a
    close upper bound for sampled data."""
    delta: float
    """Delta of both epsilons."""


@dataclass(frozen=True)
class TrainingRound:
    """Results of the net after a round."""

    round: int
    """Number of the round; 0 is before training."""
    accuracy: float
    """Share of correctly classified test images."""
    loss: float
    """Mean cross entropy on the test images."""
    signal_to_noise: float
    """Norm of the clean aggregate divided by the norm of its noise; infinite without noise."""
    n_nodes: int
    """Number of aggregated updates."""
