import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld, rdp
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from fcfn_abm.dp import gaussian_sigma, multiplier_for_releases, spent_epsilon
from fcfn_abm.dp.noise import node_noise
from fcfn_abm.errors import InvalidPrivacyError


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


def test_a_release_less_than_one_is_refused():
    with pytest.raises(InvalidPrivacyError, match="n_releases must be at least 1"):
        spent_epsilon([1.0], 0, 1e-5)


def test_noise_follows_its_law_and_no_two_streams_are_alike():
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
