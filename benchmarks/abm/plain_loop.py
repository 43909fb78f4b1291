"""The same game as a plain compiled loop, as a baseline for a market in one call."""

from __future__ import annotations

from math import sqrt

import numba
import numpy as np


@numba.njit(error_model="numpy")
def play(rho, epsilon, budget, tolerance, patience, maximum, seed):
    """Play half steps in random order until the market converges; return the number of rounds.

    Each round draws an order, moves every node, and measures exploitability and the largest change,
    as in hand-written code for this single market.
    """
    np.random.seed(seed)  # noqa: NPY002  # numba's own generator
    n_nodes = rho.size
    order, caution, before = np.arange(n_nodes), np.ones(n_nodes), np.empty(n_nodes)
    total, calm = epsilon.sum(), 0
    for round_index in range(1, maximum + 1):
        np.random.shuffle(order)  # noqa: NPY002
        before[:] = epsilon
        for row in order:
            own = epsilon[row]
            others = max(total - own, 0.0)
            pull = others / budget * rho[row]
            best = others * (1.0 - pull) / (sqrt(pull) + pull) if 0.0 < pull < 1.0 else 0.0
            now = 2.0 * sqrt(pull) if 0.0 < pull < 0.25 else 1.0
            caution[row] = min(now, 1.5 * caution[row])
            epsilon[row] = own + 0.5 * (best - own) * caution[row]
            total = others + epsilon[row]
        total = epsilon.sum()
        gain, change, largest = 0.0, 0.0, 0.0
        for row in range(n_nodes):
            own = epsilon[row]
            others = max(total - own, 0.0)
            pull = others / budget * rho[row]
            if pull < 1.0:
                best = others * (1.0 - pull) / (sqrt(pull) + pull)
                gain = max(gain, rho[row] * (best - own) ** 2 / total)
            else:
                gain = max(gain, own * (rho[row] - budget / total))
            change = max(change, abs(own - before[row]))
            largest = max(largest, before[row])
        calm = calm + 1 if gain / budget <= tolerance and change <= tolerance * largest else 0
        if calm >= patience:
            return round_index
    return maximum
