"""Nets whose layers the fast gradients would not compute are refused, with the reason."""

import re

import pytest
import torch

from fcfn_abm.errors import InvalidDataError
from fcfn_abm.training.convolve import StackedGradients
from fcfn_abm.training.gradients import NetGradients
from fcfn_abm.training.graphs import Graphs
from fcfn_abm.training.net_checks import require_independent_samples


class Doubled(torch.nn.Linear):
    """A dense layer with another forward."""

    def forward(self, given):
        return 2 * super().forward(given)


class Centred(torch.nn.Conv2d):
    """A convolution with another forward."""

    def forward(self, given):
        return self._conv_forward(given, self.weight - self.weight.mean(), self.bias)


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


REFUSED = {
    "has a Doubled": Doubled(4, 4),
    "has a Centred": Centred(4, 4, 3),
    "has a Linear with a hook": hooked(),
    "has a Linear with a forward of its own": replaced(),
    "has a Linear with frozen parameters": torch.nn.Linear(4, 4).requires_grad_(False),
    "has a Linear without a bias": torch.nn.Linear(4, 4, bias=False),
    "has a Conv2d of 2 groups": torch.nn.Conv2d(4, 4, 3, groups=2),
    "with padding='same'": torch.nn.Conv2d(4, 4, 3, padding="same"),
    "padding_mode='reflect'": torch.nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    "padding_mode='circular'": torch.nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_layer_that_the_formulas_do_not_compute_is_refused_by_name(fault):
    net = torch.nn.Sequential(REFUSED[fault])
    for make in (NetGradients, lambda net: StackedGradients(net, Graphs())):
        with pytest.raises(InvalidDataError, match=re.escape(fault)):
            make(net)


def test_a_net_whose_layers_are_not_applied_one_by_one_is_refused():
    with pytest.raises(InvalidDataError, match=r"its own forward.*is a Skipping"):
        NetGradients(Skipping(torch.nn.Linear(4, 4)))


def test_layers_that_share_parameters_are_refused():
    layer = torch.nn.Linear(4, 4)
    with pytest.raises(InvalidDataError, match="must not share parameters"):
        NetGradients(torch.nn.Sequential(layer, torch.nn.Tanh(), layer))


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.BatchNorm2d(1, affine=False),
        torch.nn.BatchNorm2d(1, affine=False, track_running_stats=False),
        torch.nn.Dropout(0.1),
        torch.nn.RReLU(),
    ],
    ids=str,
)
def test_layers_that_mix_samples_or_draw_at_random_are_refused(layer):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64))
    net = torch.nn.Sequential(*net, torch.nn.Unflatten(1, (1, 8, 8)), layer, torch.nn.Flatten())
    before = torch.get_rng_state()
    with pytest.raises(InvalidDataError, match="each image's output from that image alone"):
        require_independent_samples(net, (1, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)
    net[3] = torch.nn.GroupNorm(1, 1, affine=False)  # normalises each sample by itself
    require_independent_samples(net, (1, 8, 8))
