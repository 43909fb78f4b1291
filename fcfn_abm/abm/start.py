"""The first reports of nodes."""

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
    """Return the first reports, shape (n,): cold, warm or random, by group.

    Parameters
    ----------
    columns : NodeColumns
        With the unit costs.
    groups : sequence of NodeGroup
        Each with its own start.
    offer : Offer
        Offer of the mechanism; with contracts, nodes report nothing at first.
    pool : float
        Pool that nodes share, in currency.
    epsilon_floor : float
        Smallest admissible report, used by a cold start.
    seed : int
        Seed of all random numbers of the market.
    terms : Terms, optional
        Cost of taking part, and limits; None in the game of the paper.
    equilibrium : ndarray of float, shape (n,), optional
        Reports of a warm start under terms other than the paper's.
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
