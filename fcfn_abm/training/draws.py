"""Chance in a training: the noise of nodes, their samples, and who is present."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fcfn_abm.rng import stream
from fcfn_abm.training.plan import TrainingPlan

if TYPE_CHECKING:
    from torch import Tensor

type Ints = npt.NDArray[np.int64]


class Draws:
    """Draws what is random in a training, each from a stream of its own.

    A draw depends on the seed, the round and the node alone, and not on the order in which nodes
    train. Secure noise is the exception: it comes from the operating system.

    Parameters
    ----------
    plan : TrainingPlan
        What is trained.
    n_samples : ndarray of int, shape (n_nodes,)
        Samples of each node.
    n_parameters : int
        Parameters of the net.
    """

    def __init__(self, plan: TrainingPlan, n_samples: Ints, n_parameters: int) -> None:
        self._plan, self._n_samples, self._n_parameters = plan, n_samples, n_parameters

    def noise(self, std: float, round_index: int, node: int) -> Tensor:
        """Draw what a node adds in a round, shape (n_draws, n_parameters)."""
        from fcfn_abm.dp.noise import node_noise, secure_noise

        plan = self._plan
        n_samples = int(self._n_samples[node])
        n_draws = plan.placement.releases(plan.steps, n_samples, plan.neighbours).n_draws
        size, grid = n_draws * self._n_parameters, plan.steps.grid
        if grid is not None:
            return secure_noise(size, std, grid).view(n_draws, -1)
        return node_noise(size, std, plan.seed, round_index, node).view(n_draws, -1)

    def noise_of_sum(self, std: float, round_index: int) -> Tensor:
        """Draw the noise of the weighted sum at once, shape (n_parameters,)."""
        from fcfn_abm.dp.noise import node_noise

        n_nodes = self._n_samples.size  # the stream after those of the nodes
        return node_noise(self._n_parameters, std, self._plan.seed, round_index, n_nodes)

    def batches(self, round_index: int, node: int) -> np.random.Generator:
        """Return the generator of a node's batches in a round.

        With secure noise it does not follow from the seed: whoever knew the seed would know which
        records were sampled.
        """
        if self._plan.secure_noise:
            return np.random.default_rng()
        return stream(self._plan.seed, "batches", round_index, node)

    def attendance(self, able: npt.NDArray[np.bool_], round_index: int) -> tuple[Ints, Ints]:
        """Draw which of the able nodes send an update in a round.

        Parameters
        ----------
        able : ndarray of bool, shape (n_nodes,)
            Nodes that would take part.
        round_index : int
            Number of the round.

        Returns
        -------
        on_time, late : ndarray of int
            Rows of the nodes whose update is used, and of those whose update comes too late.
        """
        chances = self._plan.chances
        draws = stream(self._plan.seed, "attendance", round_index).random((3, able.size))
        sends = able & (draws[0] < chances.participation) & (draws[1] >= chances.dropping)
        late = sends & (draws[2] < chances.straggling)
        return np.flatnonzero(sends & ~late), np.flatnonzero(late)
