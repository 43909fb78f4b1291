"""Random numbers of a training: noise, batches and attendance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from fcfn_abm.rng import stream
from fcfn_abm.training.placements import ReleasePlan
from fcfn_abm.training.plan import TrainingPlan

if TYPE_CHECKING:
    from torch import Tensor

type Ints = npt.NDArray[np.int64]


class Attendance(NamedTuple):
    """Rows of nodes in a round, in ascending order."""

    asked: Ints
    """Nodes that are asked to train."""
    on_time: Ints
    """Nodes whose update arrives in time."""
    late: Ints
    """Nodes whose update arrives too late; the other nodes asked send nothing."""


class Draws:
    """Draws the random numbers of a training from separate streams.

    A draw depends only on the seed, the round and the node, not on the order in which nodes
    train. Secure noise is the exception: it comes from the operating system.

    Parameters
    ----------
    plan : TrainingPlan
        Plan of the training.
    releases : sequence of ReleasePlan
        Releases of each node per round.
    n_parameters : int
        Parameters of the net.
    """

    def __init__(
        self, plan: TrainingPlan, releases: Sequence[ReleasePlan], n_parameters: int
    ) -> None:
        self._plan, self._releases, self._n_parameters = plan, releases, n_parameters

    def draw_noise(self, std: float, round_index: int, node: int) -> Tensor:
        """Draw the noise of a node in a round, shape (n_noise_draws, n_parameters)."""
        from fcfn_abm.dp.noise import node_noise, secure_noise

        plan, n_draws = self._plan, self._releases[node].n_noise_draws
        size, grid = n_draws * self._n_parameters, plan.steps.grid
        if grid is not None:
            return secure_noise(size, std, grid).view(n_draws, -1)
        return node_noise(size, std, plan.seed, round_index, node).view(n_draws, -1)

    def draw_noise_of_sum(self, std: float, round_index: int) -> Tensor:
        """Draw the noise of the weighted sum at once, shape (n_parameters,)."""
        from fcfn_abm.dp.noise import node_noise

        n_nodes = len(self._releases)  # the stream after those of the nodes
        return node_noise(self._n_parameters, std, self._plan.seed, round_index, n_nodes)

    def draw_count_noise(self, std: float, round_index: int) -> float:
        """Draw the noise of the weighted sum of the clipping counts."""
        return std * float(stream(self._plan.seed, "count-noise", round_index).standard_normal())

    def create_batch_generator(self, round_index: int, node: int) -> np.random.Generator:
        """Return the generator that draws a node's batches in a round.

        With secure noise it does not follow from the seed, from which anyone could compute the
        sampled records.
        """
        if self._plan.secure_noise:
            return np.random.default_rng()
        return stream(self._plan.seed, "batches", round_index, node)

    def draw_attendance(self, able: npt.NDArray[np.bool_], round_index: int) -> Attendance:
        """Draw which of the able nodes send an update in a round.

        Parameters
        ----------
        able : ndarray of bool, shape (n_nodes,)
            Nodes that can take part.
        round_index : int
            Number of the round.

        Returns
        -------
        Attendance
            Nodes asked, and nodes whose update arrives.
        """
        chances = self._plan.chances
        draws = stream(self._plan.seed, "attendance", round_index).random((3, able.size))
        asked = able & (draws[0] < chances.participation)
        sends = asked & (draws[1] >= chances.dropping)
        late = sends & (draws[2] < chances.straggling)
        return Attendance(*map(np.flatnonzero, (asked, sends & ~late, late)))
