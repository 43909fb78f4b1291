"""What a round shows, and that nodes learn from it."""

from __future__ import annotations

import numpy as np

from fcfn_abm.abm.round import Round
from fcfn_abm.game import takes_part
from fcfn_abm.learning import News
from fcfn_abm.learning.base import Rows


def learn_from(played: Round, rows: Rows, *, noise: float, changing: bool) -> None:
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
    """
    epsilon, shown, kept = played.columns.epsilon, played.bulletin, played.columns.memory
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
        )
    )
    if not isinstance(rows, slice):
        for name, values in memory.items():
            kept[name][rows] = values
