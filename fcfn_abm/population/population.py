"""The population of a run: drawn once, and carried by everything that needs to know it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import as_floats

type Floats = npt.NDArray[np.float64]
type Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Holdings:
    """The data that nodes hold; empty where none is dealt."""

    shards: tuple[Rows, ...] = ()
    """Each node's rows of the training images."""
    label_divergence: Floats | None = None
    """How far each node's label shares are from those of all, from 0 to 1, shape (n_nodes,)."""


@dataclass(frozen=True, eq=False)
class Population:
    """The edge nodes of a run, one entry a node, shape (n_nodes,).

    Build one with :meth:`of`, or draw that of a scenario with
    :func:`fcfn_abm.build.draw_population`.
    """

    rho: Floats
    """What a unit of *reported* epsilon costs the node, in currency: its true cost over its
    misreport factor. The game is played with these."""
    true_rho: Floats
    """What a unit of epsilon that is truly spent costs it, in currency."""
    misreport_factor: Floats
    """Reported over spent epsilon; one for a node that reports what it spends."""
    held: Holdings = Holdings()
    """The data that nodes hold."""
    reported_cost: Floats | None = None
    """Unit costs that nodes report where they are asked for costs, and not for epsilon
    (:meth:`asked_for_costs`); None where they report epsilon."""

    @classmethod
    def of(
        cls,
        true_rho: npt.ArrayLike,
        misreport_factor: npt.ArrayLike | None = None,
        held: Holdings = Holdings(),  # frozen
    ) -> Population:
        """Return the population of nodes with these true costs.

        Parameters
        ----------
        true_rho : array_like of float, shape (n_nodes,)
            Unit privacy costs, in currency per unit of epsilon.
        misreport_factor : array_like of float, shape (n_nodes,), optional
            Reported over spent epsilon; without it nobody misreports.
        held : Holdings, optional
            The data that nodes hold.

        Examples
        --------
        >>> Population.of(np.array([2.0, 3.0]), np.array([1.0, 1.5])).rho
        array([2., 2.])
        """
        true_rho = as_floats("true_rho", true_rho)
        if misreport_factor is None:
            misreport_factor = np.ones(true_rho.size)
        misreport_factor = as_floats("misreport_factor", misreport_factor)
        return cls(true_rho / misreport_factor, true_rho, misreport_factor, held)

    def asked_for_costs(self) -> Population:
        """Return the same nodes in a mechanism that asks for costs, and not for epsilon.

        Nodes that misreport report their true cost times their misreport factor, and spend the
        epsilon that they sell.
        """
        return Population(
            self.true_rho,
            self.true_rho,
            np.ones(self.true_rho.size),
            self.held,
            self.true_rho * self.misreport_factor,
        )

    def telling_the_truth(self) -> Population:
        """Return the same nodes without misreports."""
        return Population.of(self.true_rho, held=self.held)

    @property
    def n_nodes(self) -> int:
        """How many nodes there are."""
        return self.rho.size

    @property
    def misreports(self) -> npt.NDArray[np.bool_]:
        """Which nodes report more than they spend, or another cost than their own."""
        if self.reported_cost is not None:
            return np.asarray(self.reported_cost != self.true_rho)
        return np.asarray(self.misreport_factor != 1)
