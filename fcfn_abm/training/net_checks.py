"""Checks of a net's layers, with and without formulas for per-sample gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from fcfn_abm.errors import InvalidDataError

if TYPE_CHECKING:
    from torch import nn


def split_into_layers(net: nn.Module) -> nn.Sequential:
    """Return a net as a sequence of layers.

    A plain ``nn.Sequential`` is flattened recursively; any other module is one layer. Parameters
    keep their order.
    """
    from torch import nn

    def split(module: nn.Module) -> Iterator[nn.Module]:
        if type(module) is nn.Sequential and not _has_hooks(module):
            for part in module:
                yield from split(part)
        else:
            yield module

    return nn.Sequential(*split(net))


def has_formula(layer: nn.Module) -> bool:
    """Return whether the gradients of a layer with parameters are computed by a formula."""
    return not _find_fault(layer)


def require_own_parameters(net: nn.Sequential) -> None:
    """Raise InvalidDataError unless layers share no parameters and none is frozen."""
    names = []
    for layer in net:
        own = list(layer.parameters())
        names += own
        if not all(parameter.requires_grad for parameter in own):
            raise InvalidDataError(
                "all parameters of a net must be trainable, but it has a "
                f"{type(layer).__name__} with frozen parameters."
            )
    if len({id(parameter) for parameter in names}) < len(names):
        raise InvalidDataError("layers of a net must not share parameters.")


def require_formulas(net: nn.Sequential) -> None:
    """Raise InvalidDataError unless all layers with parameters have formulas for gradients."""
    require_own_parameters(net)
    for layer in net:
        if any(True for _ in layer.parameters()) and (fault := _find_fault(layer)):
            raise InvalidDataError(
                "the stacked engine supports parameters only in plain nn.Linear, nn.Conv2d and "
                f"nn.GroupNorm layers, but this net {fault}; use the serial engine."
            )


def _find_fault(layer: Any) -> str:
    """Return why a layer has no formula for gradients; empty if it has one."""
    from torch import nn

    name = type(layer).__name__
    if type(layer) not in (
        nn.Linear,
        nn.Conv2d,
        nn.GroupNorm,
    ):  # a subclass may compute something else
        return f"has a {name}"
    if layer.bias is None:
        return f"has a {name} without a bias"
    if "forward" in vars(layer):
        return f"has a {name} with a forward of its own"
    if _has_hooks(layer) or set(dict(layer.named_parameters())) != {"weight", "bias"}:
        return f"has a {name} with a hook"
    if isinstance(layer, nn.Conv2d):
        if layer.groups != 1:
            return f"has a {name} of {layer.groups} groups"
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            return (
                f"has a {name} with padding={layer.padding!r}, "
                f"padding_mode={layer.padding_mode!r}: padding must be a number of zeros"
            )
    return ""


def _has_hooks(layer: nn.Module) -> bool:
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return any(hooks)


def require_independent_samples(net: nn.Sequential, shape: Sequence[int]) -> None:
    """Raise InvalidDataError if a sample's output is random or depends on other samples.

    Batch normalisation and dropout are such layers. With them a sample has no gradient of its own
    to clip, and random layers do not follow the scenario's seed.

    Parameters
    ----------
    net : torch.nn.Sequential
        Any layers.
    shape : sequence of int
        Shape of an image.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in net.modules():
        if isinstance(module, _BatchNorm):
            raise InvalidDataError(
                "a net must compute each image's output from that image alone, but batch "
                f"normalisation ({type(module).__name__}) mixes the images of a batch; use group "
                "normalisation (nn.GroupNorm) instead."
            )
    images = torch.rand(8, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        together = deepcopy(net)(images)
        for part in (images[:3], images):
            if not torch.allclose(deepcopy(net)(part), together[: len(part)], 1e-3, 1e-4):
                raise InvalidDataError(
                    "a net must compute each image's output from that image alone and "
                    "deterministically; layers that mix images, and dropout, are not allowed."
                )
        passed = images.clone()
        for place, layer in enumerate(deepcopy(net)):
            before, version = passed, passed._version
            passed = layer(before)
            if before._version != version:
                raise InvalidDataError(
                    f"layer {place} of the net, a {type(layer).__name__}, changes its input in "
                    "place, which gradients still need; build it with inplace=False."
                )
