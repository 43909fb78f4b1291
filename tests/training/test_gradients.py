"""Gradients of layers that no net of ours has, and of parameters that change under way."""

import pytest
import torch
from numpy.testing import assert_allclose

from fcfn_abm.dp import Clipping
from fcfn_abm.training.convolve import StackedGradients
from fcfn_abm.training.gradients import NetGradients, flatten_parameter
from fcfn_abm.training.graphs import Graphs
from fcfn_abm.training.local_steps import LocalSteps


def by_autograd(gradients, images, labels):
    """Gradients of each sample's loss, one by one, in the order of a flat vector."""
    rows = []
    for image, label in zip(images, labels, strict=True):
        loss = torch.nn.functional.cross_entropy(gradients.net(image[None]), label[None])
        parts = torch.autograd.grad(loss, list(gradients.net.parameters()))
        rows.append(torch.cat([flatten_parameter(part) for part in parts]))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((3, 3), {}),
        ((3, 5), {"padding": (1, 2)}),
        ((2, 3), {"stride": (2, 1)}),
        ((3, 2), {"stride": (2, 3), "padding": (2, 1)}),
        ((2, 3), {"dilation": (3, 2)}),
        ((3, 3), {"stride": 3, "dilation": (2, 1), "padding": 1}),
        ((11, 13), {}),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_of_any_shape_has_the_gradients_of_autograd(kernel, options, layout):
    torch.manual_seed(1)
    layer = torch.nn.Conv2d(2, 3, kernel, **options)
    images = torch.randn(4, 2, 11, 13).contiguous(memory_format=layout)
    n_features = layer(images).flatten(1).shape[1]
    gradients = NetGradients(
        torch.nn.Sequential(layer, torch.nn.Flatten(), torch.nn.Linear(n_features, 5))
    )
    labels = torch.randint(0, 5, (4,))
    found = gradients.per_sample(gradients.flat, images, labels)
    assert_allclose(found.rows(), by_autograd(gradients, images, labels), atol=1e-5)


class Replaying(Graphs):
    """Runs the first function of a name for all that come under it, as a captured graph does."""

    def __init__(self):
        super().__init__()
        self.functions = {}

    def run(self, name, function, *given):
        return self.functions.setdefault(name, function)(*given)


def test_a_captured_graph_is_not_replayed_for_another_sum_of_gradients():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
    made = StackedGradients(net, Replaying())
    at = torch.randn(2, 52), torch.randn(2, 5, 3, 2, 2), torch.randint(0, 4, (2, 5))
    short, long = (LocalSteps(1, 0.1, 0.0, Clipping(norm)) for norm in (0.01, 0.02))
    one, other, again = (made.clipped(*at, s.sum_clipped) for s in (short, long, short))
    assert_allclose(other, 2 * one, rtol=1e-3)
    assert torch.equal(again, one)
    assert len(made._graphs.functions) == 2


def test_gradients_are_those_at_the_vector_whatever_was_loaded_before():
    torch.manual_seed(1)

    def new():
        return NetGradients(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4)))

    used = new()
    images, labels = torch.randn(5, 3, 2, 2), torch.randint(0, 4, (5,))

    def fresh(flat):
        return new().mean(flat.clone(), images, labels)

    flat = used.flat
    for change in (0.0, 0.0, 1.0):  # the same once more; then changed in place
        flat += change * torch.randn(len(flat))
        assert torch.equal(used.mean(flat, images, labels), fresh(flat))
    room = torch.add(flat, 1.0, out=used.get_buffer(flat))  # writing there moves the net
    assert torch.equal(used.mean(room, images, labels), fresh(flat + 1.0))
    assert torch.equal(used.mean(flat, images, labels), fresh(flat))
    assert not torch.equal(fresh(flat), fresh(flat + torch.randn(len(flat))))
