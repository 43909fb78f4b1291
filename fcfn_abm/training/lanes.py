"""Sums of weighted stretches of an array, in the registers of a processor.

What numba makes of the plain loop keeps the sums in memory. Here the vectors of one line each are
written out, so that several sums stay in registers while the stretches pass by.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir
import numba.core.cgutils
import numba.np.arrayobj
from numba.core import types
from numba.extending import intrinsic, overload

# of which there are no types
_ir: Any = llvmlite.ir
_cgutils: Any = numba.core.cgutils
_arrays: Any = numba.np.arrayobj

LANES = 16
"""Numbers of 32 bits in a line."""
GROUP = 5
"""Lines that are added up at once."""

_SINGLE = _ir.FloatType()
_LINE = _ir.VectorType(_SINGLE, LANES)


def add_lines(sums: Any, image: Any, values: Any, places: Any, count: int, starts: Any) -> None:
    """Set ``sums[k]`` to the sum over j < count of ``values[j]`` times a line of an image.

    That line begins at ``places[j] + starts[k]``; k runs over the first :data:`GROUP` lines. Four
    terms are added in pairs before they join the sum, so that every processor gives the same bits.
    """
    for k in range(GROUP):
        total = sums[k]
        total[:] = 0
        begin = places[:count] + starts[k]
        terms = [values[j] * image[begin[j] : begin[j] + LANES] for j in range(count)]
        whole = count - count % 4
        for j in range(0, whole, 4):
            total += (terms[j] + terms[j + 1]) + (terms[j + 2] + terms[j + 3])
        for term in terms[whole:]:
            total += term


def _generate_sums(
    typing_context: Any,  # noqa: ARG001
    sums: Any,
    image: Any,
    values: Any,
    places: Any,
    count: Any,  # noqa: ARG001
    starts: Any,
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        held = [
            _arrays.make_array(kind)(context, builder, argument).data if place != 4 else argument
            for place, (kind, argument) in enumerate(zip(kinds, arguments, strict=True))
        ]
        to_sums, to_image, to_values, to_places, number, to_starts = held
        index = number.type
        starts = [builder.load(builder.gep(to_starts, [index(k)])) for k in range(GROUP)]
        totals = [
            _cgutils.alloca_once_value(builder, _ir.Constant(_LINE, None)) for _ in range(GROUP)
        ]

        def load(j: Any) -> tuple[Any, Any]:
            value = builder.load(builder.gep(to_values, [j]))
            single = builder.insert_element(_ir.Constant(_LINE, None), value, _ir.IntType(32)(0))
            pattern = _ir.Constant(_ir.VectorType(_ir.IntType(32), LANES), [0] * LANES)
            place = builder.load(builder.gep(to_places, [j]))
            return builder.shuffle_vector(single, single, pattern), place

        def multiply(pair: tuple[Any, Any], start: Any) -> Any:
            at = builder.gep(to_image, [builder.add(pair[1], start)])
            line = builder.load(builder.bitcast(at, _LINE.as_pointer()), align=4)
            return builder.fmul(pair[0], line)

        whole = builder.and_(number, index(-4))
        with _cgutils.for_range_slice(builder, index(0), whole, index(4)) as (j, _):
            four = [load(builder.add(j, index(i))) for i in range(4)]
            for start, total in zip(starts, totals, strict=True):
                a, b, c, d = (multiply(pair, start) for pair in four)
                added = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
                builder.store(builder.fadd(builder.load(total), added), total)
        with _cgutils.for_range_slice(builder, whole, number, index(1)) as (j, _):
            one = load(j)
            for start, total in zip(starts, totals, strict=True):
                builder.store(builder.fadd(builder.load(total), multiply(one, start)), total)
        for k, total in enumerate(totals):
            at = builder.gep(to_sums, [index(k * LANES)])
            builder.store(builder.load(total), builder.bitcast(at, _LINE.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.none(sums, image, values, places, types.intp, starts), generate


_sum_lines: Any = intrinsic(_generate_sums)


@overload(add_lines)
def _add_lines(sums, image, values, places, count, starts):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return lambda sums, image, values, places, count, starts: _sum_lines(
        sums, image, values, places, count, starts
    )
