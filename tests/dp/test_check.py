import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from fcfn_abm.dp import gaussian_sigma
from fcfn_abm.dp.check import as_factor, max_upload_norm, smallest_excess
from fcfn_abm.errors import InvalidPrivacyError

N_PARAMETERS, MAX_CLEAN_NORM = 200, 1.0


def norms(clean, std, count, seed=0):
    """Norms of uploads whose clean part was there before the noise."""
    rng = np.random.default_rng(seed)
    return np.linalg.norm(clean + std * rng.standard_normal((count, N_PARAMETERS)), axis=1)


def norms_along(std, count, seed=0):
    """Norms of uploads whose clean part lies along the noise: the worst that can be."""
    noise = std * np.random.default_rng(seed).standard_normal((count, N_PARAMETERS))
    return np.linalg.norm(noise, axis=1) + MAX_CLEAN_NORM


def clean_part(size):
    direction = np.random.default_rng(1).standard_normal(N_PARAMETERS)
    return size * direction / np.linalg.norm(direction)


def limits(rate, count):
    """Where a count of rare events lies but for one time in a million."""
    return stats.binom.interval(1 - 1e-6, count, rate)


@pytest.mark.parametrize("std", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("false_alarm", [0.05, 0.001])
def test_an_honest_node_is_longer_as_seldom_as_was_promised(std, false_alarm):
    count = 20_000
    longest = max_upload_norm(N_PARAMETERS, std, MAX_CLEAN_NORM, false_alarm)
    low, high = limits(false_alarm, count)
    worst = (norms(clean_part(MAX_CLEAN_NORM), std, count) > longest).sum()
    assert low <= worst <= high  # the bound is met where the clean part is as long as it can be
    for size in (0.0, 0.5 * MAX_CLEAN_NORM):
        assert (norms(clean_part(size), std, count) > longest).sum() <= high


@pytest.mark.parametrize("std", [0.01, 0.1, 1.0])
def test_several_releases_are_safe_even_if_the_clean_part_follows_the_noise(std):
    count, false_alarm = 20_000, 0.05
    longest = max_upload_norm(N_PARAMETERS, std, MAX_CLEAN_NORM, false_alarm, n_releases=2)
    low, high = limits(false_alarm, count)
    assert low <= (norms_along(std, count) > longest).sum() <= high
    # where the bound for one release would not be
    alone = max_upload_norm(N_PARAMETERS, std, MAX_CLEAN_NORM, false_alarm)
    assert (norms_along(std, count) > alone).sum() > high


@pytest.mark.parametrize("n_releases", [1, 3])
@pytest.mark.parametrize("std", [0.1, 1.0])
def test_the_smallest_excess_is_found_out_as_often_as_was_promised(std, n_releases):
    count, false_alarm = 20_000, 1e-6
    excess = smallest_excess(N_PARAMETERS, std, MAX_CLEAN_NORM, false_alarm, n_releases)
    longest = max_upload_norm(N_PARAMETERS, std, MAX_CLEAN_NORM, false_alarm, n_releases)
    hardest = norms(0.0, excess * std, count) - (MAX_CLEAN_NORM if n_releases > 1 else 0.0)
    low, high = limits(0.99, count)
    assert low <= (hardest > longest).sum() <= high
    if n_releases == 1:
        assert (norms(clean_part(MAX_CLEAN_NORM), excess * std, count) > longest).mean() > 0.99


def test_the_quantile_agrees_with_the_chi_square_where_nothing_is_hidden():
    longest = max_upload_norm(1000, 2.0, 1e-9, 1e-8)
    assert_allclose(longest, 2.0 * np.sqrt(stats.chi2.isf(1e-8, 1000)), rtol=1e-9)


def test_next_to_no_noise_hides_everything_and_nobody_is_flagged():
    std = np.geomspace(1.0, 1e-300, 400)
    longest = max_upload_norm(1000, std, MAX_CLEAN_NORM, 1e-8)
    assert np.isfinite(longest).all()
    assert (longest > MAX_CLEAN_NORM * (1 - 1e-12)).all()
    assert_allclose(longest[10:], MAX_CLEAN_NORM, rtol=1e-4)
    assert max_upload_norm(1000, np.inf, MAX_CLEAN_NORM, 1e-8) == np.inf


def test_more_parameters_tell_more():
    excess = [
        float(smallest_excess(d, 0.3, MAX_CLEAN_NORM, 1e-8)) for d in (100, 1_000, 10_000, 100_000)
    ]
    assert (np.diff(excess) < 0).all()
    # with much noise and many parameters: (z of the false alarm + z of the power) / sqrt(2 d)
    expected = (stats.norm.isf(1e-8) + stats.norm.isf(0.01)) / np.sqrt(2e5)
    assert_allclose(excess[-1] - 1, expected, rtol=0.02)


def test_an_excess_is_a_factor_of_epsilon():
    epsilon, factor = np.array([0.1, 1.0, 10.0, 98.0]), 1.5
    excess = gaussian_sigma(epsilon / factor, 1e-5) / gaussian_sigma(epsilon, 1e-5)
    assert_allclose(as_factor(excess, epsilon, 1e-5), factor, rtol=1e-9)
    assert as_factor(1e6, 1.0, 1e-5) == np.inf


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: max_upload_norm(10, 0.0, 1.0, 0.1), "noise_std must be positive"),
        (lambda: max_upload_norm(10, np.nan, 1.0, 0.1), "noise_std must be positive"),
        (lambda: max_upload_norm(0, 1.0, 1.0, 0.1), "n_parameters must be a whole number"),
        (lambda: max_upload_norm(10, 1.0, -1.0, 0.1), "max_clean_norm must be positive"),
        (lambda: max_upload_norm(10, 1.0, 1.0, 0.1, 1.5), "n_releases must be a whole number"),
        (lambda: max_upload_norm(10, 1.0, 1.0, 1.0), "false_alarm must lie between 0 and 1"),
        (lambda: smallest_excess(10, 1.0, 1.0, 0.1, power=1.0), "power must lie between 0 and 1"),
    ],
)
def test_numbers_outside_their_range_are_refused_by_the_check(call, words):
    with pytest.raises(InvalidPrivacyError, match=words):
        call()
