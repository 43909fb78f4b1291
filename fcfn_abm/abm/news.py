"""What nodes observe of a round, and how they learn from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fcfn_abm.abm.columns import Floats
from fcfn_abm.abm.groups import NodeGroup, find_group
from fcfn_abm.abm.round import Round
from fcfn_abm.game import takes_part
from fcfn_abm.learning import News
from fcfn_abm.learning.base import Rows
from fcfn_abm.rng import stream


def learn_from(
    played: Round, rows: Rows, *, noise: float, changing: bool, newcomers: bool = False
) -> None:
    """Let the nodes of some rows learn from a round.

    Parameters
    ----------
    played : Round
        Its columns hold the nodes' memory.
    rows : slice or ndarray of int
        Rows of the nodes that learn.
    noise : float
        Relative error of observations.
    changing : bool
        Whether there is churn, or costs change.
    newcomers : bool, default False
        Whether the nodes are new in a round that is still to be played, and will be learned from
        too.
    """
    columns, shown = played.columns, played.bulletin
    epsilon = columns.epsilon
    reports = shown.recount(epsilon)
    moved = np.zeros(epsilon.size, dtype=bool)
    moved[played.movers] = True
    n_active = int(np.count_nonzero(takes_part(epsilon)))

    def inform(learn: Callable[[News], None], group: NodeGroup, own: Rows, read: Rows) -> None:
        """Let the nodes ``own`` learn, which observe the reports of the nodes ``read``."""
        memory = {name: values[own] for name, values in group.memory.items()}  # views of slices
        learn(
            News(
                played.pool,
                epsilon[own],
                shown.others(epsilon[own], own),
                None if reports is None else reports[read],
                moved[own],
                noise,
                memory,
                n_active,
                changing,
                columns.rho[own],
                columns.payment[own],
                columns.utility[own],
                _draw_chance(played, group, own, newcomers),
                played.terms.of(own) if played.terms else None,
            )
        )
        if not isinstance(own, slice):
            for name, values in memory.items():
                group.memory[name][own] = values

    for group in played.groups:
        # a rule that reads all reports remembers each node, including other groups
        own = rows if group.rule.needs == "full" else group.among(rows)
        if epsilon[own].size:
            inform(group.rule.learn, group, own, own)
    for row in played.select_acting(rows):
        group = find_group(played.groups, row)
        inform(played.agents[row].learn, group, slice(row, row + 1), played.present)


def _draw_chance(played: Round, group: NodeGroup, rows: Rows, newcomers: bool) -> Floats:
    """Return a random number for each of some nodes, independent of which others learn."""
    if not group.rule.explores:
        return played.columns.epsilon[:0]
    purpose = "first-trials" if newcomers else "trials"
    return stream(played.seed, purpose, played.index).random(len(played.columns))[rows]
