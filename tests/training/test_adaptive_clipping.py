from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from test_central_view import exact_epsilon
from test_trainer import DATA, plain_gradient, trainer
from whole_training import train

import fcfn_abm as fa
from fcfn_abm.dp import AdaptiveClipping, gaussian_epsilon
from fcfn_abm.errors import InvalidDataError, InvalidPrivacyError, InvalidScenarioError
from fcfn_abm.training import AGGREGATIONS, FederatedTrainer
from fcfn_abm.training.local_steps import take_batches

pytestmark = pytest.mark.slow
DELTA = 1e-5
EPSILON = np.array([0.0, 1.0, 3.0, 9.0])


def adapting(adaptive=None, view="local", noise_of="nodes", **options):
    made = trainer(**{"n_nodes": 4, "rounds": 4, "horizon": "training", **options})
    plan = replace(
        made.plan,
        adaptive_clipping=adaptive or AdaptiveClipping(0.5, 0.3, 0.1),
        view=view,
        noise_of=noise_of,
    )
    if view == "central":
        plan = replace(plan, aggregation=AGGREGATIONS.create("by-epsilon"))
    return FederatedTrainer(DATA, made.shards, plan)


def watch(made, monkeypatch):
    """Note each round's work, and the noise on the sum of its counts."""
    rounds, counts = [], []
    train_round, draw = made.engine.train_round, made.draws.draw_count_noise

    def spy_on_round(work):
        rounds.append(work)
        return train_round(work)

    def spy_on_count(std, round_index):
        counts.append(std)
        return draw(std, round_index)

    monkeypatch.setattr(made.engine, "train_round", spy_on_round)
    monkeypatch.setattr(made.draws, "draw_count_noise", spy_on_count)
    return rounds, counts


@pytest.mark.parametrize(("z", "std_of_count"), [(1.0, 5.0), (0.7, 2.0), (3.0, 40.0)])
def test_noise_is_split_as_in_the_papers_theorem(z, std_of_count):
    # theorem 1: z_release = (z^-2 - (2 sigma_b)^-2)^-1/2
    adaptive = AdaptiveClipping(noise_share=z**2 / (2 * std_of_count) ** 2)
    assert_allclose(adaptive.count_gain * z / 2, std_of_count, rtol=1e-12)
    assert_allclose(
        adaptive.release_gain * z, (z**-2 - (2 * std_of_count) ** -2) ** -0.5, rtol=1e-12
    )


def test_the_norm_settles_at_the_quantile_of_what_it_clips():
    norms = np.random.default_rng(1).lognormal(2.0, 0.7, 2001)
    for quantile in (0.2, 0.5, 0.9):
        adaptive, norm = AdaptiveClipping(quantile, 0.2, 0.01), 0.1
        for _ in range(400):
            norm = adaptive.next_norm(norm, float((norms <= norm).mean()))
        assert_allclose(norm, np.quantile(norms, quantile), rtol=0.01)


@pytest.mark.parametrize("placement", ["dp-sgd", "paper", "update"])
def test_the_next_norm_follows_from_the_counts_of_plain_autograd(placement):
    start = 0.4 if placement == "update" else 2.05  # about the median
    made = adapting(placement=placement, clipping_norm=start)
    training = made.begin(private=False)
    flat = made.first_parameters.clone()
    training.step(EPSILON)
    shares = []
    for node in (1, 2, 3):
        rows = [
            plain_gradient(made, flat, image, label)
            for image, label in zip(*made.samples(node), strict=True)
        ]
        if placement == "update":
            rows = [torch.stack(rows).mean(0)]  # of one step, at a learning rate of one
        shares.append(np.mean([float(row.norm()) <= start for row in rows]))
    assert 0 < np.mean(shares) < 1 or placement == "update"
    expected = start * np.exp(-0.3 * (np.mean(shares) - 0.5))
    assert training.clipping_norms == pytest.approx([start, expected], rel=1e-9)


@pytest.mark.parametrize("placement", ["dp-sgd", "update"])
@pytest.mark.parametrize("neighbours", ["replace-one", "zero-out"])
def test_releases_and_counts_together_spend_what_was_sold(placement, neighbours, monkeypatch):
    made = adapting(view="central", placement=placement, neighbours=neighbours, clipping_norm=0.5)
    rounds, counts = watch(made, monkeypatch)
    training = train(made, EPSILON)
    assert len(set(training.clipping_norms)) > 3  # it did adapt
    distance = 2.0 if neighbours == "replace-one" else 1.0
    for node in (1, 2, 3):
        share = 1 / made.n_samples[node] if placement == "dp-sgd" else 1.0
        precision = 0.0
        for work, std_of_count, norm in zip(rounds, counts, training.clipping_norms, strict=False):
            weight = work.weights[work.nodes == node][0]
            variance = ((work.weights * work.noise_std[work.nodes]) ** 2).sum()
            precision += (weight * distance * norm * share) ** 2 / variance
            # a bit less one half goes, which is half a step, or turns over
            precision += (weight * distance / 2 * share) ** 2 / std_of_count**2
        assert_allclose(exact_epsilon(np.sqrt(precision)), EPSILON[node], rtol=1e-7)
    assert_allclose(training.ledger.central_epsilon(DELTA), EPSILON, rtol=1e-8)


@pytest.mark.parametrize(("n_steps", "batch_size"), [(1, None), (2, None), (1, 50)])
def test_in_the_local_view_each_node_pays_for_its_counts(n_steps, batch_size, monkeypatch):
    made = adapting(n_steps=n_steps, batch_size=batch_size, rounds=3)
    rounds, counts = watch(made, monkeypatch)
    training = train(made, EPSILON)
    z = made.privacy(EPSILON).noise_multiplier
    for work, std_of_count, norm in zip(rounds, counts, training.clipping_norms, strict=False):
        n = made.n_samples[1:] if batch_size is None else np.full(3, batch_size)
        on_release = work.noise_std[1:] / (2 * norm / n)  # multipliers
        on_count = (z[1:] ** -2 - on_release**-2) ** -0.5  # what is left of the privacy
        draws = n_steps * np.ceil(made.n_samples[1:] / n)
        own = on_count * (1 / n) / np.sqrt(draws)  # a bit that turns over moves a mean by 1 / n
        assert_allclose(std_of_count, np.sqrt(((work.weights * own) ** 2).sum()), rtol=1e-9)
    local = training.ledger.epsilon(DELTA)
    assert_allclose(local, EPSILON, rtol=1e-8)
    assert_allclose(local[1:], gaussian_epsilon(z[1:] / np.sqrt(3 * n_steps), DELTA), rtol=1e-8)


@pytest.mark.parametrize("placement", ["dp-sgd", "update"])
@pytest.mark.parametrize("noise_of", ["nodes", "sum"])
def test_noise_on_the_release_grows_and_shrinks_with_the_norm(placement, noise_of, monkeypatch):
    made = adapting(AdaptiveClipping(0.5, 1.0, 0.01), placement=placement, noise_of=noise_of)
    add_up, norms = type(made.begin())._add_up_uploads, []
    ratios = []

    def spy(self, work):
        sums = add_up(self, work)
        std = float((sums.update - sums.clean).std())
        norms.append(work.steps.clipping.norm)
        ratios.append(std / norms[-1])
        return sums

    monkeypatch.setattr(type(made.begin()), "_add_up_uploads", spy)
    train(made, EPSILON)
    assert max(norms) > 1.2 * min(norms)
    assert max(ratios) < 1.2 * min(ratios)  # of 1,898 numbers each: 1.6 % of standard error


def test_a_resumed_training_has_the_same_norms_and_bytes():
    made = adapting()
    whole = train(made, EPSILON)
    half = made.begin()
    for _ in range(2):
        half.step(EPSILON)
    resumed = made.begin(resume=half.state())
    while not resumed.over:
        resumed.step(EPSILON)
    assert resumed.results == whole.results
    for name, column in whole.state().items():
        assert_array_equal(resumed.state()[name], column, err_msg=name)


def test_workers_do_not_change_the_norms():
    made = adapting()
    other = FederatedTrainer(DATA, made.shards, made.plan, workers=3)
    found, expected = train(other, EPSILON), train(made, EPSILON)
    assert found.clipping_norms == expected.clipping_norms
    assert found.results == expected.results


def test_a_round_without_nodes_leaves_the_norm():
    training = adapting().begin()
    training.step(np.zeros(4))
    assert training.clipping_norms == [1.0, 1.0]


def test_what_cannot_count_is_refused():
    made = adapting()
    with pytest.raises(InvalidPrivacyError, match="not an adaptive one"):
        replace(made.plan, secure_noise=True)
    with pytest.raises(InvalidDataError, match=r"adaptive_clipping.* requires the serial engine"):
        FederatedTrainer(DATA, made.shards, made.plan, engine="stacked")
    for wrong in ({"quantile": 1.0}, {"noise_share": 0.0}, {"learning_rate": -1.0}):
        with pytest.raises(InvalidPrivacyError, match=next(iter(wrong))):
            AdaptiveClipping(**wrong)
    table = ["privacy.adaptive_clipping.quantile=0.5"]
    for conflict in ("privacy.secure_noise=true", "training.engine=stacked"):
        with pytest.raises(InvalidScenarioError, match=conflict.split("=")[0]):
            fa.load_scenario("privacy/quickstart-local", [*table, conflict])


def test_the_record_says_how_the_norm_moved():
    overrides = ["training.rounds=3", "privacy.adaptive_clipping.noise_share=0.05"]
    record = fa.run_scenario(fa.load_scenario("privacy/quickstart-local", overrides))
    for arm in record.run["training"]["arms"]:
        assert len(arm["clipping_norms"]) == 4
        assert arm["clipping_norms"][0] == 1.0
    assert "The clipping norm adapts" in record.run["training"]["privacy_note"]
    nodes = record.nodes[record.nodes["epsilon_total"] > 0]
    assert_allclose(nodes["epsilon_total"], nodes["epsilon_sold"], rtol=1e-8)


@pytest.mark.parametrize("placement", ["dp-sgd", "update"])
def test_no_replacement_moves_a_count_by_more_than_the_claim(placement):
    made = adapting(placement=placement, clipping_norm=2.05)
    steps = replace(made.plan.steps, counts_within=True)
    claim = made.releases[0].sensitivity.l2 / (2 * 2.05)
    assert claim == pytest.approx(1 / made.n_samples[0] if placement == "dp-sgd" else 1.0)

    def count(images, labels):
        batches = take_batches(images, labels, [slice(None)], made.releases[0].divisor)
        at = made.first_parameters, batches, steps, made.gradients[0], None
        return made.plan.placement.train(*at).within

    before, rng, largest = count(*made.samples(0)), np.random.default_rng(2), 0.0
    for scale in (0.0, 0.1, 1.0, 50.0) * 5:
        images, labels = (part.clone() for part in made.samples(0))
        rows = int(rng.integers(len(labels))) if placement == "dp-sgd" else slice(None)
        images[rows] = scale * torch.from_numpy(rng.uniform(-1, 1, images[rows].shape)).float()
        labels[rows] = int(rng.integers(10))
        largest = max(largest, abs(count(images, labels) - before))
    assert 0.9 * claim < largest <= claim * (1 + 1e-9)
