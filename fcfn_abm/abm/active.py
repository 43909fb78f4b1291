"""The active set of one contest as a compiled loop."""

from __future__ import annotations

import numpy as np

from fcfn_abm.game import exact
from fcfn_abm.game.batch import ROOM
from fcfn_abm.jit import compile_loop, inline

for _function in (exact._upper, exact.two_product, exact.two_sum):
    inline(_function)


@compile_loop
def find_active(rho, members, gap):  # type: ignore[no-untyped-def]
    """Write the active set (row numbers) and its gaps tau - (n - 1) rho; return n and tau.

    Bitwise equal to `fcfn_abm.game.equilibrium.active_set`, where the steps are explained.
    """
    cheapest = next_cheapest = np.inf
    for cost in rho:
        next_cheapest = min(next_cheapest, max(cost, cheapest))
        cheapest = min(cheapest, cost)
    n = 0
    for row in range(rho.size):
        members[n] = row
        n += rho[row] <= cheapest + next_cheapest
    while True:
        total = 0.0
        for row in members[:n]:
            total += rho[row]
        largest, n_before, n = total / (n - 1) * ROOM, n, 0
        for row in members[:n_before]:
            members[n] = row
            n += rho[row] <= largest
        if n == n_before:
            break
    while True:
        costs = rho[members[:n]]
        first = costs.argmin()
        cheapest, costs[first] = costs[first], 0.0
        total = error = 0.0
        for cost in costs:
            total, lost = exact.two_sum(total, cost)
            error += lost
        total, error = exact.two_sum(total, error)
        costs[first] = cheapest
        product, product_error = exact.two_product(np.full(1, n - 1.0), costs)
        difference, difference_error = exact.two_sum(total, -product)
        gap[:n] = (difference + (difference_error + (error - product_error))) + cheapest
        n_before, n = n, 0
        for place in range(n_before):
            members[n] = members[place]
            n += gap[place] > 0
        if n == n_before:
            return n, total + (error + cheapest)
