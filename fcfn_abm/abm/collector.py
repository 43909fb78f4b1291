"""Mesa's data collector for rounds that are played together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mesa

type Rounds = dict[str, list[Any]]
"""One value per round, by name of a model reporter."""


class RoundCollector(mesa.DataCollector):
    """A data collector that takes in many rounds at once, and converts them on first access."""

    def __init__(self, *reporters: Any, **named: Any) -> None:
        self._waiting: list[tuple[Callable[[], Rounds], float]] = []
        self._values: Rounds = {}
        self._times: list[float] = []
        super().__init__(*reporters, **named)

    def add_rounds(self, list_rounds: Callable[[], Rounds], first_time: float) -> None:
        """Add rounds at consecutive times; ``list_rounds`` is called when they are read."""
        self._waiting.append((list_rounds, first_time))

    def _take_in(self) -> None:
        waiting, self._waiting = self._waiting, []
        for list_rounds, time in waiting:
            n_rounds = 0
            for name, values in list_rounds().items():
                self._values[name] += values
                n_rounds = len(values)
            self._times += [time + place for place in range(n_rounds)]

    @property
    def model_vars(self) -> Rounds:
        """Values of all rounds, by name of the model reporter."""
        self._take_in()
        return self._values

    @model_vars.setter
    def model_vars(self, values: Rounds) -> None:
        self._values = values

    @property
    def _collection_steps(self) -> list[float]:
        """Times of all rounds, read by Mesa's ``batch_run``."""
        self._take_in()
        return self._times

    @_collection_steps.setter
    def _collection_steps(self, times: list[float]) -> None:
        self._times = times
