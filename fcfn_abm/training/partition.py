"""How samples are dealt to nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fcfn_abm.errors import InvalidDataError
from fcfn_abm.registry import Registry
from fcfn_abm.training.datasets import Labels

type Rows = npt.NDArray[np.int64]


class Partition(Protocol):
    """Deals every sample to exactly one node."""

    def split(self, labels: Labels, n_nodes: int, rng: np.random.Generator) -> list[Rows]:
        """Return each node's rows; their numbers differ by one at most."""
        ...


PARTITIONS: Registry[Partition] = Registry("partition")


@PARTITIONS.register("iid")
class Iid(Partition):
    """Shuffled and dealt out: all nodes see the same mixture."""

    def split(self, labels: Labels, n_nodes: int, rng: np.random.Generator) -> list[Rows]:
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

    def split(self, labels: Labels, n_nodes: int, rng: np.random.Generator) -> list[Rows]:
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


def _sizes(n_samples: int, n_nodes: int) -> Rows:
    if n_samples < n_nodes:
        raise InvalidDataError(
            f"{n_samples} training samples are too few for {n_nodes} nodes: each needs one."
        )
    sizes = np.full(n_nodes, n_samples // n_nodes)
    sizes[: n_samples % n_nodes] += 1
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
