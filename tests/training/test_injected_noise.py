"""The noise that nodes send, through the whole path from a scenario, against its law.

Checks return p-values; ``noise_passes`` raises a false alarm once in a million. Faults that are
planted in the path must not pass.
"""

import dp_accounting
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from whole_training import train

import fcfn_abm.dp.noise
from fcfn_abm.build import prepare_trainer
from fcfn_abm.errors import RunFailedError
from fcfn_abm.scenario import Scenario
from fcfn_abm.training.gradients import Matrix, NetGradients
from fcfn_abm.training.privacy import PrivacyAccounts

FALSE_ALARM = 1e-6
EPSILON = np.array([0.3, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 40.0, 98.0])
N_PARAMETERS = 1898
ENOUGH = 45  # rounds in which twelve nodes draw 1,024,920 numbers
LEARNING_RATE, CLIPPING_NORM, DELTA = 0.1, 0.7, 1e-5


def scenario(*, rounds=ENOUGH, n_steps=1, momentum=0.0, **privacy):
    privacy = {"delta": DELTA, "clipping_norm": CLIPPING_NORM, **privacy}
    training = {
        "rounds": rounds,
        "local_epochs": n_steps,
        "learning_rate": LEARNING_RATE,
        "momentum": momentum,
        "partition": {"kind": "iid"},
    }
    return Scenario.model_validate(
        {"seed": 3, "population": {"n_nodes": 150}, "privacy": privacy, "training": training}
    )


def placed(name):
    return {"placement": {"kind": name}, "unit": "client" if name == "update" else "record"}


def injected(monkeypatch, made, epsilon=EPSILON):
    """Train, and return what each node sent beyond what it sends without noise.

    Also the noise that it was handed. Shapes (rounds, nodes, n_parameters), (rounds, nodes,
    releases, n_parameters); and each node's number of samples.
    """
    train_node = type(made.plan.placement).train
    excess, handed, sizes = [], [], []

    def spy(self, flat, batches, steps, gradients, noise):
        batches = list(batches)
        handed.append(noise.clone())  # releases are made in its memory
        sent = train_node(self, flat, batches, steps, gradients, noise)
        clean = train_node(self, flat, batches, steps, gradients, None).clean
        excess.append(sent.values.double() - clean.double())
        sizes.append(len(batches[0].labels))  # all samples
        return sent

    monkeypatch.setattr(type(made.plan.placement), "train", spy)
    everyone = np.zeros(len(made.shards))
    everyone[: epsilon.size] = epsilon
    train(made, everyone)
    shape = (made.plan.rounds, epsilon.size)
    return (
        torch.stack(excess).numpy().reshape(*shape, -1),
        torch.stack(handed).double().numpy().reshape(*shape, -1, made.n_parameters),
        np.array(sizes[: epsilon.size]),
    )


# noise over sensitivity by Google's own root of Balle and Wang's theorem: none of our code
MULTIPLIER = np.array([dp_accounting.get_sigma_gaussian(epsilon, DELTA) for epsilon in EPSILON])


def no_correlation(rows):
    """P-value of the largest correlation of any two rows, by the exact law of each."""
    n, freedom = len(rows), rows.shape[1] - 2
    largest = np.abs(np.corrcoef(rows)[np.triu_indices(n, 1)]).max()
    statistic = largest * np.sqrt(freedom / max(1 - largest**2, 1e-12))
    return min(n * (n - 1) / 2 * 2 * stats.t.sf(statistic, freedom), 1.0)


def right_variance(draws):
    """P-value of the sum of squares, two-sided."""
    law = stats.chi2(draws.size)
    total = (draws**2).sum()
    return 2 * min(law.cdf(total), law.sf(total), 0.5)


def p_values(draws):
    """P-values that draws of shape (rounds, nodes, n) are independent standard normal numbers."""
    rounds, nodes, size = draws.shape
    by_node = draws.swapaxes(0, 1)
    return {
        "variance": right_variance(draws),
        "variance of each node": min(min(nodes * right_variance(d) for d in by_node), 1.0),
        "law": stats.kstest(draws.ravel(), "norm").pvalue,
        "releases": no_correlation(draws.reshape(-1, size)),
        "nodes": no_correlation(by_node.reshape(nodes, -1)),
        "rounds": no_correlation(draws.reshape(rounds, -1)),
    }


def noise_passes(draws):
    found = p_values(draws)
    return min(found.values()) * len(found) > FALSE_ALARM


@pytest.mark.parametrize(
    ("placement", "neighbours"),
    [
        ("dp-sgd", "replace-one"),
        ("dp-sgd", "zero-out"),
        ("update", "replace-one"),
        ("paper", "replace-one"),
    ],
)
def test_what_nodes_send_carries_the_noise_that_was_agreed(placement, neighbours, monkeypatch):
    made = prepare_trainer(scenario(**placed(placement), neighbours=neighbours))
    excess, _, sizes = injected(monkeypatch, made)
    distance = CLIPPING_NORM * (2 if neighbours == "replace-one" else 1)
    std = MULTIPLIER * distance
    if placement != "update":
        std = std / sizes * LEARNING_RATE
    assert excess.size > 1_000_000
    assert noise_passes(excess / std[:, None])


def test_every_local_step_has_noise_of_its_own(monkeypatch):
    rounds, n_steps, momentum = 15, 3, 0.6
    made = prepare_trainer(
        scenario(rounds=rounds, n_steps=n_steps, momentum=momentum, horizon="training")
    )
    kept = []
    train_node = type(made.plan.placement).train
    monkeypatch.setattr(
        type(made.plan.placement),
        "train",
        lambda *args: kept.append(train_node(*args)) or kept[-1],
    )
    _, handed, sizes = injected(monkeypatch, made)
    std = MULTIPLIER * np.sqrt(rounds * n_steps) * 2 * CLIPPING_NORM / sizes
    draws = handed / std[:, None, None]
    assert draws.size > 1_000_000
    assert noise_passes(draws.swapaxes(1, 2).reshape(-1, EPSILON.size, N_PARAMETERS))
    # a step's noise also moves with the velocity in all later ones: 1 + 0.6 + 0.36, 1 + 0.6, 1
    weights = -LEARNING_RATE * np.array([1.96, 1.6, 1.0])
    noise = torch.stack([sent.noise for sent in kept[::2]]).numpy()  # the others ran without
    assert_allclose(
        noise.reshape(rounds, EPSILON.size, -1),
        np.einsum("s,rnsp->rnp", weights, handed),
        rtol=1e-4,
        atol=1e-5 * handed.std(),
    )


draw = fcfn_abm.dp.noise.node_noise


def uniform(size, std, seed, round_index, node):
    rng = np.random.default_rng((seed, round_index, node))
    return torch.from_numpy(rng.uniform(-std, std, size).astype(np.float32) * np.sqrt(3))


FAULTS = {  # what is wrong, how noise is drawn then, in how many rounds it must be seen, by what
    "1 % too little": (
        lambda n, std, *where: draw(n, 0.99 * std, *where),
        ENOUGH,
        "variance",
    ),
    "0.6 % too much": (
        lambda n, std, *where: draw(n, 1.006 * std, *where),
        ENOUGH,
        "variance",
    ),
    "the same in two rounds": (
        lambda n, std, seed, r, node: draw(n, std, seed, r // 2, node),
        8,
        "releases",
    ),
    "the same in every round": (
        lambda n, std, seed, _, node: draw(n, std, seed, 1, node),
        8,
        "rounds",
    ),
    "shared by two nodes": (
        lambda n, std, seed, r, node: draw(n, std, seed, r, node // 2),
        8,
        "nodes",
    ),
    "of another law": (uniform, 8, "law"),
}


def relative(excess, sizes):
    """Return noise over the standard deviation that dp-sgd should have, by hand."""
    return excess / (MULTIPLIER * LEARNING_RATE * 2 * CLIPPING_NORM / sizes)[:, None]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_noise_that_is_wrong_does_not_pass(fault, monkeypatch):
    wrong, rounds, seen_by = FAULTS[fault]
    made = prepare_trainer(scenario(rounds=rounds))
    monkeypatch.setattr(fcfn_abm.dp.noise, "node_noise", wrong)
    excess, _, sizes = injected(monkeypatch, made)
    draws = relative(excess, sizes)
    assert not noise_passes(draws)
    assert p_values(draws)[seen_by] < 1e-7


def test_the_epsilon_of_another_node_does_not_pass(monkeypatch):
    made = prepare_trainer(scenario(rounds=8))
    privacy = PrivacyAccounts.calibrate
    swapped = np.arange(len(made.shards))
    swapped[[3, 4]] = [4, 3]
    monkeypatch.setattr(
        PrivacyAccounts, "calibrate", lambda self, epsilon: privacy(self, epsilon[swapped])
    )
    excess, _, sizes = injected(monkeypatch, made)
    draws = relative(excess, sizes)
    assert not noise_passes(draws)
    assert noise_passes(np.delete(draws, [3, 4], axis=1))


def test_the_classical_formula_does_not_pass_for_the_exact_one(monkeypatch):
    made = prepare_trainer(scenario(rounds=8, calibration="classical"))
    excess, _, sizes = injected(monkeypatch, made, np.full(12, 20.0))
    std = LEARNING_RATE * 2 * CLIPPING_NORM / sizes
    assert not noise_passes(excess / (dp_accounting.get_sigma_gaussian(20.0, DELTA) * std)[:, None])
    textbook = np.sqrt(2 * np.log(1.25 / DELTA)) / 20.0
    assert noise_passes(excess / (textbook * std)[:, None])


class Given(NetGradients):
    """Gradients that are rows whatever the data is."""

    def __init__(self, net, rows):
        super().__init__(net)
        self.row = rows

    def mean(self, *_):
        return self.row.clone()

    def per_sample(self, flat, images, _):
        return Matrix(self.row.expand(len(images), len(flat)).clone())


def handing_out(made, rows):
    """Let the gradients of every node be ``rows``."""
    made.gradients[0] = Given(made.gradients[0].net, rows)


@pytest.mark.parametrize("placement", ["dp-sgd", "update", "paper"])
@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-20, 0.3, 1.0, 1e10, 3e30])
def test_no_finite_gradient_moves_an_update_beyond_the_bound(placement, size, monkeypatch):
    made = prepare_trainer(scenario(rounds=1, **placed(placement)))
    direction = torch.randn(N_PARAMETERS, generator=torch.Generator().manual_seed(1))
    handing_out(made, size * direction)
    kept = []
    train_node = type(made.plan.placement).train
    monkeypatch.setattr(
        type(made.plan.placement),
        "train",
        lambda *args: kept.append(train_node(*args)) or kept[-1],
    )
    train(made, np.ones(len(made.shards)))
    bound = CLIPPING_NORM * (1.0 if placement == "update" else LEARNING_RATE)
    assert len(kept) == len(made.shards)
    for sent in kept:
        norm = float(np.linalg.norm(sent.clean.numpy().astype(np.float64)))
        assert norm <= bound
        if size >= 1.0:
            assert norm > 0.9999 * bound


@pytest.mark.parametrize("placement", ["dp-sgd", "update", "paper"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_gradients_that_are_not_finite_are_refused_by_round_and_node(placement, bad):
    made = prepare_trainer(scenario(rounds=2, **placed(placement)))
    rows = torch.zeros(N_PARAMETERS)
    rows[:2] = bad
    handing_out(made, rows)
    epsilon = np.zeros(len(made.shards))
    epsilon[5] = 1.0
    with pytest.raises(RunFailedError, match="in round 1: the update of node 5 is not finite"):
        train(made, epsilon)
