"""Partitions of the samples over the nodes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Annotated, Protocol, override

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fcfn_abm.errors import InvalidDataError
from fcfn_abm.registry import Registry
from fcfn_abm.training.sources import Labels

type Rows = npt.NDArray[np.int64]


class Partition(Protocol):
    """Assigns every sample to exactly one node."""

    def split(
        self,
        labels: Labels,
        n_nodes: int,
        rng: np.random.Generator,
        writers: Labels | None = None,
    ) -> list[Rows]:
        """Return each node's rows; every node gets at least one.

        Raises
        ------
        InvalidDataError
            If there are too few samples, or ``writers`` are needed but unknown.
        """
        ...


PARTITIONS: Registry[Partition] = Registry("partition")


@PARTITIONS.register("iid")
class Iid(Partition):
    """Random assignment: all nodes have the same distribution."""

    @override
    def split(
        self,
        labels: Labels,
        n_nodes: int,
        rng: np.random.Generator,
        writers: Labels | None = None,
    ) -> list[Rows]:
        """Assign samples at random."""
        sizes = _sizes(labels.size, n_nodes)
        return np.split(rng.permutation(labels.size), np.cumsum(sizes)[:-1])


@PARTITIONS.register("dirichlet")
class Dirichlet(Partition):
    """Label skew: each node prefers labels in shares drawn from a Dirichlet distribution.

    Nodes draw without replacement until they have exactly their number of samples; when a label has
    run out, the other labels' shares count. The last nodes get the rest.
    """

    dirichlet_alpha: Annotated[float, Field(gt=0, le=1e6)] = 0.5
    """Concentration: small values are skewed, large values approach ``iid``."""

    @override
    def split(
        self,
        labels: Labels,
        n_nodes: int,
        rng: np.random.Generator,
        writers: Labels | None = None,
    ) -> list[Rows]:
        """Assign samples by label."""
        sizes = _sizes(labels.size, n_nodes)
        classes, inverse = np.unique(labels, return_inverse=True)
        pools = [rng.permutation(np.flatnonzero(inverse == c)) for c in range(classes.size)]
        left = np.array([pool.size for pool in pools])
        shares = rng.dirichlet(np.full(classes.size, self.dirichlet_alpha), size=n_nodes)
        shards = []
        for size, share in zip(sizes, shares, strict=True):
            taken = _draw_counts(size, share, left, rng)
            start = [pool.size - rest for pool, rest in zip(pools, left, strict=True)]
            rows = [p[s : s + t] for p, s, t in zip(pools, start, taken, strict=True)]
            shards.append(np.concatenate(rows))
            left = left - taken
        return shards


def _draw_counts(
    size: int, share: npt.NDArray[np.float64], left: Rows, rng: np.random.Generator
) -> Rows:
    """Draw the number of samples of each label for a node, from the remaining samples."""
    taken = np.zeros_like(left)
    while (missing := size - taken.sum()) > 0:
        weights = np.where(taken < left, share, 0.0)
        if weights.sum() <= 0:  # none of the node's preferred labels is left
            weights = (left - taken).astype(float)
        wish = rng.multinomial(missing, weights / weights.sum())
        taken = np.minimum(taken + wish, left)
    return taken


@PARTITIONS.register("shards")
class Shards(Partition):
    """Samples sorted by label, cut into shards of equal size; each node gets several shards.

    References
    ----------
    McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized
    data".
    """

    shards_per_node: Annotated[int, Field(ge=1)] = 2
    """Number of shards per node, which is about its number of labels."""

    @override
    def split(
        self,
        labels: Labels,
        n_nodes: int,
        rng: np.random.Generator,
        writers: Labels | None = None,
    ) -> list[Rows]:
        """Assign shards at random."""
        n_shards = n_nodes * self.shards_per_node
        sizes = _sizes(labels.size, n_shards, "shards")
        mixed = rng.permutation(labels.size)  # random order within a label
        ordered = mixed[np.argsort(labels[mixed], kind="stable")]
        shards = np.split(ordered, np.cumsum(sizes)[:-1])
        dealt = rng.permutation(n_shards).reshape(n_nodes, self.shards_per_node)
        return [np.concatenate([shards[i] for i in mine]) for mine in dealt]


@PARTITIONS.register("by-writer")
class ByWriter(Partition):
    """Each node gets all images of some writers.

    The natural partition of handwriting. Writers are assigned in order of decreasing number of
    images, each to the node with the fewest samples so far; ties in random order.
    """

    @override
    def split(
        self,
        labels: Labels,
        n_nodes: int,
        rng: np.random.Generator,
        writers: Labels | None = None,
    ) -> list[Rows]:
        """Assign writers."""
        if writers is None:
            raise InvalidDataError(
                "The partition 'by-writer' needs data with writers (a column writer in "
                "Parquet files), which this data lacks."
            )
        names, which, counts = np.unique(writers, return_inverse=True, return_counts=True)
        if names.size < n_nodes:
            raise InvalidDataError(
                f"{names.size} writers are too few for {n_nodes} nodes: each node needs at least "
                "one."
            )
        mixed = rng.permutation(names.size)
        held = [(0, node) for node in range(n_nodes)]
        node_of = np.empty(names.size, dtype=np.int64)
        for writer in mixed[np.argsort(-counts[mixed], kind="stable")].tolist():
            n_samples, node = held[0]
            node_of[writer] = node
            heapq.heapreplace(held, (n_samples + int(counts[writer]), node))
        nodes = node_of[which]
        order = np.argsort(nodes, kind="stable")
        return np.split(order, np.cumsum(np.bincount(nodes, minlength=n_nodes))[:-1])


def _sizes(n_samples: int, n_parts: int, what: str = "nodes") -> Rows:
    if n_samples < n_parts:
        raise InvalidDataError(
            f"{n_samples} training samples are too few for {n_parts} {what}: each needs at least "
            "one."
        )
    sizes = np.full(n_parts, n_samples // n_parts)
    sizes[: n_samples % n_parts] += 1
    return sizes


def label_divergence(labels: Labels, shards: Sequence[Rows]) -> npt.NDArray[np.float64]:
    """Return the distance of each node's label shares from the global ones.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        Labels of all training samples.
    shards : sequence of ndarray of int
        Each node's rows.

    Returns
    -------
    ndarray of float, shape (n_nodes,)
        Total variation distances, from 0 (equal) to 1.
    """
    classes, inverse = np.unique(labels, return_inverse=True)
    overall = np.bincount(inverse, minlength=classes.size) / labels.size
    shares = [
        np.bincount(inverse[rows], minlength=classes.size) / max(len(rows), 1) for rows in shards
    ]
    return np.asarray(np.abs(np.array(shares) - overall).sum(axis=1) / 2)
