"""Canaries: real records, such that training on one or on another moves a release the furthest.

They are images with labels like all others. What a node does with them is what it does with any.
The parameters at which it does so are those of a server that attacks it: epsilon holds for all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp import Relation
from fcfn_abm.errors import InvalidPrivacyError, require_one_of
from fcfn_abm.training.gradients import (
    Gradients,
    NetGradients,
    SampleGradients,
    flatten_parameter,
)
from fcfn_abm.training.local_steps import Batch, LocalSteps
from fcfn_abm.training.placements import Placement, Upload

if TYPE_CHECKING:
    from torch import Tensor, nn

type Images = npt.NDArray[np.float32]
type Labels = npt.NDArray[np.int64]

_NOTHING = -100  # a label that cross entropy passes over: such a record contributes nothing
_RAISED = 30.0  # logits of two classes, which leave all others no chance
_STYLES = ((10.0, 1.0), (1.0, 1.0), (30.0, 1.0), (10.0, 100.0), (0.0, 1.0), (0.0, 0.0))
"""Factors of an image, and of the last layer's weights. The last two leave biases alone, or almost,
with a gradient."""
_MOST_KEPT = 32  # gradients that are remembered


@dataclass(frozen=True)
class Canary:
    """Two records with opposite gradients at the parameters that a malicious server sends."""

    image: Images
    """Of both, shape (1, channels, height, width)."""
    labels: Labels
    """Shape (2,)."""
    relation: Relation
    """How neighbouring data sets differ: the first record stands in one; in the other one stands
    the second record ("replace-one"), or one that contributes nothing ("zero-out")."""
    parameters: Tensor
    """Shape (n_parameters,)."""

    def __post_init__(self) -> None:
        """Raise InvalidPrivacyError for an unknown relation."""
        require_one_of(Relation, error=InvalidPrivacyError, relation=self.relation)

    def count_samples(self, n_samples: int, *, whole: bool) -> int:
        """Return with how many samples a node takes part that has so many of its own."""
        return n_samples + n_samples % 2 if whole and self.relation == "zero-out" else n_samples

    def record(self, *, present: bool) -> tuple[Images, Labels]:
        """Return the record of one of the two data sets, shapes (1, ...) and (1,)."""
        if present:
            return self.image, self.labels[:1]
        replaced = self.relation == "replace-one"
        return self.image, self.labels[1:] if replaced else np.full(1, _NOTHING)

    def plant(
        self, images: Images, labels: Labels, *, whole: bool, present: bool
    ) -> tuple[Images, Labels]:
        """Return a node's samples, with the canary as the first of them, or as all.

        Parameters
        ----------
        images, labels : ndarray
            The node's own samples.
        whole : bool
            Whether a unit is all data of the node. One that contributes nothing then consists of
            both records in turn, whose gradients cancel.
        present : bool
            True for the data set, False for its neighbour.
        """
        if not whole:
            image, label = self.record(present=present)
            return np.concatenate([image, images[1:]]), np.concatenate([label, labels[1:]])
        n_samples = self.count_samples(len(labels), whole=True)
        which = np.zeros(n_samples, dtype=int)
        if not present:
            which = np.arange(n_samples) % 2 if self.relation == "zero-out" else which + 1
        return np.repeat(self.image, n_samples, axis=0), self.labels[which]


def craft_canaries(net: nn.Sequential, image: Images, relation: Relation) -> list[Canary]:
    """Make pairs of records with opposite gradients, of different sizes in different layers.

    Parameters
    ----------
    net : torch.nn.Sequential
        The net, with the parameters that training starts from; it ends in a layer with biases.
    image : ndarray of float32, shape (channels, height, width)
        An image to begin with.
    relation : {"replace-one", "zero-out"}
        How neighbours differ.

    Returns
    -------
    list of Canary
        Which of them moves an update the most depends on how it is clipped, and has to be tried.

    Notes
    -----
    The server raises the biases of two classes until the net finds both equally likely for this
    image, and all others impossible. The gradients for the one and for the other label are then
    opposite, whatever the layers: both are the Jacobian of the logits times plus or minus half the
    difference of two unit vectors.
    """
    import torch

    weights, biases = (part.detach() for part in list(net.parameters())[-2:])
    kept = [part.detach().clone() for part in net.parameters()]
    labels = np.array([0, min(1, biases.numel() - 1)])
    canaries = []
    for brightness, stretch in _STYLES:
        shown = brightness * torch.from_numpy(np.ascontiguousarray(image))[None]
        if stretch == 0:
            for part in net.parameters():
                part.detach().zero_()
        weights *= stretch
        with torch.no_grad():
            logits = net(shown)[0]
        for label in labels.tolist():
            biases[label] += logits.max() + _RAISED - logits[label]
        flat = torch.cat([flatten_parameter(part.detach()) for part in net.parameters()])
        canaries.append(Canary(shown.numpy(), labels, relation, flat))
        for part, values in zip(net.parameters(), kept, strict=True):
            part.detach().copy_(values)
    return canaries


def compute_losses(
    gradients: NetGradients, flat: Any, images: Images, labels: Sequence[Labels]
) -> list[npt.NDArray[np.float64]]:
    """Return the losses of images under a net, for each of several sets of labels, shape (m,).

    Parameters
    ----------
    gradients : NetGradients
        Of the net.
    flat : array_like of float32, shape (n_parameters,)
        Its parameters.
    images : ndarray, shape (m, channels, height, width)
    labels : sequence of ndarray of int, shape (m,)
    """
    import torch
    from torch.nn.functional import cross_entropy

    gradients.load(torch.as_tensor(flat))
    with torch.no_grad():
        logits = gradients.net(torch.from_numpy(np.ascontiguousarray(images)))
    return [
        cross_entropy(logits, torch.from_numpy(given), reduction="none").double().numpy()
        for given in labels
    ]


class Watched(Gradients):
    """Gradients that also tell what a canary moves at each step, by the same gradients.

    Of one node that trains alone, by either engine.

    Parameters
    ----------
    gradients : Gradients
        What the node trains with.
    canary : Canary
        Its two records; the node's batches may hold one of them.
    sampled : bool
        Whether the attacker is not to know in which batches it was.
    """

    def __init__(self, gradients: Gradients, canary: Canary, *, sampled: bool) -> None:
        import torch

        self._gradients, self._sampled = gradients, sampled
        self._records = [
            tuple(torch.from_numpy(part) for part in canary.record(present=present))
            for present in (True, False)
        ]
        self.positions: list[Tensor] = []
        """Parameters at each step, shape (n_parameters,)."""
        self.middles: list[Tensor] = []
        """What is not noise in the sum of a step, in the middle between both data sets; where the
        attacker does not know whether the canary was drawn, without it."""
        self.differences: list[Tensor] = []
        """The sum of a step on the data set, less that on its neighbour."""

    def get_buffer(self, flat: Tensor) -> Tensor:
        """Return a tensor to write parameters into."""
        return self._gradients.get_buffer(flat)

    def mean(self, flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the mean loss."""
        return self._gradients.mean(flat, images, labels)

    def per_sample(self, flat: Tensor, images: Tensor, labels: Tensor) -> SampleGradients:
        """Return the gradient of each sample's loss."""
        return self._gradients.per_sample(flat, images, labels)

    def clipped(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        total: Callable[[SampleGradients], Tensor],
    ) -> Tensor:
        """Return what ``total`` makes of each sample's gradient, and note the canary's part."""
        import torch

        self.positions.append(flat.reshape(-1).clone())
        group = labels.dim() == 2
        own_images, own_labels = (images[0], labels[0]) if group else (images, labels)
        canary = torch.zeros(len(own_labels), dtype=torch.bool)
        for image, _ in self._records:
            canary |= (own_images == image).flatten(1).all(1)
        others = own_images[~canary], own_labels[~canary]

        def add_up(*records: tuple[Tensor, ...]) -> Tensor:
            parts = [part for part in (others, *records) if len(part[1])]
            if not parts:
                return flat.new_zeros(flat.numel())
            both = [torch.cat(each) for each in zip(*parts, strict=True)]
            if group:
                both = [each[None] for each in both]
            return self._gradients.clipped(flat, both[0], both[1], total).reshape(-1)

        if self._sampled or bool(canary.any()):
            here, there = (add_up(record) for record in self._records)
            self.differences.append(here - there)
            self.middles.append(add_up() if self._sampled else (here + there) / 2)
        else:
            self.middles.append(add_up())
            self.differences.append(torch.zeros_like(self.middles[-1]))
        return self._gradients.clipped(flat, images, labels, total)


class Remembered(Gradients):
    """Gradients that are computed once where parameters and samples come back.

    Parameters
    ----------
    gradients : Gradients
        What computes them.
    """

    def __init__(self, gradients: Gradients) -> None:
        self._gradients = gradients
        self._kept: deque[tuple[tuple[Any, ...], Tensor]] = deque(maxlen=_MOST_KEPT)

    def get_buffer(self, flat: Tensor) -> Tensor:
        """Return a tensor to write parameters into."""
        return self._gradients.get_buffer(flat)

    def mean(self, flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the mean loss: a fresh tensor."""
        return self._look_up(self._gradients.mean, flat, images, labels)

    def per_sample(self, flat: Tensor, images: Tensor, labels: Tensor) -> SampleGradients:
        """Return the gradient of each sample's loss."""
        return self._gradients.per_sample(flat, images, labels)

    def clipped(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        total: Callable[[SampleGradients], Tensor],
    ) -> Tensor:
        """Return what ``total`` makes of each sample's gradient: a fresh tensor."""
        return self._look_up(self._gradients.clipped, flat, images, labels, total)

    def _look_up(self, compute: Callable[..., Tensor], *given: Any) -> Tensor:
        inputs, rest = given[:3], given[3:]
        for (kept, kept_rest), result in self._kept:
            if kept_rest == rest and all(a.equal(b) for a, b in zip(kept, inputs, strict=True)):
                return result.clone()
        result = compute(*given)
        kept = tuple(tensor.clone() for tensor in inputs), rest
        self._kept.append((kept, result.clone()))
        return result


type Train = Callable[
    [Placement, Tensor, Iterable[Batch], LocalSteps, Gradients, Tensor | None], Upload
]


class _Observed:
    """A placement that is watched as it trains; all else is its own."""

    def __init__(self, placement: Placement, train: Train) -> None:
        self._placement, self._train = placement, train

    def __getattr__(self, name: str) -> Any:
        return getattr(self._placement, name)

    def train(self, *inputs: Any) -> Upload:
        return self._train(self._placement, *inputs)


def observe(placement: Placement, train: Train) -> Placement:
    """Return a placement that leaves its training to ``train``, which is given the real one."""
    return cast(Placement, _Observed(placement, train))
