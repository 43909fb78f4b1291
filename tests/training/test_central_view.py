from dataclasses import replace

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_trainer import DATA, trainer
from whole_training import train

import fcfn_abm as fa
from fcfn_abm.dp import gaussian_epsilon
from fcfn_abm.errors import InvalidPrivacyError, InvalidScenarioError
from fcfn_abm.training import AGGREGATIONS, Chances, FederatedTrainer

pytestmark = pytest.mark.slow
DELTA = 1e-5
EPSILON = np.array([0.0, 0.5, 1.0, 3.0, 9.0, 30.0])


def central(aggregation="by-epsilon", chances=None, quorum=1.0, noise_of="nodes", **options):
    options = {"n_nodes": 6, "rounds": 5, "horizon": "training", **options}
    made = trainer(aggregation=aggregation, **options)
    plan = replace(
        made.plan,
        view="central",
        quorum=quorum,
        noise_of=noise_of,
        chances=chances or Chances(),
    )
    return FederatedTrainer(DATA, made.shards, plan)


def watch(made, monkeypatch):
    """Note what each round's nodes add, and with which weights."""
    rounds, work_of = [], made.engine.train_round

    def spy(work):
        rounds.append(work)
        return work_of(work)

    monkeypatch.setattr(made.engine, "train_round", spy)
    return rounds


def exact_epsilon(mu):
    """The epsilon of Gaussian noise by Balle and Wang's theorem 8, in fifty digits."""
    with mpmath.workdps(50):
        mu = mpmath.mpf(mu)

        def excess(epsilon):
            first = mpmath.ncdf(mu / 2 - epsilon / mu)
            second = mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu)
            return mpmath.log((first - second) / DELTA)

        return float(mpmath.findroot(excess, (0.01, 200), solver="anderson", maxsteps=200))


def spent_by_hand(made, rounds, node):
    """What the server learns of a node from sums: composed from the noise that was added."""
    sensitivity = {"dp-sgd": 2 / made.n_samples[node], "update": 2.0}
    name = "dp-sgd" if made.plan.placement.unit == "record" else "update"
    precision = 0.0
    for work in rounds:
        if node in work.nodes:
            variance = ((work.weights * work.noise_std[work.nodes]) ** 2).sum()
            own = work.weights[work.nodes == node][0] * sensitivity[name]
            precision += own**2 / variance
    return exact_epsilon(np.sqrt(precision))


@pytest.mark.parametrize("placement", ["dp-sgd", "update"])
def test_the_server_learns_of_each_node_exactly_what_it_sold(placement, monkeypatch):
    made = central(placement=placement)
    rounds = watch(made, monkeypatch)
    training = train(made, EPSILON)
    assert len(rounds) == 5
    found = [spent_by_hand(made, rounds, node) for node in range(1, 6)]
    assert_allclose(found, EPSILON[1:], rtol=1e-8)
    assert_allclose(training.ledger.central_epsilon(DELTA), EPSILON, rtol=1e-8)
    local = training.ledger.epsilon(DELTA)
    assert (local[1:] > 1.5 * EPSILON[1:]).all()  # who sees its messages learns more
    own = rounds[0].noise_std[1:] / made.privacy(EPSILON).sensitivity[1:]
    assert_allclose(local[1:], gaussian_epsilon(own / np.sqrt(5), DELTA), rtol=1e-9)
    # five nodes share the noise: each adds a root of five less than against its own observer
    assert_allclose(own * np.sqrt(5), made.privacy(EPSILON).noise_multiplier[1:], rtol=1e-12)


def test_it_agrees_with_dp_accounting():
    pld = pytest.importorskip("dp_accounting.pld")
    import dp_accounting

    made = central()
    sold = made.privacy(EPSILON)
    for node in (2, 4):
        event = dp_accounting.GaussianDpEvent(float(sold.noise_multiplier[node]))
        accountant = pld.PLDAccountant().compose(dp_accounting.SelfComposedDpEvent(event, 5))
        assert_allclose(accountant.get_epsilon(DELTA), EPSILON[node], rtol=1e-3)


@pytest.mark.parametrize("aggregation", [n for n in AGGREGATIONS if n != "by-epsilon"])
def test_other_weights_hide_everybody_as_sold_or_better(aggregation):
    made = central(aggregation)
    spent = train(made, EPSILON).ledger.central_epsilon(DELTA)
    assert (spent <= EPSILON * (1 + 1e-9)).all()
    # and no noise is wasted on all of them: for somebody it is just enough
    assert_allclose((spent[1:] / EPSILON[1:]).max(), 1, rtol=1e-8)
    assert (spent[1:] / EPSILON[1:]).min() < 0.9


@pytest.mark.parametrize("noise_of", ["nodes", "sum"])
def test_the_noise_in_the_net_is_the_noise_on_the_sum_that_was_agreed(noise_of, monkeypatch):
    made = central(noise_of=noise_of, placement="update", rounds=40, horizon="round")
    epsilon = np.array([1.0, 1.0, 2.0, 2.0, 4.0, 4.0])
    noises = []
    add_up = made.begin().__class__._add_up_uploads

    def spy(self, *args):
        sums = add_up(self, *args)
        noises.append((sums.update - sums.clean).numpy())
        return sums

    monkeypatch.setattr(made.begin().__class__, "_add_up_uploads", spy)
    train(made, epsilon)
    z = fa.gaussian_sigma(epsilon, DELTA)
    expected = 2.0 / (1 / z).sum()  # w_i Delta z_i, with w_i = (1 / z_i) / sum
    drawn = np.concatenate(noises)
    assert abs(drawn.std() / expected - 1) < 4.9 / np.sqrt(2 * drawn.size) < 0.02


@pytest.mark.parametrize("aggregation", ["by-epsilon", "uniform"])
def test_whoever_drops_out_the_noise_is_never_below_the_claim(aggregation, monkeypatch):
    chances = Chances(participation=0.9, dropping=0.2, straggling=0.2)
    made = central(aggregation, chances, quorum=0.6, rounds=40)
    rounds = watch(made, monkeypatch)
    training = made.begin()
    limit = made.plan.participation_limit
    z = made.privacy(EPSILON).noise_multiplier
    given_up = 0
    while not training.over:
        flat = training.state()["flat"]
        result = training.step(EPSILON)
        work = rounds[-1]
        if work.nodes.size == 0:
            assert result.n_nodes == 0
            assert_array_equal(training.state()["flat"], flat)
            given_up += (training.n_participations < limit).any()
            continue
        noise = np.sqrt(((work.weights * work.noise_std[work.nodes]) ** 2).sum())
        hidden = noise / (work.weights * made.privacy(EPSILON).sensitivity[work.nodes])
        assert (hidden >= z[work.nodes] * (1 - 1e-12)).all()
    assert given_up > 0  # it happened that too few arrived
    assert sum(work.nodes.size > 0 for work in rounds) > 5
    spent = training.ledger.central_epsilon(DELTA)
    assert (spent <= EPSILON * (1 + 1e-9)).all()
    # what is never opened is charged all the same
    assert (training.ledger.n_releases == training.n_participations).all()


def test_a_round_opens_with_a_quorum_and_with_one_node_less_does_not(monkeypatch):
    made = central(quorum=0.5, rounds=2)  # five have an epsilon: three must arrive
    arriving = iter([np.array([1, 3, 5]), np.array([1, 5])])

    def attend(able, _):
        return np.flatnonzero(able), next(arriving), np.array([4])

    monkeypatch.setattr(made.draws, "draw_attendance", attend)
    rounds = watch(made, monkeypatch)
    results = train(made, EPSILON).results
    assert [result.n_nodes for result in results[1:]] == [3, 0]
    assert rounds[1].nodes.size == 0
    assert results[2].loss == results[1].loss


def test_nodes_that_misreport_only_add_noise(monkeypatch):
    made = central()
    rounds = watch(made, monkeypatch)
    train(made, EPSILON)
    train(made, EPSILON, misreport=np.array([1, 1, 2, 1, 1, 1.0]))
    honest, lying = rounds[0].noise_std, rounds[5].noise_std
    sold = made.privacy(EPSILON).noise_std[2]
    expected = honest[2] * made.privacy(EPSILON / 2).noise_std[2] / sold
    assert_allclose(lying[2], expected, rtol=1e-12)
    assert_array_equal(np.delete(lying, 2), np.delete(honest, 2))


def test_sampled_records_are_hidden_by_the_sum_as_sold():
    pytest.importorskip("dp_accounting")
    made = central(sampling_rate=0.3, neighbours="zero-out")
    spent = train(made, EPSILON).ledger.central_epsilon(DELTA)
    assert_allclose(spent[1:], EPSILON[1:], rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n_steps": 2}, "nodes add noise several times per round"),
        ({"batch_size": 20}, "nodes add noise several times per round"),
    ],
)
def test_what_proves_nothing_about_a_sum_is_refused(change, reason):
    with pytest.raises(InvalidPrivacyError, match=reason):
        central(**change)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["privacy.secure_noise=true"], "secure_noise = true draws it for each node"),
        (["privacy.check.false_alarm=1e-6"], "tests each node's upload"),
        (["training.local_epochs=2"], "adds it in each local step"),
        (
            ["training.dropping=0.1"],
            r"share of 0\.9 of the .* with a quorum of 1; use a lower",
        ),
        (["privacy.quorum=0"], "quorum"),
        (["privacy.view=local", "privacy.quorum=0.5"], "requires view = 'central'"),
        (["privacy.view=server"], "'local' or 'central'"),
    ],
)
def test_scenarios_that_cannot_have_a_central_view_are_refused(overrides, message):
    with pytest.raises(InvalidScenarioError, match=message):
        fa.load_scenario("quickstart", ["privacy.view=central", *overrides])


def test_the_record_shows_both_epsilons():
    overrides = ["training.rounds=3", "privacy.view=central", "training.aggregation=by-epsilon"]
    record = fa.run_scenario(fa.load_scenario("quickstart", overrides))
    nodes = record.nodes[record.nodes["epsilon_total"] > 0]
    assert len(nodes) > 10
    assert_allclose(nodes["epsilon_central"], nodes["epsilon_sold"], rtol=1e-8)
    assert (nodes["epsilon_total"] > nodes["epsilon_central"]).all()
    last = record.ledger[record.ledger["round"] == 3]
    assert_allclose(last["epsilon_central"], nodes["epsilon_central"])
    assert_allclose(last["epsilon_total"], nodes["epsilon_total"])
    assert_allclose(last["epsilon_round"], nodes["epsilon_per_round"])
    facts = record.run["training"]
    assert "the updates of all nodes asked must arrive" in facts["central_note"]
    assert "Epsilon is sold in the central view" in facts["privacy_note"]
