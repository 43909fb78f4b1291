"""Audits: lower bounds on epsilon, from what an attacker learns about actual releases.

The game: a mechanism runs many times on a data set and on a neighbour of it, with new noise each
time; the attacker converts each observation to a score. If the scores distinguish the two too well,
the claim is false. The mechanism is passed as a callable, so that the actual training code is
attacked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtr, ndtri
from scipy.stats import binom, norm

from fcfn_abm.dp.calibration import gaussian_epsilon
from fcfn_abm.errors import (
    InvalidPrivacyError,
    RunFailedError,
    require_between,
    require_one_of,
    require_positive,
)

type Floats = npt.NDArray[np.float64]
type Singles = npt.NDArray[np.float32]
type Ints = npt.NDArray[np.int64]
type View = Literal["local", "central", "late"]
type Verdict = Literal["holds", "broken"]

FEWEST_TRIALS = 100
MOST_TRIALS = 10_000_000
USUAL_SHARE = 0.8
"""Share of the risk for the standard attacker; those that search for structure share the rest."""

_MOST_SCOUTED = 2**23  # largest amount of numbers in the releases used to choose directions
_MOST_PAIRED = 2000  # largest number of coordinates of which all pairs are tried


@dataclass(frozen=True)
class LowerBounds:
    """Lower bounds of epsilon, which hold simultaneously at the stated confidence.

    Zero if nothing is proven, as for the second and third with noise that is not Gaussian.
    """

    any_mechanism: float
    """Without assumptions, from the attacker's error rates."""
    gdp: float
    """From the same error rates, for a mechanism that is mu-GDP for some mu, as Gaussian noise
    is."""
    gaussian: float
    """From the moments of the scores, if they are Gaussian with equal variances, which is mu-GDP
    with mu = gap / std; the only bound that can reach any epsilon, because n trials cannot show
    error rates below about 1 / n."""

    @property
    def largest(self) -> float:
        """The largest of the bounds."""
        return max(self.any_mechanism, self.gdp, self.gaussian)


@dataclass(frozen=True)
class Audit:
    """A claim, and the results of attacks on it."""

    view: View
    """View of the claim: "local", an observer of a node's own messages; "central", a server that
    sees only the sum; "late", that server, for a node whose update arrives too late."""
    epsilon: float
    """The claimed epsilon, dimensionless."""
    delta: float
    """The claimed delta."""
    lower: LowerBounds
    """Lower bounds of the attacker with the largest bound."""
    attacker: str
    """Direction of that attacker."""
    n_trials: int
    """Number of runs of the mechanism, half of them on each data set."""
    confidence: float
    """Probability that no lower bound of any attacker exceeds the true epsilon."""

    def __post_init__(self) -> None:
        """Raise InvalidPrivacyError for an unknown view."""
        require_one_of(View, error=InvalidPrivacyError, view=self.view)

    @property
    def verdict(self) -> Verdict:
        """Whether the claim holds: "broken" if a lower bound exceeds it."""
        return "broken" if self.lower.largest > self.epsilon else "holds"


class Seen(NamedTuple):
    """An attacker's observation of one run, as vectors of equal length."""

    released: Floats
    """The release, minus the midpoint of the noiseless releases of both data sets."""
    difference: Floats
    """Noiseless release of the data set, minus that of its neighbour."""


type Attack = Callable[[bool], Seen]


@dataclass(frozen=True)
class Direction:
    """Weights of the numbers of a release, which convert it to a score."""

    name: str
    weigh: Callable[[Floats], Floats]
    """Maps the difference of the two data sets to weights; zeros if it has no effect there."""


def audit(
    attack: Attack,
    epsilon: float,
    delta: float,
    *,
    blocks: Sequence[Ints] = (),
    view: View = "local",
    trials: int = 10_000,
    confidence: float = 0.999,
    gaussian: bool = True,
    on_trial: Callable[[], object] | None = None,
) -> Audit:
    """Test the claim that a mechanism is (epsilon, delta)-DP.

    Parameters
    ----------
    attack : callable
        Runs the mechanism once with new noise, on the data set (True) or its neighbour (False), and
        returns the attacker's observation.
    epsilon, delta : float
        The claim.
    blocks : sequence of ndarray of int
        Coordinates that belong together, such as those of a layer, which are also attacked alone.
    view : {"local", "central", "late"}, default "local"
        View of the claim.
    trials : int, default 10,000
        Number of runs of the mechanism, half of them on each data set, in addition to a few runs
        for choosing directions.
    confidence : float, default 0.999
        Probability that no lower bound exceeds the true epsilon.
    gaussian : bool, default True
        Whether the claim assumes Gaussian noise, so that all three bounds apply.
    on_trial : callable, optional
        Called after each trial, for progress.

    Returns
    -------
    Audit
        The bounds and the verdict.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range, or the view is unknown.
    RunFailedError
        If a release is not finite.
    """
    require_one_of(View, error=InvalidPrivacyError, view=view)
    require_positive(error=InvalidPrivacyError, epsilon=epsilon)
    require_between(0, 1, error=InvalidPrivacyError, delta=delta, confidence=confidence)
    require_trials(trials)
    directions = _scout(attack, blocks)
    weights: Floats | None = None
    weighed: Floats | None = None
    scores = np.empty((2, trials // 2, len(directions)))
    for trial in range(trials // 2):
        for side, present in enumerate((True, False)):
            seen = attack(present)
            if weights is None or seen.difference is not weighed:
                weights, weighed = _weigh(directions, seen.difference), seen.difference
            scores[side, trial] = weights @ seen.released
            if on_trial:
                on_trial()
    if not np.isfinite(scores).all():
        raise RunFailedError("the audited step returned an update that is not finite.")
    attacker, lower = bounds_of_attackers(
        [direction.name for direction in directions],
        list(zip(scores[0].T, scores[1].T, strict=True)),
        delta,
        confidence,
        gaussian=gaussian,
    )
    return Audit(view, epsilon, delta, lower, attacker, 2 * scores.shape[1], confidence)


def require_trials(trials: int) -> None:
    """Raise InvalidPrivacyError for too few or too many trials."""
    if trials < FEWEST_TRIALS:
        raise InvalidPrivacyError(f"trials must be at least {FEWEST_TRIALS}, but is {trials}.")
    if trials > MOST_TRIALS:
        raise InvalidPrivacyError(f"trials must be at most {MOST_TRIALS:,}, but is {trials:,}.")


def _scout(attack: Attack, blocks: Sequence[Ints]) -> list[Direction]:
    """Choose directions by a few runs, which are not counted."""
    seen = attack(True)
    n_scouts = int(np.clip(_MOST_SCOUTED // seen.released.size, 4, 60))
    noise = np.empty((n_scouts, seen.released.size), dtype=np.float32)
    scale = float(np.abs(seen.released).max()) or 1.0  # keeps squares within float32
    for row in noise:
        row[:] = (seen.released - seen.difference / 2) / scale
        seen = attack(True)
    return choose_directions(noise, seen.difference, blocks)


def _weigh(directions: Sequence[Direction], difference: Floats) -> Floats:
    """Return weights with norm one, or zero, one row per direction."""
    rows = np.array([direction.weigh(difference) for direction in directions])
    largest = np.abs(rows).max(
        axis=1, keepdims=True
    )  # scaled first, so that squares cannot overflow
    rows /= np.where(largest > 0, largest, 1.0)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300))


def choose_directions(
    noise: Singles, difference: Floats, blocks: Sequence[Ints] = ()
) -> list[Direction]:
    """Choose the directions along which an attacker projects releases.

    Parameters
    ----------
    noise : ndarray of float32, shape (n, size)
        Noise of some releases, in any unit, which are not scored.
    difference : ndarray of float, shape (size,)
        Difference of the releases of two neighbouring data sets.
    blocks : sequence of ndarray of int
        Coordinates of each layer's weights, and of its biases.

    Returns
    -------
    list of Direction
        The first is the standard one, along the difference: for independent noise with equal
        variances it is optimal. The others exploit structure: repeated noise is cancelled, and
        coordinates with missing or little noise are used alone.
    """
    size = difference.size
    directions = [Direction("usual", lambda d: d)]
    everything = np.arange(size)
    if size >= 2:
        half = size // 2
        directions.append(_cancel("second half less first half", everything, half, 1.0))
        lag, sign = find_lag(noise)
        directions.append(_cancel(f"numbers {lag:,} apart", everything, lag, sign))
        directions.append(_of_two_coordinates(noise, difference))
    spread = np.sqrt((noise.astype(float) ** 2).mean(axis=0))
    seen = np.abs(difference) / np.maximum(spread, spread.max() * 1e-9 or 1.0)
    few = np.argsort(-seen, kind="stable")[: max(size // 100, 1)]
    directions.append(_project("sparse", few))
    for number, block in enumerate(blocks, start=1):
        directions.append(_project(f"block {number} alone", block))
        if block.size >= 2:
            directions.append(_cancel(f"halves of block {number}", block, block.size // 2, 1.0))
    return directions


def _project(name: str, places: Ints) -> Direction:
    """Return the direction along the difference, restricted to some coordinates."""

    def weigh(difference: Floats) -> Floats:
        weights = np.zeros(difference.size)
        weights[places] = difference[places]
        return weights

    return Direction(name, weigh)


def _cancel(name: str, places: Ints, lag: int, sign: float) -> Direction:
    """Return a direction that cancels noise repeated, or negated, at a distance ``lag``."""
    first = np.flatnonzero((np.arange(places.size) // lag % 2 == 0)[: places.size - lag])
    return _of_pairs(name, places[first], places[first + lag], sign)


def _of_pairs(name: str, first: Ints, second: Ints, sign: float) -> Direction:
    def weigh(difference: Floats) -> Floats:
        weights = np.zeros(difference.size)
        apart = difference[first] - sign * difference[second]
        weights[first] = apart
        weights[second] = -sign * apart
        return weights

    return Direction(name, weigh)


def _of_two_coordinates(noise: Singles, difference: Floats) -> Direction:
    """Return the direction of the two coordinates with the most similar noise."""
    most = np.sort(np.argsort(-np.abs(difference), kind="stable")[:_MOST_PAIRED])
    columns = noise[:, most].astype(float)
    columns /= np.maximum(np.linalg.norm(columns, axis=0), 1e-30)
    alike = columns.T @ columns
    np.fill_diagonal(alike, 0.0)
    one, other = np.unravel_index(int(np.abs(alike).argmax()), alike.shape)
    sign = float(np.sign(alike[one, other])) or 1.0
    return _of_pairs("two coordinates", most[[one]], most[[other]], sign)


def find_lag(rows: npt.NDArray[Any]) -> tuple[int, float]:
    """Return the distance with the largest autocorrelation of rows, and its sign.

    Parameters
    ----------
    rows : ndarray of float, shape (n, size)
        Rows of independent or repeated numbers; size >= 2.

    Returns
    -------
    lag : int
        From 1 to size - 1; with the largest autocorrelation in standard errors.
    sign : float
        1 for a positive correlation, -1 for a negative one.
    """
    size = rows.shape[1]
    total = np.zeros(size + 1)
    for row in rows:
        spectrum = np.fft.rfft(row, 2 * size)
        total += np.fft.irfft(np.abs(spectrum) ** 2)[: size + 1]
    by_lag = total[1:size] / np.sqrt(np.arange(size - 1, 0, -1))
    lag = int(np.abs(by_lag).argmax())
    return lag + 1, float(np.sign(by_lag[lag])) or 1.0


def bounds_of_attackers(
    names: Sequence[str],
    scores: Sequence[tuple[Floats, Floats]],
    delta: float,
    confidence: float,
    *,
    gaussian: bool = True,
) -> tuple[str, LowerBounds]:
    """Return the attacker with the largest bound, and its bounds; all hold simultaneously.

    Parameters
    ----------
    names : sequence of str
        Names of the attackers; the first one has :data:`USUAL_SHARE` of the risk.
    scores : sequence of (ndarray, ndarray)
        Scores of each attacker on the data set, and on its neighbour.
    delta, confidence, gaussian
        As for :func:`lower_bounds`.
    """
    risk, n_others = 1 - confidence, len(names) - 1
    shares = [1.0] if n_others == 0 else [USUAL_SHARE] + n_others * [(1 - USUAL_SHARE) / n_others]
    found = [
        lower_bounds(*pair, delta, 1 - risk * share, gaussian=gaussian)
        for pair, share in zip(scores, shares, strict=True)
    ]
    best = int(np.argmax([bounds.largest for bounds in found]))
    return names[best], found[best]


def lower_bounds(
    present: Floats, absent: Floats, delta: float, confidence: float, *, gaussian: bool = True
) -> LowerBounds:
    """Bound epsilon from below by scores of many independent trials.

    Parameters
    ----------
    present, absent : ndarray of float, shapes (n,) and (m,)
        Scores on the data set, and on its neighbour; at least ten of each.
    delta : float
        Delta of the claim.
    confidence : float
        Probability that no bound exceeds the true epsilon; each bound uses a third of the rest.
    gaussian : bool, default True
        Whether the claim assumes Gaussian noise, so that the second and third bound apply.

    Returns
    -------
    LowerBounds
        Zero if nothing is proven.

    Notes
    -----
    A third of the trials selects thresholds, the others count errors above and below them: with
    Clopper-Pearson bounds FPR and FNR, (epsilon, delta)-DP implies ``FPR >= exp(-epsilon) (1 -
    delta - FNR)`` and the same with both exchanged, and mu-GDP implies ``mu >= Phi^-1(1 - FPR) -
    Phi^-1(FNR)``. The third bound is the lower confidence limit of ``mu = gap / std``: if scores
    are Gaussian with equal variances, the t statistic follows the noncentral t distribution, whose
    normal approximation (Abramowitz and Stegun, 26.7.10) is used.

    References
    ----------
    Nasr et al. 2023, "Tight auditing of differentially private machine learning"; Dong, Roth and
    Su 2022, "Gaussian differential privacy".
    """
    risk = (1 - confidence) / 3
    scouts = len(present) // 3, len(absent) // 3
    here, there = present[: scouts[0]], absent[: scouts[1]]
    thresholds = np.linspace(min(here.min(), there.min()), max(here.max(), there.max()), 1001)
    fpr, fnr = _count_rates(present[scouts[0] :], absent[scouts[1] :], thresholds, risk / 2)
    best = np.argmax(_any_epsilon(*_count_rates(here, there, thresholds, risk / 2), delta))
    any_mechanism = max(float(_any_epsilon(fpr, fnr, delta)[best]), 0.0)
    if not gaussian:
        return LowerBounds(any_mechanism, 0.0, 0.0)
    n = min(len(present), len(absent))
    best = np.argmax(_mu(*_fit_rates(here, there, thresholds, n, risk / 2)))
    mu = max(float(_mu(fpr, fnr)[best]), 0.0)
    moments = _mu_of_moments(present, absent, risk)
    return LowerBounds(any_mechanism, _epsilon_of(mu, delta), _epsilon_of(moments, delta))


def one_run_epsilon(scores: Floats, present: npt.NDArray[Any], delta: float, risk: float) -> float:
    """Bound epsilon from below by one run on a data set with many randomly included records.

    Parameters
    ----------
    scores : ndarray of float, shape (n,)
        Score of each canary, larger if the attacker believes that it was included.
    present : ndarray of bool, shape (n,)
        Whether each canary was included, by fair and independent coins.
    delta : float
        Delta of the claim.
    risk : float
        Probability that the bound exceeds the true epsilon.

    Returns
    -------
    float
        Assumes nothing about the mechanism, not even independent scores.

    Notes
    -----
    The attacker guesses the coins of the canaries with the largest and the smallest scores. Under
    (epsilon, delta)-DP the number of correct guesses among r is stochastically dominated by a
    binomial one with rate ``e**epsilon / (1 + e**epsilon)``, plus a term for delta. Several r are
    tried, each with its share of the risk.

    References
    ----------
    Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run", Theorem 5.2.
    """
    n = len(scores)
    order = np.argsort(scores - np.median(scores), kind="stable")
    sizes = sorted({max(n >> shift, 1) for shift in range(8)})
    bounds = []
    for r in sizes:
        low, high = order[: r // 2], order[n - (r - r // 2) :]
        right = int((~present[low]).sum() + present[high].sum())
        bounds.append(_epsilon_of_guesses(n, r, right, delta, risk / len(sizes)))
    return max(bounds)


def _epsilon_of_guesses(n: int, r: int, right: int, delta: float, risk: float) -> float:
    """Return the largest epsilon for which ``right`` guesses are less likely than ``risk``."""

    def chance(epsilon: float) -> float:
        rate = 1 / (1 + math.exp(-epsilon))
        more = binom.sf(right - 1, r, rate)
        below = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), r, rate))
        lift = (below / np.arange(1, right + 1)).max(initial=0.0)
        return float(more + 2 * n * delta * lift)

    low, high = 0.0, 40.0
    if chance(low) >= risk:
        return 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) < risk else (low, middle)
    return low


def _fit_rates(
    present: Floats, absent: Floats, thresholds: Floats, n: int, risk: float
) -> tuple[Floats, Floats]:
    """Return the bounds expected from n trials, by normal distributions fitted to a few of them.

    Used only to choose a threshold; counted rates would favour lucky thresholds.
    """
    std = np.sqrt((present.var() + absent.var()) / 2) or 1.0
    alarms = n * ndtr((absent.mean() - thresholds) / std)
    misses = n * ndtr((thresholds - present.mean()) / std)
    return _upper(alarms, n, risk), _upper(misses, n, risk)


def _count_rates(
    present: Floats, absent: Floats, thresholds: Floats, risk: float
) -> tuple[Floats, Floats]:
    """Return upper bounds of false positive and false negative rate, each wrong with ``risk``."""
    alarms = len(absent) - np.searchsorted(np.sort(absent), thresholds)
    misses = np.searchsorted(np.sort(present), thresholds)
    return _upper(alarms, len(absent), risk), _upper(misses, len(present), risk)


def _upper(count: npt.NDArray[Any], n: int, risk: float) -> Floats:
    """Return the upper Clopper-Pearson bound of a probability."""
    inner = betaincinv(count + 1, np.maximum(n - count, 1), 1 - risk)
    return np.where(count < n, inner, 1.0)


def _any_epsilon(fpr: Floats, fnr: Floats, delta: float) -> Floats:
    def one_way(rate: Floats, other: Floats) -> Floats:
        return np.log(np.maximum(1 - delta - other, 1e-300) / rate)

    return np.maximum(one_way(fpr, fnr), one_way(fnr, fpr))


def _mu(fpr: Floats, fnr: Floats) -> Floats:
    return np.asarray(-ndtri(fpr) - ndtri(fnr))


def _mu_of_moments(present: Floats, absent: Floats, risk: float) -> float:
    freedom = len(present) + len(absent) - 2
    gap = float(present.mean() - absent.mean())
    scale = float(max(np.abs(present).max(), np.abs(absent).max())) or 1.0
    squares = (((present - present.mean()) / scale) ** 2).sum()
    squares += (((absent - absent.mean()) / scale) ** 2).sum()
    std = scale * math.sqrt(squares / freedom)
    if std == 0:
        return math.inf if gap > 0 else 0.0
    width = math.sqrt(1 / len(present) + 1 / len(absent))
    t = gap / (std * width)
    lowest = t * (1 - 1 / (4 * freedom)) - norm.isf(risk) * math.sqrt(1 + t**2 / (2 * freedom))
    return max(float(lowest * width), 0.0)


def _epsilon_of(mu: float, delta: float) -> float:
    if mu in (0.0, np.inf):
        return mu
    return gaussian_epsilon(1 / mu, delta)
