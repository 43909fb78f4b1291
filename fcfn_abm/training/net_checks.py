"""Checks that the fast gradients of a net are its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from fcfn_abm.errors import InvalidDataError

if TYPE_CHECKING:
    from torch import nn


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
