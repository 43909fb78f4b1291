"""The population of a run, drawn once and passed to everything that needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import as_floats
from fcfn_abm.population.manipulation import Manipulation

type Floats = npt.NDArray[np.float64]
type Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Holdings:
    """The data of the nodes; empty without training data."""

    shards: tuple[Rows, ...] = ()
    """Each node's rows of the training images."""
    label_divergence: Floats | None = None
    """Distance of each node's label shares from the overall ones, from 0 to 1, shape (n_nodes,)."""


@dataclass(frozen=True)
class Group:
    """A named group of nodes: contiguous rows."""

    name: str
    """Name of the group; empty if all nodes are one group."""
    rows: slice
    """Rows of its nodes, with start and stop."""

    @classmethod
    def partition(cls, sizes: Mapping[str, int]) -> tuple[Self, ...]:
        """Return consecutive groups of these sizes.

        Examples
        --------
        >>> [group.rows for group in Group.partition({"few": 2, "many": 8})]
        [slice(0, 2, None), slice(2, 10, None)]
        """
        ends = accumulate(sizes.values(), initial=0)
        return tuple(
            cls(name, slice(*rows)) for name, rows in zip(sizes, pairwise(ends), strict=True)
        )


@dataclass(frozen=True, eq=False)
class Population:
    """The edge nodes of a run, one entry per node, shape (n_nodes,).

    Create one with :meth:`of`, or draw that of a scenario with
    :func:`fcfn_abm.build.draw_population`.
    """

    rho: Floats
    """Cost of a unit of *reported* epsilon, in currency: the true cost divided by the misreport
    factor. The game is played with these costs."""
    true_rho: Floats
    """Cost of a unit of spent epsilon, in currency."""
    misreport_factor: Floats
    """Reported divided by spent epsilon; one for a truthful node."""
    held: Holdings = Holdings()
    """The data of the nodes."""
    reported_cost: Floats | None = None
    """Unit costs that nodes report to mechanisms that ask for costs instead of epsilon
    (:meth:`report_costs`); None if nodes report epsilon."""
    groups: tuple[Group, ...] = ()
    """The groups of the scenario, in order; empty without groups."""
    names: tuple[str | None, ...] | None = None
    """Names of the nodes (None for a node without one), or None if no node has a name."""
    manipulation: Manipulation | None = None
    """Coalitions and multiple identities; None without any."""

    @classmethod
    def of(
        cls,
        true_rho: npt.ArrayLike,
        misreport_factor: npt.ArrayLike | None = None,
        held: Holdings = Holdings(),  # frozen
        groups: tuple[Group, ...] = (),
        names: tuple[str | None, ...] | None = None,
    ) -> Population:
        """Return the population of nodes with these true costs.

        Parameters
        ----------
        true_rho : array_like of float, shape (n_nodes,)
            Unit privacy costs, in currency per unit of epsilon.
        misreport_factor : array_like of float, shape (n_nodes,), optional
            Reported divided by spent epsilon. By default all nodes are truthful.
        held : Holdings, optional
            The data of the nodes.
        groups : tuple of Group, optional
            Named groups of nodes.
        names : tuple of str or None, optional
            Names of the nodes.

        Examples
        --------
        >>> Population.of(np.array([2.0, 3.0]), np.array([1.0, 1.5])).rho
        array([2., 2.])
        """
        true_rho = as_floats("true_rho", true_rho)
        if misreport_factor is None:
            misreport_factor = np.ones(true_rho.size)
        misreport_factor = as_floats("misreport_factor", misreport_factor)
        rho = true_rho / misreport_factor
        return cls(rho, true_rho, misreport_factor, held, groups=groups, names=names)

    def report_costs(self) -> Population:
        """Return the same nodes for a mechanism that asks for costs instead of epsilon.

        Misreporting nodes report their true cost times their misreport factor, and spend the
        epsilon that they sell.
        """
        return Population(
            self.true_rho,
            self.true_rho,
            np.ones(self.true_rho.size),
            self.held,
            self.true_rho * self.misreport_factor,
            self.groups,
            self.names,
            self.manipulation,
        )

    def without_misreports(self) -> Population:
        """Return the same nodes without misreports."""
        honest = Population.of(self.true_rho, held=self.held, groups=self.groups, names=self.names)
        return replace(honest, manipulation=self.manipulation)

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return self.rho.size

    @property
    def reporting_rho(self) -> Floats:
        """Costs of the reporting nodes; of a coalition only its lowest cost."""
        return self.rho if self.manipulation is None else self.rho[~self.manipulation.silent]

    @property
    def group(self) -> npt.NDArray[np.str_]:
        """Name of each node's group, shape (n_nodes,)."""
        sizes = [group.rows.stop - group.rows.start for group in self.groups]
        return np.repeat([group.name for group in self.groups], sizes)

    @property
    def misreports(self) -> npt.NDArray[np.bool_]:
        """Which nodes report more epsilon than they spend, or a cost other than their own."""
        if self.reported_cost is not None:
            return np.asarray(self.reported_cost != self.true_rho)
        return np.asarray(self.misreport_factor != 1)
