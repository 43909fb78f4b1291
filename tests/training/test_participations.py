"""A total epsilon covers the rounds that a node takes part in, and no more."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_training_plan import PLAN
from whole_training import train

from fcfn_abm.dp import gaussian_epsilon, gaussian_sigma
from fcfn_abm.errors import InvalidPrivacyError
from fcfn_abm.rng import stream
from fcfn_abm.training import DATASETS, FederatedTrainer
from fcfn_abm.training.plan import Chances

DATA = DATASETS.create("digits").load(stream(1, "data", 0))
N_NODES, ROUNDS = 12, 40


def trainer(**change):
    shards = np.array_split(np.arange(len(DATA.train_labels)), N_NODES)
    plan = replace(PLAN, **{"rounds": ROUNDS, "horizon": "training", **change})
    return FederatedTrainer(DATA, shards, plan)


@pytest.mark.parametrize(
    ("chances", "expected"),
    [
        (Chances(), ROUNDS),
        (Chances(participation=0.25), 10),
        (Chances(participation=0.1, dropping=0.5), 2),
        (Chances(participation=0.3, dropping=0.1), 11),  # 10.8
        (Chances(participation=0.3, straggling=0.5), 12),  # who comes too late has released
        (Chances(participation=0.001), 1),
    ],
)
def test_a_total_covers_as_many_rounds_as_a_node_is_expected_in(chances, expected):
    assert replace(
        PLAN, rounds=ROUNDS, horizon="training", chances=chances
    ).participation_limit == (expected)
    every_round = replace(PLAN, rounds=ROUNDS, horizon="round", chances=chances)
    assert every_round.participation_limit == ROUNDS


def test_a_key_limits_participations_whatever_the_horizon():
    for horizon in ("round", "training"):
        plan = replace(PLAN, rounds=ROUNDS, horizon=horizon, max_participations=7)
        assert plan.participation_limit == 7
        assert replace(plan, max_participations=99).participation_limit == ROUNDS
    for wrong in (0, 1.5, True):
        with pytest.raises(InvalidPrivacyError, match="max_participations must be a whole number"):
            replace(PLAN, max_participations=wrong)


def test_noise_is_that_of_the_covered_rounds():
    made = trainer(max_participations=9)
    privacy = made.privacy(np.full(N_NODES, 2.0))
    assert_allclose(privacy.noise_multiplier, 3 * gaussian_sigma(2.0, 1e-5), rtol=1e-9)
    assert_allclose(privacy.epsilon_total, 2.0, rtol=1e-9)


def test_nodes_rest_when_they_have_spent_what_they_sold_and_never_spend_more():
    made = trainer(chances=Chances(participation=0.5, dropping=0.2, straggling=0.25))
    training = train(made, np.full(N_NODES, 2.0))
    assert made.plan.participation_limit == 16
    spent = training.ledger.epsilon(1e-5)
    rested = training.n_participations == 16
    assert rested.any()
    assert not rested.all()
    assert_allclose(spent[rested], 2.0, rtol=1e-9)
    assert (spent[~rested] < 2.0).all()
    assert (training.n_participations <= 16).all()
    assert_array_equal(training.ledger.n_releases, training.n_participations)
    # before this, the noise covered forty rounds: at most this much was spent
    before = gaussian_epsilon(np.sqrt(40 / 16) * gaussian_sigma(2.0, 1e-5), 1e-5)
    assert spent.max() > 1.5 * before


def test_without_noise_the_same_nodes_train_in_the_same_rounds():
    made = trainer(chances=Chances(participation=0.4))
    private, plain = (train(made, np.ones(N_NODES), private=p) for p in (True, False))
    assert_array_equal(private.n_participations, plain.n_participations)
    assert [r.n_nodes for r in private.results] == [r.n_nodes for r in plain.results]


def test_a_training_that_is_taken_up_knows_who_has_taken_part():
    made = trainer(rounds=6, max_participations=2, horizon="round")
    whole = train(made, np.ones(N_NODES))
    assert_array_equal(whole.n_participations, 2)
    half = made.begin()
    half.step(np.ones(N_NODES))
    resumed = made.begin(resume=half.state())
    while not resumed.over:
        resumed.step(np.ones(N_NODES))
    assert_array_equal(resumed.n_participations, whole.n_participations)
    assert resumed.results == whole.results
    assert [r.n_nodes for r in whole.results] == [0, 12, 12, 0, 0, 0, 0]
