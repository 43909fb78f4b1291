"""Where noise is added: what a node computes, what it clips, and what that is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from fcfn_abm.dp import Sensitivity, Unit
from fcfn_abm.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

type Gradients = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LocalSteps:
    """How a node trains in a round."""

    n_steps: int
    """Steps on all of its own data."""
    learning_rate: float
    momentum: float
    clipping_norm: float


@dataclass(frozen=True)
class Sent:
    """What a node sends in a round, taken apart; the server sees the sum alone."""

    clean: Tensor
    """The update without noise, shape (n_parameters,)."""
    noise: Tensor
    """The noise in it, shape (n_parameters,)."""


class Placement(Protocol):
    """A way to train and perturb; each states what it protects and how often it releases."""

    unit: ClassVar[Unit]

    def sensitivity(self, clipping_norm: float, n_samples: int) -> Sensitivity:
        """Return how far one unit of data can move one release."""
        ...

    def releases(self, n_steps: int) -> int:
        """Return how many releases a round makes."""
        ...

    def train(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        steps: LocalSteps,
        per_sample: Gradients,
        noise: Tensor | None,
    ) -> Sent:
        """Train one node for a round.

        ``flat`` are the round's parameters, ``noise`` holds one row for each release, in units
        of what is released.
        """
        ...


PLACEMENTS: Registry[Placement] = Registry("placement")


@PLACEMENTS.register("dp-sgd")
class DpSgd(Placement):
    """Per-sample gradients, each clipped, averaged over all of the node's data, and noised.

    Rigorous at record level: replacing one of m records moves the average by at most
    ``2 * clipping_norm / m``. Each local step is a release of its own.
    """

    unit: ClassVar[Unit] = "record"

    def sensitivity(self, clipping_norm: float, n_samples: int) -> Sensitivity:
        """Return how far one record can move the mean of clipped gradients."""
        return Sensitivity(2.0 * clipping_norm / n_samples, self.unit)

    def releases(self, n_steps: int) -> int:
        """Return how many releases a round makes."""
        return n_steps

    def train(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        steps: LocalSteps,
        per_sample: Gradients,
        noise: Tensor | None,
    ) -> Sent:
        """Train one node for a round."""
        clean, dirt = flat.new_zeros(flat.shape), flat.new_zeros(flat.shape)
        velocity, dirt_velocity = clean.clone(), dirt.clone()
        for step in range(steps.n_steps):
            gradients = per_sample(flat + clean + dirt, images, labels)
            velocity = steps.momentum * velocity + clip(gradients, steps.clipping_norm).mean(0)
            clean = clean - steps.learning_rate * velocity
            if noise is not None:
                dirt_velocity = steps.momentum * dirt_velocity + noise[step]
                dirt = dirt - steps.learning_rate * dirt_velocity
        return Sent(clean, dirt)


@PLACEMENTS.register("update")
class Update(Placement):
    """Plain local steps; then the whole update of the node is clipped, and noised once.

    Protects the node's whole data: replacing it moves the update by ``2 * clipping_norm`` at most.
    """

    unit: ClassVar[Unit] = "client"

    def sensitivity(self, clipping_norm: float, n_samples: int) -> Sensitivity:  # noqa: ARG002
        """Return how far the whole data of a node can move its update."""
        return Sensitivity(2.0 * clipping_norm, self.unit)

    def releases(self, n_steps: int) -> int:  # noqa: ARG002
        """Return how many releases a round makes."""
        return 1

    def train(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        steps: LocalSteps,
        per_sample: Gradients,
        noise: Tensor | None,
    ) -> Sent:
        """Train one node for a round."""
        update = flat.new_zeros(flat.shape)
        velocity = update.clone()
        for _ in range(steps.n_steps):
            gradient = per_sample(flat + update, images, labels).mean(0)
            velocity = steps.momentum * velocity + gradient
            update = update - steps.learning_rate * velocity
        clean = clip(update[None], steps.clipping_norm)[0]
        return Sent(clean, flat.new_zeros(flat.shape) if noise is None else noise[0])


def clip(rows: Tensor, clipping_norm: float) -> Tensor:
    """Shorten each row to the clipping norm, in L2; shorter rows stay as they are.

    Parameters
    ----------
    rows : Tensor, shape (m, n_parameters)
        What is clipped.
    clipping_norm : float
        Largest norm that is left.

    Returns
    -------
    Tensor, shape (m, n_parameters)
        Rows of at most that norm; a row that is not finite stays not finite, for the caller to
        see.
    """
    import torch

    norms = rows.norm(dim=1, keepdim=True)
    # a hair less than the norm: rounding must never lift a row above the bound
    factor = clipping_norm * (1 - 1e-6) / norms.clamp(min=clipping_norm * (1 - 1e-6))
    return torch.where(norms.isfinite(), rows * factor, norms)
