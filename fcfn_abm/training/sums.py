"""What the server adds up in a round, node by node."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcfn_abm.dp.sensitivity import l2_norms
from fcfn_abm.errors import RunFailedError
from fcfn_abm.training.placements import Sent

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Sums:
    """What some nodes send in a round, weighted and added up."""

    update: Tensor
    clean: Tensor
    """The same tensor as ``update`` where nobody adds noise."""
    passed: float
    """Weight of the nodes that were not flagged."""
    flagged: list[int]

    @classmethod
    def none(cls, flat: Tensor, *, noisy: bool) -> Sums:
        """Return the sums of nobody."""
        update = flat.new_zeros(flat.shape)
        return cls(update, update.clone() if noisy else update, 0.0, [])

    def add(self, node: int, weight: float, sent: Sent, longest: float) -> None:
        """Add what a node sent, unless the check flags it."""
        if math.isfinite(longest) and float(l2_norms(sent.upload[None])) > longest:
            self.flagged.append(node)
            return
        self.update.add_(sent.upload, alpha=weight)
        if self.clean is not self.update:
            self.clean.add_(sent.clean, alpha=weight)
        self.passed += weight


def require_finite(sent: Sent, node: int, round_index: int) -> None:
    """Raise RunFailedError, with round and node, where an update is not finite."""
    if not math.isfinite(float(sent.clean.sum())):  # one that is not finite makes the sum so
        raise broken_down(node, round_index)


def broken_down(node: int, round_index: int) -> RunFailedError:
    """Return the error that says whose update is not finite."""
    return RunFailedError(
        f"training broke down in round {round_index}: the update of node {node} "
        "is not finite; a smaller training.learning_rate may help."
    )
