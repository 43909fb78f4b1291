"""What nodes report before they have seen anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fcfn_abm.abm.columns import Floats, NodeColumns
from fcfn_abm.abm.groups import NodeGroup
from fcfn_abm.abm.scores import unit_equilibrium
from fcfn_abm.game import Terms
from fcfn_abm.mechanisms import Contracts, Offer
from fcfn_abm.rng import stream


def draw_first_reports(
    columns: NodeColumns,
    groups: Sequence[NodeGroup],
    offer: Offer,
    pool: float,
    epsilon_floor: float,
    seed: int,
    terms: Terms | None = None,
    equilibrium: Floats | None = None,
) -> Floats:
    """Return the first reports, shape (n,): cold, warm or random, as each group starts.

    Parameters
    ----------
    columns : NodeColumns
        With the unit costs.
    groups : sequence of NodeGroup
        Which start in their own way.
    offer : Offer
        Of the mechanism; where nodes take or leave contracts, they report nothing yet.
    pool : float
        What nodes share, in currency.
    epsilon_floor : float
        Smallest admissible report: what a cold start is.
    seed : int
        Root of all chance in the market.
    terms : Terms, optional
        What taking part costs and allows; None in the game of the paper.
    equilibrium : ndarray of float, shape (n,), optional
        Where a warm start is under other terms than the paper's.
    """
    n_nodes = len(columns)
    reports = np.zeros(n_nodes)
    if isinstance(offer, Contracts):
        return reports
    chance = stream(seed, "first-reports")
    for group in groups:
        rows = group.rows
        if group.start == "cold":
            reports[rows] = epsilon_floor
        elif group.start == "warm":
            if equilibrium is None:
                equilibrium = pool * unit_equilibrium(offer, columns.rho).epsilon
            reports[rows] = equilibrium[rows]
        else:
            alike = pool * (n_nodes - 1) / (n_nodes**2 * columns.rho[rows])
            if terms is not None:
                alike = terms.form.largest(alike) if pool > 0 else alike
            if offer.exponent != 1:
                alike *= offer.exponent
            reports[rows] = alike * chance.uniform(0.5, 1.5, alike.size)
    return reports
