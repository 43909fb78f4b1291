"""Who is in the market: places that nodes take, and leave for good."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.columns import NEVER, Floats, NodeColumns
from fcfn_abm.learning import LearningRule
from fcfn_abm.population import RhoDistribution, draw_newcomer_costs, draw_turnover, drift_costs
from fcfn_abm.rng import stream
from fcfn_abm.scenario import Churn
from fcfn_abm.scenario.schema import LARGEST, SMALLEST

type Places = npt.NDArray[np.intp]


class Turnover:
    """Changes the population of a market between two rounds.

    Parameters
    ----------
    settings : Churn
        How many come and go, and how far costs drift.
    columns : NodeColumns
        The places, all taken; changed in place.
    law : RhoDistribution
        The law of the newcomers' costs.
    rule : LearningRule
        Says what a newcomer knows.
    seed : int
        Root of chance.
    """

    def __init__(
        self,
        settings: Churn,
        columns: NodeColumns,
        law: RhoDistribution,
        rule: LearningRule,
        seed: int,
    ) -> None:
        self._settings, self._columns = settings, columns
        self._law, self._rule, self._seed = law, rule, seed
        self._deviation = np.zeros(len(columns))
        self.first_rho = columns.rho.copy()
        """Unit privacy cost of each node when it arrived."""
        self._down, self._up = _room(columns.rho)
        self.arrival_round = np.zeros(len(columns), dtype=np.int64)
        """Round in which each node arrived; zero for those that were there from the start."""
        self.present: Places = np.arange(len(columns))
        """Places that hold a node, ascending."""
        self.arrived: Places = self.present[:0]
        """Places of those who arrived in this round."""
        self.departed: Places = self.present[:0]
        """Places of those who went away in this round."""

    @property
    def changing(self) -> bool:
        """Whether the population changes at all."""
        return self._settings.moves

    def moving(self, round_index: int) -> bool:
        """Return whether the population changes in a round."""
        until = self._settings.until
        return self.changing and (until is None or round_index <= until)

    def deserted(self, round_index: int) -> bool:
        """Return whether fewer than two nodes are left, and none will come after this round."""
        coming = self._settings.arrivals > 0 and self.moving(round_index + 1)
        return self.present.size < 2 and not coming

    def update(self, round_index: int) -> bool:
        """Let costs drift, and nodes come and go; return whether anything changed.

        A newcomer has a fresh cost, reports nothing yet, and knows nothing, unless its rule is to
        ask.
        """
        columns, settings = self._columns, self._settings
        self.arrived = self.departed = self.present[:0]
        if not self.moving(round_index):
            return False
        if settings.drift > 0:
            chance = stream(self._seed, "cost-drift", round_index)
            moved = drift_costs(self._deviation, settings.drift, settings.reversion, chance)
            self._deviation = np.clip(moved, self._down, self._up)
            columns.rho = self.first_rho * np.exp(self._deviation)
        if settings.departures > 0:
            chance = stream(self._seed, "turnover", round_index)
            self.arrived, self.departed = draw_turnover(
                columns.present, settings.arrivals, settings.departures, chance
            )
            self._depart(self.departed)
            self._arrive(self.arrived, round_index)
            self.present = np.flatnonzero(columns.present)
        return settings.drift > 0 or self.arrived.size + self.departed.size > 0

    def _depart(self, places: Places) -> None:
        columns = self._columns
        columns.present[places] = False
        for column in (columns.epsilon, columns.payment, columns.utility):
            column[places] = 0.0
        columns.idle_rounds[places] = 0
        columns.exit_round[places] = NEVER

    def _arrive(self, places: Places, round_index: int) -> None:
        columns = self._columns
        chance = stream(self._seed, "newcomers", round_index)
        rho = draw_newcomer_costs(self._law, len(columns), places.size, chance)
        columns.rho[places] = self.first_rho[places] = rho
        self._deviation[places] = 0.0
        self._down[places], self._up[places] = _room(rho)
        self.arrival_round[places] = round_index
        stayed = self.present[columns.present[self.present]]
        columns.present[places] = True
        asks = self._rule.newcomers_ask and stayed.size > 0
        asked = stayed[chance.integers(stayed.size, size=places.size)] if asks else None
        for name, start in self._rule.memory.items():
            kept = columns.memory[name]
            kept[places] = start if asked is None else kept[asked]


def _room(rho: Floats) -> tuple[Floats, Floats]:
    """Return how far ln(rho) may drift down and up: a long walk would leave all bounds."""
    return np.log(SMALLEST / rho), np.log(LARGEST / rho)
