"""Training of a node in a round, with what all nodes share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcfn_abm.rng import key
from fcfn_abm.training.draws import Draws
from fcfn_abm.training.gradients import Gradients
from fcfn_abm.training.local_steps import LocalSteps, take_batches
from fcfn_abm.training.net_checks import split_into_layers
from fcfn_abm.training.partition import Rows
from fcfn_abm.training.placements import ReleasePlan, Upload
from fcfn_abm.training.plan import TrainingPlan

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class LocalTraining:
    """Trains any node for a round."""

    plan: TrainingPlan
    releases: Sequence[ReleasePlan]
    """Releases of each node per round."""
    draws: Draws
    """Noise and batches of the nodes."""

    def train(
        self,
        flat: Tensor,
        node: int,
        round_index: int,
        samples: tuple[Tensor, Tensor],
        own: Rows | None,
        steps: LocalSteps,
        noise_std: float | None,
        gradients: Gradients,
    ) -> Upload:
        """Train a node for a round, and return its upload.

        Parameters
        ----------
        flat : Tensor, shape (n_parameters,)
            The round's parameters.
        node, round_index : int
            Node and round of the random numbers.
        samples : (Tensor, Tensor)
            Images and labels.
        own : ndarray of int or None
            Rows of the node; None for all.
        steps : LocalSteps
            Settings of the local steps.
        noise_std : float or None
            Standard deviation of its noise, in units of a release; None for none.
        gradients : Gradients
            Gradients of the net.
        """
        placement = self.plan.placement
        n_samples = len(samples[1]) if own is None else len(own)
        generator = self.draws.create_batch_generator(round_index, node)
        rows = placement.draw_batches(steps, n_samples, generator)
        if own is not None:
            rows = (own[taken] for taken in rows)
        batches = take_batches(*samples, rows, self.releases[node].divisor)
        noise = None if noise_std is None else self.draws.draw_noise(noise_std, round_index, node)
        return placement.train(flat, batches, steps, gradients, noise)


def build_net(plan: TrainingPlan, shape: tuple[int, int, int], n_classes: int) -> nn.Sequential:
    """Build the net of a plan, as layers; its random numbers follow the plan's seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(plan.seed, "first-parameters")[0])
        return split_into_layers(plan.net.build(shape, n_classes))
