"""Where noise is added: what a node computes, what it clips, and what that is worth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fcfn_abm.dp import Clipping, Relation, Sensitivity, Unit
from fcfn_abm.errors import InvalidPrivacyError
from fcfn_abm.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

type Gradients = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LocalSteps:
    """How a node trains in a round."""

    n_steps: int
    """Steps on its own data."""
    learning_rate: float
    momentum: float
    clipping: Clipping
    grid: float | None = None
    """Distance, a power of two, between the values that a release can take; None: as floats lie."""

    @property
    def reach(self) -> float:
        """How far the steps go from where they start if each gradient has norm 1."""
        return self.learning_rate * sum(self._speeds())

    @property
    def spread(self) -> float:
        """Noise in where the steps lead if each gradient has independent noise of size 1."""
        return self.learning_rate * math.hypot(*self._speeds())

    def _speeds(self) -> list[float]:
        """Return how often each gradient counts, the last one first."""
        steps = range(1, self.n_steps)
        return list(accumulate(steps, lambda v, _: self.momentum * v + 1, initial=1.0))

    def total(self, rows: Tensor) -> Tensor:
        """Clip rows, and add them up; in 64 bits where values on a grid are made of them."""
        clipped = self.clipping(rows)
        return (clipped if self.grid is None else clipped.double()).sum(0)

    def released(self, value: Tensor, noise: Tensor | None) -> Tensor:
        """Return what is released in place of a value, in 32 bits.

        On a grid the sum is exact, and what 32 bits then keep of it depends on it alone.
        """
        if noise is None:
            return value.float()
        if self.grid is None:
            return value + noise
        return ((value.double() / self.grid).round() * self.grid + noise).float()


@dataclass(frozen=True)
class Sent:
    """What a node sends in a round, made of nothing but what was released; and what is in it."""

    upload: Tensor
    """What the server sees, shape (n_parameters,)."""
    clean: Tensor
    """The part of it that is not noise, shape (n_parameters,); nobody sees it."""

    @property
    def noise(self) -> Tensor:
        """The noise in it, shape (n_parameters,)."""
        return self.upload - self.clean


class Placement(Protocol):
    """A way to train and perturb; each states what it protects and how often it releases."""

    unit: ClassVar[Unit]
    sampling_rate: float = 1.0
    """Probability with which each of a node's records takes part in a release."""

    def sensitivity(self, clipping: Clipping, relation: Relation, n_samples: int) -> Sensitivity:
        """Return how far one unit of data can move one release."""
        ...

    def releases(self, n_steps: int) -> int:
        """Return how many releases a round makes."""
        ...

    def reach(self, steps: LocalSteps) -> float:
        """Return the largest L2 norm that an update can have without its noise."""
        ...

    def spread(self, steps: LocalSteps) -> float:
        """Return the noise on each parameter of an upload if that of a release has size 1."""
        ...

    def caveat(self, n_steps: int) -> str:  # noqa: ARG002
        """Return why the claim is a heuristic with so many steps; nothing where it is proven."""
        return ""

    def train(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        steps: LocalSteps,
        per_sample: Gradients,
        noise: Tensor | None,
        rng: np.random.Generator | None = None,
    ) -> Sent:
        """Train one node for a round.

        ``flat`` are the round's parameters, ``noise`` holds one row for each release, in units
        of what is released, and ``rng`` draws samples; who has all take part needs none.
        """
        ...


PLACEMENTS: Registry[Placement] = Registry("placement")


@PLACEMENTS.register("dp-sgd")
class DpSgd(Placement):
    """Per-sample gradients, each clipped, averaged over all of the node's data, and noised.

    Rigorous at record level: replacing one of m records moves the average by at most
    ``2 * clipping_norm / m``. Each local step is a release of its own. With a sampling rate q
    below one it sums over a fresh Poisson sample and divides by q m, which does not depend on the
    sample; an empty one is noise alone.
    """

    unit: ClassVar[Unit] = "record"
    sampling_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Probability with which each of the node's records takes part in a local step."""

    def sensitivity(self, clipping: Clipping, relation: Relation, n_samples: int) -> Sensitivity:
        """Return how far one record can move the mean of clipped gradients."""
        return clipping.sensitivity(self.unit, relation, share=1 / (self.sampling_rate * n_samples))

    def releases(self, n_steps: int) -> int:
        """Return how many releases a round makes."""
        return n_steps

    def reach(self, steps: LocalSteps) -> float:
        """Return the largest L2 norm that an update can have without its noise."""
        return steps.clipping.norm * steps.reach / self.sampling_rate  # all may be drawn

    def spread(self, steps: LocalSteps) -> float:
        """Return the noise on each parameter of an upload if that of a release has size 1."""
        return steps.spread

    def train(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        steps: LocalSteps,
        per_sample: Gradients,
        noise: Tensor | None,
        rng: np.random.Generator | None = None,
    ) -> Sent:
        """Train one node for a round."""
        upload, clean = flat.new_zeros(flat.shape), flat.new_zeros(flat.shape)
        velocity, clean_velocity = upload.clone(), clean.clone()
        for step in range(steps.n_steps):
            drawn = self._drawn(len(labels), rng)
            gradient = clean.new_zeros(clean.shape)
            if drawn.size:
                rows = per_sample(flat + upload, images[drawn], labels[drawn])
                gradient = steps.total(rows) / (self.sampling_rate * len(labels))
            released = steps.released(gradient, None if noise is None else noise[step])
            velocity = steps.momentum * velocity + released
            upload = upload - steps.learning_rate * velocity
            clean_velocity = steps.momentum * clean_velocity + gradient.float()
            clean = clean - steps.learning_rate * clean_velocity
        return Sent(upload, clean)

    def _drawn(self, n_samples: int, rng: np.random.Generator | None) -> npt.NDArray[np.intp]:
        """Return the rows that take part in a step: each with the same chance, or all."""
        if self.sampling_rate == 1:
            return np.arange(n_samples)
        if rng is None:
            raise InvalidPrivacyError("A sampling rate below 1 needs a generator to draw from.")
        return np.flatnonzero(rng.random(n_samples) < self.sampling_rate)


@PLACEMENTS.register("update")
class Update(Placement):
    """Plain local steps; then the whole update of the node is clipped, and noised once.

    Protects the node's whole data: replacing it moves the update by ``2 * clipping_norm`` at most.
    """

    unit: ClassVar[Unit] = "client"

    def sensitivity(self, clipping: Clipping, relation: Relation, n_samples: int) -> Sensitivity:  # noqa: ARG002
        """Return how far the whole data of a node can move its update."""
        return clipping.sensitivity(self.unit, relation)

    def releases(self, n_steps: int) -> int:  # noqa: ARG002
        """Return how many releases a round makes."""
        return 1

    def reach(self, steps: LocalSteps) -> float:
        """Return the largest L2 norm that an update can have without its noise."""
        return steps.clipping.norm

    def spread(self, steps: LocalSteps) -> float:  # noqa: ARG002
        """Return the noise on each parameter of an upload if that of a release has size 1."""
        return 1.0

    def train(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        steps: LocalSteps,
        per_sample: Gradients,
        noise: Tensor | None,
        rng: np.random.Generator | None = None,  # noqa: ARG002
    ) -> Sent:
        """Train one node for a round."""
        update = flat.new_zeros(flat.shape)
        velocity = update.clone()
        for _ in range(steps.n_steps):
            gradient = per_sample(flat + update, images, labels).mean(0)
            velocity = steps.momentum * velocity + gradient
            update = update - steps.learning_rate * velocity
        clean = steps.clipping(update[None])[0]
        return Sent(steps.released(clean, None if noise is None else noise[0]), clean)


@PLACEMENTS.register("paper")
class Paper(Placement):
    """Clipped local steps without noise, then one noisy release: the literature's heuristic.

    Gradients are clipped per sample to C, and the noise is that of one release of sensitivity
    ``2 C / m``, in units of the averaged gradient. Exact for one step, where it is "dp-sgd"; with
    more, later steps start where the record has led the first, and nothing bounds that.

    References
    ----------
    Wei et al. 2020, "Federated learning with differential privacy", whose noise Zhou et al. take.
    """

    unit: ClassVar[Unit] = "record"

    def sensitivity(self, clipping: Clipping, relation: Relation, n_samples: int) -> Sensitivity:
        """Return how far one record can move the mean of clipped gradients, in one step."""
        return clipping.sensitivity(self.unit, relation, share=1 / n_samples)

    def releases(self, n_steps: int) -> int:  # noqa: ARG002
        """Return how many releases a round makes."""
        return 1

    def reach(self, steps: LocalSteps) -> float:
        """Return the largest L2 norm that an update can have without its noise."""
        return steps.clipping.norm * steps.reach

    def spread(self, steps: LocalSteps) -> float:
        """Return the noise on each parameter of an upload if that of a release has size 1."""
        return steps.learning_rate

    def caveat(self, n_steps: int) -> str:
        """Return why the claim is a heuristic with so many steps; nothing where it is proven."""
        if n_steps == 1:
            return ""
        return (
            f'The placement "paper" adds the noise of one step to {n_steps} local steps: '
            "its epsilon is a heuristic, not a guarantee."
        )

    def train(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        steps: LocalSteps,
        per_sample: Gradients,
        noise: Tensor | None,
        rng: np.random.Generator | None = None,  # noqa: ARG002
    ) -> Sent:
        """Train one node for a round."""
        covered = flat.new_zeros(flat.shape)
        velocity = covered.clone()
        for _ in range(steps.n_steps):
            start = flat - steps.learning_rate * covered.float()
            gradients = per_sample(start, images, labels)
            velocity = steps.momentum * velocity + steps.total(gradients) / len(labels)
            covered = covered + velocity
        released = steps.released(covered, None if noise is None else noise[0])
        return Sent(-steps.learning_rate * released, -steps.learning_rate * covered.float())
