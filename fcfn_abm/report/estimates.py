"""Averages with intervals that respect the bounds of a quantity and the experimental design."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import bdtr, stdtrit

CONFIDENCE = 0.95
ANY, SHARE, POSITIVE = (-math.inf, math.inf), (0.0, 1.0), (0.0, math.inf)
BOUNDS: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("accuracy", "participation", "gini"), SHARE),
    **dict.fromkeys(
        (
            *("budget", "payment", "server_payment", "equilibrium_payment"),
            *("n_active", "n_losing", "n_nodes", "equilibrium_n_active", "rounds", "loss"),
            *("mean_epsilon", "total_epsilon", "mean_epsilon_total", "max_epsilon_total"),
            *("equilibrium_mean_epsilon", "equilibrium_total_epsilon", "budget_ratio"),
            *("exploitability", "distance", "noise_multiplier", "rent_dissipation"),
        ),
        POSITIVE,
    ),
    "price_of_anarchy": (1.0, math.inf),
}
"""Bounds of each quantity, which no interval leaves."""

MEDIANS = (
    "Where the values of a mechanism are skewed or infinite, the column shows medians with 95 % "
    "intervals of order statistics."
)
"""Note under a table that has medians."""

_NEGLIGIBLE = 1e-9  # half-widths below this share of the mean are rounding errors
_DECIMALS, _LONG = 6, 1e7  # longer numbers are written with exponents
_FEWEST = 8  # fewest values for which skewness is judged
_SKEWED = 1.5  # skewness above which medians are shown; rare for a normal sample
_SPREAD = 1 / 3  # standard deviation over the median, below which a skewed mean is shown


@dataclass(frozen=True)
class Average:
    """Average of a quantity over the replications in which it has a value."""

    mean: float
    """Infinite if one of the values is; nan if there is none."""
    half_width: float
    """Half of the 95 % t-interval; nan with fewer than two values or an infinite one."""
    median: float
    """The middle value (the smaller of two), finite where the mean may be infinite."""
    n: int
    """Number of replications in which the quantity has a value."""
    n_infinite: int
    """Number of infinite values."""
    bounds: tuple[float, float] = ANY
    """Bounds of the quantity."""
    median_low: float = math.nan
    median_high: float = math.nan
    """Ends of the median's 95 % interval, two of the values; nan with fewer than six values."""
    is_skewed: bool = False
    """Whether the values are so skewed, or infinite, that the median describes them better."""

    @property
    def low(self) -> float:
        """Lower end of the mean's interval, at least the quantity's lower bound."""
        return max(self.mean - self.half_width, min(self.bounds[0], self.mean))

    @property
    def high(self) -> float:
        """Upper end of the mean's interval, at most the quantity's upper bound."""
        return min(self.mean + self.half_width, max(self.bounds[1], self.mean))

    @property
    def is_cut(self) -> bool:
        """Whether a bound cuts the interval."""
        return self.low > self.mean - self.half_width or self.high < self.mean + self.half_width

    def centre(self, *, as_median: bool) -> tuple[float, float, float]:
        """Return mean or median with the ends of its interval."""
        if as_median:
            return self.median, self.median_low, self.median_high
        return self.mean, self.low, self.high


def average(values: npt.NDArray[np.float64], bounds: tuple[float, float] = ANY) -> Average:
    """Average values with the 95 % intervals of their mean and of their median.

    Parameters
    ----------
    values : ndarray of float, shape (n,)
        One value per replication; no nan.
    bounds : (float, float)
        Bounds of the quantity.

    Returns
    -------
    Average
        The mean with its t-interval, and the median with the interval of its order statistics.

    Examples
    --------
    >>> average(np.array([1.0, 2.0, 3.0])).mean
    2.0
    >>> average(np.array([0.9, 1.0, 1.0]), SHARE).high
    1.0
    """
    n, n_infinite = values.size, int(np.isinf(values).sum())
    ranked, half_width = np.sort(values), math.nan
    if n > 1 and not n_infinite:
        spread = float(values.std(ddof=1)) / math.sqrt(n)
        half_width = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * spread
    cut = _find_rank(n)
    return Average(
        mean=float(values.mean()) if n else math.nan,
        half_width=half_width,
        median=float(ranked[(n - 1) // 2]) if n else math.nan,
        n=n,
        n_infinite=n_infinite,
        bounds=bounds,
        median_low=float(ranked[cut]) if cut >= 0 else math.nan,
        median_high=float(ranked[n - 1 - cut]) if cut >= 0 else math.nan,
        is_skewed=n >= _FEWEST and (n_infinite > 0 or _has_skewed_spread(values)),
    )


def average_paired(
    values: pd.Series, replications: pd.Series | None, bounds: tuple[float, float] = ANY
) -> Average:
    """Average runs that share replications; the interval is over replications, not over runs.

    Parameters
    ----------
    values : Series of float
        One value per run; nan if there is none.
    replications : Series, optional
        The replication of each run: runs of one replication share their seed, so they are averaged
        first. Without it all runs count as independent.
    bounds : (float, float)
        Bounds of the quantity.
    """
    known = values.dropna().astype(float)
    if replications is not None:
        known = known.groupby(replications[known.index]).mean()
    return average(np.asarray(known, dtype=np.float64), bounds)


def _find_rank(n: int) -> int:
    """Return the rank, from 0, at which the median's interval begins; -1 with too few values.

    The interval from the k-th to the k-th last value misses the median with twice the probability
    that fewer than k of n fair coins show heads.
    """
    rank = -1
    while 2 * float(bdtr(rank + 1, n, 0.5)) <= 1 - CONFIDENCE:
        rank += 1
    return rank


def _has_skewed_spread(values: npt.NDArray[np.float64]) -> bool:
    """Whether values have a wide and skewed spread around their median."""
    apart, spread = values - values.mean(), float(values.std())
    if spread <= _SPREAD * abs(float(np.median(values))):
        return False
    return spread > 0 and abs(float(np.mean((apart / spread) ** 3))) > _SKEWED


def is_skewed(found: Iterable[Average]) -> bool:
    """Whether medians describe a quantity better; one answer for all of its groups."""
    return any(of.is_skewed for of in found)


def interval(of: Average, *, as_median: bool = False) -> str:
    """Format an average with its interval, to two digits of the half-width.

    Parameters
    ----------
    of : Average
        What to format.
    as_median : bool, default False
        Whether to format the median with the ends of its interval.

    Examples
    --------
    >>> interval(average(np.array([1.0, 2.0, 4.0])))
    '2.3 ± 3.8'
    >>> interval(average(np.array([0.9, 0.95, 1.0]), SHARE))
    '0.95 (0.83 to 1)'
    """
    if of.n == 0:
        return "-"
    if as_median:
        ends = f" ({_short(of.median_low)} to {_short(of.median_high)})"
        return _short(of.median) + ("" if math.isnan(of.median_low) else ends)
    if of.n_infinite:
        return "infinite" if of.n_infinite == of.n else f"infinite in {of.n_infinite}/{of.n}"
    if math.isnan(of.half_width):
        return f"{of.mean:.4g}"
    if of.half_width <= _NEGLIGIBLE * abs(of.mean):
        return f"{of.mean:.4g} ± 0"
    decimals = 1 - math.floor(math.log10(of.half_width))
    is_long = decimals > _DECIMALS or abs(of.mean) >= _LONG
    if of.is_cut:
        form = ".2g" if is_long else f".{max(decimals, 0)}f"
        low, high = (
            f"{end:g}" if end in of.bounds else f"{end:{form}}" for end in (of.low, of.high)
        )
        return f"{of.mean:{form}} ({low} to {high})"
    if is_long:
        return f"{of.mean:.4g} ± {of.half_width:.2g}"
    return f"{of.mean:.{max(decimals, 0)}f} ± {of.half_width:.{max(decimals, 0)}f}"


def _short(value: float) -> str:
    return "infinite" if math.isinf(value) else f"{value:.3g}"
