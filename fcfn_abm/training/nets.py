"""Neural networks, initialised from a random stream of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Protocol

import numpy as np
from pydantic import Field

from fcfn_abm.errors import InvalidDataError
from fcfn_abm.registry import Registry

if TYPE_CHECKING:
    from torch import nn


class Net(Protocol):
    """Builds a net for images of a given shape."""

    def build(self, shape: tuple[int, int, int], n_classes: int) -> nn.Module:
        """Return a net; `initialise` sets the weights of its convolutions and dense layers.

        Other parameters keep their initial values, drawn from torch's generator, which follows the
        scenario's seed.

        Raises
        ------
        InvalidDataError
            If the images are too small for the net.
        """
        ...


NETS: Registry[Net] = Registry("net")


@NETS.register("digits-cnn")
class DigitsCnn(Net):
    """Two 3 x 3 convolutions, each pooled by two, and one fully connected layer.

    Deliberately small: the noise of differential privacy grows with the number of parameters
    (1,898 for 8 x 8 digits at the default width).
    """

    width: Annotated[int, Field(ge=1, le=256)] = 8
    """Channels of the first convolution; the second has twice as many."""

    def build(self, shape: tuple[int, int, int], n_classes: int) -> nn.Sequential:
        """Return the layers."""
        from torch import nn

        return nn.Sequential(
            nn.Conv2d(shape[0], self.width, 3, padding=1),
            nn.MaxPool2d(2),
            nn.Tanh(),
            nn.Conv2d(self.width, 2 * self.width, 3, padding=1),
            nn.MaxPool2d(2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(_n_features(shape, self.width), n_classes),
        )


@NETS.register("emnist-cnn")
class EmnistCnn(Net):
    """The paper's four layers for EMNIST: two 5 x 5 convolutions, a dense layer, a softmax output.

    The paper names the layers; widths, pooling by two after each convolution, and rectifiers are
    ours. With the default widths, for 28 x 28 images in grey and 62 classes: 416 + 12,832 + 200,832
    + 7,998 = 222,078 parameters. The softmax is in the loss.
    """

    width: Annotated[int, Field(ge=1, le=256)] = 16
    """Channels of the first convolution; the second has twice as many."""
    hidden: Annotated[int, Field(ge=0, le=4096)] = 128
    """Units of the dense layer; 0 leaves it out."""

    def build(self, shape: tuple[int, int, int], n_classes: int) -> nn.Sequential:
        """Return the layers."""
        return _build(shape, self.width, [self.hidden], n_classes)


@NETS.register("cifar-cnn")
class CifarCnn(Net):
    """The paper's five layers for CIFAR-10: two 5 x 5 convolutions, two dense, a softmax output.

    The paper names the layers; widths, pooling by two after each convolution, and rectifiers are
    ours. With the default widths, for 32 x 32 images in colour and 10 classes: 1,216 + 12,832 +
    262,272 + 8,256 + 650 = 285,226 parameters. The softmax is in the loss.
    """

    width: Annotated[int, Field(ge=1, le=256)] = 16
    """Channels of the first convolution; the second has twice as many."""
    hidden: Annotated[int, Field(ge=0, le=4096)] = 128
    """Units of the first dense layer; 0 leaves it out."""
    second_hidden: Annotated[int, Field(ge=0, le=4096)] = 64
    """Units of the second dense layer; 0 leaves it out."""

    def build(self, shape: tuple[int, int, int], n_classes: int) -> nn.Sequential:
        """Return the layers."""
        return _build(shape, self.width, [self.hidden, self.second_hidden], n_classes)


@NETS.register("group-norm-cnn")
class GroupNormCnn(Net):
    """Three 3 x 3 convolutions, each with group normalisation, and one dense layer.

    Two poolings by two, and an average over quarters of the image before the dense layer, keep
    parameters few, and with them the noise of differential privacy. With the default width, for
    32 x 32 images in colour and 10 classes: 896 + 64 + 18,496 + 128 + 73,856 + 256 + 5,130 = 98,826
    parameters.

    References
    ----------
    Wu and He 2018, "Group normalization".
    """

    width: Annotated[int, Field(ge=1, le=256)] = 32
    """Channels of the first convolution; the second has twice as many, the third four times."""
    groups: Annotated[int, Field(ge=1, le=256)] = 8
    """Groups of channels that are normalised together; they must divide the width."""

    def build(self, shape: tuple[int, int, int], n_classes: int) -> nn.Sequential:
        """Return the layers."""
        from torch import nn

        _require_two_poolings(shape)
        if self.width % self.groups:
            raise InvalidDataError(
                f"training.net: groups must divide width, but {self.groups} does not divide "
                f"{self.width}."
            )
        layers: list[nn.Module] = []
        n_channels = shape[0]
        for width in (self.width, 2 * self.width, 4 * self.width):
            last = width == 4 * self.width
            pool = nn.AdaptiveAvgPool2d(2) if last else nn.MaxPool2d(2)
            normalised = [
                nn.Conv2d(n_channels, width, 3, padding=1),
                nn.GroupNorm(self.groups, width),
            ]
            layers += [*normalised, nn.ReLU(), pool] if last else [*normalised, pool, nn.ReLU()]
            n_channels = width
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * n_channels, n_classes))


def _build(
    shape: tuple[int, int, int], width: int, hidden: list[int], n_classes: int
) -> nn.Sequential:
    """Return two convolutions, dense layers of the non-zero widths, and the output layer."""
    from torch import nn

    layers, n_inputs = _two_convolutions(shape, width), _n_features(shape, width)
    for n_units in filter(None, hidden):
        layers += [nn.Linear(n_inputs, n_units), nn.ReLU()]
        n_inputs = n_units
    return nn.Sequential(*layers, nn.Linear(n_inputs, n_classes))


def _two_convolutions(shape: tuple[int, int, int], width: int) -> list[nn.Module]:
    from torch import nn

    # pooling before the rectifier, with which maxima commute, saves work
    return [
        nn.Conv2d(shape[0], width, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
    ]


def _n_features(shape: tuple[int, int, int], width: int) -> int:
    _require_two_poolings(shape)
    _, height, breadth = shape
    return 2 * width * (height // 4) * (breadth // 4)


def _require_two_poolings(shape: tuple[int, int, int]) -> None:
    """Raise InvalidDataError if two poolings by two would leave no pixel."""
    _, height, breadth = shape
    if min(height, breadth) < 4:
        raise InvalidDataError(
            "training.net pools images twice by two and needs at least 4 x 4 pixels, but these "
            f"images have {height} x {breadth}."
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
