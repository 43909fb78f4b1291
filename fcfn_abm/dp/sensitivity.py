"""How far one record, or one client, can move what is released."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

type Unit = Literal["record", "client"]


@dataclass(frozen=True)
class Sensitivity:
    """A sensitivity with all that makes it one: norm, neighbours, protected unit."""

    l2: float
    """Largest L2 distance between the releases of two neighbouring data sets."""
    unit: Unit
    """What neighbours differ in: one record, or all data of one client."""
    relation: Literal["replace-one"] = "replace-one"
    """How they differ: one unit is replaced by another; sizes stay known."""
