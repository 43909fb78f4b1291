"""Secure noise through the whole path: what nodes send lies on a grid, and never comes twice."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from whole_training import train

from fcfn_abm.build import prepare_trainer
from fcfn_abm.dp import Clipping
from fcfn_abm.report.summary import summary
from fcfn_abm.runs.run import run_scenario
from fcfn_abm.runs.train import SECURE_NOTE
from fcfn_abm.scenario import Scenario
from fcfn_abm.training import FederatedTrainer
from fcfn_abm.training.local_steps import LocalSteps

pytestmark = pytest.mark.slow

EPSILON = np.array([0.5, 2.0, 20.0] + [0.0] * 57)


def scenario(placement="dp-sgd", **training):
    privacy = {
        "secure_noise": True,
        "placement": {"kind": placement},
        "unit": "client" if placement == "update" else "record",
    }
    training = {"rounds": 4, "learning_rate": 1.0, "partition": {"kind": "iid"}, **training}
    return Scenario.model_validate(
        {"seed": 3, "population": {"n_nodes": 60}, "privacy": privacy, "training": training}
    )


def all_sent(monkeypatch, made):
    """Everything that nodes send, shape (rounds, nodes, n_parameters)."""
    train_node, sent = type(made.plan.placement).train, []

    def spy(*args):
        sent.append(train_node(*args))
        return sent[-1]

    monkeypatch.setattr(type(made.plan.placement), "train", spy)
    train(made, EPSILON)
    shape = (made.plan.rounds, 3, -1)
    return tuple(
        torch.stack([getattr(s, part) for s in sent]).double().numpy().reshape(shape)
        for part in ("values", "noise")
    )


@pytest.mark.parametrize("placement", ["dp-sgd", "update", "paper"])
def test_what_is_released_lies_on_the_grid_and_has_the_noise_that_was_agreed(
    placement, monkeypatch
):
    made = prepare_trainer(scenario(placement))
    uploads, noise = all_sent(monkeypatch, made)
    grid = made.plan.steps.grid
    assert_array_equal(uploads / grid, (uploads / grid).round())  # exactly
    draws = noise / made.privacy(EPSILON).noise_std[:3, None]
    low, high = stats.chi2.interval(1 - 1e-6, draws.size)
    assert low < (draws**2).sum() < high
    assert stats.kstest(draws.ravel(), "norm").pvalue > 1e-6


@pytest.mark.parametrize("placement", ["dp-sgd", "update", "paper"])
def test_with_several_local_epochs_the_noise_is_what_the_placement_says(placement, monkeypatch):
    made = prepare_trainer(scenario(placement, local_epochs=3, momentum=0.5, learning_rate=0.1))
    _, noise = all_sent(monkeypatch, made)
    # three releases, each in all later velocities: 1, 1 + 1/2, 1 + 1/2 + 1/4
    gain = {"dp-sgd": 0.1 * np.sqrt(1 + 1.5**2 + 1.75**2), "update": 1.0, "paper": 0.1}[placement]
    assert_allclose(made.releases[0].noise_gain, gain)
    draws = noise / (gain * made.privacy(EPSILON).noise_std[:3, None])
    low, high = stats.chi2.interval(1 - 1e-6, draws.size)
    assert low < (draws**2).sum() < high


def test_equal_seeds_give_different_noise():
    one, other = (train(prepare_trainer(scenario()), EPSILON).results for _ in range(2))
    assert one[0] == other[0]
    assert all(a.loss != b.loss for a, b in zip(one[1:], other[1:], strict=True))


def test_rounding_is_part_of_the_sensitivity():
    secure = prepare_trainer(scenario())
    bare = np.array([release.sensitivity.l2 for release in secure.releases])
    rounding = secure.plan.steps.grid * np.sqrt(secure.n_parameters)
    assert_allclose(secure.privacy(EPSILON).sensitivity, bare + rounding, rtol=1e-15)
    assert (rounding / bare).max() < 1e-6
    # and what rounding does stays below it (of numbers so small 32 bits keep every grid step)
    rng, grid = np.random.default_rng(1), secure.plan.steps.grid
    value, step = torch.from_numpy(1e-3 * rng.standard_normal((2, secure.n_parameters)))
    nothing = torch.zeros(secure.n_parameters, dtype=torch.float64)
    before, after = (
        secure.plan.steps.add_noise(v, nothing).double() for v in (value, value + 1e-4 * step)
    )
    assert float((after - before).norm()) <= float((1e-4 * step).norm()) + rounding
    assert_array_equal(before / grid, (before / grid).round())


def test_what_is_released_is_the_exact_sum_of_the_rounded_value_and_the_noise():
    grid = 2.0**-30
    steps = LocalSteps(1, 1.0, 0.0, Clipping(1.0), grid=grid)
    rng = np.random.default_rng(2)
    value = torch.from_numpy(rng.standard_normal(500))
    noise = torch.from_numpy(rng.integers(-(2**47), 2**47, 500) * grid)
    released = steps.add_noise(value, noise)
    for v, n, r in zip(value.tolist(), noise.tolist(), released.tolist(), strict=True):
        exact = Fraction(round(Fraction(v) / Fraction(grid))) * Fraction(grid) + Fraction(n)
        assert r == float(np.float32(float(exact)))
        assert Fraction(float(exact)) == exact  # nothing of the value is lost or shows elsewhere


def test_the_record_says_that_it_cannot_be_repeated():
    record = run_scenario(scenario(rounds=1, compare=[]))
    assert record.run["training"]["noise_note"] == SECURE_NOTE
    assert "is not reproducible" in summary(record)
    plain = scenario(rounds=1, compare=[])
    plain = plain.model_copy(
        update={"privacy": plain.privacy.model_copy(update={"secure_noise": False})}
    )
    assert "is not reproducible" not in summary(run_scenario(plain))


def test_secure_samples_do_not_follow_the_seed():
    made = prepare_trainer(scenario(rounds=1))
    taken = [made.draws.create_batch_generator(1, 0).random(50) for _ in range(2)]
    assert (taken[0] != taken[1]).all()
    plan = replace(made.plan, secure_noise=False)
    plain = FederatedTrainer(made.data, made.shards, plan).draws
    assert_array_equal(*(plain.create_batch_generator(1, 0).random(50) for _ in range(2)))


def test_nothing_is_claimed_of_a_sum_of_values_on_grids():
    made = prepare_trainer(scenario(rounds=1))
    ledger = train(made, EPSILON).ledger
    assert_array_equal(ledger.epsilon(1e-5), ledger.central_epsilon(1e-5))
