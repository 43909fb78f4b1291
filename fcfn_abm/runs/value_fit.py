"""Least-squares fit of the value curve ``beta ln(1 + alpha eps)``, and its identification."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.special import fdtri, stdtrit

from fcfn_abm.errors import InvalidGameError, RunFailedError, as_floats, require_positive
from fcfn_abm.scenario.schema import LARGEST, SMALLEST

type Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
LEAST = 3
"""Fewest epsilons of a fit: two are compatible with any alpha and beta."""
_SHAPES = (-10.0, 50.0)
"""Bounds of ln(alpha eps) in mid-range: a straight line, and no slope at all."""
_N_SHAPES = 61
_TIGHT = 1e-14  # relative tolerance of the fit


@dataclass(frozen=True)
class ValueFit:
    """The fitted curve ``beta ln(1 + alpha eps)``, and its quality."""

    alpha: float
    """Estimate, dimensionless."""
    beta: float
    """Estimate, in currency."""
    identified: Literal["both", "product", "level"]
    """Identified parameters: alpha and beta; if a straight line through zero fits as well, only
    alpha * beta; if a constant fits as well, only this level."""
    alpha_interval: tuple[float, float] | None
    """Interval of alpha; None if alpha is not identified, or there is one seed."""
    beta_interval: tuple[float, float] | None
    """The same for beta."""
    limit: float | None
    """alpha * beta, or the level, in currency, if only that is identified."""
    limit_interval: tuple[float, float] | None
    """Its interval; None with one seed."""
    r_squared: float
    """Share of the variance of the values that the curve explains."""
    residual_std: float
    """Residual standard deviation, in currency."""

    def __call__(self, epsilon: npt.ArrayLike) -> Floats:
        """Return the value at given epsilons, in currency."""
        return np.asarray(self.beta * np.log1p(self.alpha * as_floats("epsilon", epsilon)))


def fit_value(
    epsilon: npt.ArrayLike, value: npt.ArrayLike, confidence: float = CONFIDENCE
) -> ValueFit:
    """Fit ``beta ln(1 + alpha eps)`` with positive alpha and beta to measured values.

    Parameters
    ----------
    epsilon : array_like of float, shape (m,)
        Epsilons of the measurements; at least three different ones.
    value : array_like of float, shape (n_seeds, m)
        The measured values, in currency; one row per seed.
    confidence : float, default 0.95
        Confidence level of the intervals, and of the test of identification.

    Returns
    -------
    ValueFit
        Estimates by least squares over all values, and intervals.

    Raises
    ------
    InvalidGameError
        If an epsilon is not positive and finite, fewer than three differ, or the shapes do not
        match.
    RunFailedError
        If no positive curve fits better than zero: the values are not positive on average.

    Notes
    -----
    Intervals are t-intervals of ln(alpha) and ln(beta) over the seeds, with each seed's estimate
    linearised at the common one. Values of a seed may be correlated, as they share data and noise;
    if they are not, a covariance of the residuals would give somewhat narrower intervals.

    As alpha tends to zero with alpha * beta fixed, the curve becomes a line; as alpha tends to
    infinity with the level fixed, a constant. If an F-test cannot distinguish the fit from one of
    these, only its single parameter is identified.

    Examples
    --------
    >>> epsilon = np.array([0.1, 1.0, 10.0])
    >>> fit = fit_value(epsilon, [2 * np.log1p(3 * epsilon)])
    >>> round(fit.alpha, 6), round(fit.beta, 6), fit.identified
    (3.0, 2.0, 'both')
    """
    epsilon, value = as_floats("epsilon", epsilon), as_floats("value", value)
    require_positive(epsilon=epsilon)
    if np.unique(epsilon).size < LEAST:
        raise InvalidGameError(f"A fit needs at least {LEAST} different epsilons.")
    if value.ndim != 2 or value.shape[1:] != epsilon.shape:
        raise InvalidGameError(
            f"value must have one row per seed and one column per epsilon ({epsilon.size}), not "
            f"shape {value.shape}."
        )
    alpha, beta = _least_squares(epsilon, value)
    law = beta * np.log1p(alpha * epsilon)
    unexplained = float(np.sum((value - law) ** 2))
    identified: Literal["both", "product", "level"] = "both"
    freedom = value.size - 2
    allowed = 1 + float(fdtri(1, freedom, confidence)) / freedom
    limits = {"product": epsilon, "level": np.ones_like(epsilon)}
    per_seed = {name: value @ shape / (shape @ shape) for name, shape in limits.items()}
    left = {
        name: float(np.sum((value - per_seed[name].mean() * shape) ** 2))
        for name, shape in limits.items()
    }
    if min(left.values()) <= allowed * unexplained:
        identified = "product" if left["product"] < left["level"] else "level"
    intervals: list[tuple[float, float] | None] = [None, None]
    limit, limit_interval = None, None
    if identified == "both":
        gain = alpha * epsilon
        slopes = np.column_stack([beta * gain / (1 + gain), law])  # in ln(alpha) and ln(beta)
        each = (value - law) @ np.linalg.pinv(slopes).T  # deviation of each seed's estimates
        for i, centre in enumerate((math.log(alpha), math.log(beta))):
            if found := _interval(centre + each[:, i], confidence, centre):
                intervals[i] = (math.exp(found[0]), math.exp(found[1]))
    else:
        limit = float(per_seed[identified].mean())
        limit_interval = _interval(per_seed[identified], confidence, limit)
    return ValueFit(
        alpha=alpha,
        beta=beta,
        identified=identified,
        alpha_interval=intervals[0],
        beta_interval=intervals[1],
        limit=limit,
        limit_interval=limit_interval,
        r_squared=1 - unexplained / max(float(np.sum((value - value.mean()) ** 2)), 1e-300),
        residual_std=math.sqrt(unexplained / freedom),
    )


def _least_squares(epsilon: Floats, value: Floats) -> tuple[float, float]:
    """Return alpha and beta, fitted through the logarithms of alpha and of the mid-range value.

    These two stay separate even where alpha and beta are not: one is the curve's shape, the other
    its size.
    """
    middle = math.exp(np.log(epsilon).mean())
    size = float(np.abs(value).max())
    scaled, relative = value / size, epsilon / middle

    def curve(shape: Floats | float) -> Floats:
        gain = np.exp(shape)
        return np.asarray(np.log1p(gain * relative) / np.log1p(gain))

    def residuals(point: Floats) -> Floats:
        return np.asarray((scaled - np.exp(point[1]) * curve(point[0])).ravel())

    # within the alphas that a scenario allows
    low = max(_SHAPES[0], math.log(SMALLEST) + math.log(middle))
    high = min(_SHAPES[1], math.log(LARGEST) + math.log(middle) - _TIGHT)
    # for a given shape the best size has a closed form: start from a coarse grid
    shapes = np.linspace(*_SHAPES, _N_SHAPES)
    shapes = shapes[(low <= shapes) & (shapes <= high)]
    if not shapes.size:
        raise InvalidGameError(
            f"epsilon around {middle:g} fits no alpha between {SMALLEST:g} and {LARGEST:g}."
        )
    curves = curve(shapes[:, None])
    lengths = np.linalg.norm(curves, axis=1)
    projections = curves @ scaled.mean(axis=0) / lengths
    best = int(np.argmax(projections))
    if not projections[best] > 0:
        raise RunFailedError(
            "the net is no better than chance on average, so alpha and beta cannot be fitted; "
            "train with larger epsilons or more rounds."
        )
    start = [float(shapes[best]), math.log(projections[best] / lengths[best])]
    bounds = ([low, -np.inf], [high, np.inf])
    shape, level = least_squares(residuals, start, bounds=bounds, ftol=_TIGHT, xtol=_TIGHT).x
    return math.exp(shape) / middle, size * math.exp(level) / math.log1p(math.exp(shape))


def _interval(each: Floats, confidence: float, centre: float) -> tuple[float, float] | None:
    """Return the t-interval of a mean over seeds, or None with one seed."""
    if each.size < 2:
        return None
    half = half_width(each, confidence)
    return centre - half, centre + half


def half_width(each: Floats, confidence: float = CONFIDENCE) -> float:
    """Return the half-width of the t-interval of a mean over seeds."""
    n = each.size
    return float(stdtrit(n - 1, 0.5 + confidence / 2)) * float(each.std(ddof=1)) / math.sqrt(n)
