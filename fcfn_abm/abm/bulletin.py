"""What nodes see of each other's reports: all of them or the sum, exact or with errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np

from fcfn_abm.abm.columns import Floats
from fcfn_abm.learning.base import Rows
from fcfn_abm.scenario import Information


@dataclass
class Bulletin:
    """The published reports; updated while nodes move in turn."""

    factor: Floats | None
    """Error factors, one per node, shape (n,); None if all is exact. With full reports these are
    errors of the reports, the same for all readers; otherwise errors of each node's view of the
    sum."""
    full: bool
    """Whether every report is published, or only their sum."""
    total: float
    """The sum of the published reports or, if only the sum is published, of the true ones."""

    @classmethod
    def of(
        cls, epsilon: Floats, settings: Information, rng: np.random.Generator | None
    ) -> Bulletin:
        """Publish reports; ``rng`` may be None without noise."""
        full, factor = settings.reports == "full", None
        if settings.noise > 0 and rng is not None:
            spread = settings.noise * rng.standard_normal(epsilon.size)
            factor = np.exp(spread - settings.noise**2 / 2)
        published = epsilon * factor if full and factor is not None else epsilon
        return cls(factor, full, float(published.sum()))

    @overload
    def others(self, epsilon: float, row: int) -> float: ...
    @overload
    def others(self, epsilon: Floats, row: Rows) -> Floats: ...
    def others(self, epsilon: Floats | float, row: Rows | int) -> Floats | float:
        """Return the others' total as seen by nodes whose own reports are ``epsilon``."""
        total: Floats | float = self.total
        own: Floats | float = epsilon
        if self.factor is not None:
            factor = self.factor.item(row) if isinstance(row, int) else self.factor[row]
            if self.full:
                own = factor * epsilon
            else:
                total = factor * total
        left = total - own
        return max(left, 0.0) if isinstance(left, float) else np.maximum(left, 0.0)

    def reports(self, epsilon: Floats) -> Floats | None:
        """Return the published reports, or None if only the sum is published."""
        if not self.full:
            return None
        return epsilon if self.factor is None else epsilon * self.factor

    def recount(self, epsilon: Floats) -> Floats | None:
        """Sum the reports again to remove rounding errors of running totals; return `reports`."""
        reports = self.reports(epsilon)
        if reports is not None:
            self.total = float(reports.sum())
        elif self.factor is None:
            self.total = float(epsilon.sum())
        return reports

    def move(self, row: int, old: float, new: float) -> None:
        """Replace a node's report in the totals; a new sum would make a round O(n^2)."""
        if self.full and self.factor is not None:
            error = self.factor.item(row)
            old, new = error * old, error * new
        self.total = max(self.total - old, 0.0) + new
