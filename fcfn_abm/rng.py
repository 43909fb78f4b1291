"""Named streams of random numbers: generators are arguments, and no global seed is used."""

from __future__ import annotations

import operator
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from fcfn_abm.errors import InvalidGameError, abbreviate, join_lines

type Chance = (
    np.random.Generator
    | np.random.BitGenerator
    | np.random.SeedSequence
    | np.random.RandomState
    | np.integer
    | int
    | Sequence[int]
)
"""Everything from which NumPy makes a generator."""

LARGEST_SEED = 2**63 - 1
"""Every seed fits into 64-bit integers of tables."""

PURPOSES: dict[str, Callable[..., tuple[int | str, ...]]] = {
    "costs": lambda: (0,),
    "misreports": lambda: (0, 1),
    "group-costs": lambda group: (0, 2, group),
    "group-misreports": lambda group: (0, 3, group),
    "coalitions": lambda: (0, 4),
    "sybils": lambda: (0, 5),
    "market": lambda: (1,),
    "first-reports": lambda: (1, 0),
    "turns": lambda: (1, "turns"),
    "observation-errors": lambda round_index: (1, round_index, 1),
    "movers": lambda round_index: (1, round_index, 2),
    "trials": lambda round_index: (1, round_index, 3),
    "first-trials": lambda round_index: (1, round_index, 4),
    "exploration": lambda round_index: (1, "exploration", round_index),
    "data": lambda part: (2, part),  # 0: which images, 1: who holds them
    "first-parameters": lambda: (3, 0),
    "batches": lambda round_index, node: (3, 1, round_index, node),
    "attendance": lambda round_index: (3, 2, round_index),
    "noise": lambda: (4,),
    "count-noise": lambda round_index: (4, "count", round_index),
    "canary": lambda: (4, "canary"),
    "simulated-gain": lambda round_index: (4, "gain", round_index),
    "mechanism": lambda name: (5, name),
    "replication": lambda index: (6, index),
    "design": lambda: (7,),
    "bootstrap": lambda: (7, 1),
    "turnover": lambda round_index: (8, round_index),
    "newcomers": lambda round_index: (8, round_index, 1),
    "cost-drift": lambda round_index: (8, round_index, 2),
    "group-newcomers": lambda round_index, group: (8, round_index, 3, group),
    "events": lambda round_index: (8, round_index, 4),
    "event-misreports": lambda round_index, index: (8, round_index, 5, index),
    "checked-game": lambda index: (9, index),
}
"""Purposes of random numbers, their indices, and their place in the tree of seeds. Append only:
changing a place changes the numbers of every run."""


def stream(seed: int, purpose: str, *index: int | str) -> np.random.Generator:
    """Return the generator for one purpose, independent of how work is distributed.

    Parameters
    ----------
    seed : int
        The scenario's seed, zero or positive.
    purpose : str
        One of :data:`PURPOSES`.
    *index : int or str
        The indices of that purpose: a round, a node, a name. Streams with different indices are
        independent.

    Raises
    ------
    ValueError
        If there is no such purpose, or the seed is below 0 or above 2^63 - 1.

    Examples
    --------
    >>> stream(7, "batches", 3, 12).integers(100) == stream(7, "batches", 3, 12).integers(100)
    np.True_
    """
    return np.random.default_rng(_sequence(seed, purpose, *index))


def as_generator(rng: Chance | None) -> np.random.Generator:
    """Return the generator that NumPy makes of an argument; a generator is returned unchanged.

    Parameters
    ----------
    rng : Generator, BitGenerator, SeedSequence, int, list of int or None
        Source of randomness; None takes a seed from the operating system.

    Raises
    ------
    InvalidGameError
        If NumPy does not accept the argument.

    Examples
    --------
    >>> as_generator(7).integers(100) == as_generator([7]).integers(100)
    np.True_
    """
    if isinstance(rng, np.random.Generator):
        return rng
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise InvalidGameError(
            "rng must be a non-negative integer, a list of them, or a NumPy Generator, BitGenerator"
            f"or SeedSequence of NumPy, but is {join_lines(abbreviate(rng))}: "
            f"{join_lines(str(error))}."
        ) from None


def as_seed(rng: Chance) -> int:
    """Return the seed for an argument: an integer itself, otherwise a seed drawn from it.

    Raises
    ------
    InvalidGameError
        If it is a number below zero or above `LARGEST_SEED`, or NumPy does not accept it.

    Examples
    --------
    >>> as_seed(np.int64(7)), as_seed([7, 8]) == as_seed(np.random.SeedSequence([7, 8]))
    (7, True)
    """
    if hasattr(rng, "__index__") and not isinstance(rng, np.ndarray):
        return require_seed(rng)
    return int(as_generator(rng).integers(2**63))


def require_seed(seed: object) -> int:
    """Return a seed as an int.

    Raises
    ------
    InvalidGameError
        If it is not a whole number, or is below zero or above `LARGEST_SEED`.
    """
    try:
        seed = operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidGameError(
            f"a seed must be a whole number, but is {join_lines(abbreviate(seed))}."
        ) from None
    if not 0 <= seed <= LARGEST_SEED:
        raise InvalidGameError(f"a seed must lie from 0 to 2^63 - 1, but is {abbreviate(seed)}.")
    return seed


def key(seed: int, purpose: str, *index: int | str) -> tuple[int, int]:
    """Return a key of two 32-bit words for one purpose, for counter-based generators.

    Takes the arguments of :func:`stream`.

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
    return int(state[0] >> 11)  # 53 bits: exact even in readers that use doubles


def _sequence(seed: int, purpose: str, *index: int | str) -> np.random.SeedSequence:
    if purpose not in PURPOSES:
        raise ValueError(f"there is no random stream for {purpose!r}; known: {', '.join(PURPOSES)}")
    place = PURPOSES[purpose](*index)
    key = tuple(zlib.crc32(part.encode()) if isinstance(part, str) else part for part in place)
    return np.random.SeedSequence(require_seed(seed), spawn_key=key)
