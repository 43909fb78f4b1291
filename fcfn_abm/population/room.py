"""Whether a population can be held at all, asked before it is drawn."""

from __future__ import annotations

from fcfn_abm.errors import InvalidGameError, abbreviate
from fcfn_abm.memory import format_gib, measure_memory

BYTES_A_NODE = 250
"""What a market needs for each node at least, its closed form and record included."""


def require_room(n_nodes: int, memory: int | None = None) -> None:
    """Raise unless a market of so many nodes fits into memory.

    Parameters
    ----------
    n_nodes : int
        How many.
    memory : int, optional
        Bytes that there are; without it those of this machine or container, or
        what the limit of this process leaves.

    Raises
    ------
    InvalidGameError
        Says how many nodes would fit.

    Examples
    --------
    >>> require_room(10**12, memory=16 * 2**30)
    Traceback (most recent call last):
    ...
    fcfn_abm.errors.InvalidGameError: 1,000,000,000,000 nodes need about 232,830 GiB of memory, and
    there are 16: at most about 68,719,476 fit.
    """
    memory = measure_memory() if memory is None else memory
    if n_nodes > 10**18:
        raise InvalidGameError(
            f"n_nodes is {abbreviate(n_nodes)}, and at most about {memory // BYTES_A_NODE:,} fit "
            "into memory."
        )
    if n_nodes * BYTES_A_NODE > memory:
        raise InvalidGameError(
            f"{n_nodes:,} nodes need about {format_gib(n_nodes * BYTES_A_NODE)} GiB of memory, "
            f"and there are {format_gib(memory)}: at most about {memory // BYTES_A_NODE:,} fit."
        )
