import mpmath as mp
import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fcfn_abm.dp import gaussian_delta, gaussian_epsilon, gaussian_sigma
from fcfn_abm.errors import InvalidPrivacyError

EPSILONS = np.geomspace(1e-3, 1e3, 13)
DELTAS = [1e-12, 1e-8, 1e-5, 1e-2]


def exact_delta(epsilon, sigma):
    """Balle and Wang 2018, Theorem 8, with 60 digits."""
    with mp.workdps(60):
        epsilon, mu = mp.mpf(epsilon), 1 / mp.mpf(sigma)
        u = epsilon / mu - mu / 2
        return mp.ncdf(-u) - mp.exp(epsilon) * mp.ncdf(-u - mu)


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_sigma_is_exact_to_twelve_digits(epsilon, delta):
    sigma = gaussian_sigma(epsilon, delta)
    assert (
        exact_delta(epsilon, sigma * (1 - 1e-12))
        > delta
        > exact_delta(epsilon, sigma * (1 + 1e-12))
    )


@pytest.mark.parametrize("delta", DELTAS)
def test_sigma_agrees_with_dp_accounting(delta):
    for epsilon in EPSILONS[2:]:
        loss = GaussianPrivacyLoss(gaussian_sigma(epsilon, delta))
        assert_allclose(loss.get_delta_for_epsilon(epsilon), delta, rtol=1e-9)


def test_delta_agrees_with_many_digits():
    for epsilon in EPSILONS:
        for sigma in (0.03, 0.5, 1.0, 7.0):
            expected = float(exact_delta(epsilon, sigma))
            if expected > 1e-300:
                assert_allclose(gaussian_delta(epsilon, sigma), expected, rtol=1e-9)


@pytest.mark.parametrize("sigma", [1e2, 1e4, 1e8, 1e12])
def test_delta_of_much_noise_does_not_cancel(sigma):
    for tail in (0.01, 1.0, 6.0):  # how far into the tail epsilon lies
        expected = float(exact_delta(tail / sigma, sigma))
        assert_allclose(gaussian_delta(tail / sigma, sigma), expected, rtol=1e-12)


FAR_EPSILONS = [0.0, 1e-300, 1e-30, 1e-12, 1e-6, 1e6, 1e9, 1e12, 1e30, 1e150, 1e300]
FAR_DELTAS = [5e-324, 1e-300, 1e-100, 1e-12, 1e-2, 0.5, 0.99, 1 - 1e-10, 1 - 2**-53]


def test_nothing_overflows_or_gets_lost_far_outside():  # pytest turns warnings into errors
    epsilon, delta = np.meshgrid(FAR_EPSILONS, FAR_DELTAS)
    sigma = gaussian_sigma(epsilon, delta)
    assert (sigma > 0).all()
    assert (sigma[1:] <= sigma[:-1] * (1 + 1e-12)).all()
    assert (sigma[:, 1:] <= sigma[:, :-1] * (1 + 1e-12)).all()
    assert np.isfinite(sigma[1:]).all()
    with np.errstate(all="raise"):
        gaussian_sigma(epsilon[:, 1:], delta[:, 1:], calibration="classical")
        true = gaussian_epsilon(np.geomspace(1e-300, 1e300, 61)[:, None], FAR_DELTAS)
    assert (true >= 0).all()
    assert (true[1:] <= true[:-1]).all()
    known = (epsilon >= 1e-6) & (delta <= 0.5) & np.isfinite(sigma)
    back = gaussian_epsilon(sigma[known], delta[known])
    assert_allclose(back, epsilon[known], rtol=1e-9)
    ends = gaussian_delta(np.array(FAR_EPSILONS)[:, None], np.geomspace(1e-300, 1e300, 61))
    assert ((ends >= 0) & (ends <= 1)).all()


@pytest.mark.parametrize(("epsilon", "delta"), [(1e6, 1e-5), (1e12, 1e-12), (1e-12, 1e-12)])
def test_sigma_stays_exact_far_outside(epsilon, delta):
    sigma = gaussian_sigma(epsilon, delta)
    assert (
        exact_delta(epsilon, sigma * (1 - 1e-9)) > delta > exact_delta(epsilon, sigma * (1 + 1e-9))
    )


@given(
    epsilon=st.floats(1e-3, 1e3),
    delta=st.floats(1e-12, 1e-2),
    sensitivity=st.floats(1e-3, 1e3),
)
def test_epsilon_and_sigma_undo_each_other(epsilon, delta, sensitivity):
    sigma = gaussian_sigma(epsilon, delta, sensitivity)
    assert_allclose(gaussian_epsilon(sigma, delta, sensitivity), epsilon, rtol=1e-9)
    assert_allclose(sigma, sensitivity * gaussian_sigma(epsilon, delta), rtol=1e-12)


@given(epsilon=st.floats(1e-3, 900.0), delta=st.floats(1e-12, 1e-3), more=st.floats(1.01, 1.1))
def test_more_privacy_takes_more_noise(epsilon, delta, more):
    assert gaussian_sigma(epsilon * more, delta) < gaussian_sigma(epsilon, delta)
    assert gaussian_sigma(epsilon, delta * more) < gaussian_sigma(epsilon, delta)


def test_the_classical_sigma_is_too_small_for_large_epsilon():
    def claimed_and_true(epsilon):
        sigma = gaussian_sigma(epsilon, 1e-5, calibration="classical")
        return gaussian_epsilon(sigma, 1e-5)

    assert claimed_and_true(8.3) < 8.3
    assert claimed_and_true(8.5) > 8.5
    assert claimed_and_true(98.0) > 280  # the paper's own equilibrium
    assert_allclose(
        gaussian_sigma(0.5, 1e-5, 2.0, "classical"), 4 * np.sqrt(2 * np.log(1.25e5)), rtol=1e-14
    )


def test_arrays_keep_their_shape_and_scalars_are_floats():
    assert isinstance(gaussian_sigma(1.0, 1e-5), float)
    assert gaussian_sigma([[1.0, 2.0]], 1e-5).shape == (1, 2)
    assert gaussian_sigma(np.ones((3, 1)), [1e-5, 1e-6]).shape == (3, 2)
    one_by_one = [gaussian_sigma(e, 1e-6) for e in EPSILONS]
    assert_allclose(gaussian_sigma(EPSILONS, 1e-6), one_by_one, rtol=1e-13)


def test_corners():
    # at epsilon = 0 delta is the total variation distance: 2 Phi(mu / 2) - 1
    assert_allclose(gaussian_delta(0.0, gaussian_sigma(0.0, 0.1)), 0.1, rtol=1e-12)
    assert gaussian_epsilon(1e6, 1e-5) == 0.0
    assert_array_equal(gaussian_epsilon([1e6, 1e6], 1e-5), 0.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gaussian_sigma(-1.0, 1e-5), "epsilon must be zero or positive"),
        (lambda: gaussian_sigma(0.0, 1e-5, calibration="classical"), "epsilon must be positive"),
        (lambda: gaussian_sigma([1.0, np.nan], 1e-5), r"epsilon\[1\] = nan"),
        (lambda: gaussian_sigma(1.0, 0.0), "delta must lie between 0 and 1, but is 0"),
        (lambda: gaussian_sigma(1.0, 1.0), "delta must lie between 0 and 1, but is 1"),
        (lambda: gaussian_sigma(1.0, 1e-5, 0.0), "sensitivity must be positive"),
        (lambda: gaussian_sigma(1.0, 1e-5, calibration="exact"), "but is 'exact'"),
        (lambda: gaussian_epsilon(0.0, 1e-5), "sigma must be positive"),
        (lambda: gaussian_delta(1.0, np.inf), "sigma must be positive and finite"),
    ],
)
def test_numbers_outside_their_range_are_refused(call, words):
    with pytest.raises(InvalidPrivacyError, match=words):
        call()
