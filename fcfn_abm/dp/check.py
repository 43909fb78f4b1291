"""The server's test of whether a node adds more noise than its report accounts for.

The server sees an upload, the sum of a clean part and noise. It knows the noise that the node
claims, and a bound on the norm of the clean part, because gradients are clipped. An upload whose
norm exceeds what both explain comes from a node that was paid for more privacy than it gave up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp.calibration import gaussian_epsilon, gaussian_sigma
from fcfn_abm.errors import (
    InvalidPrivacyError,
    as_floats,
    require_between,
    require_counts,
    require_positive,
)

type Floats = npt.NDArray[np.float64]

_MAX_RATIO = 1e4  # clean norm over noise; SciPy's quantile is inaccurate far beyond


def max_upload_norm(
    n_parameters: int,
    noise_std: npt.ArrayLike,
    max_clean_norm: npt.ArrayLike,
    false_alarm: float,
    n_releases: npt.ArrayLike = 1,
) -> Floats:
    """Return the L2 norm above which an upload has more noise than was claimed.

    Parameters
    ----------
    n_parameters : int
        Length d of an upload.
    noise_std : array_like of float
        Claimed standard deviation s of the noise on each parameter of an upload.
    max_clean_norm : array_like of float
        Largest L2 norm c of an upload's clean part.
    false_alarm : float
        Largest probability that the upload of a truthful node exceeds the norm.
    n_releases : array_like of int, default 1
        Number of releases in an upload. From two on, the clean part may depend on the noise.

    Returns
    -------
    ndarray of float, in the shape of ``noise_std``
        In units of an upload; infinite if ``noise_std`` is.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.

    Notes
    -----
    A clean part that is independent of the noise makes ``(norm / s)**2`` noncentral chi-square with
    d degrees of freedom and a noncentrality of at most ``(c / s)**2``; every quantile grows with
    the noncentrality. A clean part that depends on earlier noise can be parallel to it: then
    ``norm`` is at most c plus s times a chi variable.

    Examples
    --------
    >>> max_upload_norm(1000, [0.1, 1.0], max_clean_norm=1.0, false_alarm=1e-6).round(2)
    array([ 3.67, 35.05])
    """
    require_counts(error=InvalidPrivacyError, n_parameters=n_parameters, n_releases=n_releases)
    noise_std = as_floats("noise_std", noise_std, error=InvalidPrivacyError)
    max_clean_norm = as_floats("max_clean_norm", max_clean_norm, error=InvalidPrivacyError)
    n_releases = np.asarray(n_releases)
    require_positive(error=InvalidPrivacyError, noise_std=noise_std[~np.isposinf(noise_std)])
    require_positive(error=InvalidPrivacyError, max_clean_norm=max_clean_norm)
    require_between(0, 1, error=InvalidPrivacyError, false_alarm=false_alarm)
    from scipy.stats import chi, ncx2  # slow to import

    dependent = max_clean_norm + noise_std * chi.isf(false_alarm, n_parameters)
    ratio = np.minimum(max_clean_norm / noise_std, _MAX_RATIO)
    independent = noise_std * np.sqrt(ncx2.isf(false_alarm, n_parameters, ratio**2))
    return np.where((n_releases == 1) & (ratio < _MAX_RATIO), independent, dependent)


def smallest_excess(
    n_parameters: int,
    noise_std: npt.ArrayLike,
    max_clean_norm: npt.ArrayLike,
    false_alarm: float,
    n_releases: npt.ArrayLike = 1,
    power: float = 0.99,
) -> Floats:
    """Return the factor by which noise must exceed the claim to be detected with any clean part.

    Parameters
    ----------
    n_parameters, noise_std, max_clean_norm, false_alarm, n_releases
        As in :func:`max_upload_norm`.
    power : float, default 0.99
        Smallest probability that one upload is flagged.

    Returns
    -------
    ndarray of float, in the shape of ``noise_std``
        True divided by claimed standard deviation.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.

    Notes
    -----
    A clean part that is independent of the noise only makes an upload longer: the hardest node to
    detect sends none. One that depends on the noise can shorten it by its whole norm.

    Examples
    --------
    >>> smallest_excess(1000, [0.1, 1.0], max_clean_norm=1.0, false_alarm=1e-6).round(3)
    array([1.225, 1.169])
    """
    noise_std = as_floats("noise_std", noise_std, error=InvalidPrivacyError)
    require_positive(error=InvalidPrivacyError, noise_std=noise_std)
    require_between(0, 1, error=InvalidPrivacyError, power=power)
    threshold = max_upload_norm(n_parameters, noise_std, max_clean_norm, false_alarm, n_releases)
    threshold = threshold + np.where(np.asarray(n_releases) > 1, max_clean_norm, 0.0)
    from scipy.stats import chi2  # slow to import

    return np.asarray(threshold / noise_std / np.sqrt(chi2.isf(power, n_parameters)))


def as_factor(excess: npt.ArrayLike, epsilon: npt.ArrayLike, delta: float) -> Floats:
    """Return the factor of misreported epsilon for noise that is ``excess`` times the claim.

    Parameters
    ----------
    excess : array_like of float
        True divided by claimed standard deviation, at least one.
    epsilon : array_like of float
        The epsilon that the node reports.
    delta : float
        Delta of the report.

    Returns
    -------
    ndarray of float
        Reported divided by spent epsilon; infinite if delta alone covers the spent epsilon.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.

    Notes
    -----
    For analytic calibration without sampling. Slightly above ``excess`` for usual epsilons, and
    close to its square for large epsilon.

    Examples
    --------
    >>> as_factor(1.5, [0.1, 10.0], 1e-5).round(3)
    array([1.561, 1.631])
    """
    epsilon = as_floats("epsilon", epsilon, error=InvalidPrivacyError)
    true = gaussian_epsilon(
        as_floats("excess", excess, error=InvalidPrivacyError) * gaussian_sigma(epsilon, delta),
        delta,
    )
    with np.errstate(divide="ignore"):
        return np.asarray(epsilon / true)
