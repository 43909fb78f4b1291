"""Check whether a population fits into memory, before it is drawn."""

from __future__ import annotations

from fcfn_abm.errors import InvalidGameError, abbreviate
from fcfn_abm.memory import format_gib, measure_memory

BYTES_A_NODE = 250
"""Smallest memory need of a market per node, including its closed form and record."""


def require_room(n_nodes: int, memory: int | None = None) -> None:
    """Raise an error unless a market with this number of nodes fits into memory.

    Parameters
    ----------
    n_nodes : int
        Number of nodes.
    memory : int, optional
        Available bytes. By default those of the machine, the container or the limit of this
        process.

    Raises
    ------
    InvalidGameError
        If the nodes do not fit; the message gives the largest number that fits.

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
