"""Distributions of the unit privacy cost rho, in currency per unit of epsilon."""

from __future__ import annotations

from typing import Annotated, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

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
        How many nodes there are.
    rng : Generator, BitGenerator, SeedSequence, int or list of int
        Source of chance.
    divergence : ndarray of float, shape (n_nodes,), optional
        How far each node's label shares are from the global ones, from 0 to 1. Costs that follow
        the data need it; others ignore it.
    counted_by : str, default "population.n_nodes"
        What says how many nodes there are, for the error message.

    Returns
    -------
    ndarray of float, shape (n_nodes,)
        Costs in currency per unit of epsilon.

    Raises
    ------
    InvalidGameError
        If the distribution gives something else than ``n_nodes`` positive numbers, or one that is
        too large or too small (:func:`require_sized`), or follows the data and there is no
        ``divergence``.
    """
    if isinstance(distribution, Divergence) and divergence is not None:
        rho = distribution.costs(divergence)
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            rho = as_floats("rho", distribution.draw(n_nodes, as_generator(rng)))
    if rho.shape != (n_nodes,):
        raise InvalidGameError(
            f"the distribution of rho gives {rho.size} costs, but {counted_by} = {n_nodes}."
        )
    require_sized(rho=rho)
    return rho


def require_sized(**values: npt.ArrayLike) -> None:
    """Raise unless every value is one that a scenario may hold too.

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
    """All nodes alike."""

    value: Positive = 0.001
    """The cost of every node."""

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """Return the same cost for all."""
        return np.full(n_nodes, self.value)


@RHO_DISTRIBUTIONS.register("uniform")
class Uniform(RhoDistribution):
    """Evenly spread between two costs."""

    low: Positive = 0.0005
    """Smallest cost."""
    high: Positive = 0.0015
    """Largest cost."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, but {self.low:g} > {self.high:g}")
        return self

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:
        """Draw from U(low, high)."""
        return rng.uniform(self.low, self.high, n_nodes)


@RHO_DISTRIBUTIONS.register("lognormal")
class LogNormal(RhoDistribution):
    """Skewed, as people's valuations of privacy are."""

    median: Positive = 0.001
    """The cost that half of the nodes exceed."""
    sigma: Annotated[float, Field(ge=0, le=20)] = 0.3
    """Standard deviation of ln(rho)."""

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:
        """Draw from a log-normal distribution."""
        return _lognormal(self.median, self.sigma, n_nodes, rng)


@RHO_DISTRIBUTIONS.register("pareto")
class Pareto(RhoDistribution):
    """A heavy tail of nodes with very high costs."""

    minimum: Positive = 0.001
    """Smallest cost."""
    exponent: Annotated[float, Field(ge=0.1)] = 2.0
    """Tail exponent; the smaller, the heavier the tail."""

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:
        """Draw from a Pareto distribution."""
        return self.minimum * (1.0 + rng.pareto(self.exponent, n_nodes))


@RHO_DISTRIBUTIONS.register("two-group")
class TwoGroup(RhoDistribution):
    """Two groups of nodes, in exact shares."""

    low: Positive = 0.001
    """The cost of the low-cost group."""
    high: Positive = 0.002
    """The cost of the high-cost group."""
    share_high: Share = 0.5
    """Share of costly nodes; their number is rounded to the nearest whole one."""

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:
        """Deal both costs out in random order."""
        n_high = round(self.share_high * n_nodes)
        return rng.permutation(np.repeat([self.high, self.low], [n_high, n_nodes - n_high]))


@RHO_DISTRIBUTIONS.register("outliers")
class Outliers(RhoDistribution):
    """A log-normal population in which a few nodes are far costlier than the rest."""

    median: Positive = 0.001
    """The cost that half of the ordinary nodes exceed."""
    sigma: Annotated[float, Field(ge=0, le=20)] = 0.3
    """Standard deviation of ln(rho)."""
    share: Share = 0.1
    """Share of outliers; their number is rounded to the nearest whole one."""
    factor: Positive = 5.0
    """How many times costlier an outlier is than it would be otherwise."""

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:
        """Draw from a log-normal distribution, and multiply the outliers."""
        rho = _lognormal(self.median, self.sigma, n_nodes, rng)
        outliers = rng.permutation(n_nodes)[: round(self.share * n_nodes)]
        rho[outliers] *= self.factor
        return rho


@RHO_DISTRIBUTIONS.register("listed")
class Listed(RhoDistribution):
    """The costs as they stand in the file."""

    values: Annotated[tuple[Positive, ...], Field(strict=False)]
    """One cost a node."""

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """Return the list."""
        return np.array(self.values)


@RHO_DISTRIBUTIONS.register("divergence")
class Divergence(RhoDistribution):
    """The less a node's labels are mixed like everybody's, the costlier its privacy.

    rho_i = rho0 (1 + coupling d_i), with d_i the total variation between the node's label shares
    and the global ones in the training data. Needs a [training] table.
    """

    rho0: Positive = 0.001
    """The cost of a node whose labels are mixed like everybody's."""
    coupling: NotNegative = 1.0
    """How much costlier a node is that shares nothing with the others, as a share of rho0."""

    def costs(self, divergence: Floats) -> Floats:
        """Return the cost of each node."""
        return np.asarray(self.rho0 * (1.0 + self.coupling * divergence))

    def draw(self, n_nodes: int, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """Refuse: costs follow from the data (:meth:`costs`)."""
        raise InvalidGameError(
            "the distribution of rho 'divergence' follows the data that nodes hold, and there is "
            "no data here."
        )


def _lognormal(median: float, sigma: float, n_nodes: int, rng: np.random.Generator) -> Floats:
    return np.asarray(median * np.exp(sigma * rng.standard_normal(n_nodes)))
