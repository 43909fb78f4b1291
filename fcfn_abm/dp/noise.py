"""Gaussian noise for tensors, from a stream of its own for every node and round."""

from __future__ import annotations

import numpy as np
import torch

from fcfn_abm.rng import stream


def node_noise(size: int, std: float, seed: int, round_index: int, node: int) -> torch.Tensor:
    """Draw the noise that a node adds in a round.

    Parameters
    ----------
    size : int
        How many numbers.
    std : float
        Standard deviation of each.
    seed, round_index, node : int
        Which stream; no two share a draw. NumPy's generator is used because torch's keeps only
        the low 32 bits of a seed.

    Returns
    -------
    Tensor of float32, shape (size,)
        The same for equal arguments, whatever else was drawn.
    """
    draws = stream(seed, "noise", round_index, node).standard_normal(size)
    return torch.from_numpy((std * draws).astype(np.float32))
