"""Noise placements: what a node computes and clips, where it adds noise, and what that proves.

Both engines use placements: for one node on vectors, or for a group of nodes on matrices with
a row per node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol, override

import numpy as np
from pydantic import Field

from fcfn_abm.dp import Relation, Sensitivity, Unit
from fcfn_abm.dp.accounting import LEAST_RATE
from fcfn_abm.dp.sensitivity import l2_norms
from fcfn_abm.registry import Registry
from fcfn_abm.training.gradients import Gradients
from fcfn_abm.training.local_steps import (
    Batch,
    ClippingCount,
    LocalSteps,
    MomentumSgd,
    Rows,
    require_generator,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReleasePlan:
    """The releases of a node in a round, and the scale of its noise."""

    sensitivity: Sensitivity
    """Largest change of a release by one unit of data, in units of the release."""
    n_releases: int
    """Number of releases per round that contain a unit of data."""
    n_noise_draws: int
    """Number of noise draws per round."""
    max_update_norm: float
    """Largest L2 norm of an update without its noise, in units of parameters."""
    noise_gain: float
    """Standard deviation of the noise on each parameter of an upload, divided by that of a
    release."""
    divisor: float | None = None
    """Divisor of the sum over the samples of a step; None for the number of samples of the
    step."""
    caveat: str = ""
    """Why the claimed privacy is a heuristic; empty if it is proven."""


@dataclass(frozen=True)
class Upload:
    """The upload of a node in a round, made of releases only, and its part without noise.

    For a group each tensor has a row per node.
    """

    values: Tensor
    """The upload that the server sees, shape (n_parameters,)."""
    clean: Tensor
    """Its part without noise, shape (n_parameters,), which is never revealed. Without noise it is
    the same tensor."""
    within: float = 0.0
    """Share of values within the clipping norm, minus one half; zero unless the steps count it.
    Without noise."""

    @property
    def noise(self) -> Tensor:
        """The noise in the upload, shape (n_parameters,)."""
        return self.values - self.clean


class Placement(Protocol):
    """A method to train and add noise, with its privacy."""

    unit: ClassVar[Unit]
    """Unit in which neighbouring data sets differ: one record, or all data of a node."""
    sampling_rate: float = 1.0
    """Probability with which each of a node's records takes part in a release."""

    def releases(self, steps: LocalSteps, n_samples: int, relation: Relation) -> ReleasePlan:
        """Plan the releases of a round.

        Parameters
        ----------
        steps : LocalSteps
            Settings of the local steps.
        n_samples : int
            Samples of the node.
        relation : {"replace-one", "zero-out"}
            Relation of neighbouring data sets.

        Returns
        -------
        ReleasePlan
            With the same ``n_releases`` for any number of samples.
        """
        ...

    def draw_batches(
        self, steps: LocalSteps, n_samples: int, rng: np.random.Generator | None
    ) -> Iterator[Rows]:
        """Yield the samples of each step; steps on all samples need no generator."""
        return steps.draw_batches(n_samples, rng)

    def train(
        self,
        flat: Tensor,
        batches: Iterable[Batch],
        steps: LocalSteps,
        gradients: Gradients,
        noise: Tensor | None,
    ) -> Upload:
        """Run a round's steps, for one node or for a group with equal numbers of steps.

        Parameters
        ----------
        flat : Tensor, shape (n_parameters,)
            The round's parameters.
        batches : iterable of Batch
            Samples of each step; for a group with a leading axis of nodes.
        steps : LocalSteps
            Settings of the local steps.
        gradients : Gradients
            Gradients of the net.
        noise : Tensor or None
            One entry per noise draw, in units of a release; for a group each entry has a row per
            node. Its memory may be reused. None for no noise.
        """
        ...


PLACEMENTS: Registry[Placement] = Registry("placement")


@PLACEMENTS.register("dp-sgd")
class DpSgd(Placement):
    """Per-sample gradients: clipped, averaged over the samples of a step, plus noise.

    Rigorous at record level: replacing one record moves the average over b samples by at most
    ``2 * clipping_norm / b``. Each local step is a separate release. The batches of an epoch are
    disjoint, so a record is in one release per epoch, for any number of batches; a smaller last
    batch is also divided by b. With a sampling rate q below one, a step sums over a new Poisson
    sample of all m records and divides by q m, independent of the sample; an empty sample gives
    only noise.
    """

    unit: ClassVar[Unit] = "record"
    sampling_rate: Annotated[float, Field(ge=LEAST_RATE, le=1)] = 1.0
    """Probability with which each of the node's records takes part in a local step."""

    def releases(self, steps: LocalSteps, n_samples: int, relation: Relation) -> ReleasePlan:
        """Plan the releases of a round: one in each step."""
        n_steps, divisor = steps.count_steps(n_samples), float(steps.samples_per_step(n_samples))
        if self.sampling_rate < 1:
            n_steps, divisor = steps.epochs, self.sampling_rate * n_samples
        longest = steps.clipping.norm * steps.max_update_norm(n_steps)
        return ReleasePlan(
            sensitivity=steps.clipping.sensitivity(self.unit, relation, share=1 / divisor),
            n_releases=steps.epochs,
            n_noise_draws=n_steps,
            max_update_norm=longest / self.sampling_rate,  # all records may be drawn
            noise_gain=steps.noise_gain(n_steps),
            divisor=divisor,
        )

    def draw_batches(
        self, steps: LocalSteps, n_samples: int, rng: np.random.Generator | None
    ) -> Iterator[Rows]:
        """Yield the samples of each step."""
        if self.sampling_rate == 1:
            yield from steps.draw_batches(n_samples, rng)
            return
        for _ in range(steps.epochs):  # each record with the same chance
            yield np.flatnonzero(require_generator(rng).random(n_samples) < self.sampling_rate)

    def train(
        self,
        flat: Tensor,
        batches: Iterable[Batch],
        steps: LocalSteps,
        gradients: Gradients,
        noise: Tensor | None,
    ) -> Upload:
        """Run a round's steps."""
        import torch

        noisy = MomentumSgd(steps)
        clean = noisy if noise is None else MomentumSgd(steps)
        count = ClippingCount(steps)
        for step, batch in enumerate(batches):
            if len(batch.labels):
                here = noisy.move(flat, gradients)
                clip = count.sum_clipped(batch.divisor)
                total = gradients.reduce_samples(here, batch.images, batch.labels, clip)
                gradient = total.div_(batch.divisor)
            else:
                count.count(flat[:0])
                gradient = torch.zeros_like(flat)
            if noise is not None:
                noisy.step(steps.add_noise(gradient, noise[step]))
            clean.step(gradient.float())
        update = clean.finish()
        return Upload(update if noise is None else noisy.finish(), update, count.within)


@PLACEMENTS.register("update")
class Update(Placement):
    """Plain local steps; then the update of the node is clipped, and noise is added once.

    Protects all data of the node: replacing them moves the update by at most ``2 * clipping_norm``.
    """

    unit: ClassVar[Unit] = "client"

    @override  # the number of samples is not used
    def releases(self, steps: LocalSteps, n_samples: int, relation: Relation) -> ReleasePlan:
        """Plan the releases of a round: the update."""
        return ReleasePlan(
            sensitivity=steps.clipping.sensitivity(self.unit, relation),
            n_releases=1,
            n_noise_draws=1,
            max_update_norm=steps.clipping.norm,
            noise_gain=1.0,
        )

    def train(
        self,
        flat: Tensor,
        batches: Iterable[Batch],
        steps: LocalSteps,
        gradients: Gradients,
        noise: Tensor | None,
    ) -> Upload:
        """Run a round's steps."""
        sgd = MomentumSgd(steps)
        for batch in batches:
            sgd.step(gradients.mean(sgd.move(flat, gradients), batch.images, batch.labels))
        clean, count = sgd.finish(), ClippingCount(steps)
        if steps.counts_within:
            count.count(l2_norms(clean[None]))
        clean = steps.clip_in_place(clean)
        values = clean if noise is None else steps.add_noise(clean, noise[0])
        return Upload(values, clean, count.within)


_PAPER_CAVEAT = (
    'The placement "paper" adds the noise of one step on all samples to several local steps: its '
    "epsilon is a heuristic, not a guarantee."
)


@PLACEMENTS.register("paper")
class Paper(Placement):
    """Clipped local steps without noise, then one noisy release: the literature's heuristic.

    Gradients are clipped per sample to C, and the noise is that of one release of sensitivity
    ``2 C / m``, in units of the averaged gradient. This is exact for one step on all samples, where
    it equals "dp-sgd". With more steps, later ones start from parameters that depend on the record,
    and this effect is not bounded.

    References
    ----------
    Wei et al. 2020, "Federated learning with differential privacy", whose noise Zhou et al. use.
    """

    unit: ClassVar[Unit] = "record"

    def releases(self, steps: LocalSteps, n_samples: int, relation: Relation) -> ReleasePlan:
        """Plan the releases of a round: one, with the noise of one step on all samples."""
        n_steps = steps.count_steps(n_samples)
        return ReleasePlan(
            sensitivity=steps.clipping.sensitivity(self.unit, relation, share=1 / n_samples),
            n_releases=1,
            n_noise_draws=1,
            max_update_norm=steps.clipping.norm * steps.max_update_norm(n_steps),
            noise_gain=steps.learning_rate,
            caveat="" if n_steps == 1 else _PAPER_CAVEAT,
        )

    def train(
        self,
        flat: Tensor,
        batches: Iterable[Batch],
        steps: LocalSteps,
        gradients: Gradients,
        noise: Tensor | None,
    ) -> Upload:
        """Run a round's steps."""
        sgd, count = MomentumSgd(steps), ClippingCount(steps)
        for batch in batches:
            here = sgd.move(flat, gradients)
            clip = count.sum_clipped(batch.divisor)
            total = gradients.reduce_samples(here, batch.images, batch.labels, clip)
            sgd.step(total.div_(batch.divisor))
        if noise is None:
            clean = values = sgd.finish()
        else:
            values = steps.add_noise(sgd.velocity_sum, noise[0]).mul_(-steps.learning_rate)
            clean = sgd.finish()
        return Upload(values, clean, count.within)
