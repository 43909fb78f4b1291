"""Gradients of many nets at once: the layers of one net, with separate parameters for each node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from fcfn_abm.training.gradients import (
    Blocks,
    Gradients,
    SampleGradients,
    normalise_groups,
    sample_blocks,
    unflatten_parameters,
    unfold_rows,
)
from fcfn_abm.training.graphs import Graphs
from fcfn_abm.training.net_checks import require_formulas

if TYPE_CHECKING:
    from torch import Tensor, nn

type Formulation = Literal["grouped", "looped", "unfolded"]


def _convolve_grouped(layer: Any, given: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve as one convolution whose groups are the nodes."""
    from torch.nn.functional import conv2d

    n_nodes, n_samples = given.shape[:2]
    side_by_side = given.transpose(0, 1).flatten(1, 2)
    out = conv2d(
        side_by_side, weight.flatten(0, 1), bias.flatten(), **_options(layer), groups=n_nodes
    )
    return out.view(n_samples, n_nodes, -1, *out.shape[2:]).transpose(0, 1)


def _convolve_looped(layer: Any, given: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve node by node."""
    import torch
    from torch.nn.functional import conv2d

    each = zip(given.unbind(), weight.unbind(), bias.unbind(), strict=True)
    return torch.stack([conv2d(x, w, b, **_options(layer)) for x, w, b in each])


def _convolve_unfolded(layer: Any, given: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve as a product of matrices for each node."""
    import torch
    from torch.nn.functional import unfold

    n_nodes, n_samples = given.shape[:2]
    seen = unfold(given.flatten(0, 1), layer.kernel_size, **_options(layer))
    seen = seen.view(n_nodes, n_samples, *seen.shape[1:]).transpose(1, 2).flatten(2)
    out = torch.baddbmm(bias[:, :, None], weight.flatten(2), seen)
    size, gap = layer.kernel_size, zip(layer.padding, layer.dilation, layer.stride, strict=True)
    places = [
        (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for length, kernel, (padding, dilation, stride) in zip(
            given.shape[-2:], size, gap, strict=True
        )
    ]
    return out.view(n_nodes, -1, n_samples, *places).transpose(1, 2)


def _options(layer: Any) -> dict[str, Any]:
    return {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}


CONVOLUTIONS: dict[Formulation, Callable[[Any, Tensor, Tensor, Tensor], Tensor]] = {
    "looped": _convolve_looped,
    "grouped": _convolve_grouped,
    "unfolded": _convolve_unfolded,
}
"""How to convolve images of shape (n_nodes, m, n_in, height, width) with a kernel for each node."""


@dataclass(frozen=True)
class _PerNode(SampleGradients):
    """Rows of several nodes, summed per node."""

    each: SampleGradients
    n_nodes: int

    def norms(self) -> Tensor:
        """Return the L2 norm of each row, shape (n_nodes, m, 1)."""
        return self.each.norms().view(self.n_nodes, -1, 1)

    def sum_weighted(self, factors: Tensor) -> Tensor:
        """Return the sum of each node's rows, each times its factor, (n_nodes, n_parameters)."""
        return self.each.sum_weighted(factors)

    def rows(self) -> Tensor:
        """Return the matrices, shape (n_nodes, m, n_parameters)."""
        return self.each.rows().view(self.n_nodes, -1, self.each.rows().shape[1])


class StackedGradients(Gradients):
    """The gradients of a net's cross entropy for a group of nodes.

    Parameters are a shared vector, or a matrix with a row per node; images have shape
    (n_nodes, m, ...) and labels (n_nodes, m), with -100 for padding.

    Parameters
    ----------
    net : torch.nn.Sequential
        Layers with formulas for gradients; their own parameters are not used.
    graphs : Graphs
        CUDA graphs that run the work.
    formulation : {"looped", "grouped", "unfolded"}, default "looped"
        How separate kernels are convolved; "looped" is the fastest on CPUs.

    Raises
    ------
    InvalidDataError
        If another layer has parameters.

    Notes
    -----
    As in :class:`NetGradients`, all gradients come from one backward pass to the outputs of the
    layers. With shared parameters, layers process the samples of all nodes together.
    """

    def __init__(
        self, net: nn.Sequential, graphs: Graphs, formulation: Formulation = "looped"
    ) -> None:
        require_formulas(net)
        self.net, self.formulation, self._graphs = net, formulation, graphs
        self._shapes = [tuple(parameter.shape) for parameter in net.parameters()]

    def get_buffer(self, flat: Tensor) -> Tensor:
        """Return a matrix of the same shape."""
        return flat.new_empty(flat.shape)

    def mean(self, flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of each node's mean loss, shape (n_nodes, n_parameters)."""
        return self._graphs.run("mean", self._mean, flat, images, labels)

    def per_sample(self, flat: Tensor, images: Tensor, labels: Tensor) -> SampleGradients:
        """Return the gradient of each sample's loss."""
        blocks = [
            block
            for layer, given, back in self._backpropagate(flat, images, labels)
            for block in sample_blocks(layer, given, back)
        ]
        return _PerNode(Blocks(tuple(blocks)), len(labels))

    def reduce_samples(
        self,
        flat: Tensor,
        images: Tensor,
        labels: Tensor,
        total: Callable[[SampleGradients], Tensor],
    ) -> Tensor:
        """Return ``total`` of the per-sample gradients, as a new tensor."""

        def compute(*inputs: Tensor) -> Tensor:
            return total(self.per_sample(*inputs))

        return self._graphs.run(("clipped", total), compute, flat, images, labels)

    def compute_logits(self, flat: Tensor, images: Tensor) -> Tensor:
        """Return the logits of images (m, ...) under parameters shared by all nodes."""
        return self._forward(flat, images, 1)[0]

    def _mean(self, flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        import torch

        shares = 1 / (labels >= 0).sum(1, keepdim=True).clamp(min=1)
        parts = [
            part
            for layer, given, back in self._backpropagate(flat, images, labels, shares)
            for part in _sums(layer, given, back, len(labels))
        ]
        return torch.cat(parts, dim=1)

    def _backpropagate(
        self, flat: Tensor, images: Tensor, labels: Tensor, shares: Tensor | None = None
    ) -> Iterator[tuple[Any, Tensor, Tensor]]:
        """Return layers with parameters, their inputs, and gradients of each sample's outputs."""
        import torch
        from torch.nn.functional import cross_entropy

        logits, layers, inputs, outputs = self._forward(flat, images.flatten(0, 1), len(labels))
        losses = cross_entropy(logits, labels.flatten(), reduction="none")
        if shares is not None:
            losses = losses * shares.expand_as(labels).flatten()
        return zip(layers, inputs, torch.autograd.grad(losses.sum(), outputs), strict=True)

    def _forward(
        self, flat: Tensor, images: Tensor, n_nodes: int
    ) -> tuple[Tensor, list[Any], list[Tensor], list[Tensor]]:
        """Return the logits, and for layers with parameters the layer, its input and its output."""
        import torch

        parameters = iter(unflatten_parameters(flat, self._shapes))
        passed = images
        layers, inputs, outputs = [], [], []
        for layer in self.net:
            before = passed
            if not any(True for _ in layer.parameters()):
                passed = layer(before)
                continue
            passed = self._apply(layer, before, next(parameters), next(parameters), n_nodes)
            if torch.is_grad_enabled() and not passed.requires_grad:
                passed.requires_grad_()  # the first layer: backpropagation stops here
            layers.append(layer)
            inputs.append(before.detach())
            outputs.append(passed)
        return passed, layers, inputs, outputs

    def _apply(
        self, layer: Any, given: Tensor, weight: Tensor, bias: Tensor, n_nodes: int
    ) -> Tensor:
        """Apply a layer with given parameters to (n_nodes * m, ...)."""
        import torch
        from torch import nn
        from torch.nn.functional import conv2d, linear

        if isinstance(layer, nn.GroupNorm):
            passed = normalise_groups(layer, given)
            by_node = passed.view(1 if bias.dim() == 1 else n_nodes, -1, *passed.shape[1:])
            shape = (-1, 1, passed.shape[1], *[1] * (passed.dim() - 2))
            return torch.addcmul(bias.view(shape), by_node, weight.view(shape)).flatten(0, 1)
        if bias.dim() == 1:
            if isinstance(layer, nn.Linear):
                return linear(given, weight, bias)
            return conv2d(given, weight, bias, **_options(layer))
        stacked = given.view(n_nodes, -1, *given.shape[1:])
        if isinstance(layer, nn.Linear):
            return torch.baddbmm(bias[:, None], stacked, weight.mT).flatten(0, 1)
        return CONVOLUTIONS[self.formulation](layer, stacked, weight, bias).flatten(0, 1)


def _sums(layer: Any, given: Tensor, back: Tensor, n_nodes: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of a layer's weights and biases, one row per node."""
    import torch
    from torch import nn

    if isinstance(layer, nn.Linear):
        back, given = (part.reshape(n_nodes, -1, part.shape[1]) for part in (back, given))
        return (back.mT @ given).flatten(1), back.sum(1)
    if isinstance(layer, nn.GroupNorm):
        rows = (block.rows() for block in sample_blocks(layer, given, back))
        weight, bias = (part.view(n_nodes, -1, part.shape[1]).sum(1) for part in rows)
        return weight, bias
    n_out = back.shape[1]
    back = back.reshape(n_nodes, -1, n_out, prod(back.shape[2:])).transpose(1, 2).flatten(2)
    weights = [
        torch.bmm(back, seen.reshape(n_nodes, back.shape[2], -1)).view(n_nodes, n_out, -1)
        for seen in unfold_rows(layer, given)
    ]
    return torch.cat(weights, dim=2).flatten(1), back.sum(2)


def estimate_sample_bytes(net: nn.Sequential, image: Tensor) -> int:
    """Estimate the memory of a sample's gradient, in bytes.

    Parameters
    ----------
    net : torch.nn.Sequential
        The layers.
    image : Tensor
        A batch of one image.
    """
    import torch
    from torch import nn

    numbers, passed = 0, image
    with torch.no_grad():
        for layer in net:
            before, passed = passed, layer(passed)
            numbers += 3 * passed.numel()  # output, its gradient, and a copy
            if isinstance(layer, nn.Conv2d):
                numbers += 2 * before.numel() * layer.kernel_size[1] + layer.weight.numel()
    return 4 * numbers
