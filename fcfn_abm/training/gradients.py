"""Gradients of a net at flat parameter vectors: means, or per-sample gradients for clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal, Protocol, override

from fcfn_abm.dp.sensitivity import l2_norms
from fcfn_abm.errors import InvalidDataError, join_lines
from fcfn_abm.training.net_checks import has_formula, require_own_parameters, split_into_layers

if TYPE_CHECKING:
    from torch import Tensor, nn

_CACHE_BYTES = 2**19  # half of a level-2 cache
_ROW_BYTES = 2**26  # of rows in memory at once without a formula

type Precision = Literal["fp32", "bf16"]


class SampleGradients(Protocol):
    """The gradients of m samples, one row each, not necessarily stored as a matrix."""

    def norms(self) -> Tensor:
        """Return the L2 norm of each row, shape (m, 1), in 64 bits."""
        ...

    def sum_weighted(self, factors: Tensor) -> Tensor:
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
    """Rows stored as a matrix."""

    matrix: Tensor
    """Shape (m, k)."""

    def norms(self) -> Tensor:
        """Return the L2 norm of each row."""
        return l2_norms(self.matrix)

    def sum_weighted(self, factors: Tensor) -> Tensor:
        """Return the sum of the rows, each times its factor."""
        if factors.dim() == 3:
            return (factors.mT @ self.matrix.reshape(*factors.shape[:2], -1))[:, 0]
        return factors[:, 0] @ self.matrix

    def rows(self) -> Tensor:
        """Return the matrix."""
        return self.matrix


@dataclass(frozen=True)
class Kernels(SampleGradients):
    """Rows of a convolution's weights, in the order that is fastest to compute."""

    kernels: Tensor
    """Gradients of each sample, shape (m, height * width * n_in, n_out)."""

    def norms(self) -> Tensor:
        """Return the L2 norm of each row."""
        return l2_norms(self.kernels.flatten(1))

    def sum_weighted(self, factors: Tensor) -> Tensor:
        """Return the sum of the rows, each times its factor."""
        total = Matrix(self.kernels.flatten(1)).sum_weighted(factors)
        kernels = total.view(*total.shape[:-1], *self.kernels.shape[1:])
        return kernels.mT.flatten(-2)

    def rows(self) -> Tensor:
        """Return the matrix."""
        return self.kernels.mT.flatten(1)


@dataclass(frozen=True)
class Outer(SampleGradients):
    """Rows of a dense layer's weights: per sample, the outer product of gradient and input."""

    back: Tensor
    """Gradients of the layer's outputs, shape (m, n_out)."""
    inputs: Tensor
    """Shape (m, n_in)."""

    def norms(self) -> Tensor:
        """Return the L2 norm of each row: the product of two norms."""
        return l2_norms(self.back) * l2_norms(self.inputs)

    def sum_weighted(self, factors: Tensor) -> Tensor:
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

    def sum_weighted(self, factors: Tensor) -> Tensor:
        """Return the sum of the rows, each times its factor."""
        import torch

        return torch.cat([block.sum_weighted(factors) for block in self.blocks], dim=-1)

    def rows(self) -> Tensor:
        """Return the matrix."""
        import torch

        return torch.cat([block.rows() for block in self.blocks], dim=1)


class LayerRows(SampleGradients):
    """Rows of all parameters of any layer, by automatic differentiation of this layer.

    Rows are vectorised over samples, as many at a time as fit into memory. Their weighted sum takes
    a single backward pass, since a row is linear in the output gradient.

    Parameters
    ----------
    layer : torch.nn.Module
        A layer that processes samples independently; its current parameters are copied.
    given : Tensor, shape (m, ...)
        Inputs.
    back : Tensor, shape (m, ...)
        Gradients of each sample's outputs.
    """

    def __init__(self, layer: nn.Module, given: Tensor, back: Tensor) -> None:
        self._layer, self._given, self._back = layer, given, back
        self._parameters = {
            name: value.detach().clone() for name, value in layer.named_parameters()
        }

    def norms(self) -> Tensor:
        """Return the L2 norm of each row."""
        import torch

        return torch.cat([l2_norms(part) for part in self._parts()])

    def sum_weighted(self, factors: Tensor) -> Tensor:
        """Return the sum of the rows, each times its factor."""
        import torch

        if len(self._given) == 0:
            return self.rows().sum(0)
        back = self._back * factors.view(-1, *[1] * (self._back.dim() - 1))
        return torch.cat([flatten_parameter(part) for part in self._pull(self._given, back)])

    def rows(self) -> Tensor:
        """Return the matrix."""
        import torch

        return torch.cat(list(self._parts()))

    def _parts(self) -> Iterator[Tensor]:
        """Yield the matrix, some rows at a time."""
        import torch

        n_parameters = sum(value.numel() for value in self._parameters.values())
        size = max(_ROW_BYTES // (4 * n_parameters), 1)
        if len(self._given) == 0:
            yield self._given.new_empty(0, n_parameters)
            return

        def pull_one(given: Tensor, back: Tensor) -> tuple[Tensor, ...]:
            return self._pull(given[None], back[None])

        for given, back in zip(
            torch.split(self._given, size), torch.split(self._back, size), strict=True
        ):
            try:
                parts = torch.func.vmap(pull_one)(given, back)
            except RuntimeError as error:
                raise InvalidDataError(
                    f"the gradients of a {type(self._layer).__name__} cannot be computed per "
                    f"sample by torch.func.vmap: {join_lines(str(error))}"
                ) from None
            yield torch.cat([_flatten_each(part) for part in parts], dim=1)

    def _pull(self, given: Tensor, back: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient of ``sum(back * outputs)`` with respect to each parameter."""
        import torch

        def apply(parameters: dict[str, Tensor]) -> Any:
            return torch.func.functional_call(self._layer, parameters, (given,))

        pull: Any = torch.func.vjp(apply, self._parameters)[1]
        (gradients,) = pull(back)
        return tuple(gradients[name] for name in self._parameters)


def _flatten_each(values: Tensor) -> Tensor:
    """Return a parameter's values per sample, one row each, as :func:`flatten_parameter`."""
    return (values.permute(0, 1, 3, 4, 2) if values.dim() == 5 else values).flatten(1)


class Gradients(Protocol):
    """The gradients that a placement trains with."""

    def get_buffer(self, flat: Tensor) -> Tensor:
        """Return a tensor for parameters of this shape, from which gradients are fastest."""
        ...

    def mean(self, flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the mean loss, shape (n_parameters,), as a new tensor."""
        ...

    def per_sample(self, flat: Tensor, images: Tensor, labels: Tensor) -> SampleGradients:
        """Return the gradient of each sample's loss."""
        ...

    def reduce_samples(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        total: Callable[[SampleGradients], Tensor],
    ) -> Tensor:
        """Return ``total`` of the per-sample gradients, as a new tensor."""
        return total(self.per_sample(flat, images, labels))


@dataclass(frozen=True)
class GradientFunction(Gradients):
    """Gradients from a function that returns their matrix."""

    function: Callable[[Tensor, Tensor, Tensor], Tensor]

    def get_buffer(self, flat: Tensor) -> Tensor:
        """Return a vector of the same length."""
        return flat.new_empty(flat.shape)

    def mean(self, flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the mean loss, shape (n_parameters,)."""
        return self.function(flat, images, labels).mean(0)

    def per_sample(self, flat: Tensor, images: Tensor, labels: Tensor) -> SampleGradients:
        """Return the gradient of each sample's loss."""
        return Matrix(self.function(flat, images, labels))


class NetGradients(Gradients):
    """The gradients of a net's cross entropy.

    Has one flat vector of parameters, of which the net's own are views: writing to
    :meth:`get_buffer` changes the net. Loading another vector takes one copy, unless it was the
    last one. Not thread-safe.

    Parameters
    ----------
    net : torch.nn.Module
        The net; its parameters become views. It must process images independently.
    precision : {"fp32", "bf16"}, default "fp32"
        Precision of the layers; parameters, clipping and sums always have 32 bits.

    Raises
    ------
    InvalidDataError
        If layers share parameters, or some are frozen.

    Notes
    -----
    Per-sample gradients come from one backward pass to the outputs of the layers. A dense layer's
    is an outer product, which is never built; a convolution's is one product per kernel row, of the
    output gradient with the input unfolded along rows. On a CPU this is much faster than a
    vectorised gradient, whose convolutions split into groups. Layers without such a formula are
    differentiated separately (:class:`LayerRows`).
    """

    def __init__(self, net: nn.Module, precision: Precision = "fp32") -> None:
        import torch

        net = split_into_layers(net)
        require_own_parameters(net)
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

    @override  # all vectors have the same shape
    def get_buffer(self, flat: Tensor) -> Tensor:
        """Return the net's own parameters."""
        self._loaded = None
        return self._flat

    def load(self, flat: Tensor) -> None:
        """Set the net's parameters."""
        if flat is self._flat or (flat is self._loaded and flat._version == self._version):
            return
        self._flat.copy_(flat)
        self._loaded, self._version = flat, flat._version  # counts in-place changes

    def evaluate(self, flat: Tensor, images: Tensor, labels: Tensor) -> tuple[float, int]:
        """Return the summed loss of some images, and how many are classified correctly."""
        import torch
        from torch.nn.functional import cross_entropy

        self.load(flat)
        with torch.no_grad():
            logits = self.net(images)
        total = cross_entropy(logits, labels, reduction="sum")
        return float(total), int((logits.argmax(1) == labels).sum())

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
                if any(True for _ in layer.parameters()):
                    layers.append(layer)
                    inputs.append(before.detach())
                    outputs.append(passed)
        loss = cross_entropy(passed.float(), labels, reduction="sum")
        return zip(layers, inputs, torch.autograd.grad(loss, outputs), strict=True)


def sample_blocks(layer: Any, given: Tensor, back: Tensor) -> tuple[SampleGradients, ...]:
    """Return the gradients of a layer's parameters, in order, one row per sample."""
    import torch
    from torch import nn

    if not has_formula(layer) or (isinstance(layer, nn.Linear) and given.dim() != 2):
        return (LayerRows(layer, given, back),)
    if isinstance(layer, nn.Linear):
        return Outer(back, given), Matrix(back)
    if isinstance(layer, nn.GroupNorm):
        back = back.reshape(*back.shape[:2], -1)
        scaled = back * normalise_groups(layer, given).reshape(back.shape)
        return Matrix(scaled.sum(2)), Matrix(back.sum(2))
    if _is_sparse(layer, back):
        from fcfn_abm.training.kernels import kernel_gradients

        weights = kernel_gradients(
            back.permute(0, 2, 3, 1).numpy(), pad_image(layer, given).numpy(), layer.kernel_size
        )
        return Matrix(torch.from_numpy(weights)), Matrix(back.sum((2, 3)))
    back = back.flatten(2)
    (height, width), n_in = layer.kernel_size, layer.in_channels
    kernels = back.new_empty(len(back), height, width * n_in, layer.out_channels)
    size = _count_cached_samples(layer, given)
    parts = (torch.split(whole, size) for whole in (back, given, kernels))
    for back_part, given_part, part in zip(*parts, strict=True):
        for row, seen in enumerate(unfold_rows(layer, given_part)):
            torch.bmm(seen.mT, back_part.mT, out=part[:, row])
    return Kernels(kernels.flatten(1, 2)), Matrix(back.sum(2))


def normalise_groups(layer: Any, given: Tensor) -> Tensor:
    """Return the normalised input of a group-normalisation layer, before weights and biases."""
    from torch.nn.functional import group_norm

    return group_norm(given, layer.num_groups, eps=layer.eps)


def _is_sparse(layer: Any, back: Tensor) -> bool:
    """Return whether a loop over non-zero values is the fastest for a convolution's gradients."""
    from fcfn_abm.training.kernels import LEAST_WIDTH, is_sparse  # loads numba

    plain = tuple(layer.stride) == tuple(layer.dilation) == (1, 1)
    wide = layer.kernel_size[1] * layer.in_channels >= LEAST_WIDTH
    if not (plain and wide and back.device.type == "cpu"):
        return False
    return is_sparse(back.permute(0, 2, 3, 1).numpy())


def _count_cached_samples(layer: Any, given: Tensor) -> int:
    """Return the number of samples whose unfolded inputs fit into a level-2 cache."""
    if given.device.type != "cpu" or len(given) == 0:
        return max(len(given), 1)  # a GPU takes all at once
    n_numbers: int = layer.kernel_size[1] * given[0].numel()
    return max(_CACHE_BYTES // (4 * n_numbers), 1)


def pad_image(layer: Any, given: Tensor) -> Tensor:
    """Return the input of a convolution, padded and channels last, (m, height, width, n_in)."""
    from torch.nn.functional import pad

    top, left = layer.padding
    return pad(given.permute(0, 2, 3, 1), (0, 0, left, left, top, top)).contiguous()


def unfold_rows(layer: Any, given: Tensor) -> Iterator[Tensor]:
    """Yield the inputs of each row of a convolution's kernel, channels last.

    Each of shape (m, n_places, n_columns * n_in): for each sample and output position.
    """
    (high, wide), (down, right) = layer.kernel_size, layer.stride
    below, beside = layer.dilation
    windows = pad_image(layer, given).unfold(2, beside * (wide - 1) + 1, right)[..., ::beside]
    seen = windows.transpose(3, 4).flatten(3).contiguous()
    span = seen.shape[1] - below * (high - 1)
    for start in range(0, below * high, below):
        yield seen[:, start : start + span : down].flatten(1, 2)


def flatten_parameter(values: Tensor) -> Tensor:
    """Return a parameter's values in the order of a flat vector.

    Channels come last in convolutions, which is fastest on CPUs.
    """
    return (values.permute(0, 2, 3, 1) if values.dim() == 4 else values).reshape(-1)


def unflatten_parameters(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> Iterator[Tensor]:
    """Yield the parameters in flat vectors as views; leading axes are kept."""
    import torch

    parts = torch.split(flat, [prod(shape) for shape in shapes], dim=-1)
    for part, shape in zip(parts, shapes, strict=True):
        front = part.shape[:-1]
        if len(shape) == 4:
            n_out, n_in, height, width = shape
            yield part.view(*front, n_out, height, width, n_in).movedim(-1, -3)
        else:
            yield part.view(*front, *shape)
