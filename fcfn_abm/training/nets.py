"""Neural networks, built from a stream of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Protocol

import numpy as np
from pydantic import Field

from fcfn_abm.registry import Registry

if TYPE_CHECKING:
    from torch import nn


class Net(Protocol):
    """Builds a network for images of a shape."""

    def build(self, shape: tuple[int, int, int], n_classes: int) -> nn.Module:
        """Return the layers; their first parameters are set by :func:`initialise`."""
        ...


NETS: Registry[Net] = Registry("net")


@NETS.register("digits-cnn")
class DigitsCnn(Net):
    """Two 3 x 3 convolutions, each pooled by two, and one fully connected layer.

    Small on purpose: the noise of differential privacy grows with the number of parameters
    (1,898 for 8 x 8 digits at the default width).
    """

    width: Annotated[int, Field(ge=1, le=256)] = 8
    """Channels of the first convolution; the second has twice as many."""

    def build(self, shape: tuple[int, int, int], n_classes: int) -> nn.Module:
        """Return the layers."""
        from torch import nn

        channels, height, width = shape
        return nn.Sequential(
            nn.Conv2d(channels, self.width, 3, padding=1),
            nn.MaxPool2d(2),
            nn.Tanh(),
            nn.Conv2d(self.width, 2 * self.width, 3, padding=1),
            nn.MaxPool2d(2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(2 * self.width * (height // 4) * (width // 4), n_classes),
        )


def initialise(net: nn.Module, rng: np.random.Generator) -> None:
    """Set all parameters, uniform within 1 / sqrt(fan-in) as torch does, from a NumPy stream."""
    import torch
    from torch import nn

    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                bound = layer.weight[0].numel() ** -0.5
                for parameter in layer.parameters():
                    draws = rng.uniform(-bound, bound, tuple(parameter.shape))
                    parameter.copy_(torch.from_numpy(draws))
