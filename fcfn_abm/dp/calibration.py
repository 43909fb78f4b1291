"""Gaussian noise for a given epsilon, and the true epsilon of a noise level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
from scipy.optimize import elementwise
from scipy.special import erfcx, ndtr

from fcfn_abm.errors import (
    InvalidPrivacyError,
    as_floats,
    require_between,
    require_one_of,
    require_positive,
)

type Floats = npt.NDArray[np.float64]
type Calibration = Literal["analytic", "classical"]
type Currency = Literal["epsilon", "zcdp"]
"""What is sold: epsilon at a delta, or the rho of zero-concentrated differential privacy."""

_HUGE = 1e300  # larger ratios of sensitivity to noise count as infinite
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)


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
        Failure probabilities of the guarantee; between 0 and 1.
    sensitivity : array_like of float, default 1.0
        L2 sensitivity of the release; the result has its unit.
    calibration : {"analytic", "classical"}, default "analytic"
        The smallest sufficient noise, exact for every epsilon; or the textbook formula ``sqrt(2
        ln(1.25 / delta)) * sensitivity / epsilon``, which is proven for epsilon below 1 only, and
        too small above 8.4 at delta = 1e-5 (see :func:`gaussian_epsilon`).

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
    require_one_of(Calibration, error=InvalidPrivacyError, calibration=calibration)
    epsilon, delta, sensitivity = np.broadcast_arrays(
        as_floats("epsilon", epsilon, error=InvalidPrivacyError),
        as_floats("delta", delta, error=InvalidPrivacyError),
        as_floats("sensitivity", sensitivity, error=InvalidPrivacyError),
    )
    require_positive(error=InvalidPrivacyError, zero=calibration == "analytic", epsilon=epsilon)
    require_positive(error=InvalidPrivacyError, sensitivity=sensitivity)
    require_between(0, 1, error=InvalidPrivacyError, delta=delta)
    with np.errstate(over="ignore"):  # noise that overflows is infinite
        if calibration == "classical":
            sigma = np.sqrt(2 * np.log(1.25 / delta)) * (sensitivity / epsilon)
        else:
            sigma = sensitivity / _mu_of(epsilon, delta)
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
    """Return the true epsilon of a noise level: the smallest one that holds.

    Parameters
    ----------
    sigma : array_like of float
        Noise standard deviations, in the unit of ``sensitivity``.
    delta : array_like of float
        Failure probabilities of the guarantee; between 0 and 1.
    sensitivity : array_like of float, default 1.0
        L2 sensitivity of the release.

    Returns
    -------
    ndarray of float, or float
        Privacy budgets, dimensionless; zero if delta alone covers the release.

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
        as_floats("sigma", sigma, error=InvalidPrivacyError),
        as_floats("delta", delta, error=InvalidPrivacyError),
        as_floats("sensitivity", sensitivity, error=InvalidPrivacyError),
    )
    require_positive(error=InvalidPrivacyError, sigma=sigma, sensitivity=sensitivity)
    require_between(0, 1, error=InvalidPrivacyError, delta=delta)
    with np.errstate(all="ignore"):  # an epsilon that overflows is infinite
        mu = np.minimum(sensitivity / sigma, _HUGE)
        # with epsilon = mu * x the tail begins at u = x - mu / 2; at u = 40 it is zero
        highest = (mu / 2 + 40) * (1 + 1e-15)
        x = _root(lambda x, mu: _log_delta(x - mu / 2, mu), 0 * mu, highest, mu, delta)
        return _same_kind(np.where(_log_delta(-mu / 2, mu) > np.log(delta), mu * x, 0.0))


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
        L2 sensitivity of the release.

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
    ``Phi(-u) - exp(epsilon) Phi(-v)``, where v = u + mu. Because ``exp(epsilon) phi(v) = phi(u)``
    it is evaluated as ``phi(u) (M(u) - M(v))`` with Mills' ratio M: nothing overflows, and
    cancellation is small.

    References
    ----------
    Balle and Wang 2018, Theorem 8.

    Examples
    --------
    >>> f"{gaussian_delta(1.0, 3.730632):.4e}"
    '1.0000e-05'
    """
    epsilon, sigma, sensitivity = np.broadcast_arrays(
        as_floats("epsilon", epsilon, error=InvalidPrivacyError),
        as_floats("sigma", sigma, error=InvalidPrivacyError),
        as_floats("sensitivity", sensitivity, error=InvalidPrivacyError),
    )
    require_positive(error=InvalidPrivacyError, zero=True, epsilon=epsilon)
    require_positive(error=InvalidPrivacyError, sigma=sigma, sensitivity=sensitivity)
    with np.errstate(all="ignore"):
        mu = np.clip(sensitivity / sigma, 1 / _HUGE, _HUGE)
        return _same_kind(np.exp(_log_delta(epsilon / mu - mu / 2, mu)))


def _log_delta(u: Floats, mu: Floats) -> Floats:
    """Return ln(delta) for sensitivity ``mu`` and unit noise, with the tail from ``u``.

    Below the range of a float delta it is constant, so that roots can be bracketed.
    """
    density = np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)
    log_density = -(u**2) / 2 - np.log(2 * np.pi) / 2
    outer = log_density + np.log(_mills(u) - _mills(u + mu))
    inner = np.log(ndtr(-u) - density * _mills(u + mu))  # here the first ratio would overflow
    value = np.where(u >= 0, outer, inner)
    narrow = mu < 0.5  # here the two would cancel
    if narrow.any():
        value = np.where(narrow, log_density, value)
        value[narrow] += np.log(_mills_between(u[narrow], mu[narrow]))
    return np.asarray(np.fmax(value, -1e9))


def _mills(t: Floats) -> Floats:
    """Return Mills' ratio of the normal distribution: its upper tail over its density."""
    return np.asarray(np.sqrt(np.pi / 2) * erfcx(t / np.sqrt(2)))


def _mills_between(u: Floats, mu: Floats) -> Floats:
    """Return M(u) - M(u + mu), as the integral of -M'(t) = 1 - t M(t) by Gauss-Legendre."""
    total = np.zeros_like(u)
    for node, weight in zip(
        _NODES, _WEIGHTS, strict=True
    ):  # in the same order for any number of values
        t = u + mu / 2 * (1 + node)
        total += weight * (1 - t * _mills(t))
    return mu / 2 * total


def _mu_of(epsilon: Floats, delta: Floats) -> Floats:
    """Return the largest sensitivity, in units of sigma, that (epsilon, delta) allows."""
    # v**2 - u**2 = 2 epsilon: solved for u, which stays small if mu and epsilon are huge
    width = np.sqrt(2) * np.sqrt(epsilon)

    def mu_at(u: Floats, width: Floats) -> Floats:
        v = np.hypot(u, width)
        return np.where(u > 0, width * (width / (v + u)), v - u)

    with np.errstate(all="ignore"):
        ends = np.full_like(epsilon, 40.0)
        u = _root(lambda u, width: _log_delta(u, mu_at(u, width)), -ends, ends, width, delta)
        return mu_at(u, width)


def _root(
    function: Callable[[Any, Any], Floats], low: Floats, high: Floats, arg: Floats, delta: Floats
) -> Floats:
    """Find where a function of x and ``arg`` equals ln(delta), element by element."""

    def excess(x: Any, arg: Any, target: Any) -> Any:
        return function(x, arg) - target

    found = elementwise.find_root(
        excess,
        (low, high),
        args=(arg, np.log(delta)),
        tolerances={"xatol": 0.0, "xrtol": 4e-16, "fatol": 0.0, "frtol": 0.0},
        maxiter=1200,  # enough for plain bisection down to the smallest float
    )
    return np.asarray(found.x)


def _same_kind(value: Floats) -> Floats | float:
    return float(value) if value.ndim == 0 else value
