"""How the server averages what nodes send."""

from __future__ import annotations

from typing import Protocol, override

import numpy as np
import numpy.typing as npt

from fcfn_abm.registry import Registry

type Floats = npt.NDArray[np.float64]


class Aggregation(Protocol):
    """Weighs nodes."""

    def weights(self, n_samples: Floats, noise_std: Floats) -> Floats:
        """Return one weight a node that takes part; they sum to one.

        Parameters
        ----------
        n_samples : ndarray of float, shape (n,)
            Training samples of each node.
        noise_std : ndarray of float, shape (n,)
            Noise that each node's epsilon asks for, in units of its release; zero without noise.
        """
        ...


AGGREGATIONS: Registry[Aggregation] = Registry("aggregation")


@AGGREGATIONS.register("uniform")
class Uniform(Aggregation):
    """All nodes count alike: the paper's mean."""

    @override  # some arguments do not matter
    def weights(self, n_samples: Floats, noise_std: Floats) -> Floats:
        """Return equal weights."""
        return np.full(n_samples.size, 1.0 / n_samples.size)


@AGGREGATIONS.register("data-size")
class DataSize(Aggregation):
    """Nodes count by their number of samples (federated averaging)."""

    @override  # some arguments do not matter
    def weights(self, n_samples: Floats, noise_std: Floats) -> Floats:
        """Return weights in proportion to samples."""
        return np.asarray(n_samples / n_samples.sum())


@AGGREGATIONS.register("by-epsilon")
class ByEpsilon(Aggregation):
    """Nodes count by one over the noise that their epsilon asks for: who sells more weighs more.

    Then one level of noise on the sum gives each node exactly the epsilon that it sold to a server
    that sees the sum alone (the central view).
    """

    def weights(self, n_samples: Floats, noise_std: Floats) -> Floats:
        """Return weights in proportion to 1 / std; by samples where nobody adds noise."""
        if not (noise_std > 0).all():
            return DataSize().weights(n_samples, noise_std)
        share = noise_std.min() / noise_std
        return np.asarray(share / share.sum())


@AGGREGATIONS.register("inverse-variance")
class InverseVariance(Aggregation):
    """Nodes count by the precision of what they send: least noise in the sum.

    The noise levels follow from the reported epsilons and shard sizes, which the server knows.
    """

    def weights(self, n_samples: Floats, noise_std: Floats) -> Floats:
        """Return weights in proportion to 1 / variance; by samples where nobody adds noise."""
        if not (noise_std > 0).all():
            return DataSize().weights(n_samples, noise_std)
        precision = (noise_std.min() / noise_std) ** 2
        return np.asarray(precision / precision.sum())
