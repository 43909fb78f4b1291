"""Available memory of this process."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

_LIMITS = (Path("/sys/fs/cgroup/memory.max"),)  # the limit of a container
_OWN = Path("/proc/self/statm")  # pages of this process, address space first


def format_gib(size: int) -> str:
    """Format a number of bytes in GiB."""
    gib = size / 2**30
    return f"{gib:.2g}" if gib < 10 else f"{size // 2**30:,}"


def measure_memory() -> int:
    """Return the bytes that this process can use, by machine, container and process limits."""
    found = [sys.maxsize]  # no limit if the system reports none
    with suppress(AttributeError, OSError, ValueError):  # not available on Windows
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in _LIMITS:
        with suppress(OSError, ValueError):  # no limit, or "max"
            found.append(int(limit.read_text(encoding="utf-8")))
    with suppress(ImportError):  # not available on Windows
        found.append(_read_limit())
    return min(found)


def _read_limit() -> int:
    """Return the address space that is left under the limit of ulimit -v."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    taken = 0
    with suppress(OSError, ValueError):  # Linux only
        taken = int(_OWN.read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    return max(limit - taken, 0)
