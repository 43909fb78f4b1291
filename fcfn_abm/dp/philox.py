"""Gaussian numbers from a counter: Philox4x32-10 and the Box-Muller method, as compiled loops.

A number is a function of a key and a counter, and of no earlier draw: generators have no state, and
two counters never give the same four words, because Philox permutes counters. All arithmetic uses
integers and plain float32, in the order in which it is written, and the square root is IEEE's, so
that every processor gives the same bits. With ``NUMBA_DISABLE_JIT=1`` the same code runs in plain
Python, a thousand times slower.

References
----------
Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"; Box and Muller
1958, "A note on the generation of random normal deviates"; the polynomials are those of Moshier's
Cephes library, ``logf``, ``sinf`` and ``cosf``.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fcfn_abm.jit import compile_loop

type Words = npt.NDArray[np.uint32]
type Singles = npt.NDArray[np.float32]

LARGEST = math.sqrt(2 * 41 * math.log(2))
"""Largest absolute value of a number, 7.54: the smallest uniform number is 2**-41. A Gaussian
number exceeds it with a probability of 5e-14."""

_CHUNK = 512  # counters per chunk, whose words fit into the fastest cache
_u32, _i32, _u64, _f32 = np.uint32, np.int32, np.uint64, np.float32

_LOW, _SHIFT = _u64(0xFFFFFFFF), _u64(32)
_MULTIPLIER_0, _MULTIPLIER_1 = _u64(0xD2511F53), _u64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = _u64(0x9E3779B9), _u64(0xBB67AE85)


def fill_gaussian(
    out: Singles, std: float, key: tuple[int, int], counter: tuple[int, int, int]
) -> None:
    """Fill an array with independent Gaussian numbers.

    Parameters
    ----------
    out : ndarray of float32, shape (n,)
        Receives the numbers; at most 2**34. Its first numbers do not depend on n.
    std : float
        Standard deviation of each number.
    key : (int, int)
        Two 32-bit words.
    counter : (int, int, int)
        Three 32-bit words. Equal keys and counters give equal numbers; different counters never
        share a block of four numbers.

    Raises
    ------
    ValueError
        If a word does not fit into 32 bits.
    """
    if not all(0 <= word < 2**32 for word in (*key, *counter)):
        raise ValueError(
            f"key and counter must consist of 32-bit words, but are {key} and {counter}."
        )
    _fill(out, _f32(std), *map(_u64, key), *map(_u64, counter))


def philox_words(key: tuple[int, int], counter: tuple[int, int, int, int], n: int) -> Words:
    """Return the four words of n counters, whose first word counts up.

    Parameters
    ----------
    key, counter : tuples of int
        32-bit words.
    n : int
        Number of counters.

    Returns
    -------
    ndarray of uint32, shape (4, n)
    """
    words = np.empty((4, n), dtype=np.uint32)
    _permute(words, *map(_u64, key), *map(_u64, counter))
    return words


@compile_loop
def _permute(words, key_0, key_1, first, c1, c2, c3):  # type: ignore[no-untyped-def]
    """Write the words of the counters (first, c1, c2, c3), (first + 1, c1, c2, c3) and so on."""
    for j in range(words.shape[1]):
        x0, x1, x2, x3 = (first + _u64(j)) & _LOW, c1, c2, c3
        k0, k1 = key_0, key_1
        for _ in range(10):
            high, low = _MULTIPLIER_0 * x0, _MULTIPLIER_1 * x2
            x0, x1 = (low >> _SHIFT) ^ x1 ^ k0, low & _LOW
            x2, x3 = (high >> _SHIFT) ^ x3 ^ k1, high & _LOW
            k0, k1 = (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW
        words[0, j], words[1, j] = _u32(x0), _u32(x1)
        words[2, j], words[3, j] = _u32(x2), _u32(x3)


_HALF, _ONE, _MINUS_TWO = _f32(0.5), _f32(1), _f32(-2)
_TO_UNIT, _TO_UNIT_BELOW = _f32(2.0**-32), _f32(2.0**-40)
_BELOW, _FULL = _u32(0xFF), _u32(0xFFFFFFFF)  # bits of the angle's word that extend the radius's
_OPPOSITE, _SWAPPED, _ANGLE_SHIFT = _u32(0x100), _u32(0x200), _i32(10)
_TO_ANGLE = _f32(math.pi / 4 * 2.0**-21)
_ROOT_HALF, _MANTISSA, _MANTISSA_BITS = _i32(0x3F3504F3), _i32(0x7FFFFF), _i32(23)
_LN2_LOW, _LN2_HIGH = _f32(-2.12194440e-4), _f32(0.693359375)
_LOG = tuple(
    map(
        _f32,
        (
            7.0376836292e-2,
            -1.1514610310e-1,
            1.1676998740e-1,
            -1.2420140846e-1,
            1.4249322787e-1,
            -1.6668057665e-1,
            2.0000714765e-1,
            -2.4999993993e-1,
            3.3333331174e-1,
        ),
    )
)
_SIN = tuple(map(_f32, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)))
_COS = tuple(map(_f32, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)))


@compile_loop
def _transform(radius, angle, uniform, cosine, sine, std):  # type: ignore[no-untyped-def]
    """Convert two words to two Gaussian numbers, by the Box-Muller method.

    The uniform number of the radius has 40 bits: the 32 of its own word, and 8 of the angle's. Of
    the other bits of the angle, one gives the sign, one the axis, and 22 the angle, up to an eighth
    of a turn.
    """
    for j in range(radius.size):
        uniform[j] = _f32(radius[j]) * _TO_UNIT + (_f32(angle[j] & _BELOW) + _HALF) * _TO_UNIT_BELOW
    bits, turn = uniform.view(np.int32), angle.view(np.int32)
    for j in range(radius.size):
        # ln(uniform): a power of two, and a rest between sqrt(1/2) and sqrt(2)
        above = bits[j] - _ROOT_HALF
        power = above >> _MANTISSA_BITS
        bits[j] = (above & _MANTISSA) + _ROOT_HALF
        f = uniform[j] - _ONE
        if power == 0:  # close to one, the complement is more precise
            f = (_f32(_u32(_FULL - radius[j])) + _HALF) * -_TO_UNIT
        p = _LOG[0] * f + _LOG[1]
        p = p * f + _LOG[2]
        p = p * f + _LOG[3]
        p = p * f + _LOG[4]
        p = p * f + _LOG[5]
        p = p * f + _LOG[6]
        p = p * f + _LOG[7]
        p = p * f + _LOG[8]
        square, n = f * f, _f32(power)
        log = f + (f * (square * p) + n * _LN2_LOW - _HALF * square) + n * _LN2_HIGH
        length = np.sqrt(_MINUS_TWO * log) * std

        t = (_f32(turn[j] >> _ANGLE_SHIFT) + _HALF) * _TO_ANGLE
        square = t * t
        s = ((_SIN[0] * square + _SIN[1]) * square + _SIN[2]) * (square * t) + t
        c = (_COS[0] * square + _COS[1]) * square + _COS[2]
        c = c * (square * square) - _HALF * square + _ONE
        if angle[j] & _OPPOSITE:
            c = -c
        swapped = angle[j] & _SWAPPED
        cosine[j] = length * (s if swapped else c)
        sine[j] = length * (c if swapped else s)


@compile_loop
def _fill(out, std, key_0, key_1, c1, c2, c3):  # type: ignore[no-untyped-def]
    """Fill an array by chunks: each holds the four numbers of its counters, one after another.

    Of the last, incomplete chunk the first numbers are used.
    """
    words = np.empty((4, _CHUNK), dtype=np.uint32)
    uniform = np.empty(_CHUNK, dtype=np.float32)
    rest = np.empty((4, _CHUNK), dtype=np.float32)
    size, whole = out.size, 4 * _CHUNK
    for start in range(0, size, whole):
        _permute(words, key_0, key_1, _u64(start // 4), c1, c2, c3)
        left = size - start
        part = out[start : start + whole].reshape(4, _CHUNK) if left >= whole else rest
        _transform(words[0], words[1], uniform, part[0], part[1], std)
        _transform(words[2], words[3], uniform, part[2], part[3], std)
        if left < whole:
            out[start:] = rest.reshape(whole)[:left]
