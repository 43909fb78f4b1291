"""Gradients of a net at flat parameter vectors: their mean, or each sample's own, to be clipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fcfn_abm.dp.sensitivity import l2_norms
from fcfn_abm.errors import InvalidDataError

if TYPE_CHECKING:
    from torch import Tensor, nn

type Precision = Literal["fp32", "bf16"]


class SampleGradients(Protocol):
    """The gradients of m samples, one row each, which need not exist as a matrix."""

    def norms(self) -> Tensor:
        """Return the L2 norm of each row, shape (m, 1), in 64 bits."""
        ...

    def weighted(self, factors: Tensor) -> Tensor:
        """Return the sum of the rows, each times its factor: (m, 1) gives (n_parameters,)."""
        ...

    def rows(self) -> Tensor:
        """Return the matrix, shape (m, n_parameters)."""
        ...


@dataclass(frozen=True)
class Matrix(SampleGradients):
    """Rows that are there."""

    matrix: Tensor
    """Shape (m, k)."""

    def norms(self) -> Tensor:
        """Return the L2 norm of each row."""
        return l2_norms(self.matrix)

    def weighted(self, factors: Tensor) -> Tensor:
        """Return the sum of the rows, each times its factor."""
        return (factors * self.matrix).sum(0)

    def rows(self) -> Tensor:
        """Return the matrix."""
        return self.matrix


@dataclass(frozen=True)
class Outer(SampleGradients):
    """Rows of a dense layer's weights: of each sample, what came back times what went in."""

    back: Tensor
    """Gradients of the layer's outputs, shape (m, n_out)."""
    inputs: Tensor
    """Shape (m, n_in)."""

    def norms(self) -> Tensor:
        """Return the L2 norm of each row: the product of two norms."""
        return l2_norms(self.back) * l2_norms(self.inputs)

    def weighted(self, factors: Tensor) -> Tensor:
        """Return the sum of the rows, each times its factor: one product of matrices."""
        return ((factors * self.back).T @ self.inputs).reshape(-1)

    def rows(self) -> Tensor:
        """Return the matrix."""
        return (self.back[:, :, None] * self.inputs[:, None, :]).flatten(1)


@dataclass(frozen=True)
class Blocks(SampleGradients):
    """Rows side by side."""

    blocks: tuple[SampleGradients, ...]

    def norms(self) -> Tensor:
        """Return the L2 norm of each row."""
        import torch

        return l2_norms(torch.cat([block.norms() for block in self.blocks], dim=1))

    def weighted(self, factors: Tensor) -> Tensor:
        """Return the sum of the rows, each times its factor."""
        import torch

        return torch.cat([block.weighted(factors) for block in self.blocks])

    def rows(self) -> Tensor:
        """Return the matrix."""
        import torch

        return torch.cat([block.rows() for block in self.blocks], dim=1)


class Gradients(Protocol):
    """What a placement trains with."""

    def mean(self, flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the mean loss, shape (n_parameters,)."""
        ...

    def per_sample(self, flat: Tensor, images: Tensor, labels: Tensor) -> SampleGradients:
        """Return the gradient of each sample's loss."""
        ...


@dataclass(frozen=True)
class Handed(Gradients):
    """Gradients from a function that returns the matrix of them."""

    function: Callable[[Tensor, Tensor, Tensor], Tensor]

    def mean(self, flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the mean loss, shape (n_parameters,)."""
        return self.function(flat, images, labels).mean(0)

    def per_sample(self, flat: Tensor, images: Tensor, labels: Tensor) -> SampleGradients:
        """Return the gradient of each sample's loss."""
        return Matrix(self.function(flat, images, labels))


class NetGradients(Gradients):
    """The gradients of a net's cross entropy.

    Holds one flat vector of parameters, of which the net's own are views: one copy loads it. Not to
    be shared between threads.

    Parameters
    ----------
    net : torch.nn.Sequential
        Its parameters become views. Convolutions and dense layers may have parameters.
    precision : {"fp32", "bf16"}, default "fp32"
        Of the layers' work; parameters, and what is clipped and added up, have 32 bits in any case.

    Raises
    ------
    InvalidDataError
        If another layer has parameters.

    Notes
    -----
    The gradients of each sample come from one pass back to the outputs of the layers: a dense
    layer's are an outer product, which is never built, and a convolution's a product of its
    unfolded input with what came back. On a CPU this takes a tenth of the time of a vectorised
    gradient, whose convolutions fall apart into groups.
    """

    def __init__(self, net: nn.Sequential, precision: Precision = "fp32") -> None:
        import torch
        from torch import nn

        for layer in net:
            known = isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None
            if not known and any(True for _ in layer.parameters()):
                raise InvalidDataError(
                    "a net may have parameters in convolutions and dense layers with a bias, but "
                    f"has a {type(layer).__name__}."
                )
        self.net, self._precision = net, precision
        self._parameters = list(net.parameters())
        self._flat = torch.cat([_flattened(p.detach()) for p in self._parameters])
        start = 0
        for parameter in self._parameters:
            part = self._flat[start : start + parameter.numel()]
            parameter.data = _in_place(part, parameter.shape)
            start += parameter.numel()

    @property
    def flat(self) -> Tensor:
        """A copy of the parameters, shape (n_parameters,)."""
        return self._flat.clone()

    def load(self, flat: Tensor) -> None:
        """Set the net's parameters."""
        self._flat.copy_(flat)

    def _layers(self) -> AbstractContextManager[object]:
        import torch

        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast("cpu", torch.bfloat16)

    def mean(self, flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the mean loss, shape (n_parameters,)."""
        import torch
        from torch.nn.functional import cross_entropy

        self.load(flat)
        with self._layers():
            logits = self.net(images)
        loss = cross_entropy(logits.float(), labels)
        gradients = torch.autograd.grad(loss, self._parameters)
        return torch.cat([_flattened(gradient) for gradient in gradients])

    def per_sample(self, flat: Tensor, images: Tensor, labels: Tensor) -> SampleGradients:
        """Return the gradient of each sample's loss."""
        import torch
        from torch.nn.functional import cross_entropy

        self.load(flat)
        passed = images
        layers, inputs, outputs = [], [], []
        with self._layers():
            for layer in self.net:
                before, passed = passed, layer(passed)
                if layer._parameters:
                    layers.append(layer)
                    inputs.append(before.detach())
                    outputs.append(passed)
        loss = cross_entropy(passed.float(), labels, reduction="sum")
        back = torch.autograd.grad(loss, outputs)
        blocks = [
            block
            for layer, given, returned in zip(layers, inputs, back, strict=True)
            for block in _blocks(layer, given.float(), returned.float())
        ]
        return Blocks(tuple(blocks))


def _blocks(layer: Any, given: Tensor, back: Tensor) -> tuple[SampleGradients, SampleGradients]:
    """Return the gradients of a layer's weights and biases, one row a sample."""
    import torch
    from torch import nn
    from torch.nn.functional import unfold

    if isinstance(layer, nn.Linear):
        return Outer(back, given), Matrix(back)
    patches = unfold(given, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    back = back.flatten(2)
    weights = torch.bmm(back, patches.transpose(1, 2))
    weights = weights.view(len(given), *layer.weight.shape).permute(0, 1, 3, 4, 2)
    return Matrix(weights.flatten(1)), Matrix(back.sum(2))


def _flattened(values: Tensor) -> Tensor:
    """Return a parameter's values in the order in which a flat vector holds them.

    Channels come last in convolutions: processors are fastest so.
    """
    return (values.permute(0, 2, 3, 1) if values.dim() == 4 else values).reshape(-1)


def _in_place(part: Tensor, shape: Sequence[int]) -> Tensor:
    """Return part of a flat vector as a parameter: a view."""
    if len(shape) != 4:
        return part.view(*shape)
    n_out, n_in, height, width = shape
    return part.view(n_out, height, width, n_in).permute(0, 3, 1, 2)
