"""What a round shows, and that nodes learn from it."""

from __future__ import annotations

import numpy as np

from fcfn_abm.abm.columns import Floats
from fcfn_abm.abm.round import Round
from fcfn_abm.game import takes_part
from fcfn_abm.learning import News
from fcfn_abm.learning.base import Rows
from fcfn_abm.rng import stream


def learn_from(
    played: Round, rows: Rows, *, noise: float, changing: bool, newcomers: bool = False
) -> None:
    """Let the nodes of some rows take in what a round has shown.

    Parameters
    ----------
    played : Round
        Whose columns hold what nodes remember.
    rows : slice or ndarray of int
        Who learns.
    noise : float
        Relative error of what is seen.
    changing : bool
        Whether nodes come and go, or their costs change.
    newcomers : bool, default False
        Whether they are new in a round that is yet to be played, which they will learn from too.
    """
    columns, shown, kept = played.columns, played.bulletin, played.columns.memory
    epsilon = columns.epsilon
    reports = shown.recount(epsilon)
    moved = np.zeros(epsilon.size, dtype=bool)
    moved[played.movers] = True
    own = epsilon[rows]
    memory = {name: values[rows] for name, values in kept.items()}  # views, where all learn
    played.rule.learn(
        News(
            played.pool,
            own,
            shown.others(own, rows),
            None if reports is None else reports[rows],
            moved[rows],
            noise,
            memory,
            int(np.count_nonzero(takes_part(epsilon))),
            changing,
            columns.rho[rows],
            columns.payment[rows],
            columns.utility[rows],
            _draw_chance(played, rows, newcomers),
        )
    )
    if not isinstance(rows, slice):
        for name, values in memory.items():
            kept[name][rows] = values


def _draw_chance(played: Round, rows: Rows, newcomers: bool) -> Floats:
    """Return a random number for each of some nodes, the same whoever else learns."""
    if not played.rule.explores:
        return played.columns.epsilon[:0]
    purpose = "first-trials" if newcomers else "trials"
    return stream(played.seed, purpose, played.index).random(len(played.columns))[rows]
