"""Exits and reentries, for one node as a function of numbers, and for many nodes at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.columns import NEVER, Floats, NodeColumns
from fcfn_abm.abm.groups import NodeGroup
from fcfn_abm.learning import Observation


def reenter_one(planned: float, exit_round: int, reentry: bool) -> int:
    """Return the exit round of a node that plans a report; `NEVER` if it returns."""
    return NEVER if (planned > 0.0) & reentry else exit_round


def count_idle_one(
    planned: float,
    rho: float,
    others: float,
    own: float,
    budget: float,
    idle_rounds: int,
    leaves_on_loss: bool,
) -> int:
    """Return for how many consecutive rounds a node of a contest has had a reason to leave."""
    loses = (own > 0.0) & (budget < rho * (others + own))
    reason = loses if leaves_on_loss else not planned > 0.0
    return idle_rounds + 1 if reason else 0


def update_exits(
    columns: NodeColumns, group: NodeGroup, planned: Floats, seen: Observation[Floats]
) -> npt.NDArray[np.bool_]:
    """Apply both to many nodes of a group, and return which of them are in the market."""
    rows, settings = seen.row, group.exit
    exit_round = columns.exit_round[rows]
    if settings.reentry:
        exit_round = np.where(planned > 0, NEVER, exit_round)
        columns.exit_round[rows] = exit_round
    reason = group.rule.loses(seen) if settings.criterion == "loss" else ~(planned > 0)
    columns.idle_rounds[rows] = np.where(reason, columns.idle_rounds[rows] + 1, 0)
    return np.asarray(exit_round == NEVER)
