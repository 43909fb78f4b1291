"""How much Gaussian noise an epsilon takes, and what a noise level is truly worth."""

from __future__ import annotations

from typing import Any, Literal, get_args, overload

import numpy as np
import numpy.typing as npt
from scipy.optimize import elementwise
from scipy.special import erfcx, log_ndtr, ndtr

from fcfn_abm.errors import InvalidPrivacyError, require_between, require_positive

type Floats = npt.NDArray[np.float64]
type Calibration = Literal["analytic", "classical"]


@overload
def gaussian_sigma(
    epsilon: float, delta: float, sensitivity: float = ..., calibration: Calibration = ...
) -> float: ...
@overload
def gaussian_sigma(
    epsilon: npt.ArrayLike,
    delta: npt.ArrayLike,
    sensitivity: npt.ArrayLike = ...,
    calibration: Calibration = ...,
) -> Floats: ...
def gaussian_sigma(
    epsilon: npt.ArrayLike,
    delta: npt.ArrayLike,
    sensitivity: npt.ArrayLike = 1.0,
    calibration: Calibration = "analytic",
) -> Floats | float:
    """Return the standard deviation of Gaussian noise that makes a release (epsilon, delta)-DP.

    Parameters
    ----------
    epsilon : array_like of float
        Privacy budgets, dimensionless; positive (with ``"analytic"`` also zero).
    delta : array_like of float
        Probabilities with which the guarantee may fail; between 0 and 1.
    sensitivity : array_like of float, default 1.0
        L2 sensitivity of what is released; the result is in its unit.
    calibration : {"analytic", "classical"}, default "analytic"
        The least noise that suffices, exact for every epsilon; or the textbook formula
        ``sqrt(2 ln(1.25 / delta)) * sensitivity / epsilon``, which is proven for epsilon below 1
        only, and too small above 8.4 at delta = 1e-5: ask :func:`gaussian_epsilon`.

    Returns
    -------
    ndarray of float, or float
        Noise standard deviations, in the broadcast shape of the inputs.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range, or the calibration is unknown.

    References
    ----------
    Balle and Wang 2018, Theorem 8; Dwork and Roth 2014, Theorem A.1 ("classical"; Zhou et al.
    2023 use it).

    Examples
    --------
    >>> round(gaussian_sigma(1.0, 1e-5), 6)
    3.730632
    >>> gaussian_sigma([1.0, 98.0], 1e-5, calibration="classical").round(4)
    array([4.8448, 0.0494])
    """
    epsilon, delta, sensitivity = np.broadcast_arrays(
        *(np.asarray(value, dtype=float) for value in (epsilon, delta, sensitivity))
    )
    require_positive(error=InvalidPrivacyError, zero=calibration == "analytic", epsilon=epsilon)
    require_positive(error=InvalidPrivacyError, sensitivity=sensitivity)
    require_between(0, 1, error=InvalidPrivacyError, delta=delta)
    if calibration == "classical":
        sigma = np.sqrt(2 * np.log(1.25 / delta)) * sensitivity / epsilon
    elif calibration == "analytic":
        sigma = sensitivity / _mu_of(epsilon, delta)
    else:
        raise InvalidPrivacyError(
            f"calibration must be one of {get_args(Calibration.__value__)}, but is {calibration!r}."
        )
    return _same_kind(sigma)


@overload
def gaussian_epsilon(sigma: float, delta: float, sensitivity: float = ...) -> float: ...
@overload
def gaussian_epsilon(
    sigma: npt.ArrayLike, delta: npt.ArrayLike, sensitivity: npt.ArrayLike = ...
) -> Floats: ...
def gaussian_epsilon(
    sigma: npt.ArrayLike, delta: npt.ArrayLike, sensitivity: npt.ArrayLike = 1.0
) -> Floats | float:
    """Return the true epsilon of a noise level: the smallest one for which it is private.

    Parameters
    ----------
    sigma : array_like of float
        Noise standard deviations, in the unit of ``sensitivity``.
    delta : array_like of float
        Probabilities with which the guarantee may fail; between 0 and 1.
    sensitivity : array_like of float, default 1.0
        L2 sensitivity of what is released.

    Returns
    -------
    ndarray of float, or float
        Privacy budgets, dimensionless; zero where delta alone covers the release.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.

    References
    ----------
    Balle and Wang 2018, Theorem 8.

    Examples
    --------
    >>> round(gaussian_epsilon(3.730632, 1e-5), 5)
    1.0
    >>> bool(gaussian_epsilon(gaussian_sigma(98.0, 1e-5, calibration="classical"), 1e-5) > 280)
    True
    """
    sigma, delta, sensitivity = np.broadcast_arrays(
        *(np.asarray(value, dtype=float) for value in (sigma, delta, sensitivity))
    )
    require_positive(error=InvalidPrivacyError, sigma=sigma, sensitivity=sensitivity)
    require_between(0, 1, error=InvalidPrivacyError, delta=delta)
    mu = sensitivity / sigma
    # tails: at u = ndtri-like 40 no delta that a float can hold is left
    highest = mu * (mu / 2 + 40.0)
    target = np.log(delta)
    needed = _log_delta(np.zeros_like(mu), mu) > target
    low = np.zeros_like(mu)
    root = _root(
        lambda epsilon, mu, target: _log_delta(epsilon, mu) - target, low, highest, (mu, target)
    )
    return _same_kind(np.where(needed, root, 0.0))


@overload
def gaussian_delta(epsilon: float, sigma: float, sensitivity: float = ...) -> float: ...
@overload
def gaussian_delta(
    epsilon: npt.ArrayLike, sigma: npt.ArrayLike, sensitivity: npt.ArrayLike = ...
) -> Floats: ...
def gaussian_delta(
    epsilon: npt.ArrayLike, sigma: npt.ArrayLike, sensitivity: npt.ArrayLike = 1.0
) -> Floats | float:
    """Return the exact delta of Gaussian noise at a given epsilon.

    Parameters
    ----------
    epsilon : array_like of float
        Privacy budgets, dimensionless; zero or positive.
    sigma : array_like of float
        Noise standard deviations, in the unit of ``sensitivity``.
    sensitivity : array_like of float, default 1.0
        L2 sensitivity of what is released.

    Returns
    -------
    ndarray of float, or float
        Smallest delta for which the release is (epsilon, delta)-DP.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.

    Notes
    -----
    With ``mu = sensitivity / sigma`` and ``u = epsilon / mu - mu / 2`` this is
    ``Phi(-u) - exp(epsilon) Phi(-u - mu)``. For positive u it is evaluated as
    ``phi(u) (M(u) - M(u + mu))`` with Mills' ratio M: nothing overflows, and little cancels.

    References
    ----------
    Balle and Wang 2018, Theorem 8.

    Examples
    --------
    >>> f"{gaussian_delta(1.0, 3.730632):.4e}"
    '1.0000e-05'
    """
    epsilon, sigma, sensitivity = np.broadcast_arrays(
        *(np.asarray(value, dtype=float) for value in (epsilon, sigma, sensitivity))
    )
    require_positive(error=InvalidPrivacyError, zero=True, epsilon=epsilon)
    require_positive(error=InvalidPrivacyError, sigma=sigma, sensitivity=sensitivity)
    return _same_kind(np.exp(_log_delta(epsilon, sensitivity / sigma)))


def _log_delta(epsilon: Floats, mu: Floats) -> Floats:
    """Return ln(delta) of a release with unit noise and sensitivity ``mu``."""
    u = epsilon / mu - mu / 2
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        tail = np.sqrt(np.pi / 2) * (erfcx(u / np.sqrt(2)) - erfcx((u + mu) / np.sqrt(2)))
        outer = -(u**2) / 2 - np.log(2 * np.pi) / 2 + np.log(tail)
        inner = np.log(ndtr(-u) - np.exp(epsilon + log_ndtr(-u - mu)))
    return np.where(u >= 0, outer, inner)


def _mu_of(epsilon: Floats, delta: Floats) -> Floats:
    """Return the largest sensitivity, in units of sigma, that (epsilon, delta) allows."""

    def excess(log_mu: Floats, epsilon: Floats, target: Floats) -> Floats:
        return _log_delta(epsilon, np.exp(log_mu)) - target

    # delta grows with mu from nothing to one; both ends lie beyond what floats can hold
    highest = np.log(np.sqrt(2 * epsilon) + 80.0)
    low = np.log(delta) + np.log(np.minimum(1.0, epsilon + 1.0) / 80.0)
    return np.exp(_root(excess, low, highest, (epsilon, np.log(delta))))


def _root(function: Any, low: Floats, high: Floats, args: tuple[Floats, ...]) -> Floats:
    """Find the roots of an element-wise function between two bounds, to the last digits."""
    found = elementwise.find_root(
        function,
        (low, high),
        args=args,
        tolerances={"xatol": 0.0, "xrtol": 4e-16, "fatol": 0.0, "frtol": 0.0},
        maxiter=300,
    )
    return np.asarray(found.x)


def _same_kind(value: Floats) -> Floats | float:
    return float(value) if value.ndim == 0 else value
