"""The work of nodes in a round, and the sums of their uploads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp.sensitivity import l2_norms
from fcfn_abm.errors import RunFailedError
from fcfn_abm.training.local_steps import LocalSteps
from fcfn_abm.training.placements import Upload

if TYPE_CHECKING:
    from torch import Tensor

type Floats = npt.NDArray[np.float64]

_MOST_BLOCKS = 128
_LEAST_NODES = 4


@dataclass(frozen=True)
class RoundWork:
    """One round of training: nodes, parameters and noise."""

    round_index: int
    """Number of the round; with the node it selects the streams of noise and batches."""
    flat: Tensor
    """The round's parameters, shape (n_parameters,)."""
    steps: LocalSteps
    """Settings of the local steps in this round."""
    nodes: npt.NDArray[np.int64]
    """Rows of the nodes that train, in ascending order, shape (n,)."""
    weights: Floats
    """Weight of each of ``nodes`` in the sum, shape (n,)."""
    noise_std: Floats | None
    """Standard deviation of the noise of every node of the market, in units of a release, shape
    (n_nodes,); None for no noise."""
    max_upload_norm: Floats
    """L2 norm of an upload above which the check flags it, for every node of the market, shape
    (n_nodes,); infinite without a check."""


@dataclass(frozen=True)
class Block:
    """Consecutive nodes of the market that train in a round; arrays of shape (n,)."""

    index: int
    """Number of the block in the market."""
    nodes: npt.NDArray[np.int64]
    """Their rows in the market, in ascending order."""
    weights: Floats
    """Their weights in the sum."""
    noise_std: Floats | None
    """Standard deviations of their noise, in units of a release; None for no noise."""
    max_upload_norm: Floats
    """L2 norms of their uploads above which the check flags them."""

    def add_up(self, uploads: Iterable[Upload], flat: Tensor, round_index: int) -> Sums:
        """Return the sums of the block's uploads, which are in the order of its nodes.

        Raises
        ------
        RunFailedError
            If an update is not finite; names the round and the first such node.
        """
        sums = Sums.zeros(flat, has_noise=self.noise_std is not None)
        rows = zip(
            self.nodes.tolist(), self.weights.tolist(), self.max_upload_norm.tolist(), strict=True
        )
        for (node, weight, most), upload in zip(rows, uploads, strict=False):
            require_finite(upload, node, round_index)
            sums.add(node, weight, upload, most)
        return sums


def count_block_nodes(n_nodes: int) -> int:
    """Return the number of nodes per block: four, or enough for at most 128 blocks.

    Uploads are added within a block, and blocks then in order, regardless of the worker: so sums
    have the same digits on any number of machines, and messages do not grow with the market.

    Examples
    --------
    >>> [count_block_nodes(n) for n in (50, 1000, 10_000)]
    [4, 8, 79]
    """
    return max(_LEAST_NODES, -(-n_nodes // _MOST_BLOCKS))


def split_into_blocks(work: RoundWork) -> Iterator[Block]:
    """Yield the blocks of a round in order, without blocks in which no node trains."""
    index = work.nodes // count_block_nodes(work.max_upload_norm.size)
    for rows in np.split(np.arange(work.nodes.size), np.flatnonzero(np.diff(index)) + 1):
        if rows.size:
            nodes = work.nodes[rows]
            yield Block(
                int(index[rows[0]]),
                nodes,
                work.weights[rows],
                None if work.noise_std is None else work.noise_std[nodes],
                work.max_upload_norm[nodes],
            )


@dataclass
class Sums:
    """The weighted sum of some nodes' uploads in a round."""

    update: Tensor
    """Sum of the uploads that were not flagged, shape (n_parameters,)."""
    clean: Tensor
    """Its part without noise; the same tensor as ``update`` if no node adds noise."""
    passed: float
    """Weight of the nodes that were not flagged."""
    flagged: list[int]
    """Rows of the nodes that the check flagged, in ascending order."""
    within: float = 0.0
    """Weighted sum of :attr:`Upload.within` of those that were not flagged."""

    @classmethod
    def zeros(cls, flat: Tensor, *, has_noise: bool) -> Sums:
        """Return empty sums."""
        update = flat.new_zeros(flat.shape)
        clean = update.clone() if has_noise else update
        return cls(update, clean, 0.0, [])

    def add(self, node: int, weight: float, upload: Upload, max_norm: float) -> None:
        """Add the upload of a node, or flag the node if the norm exceeds ``max_norm``."""
        if math.isfinite(max_norm) and float(l2_norms(upload.values[None])) > max_norm:
            self.flagged.append(node)
            return
        self.update.add_(upload.values, alpha=weight)
        if self.clean is not self.update:
            self.clean.add_(upload.clean, alpha=weight)
        self.passed += weight
        self.within += weight * upload.within

    def merge(self, other: Sums) -> None:
        """Add the sums of further nodes."""
        self.update.add_(other.update)
        if self.clean is not self.update:
            self.clean.add_(other.clean)
        self.passed += other.passed
        self.within += other.within
        self.flagged += other.flagged


def require_finite(upload: Upload, node: int, round_index: int) -> None:
    """Raise RunFailedError with round and node if an update is not finite."""
    if not math.isfinite(float(upload.clean.sum())):  # a non-finite value makes the sum non-finite
        raise nonfinite_update(node, round_index)


def nonfinite_update(node: int, round_index: int) -> RunFailedError:
    """Return the error of a node with a non-finite update."""
    return RunFailedError(
        f"training failed in round {round_index}: the update of node {node} "
        "is not finite; try a smaller training.learning_rate."
    )
