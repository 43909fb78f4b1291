"""How samples are dealt to nodes."""

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
    """Deals every sample to exactly one node."""

    def split(
        self,
        labels: Labels,
        n_nodes: int,
        rng: np.random.Generator,
        writers: Labels | None = None,
    ) -> list[Rows]:
        """Return each node's rows; none is empty.

        Raises
        ------
        InvalidDataError
            If there are too few samples, or ``writers`` are needed and not known.
        """
        ...


PARTITIONS: Registry[Partition] = Registry("partition")


@PARTITIONS.register("iid")
class Iid(Partition):
    """Shuffled and dealt out: all nodes see the same mixture."""

    @override
    def split(
        self,
        labels: Labels,
        n_nodes: int,
        rng: np.random.Generator,
        writers: Labels | None = None,
    ) -> list[Rows]:
        """Deal at random."""
        sizes = _sizes(labels.size, n_nodes)
        return np.split(rng.permutation(labels.size), np.cumsum(sizes)[:-1])


@PARTITIONS.register("dirichlet")
class Dirichlet(Partition):
    """Label skew: each node prefers labels in shares drawn from a Dirichlet law.

    Nodes draw without replacement until they hold exactly their number of samples; where a label
    has run out, the others' shares count. The last nodes get what is left.
    """

    dirichlet_alpha: Annotated[float, Field(gt=0, le=1e6)] = 0.5
    """Concentration: small is skewed, large is like ``iid``."""

    @override
    def split(
        self,
        labels: Labels,
        n_nodes: int,
        rng: np.random.Generator,
        writers: Labels | None = None,
    ) -> list[Rows]:
        """Deal by label."""
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
    """Draw how many samples of each label a node takes, from what is left."""
    taken = np.zeros_like(left)
    while (missing := size - taken.sum()) > 0:
        weights = np.where(taken < left, share, 0.0)
        if weights.sum() <= 0:  # nothing that the node prefers is left
            weights = (left - taken).astype(float)
        wish = rng.multinomial(missing, weights / weights.sum())
        taken = np.minimum(taken + wish, left)
    return taken


@PARTITIONS.register("shards")
class Shards(Partition):
    """Sorted by label, cut into shards of equal size, and so many shards dealt to each node.

    References
    ----------
    McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized
    data".
    """

    shards_per_node: Annotated[int, Field(ge=1)] = 2
    """How many shards a node gets: about as many labels does it see."""

    @override
    def split(
        self,
        labels: Labels,
        n_nodes: int,
        rng: np.random.Generator,
        writers: Labels | None = None,
    ) -> list[Rows]:
        """Deal shards at random."""
        n_shards = n_nodes * self.shards_per_node
        sizes = _sizes(labels.size, n_shards, "shards")
        mixed = rng.permutation(labels.size)  # within a label chance decides
        ordered = mixed[np.argsort(labels[mixed], kind="stable")]
        shards = np.split(ordered, np.cumsum(sizes)[:-1])
        dealt = rng.permutation(n_shards).reshape(n_nodes, self.shards_per_node)
        return [np.concatenate([shards[i] for i in mine]) for mine in dealt]


@PARTITIONS.register("by-writer")
class ByWriter(Partition):
    """Each node gets whole writers: all that these have written, and nothing of others.

    The natural partition of handwriting. Writers are dealt from the most productive on, each to
    the node that has the fewest samples so far; equal ones in random order.
    """

    @override
    def split(
        self,
        labels: Labels,
        n_nodes: int,
        rng: np.random.Generator,
        writers: Labels | None = None,
    ) -> list[Rows]:
        """Deal writers."""
        if writers is None:
            raise InvalidDataError(
                "The partition 'by-writer' needs data that names its writers (a column writer in "
                "Parquet files); this data does not."
            )
        names, which, counts = np.unique(writers, return_inverse=True, return_counts=True)
        if names.size < n_nodes:
            raise InvalidDataError(
                f"{names.size} writers are too few for {n_nodes} nodes: each needs one."
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
            f"{n_samples} training samples are too few for {n_parts} {what}: each needs one."
        )
    sizes = np.full(n_parts, n_samples // n_parts)
    sizes[: n_samples % n_parts] += 1
    return sizes


def label_divergence(labels: Labels, shards: Sequence[Rows]) -> npt.NDArray[np.float64]:
    """Return how far each node's label shares are from the global ones.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        Labels of all training samples.
    shards : sequence of ndarray of int
        Each node's rows.

    Returns
    -------
    ndarray of float, shape (n_nodes,)
        Total variation distances, from 0 (alike) to 1.
    """
    classes, inverse = np.unique(labels, return_inverse=True)
    overall = np.bincount(inverse, minlength=classes.size) / labels.size
    shares = [
        np.bincount(inverse[rows], minlength=classes.size) / max(len(rows), 1) for rows in shards
    ]
    return np.asarray(np.abs(np.array(shares) - overall).sum(axis=1) / 2)
