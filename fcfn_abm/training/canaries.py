"""Canaries: pairs of real records whose exchange moves a release the most.

They are labelled images like all others, and nodes process them like any other. The parameters
are those of a malicious server, against which epsilon must also hold.
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

_NOTHING = -100  # a label that cross entropy ignores, so the record contributes nothing
_RAISED = 30.0  # logits of two classes that make all others impossible
_STYLES = ((10.0, 1.0), (1.0, 1.0), (30.0, 1.0), (10.0, 100.0), (0.0, 1.0), (0.0, 0.0))
"""Factors of an image, and of the last layer's weights. With the last two, (almost) only the
biases have a gradient."""
_MOST_KEPT = 32  # most cached gradients


@dataclass(frozen=True)
class Canary:
    """Two records with opposite gradients at the parameters that a malicious server sends."""

    image: Images
    """Images of both, shape (1, channels, height, width)."""
    labels: Labels
    """Labels of both, shape (2,)."""
    relation: Relation
    """Relation of neighbouring data sets: one has the first record, the other has the second
    ("replace-one") or a record that contributes nothing ("zero-out")."""
    parameters: Tensor
    """The attacking parameters, shape (n_parameters,)."""

    def __post_init__(self) -> None:
        """Raise InvalidPrivacyError for an unknown relation."""
        require_one_of(Relation, error=InvalidPrivacyError, relation=self.relation)

    def count_samples(self, n_samples: int, *, whole: bool) -> int:
        """Return the number of samples with which a node of ``n_samples`` takes part."""
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
        """Return a node's samples with the canary as the first, or as all of them.

        Parameters
        ----------
        images, labels : ndarray
            The node's own samples.
        whole : bool
            Whether a unit is all data of the node. A unit that contributes nothing then alternates
            both records, whose gradients cancel.
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
    """Create pairs of records with opposite gradients, of different sizes in different layers.

    Parameters
    ----------
    net : torch.nn.Sequential
        The net, with the parameters that training starts from; it ends in a layer with biases.
    image : ndarray of float32, shape (channels, height, width)
        An image to start from.
    relation : {"replace-one", "zero-out"}
        Relation of neighbouring data sets.

    Returns
    -------
    list of Canary
        Candidates: which one moves an update the most depends on the clipping.

    Notes
    -----
    The server raises the biases of two classes until the net finds both equally likely for this
    image, and all others impossible. The gradients for the two labels are then opposite for any
    layers: both are the Jacobian of the logits times plus or minus half the difference of two
    unit vectors.
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
    """Gradients that also record how much a canary moves each step.

    For one node that trains alone, with either engine.

    Parameters
    ----------
    gradients : Gradients
        Gradients of the node's training.
    canary : Canary
        Its two records; the node's batches may hold one of them.
    sampled : bool
        Whether the attacker does not know which batches contain the canary.
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
        """The part of each step's sum that is not noise, midway between both data sets; without the
        canary if the attacker does not know whether it was drawn."""
        self.differences: list[Tensor] = []
        """The sum of a step on the data set minus that on its neighbour."""

    def get_buffer(self, flat: Tensor) -> Tensor:
        """Return a tensor to write parameters into."""
        return self._gradients.get_buffer(flat)

    def mean(self, flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the mean loss."""
        return self._gradients.mean(flat, images, labels)

    def per_sample(self, flat: Tensor, images: Tensor, labels: Tensor) -> SampleGradients:
        """Return the gradient of each sample's loss."""
        return self._gradients.per_sample(flat, images, labels)

    def reduce_samples(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        total: Callable[[SampleGradients], Tensor],
    ) -> Tensor:
        """Return ``total`` of the per-sample gradients, and record the canary's part."""
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
            return self._gradients.reduce_samples(flat, both[0], both[1], total).reshape(-1)

        if self._sampled or bool(canary.any()):
            here, there = (add_up(record) for record in self._records)
            self.differences.append(here - there)
            self.middles.append(add_up() if self._sampled else (here + there) / 2)
        else:
            self.middles.append(add_up())
            self.differences.append(torch.zeros_like(self.middles[-1]))
        return self._gradients.reduce_samples(flat, images, labels, total)


class Remembered(Gradients):
    """Gradients that are cached for repeated parameters and samples.

    Parameters
    ----------
    gradients : Gradients
        Gradients to cache.
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

    def reduce_samples(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        total: Callable[[SampleGradients], Tensor],
    ) -> Tensor:
        """Return ``total`` of the per-sample gradients, as a new tensor."""
        return self._look_up(self._gradients.reduce_samples, flat, images, labels, total)

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
    """A placement whose training is replaced; all else is delegated."""

    def __init__(self, placement: Placement, train: Train) -> None:
        self._placement, self._train = placement, train

    def __getattr__(self, name: str) -> Any:
        return getattr(self._placement, name)

    def train(self, *inputs: Any) -> Upload:
        return self._train(self._placement, *inputs)


def observe(placement: Placement, train: Train) -> Placement:
    """Return a placement that calls ``train`` with the original placement to train."""
    return cast(Placement, _Observed(placement, train))
