"""Total privacy cost of many releases: exact, or a tight upper bound if data are sampled.

A node that uses all of its data in every release has a closed form. With Poisson-sampled data the
cost is computed by dp-accounting's privacy loss distributions (PLD), and tabulated so that
thousands of nodes are processed at once. The table holds, for a multiplier z and n releases, the
``mu`` of the single Gaussian release with the same epsilon at this delta: ``sqrt(n) / z`` without
sampling, close to ``q sqrt(n) / z`` with much noise, and smooth in between.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.polynomial import Chebyshev
from scipy.optimize import elementwise

from fcfn_abm.dp.calibration import Calibration, gaussian_epsilon, gaussian_sigma
from fcfn_abm.dp.sensitivity import Relation
from fcfn_abm.errors import (
    InvalidPrivacyError,
    MissingExtraError,
    as_floats,
    require_between,
    require_counts,
    require_one_of,
    require_positive,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

type Floats = npt.NDArray[np.float64]

SAMPLED_TOLERANCE = 1e-3
"""Relative margin by which ``mu`` of sampled releases is raised above the table."""

LEAST_RATE = 1e-6
"""Smallest sampling rate: below it rounding errors dominate, and records are hardly drawn."""

_MOST_RATE = 1 - 1e-9  # above it sampling saves less than dp-accounting can resolve
_LEAST_RATIO = (
    24  # octaves from a rate to the multipliers whose losses are dominated by rounding errors
)
_LEAST_OCTAVE = -6  # below a multiplier of 2**-6 the closed form without sampling is the bound
_MOST_RUNS = 8  # largest number of different multipliers that are composed exactly
_FINEST_STEP = 1 / 16  # octaves between the multipliers to which more of them are rounded down
_DEGREES = (
    2,
    4,
    8,
    16,
    32,
)  # degrees of the polynomial per octave of multipliers; points are nested


def multiplier_for_releases(
    epsilon: npt.ArrayLike,
    delta: float,
    n_releases: int,
    calibration: Calibration = "analytic",
    sampling_rate: float = 1.0,
    neighbours: Relation = "zero-out",
) -> Floats:
    """Return the noise multiplier of each release for which all together spend ``epsilon``.

    Parameters
    ----------
    epsilon : array_like of float, shape (n,)
        Total privacy budget of each node over all releases.
    delta : float
        Failure probability of the guarantee.
    n_releases : int
        Number of releases per node.
    calibration : {"analytic", "classical"}, default "analytic"
        See :func:`fcfn_abm.gaussian_sigma`; applied to the single release that is equivalent to
        all.
    sampling_rate : float, default 1.0
        Probability that a record takes part in a release, independent of all others.
    neighbours : {"zero-out", "replace-one"}, default "zero-out"
        Relation to which the multiplier's sensitivity refers; matters with sampling only.

    Returns
    -------
    ndarray of float, shape (n,)
        Noise standard deviation divided by L2 sensitivity, for one release; infinite if ``epsilon``
        is zero, because such a node releases nothing.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.
    MissingExtraError
        With sampling, if dp-accounting is not installed.

    Notes
    -----
    Gaussian releases with multipliers z_t compose to exactly one with ``1 / z**2 = sum_t 1 /
    z_t**2``, so that each of T equal ones needs sqrt(T) times the noise. Sampled releases get 0.1
    to 0.5 % more noise than they need, never less.

    References
    ----------
    Dong, Roth and Su 2022, Corollary 3.3; with sampling :func:`spent_epsilon`.

    Examples
    --------
    >>> multiplier_for_releases([1.0, 10.0], 1e-5, 40).round(3)
    array([23.595,  3.162])
    """
    _require(n_releases, delta, sampling_rate, neighbours)
    require_one_of(Calibration, error=InvalidPrivacyError, calibration=calibration)
    epsilon = as_floats("epsilon", epsilon, error=InvalidPrivacyError)
    require_positive(error=InvalidPrivacyError, zero=True, epsilon=epsilon)
    multiplier = np.full(epsilon.shape, np.inf)
    some = epsilon > 0
    with np.errstate(over="ignore"):  # noise that overflows is infinite
        multiplier[some] = np.sqrt(n_releases) * gaussian_sigma(
            epsilon[some], delta, calibration=calibration
        )
    if sampling_rate < _MOST_RATE:
        sampled = _Sampled(sampling_rate, delta, neighbours)
        multiplier[some] = _inverse(sampled, multiplier[some], n_releases)
    return multiplier


def multiplier_for_zcdp(zcdp_rho: npt.ArrayLike, n_releases: int) -> Floats:
    """Return the noise multiplier of each release for which all together cost a rho of zCDP.

    Parameters
    ----------
    zcdp_rho : array_like of float, shape (n,)
        Total zCDP rho of each node over all releases, dimensionless; zero or positive. Not the unit
        privacy cost, which is called rho elsewhere.
    n_releases : int
        Number of releases per node, each with all of its data.

    Returns
    -------
    ndarray of float, shape (n,)
        ``sqrt(n_releases / (2 zcdp_rho))``: noise standard deviation divided by L2 sensitivity, for
        one release; infinite if nothing is spent.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.

    References
    ----------
    Bun and Steinke 2016, "Concentrated differential privacy", Propositions 1.6 and 1.7.

    Examples
    --------
    >>> multiplier_for_zcdp([0.5, 2.0], 1)
    array([1. , 0.5])
    """
    require_counts(error=InvalidPrivacyError, n_releases=n_releases)
    zcdp_rho = as_floats("zcdp_rho", zcdp_rho, error=InvalidPrivacyError)
    require_positive(error=InvalidPrivacyError, zero=True, zcdp_rho=zcdp_rho)
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.sqrt(n_releases / (2.0 * zcdp_rho)))


def spent_zcdp(noise_multiplier: npt.ArrayLike, n_releases: npt.ArrayLike) -> Floats:
    """Return the zCDP rho of equal Gaussian releases with all data; it is exactly additive.

    Parameters
    ----------
    noise_multiplier : array_like of float, shape (n,)
        Noise standard deviation divided by L2 sensitivity of one release; infinite for no release.
    n_releases : int, or array_like of int, shape (n,)
        Number of releases.

    Returns
    -------
    ndarray of float, shape (n,)
        ``n_releases / (2 noise_multiplier**2)``, dimensionless.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.

    References
    ----------
    Bun and Steinke 2016, Propositions 1.6 and 1.7.
    """
    require_counts(error=InvalidPrivacyError, n_releases=n_releases)
    multiplier = as_floats("noise_multiplier", noise_multiplier, error=InvalidPrivacyError)
    some = ~np.isposinf(multiplier)
    require_positive(error=InvalidPrivacyError, noise_multiplier=multiplier[some])
    return np.asarray(np.asarray(n_releases) * (0.5 / multiplier**2))


def spent_epsilon(
    noise_multiplier: npt.ArrayLike,
    n_releases: npt.ArrayLike,
    delta: float,
    sampling_rate: float = 1.0,
    neighbours: Relation = "zero-out",
) -> Floats:
    """Return the true epsilon of ``n_releases`` equal Gaussian releases.

    Parameters
    ----------
    noise_multiplier : array_like of float, shape (n,)
        Noise standard deviation divided by L2 sensitivity of one release; infinite for no release.
    n_releases : int, or array_like of int, shape (n,)
        Number of releases.
    delta : float
        Failure probability of the guarantee.
    sampling_rate : float, default 1.0
        Probability that a record takes part in a release, independent of all others.
    neighbours : {"zero-out", "replace-one"}, default "zero-out"
        Relation to which the multiplier's sensitivity refers; matters with sampling only.

    Returns
    -------
    ndarray of float, shape (n,)
        Privacy spent, dimensionless; zero if the multiplier is infinite, or if a record is drawn in
        any release with a probability of at most delta, ``1 - (1 - q)**n <= delta``. Exact without
        sampling; with sampling never too small, and too large by 0.1 to 0.5 %.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.
    MissingExtraError
        With sampling, if dp-accounting is not installed.

    Notes
    -----
    One record moves the sum by u, or by v if it is replaced, and is drawn with probability q. The
    worst pair is ``(1-q) N(0) + q N(u)`` against ``(1-q) N(0) + q N(-u)`` with u as long as the
    clipping norm: a hockey-stick divergence is the mean of a convex function of ``q L_u +
    (-e**epsilon q L_v)`` with log-normal likelihood ratios L, which is largest in convex order if
    its two terms are comonotone (u and v opposite) and widest. For a removed record the worst pair
    is that of Zhu, Dong and Wang.

    References
    ----------
    Zhu, Dong and Wang 2022, Theorems 10 and 11; Doroshenko et al. 2022 for the discretisation,
    which rounds losses up only.
    """
    _require(n_releases, delta, sampling_rate, neighbours)
    multiplier, n_releases = np.broadcast_arrays(
        as_floats("noise_multiplier", noise_multiplier, error=InvalidPrivacyError),
        np.asarray(n_releases),
    )
    spent = np.zeros(multiplier.shape)
    some = ~np.isposinf(multiplier)
    multiplier, n_releases = multiplier[some], n_releases[some]
    require_positive(error=InvalidPrivacyError, noise_multiplier=multiplier)
    mu = np.sqrt(n_releases) / multiplier
    if sampling_rate < _MOST_RATE:
        sampled = _Sampled(sampling_rate, delta, neighbours)
        for n in np.unique(n_releases).tolist():
            mu[n_releases == n] = _mu(sampled, multiplier[n_releases == n], n)
    spent[some] = np.where(
        _is_covered_by_delta(n_releases, delta, sampling_rate), 0.0, gaussian_epsilon(1 / mu, delta)
    )
    return spent


def spent_epsilon_of_runs(
    runs: Sequence[tuple[float, int]],
    delta: float,
    sampling_rate: float,
    neighbours: Relation = "zero-out",
) -> float:
    """Return the true epsilon of sampled releases whose noise changed over time.

    Parameters
    ----------
    runs : sequence of (float, int)
        Noise multiplier and number of some equal releases; in any order.
    delta : float
        Failure probability of the guarantee.
    sampling_rate : float
        Probability that a record takes part in a release, independent of all others.
    neighbours : {"zero-out", "replace-one"}, default "zero-out"
        Relation to which the multipliers' sensitivity refers.

    Returns
    -------
    float
        Privacy spent, dimensionless; never too small. Up to eight different multipliers are
        composed exactly; more are first rounded down to at most eight.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.
    MissingExtraError
        With sampling, if dp-accounting is not installed.

    Examples
    --------
    >>> round(spent_epsilon_of_runs([(0.7, 1), (4.0, 39)], 1e-5, 0.1), 1)
    3.6
    """
    counts: dict[float, int] = {}
    for multiplier, n_releases in runs:
        _require(n_releases, delta, sampling_rate, neighbours)
        require_positive(error=InvalidPrivacyError, noise_multiplier=multiplier)
        counts[float(multiplier)] = counts.get(float(multiplier), 0) + int(n_releases)
    if not counts:
        return 0.0
    if sampling_rate >= _MOST_RATE:
        mu = math.sqrt(sum(n / multiplier**2 for multiplier, n in counts.items()))
        return gaussian_epsilon(1 / mu, delta)
    # as if all releases had the least noise: an upper bound without composition
    n_releases, least = sum(counts.values()), min(counts)
    (bound,) = spent_epsilon([least], n_releases, delta, sampling_rate, neighbours).tolist()
    if len(counts) == 1 or bound == 0:
        return float(bound)
    step = _FINEST_STEP
    while len(counts) > _MOST_RUNS:
        rounded: dict[float, int] = {}
        for multiplier, n in counts.items():
            below = 2.0 ** (math.floor(math.log2(multiplier) / step) * step)
            below = min(below, multiplier)  # despite rounding
            rounded[below] = rounded.get(below, 0) + n
        counts, step = rounded, 2 * step
    sampled = _Sampled(sampling_rate, delta, neighbours)
    return min(float(bound), _compose_epsilon(sampled, tuple(sorted(counts.items()))))


@lru_cache(maxsize=65536)  # called by ledgers in every round, often with equal noise
def _compose_epsilon(sampled: _Sampled, runs: tuple[tuple[float, int], ...]) -> float:
    """Return the epsilon of runs of equal releases by PLD: an upper bound."""
    intervals = [_interval(sampled.rate, sampled.neighbours, multiplier) for multiplier, _ in runs]
    # as fine as the narrowest loss requires, unless the widest would then exhaust the memory
    interval = max(min(intervals), max(intervals) / 2**5)
    with np.errstate(all="ignore"):
        whole = None
        for multiplier, n in runs:
            loss = _loss(sampled.rate, sampled.neighbours, multiplier, interval)
            loss = loss.self_compose(n) if n > 1 else loss
            whole = loss if whole is None else whole.compose(loss)
        epsilon = float(whole.get_epsilon_for_delta(sampled.delta)) if whole else 0.0
    return max(epsilon, 0.0) if not math.isnan(epsilon) else math.inf


def _is_covered_by_delta(n_releases: npt.ArrayLike, delta: float, sampling_rate: float) -> Any:
    """Return whether a record is drawn in any release with a probability of at most delta.

    Without being drawn, a record has no effect on the output: epsilon is then zero.
    """
    if sampling_rate == 1:
        return np.zeros(np.shape(n_releases), dtype=bool)
    return -np.expm1(np.asarray(n_releases) * np.log1p(-sampling_rate)) <= delta


def _require(
    n_releases: npt.ArrayLike, delta: float, sampling_rate: float, neighbours: Relation
) -> None:
    require_counts(error=InvalidPrivacyError, n_releases=n_releases)
    require_between(0, 1, error=InvalidPrivacyError, delta=delta)
    require_sampling(sampling_rate, neighbours)


def require_sampling(sampling_rate: float, neighbours: Relation) -> None:
    """Raise InvalidPrivacyError for an invalid sampling rate or relation."""
    require_one_of(Relation, error=InvalidPrivacyError, neighbours=neighbours)
    if not LEAST_RATE <= sampling_rate <= 1:
        raise InvalidPrivacyError(
            f"sampling_rate must be from {LEAST_RATE:g} to 1, but is {sampling_rate:g}."
        )


class _Sampled(NamedTuple):
    """Sampling of releases, and the delta at which they are evaluated; a key of the tables."""

    rate: float
    delta: float
    neighbours: Relation

    @property
    def most_octave(self) -> int:
        """The last octave with a table; above it the closed form without sampling is the bound."""
        return math.floor(math.log2(self.rate)) + _LEAST_RATIO


def _mu(sampled: _Sampled, multiplier: Floats, n_releases: int) -> Floats:
    """Return an upper bound of the mu of the single release equivalent to n sampled ones."""
    mu: Floats = np.sqrt(n_releases) / multiplier  # without sampling: an upper bound
    octave = np.floor(np.log2(multiplier)).astype(int)
    known = (octave >= _LEAST_OCTAVE) & (octave <= sampled.most_octave)
    for index in np.unique(octave[known]).tolist():
        inside = octave == index
        found = np.exp(_log_mu(sampled, index, n_releases, np.log2(multiplier[inside]) - index))
        mu[inside] = np.minimum(mu[inside], found)
    return mu


def _inverse(sampled: _Sampled, unsampled: Floats, n_releases: int) -> Floats:
    """Return the multipliers equivalent to ``unsampled`` ones without sampling."""
    if unsampled.size == 0:
        return unsampled
    with np.errstate(divide="ignore"):  # infinite noise
        target = np.log(np.sqrt(n_releases) / unsampled)
    # ends of octaves, downwards from one with enough noise for the smallest target
    first = np.ceil(np.log2(unsampled.max()))
    octaves = [int(np.clip(first, _LEAST_OCTAVE, sampled.most_octave))]
    ends = [_log_mu_at_end(sampled, octaves[0], n_releases)]
    while ends[-1] < target.max() and octaves[-1] > _LEAST_OCTAVE:
        octaves.append(octaves[-1] - 1)
        ends.append(_log_mu_at_end(sampled, octaves[-1], n_releases))
    place = np.searchsorted(np.maximum.accumulate(ends), target)  # ends[place] >= target
    # beyond the table's end, both its end and the closed form have enough noise
    multiplier = np.minimum(unsampled, 2.0**_LEAST_OCTAVE)
    for index in np.unique(place[place < len(ends)]).tolist():
        inside = place == index

        def excess(u: Floats, wanted: Floats, octave: int = octaves[index]) -> Floats:
            return _log_mu(sampled, octave, n_releases, u.ravel()).reshape(u.shape) - wanted

        found = elementwise.find_root(excess, (0.0, 1.0), args=(target[inside],))
        # outside the octave by rounding: its upper end has enough noise
        multiplier[inside] = 2.0 ** (octaves[index] + np.where(found.success, found.x, 1.0))
    return np.where(target < ends[0], unsampled, np.minimum(multiplier, unsampled))


def _log_mu_at_end(sampled: _Sampled, octave: int, n_releases: int) -> float:
    return float(_between_counts(n_releases, lambda n: _log_mu_of(sampled, 2.0**octave, n)))


def _log_mu(sampled: _Sampled, octave: int, n_releases: int, u: Floats) -> Floats:
    """Return ln(mu) at the multipliers ``2**(octave + u)`` for u in [0, 1]."""
    return np.asarray(
        _between_counts(n_releases, lambda n: np.asarray(_table(sampled, octave, n)(u)))
    )


def _between_counts(n_releases: int, log_mu: Callable[[int], Any]) -> Any:
    """Interpolate in ln(n) between counts with three binary digits, and add the margin.

    mu grows like sqrt(n) times a factor that converges: against ln(n), ln(mu) is almost linear.
    """
    step = 1 << max(n_releases.bit_length() - 3, 0)
    below = n_releases // step * step
    value = log_mu(below)
    if below < n_releases:
        share = np.log(n_releases / below) / np.log((below + step) / below)
        value = (1 - share) * value + share * log_mu(below + step)
    return value + np.log1p(SAMPLED_TOLERANCE)


@lru_cache(maxsize=4096)
def _table(sampled: _Sampled, octave: int, n_releases: int) -> Chebyshev:
    """Interpolate ln(mu) in an octave of multipliers, with as many points as necessary.

    Points are added until the polynomial predicts those between its own to well within the margin;
    the final one also passes through these. If that is never reached, it is raised by its largest
    error.
    """
    known: dict[float, float] = {}
    table, off = Chebyshev([np.inf]), np.inf
    for degree in _DEGREES:
        points = ((1 - np.cos(np.pi * np.arange(degree + 1) / degree)) / 2).round(12)
        for u in points.tolist():
            if u not in known:
                known[u] = _log_mu_of(sampled, 2.0 ** (octave + u), n_releases)
        values = np.array([known[u] for u in points.tolist()])
        off = float(np.abs(table(points) - values).max())
        table = Chebyshev.fit(points, values, degree, domain=[0, 1])
        if off < SAMPLED_TOLERANCE / 2:
            return table
    return table + off


@lru_cache(maxsize=65536)  # octaves share their ends
def _log_mu_of(sampled: _Sampled, multiplier: float, n_releases: int) -> float:
    """Return ln(mu) by PLD: an upper bound, because losses are rounded up."""
    with np.errstate(all="ignore"):  # overflowing values are larger than their bounds
        interval = _interval(sampled.rate, sampled.neighbours, multiplier)
        loss = _loss(sampled.rate, sampled.neighbours, multiplier, interval)
        if n_releases > 1:
            loss = loss.self_compose(n_releases)
        epsilon, delta = loss.get_epsilon_for_delta(sampled.delta), sampled.delta
        if epsilon <= 0:  # delta alone covers it; the rest of delta is used instead
            epsilon, delta = 0.0, loss.get_delta_for_epsilon(0.0)
    highest = np.log(np.sqrt(n_releases) / multiplier)
    if not (np.isfinite(epsilon) and 0 < delta < 1):
        return float(highest)
    return float(min(highest, -np.log(gaussian_sigma(epsilon, delta))))


def _interval(rate: float, neighbours: Relation, multiplier: float) -> float:
    """Return the spacing of a privacy loss's values at which rounding up has little effect."""
    std = 2 * multiplier if neighbours == "replace-one" else multiplier
    reach = 10 / std + 0.5 / std**2
    span = np.log1p(rate * np.expm1(reach)) if reach < 700 else reach + np.log(rate)
    return float(max(min(span / 2**11, rate / std / 16 if std > 0.5 else span), span / 2**16))


@lru_cache(maxsize=256)
def _loss(rate: float, neighbours: Relation, multiplier: float, interval: float) -> Any:
    """Return the privacy loss distribution of one sampled release.

    dp-accounting measures noise in clipping norms, and a replaced record moves a sum by two.
    """
    try:
        from dp_accounting import NeighboringRelation
        from dp_accounting.pld import privacy_loss_distribution
    except ImportError:
        raise MissingExtraError(
            "Accounting for sampled data needs dp-accounting, which is not installed: "
            "pip install 'fcfn-abm[train]'; or use a sampling rate of 1."
        ) from None
    replaced = neighbours == "replace-one"
    return privacy_loss_distribution.from_gaussian_mechanism(
        2 * multiplier if replaced else multiplier,
        sampling_prob=rate,
        value_discretization_interval=interval,
        neighboring_relation=(
            NeighboringRelation.REPLACE_ONE if replaced else NeighboringRelation.REPLACE_SPECIAL
        ),
    )
