"""Churn: places that nodes take and leave for good."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fcfn_abm.abm.columns import NEVER, Floats, NodeColumns
from fcfn_abm.abm.groups import NodeGroup
from fcfn_abm.learning.base import Rows
from fcfn_abm.population import draw_newcomer_costs, draw_turnover, drift_costs
from fcfn_abm.rng import stream
from fcfn_abm.scenario import Churn
from fcfn_abm.scenario.schema import LARGEST, SMALLEST

type Places = npt.NDArray[np.intp]


class Turnover:
    """Changes the population of a market between two rounds.

    Parameters
    ----------
    settings : Churn
        Probabilities of arrivals and departures, and drift of costs.
    columns : NodeColumns
        The places, all taken at first; changed in place.
    groups : sequence of NodeGroup
        Give the costs and rules of newcomers: a place stays in its group.
    seed : int
        Seed of the random numbers.
    """

    def __init__(
        self,
        settings: Churn,
        columns: NodeColumns,
        groups: Sequence[NodeGroup],
        seed: int,
    ) -> None:
        self._settings, self._columns = settings, columns
        self._groups, self._seed = groups, seed
        self._deviation = np.zeros(len(columns))
        self.first_rho = columns.rho.copy()
        """Unit privacy cost of each node when it arrived."""
        self._down, self._up = _room(columns.rho)
        self.arrival_round = np.zeros(len(columns), dtype=np.int64)
        """Round in which each node arrived; zero for nodes present from the start."""
        self.present: Places = np.arange(len(columns))
        """Places that hold a node, ascending."""
        self.arrived: Places = self.present[:0]
        """Places of the nodes that arrived in this round."""
        self.departed: Places = self.present[:0]
        """Places of the nodes that departed in this round."""

    @property
    def changing(self) -> bool:
        """Whether the population changes in any round."""
        return self._settings.moves

    def changes_in(self, round_index: int) -> bool:
        """Return whether the population changes in a round."""
        until = self._settings.until
        return self.changing and (until is None or round_index <= until)

    def is_deserted(self, round_index: int) -> bool:
        """Return whether fewer than two nodes are left, with no arrivals after this round."""
        coming = self._settings.arrivals > 0 and self.changes_in(round_index + 1)
        return self.present.size < 2 and not coming

    def update(self, round_index: int) -> bool:
        """Apply drift, departures and arrivals; return whether anything changed.

        A newcomer has a new cost, no report and no memory, apart from what its rule learns from
        the current reports (`Market.inform_newcomers`).
        """
        columns, settings = self._columns, self._settings
        self.arrived = self.departed = self.present[:0]
        if not self.changes_in(round_index):
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

    def set_rho(self, places: Rows, rho: Floats) -> None:
        """Set the costs of some nodes, around which they drift from now on."""
        costs = self._columns.rho.copy()
        costs[places] = self.first_rho[places] = rho
        self._columns.rho = costs
        self._deviation[places] = 0.0
        self._down[places], self._up[places] = _room(costs[places])

    def _depart(self, places: Places) -> None:
        columns = self._columns
        columns.present[places] = False
        for column in (columns.epsilon, columns.payment, columns.utility):
            column[places] = 0.0
        columns.idle_rounds[places] = 0
        columns.exit_round[places] = NEVER

    def _arrive(self, places: Places, round_index: int) -> None:
        columns = self._columns
        stayed = self.present[columns.present[self.present]]
        for group in self._groups:
            self._arrive_in(group, places, stayed, round_index)
        self.set_rho(places, self.first_rho[places])
        self.arrival_round[places] = round_index
        columns.present[places] = True

    def _arrive_in(
        self, group: NodeGroup, places: Places, stayed: Places, round_index: int
    ) -> None:
        """Set costs and initial memory of a group's newcomers."""
        own, known = group.among(places), group.among(stayed)
        name = (group.name,) if group.name else ()
        chance = stream(self._seed, "group-newcomers" if name else "newcomers", round_index, *name)
        n_places = group.rows.stop - group.rows.start
        rho = draw_newcomer_costs(group.distribution, n_places, own.size, chance)
        self.first_rho[own] = rho
        asks = group.rule.newcomers_ask and known.size > 0
        asked = known[chance.integers(known.size, size=own.size)] if asks else None
        for memory, start in group.rule.memory.items():
            kept = group.memory[memory]
            kept[places] = start  # includes newcomers of other groups, which the rule may observe
            if asked is not None:
                kept[own] = kept[asked]


def _room(rho: Floats) -> tuple[Floats, Floats]:
    """Return how far ln(rho) may drift down and up, so that costs stay within their range."""
    return np.log(SMALLEST / rho), np.log(LARGEST / rho)
