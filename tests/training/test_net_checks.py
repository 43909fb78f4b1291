"""Nets of any layers train; those whose gradients would be wrong are refused, with the reason."""

import re

import pytest
import torch

from fcfn_abm.errors import InvalidDataError
from fcfn_abm.training.convolve import StackedGradients
from fcfn_abm.training.gradients import NetGradients
from fcfn_abm.training.graphs import Graphs
from fcfn_abm.training.net_checks import require_independent_samples, split_into_layers


class Doubled(torch.nn.Linear):
    """A dense layer with another forward."""

    def forward(self, given):
        return 2 * super().forward(given)


class Skipping(torch.nn.Sequential):
    """Layers that are not applied one after another."""

    def forward(self, given):
        return super().forward(given) + given


def hooked():
    layer = torch.nn.Linear(4, 4)
    layer.register_forward_hook(lambda *given: 2 * given[-1])
    return layer


def replaced():
    layer = torch.nn.Linear(4, 4)
    layer.forward = lambda given: 2 * given
    return layer


WITHOUT_FORMULAS = {
    "has a Doubled": Doubled(4, 4),
    "has a Skipping": Skipping(torch.nn.Linear(4, 4)),
    "has a Linear with a hook": hooked(),
    "has a Linear with a forward of its own": replaced(),
    "has a Linear without a bias": torch.nn.Linear(4, 4, bias=False),
    "has a Conv2d of 2 groups": torch.nn.Conv2d(4, 4, 3, groups=2),
    "with padding='same'": torch.nn.Conv2d(4, 4, 3, padding="same"),
    "padding_mode='reflect'": torch.nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    "has a LayerNorm": torch.nn.LayerNorm(4),
}


@pytest.mark.parametrize("fault", WITHOUT_FORMULAS)
def test_the_stacked_engine_refuses_layers_without_formulas_by_name(fault):
    net = torch.nn.Sequential(WITHOUT_FORMULAS[fault])
    NetGradients(net)  # the serial engine differentiates any layer
    with pytest.raises(InvalidDataError, match=re.escape(fault)):
        StackedGradients(net, Graphs())


def test_layers_that_share_parameters_are_refused():
    layer = torch.nn.Linear(4, 4)
    with pytest.raises(InvalidDataError, match="must not share parameters"):
        NetGradients(torch.nn.Sequential(layer, torch.nn.Tanh(), layer))


def test_frozen_parameters_are_refused():
    net = torch.nn.Sequential(torch.nn.Linear(4, 4).requires_grad_(False), torch.nn.Linear(4, 4))
    with pytest.raises(InvalidDataError, match="a Linear with frozen parameters"):
        NetGradients(net)


def test_plain_sequences_are_taken_apart_and_other_modules_are_one_layer():
    first, second, third = (torch.nn.Linear(4, 4) for _ in range(3))
    skipping = Skipping(third)
    net = torch.nn.Sequential(first, torch.nn.Sequential(torch.nn.Sequential(second), skipping))
    assert list(split_into_layers(net)) == [first, second, skipping]
    assert list(split_into_layers(skipping)) == [skipping]
    assert list(split_into_layers(net).parameters()) == list(net.parameters())


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.BatchNorm2d(1),
        torch.nn.BatchNorm2d(1, affine=False),
        torch.nn.BatchNorm2d(1, affine=False, track_running_stats=False),
        torch.nn.BatchNorm2d(1).eval(),
        torch.nn.Dropout(0.1),
        torch.nn.RReLU(),
    ],
    ids=str,
)
def test_layers_that_mix_samples_or_draw_at_random_are_refused(layer):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64))
    net = torch.nn.Sequential(*net, torch.nn.Unflatten(1, (1, 8, 8)), layer, torch.nn.Flatten())
    before = torch.get_rng_state()
    with pytest.raises(InvalidDataError, match="each image's output from that image alone") as said:
        require_independent_samples(net, (1, 8, 8))
    if isinstance(layer, torch.nn.BatchNorm2d):
        assert "BatchNorm2d" in str(said.value)
        assert "nn.GroupNorm" in str(said.value)
    assert torch.equal(torch.get_rng_state(), before)
    net[3] = torch.nn.GroupNorm(1, 1)  # normalises each sample by itself
    require_independent_samples(net, (1, 8, 8))


def test_a_layer_that_overwrites_its_input_is_refused():
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 4), torch.nn.ReLU(inplace=True)
    )
    with pytest.raises(InvalidDataError, match=r"layer 2 .* a ReLU, changes its input in place"):
        require_independent_samples(net, (1, 8, 8))
    net[2] = torch.nn.ReLU()
    require_independent_samples(net, (1, 8, 8))
