"""Where noise is added: what a node computes, what it clips, and what that is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, Protocol

from fcfn_abm.dp import Clipping, Relation, Sensitivity, Unit
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
    clipping: Clipping

    @property
    def reach(self) -> float:
        """How far the steps go from where they start if each gradient has norm 1."""
        speeds = accumulate(range(1, self.n_steps), lambda v, _: self.momentum * v + 1, initial=1.0)
        return self.learning_rate * sum(speeds)


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

    def sensitivity(self, clipping: Clipping, relation: Relation, n_samples: int) -> Sensitivity:
        """Return how far one unit of data can move one release."""
        ...

    def releases(self, n_steps: int) -> int:
        """Return how many releases a round makes."""
        ...

    def reach(self, steps: LocalSteps) -> float:
        """Return the largest L2 norm that an update can have without its noise."""
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

    def sensitivity(self, clipping: Clipping, relation: Relation, n_samples: int) -> Sensitivity:
        """Return how far one record can move the mean of clipped gradients."""
        return clipping.sensitivity(self.unit, relation, share=1 / n_samples)

    def releases(self, n_steps: int) -> int:
        """Return how many releases a round makes."""
        return n_steps

    def reach(self, steps: LocalSteps) -> float:
        """Return the largest L2 norm that an update can have without its noise."""
        return steps.clipping.norm * steps.reach

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
            velocity = steps.momentum * velocity + steps.clipping(gradients).mean(0)
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

    def sensitivity(self, clipping: Clipping, relation: Relation, n_samples: int) -> Sensitivity:  # noqa: ARG002
        """Return how far the whole data of a node can move its update."""
        return clipping.sensitivity(self.unit, relation)

    def releases(self, n_steps: int) -> int:  # noqa: ARG002
        """Return how many releases a round makes."""
        return 1

    def reach(self, steps: LocalSteps) -> float:
        """Return the largest L2 norm that an update can have without its noise."""
        return steps.clipping.norm

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
        clean = steps.clipping(update[None])[0]
        return Sent(clean, flat.new_zeros(flat.shape) if noise is None else noise[0])


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
    ) -> Sent:
        """Train one node for a round."""
        clean = flat.new_zeros(flat.shape)
        velocity = clean.clone()
        for _ in range(steps.n_steps):
            gradients = per_sample(flat + clean, images, labels)
            velocity = steps.momentum * velocity + steps.clipping(gradients).mean(0)
            clean = clean - steps.learning_rate * velocity
        return Sent(
            clean,
            clean.new_zeros(clean.shape) if noise is None else -steps.learning_rate * noise[0],
        )
