"""Placements of noise: what a node computes and clips, where it adds noise, and what that proves.

A placement is used by both engines: it trains one node, on vectors, or a group of nodes, on
matrices with a row for each.
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
    """What a node with a number of samples releases in a round, and how far its noise goes."""

    sensitivity: Sensitivity
    """How far one unit of data can move one release, in units of that release."""
    n_releases: int
    """Releases of a round that each unit of data is part of."""
    n_noise_draws: int
    """How many times noise is added in a round."""
    max_update_norm: float
    """Largest L2 norm of an update without its noise, in units of parameters."""
    noise_gain: float
    """Standard deviation of the noise on each parameter of an upload, per unit of that of a
    release."""
    divisor: float | None = None
    """What the sum over the samples of a step is divided by; None for the number of samples that
    the step took."""
    caveat: str = ""
    """Why the claimed privacy is a heuristic; empty where it is proven."""


@dataclass(frozen=True)
class Upload:
    """What a node sends in a round, made of releases alone; and the part of it that is not noise.

    Of a group each tensor has a row for each node.
    """

    values: Tensor
    """What the server sees, shape (n_parameters,)."""
    clean: Tensor
    """The part of it that is not noise, shape (n_parameters,); nobody sees it. Without noise it is
    the same tensor."""
    within: float = 0.0
    """Share of what was clipped that lay within the clipping norm, less one half; zero unless the
    steps ask for it. Without noise."""

    @property
    def noise(self) -> Tensor:
        """The noise in it, shape (n_parameters,)."""
        return self.values - self.clean


class Placement(Protocol):
    """A way to train and to add noise, with the privacy that follows from it."""

    unit: ClassVar[Unit]
    """What neighbouring data sets differ in: one record, or all data of a node."""
    sampling_rate: float = 1.0
    """Probability with which each of a node's records takes part in a release."""

    def releases(self, steps: LocalSteps, n_samples: int, relation: Relation) -> ReleasePlan:
        """Plan the releases of a round.

        Parameters
        ----------
        steps : LocalSteps
            How the node trains.
        n_samples : int
            How many samples it has.
        relation : {"replace-one", "zero-out"}
            How neighbouring data sets differ.

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
        """Take a round's steps, of one node or of a group whose nodes take equally many.

        Parameters
        ----------
        flat : Tensor, shape (n_parameters,)
            The round's parameters.
        batches : iterable of Batch
            Samples of each step; of a group with an axis of nodes in front.
        steps : LocalSteps
            How nodes train.
        gradients : Gradients
            What computes gradients.
        noise : Tensor or None
            One entry for each time that noise is added, in units of a release; of a group each
            entry has a row for each node, and its memory may be used. None for no noise.
        """
        ...


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
        """Take a round's steps."""
        import torch

        noisy = MomentumSgd(steps)
        clean = noisy if noise is None else MomentumSgd(steps)
        count = ClippingCount(steps)
        for step, batch in enumerate(batches):
            if len(batch.labels):
                here = noisy.move(flat, gradients)
                clip = count.sum_clipped(batch.divisor)
                total = gradients.clipped(here, batch.images, batch.labels, clip)
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
    """Plain local steps; then the whole update of the node is clipped, and noised once.

    Protects the node's whole data: replacing it moves the update by ``2 * clipping_norm`` at most.
    """

    unit: ClassVar[Unit] = "client"

    @override  # the number of samples does not matter
    def releases(self, steps: LocalSteps, n_samples: int, relation: Relation) -> ReleasePlan:
        """Plan the releases of a round: the update alone."""
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
        """Take a round's steps."""
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
    ``2 C / m``, in units of the averaged gradient. Exact for one step on all samples, where it is
    "dp-sgd"; with more, later steps start where the record has led the first, and nothing bounds
    that.

    References
    ----------
    Wei et al. 2020, "Federated learning with differential privacy", whose noise Zhou et al. take.
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
        """Take a round's steps."""
        sgd, count = MomentumSgd(steps), ClippingCount(steps)
        for batch in batches:
            here = sgd.move(flat, gradients)
            clip = count.sum_clipped(batch.divisor)
            total = gradients.clipped(here, batch.images, batch.labels, clip)
            sgd.step(total.div_(batch.divisor))
        if noise is None:
            clean = values = sgd.finish()
        else:
            values = steps.add_noise(sgd.velocity_sum, noise[0]).mul_(-steps.learning_rate)
            clean = sgd.finish()
        return Upload(values, clean, count.within)
