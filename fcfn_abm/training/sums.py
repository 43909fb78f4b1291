"""What the nodes of a round are to do, and what the server adds up of it."""

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
    """One round of training: who trains, from which parameters, and with how much noise."""

    round_index: int
    """Number of the round; with the node it selects the streams of noise and batches."""
    flat: Tensor
    """The round's parameters, shape (n_parameters,)."""
    steps: LocalSteps
    """How nodes train in this round."""
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
    """Neighbouring nodes of the market that train in a round; arrays of shape (n,)."""

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
        """Return the sums of the block's uploads, which come in the order of its nodes.

        Raises
        ------
        RunFailedError
            If an update is not finite; names the round, and the first such node.
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
    """Return how many nodes of a market make a block: four, or so many that blocks are 128 at most.

    Sums are added up in a block, and blocks then in order, whoever trains them: so sums have the
    same digits on one machine and on many, and what travels does not grow with the market.

    Examples
    --------
    >>> [count_block_nodes(n) for n in (50, 1000, 10_000)]
    [4, 8, 79]
    """
    return max(_LEAST_NODES, -(-n_nodes // _MOST_BLOCKS))


def split_into_blocks(work: RoundWork) -> Iterator[Block]:
    """Yield the blocks of a round in order, without those in which nobody trains."""
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
    """The uploads of some nodes in a round, weighted and added up."""

    update: Tensor
    """Sum of the uploads that were not flagged, shape (n_parameters,)."""
    clean: Tensor
    """The part of it that is not noise; the same tensor as ``update`` where nobody adds noise."""
    passed: float
    """Weight of the nodes that were not flagged."""
    flagged: list[int]
    """Rows of the nodes that the check flagged, in ascending order."""
    within: float = 0.0
    """Weighted sum of :attr:`Upload.within` of those that were not flagged."""

    @classmethod
    def zeros(cls, flat: Tensor, *, has_noise: bool) -> Sums:
        """Return the sums of no upload."""
        update = flat.new_zeros(flat.shape)
        clean = update.clone() if has_noise else update
        return cls(update, clean, 0.0, [])

    def add(self, node: int, weight: float, upload: Upload, max_norm: float) -> None:
        """Add the upload of a node, unless its norm is above ``max_norm``: then flag the node."""
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
    """Raise RunFailedError, with round and node, where an update is not finite."""
    if not math.isfinite(float(upload.clean.sum())):  # one that is not finite makes the sum so
        raise nonfinite_update(node, round_index)


def nonfinite_update(node: int, round_index: int) -> RunFailedError:
    """Return the error that says whose update is not finite."""
    return RunFailedError(
        f"training broke down in round {round_index}: the update of node {node} "
        "is not finite; a smaller training.learning_rate may help."
    )
