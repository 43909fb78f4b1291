"""Clipping, and the sensitivity that follows: how far one record or client moves a release."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fcfn_abm.errors import InvalidPrivacyError, require_one_of, require_positive

if TYPE_CHECKING:
    from torch import Tensor

type Unit = Literal["record", "client"]
type Relation = Literal["replace-one", "zero-out"]

_HAIR = 1e-5  # 32-bit rounding must never lift a row above the bound
_LEAST = 1e-37  # factors below lose their digits in 32 bits
_STRETCH = 128  # squares added up in 32 bits: the norm is wrong by four millionths at most
_FEW = 2**16  # numbers that are soon turned into 64 bits
_LEGIBLE = 1e-12  # of shorter rows, squares of entries that matter may be too small for 32 bits


@dataclass(frozen=True)
class Sensitivity:
    """A sensitivity, with the neighbours and the protected unit that it refers to."""

    l2: float
    """Largest L2 distance between the releases of two neighbouring data sets."""
    unit: Unit
    """What neighbours differ in: one record, or all data of one client."""
    relation: Relation
    """How they differ: one unit is replaced by another, or by one that contributes nothing; sizes
    stay known in both."""

    def __post_init__(self) -> None:
        """Raise InvalidPrivacyError for a distance that is not positive, or an unknown name."""
        require_positive(error=InvalidPrivacyError, l2_sensitivity=self.l2)
        require_one_of(Unit, error=InvalidPrivacyError, unit=self.unit)
        require_one_of(Relation, error=InvalidPrivacyError, relation=self.relation)


@dataclass(frozen=True)
class Clipping:
    """Clips rows to an L2 norm, which bounds the sensitivity of their sums.

    Calling it returns rows of at most that norm; shorter ones stay as they are, and a row that is
    not finite, or whose norm overflows, stays not finite, for the caller to refuse.
    """

    norm: float
    """Largest L2 norm that is left."""

    def __post_init__(self) -> None:
        """Raise InvalidPrivacyError unless the norm is positive and finite."""
        require_positive(error=InvalidPrivacyError, clipping_norm=self.norm)

    def __call__(self, rows: Tensor) -> Tensor:
        """Clip each row, shape (m, n_parameters)."""
        return rows * self.factors(l2_norms(rows))

    def factors(self, norms: Tensor) -> Tensor:
        """Return the factors that clip rows of these norms, in 32 bits.

        Not a number where a norm is not finite, or so large that 32 bits cannot shorten it.
        """
        largest = self.norm * (1 - _HAIR)
        shortened = largest / norms.double().clamp(min=largest)
        return shortened.masked_fill(~(shortened > _LEAST), float("nan")).float()

    def factor(self, norm: float) -> float:
        """Return the factor that clips one row of a norm, by :meth:`factors`' rules."""
        largest = self.norm * (1 - _HAIR)
        shortened = largest / max(norm, largest)  # one that is not a number stays so
        return shortened if shortened > _LEAST else math.nan

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

        Raises
        ------
        InvalidPrivacyError
            If the unit or the relation is unknown, or the share is not positive.
        """
        require_one_of(Relation, error=InvalidPrivacyError, relation=relation)
        require_positive(error=InvalidPrivacyError, share=share)
        distance = 2.0 if relation == "replace-one" else 1.0
        return Sensitivity(distance * self.norm * share, unit, relation)


def l2_norms(rows: Tensor) -> Tensor:
    """Return the L2 norm of each row, shape (m, 1), in 64 bits.

    Added up in 32 bits, the squares of small entries vanish beside that of a large one, and a long
    row passes for a shorter one: so only short stretches of it are, which is ten times as fast as
    to turn all entries into 64 bits first.
    """
    import torch

    norm, wide = torch.linalg.vector_norm, torch.float64
    norms: Tensor
    # one kernel; and to ask about values would stop a device
    if rows.device.type != "cpu" or (rows.shape[1] <= _STRETCH and rows.numel() <= _FEW):
        norms = norm(rows, dim=1, keepdim=True, dtype=wide)
        return norms
    n_stretches = rows.shape[1] // _STRETCH
    whole, rest = rows.tensor_split([n_stretches * _STRETCH], dim=1)
    stretches = norm(whole.reshape(len(rows), n_stretches, _STRETCH), dim=2)
    rest = norm(rest, dim=1, keepdim=True)
    norms = norm(torch.cat([stretches, rest], dim=1), dim=1, keepdim=True, dtype=wide)
    least, most = map(float, torch.aminmax(norms)) if len(rows) else (1.0, 1.0)
    if not (least > _LEGIBLE and math.isfinite(most)):  # not a number fails both
        doubtful = ~(norms.isfinite() & (norms > _LEGIBLE))[:, 0]
        norms[doubtful] = norm(rows[doubtful], dim=1, keepdim=True, dtype=wide)
    return norms
