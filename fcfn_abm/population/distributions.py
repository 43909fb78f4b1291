"""Distributions of the unit privacy cost rho, in currency per unit of epsilon."""

from __future__ import annotations

import math
from typing import Annotated, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtri

from fcfn_abm.errors import InvalidGameError, as_floats, require_positive
from fcfn_abm.registry import Registry
from fcfn_abm.rng import Chance, as_generator
from fcfn_abm.scenario.schema import LARGEST, SMALLEST, NotNegative, Positive

type Floats = npt.NDArray[np.float64]

Share = Annotated[float, Field(ge=0, le=1)]


class RhoDistribution(Protocol):
    """Draws the unit privacy costs of a population."""

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:
        """Return ``n_nodes`` positive costs."""
        ...

    def best_price(self, value: float) -> float:
        """Return the best price of a buyer who knows the distribution, but not the cost.

        Parameters
        ----------
        value : float
            Value of a unit of epsilon to the buyer, in currency.

        Returns
        -------
        float
            The largest price p that maximizes ``F(p) * (value - p)``, with F(p) the probability
            that a node's cost is at most p; zero if no price pays. It is the largest cost whose
            virtual cost, ``rho + F / f`` made non-decreasing, does not exceed the value.

        Raises
        ------
        InvalidGameError
            If the distribution has no probabilities of costs, which is the default.

        References
        ----------
        Myerson 1981, "Optimal auction design".
        """
        del value
        raise InvalidGameError(
            f"the distribution {type(self).__name__!r} has no probabilities of costs."
        )

    def list_types(self, n_types: int) -> tuple[Floats, Floats]:
        """Return a few costs that represent the distribution, with their probabilities.

        Parameters
        ----------
        n_types : int
            Largest number of types, if there are more distinct costs: equally likely classes, each
            represented by its median. For a population of two parts, the number for each part.

        Returns
        -------
        types, probabilities : ndarray of float, shape (k,)
            Distinct costs, in currency per unit of epsilon; the probabilities sum to one.

        Raises
        ------
        InvalidGameError
            If the distribution has no probabilities of costs, which is the default.
        """
        del n_types
        raise InvalidGameError(
            f"the distribution {type(self).__name__!r} has no probabilities of costs."
        )


RHO_DISTRIBUTIONS: Registry[RhoDistribution] = Registry("distribution of rho")


def draw_rho(
    distribution: RhoDistribution,
    n_nodes: int,
    rng: Chance,
    divergence: Floats | None = None,
    counted_by: str = "population.n_nodes",
) -> Floats:
    """Draw a population's unit privacy costs, and check them.

    Parameters
    ----------
    distribution : RhoDistribution
        An entry of :data:`RHO_DISTRIBUTIONS`.
    n_nodes : int
        Number of nodes.
    rng : Generator, BitGenerator, SeedSequence, int or list of int
        Source of randomness.
    divergence : ndarray of float, shape (n_nodes,), optional
        Distance of each node's label shares from the global ones, from 0 to 1. Required by costs
        that depend on the data, and ignored by others.
    counted_by : str, default "population.n_nodes"
        Key that gives the number of nodes, for the error message.

    Returns
    -------
    ndarray of float, shape (n_nodes,)
        Costs in currency per unit of epsilon.

    Raises
    ------
    InvalidGameError
        If the distribution does not return ``n_nodes`` positive numbers within the allowed range
        (:func:`require_sized`), or depends on the data and ``divergence`` is missing.
    """
    if isinstance(distribution, Divergence) and divergence is not None:
        rho = distribution.costs(divergence)
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # raised below
            rho = as_floats("rho", distribution.draw(n_nodes, as_generator(rng)))
    if rho.shape != (n_nodes,):
        raise InvalidGameError(
            f"the distribution of rho has {rho.size} costs, but {counted_by} = {n_nodes}."
        )
    require_sized(rho=rho)
    return rho


def require_sized(**values: npt.ArrayLike) -> None:
    """Raise an error unless every value is in the range that a scenario allows.

    Raises
    ------
    InvalidGameError
        If a cost, or an amount of money, is not positive, or is outside ``SMALLEST`` to
        ``LARGEST``.

    Examples
    --------
    >>> require_sized(rho=[0.5, 1e200])
    Traceback (most recent call last):
    ...
    fcfn_abm.errors.InvalidGameError: rho must lie from 1e-18 to 1e+18, but rho[1] = 1e+200 (1 of 2
    values).
    """
    require_positive(error=InvalidGameError, zero=False, **values)
    for name, value in values.items():
        array = as_floats(name, value)
        bad = (array < SMALLEST) | (array > LARGEST)
        if not bad.any():
            continue
        allowed = f"{name} must lie from {SMALLEST:g} to {LARGEST:g}"
        if array.ndim == 0:
            raise InvalidGameError(f"{allowed}, but is {array.item():g}.")
        first = int(np.argmax(bad))
        raise InvalidGameError(
            f"{allowed}, but {name}[{first}] = {array.flat[first]:g} "
            f"({bad.sum()} of {array.size} values)."
        )


@RHO_DISTRIBUTIONS.register("constant")
class Constant(RhoDistribution):
    """The same cost for all nodes."""

    value: Positive = 0.001
    """Unit privacy cost of every node, in currency per unit of epsilon."""

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """Return the same cost for all."""
        return np.full(n_nodes, self.value)

    def best_price(self, value: float) -> float:
        """Return the cost, if the value is at least as large."""
        return self.value if value >= self.value else 0.0

    def list_types(self, n_types: int) -> tuple[Floats, Floats]:  # noqa: ARG002
        """Return the single cost."""
        return np.array([self.value]), np.ones(1)


@RHO_DISTRIBUTIONS.register("uniform")
class Uniform(RhoDistribution):
    """Uniform distribution between two costs."""

    low: Positive = 0.0005
    """Smallest cost, in currency per unit of epsilon."""
    high: Positive = 0.0015
    """Largest cost, in currency per unit of epsilon."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, but {self.low:g} > {self.high:g}")
        return self

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:
        """Draw from U(low, high)."""
        return rng.uniform(self.low, self.high, n_nodes)

    def best_price(self, value: float) -> float:
        """Return the mean of the value and the smallest cost, at most the largest cost."""
        return min((self.low + value) / 2.0, self.high) if value >= self.low else 0.0

    def list_types(self, n_types: int) -> tuple[Floats, Floats]:
        """Return the medians of equally likely classes."""
        return _merge_types(self.low + (self.high - self.low) * _medians(n_types))


@RHO_DISTRIBUTIONS.register("lognormal")
class LogNormal(RhoDistribution):
    """Log-normal distribution: skewed, like people's valuations of privacy."""

    median: Positive = 0.001
    """Median cost, in currency per unit of epsilon."""
    sigma: Annotated[float, Field(ge=0, le=20)] = 0.3
    """Standard deviation of ln(rho)."""

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:
        """Draw from a log-normal distribution."""
        return _lognormal(self.median, self.sigma, n_nodes, rng)

    def best_price(self, value: float) -> float:
        """Return the best price for a buyer of this value."""
        return _best_price_among([(1.0, self.median)], self.sigma, value)

    def list_types(self, n_types: int) -> tuple[Floats, Floats]:
        """Return the medians of equally likely classes."""
        return _merge_types(self.median * np.exp(self.sigma * ndtri(_medians(n_types))))


@RHO_DISTRIBUTIONS.register("pareto")
class Pareto(RhoDistribution):
    """Pareto distribution: a heavy tail of nodes with very high costs."""

    minimum: Positive = 0.001
    """Smallest cost, in currency per unit of epsilon."""
    exponent: Annotated[float, Field(ge=0.1)] = 2.0
    """Tail exponent; smaller values give heavier tails."""

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:
        """Draw from a Pareto distribution."""
        return self.minimum * (1.0 + rng.pareto(self.exponent, n_nodes))

    def best_price(self, value: float) -> float:
        """Return the cost whose virtual cost equals the value; virtual costs rise with the cost."""
        if value < self.minimum:
            return 0.0
        a = self.exponent
        # virtual cost over the minimum, at minimum * exp(u), is exp(u) (1 + (exp(a u) - 1) / a)
        target = math.log(value) - math.log(self.minimum)
        return self.minimum * math.exp(
            brentq(lambda u: u + np.log1p(np.expm1(a * u) / a) - target, 0.0, target, xtol=1e-15)
            if target > 0
            else 0.0
        )

    def list_types(self, n_types: int) -> tuple[Floats, Floats]:
        """Return the medians of equally likely classes."""
        return _merge_types(self.minimum * (1.0 - _medians(n_types)) ** (-1.0 / self.exponent))


@RHO_DISTRIBUTIONS.register("two-group")
class TwoGroup(RhoDistribution):
    """Two groups of nodes with one cost each, in exact shares."""

    low: Positive = 0.001
    """Cost of the low-cost group, in currency per unit of epsilon."""
    high: Positive = 0.002
    """Cost of the high-cost group, in currency per unit of epsilon."""
    share_high: Share = 0.5
    """Share of high-cost nodes, from 0 to 1; their number is rounded to the nearest integer."""

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:
        """Assign both costs in random order."""
        n_high = round(self.share_high * n_nodes)
        return rng.permutation(np.repeat([self.high, self.low], [n_high, n_nodes - n_high]))

    def best_price(self, value: float) -> float:
        """Return the cost of one of the groups, or zero."""
        first, second = sorted((self.low, self.high))
        below = 1.0 - self.share_high if self.low <= self.high else self.share_high
        from_all, from_some = value - second, below * (value - first)
        if from_all >= max(from_some, 0.0):
            return second
        return first if from_some >= 0 and below > 0 else 0.0

    def list_types(self, n_types: int) -> tuple[Floats, Floats]:  # noqa: ARG002
        """Return both costs."""
        costs, share = np.array([self.low, self.high]), self.share_high
        return _merge_types(costs, np.array([1.0 - share, share]))


@RHO_DISTRIBUTIONS.register("outliers")
class Outliers(RhoDistribution):
    """A log-normal population in which a few nodes have far higher costs than the rest."""

    median: Positive = 0.001
    """Median cost of the other nodes, in currency per unit of epsilon."""
    sigma: Annotated[float, Field(ge=0, le=20)] = 0.3
    """Standard deviation of ln(rho)."""
    share: Share = 0.1
    """Share of outliers, from 0 to 1; their number is rounded to the nearest integer."""
    factor: Positive = 5.0
    """Factor by which the drawn cost of an outlier is multiplied."""

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:
        """Draw from a log-normal distribution, and multiply the outliers."""
        rho = _lognormal(self.median, self.sigma, n_nodes, rng)
        outliers = rng.permutation(n_nodes)[: round(self.share * n_nodes)]
        rho[outliers] *= self.factor
        return rho

    def best_price(self, value: float) -> float:
        """Return the best price for a buyer of this value, with outliers as a random event."""
        groups = [(1.0 - self.share, self.median), (self.share, self.median * self.factor)]
        return _best_price_among(groups, self.sigma, value)

    def list_types(self, n_types: int) -> tuple[Floats, Floats]:
        """Return the medians of equally likely classes of ordinary nodes, and of outliers."""
        costs = self.median * np.exp(self.sigma * ndtri(_medians(n_types)))
        both = np.concatenate([costs, self.factor * costs])
        return _merge_types(both, np.repeat([1.0 - self.share, self.share], n_types) / n_types)


@RHO_DISTRIBUTIONS.register("listed")
class Listed(RhoDistribution):
    """Costs that are listed in the scenario, optionally with names of the nodes."""

    source: str | None = None
    """Source of the values; set when they were read from a CSV file."""
    values: Annotated[tuple[Positive, ...], Field(strict=False)]
    """Unit privacy cost of each node, in currency per unit of epsilon."""
    names: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    """Unique name of each node. By default nodes are identified by their numbers."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.names is not None and len(set(self.names)) != len(self.values):
            raise ValueError(
                f"names must contain a unique name for each of {len(self.values)} values"
            )
        return self

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """Return the list."""
        return np.array(self.values)

    def list_types(self, n_types: int) -> tuple[Floats, Floats]:
        """Return the distinct values with their shares; for many values, the medians of classes."""
        values = np.array(self.values)
        if np.unique(values).size > n_types:
            values = np.quantile(values, _medians(n_types))
        return _merge_types(values)


@RHO_DISTRIBUTIONS.register("divergence")
class Divergence(RhoDistribution):
    """Costs that rise with the distance of a node's labels from those of all nodes.

    rho_i = rho0 (1 + coupling d_i), with d_i the total variation distance between the node's label
    shares and the global ones in the training data. Requires a [training] table.
    """

    rho0: Positive = 0.001
    """Cost of a node with the global label shares, in currency per unit of epsilon."""
    coupling: NotNegative = 1.0
    """Additional cost of a node that has no label in common with the others, as a share of rho0."""

    def costs(self, divergence: Floats) -> Floats:
        """Return the cost of each node."""
        return np.asarray(self.rho0 * (1.0 + self.coupling * divergence))

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """Raise an error: costs depend on the data (:meth:`costs`)."""
        raise InvalidGameError(
            "the distribution of rho 'divergence' depends on the nodes' training data, but there "
            "is no data here."
        )


def _medians(n_types: int) -> Floats:
    """Return the probabilities at the middle of equally likely classes."""
    return (np.arange(n_types) + 0.5) / n_types


def _merge_types(costs: Floats, probabilities: Floats | None = None) -> tuple[Floats, Floats]:
    """Return distinct costs, ascending, with their summed probabilities; none has zero."""
    if probabilities is None:
        probabilities = np.full(costs.size, 1.0 / costs.size)
    likely = probabilities > 0
    types, places = np.unique(costs[likely], return_inverse=True)
    return types, np.bincount(places, probabilities[likely])


def _best_price_among(groups: list[tuple[float, float]], sigma: float, value: float) -> float:
    """Return the best price for several log-normal groups of nodes: their shares and medians.

    At a price whose virtual cost equals the value, the buyer's gain has a local maximum or minimum;
    a grid finds the highest maximum.
    """
    groups = [(share, math.log(median)) for share, median in groups if share > 0]
    if sigma == 0:
        tops = [
            (sum(share for share, other in groups if other <= at) * (value - math.exp(at)), at)
            for _, at in groups
        ]
        gain, at = max(tops)
        return math.exp(at) if gain >= 0 else 0.0
    limit = math.log(value)

    def log_chance(log_price: Floats) -> Floats:
        each = [math.log(share) + log_ndtr((log_price - at) / sigma) for share, at in groups]
        return np.asarray(np.logaddexp.reduce(each, axis=0))

    def log_virtual(log_price: Floats) -> Floats:
        """Return ln(rho + F / f) at ln(rho)."""
        z = [(log_price - at) / sigma for _, at in groups]
        each = [
            math.log(share / sigma) - one**2 / 2 for (share, _), one in zip(groups, z, strict=True)
        ]
        log_density = np.logaddexp.reduce(each, axis=0) - math.log(2 * math.pi) / 2
        return np.asarray(log_price + np.logaddexp(0.0, log_chance(log_price) - log_density))

    width = 12.0 * sigma + max(abs(limit - at) for _, at in groups)
    near = [at + sigma * np.linspace(-12.0, 12.0, 2001) for _, at in groups]
    grid = np.unique(np.concatenate([*near, limit - np.linspace(0.0, width, 2001)[1:]]))
    grid = grid[grid < limit]
    best = int(np.argmax(log_chance(grid) + np.log(-np.expm1(grid - limit))))
    below = np.flatnonzero(log_virtual(grid[: best + 1]) < limit)
    if below.size == 0:
        return math.exp(float(grid[best]))
    low, high = float(grid[below[-1]]), float(np.append(grid, limit)[below[-1] + 1])
    return math.exp(brentq(lambda at: float(log_virtual(np.array(at))) - limit, low, high))


def _lognormal(median: float, sigma: float, n_nodes: int, rng: np.random.Generator) -> Floats:
    return np.asarray(median * np.exp(sigma * rng.standard_normal(n_nodes)))
