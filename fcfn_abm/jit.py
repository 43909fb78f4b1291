"""How loops are compiled with numba."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def inline(function: Any) -> Any:
    """Let compiled loops call a plain function; return it as it is.

    Numba's cache on disk knows plain functions again in the next process, and compiled ones not.
    """
    from numba.extending import register_jitable

    return register_jitable(function)


def compile_loop(function: Any) -> Any:
    """Compile a function with numba, without the lock of the interpreter, and keep it on disk.

    Floating-point arithmetic stays as it is written: nothing is reordered or contracted. With
    ``NUMBA_DISABLE_JIT=1`` the function runs in plain Python.
    """
    import numba  # takes a while to load

    options: dict[str, Any] = {
        "nogil": True,  # traces are written meanwhile, and other nodes train
        "error_model": "numpy",
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder where it could be kept: compiled in each process anew
        return numba.njit(**options)(function)
