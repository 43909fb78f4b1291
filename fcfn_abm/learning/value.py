"""Estimation of the value of epsilon, from training rounds that a server has paid for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, nnls
from scipy.special import log_ndtr, ndtr

from fcfn_abm.errors import InvalidGameError, as_floats, require_positive

type Floats = npt.NDArray[np.float64]
type Interval = tuple[float, float]

CONFIDENCE = 0.95
_REACH = 4.0  # half width of the first grid, in standard deviations
_N_ALPHA, _N_NOISE = 101, 15  # points of the grid
_NOISE_SPREAD = 0.7  # standard deviation of ln(noise) in the prior: half or twice
_NEGLIGIBLE = 1e-7  # relative weight of a grid point
_MOST_KNOTS = 12


@dataclass(frozen=True)
class ValuePrior:
    """Prior of the value of epsilon; all parameters are independent."""

    alpha: float
    """Median of alpha, per unit of epsilon; ln(alpha) is normal."""
    beta: float
    """Mode of beta, in units of the gain; the prior is normal, truncated at zero."""
    spread: float = 1.0
    """Standard deviation of ln(alpha), and standard deviation of beta relative to its mode."""
    depreciation: float = 0.1
    """Mean, and standard deviation, of the share of the stock that a round loses; normal."""
    noise: float = 0.05
    """Median of the standard deviation of a round's gain; its logarithm is normal (0.7)."""


class _Grid:
    """The posterior over a grid of alpha and noise: in each cell beta and k are normal.

    Cells are the rows of arrays of shape (n_alpha * n_noise,).
    """

    def __init__(
        self, log_alpha: Floats, log_noise: Floats, sums: _Sums, prior: ValuePrior
    ) -> None:
        self.log_alpha, self.log_noise = log_alpha, log_noise
        curve, curve_stock, curve_gain = (
            part[:, None] for part in sums.of_curve(np.exp(log_alpha))
        )
        precision = np.exp(-2.0 * log_noise)
        beta_precision = 1.0 / (prior.spread * prior.beta) ** 2
        k_precision = 1.0 / prior.depreciation**2
        # information matrix [[a, c], [c, d]] of (beta, k), and information times mean
        a, d = beta_precision + precision * curve, k_precision + precision * sums.stock
        c = -precision * curve_stock
        first = beta_precision * prior.beta + precision * curve_gain
        second = k_precision * prior.depreciation - precision * sums.stock_gain
        determinant = a * d - c * c
        beta = (d * first - c * second) / determinant
        k = (a * second - c * first) / determinant
        scale = np.sqrt(d / determinant)
        fit = beta * first + k * second
        log_weight = (
            0.5 * (fit - precision * sums.gain)
            - 0.5 * np.log(determinant)
            - sums.n * log_noise
            + log_ndtr(beta / scale)  # beta is positive
            - 0.5 * ((log_alpha[:, None] - math.log(prior.alpha)) / prior.spread) ** 2
            - 0.5 * ((log_noise - math.log(prior.noise)) / _NOISE_SPREAD) ** 2
        )
        weight = np.exp(log_weight - log_weight.max())
        self.weight = weight / weight.sum()
        self.beta, self.scale, self.k = beta, scale, k

    def refine(self) -> tuple[Floats, Floats]:
        """Return the points of a finer grid over the cells with non-negligible weight."""
        return (
            _refine(self.log_alpha, self.weight.sum(axis=1)),
            _refine(self.log_noise, self.weight.sum(axis=0)),
        )


def _refine(places: Floats, weight: Floats) -> Floats:
    kept = places[weight > _NEGLIGIBLE]
    step = places[1] - places[0]
    return np.linspace(kept[0] - step, kept[-1] + step, places.size)


@dataclass(frozen=True)
class _Sums:
    """Sufficient statistics of the measured rounds."""

    epsilon: Floats
    stocks: Floats
    gains: Floats

    @property
    def n(self) -> int:
        return self.epsilon.size

    @property
    def stock(self) -> float:
        return float(self.stocks @ self.stocks)

    @property
    def stock_gain(self) -> float:
        return float(self.stocks @ self.gains)

    @property
    def gain(self) -> float:
        return float(self.gains @ self.gains)

    def of_curve(self, alpha: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the sums of ln(1 + alpha eps) times itself, the stock, and the gain."""
        curve = np.log1p(alpha[:, None] * self.epsilon)
        return (curve * curve).sum(axis=1), curve @ self.stocks, curve @ self.gains


class ValueEstimate:
    """The posterior of ``beta ln(1 + alpha eps)``, and of the depreciation of the stock.

    A server with a stock S of accuracy (above that of the untrained net) that buys the mean epsilon
    eps_t for a round expects the gain

        S_t - S_{t-1} = beta ln(1 + alpha eps_t) - k S_{t-1} + noise,

    with normal noise: the contribution of the round, minus the loss of stock through its noise and
    the saturation of the net. Given alpha and the size of the noise this is a linear regression,
    whose posterior has a closed form; these two parameters are on a grid.

    Parameters
    ----------
    epsilon : array_like of float, shape (n,)
        Mean epsilon of each round of training; positive.
    stock : array_like of float, shape (n,)
        Stock before each round.
    gain : array_like of float, shape (n,)
        Change of the stock in each round, in the same unit.
    prior : ValuePrior
        Expectations before the first round.

    Raises
    ------
    InvalidGameError
        If the three have different lengths, an epsilon is not positive, or a number is not finite.

    References
    ----------
    Gelman et al. 2013, "Bayesian data analysis", 3rd edition, chapter 14, for the regression.
    Nerlove 1958 for a stock that adjusts in part to a level, here ``beta ln(1 + alpha eps) / k``.

    Examples
    --------
    Gains without noise determine alpha, beta and k:

    >>> epsilon = np.tile([0.5, 1.0, 2.0, 4.0], 50)
    >>> stock = np.zeros(201)
    >>> for t, eps in enumerate(epsilon):
    ...     stock[t + 1] = 0.9 * stock[t] + 0.04 * np.log1p(2.0 * eps)
    >>> prior = ValuePrior(alpha=1.0, beta=0.05, noise=1e-3)
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
        sums = _Sums(*map(as_floats, ("epsilon", "stock", "gain"), (epsilon, stock, gain)))
        if not sums.epsilon.shape == sums.stocks.shape == sums.gains.shape:
            raise InvalidGameError(
                "epsilon, stock and gain must have one entry per round, but have shapes "
                f"{sums.epsilon.shape}, {sums.stocks.shape} and {sums.gains.shape}."
            )
        if sums.n:
            require_positive(epsilon=sums.epsilon)
        if not (np.isfinite(sums.stocks).all() and np.isfinite(sums.gains).all()):
            raise InvalidGameError("stock and gain must be finite.")
        alphas = math.log(prior.alpha) + prior.spread * np.linspace(-_REACH, _REACH, _N_ALPHA)
        noises = math.log(prior.noise) + _NOISE_SPREAD * np.linspace(-_REACH, _REACH, _N_NOISE)
        for _ in range(2):  # the second grid covers the weight found by the first
            grid = _Grid(alphas, noises, sums, prior)
            alphas, noises = grid.refine()
        self._sums, self._prior, self._grid = sums, prior, grid
        kept = np.nonzero(grid.weight > _NEGLIGIBLE)
        self._beta, self._scale = grid.beta[kept], grid.scale[kept]
        self._alpha = np.exp(grid.log_alpha[kept[0]])
        self._weight = grid.weight[kept] / grid.weight[kept].sum()
        self._below_zero = ndtr(-self._beta / self._scale)

    @property
    def n_rounds(self) -> int:
        """Number of measured rounds."""
        return self._sums.n

    @cached_property
    def alpha(self) -> float:
        """Posterior median of alpha, per unit of epsilon."""
        return self._alpha_quantile(0.5)

    @cached_property
    def _at_alpha(self) -> tuple[float, float]:
        """Posterior means of beta (positive) and of k, given this alpha."""
        grid = _Grid(
            np.array([math.log(self.alpha)]), self._grid.log_noise, self._sums, self._prior
        )
        share = grid.beta[0] / grid.scale[0]
        cut_off = np.exp(-0.5 * share**2 - log_ndtr(share)) / math.sqrt(2.0 * math.pi)
        beta, weight = grid.beta[0] + grid.scale[0] * cut_off, grid.weight[0]
        return float(weight @ beta), float(weight @ grid.k[0])

    @property
    def beta(self) -> float:
        """Posterior mean of beta given this alpha, in units of the gain; positive."""
        return self._at_alpha[0]

    @property
    def depreciation(self) -> float:
        """Posterior mean of k given this alpha: the share of the stock that a round loses."""
        return self._at_alpha[1]

    def __call__(self, epsilon: npt.ArrayLike) -> Floats:
        """Return the estimated value of a round for given epsilons, in units of the gain."""
        return np.asarray(self.beta * np.log1p(self.alpha * as_floats("epsilon", epsilon)))

    def alpha_interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Return the central credible interval of alpha."""
        tail = (1.0 - confidence) / 2.0
        return self._alpha_quantile(tail), self._alpha_quantile(1.0 - tail)

    def beta_interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Return the central credible interval of beta, for any alpha, in units of the gain."""
        return self._interval(np.ones(self._alpha.size), confidence)

    def value_interval(self, epsilon: float, confidence: float = CONFIDENCE) -> Interval:
        """Return the central credible interval of ``beta ln(1 + alpha eps)`` at an epsilon."""
        return self._interval(np.log1p(self._alpha * epsilon), confidence)

    @cached_property
    def misfit(self) -> float:
        """Root mean square distance of the curve to the best concave one, in units of the gain.

        It is computed over the measured rounds. If the logarithm is the wrong form it does not
        vanish as rounds are added.
        """
        if not self.n_rounds:
            return 0.0
        epsilon = self._sums.epsilon
        free = fit_concave(epsilon, self._sums.stocks, self._sums.gains)
        return float(np.sqrt(np.mean((free(epsilon) - self(epsilon)) ** 2)))

    def _alpha_quantile(self, share: float) -> float:
        """Return a quantile of alpha; the weight of a grid point is spread evenly around it."""
        places, weight = self._grid.log_alpha, self._grid.weight.sum(axis=1)
        half = (places[1] - places[0]) / 2.0
        ends = np.append(places - half, places[-1] + half)
        reached = np.concatenate([[0.0], np.cumsum(weight)])
        return math.exp(float(np.interp(share, reached, ends)))

    def _interval(self, factor: Floats, confidence: float) -> Interval:
        """Return the central interval of beta times a factor that depends on alpha."""
        middle, scale = factor * self._beta, factor * self._scale
        weight = self._weight / (1.0 - self._below_zero)
        below = float(weight @ self._below_zero)

        def probability_below(value: float) -> float:
            return float(weight @ ndtr((value - middle) / scale)) - below

        tail = (1.0 - confidence) / 2.0
        highest = float((np.maximum(middle, 0.0) + 8.0 * scale).max())
        low = brentq(lambda value: probability_below(value) - tail, 0.0, highest, rtol=1e-9)
        high = brentq(lambda value: probability_below(value) - 1.0 + tail, low, highest, rtol=1e-9)
        return float(low), float(high)


@dataclass(frozen=True)
class ConcaveFit:
    """A concave, non-decreasing curve through zero, linear between knots."""

    knots: Floats
    """Points at which the slope changes, ascending."""
    weights: Floats
    """Decrease of the slope at each point; not negative."""
    depreciation: float
    """Share of the stock that a round loses; not negative."""

    def __call__(self, epsilon: npt.ArrayLike) -> Floats:
        """Return the curve at given epsilons, in units of the gain."""
        epsilon = np.asarray(epsilon, dtype=float)
        return np.asarray(np.minimum(epsilon[..., None], self.knots) @ self.weights)


def fit_concave(epsilon: npt.ArrayLike, stock: npt.ArrayLike, gain: npt.ArrayLike) -> ConcaveFit:
    """Fit a concave, non-decreasing value of epsilon to the gains of rounds by least squares.

    Parameters
    ----------
    epsilon, stock, gain : array_like of float, shape (n,)
        As in :class:`ValueEstimate`; n >= 1.

    Returns
    -------
    ConcaveFit
        With at most 12 knots, at quantiles of the epsilons. The only assumption is that each
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
