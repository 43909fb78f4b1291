"""Gradients of a net at flat parameter vectors: their mean, or each sample's own, to be clipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from math import prod
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
        """Return the sum of the rows, each times its factor: (m, 1) gives (n_parameters,).

        Factors of shape (n_nodes, m / n_nodes, 1) give a sum for each node, (n_nodes,
        n_parameters).
        """
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
        if factors.dim() == 3:
            return (factors.mT @ self.matrix.reshape(*factors.shape[:2], -1))[:, 0]
        return factors[:, 0] @ self.matrix

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
        if factors.dim() == 3:
            back, inputs = (
                part.reshape(*factors.shape[:2], -1) for part in (self.back, self.inputs)
            )
            return ((factors * back).mT @ inputs).flatten(1)
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

        return torch.cat([block.weighted(factors) for block in self.blocks], dim=-1)

    def rows(self) -> Tensor:
        """Return the matrix."""
        import torch

        return torch.cat([block.rows() for block in self.blocks], dim=1)


class Gradients(Protocol):
    """What a placement trains with."""

    def get_buffer(self, flat: Tensor) -> Tensor:
        """Return a tensor to write parameters of this shape into, where gradients cost least."""
        ...

    def mean(self, flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the mean loss, shape (n_parameters,): a fresh tensor."""
        ...

    def per_sample(self, flat: Tensor, images: Tensor, labels: Tensor) -> SampleGradients:
        """Return the gradient of each sample's loss."""
        ...

    def clipped(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        total: Callable[[SampleGradients], Tensor],
    ) -> Tensor:
        """Return what ``total`` makes of each sample's gradient: a fresh tensor."""
        return total(self.per_sample(flat, images, labels))


@dataclass(frozen=True)
class GradientFunction(Gradients):
    """Gradients from a function that returns the matrix of them."""

    function: Callable[[Tensor, Tensor, Tensor], Tensor]

    def get_buffer(self, flat: Tensor) -> Tensor:
        """Return a vector as long as another."""
        return flat.new_empty(flat.shape)

    def mean(self, flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the mean loss, shape (n_parameters,)."""
        return self.function(flat, images, labels).mean(0)

    def per_sample(self, flat: Tensor, images: Tensor, labels: Tensor) -> SampleGradients:
        """Return the gradient of each sample's loss."""
        return Matrix(self.function(flat, images, labels))


class NetGradients(Gradients):
    """The gradients of a net's cross entropy.

    Holds one flat vector of parameters, of which the net's own are views: to write into
    :meth:`get_buffer` changes the net, and one copy loads another vector, unless it was the last.
    Not to be shared between threads.

    Parameters
    ----------
    net : torch.nn.Sequential
        Its parameters become views; :func:`require_known_layers` says which layers may have any.
    precision : {"fp32", "bf16"}, default "fp32"
        Of the layers' work; parameters, and what is clipped and added up, have 32 bits in any case.

    Raises
    ------
    InvalidDataError
        If another layer has parameters.

    Notes
    -----
    The gradients of each sample come from one pass back to the outputs of the layers: a dense
    layer's are an outer product, which is never built, and a convolution's one product a row of
    its kernel, of what came back with its input, unfolded along rows alone. On a CPU this takes a
    fraction of the time of a vectorised gradient, whose convolutions fall apart into groups.
    """

    def __init__(self, net: nn.Sequential, precision: Precision = "fp32") -> None:
        import torch

        require_known_layers(net)
        self.net, self._precision = net, precision
        self._parameters = list(net.parameters())
        self._flat = torch.cat([flatten_parameter(p.detach()) for p in self._parameters])
        self._loaded: Tensor | None = None
        self._version = 0
        shapes = [tuple(parameter.shape) for parameter in self._parameters]
        for parameter, part in zip(
            self._parameters, unflatten_parameters(self._flat, shapes), strict=True
        ):
            parameter.data = part

    @property
    def flat(self) -> Tensor:
        """A copy of the parameters, shape (n_parameters,)."""
        return self._flat.clone()

    def get_buffer(self, flat: Tensor) -> Tensor:  # noqa: ARG002
        """Return the net's own parameters."""
        self._loaded = None
        return self._flat

    def load(self, flat: Tensor) -> None:
        """Set the net's parameters."""
        if flat is self._flat or (flat is self._loaded and flat._version == self._version):
            return
        self._flat.copy_(flat)
        self._loaded, self._version = flat, flat._version  # it counts changes in place

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
        return torch.cat([flatten_parameter(gradient) for gradient in gradients])

    def per_sample(self, flat: Tensor, images: Tensor, labels: Tensor) -> SampleGradients:
        """Return the gradient of each sample's loss."""
        self.load(flat)
        blocks = [
            block
            for layer, given, back in self._backpropagate(images, labels)
            for block in sample_blocks(layer, given.float(), back.float())
        ]
        return Blocks(tuple(blocks))

    def _backpropagate(
        self, images: Tensor, labels: Tensor
    ) -> Iterator[tuple[Any, Tensor, Tensor]]:
        """Return layers with parameters, their inputs, and gradients of each sample's outputs."""
        import torch
        from torch.nn.functional import cross_entropy

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
        return zip(layers, inputs, torch.autograd.grad(loss, outputs), strict=True)


def require_known_layers(net: nn.Sequential) -> None:
    """Raise InvalidDataError unless the fast gradients are those of the net.

    They apply layers one by one, and compute dense layers and convolutions by formulas of their
    own: a subclass with another ``forward``, a hook, or an option that the formulas leave out would
    be ignored.
    """
    from torch import nn

    if not isinstance(net, nn.Sequential) or type(net).forward is not nn.Sequential.forward:
        raise InvalidDataError(
            "a net must be an nn.Sequential with its own forward, since layers are applied one by "
            f"one, but it is a {type(net).__name__}."
        )
    n_parameters = 0
    for layer in net:
        if not any(True for _ in layer.parameters()):
            continue
        n_parameters += 2
        if fault := _find_fault(layer):
            raise InvalidDataError(
                "a net may have parameters in plain nn.Linear and nn.Conv2d layers only, but it "
                f"{fault}."
            )
    if len(list(net.parameters())) < n_parameters:
        raise InvalidDataError("two layers of a net must not share parameters.")


def _find_fault(layer: Any) -> str:
    """Return why the gradients of a layer are not known; empty where they are."""
    from torch import nn

    name = type(layer).__name__
    if type(layer) not in (nn.Linear, nn.Conv2d):  # a subclass may have another forward
        return f"has a {name}"
    if layer.bias is None:
        return f"has a {name} without a bias"
    if "forward" in vars(layer):
        return f"has a {name} with a forward of its own"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return f"has a {name} with a hook"
    if not (layer.weight.requires_grad and layer.bias.requires_grad):
        return f"has a {name} with frozen parameters"
    if isinstance(layer, nn.Conv2d):
        if layer.groups != 1:
            return f"has a {name} of {layer.groups} groups"
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            return (
                f"has a {name} with padding={layer.padding!r}, "
                f"padding_mode={layer.padding_mode!r}: padding must be a number of zeros"
            )
    return ""


def require_independent_samples(net: nn.Sequential, shape: Sequence[int]) -> None:
    """Raise InvalidDataError where a sample's output depends on other samples, or on chance.

    Batch normalisation and dropout are such layers. A sample then has no gradient of its own, which
    clipping could bound; and random layers follow no seed of a scenario.

    Parameters
    ----------
    net : torch.nn.Sequential
        Any layers.
    shape : sequence of int
        Shape of an image.
    """
    import torch

    images = torch.rand(8, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        together = deepcopy(net)(images)
        for part in (images[:3], images):
            if not torch.allclose(deepcopy(net)(part), together[: len(part)], 1e-3, 1e-4):
                raise InvalidDataError(
                    "a net must compute each image's output from that image alone, and without "
                    "chance: batch normalisation and dropout are refused."
                )


def sample_blocks(
    layer: Any, given: Tensor, back: Tensor
) -> tuple[SampleGradients, SampleGradients]:
    """Return the gradients of a layer's weights and biases, one row a sample."""
    import torch
    from torch import nn

    if isinstance(layer, nn.Linear):
        return Outer(back, given), Matrix(back)
    back = back.flatten(2)
    weights = [torch.bmm(back, seen) for seen in unfold_rows(layer, given)]
    return Matrix(torch.cat(weights, dim=2).flatten(1)), Matrix(back.sum(2))


def unfold_rows(layer: Any, given: Tensor) -> Iterator[Tensor]:
    """Yield what each row of a convolution's kernel sees, channels last.

    Each of shape (m, n_places, n_columns * n_in): of each sample, at each place of the output.
    """
    from torch.nn.functional import pad

    (high, wide), (down, right) = layer.kernel_size, layer.stride
    (below, beside), (top, left) = layer.dilation, layer.padding
    image = pad(given.permute(0, 2, 3, 1), (0, 0, left, left, top, top))
    windows = image.unfold(2, beside * (wide - 1) + 1, right)[..., ::beside]
    seen = windows.transpose(3, 4).flatten(3).contiguous()
    span = seen.shape[1] - below * (high - 1)
    for start in range(0, below * high, below):
        yield seen[:, start : start + span : down].flatten(1, 2)


def flatten_parameter(values: Tensor) -> Tensor:
    """Return a parameter's values in the order in which a flat vector holds them.

    Channels come last in convolutions: processors are fastest so.
    """
    return (values.permute(0, 2, 3, 1) if values.dim() == 4 else values).reshape(-1)


def unflatten_parameters(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> Iterator[Tensor]:
    """Yield the parameters that flat vectors hold, as views; axes in front stay where they are."""
    import torch

    parts = torch.split(flat, [prod(shape) for shape in shapes], dim=-1)
    for part, shape in zip(parts, shapes, strict=True):
        front = part.shape[:-1]
        if len(shape) == 4:
            n_out, n_in, height, width = shape
            yield part.view(*front, n_out, height, width, n_in).movedim(-1, -3)
        else:
            yield part.view(*front, *shape)
