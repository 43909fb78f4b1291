"""The schedule "every-round": what the record says is what was trained with."""

from __future__ import annotations

import numpy as np
import pytest

import fcfn_abm as fa

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def record():
    overrides = [
        "training.rounds=6",
        "training.schedule=every-round",
        "training.compare=['no-noise', 'random']",
        'record.traces="all"',
    ]
    return fa.run_scenario(fa.load_scenario("privacy/quickstart-local", overrides))


def test_facts_are_of_the_rounds_that_were_trained(record):
    played = record.traces[record.traces["round"] <= 6]
    active = played[played["epsilon"] > 0]
    own, no_noise, rival = record.run["training"]["arms"]
    assert own["n_nodes"] == active["node"].nunique() == record.ledger["node"].nunique()
    assert own["n_nodes"] > record.nodes["active"].sum()  # some have left since
    assert own["mean_epsilon"] == pytest.approx(active["epsilon"].mean(), rel=1e-6)
    assert own["mean_true_epsilon"] == pytest.approx(own["mean_epsilon"], rel=1e-6)
    assert {key: no_noise[key] for key in ("n_nodes", "mean_epsilon")} == {
        key: own[key] for key in ("n_nodes", "mean_epsilon")
    }
    assert rival["name"] == "random"


def test_without_noise_the_same_nodes_train(record):
    taking_part = record.training.pivot_table(index="round", columns="arm", values="n_nodes")
    np.testing.assert_array_equal(taking_part["stackelberg"], taking_part["no-noise"])
    per_round = record.ledger.groupby("round")["node"].nunique()
    np.testing.assert_array_equal(taking_part["stackelberg"].loc[1:], per_round)


def test_nodes_that_have_left_keep_what_their_last_noise_was(record):
    nodes = record.nodes.set_index("node")
    left = nodes[~nodes["active"] & (nodes["epsilon_total"] > 0)]
    assert len(left) > 0
    last = record.ledger.groupby("node")["epsilon_round"].last()
    found = nodes.loc[left.index, "epsilon_per_round"]
    np.testing.assert_allclose(found, last[left.index], rtol=1e-9)
