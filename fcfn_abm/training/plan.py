"""Plain values: the plan of a training, and its results."""

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
    """Probabilities that a node takes part in a round, independent from round to round."""

    participation: float = 1.0
    """That it is asked."""
    dropping: float = 0.0
    """That it fails before it has sent anything: nothing is released."""
    straggling: float = 0.0
    """That it sends too late: its privacy is spent, and its update is not used."""

    def __post_init__(self) -> None:
        """Raise InvalidDataError for what is no probability, or lets nobody take part."""
        if not 0 < self.participation <= 1:
            raise InvalidDataError(
                f"participation must be above 0, and at most 1, but is {self.participation}."
            )
        for name in ("dropping", "straggling"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidDataError(
                    f"{name} must be at least 0, and below 1, but is {getattr(self, name)}."
                )


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained, how, and under which privacy."""

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
    """Probability with which the server's check ever flags a node that reports the truth; None for
    no check."""
    chances: Chances = Chances()
    """Probabilities that a node takes part in a round."""
    noise_of: NoiseOf = "nodes"
    """Whether noise is drawn for each node, or once for the weighted sum of all, which has the same
    distribution if each node adds noise once a round, without a grid, and nobody checks uploads."""
    adaptive_clipping: AdaptiveClipping | None = None
    """How the clipping norm follows what is clipped; None keeps that of :attr:`steps`."""
    view: View = "local"
    """Whether an epsilon holds against who sees a node's own messages, or against a server that
    sees nothing but the weighted sum."""
    quorum: float = 1.0
    """In the central view: share of the nodes asked whose updates must arrive in time, or else the
    sum is not opened; as many are enough to hide each of them as agreed."""
    precision: Precision = "fp32"
    """Of the layers' work on gradients."""
    max_participations: int | None = None
    """Rounds in which a node takes part at most; None for :attr:`participation_limit`'s choice."""
    server: ServerOptimiser = field(default_factory=ServerSgd)
    """How the server moves the parameters by an aggregate."""
    averaging: Averaging = field(default_factory=NoAveraging)
    """Of which rounds' parameters the mean is evaluated."""
    currency: Currency = "epsilon"
    """What nodes report: epsilon at :attr:`delta`, or the rho of zCDP, for which sigma is
    ``sensitivity / sqrt(2 rho)`` and no calibration is needed."""

    def __post_init__(self) -> None:
        """Raise InvalidPrivacyError or InvalidDataError for what cannot be carried out as asked."""
        wrong = InvalidPrivacyError
        require_one_of(Relation, error=wrong, neighbours=self.neighbours)
        require_one_of(Horizon, error=wrong, horizon=self.horizon)
        require_one_of(Calibration, error=wrong, calibration=self.calibration)
        require_one_of(NoiseOf, error=wrong, noise_of=self.noise_of)
        require_one_of(View, error=wrong, view=self.view)
        require_one_of(Currency, error=wrong, currency=self.currency)
        if self.currency == "zcdp" and self.placement.sampling_rate < 1:
            raise InvalidPrivacyError(
                "zCDP gains nothing where data are sampled, and no rho is claimed for it, but the "
                f"sampling rate is {self.placement.sampling_rate:g}."
            )
        if not 0 < self.quorum <= 1:
            raise InvalidPrivacyError(
                f"quorum must be above 0, and at most 1, but is {self.quorum:g}."
            )
        require_one_of(Precision, error=InvalidDataError, precision=self.precision)
        require_between(0, 1, error=wrong, delta=self.delta)
        if self.false_alarm is not None:
            require_between(0, 1, error=wrong, false_alarm=self.false_alarm)
        require_counts(error=InvalidDataError, rounds=self.rounds)
        if self.adaptive_clipping and self.secure_noise:
            raise InvalidPrivacyError(
                "the grid of secure noise is made for one clipping norm, which must not adapt."
            )
        if self.max_participations is not None:
            require_counts(error=wrong, max_participations=self.max_participations)
        if self.placement.sampling_rate < 1 and self.steps.batch_size is not None:
            raise InvalidDataError(
                f"batch_size = {self.steps.batch_size} does not go together with a sampling rate "
                f"of {self.placement.sampling_rate:g}, which decides how many samples a step takes."
            )

    @property
    def participation_limit(self) -> int:
        """Rounds in which a node takes part at most; a total epsilon covers so many.

        Where the plan does not say it, all rounds with an epsilon for each round, and with a total
        one as many as a node is expected to take part in, rounded up.
        """
        if self.max_participations is not None:
            return min(self.max_participations, self.rounds)
        if self.horizon == "round":
            return self.rounds
        expected = self.rounds * self.chances.participation * (1 - self.chances.dropping)
        return max(math.ceil(expected - 1e-9), 1)  # a product of decimals may lie a hair above

    def count_quorum(self, n_asked: int) -> int:
        """Return how many updates must arrive in time in a round that asks so many nodes."""
        return max(math.ceil(self.quorum * n_asked - 1e-9), 1)

    def plan_releases(self, n_samples: npt.NDArray[np.int64]) -> list[ReleasePlan]:
        """Return what each node releases in a round; nodes of one size share a plan.

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
    """What each node's epsilon means in this training, arrays of shape (n_nodes,).

    Noise is that which hides the node from whom its epsilon holds against: its own; or, where that
    is the server, the noise of the weighted sum, in units of the node's share of it.
    """

    sensitivity: Floats
    """L2 sensitivity of one release; with secure noise that of rounding is in it."""
    noise_multiplier: Floats
    """Noise standard deviation over sensitivity; infinite where a node stays out."""
    noise_std: Floats
    """Noise standard deviation on each parameter, in units of what is released."""
    epsilon_per_round: Floats
    """True epsilon of one round."""
    epsilon_total: Floats
    """True epsilon of all rounds that the node may take part in, by composition: exact, or closely
    above where data is sampled."""
    delta: float
    """Delta of both."""


@dataclass(frozen=True)
class TrainingRound:
    """How good the net is after a round."""

    round: int
    """Number of the round; 0 is before training."""
    accuracy: float
    """Share of test images that are classified correctly."""
    loss: float
    """Mean cross entropy on the test images."""
    signal_to_noise: float
    """Norm of the clean aggregate over norm of its noise; infinite without noise."""
    n_nodes: int
    """How many nodes' updates were aggregated."""
