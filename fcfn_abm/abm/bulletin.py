"""What nodes see of each other's reports in a round: all or the sum, exact or with errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np

from fcfn_abm.abm.columns import Floats
from fcfn_abm.learning.base import Rows
from fcfn_abm.scenario import Information


@dataclass
class Bulletin:
    """The reports as they are published; kept up to date while nodes move in turn."""

    factor: Floats | None
    """Errors as factors, one a node, shape (n,); None where all is exact. With full reports these
    are the errors of the reports, the same for all readers; else those of each node's view."""
    full: bool
    """Whether every report is published, or their sum alone."""
    total: float
    """The sum; with full reports of what is published, else of what was reported."""

    @classmethod
    def of(
        cls, epsilon: Floats, settings: Information, rng: np.random.Generator | None
    ) -> Bulletin:
        """Publish reports; ``rng`` may be None where there is no noise."""
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
        """Return the others' total as those see it whose own reports are ``epsilon``."""
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
        """Return each report as it is published, or None where the sum alone is."""
        if not self.full:
            return None
        return epsilon if self.factor is None else epsilon * self.factor

    def recount(self, epsilon: Floats) -> Floats | None:
        """Sum the reports again, since running totals gather rounding errors; return `reports`."""
        reports = self.reports(epsilon)
        if reports is not None:
            self.total = float(reports.sum())
        elif self.factor is None:
            self.total = float(epsilon.sum())
        return reports

    def move(self, row: int, old: float, new: float) -> None:
        """Take in a node's new report; a fresh sum here would make a round O(n^2)."""
        if self.full and self.factor is not None:
            error = self.factor.item(row)
            old, new = error * old, error * new
        self.total = max(self.total - old, 0.0) + new
