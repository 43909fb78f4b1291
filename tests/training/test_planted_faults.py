"""Each fault of tests/planted_faults.py is caught by a check that the code as it is passes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from planted_faults import FAULTS, planted
from scipy import stats
from test_training_plan import PLAN

from fcfn_abm.dp import Clipping, gaussian_sigma
from fcfn_abm.rng import stream
from fcfn_abm.training import DATASETS, PLACEMENTS, FederatedTrainer
from fcfn_abm.training.convolve import StackedGradients
from fcfn_abm.training.draws import Draws
from fcfn_abm.training.graphs import Graphs
from fcfn_abm.training.local_steps import LocalSteps
from fcfn_abm.training.plan import Chances

FALSE_ALARM = 1e-6  # of each check; seeds are fixed
DATA = DATASETS.create("digits").load(stream(1, "data", 0))
SIZE, NORM = 1898, 1.0


def trainer(n_nodes=12, **change):
    shards = np.array_split(np.arange(len(DATA.train_labels)), n_nodes)
    return FederatedTrainer(DATA, shards, replace(PLAN, **change))


def draw_releases(n):
    made = trainer()
    return np.array([made.draws.draw_noise(1.0, r, 3)[0].numpy() for r in range(1, n + 1)], float)


def noise_has_the_spread_that_was_agreed():
    squares = (draw_releases(30) ** 2).sum()
    law = stats.chi2(30 * SIZE)
    assert 2 * min(law.cdf(squares), law.sf(squares)) > FALSE_ALARM


def every_coordinate_has_noise():
    squares, law = (draw_releases(100) ** 2).sum(axis=0), stats.chi2(100)
    assert 2 * np.minimum(law.cdf(squares), law.sf(squares)).min() > FALSE_ALARM / SIZE


def first_draws_of_all_rounds_and_nodes_differ():
    n_rounds, n_nodes = 200, 1000
    releases = trainer().releases[:1] * n_nodes
    draws = Draws(PLAN, releases, 4)
    first = np.empty((n_rounds * n_nodes, 4), dtype=np.float32)
    for row in range(len(first)):
        first[row] = draws.draw_noise(1.0, row // n_nodes + 1, row % n_nodes)[0].numpy()
    assert len(np.unique(first, axis=0)) == len(first)


def a_release_is_not_correlated_with_itself_at_any_distance():
    releases = draw_releases(40)
    for distance in range(1, SIZE - 20):
        products = (releases[:, distance:] * releases[:, :-distance]).ravel()
        z = products.sum() / np.sqrt(products.size)
        assert abs(z) < 1.1 * stats.norm.isf(FALSE_ALARM / SIZE)


def no_two_coordinates_are_correlated():
    releases = draw_releases(300)
    correlation = np.abs(np.corrcoef(releases.T)[np.triu_indices(SIZE, 1)]).max()
    # exact law: t = r sqrt(298 / (1 - r^2)), of 1.8 million pairs
    t = correlation * np.sqrt(298 / max(1 - correlation**2, 1e-12))
    assert SIZE**2 * stats.t.sf(t, 298) > FALSE_ALARM


def local_steps_have_noise_of_their_own():
    made = trainer(steps=LocalSteps(2, 0.1, 0.0, Clipping(NORM)))
    one, other = made.draws.draw_noise(1.0, 1, 0).numpy()
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(SIZE)


def no_record_moves_a_sum_by_more_than_the_clipping_norm():
    made = trainer()
    labels = torch.from_numpy(DATA.train_labels[:1])
    for brightness in (0.0, 0.03, 1.0, 30.0):
        images = torch.from_numpy(np.float32(brightness) * DATA.train_images[:1])
        for stretch in (1.0, 100.0):
            flat, add_up = stretch * made.first_parameters, made.plan.steps.sum_clipped
            one = made.gradients[0].reduce_samples(flat, images, labels, add_up)
            group = StackedGradients(made.gradients[0].net, Graphs())
            stacked = group.reduce_samples(flat, images[None], labels[None], add_up)
            assert float(one.double().norm()) <= NORM
            assert float(stacked.double().norm()) <= NORM


def no_update_of_a_node_is_longer_than_the_clipping_norm():
    steps = LocalSteps(3, 5.0, 0.9, Clipping(NORM))
    made = trainer(placement=PLACEMENTS.create("update"), steps=steps)
    sent = made.train_node(made.first_parameters, 0, 1, None, made.gradients[0])
    assert float(sent.clean.double().norm()) <= NORM


def replacing_a_record_is_twice_as_far_as_taking_it_out():
    made = trainer()
    for node, release in enumerate(made.releases):
        assert_allclose(release.sensitivity.l2, 2 * NORM / len(made.shards[node]), rtol=1e-12)


def a_late_node_is_hidden_by_nobody():
    made = trainer(chances=Chances(straggling=0.5), horizon="round", rounds=4)
    training = made.begin()
    for _ in range(4):
        training.step(np.full(12, 2.0))
        late = [
            node
            for node in range(12)
            if node in made.draws.draw_attendance(np.ones(12, dtype=bool), training.round_index)[2]
        ]
        state = training.ledger.state()
        entered = np.isin(state["node"], late)
        assert late
        latest = {node: row for row, node in enumerate(state["node"].tolist())}
        for node in late:
            assert state["central"][latest[node]] == state["multiplier"][latest[node]]
        assert entered.any()
    # the others' sum hides all that are in it
    assert (state["central"] > state["multiplier"]).any()


def the_noise_of_the_sum_is_that_of_all_nodes():
    made = trainer(noise_of="sum", aggregation=PLAN.aggregation)
    epsilon, squares = np.linspace(1.0, 12.0, 12), 0.0
    training = made.begin()
    for round_index in range(1, 21):
        sums = training.aggregate(epsilon, np.arange(12), round_index)
        squares += float((sums.update - sums.clean).double().square().sum())
    sizes = np.array([len(rows) for rows in made.shards])
    std = gaussian_sigma(epsilon, 1e-5) * 2 * NORM / sizes * 0.1 / 12  # learning rate, weight
    law = stats.chi2(20 * SIZE)
    squares /= (std**2).sum()
    assert 2 * min(law.cdf(squares), law.sf(squares)) > FALSE_ALARM


CHECKS = {
    "half the noise": noise_has_the_spread_that_was_agreed,
    "noise that repeats after 64 rounds": first_draws_of_all_rounds_and_nodes_differ,
    "noise that repeats after 32 nodes": first_draws_of_all_rounds_and_nodes_differ,
    "the second half of a release repeats the first": (
        a_release_is_not_correlated_with_itself_at_any_distance
    ),
    "no noise on one layer": every_coordinate_has_noise,
    "two coordinates share their noise": no_two_coordinates_are_correlated,
    "local steps share their noise": local_steps_have_noise_of_their_own,
    "norms leave biases out": no_record_moves_a_sum_by_more_than_the_clipping_norm,
    "biases escape the clip": no_record_moves_a_sum_by_more_than_the_clipping_norm,
    "updates of nodes are not clipped": no_update_of_a_node_is_longer_than_the_clipping_norm,
    "the sensitivity of another relation": replacing_a_record_is_twice_as_far_as_taking_it_out,
    "late nodes' central multiplier times three": a_late_node_is_hidden_by_nobody,
    "the noise of the sum weighs nodes twice": the_noise_of_the_sum_is_that_of_all_nodes,
}


@pytest.mark.parametrize("check", dict.fromkeys(CHECKS.values()), ids=lambda c: c.__name__)
def test_the_code_as_it_is_passes(check):
    check()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_does_not_pass(fault):
    with planted(fault), pytest.raises(AssertionError):
        CHECKS[fault]()


def test_a_node_alone_in_the_sum_has_its_own_multiplier():
    # at these numbers noise over sensitivity lies a digit below the multiplier
    for delta in (1e-5, 1e-4):
        for epsilon in (1.0, 3.0, 10.0, 11.0):
            made = trainer(delta=delta)
            training = made.begin()
            for node in range(12):
                alone = np.zeros(12)
                alone[node] = epsilon
                if not training.over:
                    training.step(alone)
            state = training.ledger.state()
            assert (state["central"] == state["multiplier"]).all()
