"""Audits: attack a real training step, and say which epsilon the attack disproves.

The game: a step runs many times on a data set and on a neighbour of it, with fresh noise each
time; the attacker turns what it sees into a score. What tells the two apart too well contradicts
the claim. The step comes as a callable, so that the code of the training itself is attacked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtr, ndtri
from scipy.stats import chi2, norm

from fcfn_abm.dp.calibration import gaussian_epsilon
from fcfn_abm.dp.sensitivity import Relation
from fcfn_abm.errors import (
    InvalidPrivacyError,
    RunFailedError,
    require_between,
    require_positive,
)

if TYPE_CHECKING:
    from torch import Tensor

type Floats = npt.NDArray[np.float64]
type Gradients = Callable[[Tensor, Tensor, Tensor], Tensor]
type Clip = Callable[[Tensor], Tensor]
type Attack = Callable[[bool], float]

FEWEST_TRIALS = 100
MOST_TRIALS = 10_000_000
_PRESENT, _NEIGHBOUR = -1, -2  # labels that no real record has


@dataclass(frozen=True)
class LowerBounds:
    """Epsilons that the step exceeds, all three at once at the stated confidence.

    Zero where nothing is proven, as by the second and third of noise that is not Gaussian.
    """

    any_mechanism: float
    """Assumes nothing: from how often the attacker errs."""
    gdp: float
    """From the same errors, of a mechanism that is mu-GDP for some mu, as Gaussian noise is."""
    gaussian: float
    """From the moments of the scores, if they are Gaussian with one spread; the only one that
    reaches any epsilon, since n trials cannot show errors rarer than about 1 / n."""

    @property
    def largest(self) -> float:
        """The strongest of them."""
        return max(self.any_mechanism, self.gdp, self.gaussian)


@dataclass(frozen=True)
class Audit:
    """A claim, and what attacks make of it."""

    epsilon: float
    """The claim, dimensionless."""
    delta: float
    """The claim's delta."""
    lower: LowerBounds
    """What was proven."""
    n_trials: int
    """How often the step ran, half of it on each data set."""
    confidence: float
    """Probability with which no lower bound is above the truth."""

    @property
    def verdict(self) -> Literal["holds", "violated"]:
        """Whether the claim stands: "violated" once a lower bound is above it."""
        return "violated" if self.lower.largest > self.epsilon else "holds"


def audit(
    attack: Attack,
    epsilon: float,
    delta: float,
    *,
    trials: int = 10_000,
    confidence: float = 0.999,
    gaussian: bool = True,
    on_trial: Callable[[], object] | None = None,
) -> Audit:
    """Test the claim that a step is (epsilon, delta)-DP.

    Parameters
    ----------
    attack : callable
        Runs the step once with fresh noise, on the data set (True) or its neighbour (False), and
        returns the attacker's score, larger where it believes in the first.
    epsilon, delta : float
        The claim.
    trials : int, default 10,000
        How often the step runs, half of it on each data set.
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
        If a number is outside its range.
    RunFailedError
        If a score is not finite.
    """
    require_positive(error=InvalidPrivacyError, epsilon=epsilon)
    require_between(0, 1, error=InvalidPrivacyError, delta=delta, confidence=confidence)
    if trials < FEWEST_TRIALS:
        raise InvalidPrivacyError(f"trials must be at least {FEWEST_TRIALS}, but is {trials}.")
    if trials > MOST_TRIALS:
        raise InvalidPrivacyError(f"trials must be at most {MOST_TRIALS:,}, but is {trials:,}.")
    scores = np.empty((trials // 2, 2))
    for pair in scores:
        for side, present in enumerate((True, False)):
            pair[side] = attack(present)
            if on_trial:
                on_trial()
    if not np.isfinite(scores).all():
        raise RunFailedError("the audited step returned an update that is not finite.")
    lower = lower_bounds(scores[:, 0], scores[:, 1], delta, confidence, gaussian=gaussian)
    return Audit(epsilon, delta, lower, scores.size, confidence)


def lower_bounds(
    present: Floats, absent: Floats, delta: float, confidence: float, *, gaussian: bool = True
) -> LowerBounds:
    """Bound epsilon from below by scores of many independent trials.

    Parameters
    ----------
    present, absent : ndarray of float, shape (n,)
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
    ``mu >= Phi^-1(1 - FPR) - Phi^-1(FNR)``. The third bound is ``gap / std`` with the confidence
    limits of both: if scores are Gaussian with one spread, ``gap`` has standard error
    ``std * sqrt(2 / n)`` and ``std`` a chi-square law.

    References
    ----------
    Nasr et al. 2023, "Tight auditing of differentially private machine learning"; Dong, Roth and
    Su 2022, "Gaussian differential privacy".
    """
    risk = (1 - confidence) / 3
    scout = len(present) // 3
    here, there = present[:scout], absent[:scout]
    thresholds = np.linspace(min(here.min(), there.min()), max(here.max(), there.max()), 1001)
    fpr, fnr = _count_rates(present[scout:], absent[scout:], thresholds, risk / 2)
    best = np.argmax(_any_epsilon(*_count_rates(here, there, thresholds, risk / 2), delta))
    any_mechanism = max(float(_any_epsilon(fpr, fnr, delta)[best]), 0.0)
    if not gaussian:
        return LowerBounds(any_mechanism, 0.0, 0.0)
    best = np.argmax(_mu(*_fitted_rates(here, there, thresholds, len(present), risk / 2)))
    mu = max(float(_mu(fpr, fnr)[best]), 0.0)
    moments = _mu_of_moments(present, absent, risk)
    return LowerBounds(any_mechanism, _epsilon_of(mu, delta), _epsilon_of(moments, delta))


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
    n = len(present)
    freedom = 2 * (n - 1)
    squares = ((present - present.mean()) ** 2).sum() + ((absent - absent.mean()) ** 2).sum()
    gap = present.mean() - absent.mean()
    largest_std = np.sqrt(squares / chi2.ppf(risk / 2, freedom))
    if largest_std == 0:
        return np.inf if gap > 0 else 0.0
    return max(float(gap / largest_std - norm.isf(risk / 2) * np.sqrt(2 / n)), 0.0)


def _epsilon_of(mu: float, delta: float) -> float:
    if mu in (0.0, np.inf):
        return mu
    return gaussian_epsilon(1 / mu, delta)


class StepView(NamedTuple):
    """What the attacker sees at a local step, along its direction."""

    position: float
    """Of the parameters."""
    others: float
    """The part of all other records in the mean gradient: the attacker knows their data."""
    planted: bool = True
    """Whether the canary is among the samples of the step."""


def random_direction(size: int, rng: np.random.Generator) -> Tensor:
    """Return a random unit vector, of float32."""
    import torch

    draws = rng.standard_normal(size)
    return torch.from_numpy((draws / np.linalg.norm(draws)).astype(np.float32))


def cache_gradients(
    per_sample: Gradients, flat: Tensor, images: Tensor, labels: Tensor
) -> Gradients:
    """Compute the gradients that every trial begins with once; others as they are asked for.

    Parameters
    ----------
    per_sample : callable
        Gradients of real records.
    flat, images, labels : Tensor
        The parameters and the data whose gradients are kept.
    """
    kept = flat, images, labels
    cached = per_sample(*kept)

    def gradients(*inputs: Tensor) -> Tensor:
        if all(one.equal(other) for one, other in zip(inputs, kept, strict=True)):
            return cached
        return per_sample(*inputs)

    return gradients


@dataclass(frozen=True)
class Canary:
    """A unit of data whose gradient the attacker chose: no real one can move a release further.

    Its records carry labels that no real one has, and gradients of the step see those; all else
    is the node's own. On the data set it pulls along ``direction``, on the neighbour the other
    way ("replace-one") or not at all ("zero-out").
    """

    direction: Tensor
    """Unit vector, shape (n_parameters,)."""
    pull: float
    """L2 norm of its gradients: far beyond what clipping leaves."""
    relation: Relation
    """How neighbours differ."""
    weight: float = 1.0
    """Weight of a record in the mean gradient."""
    alternate: bool = False
    """Whether it turns round from step to step. Independent noise does not care; noise that is
    used twice cancels."""

    def plant(self, labels: Tensor, *, whole: bool, present: bool) -> Tensor:
        """Return labels in which the first record, or all of them, is the canary.

        Parameters
        ----------
        labels : Tensor of int, shape (m,)
            The node's labels.
        whole : bool
            Whether a unit is all data of the node.
        present : bool
            True for the data set, False for its neighbour.
        """
        planted = labels.clone()
        planted[: None if whole else 1] = _PRESENT if present else _NEIGHBOUR
        return planted

    def gradients(self, per_sample: Gradients, clip: Clip, seen: list[StepView]) -> Gradients:
        """Wrap per-sample gradients for one run of the step.

        Parameters
        ----------
        per_sample : callable
            Gradients of real records: parameters (n_parameters,), images (m, ...), labels (m,)
            to (m, n_parameters).
        clip : callable
            How the step clips rows.
        seen : list of StepView
            Takes what the attacker sees at each local step.
        """
        pulls = {_PRESENT: 1.0, _NEIGHBOUR: -1.0 if self.relation == "replace-one" else 0.0}

        def gradients(flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
            sign = self._sign(sum(view.planted for view in seen))
            planted = labels < 0
            if planted.all():
                rows = flat.new_zeros(len(labels), len(flat))
            else:
                rows = per_sample(flat, images, labels.clamp(min=0)).clone()
            others = clip(rows[~planted]).sum(0) * self.weight
            seen.append(StepView(self.along(flat), self.along(others), bool(planted.any())))
            for label, pull in pulls.items():
                rows[labels == label] = sign * pull * self.pull * self.direction
            return rows

        return gradients

    def along(self, flat: Tensor) -> float:
        """Return how far a vector reaches along the direction."""
        return float(flat.double() @ self.direction.double())

    def score(
        self, seen: Sequence[StepView], end: float, learning_rate: float, momentum: float
    ) -> float:
        """Return the attacker's score: what was released, weighed as the canary pulled.

        Parameters
        ----------
        seen : sequence of StepView
            What the attacker saw before each release.
        end : float
            How far the parameters lay along the direction at the end.
        learning_rate, momentum : float
            Of the local steps, which everybody knows.
        """
        speeds = -np.diff([*(view.position for view in seen), end]) / learning_rate
        released = speeds - momentum * np.concatenate([[0.0], speeds[:-1]])
        steps = [
            value - view.others for value, view in zip(released, seen, strict=True) if view.planted
        ]
        return float(sum(self._sign(step) * value for step, value in enumerate(steps)))

    def _sign(self, step: int) -> float:
        return -1.0 if self.alternate and step % 2 else 1.0
