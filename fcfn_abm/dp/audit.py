"""Audits: lower bounds on epsilon, from what an attacker learns about real releases.

The game: a mechanism runs many times on a data set and on a neighbour of it, with fresh noise each
time; the attacker turns what it sees into a score. What tells the two apart too well contradicts
the claim. What runs comes as a callable, so that the code of the training itself is attacked.
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
"""Part of the risk that the usual attacker has; those that look for structure share the rest."""

_MOST_SCOUTED = 2**23  # numbers of the releases that directions are chosen by
_MOST_PAIRED = 2000  # coordinates all of whose pairs are looked at


@dataclass(frozen=True)
class LowerBounds:
    """Epsilons that the mechanism exceeds, all three at once at the stated confidence.

    Zero where nothing is proven, as by the second and third of noise that is not Gaussian.
    """

    any_mechanism: float
    """Assumes nothing: from how often the attacker errs."""
    gdp: float
    """From the same errors, of a mechanism that is mu-GDP for some mu, as Gaussian noise is."""
    gaussian: float
    """From the moments of the scores, if they are Gaussian with one spread, which is mu-GDP with
    mu = gap / spread; the only one that reaches any epsilon, since n trials cannot show errors
    rarer than about 1 / n."""

    @property
    def largest(self) -> float:
        """The strongest of them."""
        return max(self.any_mechanism, self.gdp, self.gaussian)


@dataclass(frozen=True)
class Audit:
    """A claim, and what attacks make of it."""

    view: View
    """Whose view the claim is about: "local", an observer of a node's own messages; "central", a
    server that sees the sum alone; "late", that server, of a node whose update comes too late."""
    epsilon: float
    """The claim, dimensionless."""
    delta: float
    """The claim's delta."""
    lower: LowerBounds
    """What the attacker with the largest bound proved."""
    attacker: str
    """Which direction it looked along."""
    n_trials: int
    """How often the mechanism ran, half of it on each data set."""
    confidence: float
    """Probability with which no lower bound of any attacker is above the truth."""

    def __post_init__(self) -> None:
        """Raise InvalidPrivacyError for a view that is unknown."""
        require_one_of(View, error=InvalidPrivacyError, view=self.view)

    @property
    def verdict(self) -> Verdict:
        """Whether the claim stands: "broken" once a lower bound is above it."""
        return "broken" if self.lower.largest > self.epsilon else "holds"


class Seen(NamedTuple):
    """What the attacker makes of one run, vectors of one length."""

    released: Floats
    """What was released, less the middle of what both data sets would release without noise."""
    difference: Floats
    """What the data set would release without noise, less what its neighbour would."""


type Attack = Callable[[bool], Seen]


@dataclass(frozen=True)
class Direction:
    """A way to weigh the numbers of a release, which turns them into a score."""

    name: str
    weigh: Callable[[Floats], Floats]
    """From the difference of the two data sets to the weights; zeros if it has nothing to see."""


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
        Runs the mechanism once with fresh noise, on the data set (True) or its neighbour (False),
        and returns what the attacker sees.
    epsilon, delta : float
        The claim.
    blocks : sequence of ndarray of int
        Coordinates that belong together, as those of a layer: looked at one by one, too.
    view : {"local", "central", "late"}, default "local"
        Whose view the claim is about.
    trials : int, default 10,000
        How often the mechanism runs, half of it on each data set, beside a few runs by which
        directions are chosen.
    confidence : float, default 0.999
        Probability with which no lower bound is above the truth.
    gaussian : bool, default True
        Whether the claim is one of Gaussian noise, so that all three bounds apply.
    on_trial : callable, optional
        Called after each trial: for progress.

    Returns
    -------
    Audit
        Bounds and verdict.

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
    scale = float(np.abs(seen.released).max()) or 1.0  # numbers whose squares 32 bits hold
    for row in noise:
        row[:] = (seen.released - seen.difference / 2) / scale
        seen = attack(True)
    return choose_directions(noise, seen.difference, blocks)


def _weigh(directions: Sequence[Direction], difference: Floats) -> Floats:
    """Return weights of norm one, or zero, a row for each direction."""
    rows = np.array([direction.weigh(difference) for direction in directions])
    largest = np.abs(rows).max(axis=1, keepdims=True)  # first, so that squares cannot overflow
    rows /= np.where(largest > 0, largest, 1.0)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300))


def choose_directions(
    noise: Singles, difference: Floats, blocks: Sequence[Ints] = ()
) -> list[Direction]:
    """Choose the directions along which an attacker looks at releases.

    Parameters
    ----------
    noise : ndarray of float32, shape (n, size)
        Noise of some releases, in any unit, that will not be scored.
    difference : ndarray of float, shape (size,)
        What two neighbouring data sets release, one less the other.
    blocks : sequence of ndarray of int
        Coordinates of each layer's weights, and of its biases.

    Returns
    -------
    list of Direction
        The first is the usual one, along the difference: for independent noise of one spread no
        other tells more. The others see structure: where noise repeats itself, what repeats is
        taken out; where it is missing or small, the rest is left aside.
    """
    size = difference.size
    directions = [Direction("usual", lambda d: d)]
    everything = np.arange(size)
    if size >= 2:
        half = size // 2
        directions.append(_cancelling("second half less first half", everything, half, 1.0))
        lag, sign = find_lag(noise)
        directions.append(_cancelling(f"numbers {lag:,} apart", everything, lag, sign))
        directions.append(_of_two_coordinates(noise, difference))
    spread = np.sqrt((noise.astype(float) ** 2).mean(axis=0))
    seen = np.abs(difference) / np.maximum(spread, spread.max() * 1e-9 or 1.0)
    few = np.argsort(-seen, kind="stable")[: max(size // 100, 1)]
    directions.append(_along("sparse", few))
    for number, block in enumerate(blocks, start=1):
        directions.append(_along(f"block {number} alone", block))
        if block.size >= 2:
            directions.append(_cancelling(f"halves of block {number}", block, block.size // 2, 1.0))
    return directions


def _along(name: str, places: Ints) -> Direction:
    """Return the direction along the difference, at some coordinates alone."""

    def weigh(difference: Floats) -> Floats:
        weights = np.zeros(difference.size)
        weights[places] = difference[places]
        return weights

    return Direction(name, weigh)


def _cancelling(name: str, places: Ints, lag: int, sign: float) -> Direction:
    """Return a direction in which noise cancels that is the same, or opposite, ``lag`` further."""
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
    """Return the direction of the two coordinates whose noise is the most alike."""
    most = np.sort(np.argsort(-np.abs(difference), kind="stable")[:_MOST_PAIRED])
    columns = noise[:, most].astype(float)
    columns /= np.maximum(np.linalg.norm(columns, axis=0), 1e-30)
    alike = columns.T @ columns
    np.fill_diagonal(alike, 0.0)
    one, other = np.unravel_index(int(np.abs(alike).argmax()), alike.shape)
    sign = float(np.sign(alike[one, other])) or 1.0
    return _of_pairs("two coordinates", most[[one]], most[[other]], sign)


def find_lag(rows: npt.NDArray[Any]) -> tuple[int, float]:
    """Return the distance at which the numbers of rows are the most alike, and with which sign.

    Parameters
    ----------
    rows : ndarray of float, shape (n, size)
        Rows of independent numbers, or of those that repeat; size >= 2.

    Returns
    -------
    lag : int
        From 1 to size - 1; the largest autocorrelation in standard errors.
    sign : float
        1 if they are alike there, -1 if they are opposite.
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
    """Return the attacker with the largest bound, and its bounds; all hold at once.

    Parameters
    ----------
    names : sequence of str
        Of the attackers; the first one has :data:`USUAL_SHARE` of the risk.
    scores : sequence of (ndarray, ndarray)
        Of each attacker on the data set, and on its neighbour.
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
        Probability with which no bound is above the truth; each bound takes a third of the rest.
    gaussian : bool, default True
        Whether the claim is one of Gaussian noise, so that the second and third bound apply.

    Returns
    -------
    LowerBounds
        Zero where nothing is proven.

    Notes
    -----
    A third of the trials chooses thresholds, the others count errors above and below them: with
    Clopper-Pearson bounds FPR and FNR, (epsilon, delta)-DP needs
    ``FPR >= exp(-epsilon) (1 - delta - FNR)`` and the same with both exchanged, and mu-GDP needs
    ``mu >= Phi^-1(1 - FPR) - Phi^-1(FNR)``. The third bound is the lower confidence limit of
    ``mu = gap / std``: if scores are Gaussian with one spread, the t statistic follows the
    noncentral t law, whose normal approximation (Abramowitz and Stegun, 26.7.10) is used.

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
    best = np.argmax(_mu(*_fitted_rates(here, there, thresholds, n, risk / 2)))
    mu = max(float(_mu(fpr, fnr)[best]), 0.0)
    moments = _mu_of_moments(present, absent, risk)
    return LowerBounds(any_mechanism, _epsilon_of(mu, delta), _epsilon_of(moments, delta))


def one_run_epsilon(scores: Floats, present: npt.NDArray[Any], delta: float, risk: float) -> float:
    """Bound epsilon from below by one run on a data set of which many records were drawn by coin.

    Parameters
    ----------
    scores : ndarray of float, shape (n,)
        Of each canary, larger where the attacker believes that its coin fell heads.
    present : ndarray of bool, shape (n,)
        The coins, fair and independent.
    delta : float
        Delta of the claim.
    risk : float
        Probability with which the bound may be above the truth.

    Returns
    -------
    float
        Assumes nothing about the mechanism, nor that scores are independent.

    Notes
    -----
    The attacker guesses the coins of the canaries with the largest and the smallest scores. Under
    (epsilon, delta)-DP the number of right guesses among r is stochastically dominated by a
    binomial one with rate ``e**epsilon / (1 + e**epsilon)``, plus what delta allows. Several r are
    tried, each with its part of the risk.

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
    """Return the largest epsilon under which so many right guesses are rarer than ``risk``."""

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


def _fitted_rates(
    present: Floats, absent: Floats, thresholds: Floats, n: int, risk: float
) -> tuple[Floats, Floats]:
    """Return the bounds that n trials should give, by normal laws fitted to a few of them.

    Only the choice of a threshold rests on it; rates that were counted would be chosen for luck.
    """
    std = np.sqrt((present.var() + absent.var()) / 2) or 1.0
    alarms = n * ndtr((absent.mean() - thresholds) / std)
    misses = n * ndtr((thresholds - present.mean()) / std)
    return _upper(alarms, n, risk), _upper(misses, n, risk)


def _count_rates(
    present: Floats, absent: Floats, thresholds: Floats, risk: float
) -> tuple[Floats, Floats]:
    """Return upper bounds of false positive and false negative rate, each wrong at ``risk``."""
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
