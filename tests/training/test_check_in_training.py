"""The server's check, in the training that it watches."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from whole_training import train

from fcfn_abm.build import prepare_trainer
from fcfn_abm.dp import gaussian_epsilon
from fcfn_abm.dp.check import as_factor, smallest_excess
from fcfn_abm.scenario import Scenario
from fcfn_abm.training import FederatedTrainer

N_NODES = 60


def trainer(placement="dp-sgd", *, false_alarm=1e-6, rounds=3, aggregation="uniform", **training):
    privacy = {
        "placement": {"kind": placement},
        "unit": "client" if placement == "update" else "record",
        "check": {"false_alarm": false_alarm},
    }
    if false_alarm is None:
        del privacy["check"]
    training = {
        "rounds": rounds,
        "partition": {"kind": "iid"},
        "aggregation": {"kind": aggregation},
        **training,
    }
    return prepare_trainer(
        Scenario.model_validate(
            {
                "seed": 3,
                "population": {"n_nodes": N_NODES},
                "privacy": privacy,
                "training": training,
            }
        )
    )


def spied(monkeypatch, made):
    """Record the standard deviation of the noise that each node injects, by round and node."""
    draw, drawn = made.draws.draw_noise, {}

    def spy(std, round_index, node):
        drawn[round_index, node] = std
        return draw(std, round_index, node)

    monkeypatch.setattr(made.draws, "draw_noise", spy)
    return drawn


def test_nodes_that_misreport_inject_the_noise_of_less_and_claim_what_they_report(monkeypatch):
    made = trainer(false_alarm=None)
    factors = np.ones(N_NODES)
    factors[[1, 2]] = 2.0
    epsilon = np.where(np.arange(N_NODES) < 4, 3.0, 0.0)
    drawn = spied(monkeypatch, made)
    training = train(made, epsilon, misreport=factors)
    sensitivity = made.privacy(epsilon).sensitivity
    for node in range(4):
        spent = gaussian_epsilon(drawn[2, node], 1e-5, sensitivity[node])
        assert_allclose(spent, 3.0 / factors[node], rtol=1e-9)
    claimed = training.ledger.epsilon(1e-5)
    assert_allclose(claimed[:4], claimed[0])


def test_weights_follow_the_reports(monkeypatch):
    made = trainer(aggregation="inverse-variance", false_alarm=None)
    asked, weights = [], type(made.plan.aggregation).weights
    monkeypatch.setattr(
        type(made.plan.aggregation),
        "weights",
        lambda self, n, std: (asked.append(std), weights(self, n, std))[1],
    )
    epsilon = np.where(np.arange(N_NODES) < 4, 3.0, 0.0)
    train(made, epsilon)
    train(made, epsilon, misreport=np.full(N_NODES, 2.0))
    assert_array_equal(asked[0], asked[-1])


@pytest.mark.parametrize(
    ("placement", "n_steps"), [("dp-sgd", 1), ("dp-sgd", 2), ("update", 3), ("paper", 2)]
)
def test_who_injects_more_than_the_smallest_excess_is_flagged_at_once(placement, n_steps):
    made = trainer(placement, local_epochs=n_steps, learning_rate=0.1)
    epsilon, release = np.full(N_NODES, 0.05), made.releases[0]
    claimed = made.privacy(epsilon)
    excess = smallest_excess(
        made.n_parameters,
        claimed.noise_std * release.noise_gain,
        release.max_update_norm,
        1e-6 / made.plan.rounds,
        release.n_noise_draws,
    )
    factor = as_factor(excess.max(), 0.05, 1e-5)
    assert factor < 1.5
    factors = np.where(np.arange(N_NODES) < 20, 1.01 * factor, 1.0)
    flagged_round = train(made, epsilon, misreport=factors).flagged_round
    assert (flagged_round[:20] == 1).sum() >= 17  # 20 at 99 %: less once in 10^5
    assert not flagged_round[20:].any()


def test_honest_nodes_are_flagged_as_seldom_as_was_promised_over_a_training():
    false_alarm, rounds, trainings = 0.05, 4, 5
    flagged = 0
    for seed in range(trainings):
        made = trainer(false_alarm=false_alarm, rounds=rounds)
        made = FederatedTrainer(made.data, made.shards, replace(made.plan, seed=seed))
        flagged += int((train(made, np.full(N_NODES, 0.2)).flagged_round > 0).sum())
    assert flagged <= stats.binom.isf(1e-6, trainings * N_NODES, false_alarm)
    assert flagged > 0  # the bound is not idle: at this noise it is nearly met


def test_a_flagged_node_is_out_and_the_others_count_for_all():
    made = trainer()
    epsilon = np.where(np.arange(N_NODES) < 4, 0.1, 0.0)
    factors = np.ones(N_NODES)
    factors[1] = 2.0
    watched = train(made, epsilon, misreport=factors)
    assert_array_equal(watched.flagged_round[:4], [0, 1, 0, 0])
    assert [r.n_nodes for r in watched.results] == [0, 3, 3, 3]
    assert_array_equal(watched.ledger.n_releases[:4], [3, 1, 3, 3])
    without = train(made, np.where(np.arange(N_NODES) == 1, 0.0, epsilon))
    losses = [[r.loss for r in training.results] for training in (watched, without)]
    assert_allclose(*losses, rtol=1e-5)


def test_a_training_in_which_all_are_flagged_continues_without_anybody():
    made = trainer(aggregation="inverse-variance")
    epsilon = np.where(np.arange(N_NODES) < 4, 0.1, 0.0)
    training = train(made, epsilon, misreport=np.full(N_NODES, 2.0))
    assert [r.n_nodes for r in training.results] == [0] * 4
    assert len({r.loss for r in training.results}) == 1
    assert training.ledger.n_releases.sum() == 4


def test_who_checks_each_upload_has_no_central_view():
    epsilon = np.where(np.arange(N_NODES) < 4, 0.5, 0.0)
    for false_alarm in (None, 1e-6):
        made = trainer(false_alarm=false_alarm)
        ledger = train(made, epsilon).ledger
        local, central = ledger.epsilon(1e-5), ledger.central_epsilon(1e-5)
        assert (central[:4] < local[:4]).all() == (false_alarm is None)
