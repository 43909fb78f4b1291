"""Gradients of layers that no net of ours has, and of parameters that change under way."""

import pytest
import torch
from numpy.testing import assert_allclose

from fcfn_abm.dp import Clipping
from fcfn_abm.errors import InvalidDataError
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
    one, other, again = (made.reduce_samples(*at, s.sum_clipped) for s in (short, long, short))
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


class Block(torch.nn.Module):
    """A residual block, with parameters in layers of layers and one of its own."""

    def __init__(self, n_channels):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.rand(n_channels, 1, 1))
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(n_channels, n_channels, 3, padding=1, bias=False),
            torch.nn.GroupNorm(2, n_channels),
            torch.nn.ReLU(inplace=True),
        )

    def forward(self, given):
        return given + self.scale * self.body(given)


class Halved(torch.nn.Linear):
    """A dense layer with another forward."""

    def forward(self, given):
        return super().forward(given) / 2


def hooked():
    layer = torch.nn.Conv2d(4, 4, 1)
    layer.register_forward_hook(lambda *given: 2 * given[-1])
    return layer


def normalising(n_groups, n_channels):
    layer = torch.nn.GroupNorm(n_groups, n_channels, eps=1e-3)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    return layer


LAYERS = {
    "group norm": lambda: normalising(2, 4),
    "group norm of one group": lambda: normalising(1, 4),
    "group norm of single channels": lambda: normalising(4, 4),
    "no bias": lambda: torch.nn.Conv2d(4, 4, 3, padding=1, bias=False),
    "groups": lambda: torch.nn.Conv2d(4, 4, 3, padding=1, groups=2),
    "padding same": lambda: torch.nn.Conv2d(4, 4, 3, padding="same"),
    "reflected": lambda: torch.nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    "layer norm": lambda: torch.nn.LayerNorm(6),
    "instance norm": lambda: torch.nn.InstanceNorm2d(4, affine=True),
    "prelu": lambda: torch.nn.PReLU(4),
    "transposed": lambda: torch.nn.ConvTranspose2d(4, 4, 3, padding=1),
    "dense on one axis": lambda: torch.nn.Linear(6, 6),
    "another forward": lambda: Halved(6, 6),
    "hook": hooked,
    "residual": lambda: Block(4),
}


def net_with(layer):
    """A net with a layer between a convolution and a dense layer, on images of 2 x 5 x 6."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1),
        torch.nn.Sequential(layer, torch.nn.Tanh()),
        torch.nn.Flatten(),
        torch.nn.Linear(120, 3),
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", LAYERS)
def test_any_layer_has_the_gradients_of_autograd_sample_by_sample(kind, layout, monkeypatch):
    monkeypatch.setattr("fcfn_abm.training.gradients._ROW_BYTES", 2000)  # several parts
    torch.manual_seed(1)
    gradients = NetGradients(net_with(LAYERS[kind]()))
    images = torch.randn(7, 2, 5, 6).contiguous(memory_format=layout)
    labels = torch.randint(0, 3, (7,))
    expected = by_autograd(gradients, images, labels)
    found = gradients.per_sample(gradients.flat, images, labels)
    assert_allclose(found.rows(), expected, atol=2e-6)
    assert_allclose(found.norms(), expected.double().norm(dim=1, keepdim=True), rtol=1e-5)
    factors = torch.rand(7, 1)
    assert_allclose(found.sum_weighted(factors), (factors * expected).sum(0), atol=1e-5)
    mean = gradients.mean(gradients.flat, images, labels)
    assert_allclose(mean, expected.mean(0), atol=2e-6)
    assert expected.norm(dim=0).count_nonzero() > 0.9 * expected.shape[1]


def test_a_module_that_is_no_sequence_has_the_gradients_of_autograd():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(12, 5)
            self.second = torch.nn.Linear(5, 3)
            self.skip = torch.nn.Parameter(torch.randn(12, 3))

        def forward(self, images):
            flat = images.flatten(1)
            return self.second(self.first(flat).relu()) + flat @ self.skip

    torch.manual_seed(1)
    gradients = NetGradients(Own())
    images, labels = torch.randn(6, 3, 2, 2), torch.randint(0, 3, (6,))
    found = gradients.per_sample(gradients.flat, images, labels).rows()
    assert_allclose(found, by_autograd(gradients, images, labels), atol=2e-6)


def test_rows_are_those_of_the_parameters_at_which_they_were_asked_for():
    torch.manual_seed(1)
    gradients = NetGradients(net_with(Block(4)))
    images, labels = torch.randn(3, 2, 5, 6), torch.randint(0, 3, (3,))
    at = gradients.flat
    expected = gradients.per_sample(at, images, labels).rows()
    later = gradients.per_sample(at, images, labels)
    gradients.load(at + 1)
    assert_allclose(later.rows(), expected, atol=1e-6)


def test_a_layer_that_vmap_cannot_take_is_named():
    class Branching(torch.nn.Linear):
        def forward(self, given):
            return super().forward(given) * (1.0 if float(given.sum()) > 0 else 2.0)

    gradients = NetGradients(torch.nn.Sequential(torch.nn.Flatten(), Branching(12, 3)))
    with pytest.raises(InvalidDataError, match="gradients of a Branching cannot be computed"):
        gradients.per_sample(
            gradients.flat, torch.randn(2, 3, 2, 2), torch.randint(0, 3, (2,))
        ).norms()


@pytest.mark.parametrize("shared", [True, False])
def test_stacked_group_norm_is_that_of_each_node(shared):
    torch.manual_seed(1)
    net = net_with(normalising(2, 4))
    one = NetGradients(net_with(normalising(2, 4)))
    stacked = StackedGradients(NetGradients(net).net, Graphs())
    images, labels = torch.randn(3, 5, 2, 5, 6), torch.randint(0, 3, (3, 5))
    flat = torch.randn(one.flat.numel()) if shared else torch.randn(3, one.flat.numel())
    factors = torch.rand(3, 5, 1)
    mean = stacked.mean(flat, images, labels)
    found = stacked.per_sample(flat, images, labels)
    logits = stacked.compute_logits(flat if shared else flat[0], images[0]).detach()
    for node in range(3):
        at = flat if shared else flat[node]
        assert_allclose(mean[node], one.mean(at, images[node], labels[node]), atol=1e-4)
        expected = one.per_sample(at, images[node], labels[node])
        assert_allclose(found.rows()[node], expected.rows(), atol=1e-4)
        assert_allclose(
            found.sum_weighted(factors)[node], expected.sum_weighted(factors[node]), atol=1e-4
        )
    one.load(flat if shared else flat[0])
    assert_allclose(logits, one.net(images[0]).detach(), atol=1e-4)
