import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy import stats

from fcfn_abm.dp import gaussian_epsilon
from fcfn_abm.dp.noise import release_grid, secure_noise
from fcfn_abm.errors import InvalidPrivacyError, MissingExtraError

STD, SIZE = 0.37, 100_000


def test_secure_noise_has_the_spread_and_the_shape_that_were_asked_for():
    for grid in (2.0**-30, 2.0**-7):
        noise = secure_noise(SIZE, STD, grid).numpy()
        # one false alarm in a million
        squares = (noise**2).sum() / STD**2
        low, high = stats.chi2.interval(1 - 1e-6, SIZE)
        assert low < squares < high
        assert high / SIZE < 1.03  # so a sigma that is 1.5 % wrong would be seen
        assert abs(noise.mean()) < 4.9 * STD / np.sqrt(SIZE)
        # half a step to either side makes a lattice continuous
        spread = noise + grid * np.random.default_rng(0).uniform(-0.5, 0.5, SIZE)
        assert stats.kstest(spread / STD, "norm").pvalue > 1e-6


def test_on_a_coarse_grid_the_distribution_is_the_discrete_gaussian():
    noise = secure_noise(SIZE, 1.5, 1.0).numpy()
    support = np.arange(-6, 7)
    weight = np.exp(-(support**2) / (2 * 1.5**2))
    seen = np.array([(noise == k).sum() for k in support])
    rest = SIZE - seen.sum()
    assert rest < 20
    expected = weight / weight.sum() * seen.sum()
    assert stats.chisquare(seen, expected).pvalue > 1e-6
    rounded = np.diff(stats.norm.cdf(np.arange(-6.5, 7), scale=1.5)) * seen.sum()
    assert stats.chisquare(seen, rounded * seen.sum() / rounded.sum()).pvalue < 1e-3


def test_secure_noise_lies_on_its_grid_and_never_comes_twice():
    grid = release_grid(0.05, 1000)
    one, other = (secure_noise(1000, STD, grid) for _ in range(2))
    assert one.dtype == torch.float64
    assert_array_equal(one / grid, (one / grid).round())
    assert (one != other).double().mean() > 0.99
    assert abs(np.corrcoef(one, other)[0, 1]) < 5.2 / np.sqrt(1000)


@pytest.mark.parametrize("sensitivity", [1e-6, 0.028, 1.0, 300.0])
@pytest.mark.parametrize("size", [1, 1797, 10**6])
def test_rounding_to_the_grid_costs_a_millionth_of_the_sensitivity_at_most(sensitivity, size):
    grid = release_grid(sensitivity, size)
    assert np.log2(grid) == round(np.log2(grid))
    assert 2.0**-22 * sensitivity < grid * np.sqrt(size) <= 2.0**-20 * sensitivity


def test_the_bound_on_rounding_is_the_one_that_opendp_proves():
    dp = pytest.importorskip("opendp.prelude")
    dp.enable_features("contrib")
    size, sensitivity, std = 400, 0.7, 0.2
    grid = 2.0**-12
    space = dp.vector_domain(dp.atom_domain(T=float, nan=False), size=size), dp.l2_distance(T=float)
    proven = dp.m.make_gaussian(*space, scale=std, k=-12).map(sensitivity)
    ours = ((sensitivity + grid * np.sqrt(size)) / std) ** 2 / 2
    assert ours == pytest.approx(proven, rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.5, 5.0, 50.0])
def test_discrete_noise_has_the_epsilon_of_continuous_noise(epsilon):
    # delta by summing over the grid, 1-D, on grids far coarser than ours
    for steps in (50, 200):
        shift = int(steps * np.sqrt(2 * epsilon)) // 4
        near = gaussian_epsilon(float(steps), 1e-5, float(max(shift, 1)))
        k = np.arange(-40 * steps, 40 * steps)
        law = np.exp(-((k / steps) ** 2) / 2)
        other = np.exp(-(((k - shift) / steps) ** 2) / 2)
        gains = (law - np.exp(near) * other) / law.sum()
        delta = gains[gains > 0].sum()
        off = near - gaussian_epsilon(float(steps), delta, float(max(shift, 1)))
        assert abs(off) < 20 / steps**2


def test_noise_too_wide_for_its_grid_is_refused():
    with pytest.raises(InvalidPrivacyError, match="epsilon is too small"):
        secure_noise(3, 1e20, 1.0)


def test_without_opendp_secure_noise_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opendp", None)
    with pytest.raises(MissingExtraError, match=r"fcfn-abm\[secure\]"):
        secure_noise(3, 1.0, 0.5)
