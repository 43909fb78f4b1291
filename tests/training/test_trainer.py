from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from whole_training import train

from fcfn_abm.dp import Clipping, gaussian_epsilon, spent_epsilon
from fcfn_abm.errors import InvalidDataError, InvalidPrivacyError, RunFailedError
from fcfn_abm.registry import OptionError
from fcfn_abm.rng import stream
from fcfn_abm.training import (
    AGGREGATIONS,
    DATASETS,
    NETS,
    PARTITIONS,
    PLACEMENTS,
    FederatedTrainer,
    TrainingPlan,
)
from fcfn_abm.training.gradients import GradientFunction, NetGradients, flatten_parameter
from fcfn_abm.training.local_steps import Batch, LocalSteps, take_batches

pytestmark = pytest.mark.slow

DATA = DATASETS.create("digits").load(stream(1, "data", 0))


def trainer(
    n_nodes=10,
    *,
    placement="dp-sgd",
    aggregation="uniform",
    rounds=2,
    n_steps=1,
    learning_rate=1.0,
    momentum=0.0,
    clipping_norm=1.0,
    horizon="round",
    partition="iid",
    neighbours="replace-one",
    sampling_rate=None,
    batch_size=None,
    workers=1,
    seed=1,
):
    shards = PARTITIONS.create(partition).split(DATA.train_labels, n_nodes, stream(seed, "data", 1))
    plan = TrainingPlan(
        net=NETS.create("digits-cnn"),
        placement=PLACEMENTS.create(
            placement, {} if sampling_rate is None else {"sampling_rate": sampling_rate}
        ),
        aggregation=AGGREGATIONS.create(aggregation),
        rounds=rounds,
        steps=LocalSteps(n_steps, learning_rate, momentum, Clipping(clipping_norm), batch_size),
        delta=1e-5,
        calibration="analytic",
        horizon=horizon,
        neighbours=neighbours,
        seed=seed,
    )
    return FederatedTrainer(DATA, shards, plan, workers)


def sent(made, node, noise=None, rng=None, samples=None):
    placement, steps = made.plan.placement, made.plan.steps
    images, labels = samples or made.samples(node)
    rows = placement.draw_batches(steps, len(labels), rng)
    batches = take_batches(images, labels, rows, made.releases[node].divisor)
    noise = None if noise is None else noise.clone()  # releases are made in its memory
    return placement.train(made.first_parameters, batches, steps, made.gradients[0], noise)


def test_digits_are_real_and_split_eight_to_two():
    assert len(DATA.train_labels) == 1438
    assert len(DATA.test_labels) == 359
    assert DATA.train_images.shape[1:] == (1, 8, 8)
    assert DATA.train_images.min() == 0
    assert DATA.train_images.max() == 1
    assert "quick start" in DATA.label


def test_it_learns_without_noise_and_noise_costs_accuracy():
    made = trainer(rounds=40, learning_rate=5.0)
    clean = train(made, np.ones(10), private=False).results
    noisy = train(made, np.full(10, 0.05)).results
    assert clean[-1].accuracy > 0.85
    assert noisy[-1].accuracy < clean[-1].accuracy - 0.2
    assert [r.round for r in clean] == list(range(41))
    assert clean[-1].signal_to_noise == np.inf
    assert noisy[-1].signal_to_noise < 1


def test_training_is_the_same_to_the_last_bit_and_leaves_torch_alone():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    runs = [train(trainer(), np.full(10, 5.0)).results for _ in range(2)]
    assert runs[0] == runs[1]
    assert train(trainer(seed=2), np.full(10, 5.0)).results != runs[0]
    assert_array_equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_nodes_with_no_epsilon_take_no_part():
    made = trainer()
    epsilon = np.array([5.0] * 4 + [0.0] * 6)
    everyone = train(made, epsilon).results
    assert everyone[-1].n_nodes == 4
    only = FederatedTrainer(DATA, made.shards[:4], made.plan)
    assert train(only, epsilon[:4]).results == everyone


def test_per_sample_gradients_agree_with_plain_autograd():
    made = trainer()
    images, labels = (part[:5] for part in made.samples(0))
    ours = made.gradients[0].per_sample(made.first_parameters, images, labels).rows()
    for row in range(5):
        expected = plain_gradient(made, made.first_parameters, images[row], labels[row])
        assert_allclose(ours[row], expected, atol=1e-6)


def plain_gradient(made, flat, image, label):
    """The gradient of one sample by autograd, of a copy of the net."""
    made.gradients[0].load(flat)
    net = deepcopy(made.gradients[0].net)
    net.zero_grad()
    torch.nn.functional.cross_entropy(net(image[None]), label[None]).backward()
    return torch.cat([flatten_parameter(p.grad) for p in net.parameters()])


def test_clipping_bounds_every_row_and_leaves_short_ones():
    rows = torch.tensor([[3.0, 4.0], [0.03, 0.04], [0.0, 0.0], [1e30, 1e30]])
    clipped = Clipping(0.5)(rows.double()).numpy()
    assert (np.linalg.norm(clipped, axis=1) <= 0.5).all()
    assert_allclose(clipped[0], [0.3, 0.4], rtol=2e-5)
    assert_array_equal(clipped[1], rows.double()[1])
    assert_array_equal(clipped[2], [0.0, 0.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_never_passes_for_one_that_is(bad):
    clipped = Clipping(1.0)(torch.tensor([[bad, 1.0], [3.0, 4.0]]))
    assert not clipped[0].isfinite().any()
    assert clipped[1].isfinite().all()


@pytest.mark.parametrize(
    ("placement", "whole"), [("dp-sgd", False), ("update", True), ("paper", False)]
)
def test_no_replacement_moves_a_release_by_more_than_the_sensitivity(placement, whole):
    made = trainer(placement=placement, clipping_norm=0.1, learning_rate=1.0)
    claim = made.releases[0].sensitivity.l2
    before = sent(made, 0).clean
    largest = 0.0
    rng = np.random.default_rng(0)
    for _ in range(10):
        images, labels = made.samples(0)
        rows = slice(None) if whole else int(rng.integers(len(labels)))
        images[rows] = torch.from_numpy(rng.uniform(-50, 50, images[rows].shape).astype(np.float32))
        labels[rows] = (labels[rows] + 1 + int(rng.integers(9))) % 10
        neighbour = sent(made, 0, samples=(images, labels)).clean
        largest = max(largest, float((neighbour - before).norm()))
    assert 0.3 * claim < largest <= claim * (1 + 1e-5)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_the_noise_in_the_aggregate_is_the_noise_that_was_agreed(n_steps):
    made = trainer(n_nodes=4, n_steps=n_steps, learning_rate=0.1)
    epsilon = np.array([0.5, 1.0, 2.0, 20.0])
    privacy = made.privacy(epsilon)
    weights = np.full(4, 0.25)
    # the noise of a round: the weighted sum of the nodes', each added in every local step
    expected = 0.1 * np.sqrt(n_steps * (weights**2 * privacy.noise_std**2).sum())
    draws = []
    for round_index in range(1, 60):
        total = 0.0
        for node in range(4):
            noise = made.draws.draw_noise(float(privacy.noise_std[node]), round_index, node)
            total = total + 0.25 * sent(made, node, noise).noise
        draws.append(total.numpy())
    draws = np.concatenate(draws)
    assert draws.size > 100_000
    error = draws.std() / expected - 1
    assert abs(error) < 4.9 / np.sqrt(2 * draws.size)
    assert 4.9 / np.sqrt(2 * draws.size) < 0.03  # so a sigma that is 3 % wrong would be seen


def test_signal_to_noise_is_what_the_server_sees():
    made = trainer(n_nodes=4, rounds=1)
    epsilon = np.array([1.0, 1.0, 0.0, 5.0])
    std = made.privacy(epsilon).noise_std
    clean = sum(sent(made, node).clean for node in (0, 1, 3)) / 3
    noise = sum(made.draws.draw_noise(float(std[node]), 1, node)[0] for node in (0, 1, 3)) / 3
    ratio = train(made, epsilon).results[1].signal_to_noise
    assert_allclose(ratio, clean.norm() / noise.norm(), rtol=1e-4)


@pytest.mark.parametrize("placement", ["dp-sgd", "update"])
@pytest.mark.parametrize("n_steps", [1, 4])
def test_privacy_adds_up_as_the_horizon_says(placement, n_steps):
    epsilon = np.array([0.0, 0.5, 3.0, 40.0])
    for horizon in ("round", "training"):
        made = trainer(4, placement=placement, horizon=horizon, rounds=7, n_steps=n_steps)
        privacy = made.privacy(epsilon)
        releases = n_steps if placement == "dp-sgd" else 1
        exact = privacy.epsilon_per_round if horizon == "round" else privacy.epsilon_total
        assert_allclose(exact, epsilon, rtol=1e-9)
        assert (privacy.epsilon_total >= privacy.epsilon_per_round).all()
        assert_allclose(
            privacy.epsilon_total,
            spent_epsilon(privacy.noise_multiplier, 7 * releases, 1e-5),
        )


def test_aggregation_weights_by_hand():
    sizes, std = np.array([10.0, 30.0]), np.array([1.0, 2.0])
    weights = {name: AGGREGATIONS.create(name).weights(sizes, std) for name in AGGREGATIONS}
    assert_allclose(weights["uniform"], [0.5, 0.5])
    assert_allclose(weights["data-size"], [0.25, 0.75])
    assert_allclose(weights["inverse-variance"], [0.8, 0.2])
    silent = AGGREGATIONS.create("inverse-variance").weights(sizes, np.zeros(2))
    assert_allclose(silent, [0.25, 0.75])


def spoil_an_image(made, node):
    """Let a node's first image hold what is no number; other trainers have the same images."""
    made._images = made._images.clone()
    made._images[made.shards[node][0], 0, 0, 0] = np.nan


def test_a_training_that_breaks_down_names_round_and_node():
    made = trainer()
    spoil_an_image(made, 3)
    with pytest.raises(RunFailedError, match="in round 1: the update of node 3 is not finite"):
        train(made, np.full(10, 5.0))


def test_a_node_without_samples_is_refused():
    made = trainer()
    with pytest.raises(InvalidDataError, match="node 1 has no training samples"):
        FederatedTrainer(DATA, [np.array([1]), np.array([], dtype=int)], made.plan)


def by_hand(made, start, node, noise):
    """Train a node for a round as the definition says, with plain autograd and no shared code."""
    steps, placement = made.plan.steps, type(made.plan.placement).__name__
    weights, velocity = start.clone(), torch.zeros_like(start)

    for step in range(steps.epochs):
        rows = [
            plain_gradient(made, weights, image, label)
            for image, label in zip(*made.samples(node), strict=True)
        ]
        if placement in {"DpSgd", "Paper"}:
            rows = [g * min(1.0, steps.clipping.norm / float(g.norm())) for g in rows]
        mean = torch.stack(rows).mean(0)
        if placement == "DpSgd":
            mean = mean + noise[step]
        velocity = steps.momentum * velocity + mean
        weights = weights - steps.learning_rate * velocity
    update = weights - start
    if placement == "Paper":
        update = update - steps.learning_rate * noise[0]
    if placement == "Update":
        update = update * min(1.0, steps.clipping.norm / float(update.norm())) + noise[0]
    return update


@pytest.mark.parametrize(
    ("placement", "clipping_norm"), [("dp-sgd", 0.2), ("update", 0.02), ("paper", 0.2)]
)
def test_two_rounds_replayed_by_hand_give_the_same_parameters(
    placement, clipping_norm, monkeypatch
):
    made = trainer(
        60,
        placement=placement,
        n_steps=3,
        learning_rate=0.3,
        momentum=0.5,
        clipping_norm=clipping_norm,
    )
    epsilon = np.zeros(60)
    epsilon[[2, 7]] = [3.0, 8.0]
    drawn = {}
    draw = made.draws.draw_noise

    def spy(std, round_index, node):
        noise = draw(std, round_index, node)
        drawn[round_index, node] = (std, noise.clone())  # releases are made in its memory
        return noise

    monkeypatch.setattr(made.draws, "draw_noise", spy)
    training = made.begin()
    reached = [torch.from_numpy(training.state()["flat"])]
    while not training.over:
        training.step(epsilon)
        reached.append(torch.from_numpy(training.state()["flat"]))

    std = made.privacy(epsilon).noise_std
    assert sorted(drawn) == [(1, 2), (1, 7), (2, 2), (2, 7)]
    assert all(given == std[node] for (_, node), (given, _) in drawn.items())
    draws = torch.stack([noise.reshape(-1) for _, noise in drawn.values()])
    assert draws.corrcoef().fill_diagonal_(0).abs().max() < 0.1  # nothing is used twice
    for round_index in (1, 2):
        start = reached[round_index - 1]
        updates = [by_hand(made, start, n, drawn[round_index, n][1]) for n in (2, 7)]
        assert_allclose(reached[round_index], start + sum(updates) / 2, atol=5e-5)
        # and the noise is a visible part of it: without it this would fail
        clean = [by_hand(made, start, n, 0 * drawn[round_index, n][1]) for n in (2, 7)]
        assert (reached[round_index] - start - sum(clean) / 2).abs().max() > 1e-3


def test_a_unit_that_goes_moves_a_release_half_as_far_as_one_that_is_replaced():
    for placement in PLACEMENTS:
        made = PLACEMENTS.create(placement)
        gone, replaced = (
            made.releases(LocalSteps(1, 1.0, 0.0, Clipping(0.3)), 7, relation).sensitivity
            for relation in ("zero-out", "replace-one")
        )
        assert replaced.l2 == 2 * gone.l2
        assert (gone.relation, replaced.relation) == ("zero-out", "replace-one")


@pytest.mark.parametrize("placement", list(PLACEMENTS))
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_no_update_without_noise_reaches_beyond_its_bound(placement, momentum):
    made, steps = PLACEMENTS.create(placement), LocalSteps(4, 0.3, momentum, Clipping(0.01))
    bound = made.releases(steps, 5, "zero-out").max_update_norm
    for spread in (0.0, 1.0):  # all samples pull alike, or not

        def pull(flat, images, _, spread=spread):
            return torch.ones(len(images), len(flat)) + spread * torch.randn(len(images), len(flat))

        batches = [Batch(*torch.zeros(2, 5), divisor=5)] * 4
        sent = made.train(torch.zeros(9), batches, steps, GradientFunction(pull), None)
        size = float(sent.clean.norm())
        assert (0.999 if spread == 0 else 0.1) * bound < size <= bound


def test_the_papers_placement_is_a_heuristic_beyond_one_step():
    one = LocalSteps(1, 1.0, 0.0, Clipping(1.0))
    several = replace(one, epochs=5), replace(one, batch_size=10)
    caveat = {
        (name, steps): PLACEMENTS.create(name).releases(steps, 11, "zero-out").caveat
        for name in PLACEMENTS
        for steps in (one, replace(one, batch_size=11), *several)
    }
    assert all("not a guarantee" in caveat.pop(("paper", steps)) for steps in several)
    assert set(caveat.values()) == {""}


def test_with_one_step_the_papers_placement_is_dp_sgd():
    noise = torch.randn(1, trainer().n_parameters)
    one, other = (sent(trainer(placement=p), 0, noise) for p in ("dp-sgd", "paper"))
    assert torch.equal(one.clean, other.clean)
    assert torch.equal(one.noise, other.noise)


@pytest.mark.parametrize(("placement", "n_steps"), [("dp-sgd", 1), ("dp-sgd", 3), ("update", 3)])
def test_the_ledger_holds_round_by_round_what_the_noise_provided(placement, n_steps):
    made = trainer(4, placement=placement, n_steps=n_steps, rounds=3)
    epsilon = np.array([0.0, 0.5, 3.0, 40.0])
    training = made.begin()
    totals = [(training.round_index, training.ledger.epsilon(1e-5))]
    while not training.over:
        training.step(epsilon)
        totals.append((training.round_index, training.ledger.epsilon(1e-5)))
    privacy = made.privacy(epsilon)
    per_round = n_steps if placement == "dp-sgd" else 1
    assert [index for index, _ in totals] == [0, 1, 2, 3]
    assert (totals[0][1] == 0).all()
    for index, total in totals[1:]:
        expected = spent_epsilon(privacy.noise_multiplier, index * per_round, 1e-5)
        assert_allclose(total, expected, rtol=1e-12)
    assert_allclose(totals[-1][1], privacy.epsilon_total, rtol=1e-12)

    central = training.ledger.central_epsilon(1e-5)
    if per_round > 1:
        assert_array_equal(central, totals[-1][1])
    else:  # the sum over three rounds, with the noise of three nodes in it
        std, sensitivity = privacy.noise_std[1:], privacy.sensitivity[1:]
        noise = np.sqrt((std**2).sum()) / np.sqrt(3)
        assert_allclose(central[1:], gaussian_epsilon(noise, 1e-5, sensitivity), rtol=1e-9)
        assert (central[1:] < totals[-1][1][1:]).all()
    assert made.begin(private=False).ledger is None


def test_a_sampled_step_sums_over_the_sample_and_divides_by_its_expected_size():
    made = trainer(4, n_steps=2, sampling_rate=0.3, learning_rate=0.7, clipping_norm=0.2)
    steps, noise = made.plan.steps, torch.randn(2, made.n_parameters)
    ours = sent(made, 1, noise, stream(5, "batches", 1, 1))
    (images, labels), rng = made.samples(1), stream(5, "batches", 1, 1)
    flat = made.first_parameters.clone()
    for step in range(2):
        drawn = torch.from_numpy(rng.random(len(labels)) < 0.3)
        assert 0 < drawn.sum() < len(labels)
        gradients = made.gradients[0].per_sample(flat, images, labels).rows()[drawn]
        clipped = torch.stack([g * min(1.0, 0.2 / float(g.norm())) for g in gradients])
        flat = flat - 0.7 * (clipped.sum(0) / (0.3 * len(labels)) + noise[step])
    assert steps.epochs == 2
    assert_allclose(made.first_parameters + ours.clean + ours.noise, flat, atol=2e-6)


def test_an_empty_sample_sends_noise_alone():
    made = trainer(sampling_rate=1e-6, learning_rate=0.5)
    noise = torch.randn(1, made.n_parameters)
    alone = sent(made, 0, noise, stream(1, "batches", 1, 0))
    assert not alone.clean.any()
    assert_allclose(alone.noise, -0.5 * noise[0])


@pytest.mark.parametrize(("neighbours", "share"), [("replace-one", 2.0), ("zero-out", 1.0)])
def test_one_record_moves_a_sampled_step_by_the_sensitivity_at_most(neighbours, share):
    made = trainer(clipping_norm=0.1, sampling_rate=0.4, neighbours=neighbours)
    claim = made.privacy(np.ones(10)).sensitivity[0]
    assert_allclose(claim, share * 0.1 / (0.4 * len(made.shards[0])), rtol=1e-12)
    largest, rng, moved = 0.0, np.random.default_rng(0), 0
    real = made.gradients[0]
    made.gradients[0] = plain = GradientFunction(lambda *at: real.per_sample(*at).rows())
    for trial in range(20):
        before = sent(made, 0, None, stream(trial, "batches", 1, 0)).clean
        images, labels = made.samples(0)
        row = int(rng.integers(len(labels)))
        if neighbours == "replace-one":
            images[row] = torch.from_numpy(
                rng.uniform(-50, 50, images[row].shape).astype(np.float32)
            )
            labels[row] = (labels[row] + 5) % 10
            rng_of_step = stream(trial, "batches", 1, 0)
            after = sent(made, 0, None, rng_of_step, (images, labels)).clean
        else:  # a record that contributes nothing
            made.gradients[0] = GradientFunction(
                lambda flat, x, y, gone=images[row]: (
                    plain.function(flat, x, y) * (x != gone).any((1, 2, 3))[:, None]
                )
            )
            after = sent(made, 0, None, stream(trial, "batches", 1, 0)).clean
            made.gradients[0] = plain
        moved += int(not torch.equal(after, before))
        largest = max(largest, float((after - before).norm()))
    assert 0 < moved < 20  # a record that is not drawn moves nothing
    assert 0.3 * claim < largest <= claim * (1 + 1e-5)


def test_samples_are_fresh_in_each_round_and_node_and_leave_the_noise_alone(monkeypatch):
    made = trainer(3, rounds=40, n_steps=2, sampling_rate=0.25, horizon="training")
    seen, draw_batches = [], type(made.plan.placement).draw_batches

    def spy(self, *args):
        for rows in draw_batches(self, *args):
            seen.append(rows)
            yield rows

    monkeypatch.setattr(type(made.plan.placement), "draw_batches", spy)
    train(made, np.full(3, 5.0))
    assert len(seen) == 40 * 3 * 2
    n_samples = len(made.shards[0])
    taken = np.array([np.isin(np.arange(n_samples), rows) for rows in seen])
    # 4.9 standard errors: one false alarm in a million
    assert abs(taken.mean() - 0.25) < 4.9 * np.sqrt(0.25 * 0.75 / taken.size)
    counts = taken.sum(0)  # each record as often as any other
    assert stats.chi2.sf(((counts - 60) ** 2 / 45).sum(), n_samples) > 1e-6
    close = np.corrcoef(taken)[np.triu_indices(len(taken), 1)]
    assert np.abs(close).max() < 6.5 / np.sqrt(n_samples)
    whole = trainer(3, rounds=40, n_steps=2, horizon="training")
    assert torch.equal(made.draws.draw_noise(1.0, 3, 2), whole.draws.draw_noise(1.0, 3, 2))


def test_sampling_takes_a_smaller_multiplier_and_no_less_noise():
    epsilon = np.array([0.0, 0.5, 3.0, 40.0])
    for horizon in ("round", "training"):
        whole = trainer(4, horizon=horizon, rounds=6, n_steps=2).privacy(epsilon)
        part = trainer(4, horizon=horizon, rounds=6, n_steps=2, sampling_rate=0.2).privacy(epsilon)
        exact = part.epsilon_per_round if horizon == "round" else part.epsilon_total
        assert_allclose(exact, epsilon, rtol=1e-9)
        assert (part.noise_multiplier[1:] < whole.noise_multiplier[1:]).all()
        assert_allclose(part.sensitivity, whole.sensitivity / 0.2)
        assert (part.noise_std[1:] > 0.99 * whole.noise_std[1:]).all()


def test_only_a_placement_that_samples_takes_a_rate():
    rates = {name: PLACEMENTS.create(name).sampling_rate for name in PLACEMENTS}
    assert rates == dict.fromkeys(PLACEMENTS, 1.0)
    for wrong in (0.0, 1.5):
        with pytest.raises(OptionError, match="sampling_rate"):
            PLACEMENTS.create("dp-sgd", {"sampling_rate": wrong})
    with pytest.raises(OptionError, match="no such option"):
        PLACEMENTS.create("update", {"sampling_rate": 0.5})
    sampled = PLACEMENTS.create("dp-sgd", {"sampling_rate": 0.5})
    steps = LocalSteps(3, 0.3, 0.5, Clipping(0.2))
    most, whole = (
        placement.releases(steps, 9, "zero-out").max_update_norm
        for placement in (sampled, PLACEMENTS.create("dp-sgd"))
    )
    assert most == 2 * whole  # all records may be drawn
    with pytest.raises(InvalidPrivacyError, match="need a random generator"):
        sent(trainer(sampling_rate=0.5), 0)


@pytest.mark.parametrize("placement", list(PLACEMENTS))
def test_results_do_not_depend_on_the_number_of_workers(placement):
    epsilon = np.linspace(1.0, 30.0, 23)
    one, three = (
        trainer(23, placement=placement, n_steps=2, batch_size=16, rounds=3, workers=n)
        for n in (1, 3)
    )
    assert train(one, epsilon).results == train(three, epsilon).results


def test_an_epoch_takes_every_sample_once_in_batches_of_a_fresh_order():
    steps = LocalSteps(3, 1.0, 0.0, Clipping(1.0), batch_size=8)
    batches = list(steps.draw_batches(27, np.random.default_rng(0)))
    assert [len(rows) for rows in batches] == [8, 8, 8, 3] * 3
    assert len(batches) == steps.count_steps(27)
    epochs = [np.concatenate(batches[start : start + 4]) for start in (0, 4, 8)]
    for order in epochs:
        assert_array_equal(np.sort(order), np.arange(27))
    assert (epochs[0] != epochs[1]).any()
    whole = replace(steps, batch_size=27)
    assert list(whole.draw_batches(27, None)) == [slice(None)] * 3
    with pytest.raises(InvalidPrivacyError, match="need a random generator"):
        next(steps.draw_batches(27, None))


def test_batches_of_dp_sgd_replayed_by_hand():
    made = trainer(4, n_steps=2, batch_size=150, learning_rate=0.7, clipping_norm=0.2)
    images, labels = made.samples(1)
    assert len(labels) > 300  # three batches an epoch, the last one small
    noise = torch.randn(6, made.n_parameters)
    ours = sent(made, 1, noise, stream(5, "batches", 1, 1))
    flat, step = made.first_parameters.clone(), 0
    rng = stream(5, "batches", 1, 1)
    for _ in range(2):
        order = rng.permutation(len(labels))
        for start in (0, 150, 300):
            rows = order[start : start + 150]
            gradients = made.gradients[0].per_sample(flat, images[rows], labels[rows]).rows()
            clipped = torch.stack([g * min(1.0, 0.2 / float(g.norm())) for g in gradients])
            flat = flat - 0.7 * (clipped.sum(0) / 150 + noise[step])  # a small one too
            step += 1
    assert_allclose(made.first_parameters + ours.values, flat, atol=1e-5)


def test_a_record_is_part_of_one_release_an_epoch():
    epsilon = np.array([0.5, 3.0, 40.0, 0.0])
    whole, parts = (
        trainer(4, n_steps=3, batch_size=b, rounds=5, horizon="training").privacy(epsilon)
        for b in (None, 40)
    )
    assert_allclose(parts.noise_multiplier, whole.noise_multiplier)
    assert_allclose(parts.epsilon_total, epsilon, rtol=1e-9)
    sizes = np.array([len(rows) for rows in trainer(4).shards])
    assert_allclose(parts.sensitivity, 2 / 40)
    assert_allclose(whole.sensitivity, 2 / sizes)


def test_a_mean_gradient_is_the_mean_of_those_of_the_samples():
    made = trainer()
    at = made.first_parameters, *made.samples(0)
    assert_allclose(
        made.gradients[0].mean(*at), made.gradients[0].per_sample(*at).rows().mean(0), atol=1e-6
    )


@pytest.mark.parametrize(("net", "shape"), [("emnist-cnn", (1, 12, 9)), ("cifar-cnn", (3, 8, 10))])
def test_gradients_that_are_never_built_have_the_norms_and_sums_of_those_that_are(net, shape):
    gradients = NetGradients(NETS.create(net, {"width": 3}).build(shape, 5))
    images, labels = torch.randn(7, *shape), torch.randint(0, 5, (7,))
    found = gradients.per_sample(gradients.flat, images, labels)
    net = gradients.net
    rows = []
    for image, label in zip(images, labels, strict=True):
        loss = torch.nn.functional.cross_entropy(net(image[None]), label[None])
        rows.append(
            torch.cat(
                [flatten_parameter(g) for g in torch.autograd.grad(loss, list(net.parameters()))]
            )
        )
    rows = torch.stack(rows)
    factors = torch.rand(7, 1)
    assert_allclose(found.rows(), rows, atol=1e-6)
    assert_allclose(found.norms()[:, 0], rows.norm(dim=1), rtol=1e-5)
    assert_allclose(found.sum_weighted(factors), (factors * rows).sum(0), atol=1e-5)


@pytest.mark.parametrize(
    ("placement", "aggregation"), [("update", "uniform"), ("dp-sgd", "data-size")]
)
def test_noise_drawn_for_the_sum_has_the_distribution_of_the_sum(placement, aggregation):
    made = trainer(4, placement=placement, aggregation=aggregation, rounds=1, learning_rate=0.3)
    epsilon = np.array([0.5, 2.0, 9.0, 0.0])
    std, sizes = made.privacy(epsilon).noise_std[:3], made.n_samples[:3]
    weights = np.full(3, 1 / 3) if aggregation == "uniform" else sizes / sizes.sum()
    gain = 0.3 if placement == "dp-sgd" else 1.0
    expected = gain * np.sqrt(((weights * std) ** 2).sum())
    draws = []
    for seed in range(60):
        for noise_of in ("sum", "nodes"):
            plan = replace(made.plan, noise_of=noise_of, seed=seed)
            again = FederatedTrainer(DATA, made.shards, plan)
            noisy, clean = (
                train(again, epsilon, private=private).state()["flat"] for private in (True, False)
            )
            draws.append((noisy - clean) / expected)
    whole, single = np.concatenate(draws[::2]), np.concatenate(draws[1::2])
    for found in (whole, single):
        low, high = stats.chi2.interval(1 - 1e-6, found.size)
        assert low < (found.astype(float) ** 2).sum() < high
    assert stats.kstest(whole, "norm").pvalue > 1e-6
    assert np.abs(np.corrcoef(draws[::2])[np.triu_indices(60, 1)]).max() < 6 / np.sqrt(1898)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"false_alarm": 1e-6}, "the check inspects each node's upload"),
        ({"secure_noise": True}, "secure noise is drawn for each node"),
        ({"steps": LocalSteps(2, 1.0, 0.0, Clipping(1.0))}, "nodes add noise several times"),
    ],
)
def test_noise_of_the_sum_is_refused_where_it_has_another_distribution(changes, reason):
    made = trainer(4)
    with pytest.raises(InvalidPrivacyError, match=reason):
        FederatedTrainer(DATA, made.shards, replace(made.plan, noise_of="sum", **changes))


def test_a_placement_whose_releases_depend_on_the_number_of_samples_is_refused(monkeypatch):
    made = trainer(4)
    releases, smallest = type(made.plan.placement).releases, int(made.n_samples.min())

    def vary(self, steps, n_samples, relation):
        plan = releases(self, steps, n_samples, relation)
        return replace(plan, n_releases=1 if n_samples == smallest else 2)

    monkeypatch.setattr(type(made.plan.placement), "releases", vary)
    with pytest.raises(InvalidPrivacyError, match="from 1 to 2"):
        FederatedTrainer(DATA, made.shards, made.plan)


def test_a_net_that_mixes_samples_is_refused(monkeypatch):
    made = trainer(4)
    net = torch.nn.Sequential(
        torch.nn.BatchNorm2d(1, affine=False), torch.nn.Flatten(), torch.nn.Linear(64, 10)
    )
    monkeypatch.setattr(type(made.plan.net), "build", lambda *_: deepcopy(net))
    with pytest.raises(InvalidDataError, match=r"batch normalisation \(BatchNorm2d\) mixes"):
        FederatedTrainer(DATA, made.shards, made.plan)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("emnist-cnn", {"width": 3}), ("group-norm-cnn", {"width": 4, "groups": 2})],
)
def test_half_precision_is_close_and_leaves_32_bits_to_clip(kind, options):
    net = NETS.create(kind, options).build((1, 12, 12), 5)
    exact, coarse = NetGradients(deepcopy(net)), NetGradients(deepcopy(net), "bf16")
    images, labels = torch.randn(40, 1, 12, 12), torch.randint(0, 5, (40,))
    at = exact.flat, images, labels
    for one, other in (
        (exact.mean(*at), coarse.mean(*at)),
        (exact.per_sample(*at).rows(), coarse.per_sample(*at).rows()),
    ):
        assert other.dtype == torch.float32
        assert 0 < float((one - other).norm() / one.norm()) < 0.1
    factors = Clipping(0.1).factors(coarse.per_sample(*at).norms())
    clipped = coarse.per_sample(*at).rows() * factors
    assert float(clipped.double().norm(dim=1).max()) <= 0.1


def spike(d):
    """One large entry, and dust of which 32 bits lose every square."""
    row = torch.full((d,), 2.4e-4)
    row[0] = 1.0
    return row


@pytest.mark.parametrize("d", [1_898, 110_526, 1_000_000])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20, 1e37])
def test_no_row_is_long_enough_to_pass_for_a_shorter_one(d, scale):
    rows = torch.stack([spike(d), torch.ones(d), torch.randn(d)]) * scale
    for norm in (1e-3 * scale, 0.5 * scale, 1.0):
        clipped = Clipping(norm)(rows).double()
        finite = clipped.isfinite().all(dim=1)
        lengths = torch.linalg.vector_norm(clipped[finite], dim=1)
        assert (lengths <= norm).all()
        if scale < 1e37:
            assert finite.all()


def test_a_batch_that_is_never_built_is_clipped_as_closely():
    from fcfn_abm.training.gradients import Blocks, Matrix, Outer

    back, inputs, conv = torch.randn(1, 300), spike(2000)[None], torch.randn(1, 50_000)
    rows = Blocks((Outer(back, inputs), Matrix(conv)))
    steps = LocalSteps(1, 1.0, 0.0, Clipping(0.7))
    length = float(steps.sum_clipped(rows).double().norm())
    assert 0.7 * (1 - 2e-5) < length <= 0.7


@pytest.mark.parametrize("batch_size", [None, 40])
def test_the_sum_hides_only_nodes_that_add_noise_once_a_round(batch_size):
    made = trainer(4, batch_size=batch_size, rounds=2)
    ledger = train(made, np.array([0.5, 3.0, 20.0, 1.0])).ledger
    local, central = ledger.epsilon(1e-5), ledger.central_epsilon(1e-5)
    if batch_size is None:
        assert (central < local).all()
    else:  # later batches have seen the node's own noise
        assert_array_equal(central, local)


def test_noise_beyond_32_bits_is_refused_by_epsilon():
    made = trainer(4)
    made = FederatedTrainer(DATA, made.shards, replace(made.plan, calibration="classical"))
    with pytest.raises(InvalidPrivacyError, match="epsilon = 1e-45 of node 2 needs noise"):
        train(made, np.array([1.0, 1.0, 1e-45, 1.0]))


def test_a_training_is_stepped_until_it_is_over():
    training = trainer(rounds=2).begin()
    assert [r.round for r in training.results] == [training.round_index] == [0]
    for n_done in (1, 2):
        assert not training.over
        assert training.step(np.full(10, 5.0)) is training.results[n_done]
        assert training.round_index == n_done
    assert training.over
    with pytest.raises(RunFailedError, match="is over: all 2 rounds"):
        training.step(np.full(10, 5.0))
    assert len(training.results) == 3


def test_reports_may_change_in_place_from_round_to_round():
    epsilon, training = np.full(10, 5.0), trainer(rounds=2).begin()
    training.step(epsilon)
    epsilon[:5] = 0.0
    assert training.step(epsilon).n_nodes == 5
    assert_array_equal(training.ledger.n_releases, [1 + (node >= 5) for node in range(10)])


def test_every_node_has_to_report():
    training = trainer().begin()
    for wrong in (5.0, np.full(9, 5.0), np.full((1, 10), 5.0)):
        with pytest.raises(InvalidPrivacyError, match="epsilon must have one report per node"):
            training.step(wrong)
    assert training.round_index == 0


def test_results_of_a_training_that_breaks_down_stay():
    made = trainer(rounds=3)
    training = made.begin()
    training.step(np.full(10, 5.0))
    spoil_an_image(made, 3)
    with pytest.raises(RunFailedError, match="in round 2: the update of node 3 is not finite"):
        training.step(np.full(10, 5.0))
    assert [r.round for r in training.results] == [0, 1]
    assert not training.over


def test_trainings_of_one_trainer_do_not_affect_each_other():
    made, epsilon = trainer(), np.full(10, 5.0)
    alone = train(trainer(), epsilon)
    one, other = made.begin(), made.begin(private=False)
    while not one.over:
        one.step(epsilon)
        other.step(epsilon)
    assert one.results == alone.results
    assert other.results == train(trainer(), epsilon, private=False).results
    assert other.ledger is None
    assert_array_equal(one.ledger.epsilon(1e-5), alone.ledger.epsilon(1e-5))
