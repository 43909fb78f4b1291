"""The local steps of a node: their settings, their batches, and SGD with momentum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp import Clipping
from fcfn_abm.dp.sensitivity import l2_norms
from fcfn_abm.errors import (
    InvalidDataError,
    InvalidPrivacyError,
    require_counts,
    require_positive,
)
from fcfn_abm.training.gradients import Gradients, SampleGradients

if TYPE_CHECKING:
    from torch import Tensor

type Rows = slice | npt.NDArray[np.intp]


@dataclass(frozen=True)
class LocalSteps:
    """How a node trains in a round."""

    epochs: int
    """Passes over the node's own data."""
    learning_rate: float
    momentum: float
    clipping: Clipping
    batch_size: int | None = None
    """Samples per step; with None all samples are used in one step."""
    grid: float | None = None
    """Spacing of the values of a release, a power of two; None for plain floats."""
    counts_within: bool = False
    """Whether nodes count the share of values within the clipping norm."""

    def __post_init__(self) -> None:
        """Raise InvalidDataError for a number outside its range."""
        require_counts(error=InvalidDataError, epochs=self.epochs)
        if self.batch_size is not None:
            require_counts(error=InvalidDataError, batch_size=self.batch_size)
        require_positive(error=InvalidDataError, learning_rate=self.learning_rate)
        if not 0 <= self.momentum < 1:
            raise InvalidDataError(f"momentum must be at least 0 and below 1, not {self.momentum}.")

    def samples_per_step(self, n_samples: int) -> int:
        """Return how many samples a full step takes."""
        return min(self.batch_size or n_samples, n_samples)

    def count_steps(self, n_samples: int) -> int:
        """Return how many steps a node takes."""
        return self.epochs * math.ceil(n_samples / self.samples_per_step(n_samples))

    def draw_batches(self, n_samples: int, rng: np.random.Generator | None) -> Iterator[Rows]:
        """Yield the samples of each step: every epoch uses each once, in a new order."""
        size = self.samples_per_step(n_samples)
        for _ in range(self.epochs):
            if size == n_samples:
                yield slice(None)
                continue
            order = require_generator(rng).permutation(n_samples)
            yield from (order[start : start + size] for start in range(0, n_samples, size))

    def max_update_norm(self, n_steps: int) -> float:
        """Return the largest L2 norm of the update of n steps whose gradients have norm 1."""
        return self.learning_rate * sum(self._gradient_weights(n_steps))

    def noise_gain(self, n_steps: int) -> float:
        """Return the noise in the update of n steps if each gradient has independent noise of 1."""
        return self.learning_rate * math.hypot(*self._gradient_weights(n_steps))

    def _gradient_weights(self, n_steps: int) -> list[float]:
        """Return the weight of each gradient in the sum of velocities, the last one first."""
        return list(accumulate(range(1, n_steps), lambda v, _: self.momentum * v + 1, initial=1.0))

    def clip_in_place(self, values: Tensor) -> Tensor:
        """Clip a vector, or each row of a matrix, in place."""
        if values.dim() == 1:  # with Python numbers, which saves a dozen small operations per step
            return values.mul_(self.clipping.factor(float(l2_norms(values[None]))))
        rows = values.view(-1, values.shape[-1])
        rows.mul_(self.clipping.factors(l2_norms(rows)))
        return values

    def sum_clipped(self, gradients: SampleGradients) -> Tensor:
        """Clip gradients and add them, in 64 bits if the sum is rounded to a grid."""
        if self.grid is None:
            return gradients.sum_weighted(self.clipping.factors(gradients.norms()))
        return self.clipping(gradients.rows()).double().sum(0)

    def add_noise(self, value: Tensor, noise: Tensor) -> Tensor:
        """Return the release of a value, in 32 bits and, without a grid, in the noise's memory.

        On a grid the sum is exact, and its 32-bit rounding depends only on the sum.
        """
        if self.grid is None:
            return noise.add_(value)
        return ((value.double() / self.grid).round() * self.grid + noise).float()


class ClippingCount:
    """Clips, and counts in each release the share of values within the norm.

    Nothing is counted unless the steps require it.
    """

    def __init__(self, steps: LocalSteps) -> None:
        self._steps = steps
        self._within: list[float] = []

    def sum_clipped(self, divisor: float | Tensor) -> Callable[[SampleGradients], Tensor]:
        """Return a function that clips and adds gradients, for a step with this divisor."""
        if not self._steps.counts_within:
            return self._steps.sum_clipped

        def clip_and_count(gradients: SampleGradients) -> Tensor:
            self.count(gradients.norms(), float(divisor))
            return self._steps.sum_clipped(gradients)

        return clip_and_count

    def count(self, norms: Tensor, divisor: float = 1.0) -> None:
        """Count the norms within the clipping norm, minus one half each, over a divisor."""
        if self._steps.counts_within:
            n_within = int((norms <= self._steps.clipping.norm).sum())
            self._within.append((n_within - norms.numel() / 2) / divisor)

    @property
    def within(self) -> float:
        """Mean of the counts; zero without any."""
        return sum(self._within) / max(len(self._within), 1)


@dataclass(frozen=True)
class Batch:
    """The samples of a step: of a node, or of a group of nodes with a leading axis of nodes.

    Nodes with fewer samples than others in their group are padded with labels of -100, which
    torch ignores.
    """

    images: Tensor
    labels: Tensor
    divisor: float | Tensor
    """Divisor of the sum of clipped gradients; of shape (n_nodes, 1) for a group."""


def take_batches(
    images: Tensor, labels: Tensor, batches: Iterable[Rows], divisor: float | None
) -> Iterator[Batch]:
    """Yield the batches of one node.

    Parameters
    ----------
    images, labels : Tensor
        All samples of the node.
    batches : iterable of slice or ndarray of int
        Rows of the samples of each step.
    divisor : float or None
        Divisor of a step's sum; None for the number of its samples.
    """
    for rows in batches:
        taken = labels[rows]
        yield Batch(images[rows], taken, len(taken) if divisor is None else divisor)


class MomentumSgd:
    """SGD with momentum from zero velocity, with few passes over whole vectors.

    For one node on vectors, or for a group on matrices with a row per node.
    """

    def __init__(self, steps: LocalSteps) -> None:
        self._steps = steps
        self._velocity: Tensor | None = None
        self._velocity_sum: Tensor | None = None

    @property
    def velocity_sum(self) -> Tensor:
        """The sum of the velocities of all steps, shape (n_parameters,)."""
        if self._velocity_sum is None:
            raise ValueError("no step was made")
        return self._velocity_sum

    def step(self, gradient: Tensor) -> None:
        """Take a step against a gradient, whose memory is reused."""
        if self._velocity is None:
            self._velocity_sum = gradient
        else:
            gradient.add_(self._velocity, alpha=self._steps.momentum)
            self.velocity_sum.add_(gradient)  # may overwrite the old velocity
        self._velocity = gradient

    def move(self, flat: Tensor, gradients: Gradients) -> Tensor:
        """Return the parameters after the steps from ``flat``, to evaluate gradients."""
        import torch

        if self._velocity_sum is None:
            return flat
        buffer = gradients.get_buffer(flat.expand_as(self._velocity_sum))
        rate = self._steps.learning_rate
        return torch.sub(flat, self._velocity_sum.float(), alpha=rate, out=buffer)

    def finish(self) -> Tensor:
        """Return the update in 32 bits, in the memory of the sum of velocities."""
        return self.velocity_sum.float().mul_(-self._steps.learning_rate)


def require_generator(rng: np.random.Generator | None) -> np.random.Generator:
    """Return a generator, or raise InvalidPrivacyError if there is none."""
    if rng is None:
        raise InvalidPrivacyError("steps on part of the samples need a random generator.")
    return rng
