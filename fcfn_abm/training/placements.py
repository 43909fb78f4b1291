"""Where noise is added: what a node computes, what it clips, and what that is worth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol, override

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
            order = _require_rng(rng).permutation(n_samples)
            yield from (order[start : start + size] for start in range(0, n_samples, size))

    def max_displacement(self, n_steps: int) -> float:
        """Return how far steps go from where they start if each gradient has norm 1."""
        return self.learning_rate * sum(self._speeds(n_steps))

    def noise_gain(self, n_steps: int) -> float:
        """Return the noise in where steps lead if each gradient has independent noise of size 1."""
        return self.learning_rate * math.hypot(*self._speeds(n_steps))

    def _speeds(self, n_steps: int) -> list[float]:
        """Return how often each gradient counts, the last one first."""
        return list(accumulate(range(1, n_steps), lambda v, _: self.momentum * v + 1, initial=1.0))

    def clip(self, values: Tensor) -> Tensor:
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

    def release(self, value: Tensor, noise: Tensor) -> Tensor:
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


class MomentumSteps:
    """Steps with momentum, from rest, with as few passes over whole vectors as will do.

    Of one node, on vectors; or of a group, on matrices with a row for each.
    """

    def __init__(self, steps: LocalSteps) -> None:
        self._steps = steps
        self._velocity: Tensor | None = None
        self._total: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """The sum of the velocities, shape (n_parameters,)."""
        if self._total is None:
            raise ValueError("no step was taken")
        return self._total

    def step(self, gradient: Tensor) -> None:
        """Step against a gradient, whose memory is taken over."""
        if self._velocity is None:
            self._total = gradient
        else:
            gradient.add_(self._velocity, alpha=self._steps.momentum)
            self.total.add_(gradient)  # may be the old velocity, which is done with
        self._velocity = gradient

    def position(self, flat: Tensor, gradients: Gradients) -> Tensor:
        """Return where the steps lead from some parameters, for gradients to be taken there."""
        import torch

        if self._total is None:
            return flat
        rate, here = self._steps.learning_rate, gradients.room(flat.expand_as(self._total))
        return torch.sub(flat, self._total.float(), alpha=rate, out=here)

    def update(self) -> Tensor:
        """Return how far the steps led, in 32 bits, in place of the sum of the velocities."""
        return self.total.float().mul_(-self._steps.learning_rate)


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


@dataclass(frozen=True)
class ReleasePlan:
    """What a node releases in a round, and what that is worth."""

    sensitivity: Sensitivity
    """How far one unit of data can move one release."""
    n_releases: int
    """Of how many releases of a round each unit of data is part; the same for every node."""
    n_draws: int
    """How often noise is added in a round."""
    max_update_norm: float
    """Largest L2 norm that an update can have without its noise."""
    noise_gain: float
    """Standard deviation of the noise on each parameter of an upload, over that of a release."""
    divisor: float | None = None
    """What the sum over the samples of a step is divided by; None: by how many they are."""
    caveat: str = ""
    """Why the claim is a heuristic; empty where it is proven."""


class Placement(Protocol):
    """A way to train and perturb; each states what it protects and how often it releases."""

    unit: ClassVar[Unit]
    sampling_rate: float = 1.0
    """Probability with which each of a node's records takes part in a release."""

    def releases(self, steps: LocalSteps, n_samples: int, relation: Relation) -> ReleasePlan:
        """Return what a node with so many samples releases in a round.

        Parameters
        ----------
        steps : LocalSteps
            How the node trains.
        n_samples : int
            How many samples it has.
        relation : str
            How neighbouring data sets differ.
        """
        ...

    def batches(
        self, steps: LocalSteps, n_samples: int, rng: np.random.Generator | None
    ) -> Iterator[Rows]:
        """Yield the samples of each step."""
        return steps.batches(n_samples, rng)

    def take_steps(
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

        As :meth:`take_steps`; ``rng`` draws samples and the order of batches, and steps on all
        samples need none.
        """
        n_samples = len(labels)
        divisor = self.releases(steps, n_samples, "replace-one").divisor  # the same for any

        def batches() -> Iterator[Batch]:
            for rows in self.batches(steps, n_samples, rng):
                taken = labels[rows]
                yield Batch(images[rows], taken, divisor or len(taken))

        return self.take_steps(flat, batches(), steps, gradients, noise)


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

    @override
    def releases(self, steps: LocalSteps, n_samples: int, relation: Relation) -> ReleasePlan:
        """Return what a node releases: each step, and so each record once an epoch."""
        divisor: float = steps.batch_of(n_samples)
        n_draws = steps.n_steps(n_samples)
        if self.sampling_rate < 1:
            divisor, n_draws = self.sampling_rate * n_samples, steps.epochs
        largest = steps.clipping.norm * steps.max_displacement(n_draws)
        return ReleasePlan(
            sensitivity=steps.clipping.sensitivity(self.unit, relation, share=1 / divisor),
            n_releases=steps.epochs,
            n_draws=n_draws,
            max_update_norm=largest / self.sampling_rate,  # all may be drawn
            noise_gain=steps.noise_gain(n_draws),
            divisor=divisor,
        )

    def take_steps(
        self,
        flat: Tensor,
        batches: Iterable[Batch],
        steps: LocalSteps,
        gradients: Gradients,
        noise: Tensor | None,
    ) -> Sent:
        """Take a round's steps."""
        import torch

        sent = MomentumSteps(steps)
        clean = sent if noise is None else MomentumSteps(steps)
        for step, batch in enumerate(batches):
            if len(batch.labels):
                at = sent.position(flat, gradients)
                total = gradients.clipped(at, batch.images, batch.labels, steps.total)
                gradient = total.div_(batch.divisor)
            else:
                gradient = torch.zeros_like(flat)
            if noise is not None:
                sent.step(steps.release(gradient, noise[step]))
            clean.step(gradient.float())
        update = clean.update()
        return Sent(update if noise is None else sent.update(), update)

    @override
    def batches(
        self, steps: LocalSteps, n_samples: int, rng: np.random.Generator | None
    ) -> Iterator[Rows]:
        """Yield the samples of each step."""
        if self.sampling_rate == 1:
            yield from steps.batches(n_samples, rng)
            return
        for _ in range(steps.epochs):  # each with the same chance
            yield np.flatnonzero(_require_rng(rng).random(n_samples) < self.sampling_rate)


@PLACEMENTS.register("update")
class Update(Placement):
    """Plain local steps; then the whole update of the node is clipped, and noised once.

    Protects the node's whole data: replacing it moves the update by ``2 * clipping_norm`` at most.
    """

    unit: ClassVar[Unit] = "client"

    @override
    def releases(self, steps: LocalSteps, n_samples: int, relation: Relation) -> ReleasePlan:
        """Return what a node releases: its update, once."""
        return ReleasePlan(
            sensitivity=steps.clipping.sensitivity(self.unit, relation),
            n_releases=1,
            n_draws=1,
            max_update_norm=steps.clipping.norm,
            noise_gain=1.0,
        )

    def take_steps(
        self,
        flat: Tensor,
        batches: Iterable[Batch],
        steps: LocalSteps,
        gradients: Gradients,
        noise: Tensor | None,
    ) -> Sent:
        """Take a round's steps."""
        path = MomentumSteps(steps)
        for batch in batches:
            path.step(gradients.mean(path.position(flat, gradients), batch.images, batch.labels))
        clean = steps.clip(path.update())
        return Sent(clean if noise is None else steps.release(clean, noise[0]), clean)


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

    @override
    def releases(self, steps: LocalSteps, n_samples: int, relation: Relation) -> ReleasePlan:
        """Return what a node releases: the sum of its gradients, once."""
        exact = steps.epochs == 1 and steps.batch_size is None
        largest = steps.clipping.norm * steps.max_displacement(steps.n_steps(n_samples))
        return ReleasePlan(
            sensitivity=steps.clipping.sensitivity(self.unit, relation, share=1 / n_samples),
            n_releases=1,
            n_draws=1,
            max_update_norm=largest,
            noise_gain=steps.learning_rate,
            caveat=""
            if exact
            else 'The placement "paper" adds the noise of one step on all samples to several local '
            "steps: its epsilon is a heuristic, not a guarantee.",
        )

    def take_steps(
        self,
        flat: Tensor,
        batches: Iterable[Batch],
        steps: LocalSteps,
        gradients: Gradients,
        noise: Tensor | None,
    ) -> Sent:
        """Take a round's steps."""
        path = MomentumSteps(steps)
        for batch in batches:
            at = path.position(flat, gradients)
            total = gradients.clipped(at, batch.images, batch.labels, steps.total)
            path.step(total.div_(batch.divisor))
        if noise is None:
            clean = upload = path.update()
        else:
            upload = -steps.learning_rate * steps.release(path.total, noise[0])
            clean = path.update()
        return Sent(upload, clean)


def _require_rng(rng: np.random.Generator | None) -> np.random.Generator:
    if rng is None:
        raise InvalidPrivacyError("Steps on part of the samples need a generator to draw from.")
    return rng
