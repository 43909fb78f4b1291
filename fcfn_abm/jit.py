"""Compilation of loops with numba."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


@cache
def inline(function: Any) -> Any:
    """Let compiled loops call a plain Python function; return the function unchanged.

    Numba's on-disk cache recognizes plain functions in the next process, but not compiled ones.
    """
    from numba.extending import register_jitable

    return register_jitable(function)


def compile_loop(function: Any) -> Any:
    """Compile a function with numba, release the GIL while it runs, and cache it on disk.

    Floating-point arithmetic is kept as written: nothing is reordered or contracted. With
    ``NUMBA_DISABLE_JIT=1`` the function runs in plain Python.
    """
    import numba  # slow to import

    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return np.errstate(all="ignore")(function)
    options: dict[str, Any] = {
        "nogil": True,  # other threads write traces and train
        "error_model": "numpy",
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable cache folder: compiled again in each process
        return numba.njit(**options)(function)
