"""Shocks: which events of a scenario happen before which round."""

from __future__ import annotations

from collections.abc import Sequence

from fcfn_abm.rng import stream
from fcfn_abm.scenario import Event


class Calendar:
    """Determines which events happen before which round.

    Parameters
    ----------
    events : sequence of Event
        In the order in which they are applied before the same round.
    seed : int
        Seed of the random numbers.
    """

    def __init__(self, events: Sequence[Event], seed: int) -> None:
        self._events, self._seed = events, seed
        self._last = max((event.last_round for event in events), default=0)

    def __bool__(self) -> bool:
        return bool(self._events)

    def may_change(self, round_index: int) -> bool:
        """Return whether an event may happen before this round or a later one."""
        return round_index <= self._last

    def count_quiet(self, first_round: int, most: int) -> int:
        """Return the number of rounds, counting the first, that are played before the next event.

        They end with the last round that may bring an event, because the game is constant after it.
        """
        if not self.may_change(first_round):
            return most
        n_rounds = 1
        while n_rounds < min(most, self._last - first_round + 1):
            if self.list_due(first_round + n_rounds):
                break
            n_rounds += 1
        return n_rounds

    def list_due(self, round_index: int) -> list[tuple[int, Event]]:
        """Return the events that happen before a round, with their numbers."""
        if not self.may_change(round_index):
            return []
        drawn = stream(self._seed, "events", round_index).random(len(self._events))
        return [
            (index, event)
            for index, (event, number) in enumerate(zip(self._events, drawn.tolist(), strict=True))
            if _is_due(event, round_index, number)
        ]


def _is_due(event: Event, round_index: int, number: float) -> bool:
    """Return whether an event happens, given a random number in [0, 1)."""
    if event.chance is None:
        return event.round == round_index
    return round_index <= event.last_round and number < event.chance
