"""The active sets of many contests, computed together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.game.exact import Floats, exact_sum, two_product, two_sum

_BLOCK = 2**14  # number of costs per block, so that intermediate arrays fit into the cache
ROOM = 1.0 + 1e-9
"""Far larger than the relative error of a plain sum of a billion numbers."""


def active_sets(rho: Floats) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """Return the gaps tau - (n - 1) rho, zero for inactive nodes, and n and tau of each game.

    Takes the costs of k games, shape (k, n). Sums are exact, independent of their order, so that
    the results are bitwise equal to `fcfn_abm.game.equilibrium.active_set` for each game.
    """
    gap = np.zeros_like(rho)
    n_active, tau = np.zeros(len(rho), dtype=np.int64), np.zeros(len(rho))
    if rho.shape[1] < 2:
        return gap, n_active, tau
    rows = max(_BLOCK // rho.shape[1], 1)
    for first in range(0, len(rho), rows):
        block = slice(first, first + rows)
        _solve_block(rho[block], gap[block], n_active[block], tau[block])
    return gap, n_active, tau


def _solve_block(rho: Floats, gap: Floats, n_active: npt.NDArray[np.int64], tau: Floats) -> None:
    """Compute the results of `active_sets` for a few games, in place."""
    ranked = np.sort(rho, axis=1)
    rivals = np.arange(rho.shape[1])  # number of nodes with a lower cost than the k-th
    # in plain floats, with a margin for their errors: few games are left for the exact test
    n = np.count_nonzero(rivals * ranked <= np.cumsum(ranked, axis=1) * ROOM, axis=1)
    ranked, rivals = ranked[:, : n.max()], rivals[: n.max()]
    # All costs but the lowest lie within a factor of two: their sum is exact in two floats, in any
    # order. The lowest may be so small that only it keeps the others active: it is added last.
    cheapest = ranked[:, :1]
    while True:
        members = rivals < n[:, None]
        total, error = exact_sum(np.where(members & (rivals > 0), ranked, 0.0))
        last = np.take_along_axis(ranked, n[:, None] - 1, axis=1)
        sums = (n[:, None], total[:, None], error[:, None], cheapest)
        if (_gap(last, *sums) > 0).all():
            break
        n = np.count_nonzero(members & (_gap(ranked, *sums) > 0), axis=1)
    found = _gap(rho, *sums)
    gap[:] = np.where(rho <= last, found, 0.0)
    n_active[:], tau[:] = n, total + (error + cheapest[:, 0])


def _gap(
    rho: Floats, n: npt.NDArray[np.int64], total: Floats, error: Floats, cheapest: Floats
) -> Floats:
    """Return ``tau - (n - 1) * rho`` in doubled precision, rounded once."""
    product, product_error = two_product(np.asarray(n - 1.0, dtype=float), rho)
    difference, difference_error = two_sum(total, -product)
    return np.asarray((difference + (difference_error + (error - product_error))) + cheapest)
