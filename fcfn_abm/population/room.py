"""Whether a population can be held at all, asked before it is drawn."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from fcfn_abm.errors import InvalidGameError

BYTES_A_NODE = 250
"""What a market needs for each node at least, its closed form and record included."""

_LIMITS = (Path("/sys/fs/cgroup/memory.max"),)  # what a container may take, where there is one
_OWN = Path("/proc/self/statm")  # pages of this process, those of its address space first


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
    memory = _measure_memory() if memory is None else memory
    if n_nodes * BYTES_A_NODE > memory:
        raise InvalidGameError(
            f"{n_nodes:,} nodes need about {_format_gib(n_nodes * BYTES_A_NODE)} GiB of memory, "
            f"and there are {_format_gib(memory)}: at most about {memory // BYTES_A_NODE:,} fit."
        )


def _format_gib(size: int) -> str:
    gib = size / 2**30
    return f"{gib:.2g}" if gib < 10 else f"{size // 2**30:,}"


def _measure_memory() -> int:
    found = [sys.maxsize]  # where the system does not say, nothing is refused
    with suppress(AttributeError, OSError, ValueError):  # Windows has no such call
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in _LIMITS:
        with suppress(OSError, ValueError):  # no such limit here, or "max"
            found.append(int(limit.read_text(encoding="utf-8")))
    with suppress(ImportError):  # Windows has no such limits
        found.append(_read_limit())
    return min(found)


def _read_limit() -> int:
    """Return how much more address space this process may take, as ulimit -v has it."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    taken = 0
    with suppress(OSError, ValueError):  # only Linux has it
        taken = int(_OWN.read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    return max(limit - taken, 0)
