"""Clipping, and the resulting sensitivity: how far one record or client moves a release."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fcfn_abm.errors import InvalidPrivacyError, require_one_of, require_positive

if TYPE_CHECKING:
    from torch import Tensor

type Unit = Literal["record", "client"]
type Relation = Literal["replace-one", "zero-out"]

_HAIR = 1e-5  # float32 rounding must never raise a row above the bound
_LEAST = 1e-37  # smaller factors lose digits in float32
_STRETCH = 128  # squares summed in float32; the relative error of the norm is at most 4e-6
_FEW = 2**16  # number of entries that are converted to float64 quickly
_LEGIBLE = 1e-12  # below this, squares of relevant entries may underflow in float32


@dataclass(frozen=True)
class Sensitivity:
    """A sensitivity, with its neighbouring relation and protected unit."""

    l2: float
    """Largest L2 distance between the releases of two neighbouring data sets."""
    unit: Unit
    """Protected unit: one record, or all data of one client."""
    relation: Relation
    """Neighbouring relation: one unit is replaced by another, or by one that contributes nothing;
    sizes are public in both cases."""

    def __post_init__(self) -> None:
        """Raise InvalidPrivacyError for a distance that is not positive, or an unknown name."""
        require_positive(error=InvalidPrivacyError, l2_sensitivity=self.l2)
        require_one_of(Unit, error=InvalidPrivacyError, unit=self.unit)
        require_one_of(Relation, error=InvalidPrivacyError, relation=self.relation)


@dataclass(frozen=True)
class Clipping:
    """Clips rows to an L2 norm, which bounds the sensitivity of their sums.

    Calling it returns rows of at most that norm; shorter rows are unchanged, and a row that is not
    finite, or whose norm overflows, stays not finite, for the caller to reject.
    """

    norm: float
    """Largest L2 norm after clipping."""

    def __post_init__(self) -> None:
        """Raise InvalidPrivacyError unless the norm is positive and finite."""
        require_positive(error=InvalidPrivacyError, clipping_norm=self.norm)

    def __call__(self, rows: Tensor) -> Tensor:
        """Clip each row, shape (m, n_parameters)."""
        return rows * self.factors(l2_norms(rows))

    def factors(self, norms: Tensor) -> Tensor:
        """Return the factors that clip rows with these norms, in float32.

        NaN if a norm is not finite, or too large for clipping in float32.
        """
        largest = self.norm * (1 - _HAIR)
        shortened = largest / norms.double().clamp(min=largest)
        return shortened.masked_fill(~(shortened > _LEAST), float("nan")).float()

    def factor(self, norm: float) -> float:
        """Return the factor that clips one row with a given norm, as :meth:`factors` does."""
        largest = self.norm * (1 - _HAIR)
        shortened = largest / max(norm, largest)  # NaN stays NaN
        return shortened if shortened > _LEAST else math.nan

    def sensitivity(self, unit: Unit, relation: Relation, share: float = 1.0) -> Sensitivity:
        """Return how far one unit moves a weighted sum of clipped rows, with one row per unit.

        Parameters
        ----------
        unit : {"record", "client"}
            What a row represents.
        relation : {"replace-one", "zero-out"}
            A replaced row may point the opposite way: it moves the sum twice as far as a removed
            one.
        share : float, default 1.0
            Weight of a row in the release; 1 / m in a mean of m rows.

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
    """Return the L2 norm of each row, shape (m, 1), in float64.

    If all squares were summed in float32, those of small entries would vanish next to a large one,
    and a long row would pass for a shorter one. Only short stretches are therefore summed in
    float32, which is ten times as fast as converting all entries to float64.
    """
    import torch

    norm, wide = torch.linalg.vector_norm, torch.float64
    norms: Tensor
    # one kernel; a test of values would synchronize the device
    if rows.device.type != "cpu" or (rows.shape[1] <= _STRETCH and rows.numel() <= _FEW):
        norms = norm(rows, dim=1, keepdim=True, dtype=wide)
        return norms
    n_stretches = rows.shape[1] // _STRETCH
    whole, rest = rows.tensor_split([n_stretches * _STRETCH], dim=1)
    stretches = norm(whole.reshape(len(rows), n_stretches, _STRETCH), dim=2)
    rest = norm(rest, dim=1, keepdim=True)
    norms = norm(torch.cat([stretches, rest], dim=1), dim=1, keepdim=True, dtype=wide)
    least, most = map(float, torch.aminmax(norms)) if len(rows) else (1.0, 1.0)
    if not (least > _LEGIBLE and math.isfinite(most)):  # NaN fails both
        doubtful = ~(norms.isfinite() & (norms > _LEGIBLE))[:, 0]
        norms[doubtful] = norm(rows[doubtful], dim=1, keepdim=True, dtype=wide)
    return norms
