"""What a server learns of the value of epsilon from rounds of training that it has paid for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, nnls
from scipy.special import stdtr, stdtrit

from fcfn_abm.errors import InvalidGameError, as_floats, require_positive

type Floats = npt.NDArray[np.float64]
type Interval = tuple[float, float]

CONFIDENCE = 0.95
_PRIOR_ROUNDS = 3.0  # that the expected noise counts as much as: a t-distribution with a variance
_REACH = 5.0  # standard deviations of ln(alpha) on either side of the grid's middle
_N_GRID = 201
_NEGLIGIBLE = 1e-9  # of the weight of a grid point
_MOST_KNOTS = 12


@dataclass(frozen=True)
class ValuePrior:
    """What a server expects of the value of epsilon before the first round."""

    alpha: float
    """Median of alpha, per unit of epsilon; ln(alpha) is normal."""
    beta: float
    """Location of beta, in units of the gain, which has a t-distribution cut off at zero."""
    spread: float = 0.5
    """Standard deviation of ln(alpha), and of beta as a share of it."""
    depreciation: float = 0.1
    """Location, and standard deviation, of the share of the stock that a round loses."""
    noise: float = 0.05
    """Standard deviation of a round's gain around its expected one."""


@dataclass(frozen=True)
class _Posterior:
    """Posterior of beta and of the depreciation rate for given alphas, arrays of shape (n,)."""

    beta: Floats
    """Location of beta, before it is cut off at zero."""
    beta_scale: Floats
    """Scale of its t-distribution."""
    depreciation: Floats
    """Mean of the depreciation rate."""
    freedom: float
    """Degrees of freedom."""
    log_weight: Floats
    """Logarithm of the marginal likelihood, beta positive, up to a constant."""

    @property
    def below_zero(self) -> Floats:
        """Probability of a negative beta before it is cut off."""
        return np.asarray(stdtr(self.freedom, -self.beta / self.beta_scale))


class ValueEstimate:
    """The posterior of ``beta ln(1 + alpha eps)``, and of how the stock wears off.

    A server that has a stock S of accuracy (beyond that of the untrained net) and buys the mean
    epsilon eps_t for a round expects the gain

        S_t - S_{t-1} = beta ln(1 + alpha eps_t) - k S_{t-1} + noise,

    with normal noise of unknown variance: what a round adds, less what its own noise, and the
    saturation of the net, take from the stock. Given alpha this is a linear regression, whose
    posterior under a normal-inverse-gamma prior has a closed form; alpha lies on a grid.

    Parameters
    ----------
    epsilon : array_like of float, shape (n,)
        Mean epsilon of each round of training; positive.
    stock : array_like of float, shape (n,)
        Stock before each round.
    gain : array_like of float, shape (n,)
        What each round added to the stock, in the same unit.
    prior : ValuePrior
        What is expected before the first round.

    Raises
    ------
    InvalidGameError
        If the three have different lengths, an epsilon is not positive, or a number is not finite.

    References
    ----------
    Gelman et al. 2013, "Bayesian data analysis", 3rd edition, chapter 14, for the regression.
    Nerlove 1956 for the partial adjustment of a stock to a level, here ``beta ln(1 + alpha eps) /
    k``.

    Examples
    --------
    Gains without noise tell alpha, beta and k:

    >>> epsilon = np.tile([0.5, 1.0, 2.0, 4.0], 50)
    >>> stock = np.zeros(201)
    >>> for t, eps in enumerate(epsilon):
    ...     stock[t + 1] = 0.9 * stock[t] + 0.04 * np.log1p(2.0 * eps)
    >>> prior = ValuePrior(alpha=1.0, beta=0.05, noise=1e-5)
    >>> found = ValueEstimate(epsilon, stock[:-1], np.diff(stock), prior)
    >>> round(found.alpha, 2), round(found.beta, 3), round(found.depreciation, 2)
    (2.0, 0.04, 0.1)
    """

    def __init__(
        self,
        epsilon: npt.ArrayLike,
        stock: npt.ArrayLike,
        gain: npt.ArrayLike,
        prior: ValuePrior,
    ) -> None:
        self._epsilon, self._stock = as_floats("epsilon", epsilon), as_floats("stock", stock)
        self._gain, self._prior = as_floats("gain", gain), prior
        if not self._epsilon.shape == self._stock.shape == self._gain.shape:
            raise InvalidGameError(
                "epsilon, stock and gain must have one entry a round each, but have shapes "
                f"{self._epsilon.shape}, {self._stock.shape} and {self._gain.shape}."
            )
        if self._epsilon.size:
            require_positive(epsilon=self._epsilon)
        if not (np.isfinite(self._stock).all() and np.isfinite(self._gain).all()):
            raise InvalidGameError("stock and gain must be finite.")
        width = _REACH * prior.spread
        low, high = math.log(prior.alpha) - width, math.log(prior.alpha) + width
        for _ in range(2):  # the second grid lies where the first one has found some weight
            self._log_alpha = np.linspace(low, high, _N_GRID)
            self._posterior = self._given(np.exp(self._log_alpha))
            away = (self._log_alpha - math.log(prior.alpha)) / prior.spread
            log_weight = self._posterior.log_weight - 0.5 * away**2
            weight = np.exp(log_weight - log_weight.max())
            self._weight = weight / weight.sum()
            kept = self._log_alpha[self._weight > _NEGLIGIBLE]
            step = self._log_alpha[1] - self._log_alpha[0]
            low, high = kept[0] - step, kept[-1] + step

    @property
    def n_rounds(self) -> int:
        """How many rounds were measured."""
        return self._epsilon.size

    @cached_property
    def alpha(self) -> float:
        """Posterior median of alpha, per unit of epsilon."""
        return self._alpha_quantile(0.5)

    @cached_property
    def beta(self) -> float:
        """Posterior median of beta for this alpha, in units of the gain; positive."""
        given = self._given(np.array([self.alpha]))
        below = float(given.below_zero[0])
        place = float(stdtrit(given.freedom, below + 0.5 * (1.0 - below)))
        return float(given.beta[0] + given.beta_scale[0] * place)

    @cached_property
    def depreciation(self) -> float:
        """Posterior mean of k for this alpha: the share of the stock that a round loses."""
        return float(self._given(np.array([self.alpha])).depreciation[0])

    def __call__(self, epsilon: npt.ArrayLike) -> Floats:
        """Return the estimated value of a round at some epsilons, in units of the gain."""
        return np.asarray(self.beta * np.log1p(self.alpha * as_floats("epsilon", epsilon)))

    def alpha_interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Return the central credible interval of alpha."""
        tail = (1.0 - confidence) / 2.0
        return self._alpha_quantile(tail), self._alpha_quantile(1.0 - tail)

    def beta_interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Return the central credible interval of beta, whatever alpha, in units of the gain."""
        return self._interval(np.ones(_N_GRID), confidence)

    def value_interval(self, epsilon: float, confidence: float = CONFIDENCE) -> Interval:
        """Return the central credible interval of ``beta ln(1 + alpha eps)`` at an epsilon."""
        return self._interval(np.log1p(np.exp(self._log_alpha) * epsilon), confidence)

    def gross_gain(self) -> Floats:
        """Return what each round added, with what the stock has lost put back, shape (n,)."""
        return self._gain + self.depreciation * self._stock

    @cached_property
    def misfit(self) -> float:
        """Root mean square distance of the curve to the best concave one, in units of the gain.

        It is taken over the measured rounds. Where the logarithm is the wrong form it does not
        vanish as rounds are added.
        """
        if not self.n_rounds:
            return 0.0
        free = fit_concave(self._epsilon, self._stock, self._gain)
        return float(np.sqrt(np.mean((free(self._epsilon) - self(self._epsilon)) ** 2)))

    def _given(self, alpha: Floats) -> _Posterior:
        """Return the posterior of the rest for given alphas, shape (n,)."""
        prior, n = self._prior, self._epsilon.size
        spreads = np.array([prior.spread * prior.beta, prior.depreciation])
        means = np.array([prior.beta, prior.depreciation])
        precision = np.diag((prior.noise / spreads) ** 2)  # relative to that of the noise
        curve = np.log1p(alpha[:, None] * self._epsilon)
        columns = np.stack([curve, np.broadcast_to(-self._stock, curve.shape)], axis=-1)
        information = precision + columns.transpose(0, 2, 1) @ columns
        covariance = np.linalg.inv(information)
        seen = precision @ means + np.einsum("anp,n->ap", columns, self._gain)
        found = np.einsum("apq,aq->ap", covariance, seen)
        shape = (_PRIOR_ROUNDS + n) / 2.0
        residual = self._gain - np.einsum("anp,ap->an", columns, found)
        away = found - means
        squares = (
            _PRIOR_ROUNDS * prior.noise**2
            + (residual**2).sum(axis=1)
            + np.einsum("ap,pq,aq->a", away, precision, away)
        )
        scale = np.sqrt(squares / (2.0 * shape) * covariance[:, 0, 0])
        positive = 1.0 - stdtr(2.0 * shape, -found[:, 0] / scale)
        log_weight = (
            -0.5 * np.log(np.linalg.det(information))
            - shape * np.log(squares)
            + np.log(np.maximum(positive, 1e-300))
        )
        return _Posterior(found[:, 0], scale, found[:, 1], 2.0 * shape, log_weight)

    def _alpha_quantile(self, share: float) -> float:
        """Return a quantile of alpha; the weight of a grid point is spread evenly around it."""
        step = self._log_alpha[1] - self._log_alpha[0]
        ends = np.append(self._log_alpha - step / 2.0, self._log_alpha[-1] + step / 2.0)
        reached = np.concatenate([[0.0], np.cumsum(self._weight)])
        return math.exp(float(np.interp(share, reached, ends)))

    def _interval(self, factor: Floats, confidence: float) -> Interval:
        """Return the central interval of beta times a factor that depends on alpha."""
        given, weight = self._posterior, self._weight
        below = given.below_zero
        middle, scale = factor * given.beta, factor * given.beta_scale

        def reached(value: float) -> float:
            inside = stdtr(given.freedom, (value - middle) / scale) - below
            return float(weight @ (inside / np.maximum(1.0 - below, 1e-300)))

        tail = (1.0 - confidence) / 2.0
        high = 2.0 * float((np.maximum(middle, 0.0) + scale).max())
        while reached(high) < 1.0 - tail / 2.0:
            high *= 2.0
        ends = [_solve(reached, share, high) for share in (tail, 1.0 - tail)]
        return ends[0], ends[1]


def _solve(reached: Callable[[float], float], share: float, high: float) -> float:
    return float(brentq(lambda value: reached(value) - share, 0.0, high, xtol=1e-12 * high))


@dataclass(frozen=True)
class ConcaveFit:
    """A concave, non-decreasing curve through zero, linear between knots."""

    knots: Floats
    """Where its slope changes, ascending."""
    weights: Floats
    """By how much the slope falls at each; not negative."""
    depreciation: float
    """Share of the stock that a round loses; not negative."""

    def __call__(self, epsilon: npt.ArrayLike) -> Floats:
        """Return the curve at some epsilons, in units of the gain."""
        epsilon = np.asarray(epsilon, dtype=float)
        return np.asarray(np.minimum(epsilon[..., None], self.knots) @ self.weights)


def fit_concave(epsilon: npt.ArrayLike, stock: npt.ArrayLike, gain: npt.ArrayLike) -> ConcaveFit:
    """Fit any concave, non-decreasing value of epsilon to the gains of rounds by least squares.

    Parameters
    ----------
    epsilon, stock, gain : array_like of float, shape (n,)
        As in :class:`ValueEstimate`; n >= 1.

    Returns
    -------
    ConcaveFit
        With at most 12 knots, at quantiles of the epsilons. No form is assumed but that each
        further unit of epsilon adds no more than the one before.

    References
    ----------
    Hildreth 1954, "Point estimates of ordinates of concave functions".

    Examples
    --------
    >>> epsilon = np.array([1.0, 2.0, 3.0, 4.0])
    >>> fit_concave(epsilon, np.zeros(4), np.minimum(epsilon, 2.0))(2.5).round(6)
    np.float64(2.0)
    """
    epsilon, stock, gain = (np.asarray(x, dtype=float) for x in (epsilon, stock, gain))
    different = np.unique(epsilon)
    places = np.linspace(0, different.size - 1, min(different.size, _MOST_KNOTS)).round()
    knots = different[places.astype(int)]
    columns = np.column_stack([np.minimum(epsilon[:, None], knots), -stock])
    found, _ = nnls(columns, gain)
    return ConcaveFit(knots, found[:-1], float(found[-1]))
