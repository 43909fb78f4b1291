"""How much memory there is for this process."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

_LIMITS = (Path("/sys/fs/cgroup/memory.max"),)  # what a container may take, where there is one
_OWN = Path("/proc/self/statm")  # pages of this process, those of its address space first


def format_gib(size: int) -> str:
    """Return a number of bytes in GiB, for a sentence."""
    gib = size / 2**30
    return f"{gib:.2g}" if gib < 10 else f"{size // 2**30:,}"


def measure_memory() -> int:
    """Return the bytes of this machine or container, or what the limit of this process leaves."""
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
