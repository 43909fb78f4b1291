"""Random orders of moves."""

from __future__ import annotations

from typing import Any

from fcfn_abm.abm.columns import Floats
from fcfn_abm.rng import stream


class Turns:
    """The random orders of moves, from one generator with ``n_nodes`` numbers per round.

    Any stretch of rounds can be drawn at once, and drawn again: the numbers of a round do not
    depend on earlier draws.

    Parameters
    ----------
    seed : int
        Seed of all random numbers of the market.
    n_nodes : int
        Number of random numbers per round.
    """

    def __init__(self, seed: int, n_nodes: int) -> None:
        self._generator, self._n_nodes, self._next_round = stream(seed, "turns"), n_nodes, 1

    def draw(self, first_round: int, n_rounds: int = 1) -> Floats:
        """Return numbers that are uniform in [0, 1), shape (n_rounds, n_nodes)."""
        skipped = (first_round - self._next_round) * self._n_nodes
        if skipped:
            bits: Any = self._generator.bit_generator
            bits.advance(skipped % 2**128)  # the period: going back means nearly a full cycle
        self._next_round = first_round + n_rounds
        return self._generator.random((n_rounds, self._n_nodes))


def shuffle(rows: Any, numbers: Any, shuffled: Any) -> None:
    """Write rows in the random order given by numbers in [0, 1), one per row.

    All orders are equally likely: place k takes the row of a random place from 0 to k, whose own
    row moves there (Fisher and Yates, inside-out version).
    """
    for place, row in enumerate(rows):
        other = int(numbers[place] * (place + 1))
        shuffled[place] = shuffled[other]
        shuffled[other] = row
