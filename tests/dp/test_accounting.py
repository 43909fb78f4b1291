import sys

import dp_accounting
import numpy as np
import pytest
from dp_accounting import NeighboringRelation, pld, rdp
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from fcfn_abm.dp import (
    gaussian_epsilon,
    gaussian_sigma,
    multiplier_for_releases,
    spent_epsilon,
    spent_epsilon_of_runs,
)
from fcfn_abm.dp.noise import node_noise
from fcfn_abm.errors import InvalidPrivacyError, MissingExtraError

RELATIONS = ["zero-out", "replace-one"]


def by_pld(multiplier, n_releases, rate, neighbours, interval=1e-4, delta=1e-5):
    """Sampled releases through dp-accounting, whose noise counts in clipping norms."""
    replaced = neighbours == "replace-one"
    loss = privacy_loss_distribution.from_gaussian_mechanism(
        2 * multiplier if replaced else multiplier,
        sampling_prob=rate,
        value_discretization_interval=interval,
        neighboring_relation=(
            NeighboringRelation.REPLACE_ONE if replaced else NeighboringRelation.REPLACE_SPECIAL
        ),
    )
    return loss.self_compose(n_releases).get_epsilon_for_delta(delta)


@pytest.mark.parametrize(("multiplier", "n_releases"), [(1.3, 1), (2.0, 10), (17.0, 200)])
def test_composition_agrees_with_dp_accounting(multiplier, n_releases):
    event = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(multiplier), n_releases)
    ours = spent_epsilon([multiplier], n_releases, 1e-5)[0]
    numeric = pld.PLDAccountant(value_discretization_interval=1e-4).compose(event)
    assert_allclose(ours, numeric.get_epsilon(1e-5), rtol=2e-3)
    assert ours <= rdp.RdpAccountant().compose(event).get_epsilon(1e-5)


def test_releases_together_spend_what_was_agreed():
    epsilon = np.array([0.0, 0.3, 2.0, 98.0])
    multiplier = multiplier_for_releases(epsilon, 1e-5, 40)
    assert_allclose(spent_epsilon(multiplier, 40, 1e-5), epsilon, rtol=1e-9)
    assert multiplier[0] == np.inf
    assert_allclose(multiplier[1:], np.sqrt(40) * gaussian_sigma(epsilon[1:], 1e-5))


@given(multiplier=st.floats(0.1, 100.0), n_releases=st.integers(1, 10_000))
def test_exact_composition_lies_below_the_bound_of_zcdp(multiplier, n_releases):
    zcdp_rho = n_releases / multiplier**2 / 2
    bound = zcdp_rho + 2 * np.sqrt(zcdp_rho * np.log(1e5))
    assert spent_epsilon([multiplier], n_releases, 1e-5)[0] < bound


@pytest.mark.parametrize("neighbours", RELATIONS)
@pytest.mark.parametrize(
    ("multiplier", "n_releases", "rate"),
    [(0.4, 1, 0.1), (0.83, 200, 0.1), (3.7, 40, 0.5), (21.0, 333, 0.02), (0.9, 11, 0.99)],
)
def test_sampled_releases_cost_what_dp_accounting_says_and_never_less(
    multiplier, n_releases, rate, neighbours
):
    ours = spent_epsilon([multiplier], n_releases, 1e-5, rate, neighbours)[0]
    numeric = by_pld(multiplier, n_releases, rate, neighbours)
    assert numeric < ours < 1.005 * numeric
    assert ours <= spent_epsilon([multiplier], n_releases, 1e-5)[0]


@pytest.mark.slow
@pytest.mark.parametrize("neighbours", RELATIONS)
def test_thousands_of_sampled_nodes_are_calibrated_and_none_gets_too_little_noise(neighbours):
    epsilon = np.geomspace(0.1, 60.0, 3000)
    multiplier = multiplier_for_releases(epsilon, 1e-5, 50, "analytic", 0.2, neighbours)
    assert np.isfinite(multiplier).sum() == 3000
    assert (np.diff(multiplier) < 0).all()
    assert (multiplier < multiplier_for_releases(epsilon, 1e-5, 50)).all()
    for node in range(0, 3000, 150):
        truly = by_pld(multiplier[node], 50, 0.2, neighbours, interval=epsilon[node] / 2e4)
        assert 0.996 * epsilon[node] < truly <= epsilon[node]
    assert_allclose(
        spent_epsilon(multiplier, 50, 1e-5, 0.2, neighbours), epsilon, rtol=1e-9
    )  # one table, read in both directions


RATES = st.sampled_from([0.05, 0.3, 0.9])
COUNTS = st.sampled_from([1, 4, 5, 9])
FEW = settings(max_examples=40, deadline=None)


@pytest.mark.slow
@FEW
@given(z=st.floats(0.3, 8), more=st.floats(1.0, 2.0), rate=RATES, n=COUNTS)
def test_more_noise_costs_less(z, more, rate, n):
    less, most = spent_epsilon([z * more, z], n, 1e-5, rate)
    assert less <= most * (1 + 1e-9)


@pytest.mark.slow
@FEW
@given(z=st.floats(0.3, 8), rates=st.tuples(RATES, RATES), counts=st.tuples(COUNTS, COUNTS))
def test_more_rounds_and_larger_samples_cost_more(z, rates, counts):
    def spent(rate, n):
        return spent_epsilon([z], n, 1e-5, rate)[0]

    slack = 1 + 1e-9
    assert spent(rates[0], min(counts)) <= spent(rates[0], max(counts)) * slack
    assert spent(min(rates), counts[0]) <= spent(max(rates), counts[0]) * slack
    assert spent(max(rates), counts[0]) <= spent(1.0, counts[0]) * slack


def test_an_epsilon_beyond_the_tables_falls_back_on_what_is_always_enough():
    huge = np.array([100.0, 1e5, 1e9])
    multiplier = multiplier_for_releases(huge, 1e-5, 2, sampling_rate=0.3)
    assert (np.diff(multiplier) < 0).all()
    assert (multiplier <= multiplier_for_releases(huge, 1e-5, 2)).all()
    assert (spent_epsilon(multiplier, 2, 1e-5, 0.3) <= huge * (1 + 1e-9)).all()
    assert spent_epsilon([1e-4], 2, 1e-5, 0.3) == spent_epsilon([1e-4], 2, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("neighbours", RELATIONS)
@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.5, 1 - 2**-53])
@pytest.mark.filterwarnings("error")
def test_noise_beyond_the_tables_is_never_too_little(rate, neighbours):
    epsilon = np.array([1e-300, 1e-18, 1e-9, 1e-6, 1e-3, 1.0])
    for n_releases in (1, 40):
        z = multiplier_for_releases(epsilon, 1e-5, n_releases, "analytic", rate, neighbours)
        alone = multiplier_for_releases(epsilon, 1e-5, n_releases)
        assert (z <= alone).all()
        assert (np.diff(z) <= 0).all()
        most = multiplier_for_releases([1e12], 1e-5, n_releases, "analytic", rate, neighbours)
        assert most == multiplier_for_releases([1e12], 1e-5, n_releases)
        z = np.array([1e-3, 1e9, 1e15, 1e300])
        spent = spent_epsilon(z, n_releases, 1e-5, rate, neighbours)
        assert (spent <= spent_epsilon(z, n_releases, 1e-5) + 1e-12).all()
        assert (spent >= 0).all()


def test_no_pair_of_records_is_distinguished_better_than_by_the_worst_pair():
    """Replaced records in two dimensions, one sampled release, integrated on a grid."""
    rate, multiplier, delta = 0.3, 0.6, 1e-4
    epsilon = spent_epsilon([multiplier], 1, delta, rate, "replace-one")[0]
    std = 2 * multiplier  # in clipping norms
    axis = np.linspace(-8, 8, 801) * std
    x, y = np.meshgrid(axis, axis)

    def density(u):
        gauss = [np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * std**2)) for a, b in ((0, 0), u)]
        return ((1 - rate) * gauss[0] + rate * gauss[1]) / (2 * np.pi * std**2)

    def told_apart(u, v):
        excess = np.maximum(density(u) - np.exp(epsilon) * density(v), 0)
        return excess.sum() * (axis[1] - axis[0]) ** 2

    assert 0.97 * delta < told_apart((1, 0), (-1, 0)) <= delta
    rng = np.random.default_rng(0)
    for angle, *lengths in rng.uniform([0, 0.2, 0.2], [2 * np.pi, 1, 1], (30, 3)):
        u = lengths[0] * np.array([np.cos(angle), np.sin(angle)])
        assert told_apart(u, (-lengths[1], 0)) < delta


def test_accounting_for_samples_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(MissingExtraError, match="needs dp-accounting, which is not installed"):
        spent_epsilon([1.2345], 1, 1e-5, 0.12345)
    assert spent_epsilon([1.2345], 1, 1e-5) > 0


@pytest.mark.parametrize(
    ("n_releases", "rate", "words"),
    [
        (0, 1.0, "n_releases must be a whole number of at least 1, but is 0"),
        ([3, -1], 1.0, "n_releases must be a whole number of at least 1, but is -1"),
        (1.5, 1.0, "n_releases must be a whole number of at least 1, but is 1.5"),
        (2.0, 1.0, "n_releases must be a whole number of at least 1, but is 2.0"),
        (True, 1.0, "n_releases must be a whole number of at least 1, but is True"),
        (1, 0.0, "sampling_rate must be from 1e-06 to 1, but is 0"),
        (1, 1e-308, "sampling_rate must be from 1e-06 to 1"),
        (1, 1.5, "sampling_rate must be from 1e-06 to 1"),
    ],
)
def test_counts_and_rates_outside_their_range_are_refused(n_releases, rate, words):
    with pytest.raises(InvalidPrivacyError, match=words):
        spent_epsilon([1.0, 1.0], n_releases, 1e-5, rate)


@pytest.mark.parametrize("door", [spent_epsilon, multiplier_for_releases])
def test_no_door_of_accounting_takes_an_unknown_relation_or_a_delta_that_is_none(door):
    with pytest.raises(
        InvalidPrivacyError, match="must be 'replace-one' or 'zero-out', but is 're"
    ):
        door([1.0], n_releases=1, delta=1e-5, neighbours="replace_one")
    for delta in (0.0, 1.0, np.nan, -1e-5):
        with pytest.raises(InvalidPrivacyError, match="delta must lie between 0 and 1"):
            door([], n_releases=1, delta=delta)


@pytest.mark.parametrize("wrong", [np.nan, -1.0, np.inf])
def test_an_epsilon_that_nobody_can_agree_to_gets_no_multiplier(wrong):
    with pytest.raises(InvalidPrivacyError, match=r"epsilon\[1\]"):
        multiplier_for_releases([1.0, wrong], 1e-5, 3)


@pytest.mark.parametrize("wrong", [np.nan, -1.0, -np.inf, 0.0])
def test_a_multiplier_that_is_none_does_not_pass_for_no_release(wrong):
    with pytest.raises(InvalidPrivacyError, match="noise_multiplier"):
        spent_epsilon([1.0, wrong], 3, 1e-5)


def test_a_calibration_is_checked_even_where_nobody_releases_anything():
    with pytest.raises(InvalidPrivacyError, match="must be 'analytic' or 'classical'"):
        multiplier_for_releases([0.0], 1e-5, 1, calibration="exact")


@pytest.mark.parametrize("neighbours", ["zero-out", "replace-one"])
def test_a_record_that_is_hardly_ever_drawn_spends_nothing(neighbours):
    # drawn in one of four releases with a probability of 4e-6, less than delta; of 40 with more
    few, many = (spent_epsilon([0.1], n, 1e-5, 1e-6, neighbours) for n in (4, 40))
    assert few == 0 < many
    for n, spends in ((9, False), (11, True)):  # 1 - (1 - 1e-6)^n against 1e-5
        assert (spent_epsilon([0.05], n, 1e-5, 1e-6, neighbours) > 0) == spends


def compose(runs, rate, neighbours, delta):
    """What dp-accounting finds, on a grid of its own and in its own order."""
    replaced = neighbours == "replace-one"
    relation = NeighboringRelation.REPLACE_ONE if replaced else NeighboringRelation.REPLACE_SPECIAL
    accountant = pld.PLDAccountant(relation, 1e-4)
    for multiplier, n in runs:
        noise = dp_accounting.GaussianDpEvent(multiplier * (2 if replaced else 1))
        accountant.compose(dp_accounting.PoissonSampledDpEvent(rate, noise), n)
    return accountant.get_epsilon(delta)


@pytest.mark.parametrize("neighbours", ["zero-out", "replace-one"])
@pytest.mark.parametrize(
    "runs",
    [
        [(0.7, 1), (4.0, 39)],
        [(2.0, 5), (1.0, 5), (2.0, 5)],  # a multiplier may come back
        [(3.0, 2), (3.1, 2), (3.2, 2), (3.3, 2)],
    ],
)
def test_sampled_releases_of_changing_noise_are_composed(runs, neighbours):
    ours = spent_epsilon_of_runs(runs, 1e-5, 0.1, neighbours)
    assert 0.9995 < ours / compose(runs, 0.1, neighbours, 1e-5) < 1.005  # that rounds up as well


def test_many_different_multipliers_are_charged_a_little_more_and_never_less():
    runs = [(2.0 * 1.03**i, 1) for i in range(9)]
    ours = spent_epsilon_of_runs(runs, 1e-5, 0.1)
    assert 1 <= ours / compose(runs, 0.1, "zero-out", 1e-5) < 1.08


def test_without_sampling_runs_add_up_in_closed_form():
    found = spent_epsilon_of_runs([(3.0, 9), (2.0, 4)], 1e-5, 1.0)
    assert_allclose(found, gaussian_epsilon(2**-0.5, 1e-5), rtol=1e-12)
    assert spent_epsilon_of_runs([], 1e-5, 0.5) == 0


def test_noise_follows_its_distribution_and_no_two_streams_are_alike():
    draws = [
        node_noise(200_000, 0.7, 5, round_index, node).numpy()
        for round_index in (1, 2)
        for node in (0, 1)
    ]
    for noise in draws:
        # 4.9 standard errors: one false alarm in a million
        assert abs(noise.std() / 0.7 - 1) < 4.9 / np.sqrt(2 * noise.size)
        assert abs(noise.mean()) < 4.9 * 0.7 / np.sqrt(noise.size)
        assert stats.kstest(noise / 0.7, "norm").pvalue > 1e-6
    correlation = np.corrcoef(draws)[np.triu_indices(4, 1)]
    assert np.abs(correlation).max() < 5.2 / np.sqrt(200_000)
    assert_array_equal(node_noise(9, 0.7, 5, 1, 0), draws[0][:9])
