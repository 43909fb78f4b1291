"""Named streams of random numbers: chance is an argument, and nobody touches a global seed."""

from __future__ import annotations

import zlib

import numpy as np

STREAMS = (
    "population",
    "game",
    "data",
    "training",
    "noise",
    "mechanism",
    "replication",
    "sweep",
    "churn",
)  # append only: a place is a seed


def stream(seed: int, name: str, *index: int) -> np.random.Generator:
    """Return the generator of one use of chance, the same however the work is split up.

    Parameters
    ----------
    seed : int
        The scenario's seed, zero or positive.
    name : str
        One of :data:`STREAMS`.
    *index : int
        Where in that use: a round, a node. Streams with different indices are independent.

    Examples
    --------
    >>> stream(7, "noise", 3, 12).integers(100) == stream(7, "noise", 3, 12).integers(100)
    np.True_
    """
    key = (STREAMS.index(name), *index)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def stream_of_name(seed: int, name: str, what: str) -> np.random.Generator:
    """Return the generator of one use of chance by something that has a name, not a number."""
    return stream(seed, name, zlib.crc32(what.encode()))


def replication_seed(seed: int, index: int) -> int:
    """Return the seed of a replication of a scenario; replication 0 is the scenario itself.

    Examples
    --------
    >>> replication_seed(7, 0), replication_seed(7, 1) == replication_seed(7, 1)
    (7, True)
    """
    if index == 0:
        return seed
    sequence = np.random.SeedSequence(seed, spawn_key=(STREAMS.index("replication"), index))
    return int(sequence.generate_state(1, np.uint64)[0] >> 11)  # 53 bits: exact in any reader
