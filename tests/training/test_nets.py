"""The nets are those that the documents state, layer by layer."""

import pytest
import torch

from fcfn_abm.errors import InvalidDataError
from fcfn_abm.training import NETS


@pytest.mark.parametrize(
    ("kind", "shape", "n_classes", "layers"),
    [
        ("digits-cnn", (1, 8, 8), 10, [80, 1_168, 650]),
        ("emnist-cnn", (1, 28, 28), 62, [416, 12_832, 200_832, 7_998]),
        ("cifar-cnn", (3, 32, 32), 10, [1_216, 12_832, 262_272, 8_256, 650]),
        ("group-norm-cnn", (3, 32, 32), 10, [896, 64, 18_496, 128, 73_856, 256, 5_130]),
    ],
)
def test_layers_and_parameters(kind, shape, n_classes, layers):
    net = NETS.create(kind).build(shape, n_classes)
    found = [sum(p.numel() for p in layer.parameters()) for layer in net]
    assert [n for n in found if n] == layers
    assert f"{sum(layers):,}" in NETS[kind].__doc__
    assert net(torch.zeros(2, *shape)).shape == (2, n_classes)


def test_a_width_of_zero_leaves_a_dense_layer_out():
    shallow = NETS.create("emnist-cnn", {"hidden": 0}).build((1, 28, 28), 62)
    assert sum(p.numel() for p in shallow.parameters()) == 416 + 12_832 + (1568 + 1) * 62
    shallow = NETS.create("cifar-cnn", {"second_hidden": 0}).build((3, 32, 32), 10)
    assert sum(p.numel() for p in shallow.parameters()) == 277_610


@pytest.mark.parametrize(
    ("kind", "shape", "n_layers"), [("emnist-cnn", (1, 28, 28), 4), ("cifar-cnn", (3, 32, 32), 5)]
)
def test_the_paper_s_nets_have_as_many_layers_as_the_paper_counts(kind, shape, n_layers):
    net = NETS.create(kind).build(shape, 10)
    kinds = [type(layer).__name__ for layer in net if list(layer.parameters())]
    assert kinds == ["Conv2d"] * 2 + ["Linear"] * (n_layers - 2)


def test_pooling_before_the_rectifier_is_pooling_after_it():
    net = NETS.create("emnist-cnn").build((1, 28, 28), 62)
    images = torch.randn(3, 1, 28, 28)
    swapped = [net[i] for i in (0, 2, 1, 3, 5, 4, 6, 7, 8, 9)]
    assert torch.equal(net(images), torch.nn.Sequential(*swapped)(images))


@pytest.mark.parametrize("kind", list(NETS))
def test_images_that_pooling_leaves_nothing_of_are_refused(kind):
    net = NETS.create(kind)
    for height, breadth in ((3, 8), (8, 3), (1, 1)):
        with pytest.raises(InvalidDataError, match=f"4 x 4 .* have {height} x {breadth}"):
            net.build((1, height, breadth), 10)
    assert net.build((1, 4, 4), 10)(torch.zeros(2, 1, 4, 4)).shape == (2, 10)
