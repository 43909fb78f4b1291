"""Weights with which the server averages the nodes' uploads."""

from __future__ import annotations

from typing import Protocol, override

import numpy as np
import numpy.typing as npt

from fcfn_abm.registry import Registry

type Floats = npt.NDArray[np.float64]


class Aggregation(Protocol):
    """Weighs nodes."""

    def weights(self, n_samples: Floats, noise_std: Floats) -> Floats:
        """Return the weights of the participating nodes, which sum to one.

        Parameters
        ----------
        n_samples : ndarray of float, shape (n,)
            Training samples of each node.
        noise_std : ndarray of float, shape (n,)
            Standard deviation of each node's noise, in units of its release; zero without noise.
        """
        ...


AGGREGATIONS: Registry[Aggregation] = Registry("aggregation")


@AGGREGATIONS.register("uniform")
class Uniform(Aggregation):
    """Equal weights: the paper's mean."""

    @override  # unused arguments
    def weights(self, n_samples: Floats, noise_std: Floats) -> Floats:
        """Return equal weights."""
        return np.full(n_samples.size, 1.0 / n_samples.size)


@AGGREGATIONS.register("data-size")
class DataSize(Aggregation):
    """Weights in proportion to the numbers of samples (federated averaging)."""

    @override  # unused arguments
    def weights(self, n_samples: Floats, noise_std: Floats) -> Floats:
        """Return weights in proportion to samples."""
        return np.asarray(n_samples / n_samples.sum())


@AGGREGATIONS.register("by-epsilon")
class ByEpsilon(Aggregation):
    """Weights in proportion to 1 / noise: nodes that sell more epsilon have more weight.

    A single noise level on the sum then gives each node exactly the epsilon that it sold to a
    server that sees only the sum (the central view).
    """

    def weights(self, n_samples: Floats, noise_std: Floats) -> Floats:
        """Return weights in proportion to 1 / std, or to samples without noise."""
        if not (noise_std > 0).all():
            return DataSize().weights(n_samples, noise_std)
        share = noise_std.min() / noise_std
        return np.asarray(share / share.sum())


@AGGREGATIONS.register("inverse-variance")
class InverseVariance(Aggregation):
    """Weights in proportion to 1 / noise variance, which minimise the noise in the sum.

    The noise levels follow from the reported epsilons and shard sizes, which the server knows.
    """

    def weights(self, n_samples: Floats, noise_std: Floats) -> Floats:
        """Return weights in proportion to 1 / variance, or to samples without noise."""
        if not (noise_std > 0).all():
            return DataSize().weights(n_samples, noise_std)
        precision = (noise_std.min() / noise_std) ** 2
        return np.asarray(precision / precision.sum())
