"""Named streams of random numbers: chance is an argument, and nobody touches a global seed."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

PURPOSES: dict[str, Callable[..., tuple[int | str, ...]]] = {
    "costs": lambda: (0,),
    "misreports": lambda: (0, 1),
    "market": lambda: (1,),
    "first-reports": lambda: (1, 0),
    "order-of-moves": lambda round_index: (1, round_index),
    "observation-errors": lambda round_index: (1, round_index, 1),
    "movers": lambda round_index: (1, round_index, 2),
    "images": lambda: (2, 0),
    "partition": lambda: (2, 1),
    "first-parameters": lambda: (3, 0),
    "batches": lambda round_index, node: (3, 1, round_index, node),
    "attendance": lambda round_index: (3, 2, round_index),
    "noise": lambda: (4,),
    "canary": lambda: (4, "canary"),
    "mechanism": lambda name: (5, name),
    "replication": lambda index: (6, index),
    "design": lambda: (7,),
    "bootstrap": lambda: (7, 1),
    "turnover": lambda round_index: (8, round_index),
    "newcomers": lambda round_index: (8, round_index, 1),
    "cost-drift": lambda round_index: (8, round_index, 2),
}
"""What chance is used for, what tells one use from another, and the place of each in the tree of
seeds. Add only: a place that changes gives other numbers to every run."""


def stream(seed: int, purpose: str, *index: int | str) -> np.random.Generator:
    """Return the generator of one use of chance, the same however the work is split up.

    Parameters
    ----------
    seed : int
        The scenario's seed, zero or positive.
    purpose : str
        One of :data:`PURPOSES`.
    *index : int or str
        What that purpose asks for: a round, a node, a name. Streams with different indices are
        independent.

    Raises
    ------
    ValueError
        If there is no such purpose.

    Examples
    --------
    >>> stream(7, "batches", 3, 12).integers(100) == stream(7, "batches", 3, 12).integers(100)
    np.True_
    """
    return np.random.default_rng(_sequence(seed, purpose, *index))


def key(seed: int, purpose: str, *index: int | str) -> tuple[int, int]:
    """Return the key of one use of chance, two words of 32 bits, for a generator with counters.

    Takes what :func:`stream` takes.

    Examples
    --------
    >>> key(7, "noise") == key(7, "noise"), key(7, "noise") == key(8, "noise")
    (True, False)
    """
    first, second = _sequence(seed, purpose, *index).generate_state(2, np.uint32).tolist()
    return first, second


def replication_seed(seed: int, index: int) -> int:
    """Return the seed of a replication of a scenario; replication 0 is the scenario itself.

    Examples
    --------
    >>> replication_seed(7, 0), replication_seed(7, 1) == replication_seed(7, 1)
    (7, True)
    """
    if index == 0:
        return seed
    state = _sequence(seed, "replication", index).generate_state(1, np.uint64)
    return int(state[0] >> 11)  # 53 bits: exact in any reader


def _sequence(seed: int, purpose: str, *index: int | str) -> np.random.SeedSequence:
    if purpose not in PURPOSES:
        raise ValueError(f"chance has no purpose {purpose!r}; known: {', '.join(PURPOSES)}")
    place = PURPOSES[purpose](*index)
    key = tuple(zlib.crc32(part.encode()) if isinstance(part, str) else part for part in place)
    return np.random.SeedSequence(seed, spawn_key=key)
