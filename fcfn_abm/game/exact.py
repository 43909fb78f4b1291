"""Sums and products without rounding errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

type Floats = npt.NDArray[np.float64]
type PerGame = Any
"""One number; for k games solved together, an array of shape (k,)."""


def two_sum[T: (Floats, float)](a: T | float, b: T) -> tuple[T, T]:
    """Return a + b and its rounding error, exactly (Knuth)."""
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


def two_product(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Return a * b and its rounding error, exactly unless it over- or underflows (Dekker)."""
    product = a * b
    a_upper, b_upper = _upper(a), _upper(b)
    a_lower, b_lower = a - a_upper, b - b_upper
    error = ((a_upper * b_upper - product) + a_upper * b_lower) + a_lower * b_upper
    return product, error + a_lower * b_lower


def exact_sum(values: Floats) -> tuple[Floats, Floats]:
    """Return the sum over the last axis, and its rounding error.

    Adds in pairs, without error. At most two axes; for one axis the sum is a number.
    """
    error: Any = 0.0
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        pairs, errors = two_sum(values[..., :half], values[..., half : 2 * half])
        error = error + errors.sum(axis=-1)
        values = np.concatenate([pairs, values[..., 2 * half :]], axis=-1)
    return two_sum(values[..., 0], error)


def _upper(values: Floats) -> Floats:
    """Round to the upper 26 of the 53 digits: products of two such numbers are exact."""
    bits = values.view(np.int64)
    return ((bits + (1 << 26)) & ~((1 << 27) - 1)).view(np.float64)
