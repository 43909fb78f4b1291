"""What many releases cost together, exactly, while every node takes part in each of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp.calibration import Calibration, gaussian_epsilon, gaussian_sigma
from fcfn_abm.errors import InvalidPrivacyError, require_positive

type Floats = npt.NDArray[np.float64]


def multiplier_for_releases(
    epsilon: npt.ArrayLike,
    delta: float,
    n_releases: int,
    calibration: Calibration = "analytic",
) -> Floats:
    """Return the noise multiplier of each release so that all together spend ``epsilon``.

    Parameters
    ----------
    epsilon : array_like of float, shape (n,)
        What each node may spend in all releases together.
    delta : float
        Probability with which the guarantee may fail.
    n_releases : int
        How many times each node releases something.
    calibration : {"analytic", "classical"}, default "analytic"
        See :func:`fcfn_abm.gaussian_sigma`.

    Returns
    -------
    ndarray of float, shape (n,)
        Noise standard deviation over L2 sensitivity, for one release; infinite where
        ``epsilon`` is zero, since such a node releases nothing.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.

    Notes
    -----
    Gaussian releases with multipliers z_t compose to exactly one with
    ``1 / z**2 = sum_t 1 / z_t**2``, so each of T equal ones takes sqrt(T) times the noise.

    References
    ----------
    Dong, Roth and Su 2022, Corollary 3.3.
    """
    _require_releases(n_releases)
    epsilon = np.asarray(epsilon, dtype=float)
    multiplier = np.full(epsilon.shape, np.inf)
    some = epsilon > 0
    multiplier[some] = np.sqrt(n_releases) * gaussian_sigma(
        epsilon[some], delta, calibration=calibration
    )
    return multiplier


def spent_epsilon(noise_multiplier: npt.ArrayLike, n_releases: int, delta: float) -> Floats:
    """Return the true epsilon of ``n_releases`` equal Gaussian releases, by exact composition.

    Parameters
    ----------
    noise_multiplier : array_like of float, shape (n,)
        Noise standard deviation over L2 sensitivity of one release; infinite for none.
    n_releases : int
        How many releases there are.
    delta : float
        Probability with which the guarantee may fail.

    Returns
    -------
    ndarray of float, shape (n,)
        Privacy spent, dimensionless; zero where the multiplier is infinite.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.
    """
    _require_releases(n_releases)
    multiplier = np.asarray(noise_multiplier, dtype=float)
    spent = np.zeros(multiplier.shape)
    some = np.isfinite(multiplier)
    require_positive(error=InvalidPrivacyError, noise_multiplier=multiplier[some])
    spent[some] = gaussian_epsilon(multiplier[some] / np.sqrt(n_releases), delta)
    return spent


def _require_releases(n_releases: int) -> None:
    if n_releases < 1:
        raise InvalidPrivacyError(f"n_releases must be at least 1, but is {n_releases}.")
