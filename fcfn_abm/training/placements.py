"""Where noise is added: what a node computes, what it clips, and what that is worth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fcfn_abm.dp import Clipping, Relation, Sensitivity, Unit
from fcfn_abm.dp.accounting import LEAST_RATE
from fcfn_abm.dp.sensitivity import l2_norms
from fcfn_abm.errors import InvalidPrivacyError
from fcfn_abm.registry import Registry
from fcfn_abm.training.gradients import Gradients, SampleGradients

if TYPE_CHECKING:
    from torch import Tensor

type Rows = slice | npt.NDArray[np.intp]


@dataclass(frozen=True)
class LocalSteps:
    """How a node trains in a round."""

    epochs: int
    """Passes over its own data."""
    learning_rate: float
    momentum: float
    clipping: Clipping
    batch_size: int | None = None
    """Samples of a step; None, or as many as there are, takes all of them in one step."""
    grid: float | None = None
    """Distance, a power of two, between the values that a release can take; None: as floats lie."""

    def batch_of(self, n_samples: int) -> int:
        """Return how many samples a step takes."""
        return min(self.batch_size or n_samples, n_samples)

    def n_steps(self, n_samples: int) -> int:
        """Return how many steps a node takes."""
        return self.epochs * math.ceil(n_samples / self.batch_of(n_samples))

    def batches(self, n_samples: int, rng: np.random.Generator | None) -> Iterator[Rows]:
        """Yield the samples of each step: every epoch takes each once, in a fresh order."""
        size = self.batch_of(n_samples)
        for _ in range(self.epochs):
            if size == n_samples:
                yield slice(None)
                continue
            order = _given(rng).permutation(n_samples)
            yield from (order[start : start + size] for start in range(0, n_samples, size))

    def reach(self, n_steps: int) -> float:
        """Return how far steps go from where they start if each gradient has norm 1."""
        return self.learning_rate * sum(self._speeds(n_steps))

    def spread(self, n_steps: int) -> float:
        """Return the noise in where steps lead if each gradient has independent noise of size 1."""
        return self.learning_rate * math.hypot(*self._speeds(n_steps))

    def _speeds(self, n_steps: int) -> list[float]:
        """Return how often each gradient counts, the last one first."""
        return list(accumulate(range(1, n_steps), lambda v, _: self.momentum * v + 1, initial=1.0))

    def shorten(self, values: Tensor) -> Tensor:
        """Clip a vector, or each row of a matrix, in place."""
        if values.dim() == 1:  # as numbers, which spares a step a dozen small operations
            return values.mul_(self.clipping.factor(float(l2_norms(values[None]))))
        rows = values.view(-1, values.shape[-1])
        rows.mul_(self.clipping.factors(l2_norms(rows)))
        return values

    def total(self, gradients: SampleGradients) -> Tensor:
        """Clip gradients, and add them up; in 64 bits where values on a grid are made of them."""
        if self.grid is None:
            return gradients.weighted(self.clipping.factors(gradients.norms()))
        return self.clipping(gradients.rows()).double().sum(0)

    def released(self, value: Tensor, noise: Tensor) -> Tensor:
        """Return what is released in place of a value, in 32 bits.

        On a grid the sum is exact, and what 32 bits then keep of it depends on it alone.
        """
        if self.grid is None:
            return value + noise
        return ((value.double() / self.grid).round() * self.grid + noise).float()


@dataclass(frozen=True)
class Batch:
    """The samples of a step: of a node, or of a group of nodes, with an axis of nodes in front.

    Nodes with fewer samples than others in their group have labels of -100 in place of them, as
    torch marks what counts for nothing.
    """

    images: Tensor
    labels: Tensor
    divisor: float | Tensor
    """What the sum of clipped gradients is divided by; of a group shape (n_nodes, 1)."""


class Walk:
    """Steps with momentum, from rest, with as few passes over whole vectors as will do.

    Of one node, on vectors; or of a group, on matrices with a row for each.
    """

    def __init__(self, steps: LocalSteps) -> None:
        self._steps = steps
        self._velocity: Tensor | None = None
        self._covered: Tensor | None = None

    @property
    def covered(self) -> Tensor:
        """The sum of the velocities, shape (n_parameters,)."""
        if self._covered is None:
            raise ValueError("no step was taken")
        return self._covered

    def step(self, gradient: Tensor) -> None:
        """Step against a gradient, whose memory the walk takes over."""
        if self._velocity is None:
            self._covered = gradient
        else:
            gradient.add_(self._velocity, alpha=self._steps.momentum)
            self.covered.add_(gradient)  # may be the old velocity, which is done with
        self._velocity = gradient

    def lead(self, flat: Tensor, gradients: Gradients) -> Tensor:
        """Return where the steps lead from some parameters, for gradients to be taken there."""
        import torch

        if self._covered is None:
            return flat
        rate, here = self._steps.learning_rate, gradients.room(flat.expand_as(self._covered))
        return torch.sub(flat, self._covered.float(), alpha=rate, out=here)

    def end(self) -> Tensor:
        """Return how far the steps led, in 32 bits, in place of what was covered."""
        return self.covered.float().mul_(-self._steps.learning_rate)


@dataclass(frozen=True)
class Sent:
    """What a node sends in a round, made of nothing but what was released; and what is in it."""

    upload: Tensor
    """What the server sees, shape (n_parameters,)."""
    clean: Tensor
    """The part of it that is not noise, shape (n_parameters,); nobody sees it. Without noise it is
    the same tensor."""

    @property
    def noise(self) -> Tensor:
        """The noise in it, shape (n_parameters,)."""
        return self.upload - self.clean


class Placement(Protocol):
    """A way to train and perturb; each states what it protects and how often it releases."""

    unit: ClassVar[Unit]
    sampling_rate: float = 1.0
    """Probability with which each of a node's records takes part in a release."""

    def sensitivity(self, steps: LocalSteps, relation: Relation, n_samples: int) -> Sensitivity:
        """Return how far one unit of data can move one release."""
        ...

    def releases(self, epochs: int) -> int:
        """Return of how many releases of a round each unit of data is part."""
        ...

    def draws(self, steps: LocalSteps, n_samples: int) -> int:
        """Return how often noise is added in a round."""
        ...

    def reach(self, steps: LocalSteps, n_samples: int) -> float:
        """Return the largest L2 norm that an update can have without its noise."""
        ...

    def spread(self, steps: LocalSteps, n_samples: int) -> float:
        """Return the noise on each parameter of an upload if that of a release has size 1."""
        ...

    def caveat(self, steps: LocalSteps) -> str:  # noqa: ARG002
        """Return why the claim is a heuristic with such steps; nothing where it is proven."""
        return ""

    def batches(
        self, steps: LocalSteps, n_samples: int, rng: np.random.Generator | None
    ) -> Iterator[Rows]:
        """Yield the samples of each step."""
        return steps.batches(n_samples, rng)

    def divisor(self, steps: LocalSteps, n_samples: int, n_taken: int) -> float:  # noqa: ARG002
        """Return what the sum over the ``n_taken`` samples of a step is divided by."""
        return n_taken

    def walk(
        self,
        flat: Tensor,
        batches: Iterable[Batch],
        steps: LocalSteps,
        gradients: Gradients,
        noise: Tensor | None,
    ) -> Sent:
        """Take a round's steps, of one node or of a group whose nodes take equally many.

        ``flat`` are the round's parameters, and ``noise`` holds one entry for each time that noise
        is added, in units of what is released. All of a group has an axis of nodes in front,
        entries of the noise too.
        """
        ...

    def train(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        steps: LocalSteps,
        gradients: Gradients,
        noise: Tensor | None,
        rng: np.random.Generator | None = None,
    ) -> Sent:
        """Train one node for a round.

        As :meth:`walk`; ``rng`` draws samples and the order of batches, and steps on all samples
        need none.
        """
        n_samples = len(labels)

        def batches() -> Iterator[Batch]:
            for rows in self.batches(steps, n_samples, rng):
                taken = labels[rows]
                divisor = self.divisor(steps, n_samples, len(taken))
                yield Batch(images[rows], taken, divisor)

        return self.walk(flat, batches(), steps, gradients, noise)


PLACEMENTS: Registry[Placement] = Registry("placement")


@PLACEMENTS.register("dp-sgd")
class DpSgd(Placement):
    """Per-sample gradients, each clipped, averaged over the samples of a step, and noised.

    Rigorous at record level: replacing one record moves the average over b samples by at most
    ``2 * clipping_norm / b``. Each local step is a release of its own. The batches of an epoch
    share no record, so a record is part of one release an epoch, however many batches there are; a
    last batch that is smaller is divided by b all the same. With a sampling rate q below one a step
    sums over a fresh Poisson sample of all m records and divides by q m, which does not depend on
    the sample; an empty one is noise alone.
    """

    unit: ClassVar[Unit] = "record"
    sampling_rate: Annotated[float, Field(ge=LEAST_RATE, le=1)] = 1.0
    """Probability with which each of the node's records takes part in a local step."""

    def sensitivity(self, steps: LocalSteps, relation: Relation, n_samples: int) -> Sensitivity:
        """Return how far one record can move the mean of clipped gradients."""
        return steps.clipping.sensitivity(
            self.unit, relation, share=1 / self.divisor(steps, n_samples)
        )

    def releases(self, epochs: int) -> int:
        """Return of how many releases of a round each record is part: one an epoch."""
        return epochs

    def draws(self, steps: LocalSteps, n_samples: int) -> int:
        """Return how often noise is added in a round: in each step."""
        return steps.epochs if self.sampling_rate < 1 else steps.n_steps(n_samples)

    def reach(self, steps: LocalSteps, n_samples: int) -> float:
        """Return the largest L2 norm that an update can have without its noise."""
        largest = steps.clipping.norm * steps.reach(self.draws(steps, n_samples))
        return largest / self.sampling_rate  # all may be drawn

    def spread(self, steps: LocalSteps, n_samples: int) -> float:
        """Return the noise on each parameter of an upload if that of a release has size 1."""
        return steps.spread(self.draws(steps, n_samples))

    def walk(
        self,
        flat: Tensor,
        batches: Iterable[Batch],
        steps: LocalSteps,
        gradients: Gradients,
        noise: Tensor | None,
    ) -> Sent:
        """Take a round's steps."""
        import torch

        sent = Walk(steps)
        clean = sent if noise is None else Walk(steps)
        for step, batch in enumerate(batches):
            if len(batch.labels):
                at = sent.lead(flat, gradients)
                total = gradients.clipped(at, batch.images, batch.labels, steps.total)
                gradient = total.div_(batch.divisor)
            else:
                gradient = torch.zeros_like(flat)
            if noise is not None:
                sent.step(steps.released(gradient, noise[step]))
            clean.step(gradient.float())
        update = clean.end()
        return Sent(update if noise is None else sent.end(), update)

    def divisor(self, steps: LocalSteps, n_samples: int, n_taken: int = 0) -> float:  # noqa: ARG002
        """Return what the sum of a step is divided by, however many samples it took."""
        if self.sampling_rate < 1:
            return self.sampling_rate * n_samples
        return steps.batch_of(n_samples)

    def batches(
        self, steps: LocalSteps, n_samples: int, rng: np.random.Generator | None
    ) -> Iterator[Rows]:
        """Yield the samples of each step."""
        if self.sampling_rate == 1:
            yield from steps.batches(n_samples, rng)
            return
        for _ in range(steps.epochs):  # each with the same chance
            yield np.flatnonzero(_given(rng).random(n_samples) < self.sampling_rate)


@PLACEMENTS.register("update")
class Update(Placement):
    """Plain local steps; then the whole update of the node is clipped, and noised once.

    Protects the node's whole data: replacing it moves the update by ``2 * clipping_norm`` at most.
    """

    unit: ClassVar[Unit] = "client"

    def sensitivity(self, steps: LocalSteps, relation: Relation, n_samples: int) -> Sensitivity:  # noqa: ARG002
        """Return how far the whole data of a node can move its update."""
        return steps.clipping.sensitivity(self.unit, relation)

    def releases(self, epochs: int) -> int:  # noqa: ARG002
        """Return of how many releases of a round each unit of data is part."""
        return 1

    def draws(self, steps: LocalSteps, n_samples: int) -> int:  # noqa: ARG002
        """Return how often noise is added in a round."""
        return 1

    def reach(self, steps: LocalSteps, n_samples: int) -> float:  # noqa: ARG002
        """Return the largest L2 norm that an update can have without its noise."""
        return steps.clipping.norm

    def spread(self, steps: LocalSteps, n_samples: int) -> float:  # noqa: ARG002
        """Return the noise on each parameter of an upload if that of a release has size 1."""
        return 1.0

    def walk(
        self,
        flat: Tensor,
        batches: Iterable[Batch],
        steps: LocalSteps,
        gradients: Gradients,
        noise: Tensor | None,
    ) -> Sent:
        """Take a round's steps."""
        walk = Walk(steps)
        for batch in batches:
            walk.step(gradients.mean(walk.lead(flat, gradients), batch.images, batch.labels))
        clean = steps.shorten(walk.end())
        return Sent(clean if noise is None else steps.released(clean, noise[0]), clean)


@PLACEMENTS.register("paper")
class Paper(Placement):
    """Clipped local steps without noise, then one noisy release: the literature's heuristic.

    Gradients are clipped per sample to C, and the noise is that of one release of sensitivity
    ``2 C / m``, in units of the averaged gradient. Exact for one step on all samples, where it is
    "dp-sgd"; with more, later steps start where the record has led the first, and nothing bounds
    that.

    References
    ----------
    Wei et al. 2020, "Federated learning with differential privacy", whose noise Zhou et al. take.
    """

    unit: ClassVar[Unit] = "record"

    def sensitivity(self, steps: LocalSteps, relation: Relation, n_samples: int) -> Sensitivity:
        """Return how far one record can move the mean of clipped gradients, in one step."""
        return steps.clipping.sensitivity(self.unit, relation, share=1 / n_samples)

    def releases(self, epochs: int) -> int:  # noqa: ARG002
        """Return of how many releases of a round each unit of data is part."""
        return 1

    def draws(self, steps: LocalSteps, n_samples: int) -> int:  # noqa: ARG002
        """Return how often noise is added in a round."""
        return 1

    def reach(self, steps: LocalSteps, n_samples: int) -> float:
        """Return the largest L2 norm that an update can have without its noise."""
        return steps.clipping.norm * steps.reach(steps.n_steps(n_samples))

    def spread(self, steps: LocalSteps, n_samples: int) -> float:  # noqa: ARG002
        """Return the noise on each parameter of an upload if that of a release has size 1."""
        return steps.learning_rate

    def caveat(self, steps: LocalSteps) -> str:
        """Return why the claim is a heuristic with such steps; nothing where it is proven."""
        if steps.epochs == 1 and steps.batch_size is None:
            return ""
        return (
            'The placement "paper" adds the noise of one step on all samples to several local '
            "steps: its epsilon is a heuristic, not a guarantee."
        )

    def walk(
        self,
        flat: Tensor,
        batches: Iterable[Batch],
        steps: LocalSteps,
        gradients: Gradients,
        noise: Tensor | None,
    ) -> Sent:
        """Take a round's steps."""
        walk = Walk(steps)
        for batch in batches:
            at = walk.lead(flat, gradients)
            total = gradients.clipped(at, batch.images, batch.labels, steps.total)
            walk.step(total.div_(batch.divisor))
        if noise is None:
            clean = upload = walk.end()
        else:
            upload = -steps.learning_rate * steps.released(walk.covered, noise[0])
            clean = walk.end()
        return Sent(upload, clean)


def _given(rng: np.random.Generator | None) -> np.random.Generator:
    if rng is None:
        raise InvalidPrivacyError("Steps on part of the samples need a generator to draw from.")
    return rng
