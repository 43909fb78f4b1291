from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from test_trainer import DATA, trainer
from whole_training import train

from fcfn_abm.training import AVERAGINGS, SERVER_OPTIMISERS, FederatedTrainer
from fcfn_abm.training.server_steps import scale_rate

UPDATES = torch.randn(12, 40, generator=torch.Generator().manual_seed(3))
TORCH = {
    "sgd": ({"learning_rate": 0.3}, torch.optim.SGD, {"lr": 0.3}),
    "momentum": (
        {"learning_rate": 0.3, "momentum": 0.8},
        torch.optim.SGD,
        {"lr": 0.3, "momentum": 0.8},
    ),
    "adam": (
        {"learning_rate": 0.02, "first_decay": 0.8, "second_decay": 0.95, "adaptivity": 1e-2},
        torch.optim.Adam,
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-2},
    ),
}


def with_server(server="sgd", averaging="none", server_options=(), averaging_options=(), **options):
    made = trainer(**options)
    plan = replace(
        made.plan,
        server=SERVER_OPTIMISERS.create(server, dict(server_options)),
        averaging=AVERAGINGS.create(averaging, dict(averaging_options)),
    )
    return FederatedTrainer(DATA, made.shards, plan)


def reached(made, epsilon):
    """The parameters that nodes trained from in each round, and those after the last."""
    training = made.begin()
    found = [training.state()["flat"]]
    while not training.over:
        training.step(epsilon)
        found.append(training.state()["flat"])
    return training, np.array(found)


@pytest.mark.parametrize("name", list(SERVER_OPTIMISERS))
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_server_takes_the_steps_of_torchs_optimiser_for_minus_the_aggregate(name, schedule):
    options, optimiser, torch_options = TORCH[name]
    server = SERVER_OPTIMISERS.create(name, {**options, "schedule": schedule})
    flat = torch.ones(40)
    moments = flat.new_zeros(server.n_moments, 40)
    expected = torch.nn.Parameter(flat.clone())
    reference = optimiser([expected], **torch_options)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=len(UPDATES))
    for step, update in enumerate(UPDATES, start=1):
        scale = scale_rate(schedule, step, len(UPDATES))
        flat = server.step(flat, update, moments, step, scale)
        expected.grad = -update
        reference.step()
        if schedule == "cosine":
            scheduler.step()
        assert_allclose(flat, expected.detach(), rtol=1e-5, atol=1e-6)
    assert (flat - 1).abs().max() > 0.05  # it moved


@pytest.mark.parametrize(
    ("name", "options", "weights"),
    [
        ("none", {}, [0, 0, 0, 0, 1]),
        ("tail", {"share": 0.6}, [0, 0, 1 / 3, 1 / 3, 1 / 3]),
        ("tail", {"share": 1.0}, [0.2] * 5),
        ("tail", {"share": 0.01}, [0, 0, 0, 0, 1]),
        ("ema", {"decay": 0.5}, [1 / 31, 2 / 31, 4 / 31, 8 / 31, 16 / 31]),
        ("ema", {"decay": 0.0}, [0, 0, 0, 0, 1]),
    ],
)
def test_what_is_evaluated_is_the_mean_of_the_rounds_nets(name, options, weights):
    made = with_server(averaging=name, averaging_options=options, n_nodes=4, rounds=5)
    training, nets = reached(made, np.full(4, 3.0))
    expected = (np.array(weights)[:, None] * nets[1:].astype(float)).sum(0)
    assert_allclose(training.state()["averaged"], expected, atol=1e-6)
    loss, n_right = made.engine.evaluate(torch.from_numpy(expected.astype(np.float32)))
    assert_allclose(training.results[-1].loss, loss, rtol=1e-5)
    assert training.results[-1].accuracy == n_right / len(DATA.test_labels)
    assert_array_equal(nets, reached(trainer(n_nodes=4, rounds=5), np.full(4, 3.0))[1])


def test_before_its_rounds_a_tail_average_is_the_latest_net():
    plain = train(trainer(n_nodes=4, rounds=4), np.full(4, 3.0)).results
    made = with_server(averaging="tail", averaging_options={"share": 0.5}, n_nodes=4, rounds=4)
    found = train(made, np.full(4, 3.0)).results
    assert found[:4] == plain[:4]  # the third round's net is the first that is averaged
    assert found[4] != plain[4]


@pytest.mark.parametrize("server", list(SERVER_OPTIMISERS))
@pytest.mark.parametrize("averaging", list(AVERAGINGS))
def test_a_resumed_training_has_the_same_bytes(server, averaging):
    made = with_server(server, averaging, n_nodes=4, rounds=4)
    epsilon = np.full(4, 3.0)
    whole = train(made, epsilon)
    half = made.begin()
    for _ in range(3):
        half.step(epsilon)
    resumed = made.begin(resume=half.state())
    resumed.step(epsilon)
    assert resumed.results == whole.results
    for name, column in whole.state().items():
        assert_array_equal(resumed.state()[name], column, err_msg=name)


def test_a_round_that_aggregates_nothing_moves_no_server():
    made = with_server("momentum", n_nodes=4, rounds=3)
    training = made.begin()
    training.step(np.full(4, 3.0))
    before = training.state()
    training.step(np.zeros(4))
    after = training.state()
    for name in ("flat", "moments", "n_server_steps"):
        assert_array_equal(after[name], before[name])
