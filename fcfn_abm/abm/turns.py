"""Random orders of moves."""

from __future__ import annotations

from typing import Any

from fcfn_abm.abm.columns import Floats
from fcfn_abm.rng import stream


class Turns:
    """The random orders of moves, from one generator: ``n_nodes`` numbers a round.

    Any stretch of rounds can be drawn at once, and again: where the numbers of a round stand does
    not depend on what was drawn before.

    Parameters
    ----------
    seed : int
        Root of all chance in the market.
    n_nodes : int
        Numbers that a round takes.
    """

    def __init__(self, seed: int, n_nodes: int) -> None:
        self._generator, self._n_nodes, self._next_round = stream(seed, "turns"), n_nodes, 1

    def draw(self, first_round: int, n_rounds: int = 1) -> Floats:
        """Return numbers that are uniform in [0, 1), shape (n_rounds, n_nodes)."""
        skipped = (first_round - self._next_round) * self._n_nodes
        if skipped:
            bits: Any = self._generator.bit_generator
            bits.advance(skipped % 2**128)  # its period: backwards is nearly all the way round
        self._next_round = first_round + n_rounds
        return self._generator.random((n_rounds, self._n_nodes))


def shuffle(rows: Any, numbers: Any, shuffled: Any) -> None:
    """Write rows in the random order that numbers in [0, 1) give, one a row.

    All orders are equally likely: place k takes what stands in one of the places 0 to k, whose own
    row goes there (Fisher and Yates, inside out).
    """
    for place, row in enumerate(rows):
        other = int(numbers[place] * (place + 1))
        shuffled[place] = shuffled[other]
        shuffled[other] = row
