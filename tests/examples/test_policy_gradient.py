import runpy

import numpy as np
import pytest
from numpy.testing import assert_allclose

SCRIPT = "examples/policy_gradient.py"


@pytest.mark.slow
def test_nodes_trained_by_policy_gradient_come_within_five_per_cent_of_the_equilibrium():
    trained = runpy.run_path(SCRIPT)["train"](n_nodes=5, n_rounds=20_000, seed=1)
    assert trained.equilibrium.size == 5
    assert (trained.equilibrium > 0).all()
    assert_allclose(trained.epsilon, trained.equilibrium, rtol=0.05)


def test_what_the_others_explain_is_taken_off_and_nothing_else():
    remove_explained = runpy.run_path(SCRIPT)["remove_explained"]
    chance = np.random.default_rng(1)
    others, own = chance.normal(size=(2, 10_000, 3))
    left = remove_explained(2.0 + 3.0 * own - 5.0 * others, others)
    assert_allclose(left, 3.0 * own, atol=0.2)
