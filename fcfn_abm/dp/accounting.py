"""What many releases cost together: exactly, or closely and on the safe side where data is sampled.

A node that uses all of its data in every release has a closed form. With Poisson-sampled data the
cost is found by dp-accounting's privacy loss distributions (PLD), tabulated so that thousands of
nodes are done at once. The table holds, for a multiplier z and n releases, the ``mu`` of the one
Gaussian release that has the same epsilon at this delta: ``sqrt(n) / z`` without sampling, close
to ``q sqrt(n) / z`` with much noise, and smooth between.
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
"""Sampled releases are charged this much more ``mu``, as a share of it, than the table says."""

LEAST_RATE = 1e-6
"""Smallest sampling rate: below it losses drown in rounding, and nodes' records are hardly drawn.
"""

_MOST_RATE = 1 - 1e-9  # above it sampling saves less than dp-accounting can tell
_LEAST_RATIO = 24  # octaves from a rate to the multipliers whose losses drown in rounding
_LEAST_OCTAVE = -6  # below a multiplier of 2**-6 the closed form without sampling is the bound
_MOST_RUNS = 8  # of releases with different noise that are composed one by one
_FINEST_STEP = 1 / 16  # octaves between the multipliers that more of them are rounded down to
_DEGREES = (2, 4, 8, 16, 32)  # of the polynomial in one octave of multipliers; points are nested


def multiplier_for_releases(
    epsilon: npt.ArrayLike,
    delta: float,
    n_releases: int,
    calibration: Calibration = "analytic",
    sampling_rate: float = 1.0,
    neighbours: Relation = "zero-out",
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
        See :func:`fcfn_abm.gaussian_sigma`; of the one release that all together are worth.
    sampling_rate : float, default 1.0
        Probability with which each record takes part in a release, independently of all others.
    neighbours : {"zero-out", "replace-one"}, default "zero-out"
        What the multiplier's sensitivity refers to; matters with sampling only.

    Returns
    -------
    ndarray of float, shape (n,)
        Noise standard deviation over L2 sensitivity, for one release; infinite where
        ``epsilon`` is zero, since such a node releases nothing.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.
    MissingExtraError
        With sampling, if dp-accounting is not installed.

    Notes
    -----
    Gaussian releases with multipliers z_t compose to exactly one with
    ``1 / z**2 = sum_t 1 / z_t**2``, so each of T equal ones takes sqrt(T) times the noise.
    Sampled releases get 0.1 to 0.5 % more noise than they need, never less.

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
    with np.errstate(over="ignore"):  # noise beyond the range of floats is infinite
        multiplier[some] = np.sqrt(n_releases) * gaussian_sigma(
            epsilon[some], delta, calibration=calibration
        )
    if sampling_rate < _MOST_RATE:
        sampled = _Sampled(sampling_rate, delta, neighbours)
        multiplier[some] = _inverse(sampled, multiplier[some], n_releases)
    return multiplier


def multiplier_for_zcdp(zcdp_rho: npt.ArrayLike, n_releases: int) -> Floats:
    """Return the noise multiplier of each release so that all together cost a rho of zCDP.

    Parameters
    ----------
    zcdp_rho : array_like of float, shape (n,)
        What each node may spend in all releases together, dimensionless; zero or positive. It is
        not the unit cost that is called rho elsewhere.
    n_releases : int
        How many times each node releases something, with all of its data.

    Returns
    -------
    ndarray of float, shape (n,)
        ``sqrt(n_releases / (2 zcdp_rho))``: noise standard deviation over L2 sensitivity, for one
        release; infinite where nothing is spent.

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
    """Return the rho of zCDP of some equal Gaussian releases with all data: it adds up exactly.

    Parameters
    ----------
    noise_multiplier : array_like of float, shape (n,)
        Noise standard deviation over L2 sensitivity of one release; infinite for none.
    n_releases : int, or array_like of int, shape (n,)
        How many releases there are.

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
        Noise standard deviation over L2 sensitivity of one release; infinite for none.
    n_releases : int, or array_like of int, shape (n,)
        How many releases there are.
    delta : float
        Probability with which the guarantee may fail.
    sampling_rate : float, default 1.0
        Probability with which each record takes part in a release, independently of all others.
    neighbours : {"zero-out", "replace-one"}, default "zero-out"
        What the multiplier's sensitivity refers to; matters with sampling only.

    Returns
    -------
    ndarray of float, shape (n,)
        Privacy spent, dimensionless; zero where the multiplier is infinite, and where a record is
        drawn at all with a probability of at most delta, ``1 - (1 - q)**n <= delta``. Exact without
        sampling; with it never too small, and too large by 0.1 to 0.5 %.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.
    MissingExtraError
        With sampling, if dp-accounting is not installed.

    Notes
    -----
    One record moves the sum by u or by v if it is replaced, and is drawn with probability q. The
    worst pair is ``(1-q) N(0) + q N(u)`` against ``(1-q) N(0) + q N(-u)`` with u as long as the
    clipping norm: a hockey-stick divergence is the mean of a convex function of
    ``q L_u + (-e**epsilon q L_v)`` with log-normal likelihood ratios L, which is largest in convex
    order where its two terms are comonotone (u and v opposite) and widest. A record that goes has
    the worst pair of Zhu, Dong and Wang.

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
    """Return the true epsilon of sampled releases whose noise changed on the way.

    Parameters
    ----------
    runs : sequence of (float, int)
        Noise multiplier of some equal releases, and how many of them there are; in any order.
    delta : float
        Probability with which the guarantee may fail.
    sampling_rate : float
        Probability with which each record takes part in a release, independently of all others.
    neighbours : {"zero-out", "replace-one"}, default "zero-out"
        What the multipliers' sensitivity refers to.

    Returns
    -------
    float
        Privacy spent, dimensionless; never too small. Up to eight different multipliers are
        composed as they are; more are rounded down, to at most eight.

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
    # as if all releases had the least noise: the bound that does not compose anything
    n_releases, least = sum(counts.values()), min(counts)
    (bound,) = spent_epsilon([least], n_releases, delta, sampling_rate, neighbours).tolist()
    if len(counts) == 1 or bound == 0:
        return float(bound)
    step = _FINEST_STEP
    while len(counts) > _MOST_RUNS:
        rounded: dict[float, int] = {}
        for multiplier, n in counts.items():
            below = 2.0 ** (math.floor(math.log2(multiplier) / step) * step)
            below = min(below, multiplier)  # whatever the last digit says
            rounded[below] = rounded.get(below, 0) + n
        counts, step = rounded, 2 * step
    sampled = _Sampled(sampling_rate, delta, neighbours)
    return min(float(bound), _composed_epsilon(sampled, tuple(sorted(counts.items()))))


@lru_cache(maxsize=65536)  # a ledger asks again in every round, and nodes of one noise are alike
def _composed_epsilon(sampled: _Sampled, runs: tuple[tuple[float, int], ...]) -> float:
    """Return the epsilon of runs of equal releases, as PLD finds it: an upper bound."""
    intervals = [_interval(sampled.rate, sampled.neighbours, multiplier) for multiplier, _ in runs]
    # as fine as the narrowest loss asks for, unless the widest would then fill the memory
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
    """Return whether a record is drawn in some release with a probability of at most delta.

    Where it is never drawn its neighbour tells the same: then epsilon is zero.
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
    """Raise InvalidPrivacyError for a sampling rate or a relation that is not allowed."""
    require_one_of(Relation, error=InvalidPrivacyError, neighbours=neighbours)
    if not LEAST_RATE <= sampling_rate <= 1:
        raise InvalidPrivacyError(
            f"sampling_rate must be {LEAST_RATE:g} or more and not above 1, but is "
            f"{sampling_rate:g}."
        )


class _Sampled(NamedTuple):
    """How releases are sampled, and at which delta they are judged; a key of the tables."""

    rate: float
    delta: float
    neighbours: Relation

    @property
    def most_octave(self) -> int:
        """The last one with a table: above it the closed form without sampling is the bound."""
        return math.floor(math.log2(self.rate)) + _LEAST_RATIO


def _mu(sampled: _Sampled, multiplier: Floats, n_releases: int) -> Floats:
    """Return the mu of the one release that n sampled ones are worth, on the safe side."""
    mu: Floats = np.sqrt(n_releases) / multiplier  # without sampling: an upper bound
    octave = np.floor(np.log2(multiplier)).astype(int)
    known = (octave >= _LEAST_OCTAVE) & (octave <= sampled.most_octave)
    for index in np.unique(octave[known]).tolist():
        inside = octave == index
        found = np.exp(_log_mu(sampled, index, n_releases, np.log2(multiplier[inside]) - index))
        mu[inside] = np.minimum(mu[inside], found)
    return mu


def _inverse(sampled: _Sampled, unsampled: Floats, n_releases: int) -> Floats:
    """Return the multipliers that are worth what ``unsampled`` ones are without sampling."""
    if unsampled.size == 0:
        return unsampled
    with np.errstate(divide="ignore"):  # infinite noise
        target = np.log(np.sqrt(n_releases) / unsampled)
    # ends of octaves, from one with noise enough for the least target downwards
    first = np.ceil(np.log2(unsampled.max()))
    octaves = [int(np.clip(first, _LEAST_OCTAVE, sampled.most_octave))]
    ends = [_log_mu_at_end(sampled, octaves[0], n_releases)]
    while ends[-1] < target.max() and octaves[-1] > _LEAST_OCTAVE:
        octaves.append(octaves[-1] - 1)
        ends.append(_log_mu_at_end(sampled, octaves[-1], n_releases))
    place = np.searchsorted(np.maximum.accumulate(ends), target)  # ends[place] >= target
    # beyond the table's end both its end and the closed form have noise enough
    multiplier = np.minimum(unsampled, 2.0**_LEAST_OCTAVE)
    for index in np.unique(place[place < len(ends)]).tolist():
        inside = place == index

        def excess(u: Floats, wanted: Floats, octave: int = octaves[index]) -> Floats:
            return _log_mu(sampled, octave, n_releases, u.ravel()).reshape(u.shape) - wanted

        found = elementwise.find_root(excess, (0.0, 1.0), args=(target[inside],))
        # just outside the octave by rounding: its upper end has noise enough
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
    """Interpolate in ln(n) between the counts that have three binary digits, and add the margin.

    mu grows like sqrt(n) times a factor that settles: against ln(n), ln(mu) is nearly straight.
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
    """Interpolate ln(mu) in an octave of multipliers, with as many points as it takes.

    Points are added until the polynomial foretells those between its own to well within the
    margin; the one that is used then goes through them as well. Should that never come to pass, it
    is lifted by what it was off.
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
    """Return ln(mu) as PLD finds it: an upper bound, since losses are rounded up."""
    with np.errstate(all="ignore"):  # what overflows there is larger than what it is compared with
        interval = _interval(sampled.rate, sampled.neighbours, multiplier)
        loss = _loss(sampled.rate, sampled.neighbours, multiplier, interval)
        if n_releases > 1:
            loss = loss.self_compose(n_releases)
        epsilon, delta = loss.get_epsilon_for_delta(sampled.delta), sampled.delta
        if epsilon <= 0:  # delta alone covers it; what is left of it is a measure too
            epsilon, delta = 0.0, loss.get_delta_for_epsilon(0.0)
    highest = np.log(np.sqrt(n_releases) / multiplier)
    if not (np.isfinite(epsilon) and 0 < delta < 1):
        return float(highest)
    return float(min(highest, -np.log(gaussian_sigma(epsilon, delta))))


def _interval(rate: float, neighbours: Relation, multiplier: float) -> float:
    """Return how far apart the values of a privacy loss may lie: rounding up then costs little."""
    std = 2 * multiplier if neighbours == "replace-one" else multiplier
    reach = 10 / std + 0.5 / std**2
    span = np.log1p(rate * np.expm1(reach)) if reach < 700 else reach + np.log(rate)
    return float(max(min(span / 2**11, rate / std / 16 if std > 0.5 else span), span / 2**16))


@lru_cache(maxsize=256)
def _loss(rate: float, neighbours: Relation, multiplier: float, interval: float) -> Any:
    """Return the privacy loss distribution of one sampled release.

    dp-accounting counts noise in clipping norms, and a replaced record moves a sum by two.
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
