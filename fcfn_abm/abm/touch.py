"""Prefetching of memory, for loops over rows in random order."""

from __future__ import annotations

from typing import Any

import llvmlite.ir
import numba.core.cgutils
import numba.np.arrayobj
from numba.core import types
from numba.extending import intrinsic, overload

# no type stubs
_ir: Any = llvmlite.ir
_cgutils: Any = numba.core.cgutils
_arrays: Any = numba.np.arrayobj

AHEAD = 32
"""Prefetch distance in rows: what current processors handle at once."""
FAR = 2**16
"""Number of rows from which a column exceeds the fast caches."""

_FOR_WRITING, _KEPT_NEAR, _DATA = 1, 3, 1  # arguments of LLVM's prefetch


def touch(array: Any, row: int) -> None:
    """Prefetch the entry of a row into the cache; does nothing outside compiled loops."""


def _generate_prefetch(typing_context: Any, array: Any, row: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        held = _arrays.make_array(kind)(context, builder, arguments[0])
        entry = _cgutils.get_item_pointer(
            context, builder, kind, held, [arguments[1]], wraparound=False
        )
        byte = _ir.IntType(8).as_pointer()
        number = _ir.IntType(32)
        declared = _cgutils.get_or_insert_function(
            builder.module,
            _ir.FunctionType(_ir.VoidType(), [byte, number, number, number]),
            "llvm.prefetch.p0i8",
        )
        options = [number(_FOR_WRITING), number(_KEPT_NEAR), number(_DATA)]
        builder.call(declared, [builder.bitcast(entry, byte), *options])
        return context.get_dummy_value()

    return types.none(array, types.intp), generate


_prefetch: Any = intrinsic(_generate_prefetch)


@overload(touch)
def _touch(array, row):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return lambda array, row: _prefetch(array, row)
