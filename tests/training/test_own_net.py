"""A net of a user's own, with layers that no net of ours has, trains through the registry."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from test_trainer import DATA, by_hand, trainer
from whole_training import train

import fcfn_abm as fa
from fcfn_abm.errors import InvalidDataError
from fcfn_abm.training import NETS, FederatedTrainer
from fcfn_abm.training.nets import Net


class Scaled(torch.nn.Module):
    """Adds a scaled copy of what comes in, by parameters that are drawn when it is built."""

    def __init__(self, n_channels):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.randn(n_channels, 1, 1))
        self.body = torch.nn.Conv2d(n_channels, n_channels, 3, padding=1, bias=False)

    def forward(self, given):
        return given + self.scale * self.body(given)


@pytest.fixture
def own_net(monkeypatch):
    monkeypatch.setattr(NETS, "_entries", dict(NETS._entries))

    @NETS.register("my-own")
    class MyOwn(Net):
        n_channels: int = 4

        def build(self, shape, n_classes):
            return torch.nn.Sequential(
                torch.nn.Conv2d(shape[0], self.n_channels, 3, padding=1),
                torch.nn.GroupNorm(2, self.n_channels),
                Scaled(self.n_channels),
                torch.nn.MaxPool2d(2),
                torch.nn.Tanh(),
                torch.nn.Flatten(),
                torch.nn.Linear(16 * self.n_channels, n_classes),
            )

    return NETS.create("my-own")


def with_net(net, **options):
    made = trainer(**options)
    return FederatedTrainer(DATA, made.shards, replace(made.plan, net=net))


def test_it_trains_in_a_run(own_net):
    overrides = [
        "training.net=my-own",
        "training.rounds=8",
        "training.compare=['no-noise']",
        "training.partition=iid",
    ]
    record = fa.run_scenario(fa.load_scenario("quickstart", overrides))
    clean = record.training[record.training["arm"] == "no-noise"]
    assert own_net.n_channels == 4
    assert clean["loss"].iloc[-1] < 0.8 * clean["loss"].iloc[0]


@pytest.mark.parametrize("placement", ["dp-sgd", "update", "paper"])
def test_a_round_is_that_of_plain_autograd(own_net, placement):
    made = with_net(own_net, n_nodes=60, placement=placement, n_steps=2, learning_rate=0.1)
    epsilon = np.zeros(60)
    epsilon[2] = 5.0
    training = made.begin(private=False)
    training.step(epsilon)
    nothing = torch.zeros(2, made.n_parameters)
    expected = made.first_parameters + by_hand(made, made.first_parameters, 2, nothing)
    assert_allclose(training.state()["flat"], expected, atol=2e-5)


def test_its_first_parameters_follow_the_seed_and_leave_torch_alone(own_net):
    state = torch.get_rng_state()
    one = with_net(own_net, seed=1)
    torch.manual_seed(99)
    again, other = with_net(own_net, seed=1), with_net(own_net, seed=2)
    torch.set_rng_state(state)
    assert torch.equal(one.first_parameters, again.first_parameters)
    drawn = slice(4 * 9 + 4 + 8, 4 * 9 + 4 + 8 + 4)  # the scale of the block
    assert (one.first_parameters[drawn] != other.first_parameters[drawn]).all()


def test_workers_do_not_change_its_bytes(own_net):
    made = with_net(own_net, n_nodes=4)
    other = FederatedTrainer(DATA, made.shards, made.plan, workers=2)
    epsilon = np.full(4, 3.0)
    found, expected = train(other, epsilon), train(made, epsilon)
    assert_array_equal(found.state()["flat"], expected.state()["flat"])


def test_engines_are_chosen_by_its_layers(own_net):
    made = with_net(own_net)
    assert made.engine.facts()["engine"] == "serial"
    with pytest.raises(InvalidDataError, match="whose gradients have no formula"):
        FederatedTrainer(DATA, made.shards, made.plan, engine="stacked")


def test_with_group_norm_the_engines_agree():
    made = with_net(NETS.create("group-norm-cnn", {"width": 4, "groups": 2}), n_nodes=4, rounds=2)
    stacked = FederatedTrainer(DATA, made.shards, made.plan, engine="stacked")
    epsilon = np.full(4, 30.0)
    found, expected = train(stacked, epsilon), train(made, epsilon)
    assert_allclose(found.state()["flat"], expected.state()["flat"], atol=1e-5)
