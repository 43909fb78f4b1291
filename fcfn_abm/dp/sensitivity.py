"""How far one record, or one client, can move what is released: clipping says, and hands it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

type Unit = Literal["record", "client"]
type Relation = Literal["replace-one", "zero-out"]

_HAIR = 1e-5  # rounding must never lift a row above the bound


@dataclass(frozen=True)
class Sensitivity:
    """A sensitivity with all that makes it one: norm, neighbours, protected unit."""

    l2: float
    """Largest L2 distance between the releases of two neighbouring data sets."""
    unit: Unit
    """What neighbours differ in: one record, or all data of one client."""
    relation: Relation
    """How they differ: one unit is replaced by another, or by one that contributes nothing; sizes
    stay known in both."""


@dataclass(frozen=True)
class Clipping:
    """Shortens rows to an L2 norm, and knows what that bounds.

    Calling it returns rows of at most that norm; shorter ones stay as they are, and a row that is
    not finite, or whose norm overflows, stays not finite, for the caller to refuse.
    """

    norm: float
    """Largest L2 norm that is left."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Clip each row, shape (m, n_parameters)."""
        factors = self.factors(rows.norm(dim=1, keepdim=True))
        return (rows * factors).where(factors.isfinite(), factors)

    def factors(self, norms: Tensor) -> Tensor:
        """Return what shortens rows of these norms; not a number where a norm is not finite."""
        largest = self.norm * (1 - _HAIR)
        shortened: Tensor = largest / norms.clamp(min=largest)
        return shortened.where(norms.isfinite(), norms - norms)

    def sensitivity(self, unit: Unit, relation: Relation, share: float = 1.0) -> Sensitivity:
        """Return how far one unit moves a weighted sum of clipped rows, one row a unit.

        Parameters
        ----------
        unit : {"record", "client"}
            What a row is made of.
        relation : {"replace-one", "zero-out"}
            A replaced row may point the other way: it moves the sum twice as far as one that goes.
        share : float, default 1.0
            Weight of a row in what is released; 1 / m in a mean of m rows.
        """
        distance = 2.0 if relation == "replace-one" else 1.0
        return Sensitivity(distance * self.norm * share, unit, relation)
