"""Gradients of a convolution's weights, of each sample, where most of what comes back is zero.

A pool passes its gradient to one place of each window, and a rectifier to none where it is off. A
product of matrices multiplies all those zeros; this loop looks at what is left of them. It adds up
number by number, in one order, so that every processor gives the same bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.jit import compile_loop
from fcfn_abm.training.lanes import GROUP, LANES, add_lines

type Singles = npt.NDArray[np.float32]

LEAST_WIDTH = 8
"""Fewest numbers in a row of a kernel for which the loop is faster than products of matrices."""

_MOST_SHARE = 0.3
"""Of numbers other than zero: with more of them products of matrices are faster."""


def is_sparse(back: Singles) -> bool:
    """Return whether most of what comes back is zero, judged by the first few samples.

    Parameters
    ----------
    back : ndarray of float32, shape (m, ...)
        Gradients of a layer's outputs.
    """
    few = back[:4]
    return bool(few.size and np.count_nonzero(few) <= _MOST_SHARE * few.size)


def kernel_gradients(back: Singles, image: Singles, kernel: tuple[int, int]) -> Singles:
    """Return the gradients of the weights of a convolution of stride 1, one row a sample.

    Parameters
    ----------
    back : ndarray of float32, shape (m, height, width, n_out)
        Gradients of each sample's outputs.
    image : ndarray of float32, shape (m, height + kernel[0] - 1, width + kernel[1] - 1, n_in)
        The padded input.
    kernel : (int, int)
        Height and width of the kernel.

    Returns
    -------
    ndarray of float32, shape (m, n_out * kernel[0] * kernel[1] * n_in)
        Numbers in the order (n_out, row, column, n_in).
    """
    m, n_out, (high, wide), n_in = len(back), back.shape[3], kernel, image.shape[3]
    n_lines = -(-wide * n_in // LANES)  # in a row of the kernel
    starts = [y * image.shape[2] * n_in + i * LANES for y in range(high) for i in range(n_lines)]
    starts += starts[-1:] * (-len(starts) % GROUP)
    sums = np.empty((m, n_out, len(starts), LANES), dtype=np.float32)
    flat = np.zeros(image.size + LANES, dtype=np.float32)  # a line may reach beyond the image
    flat[: image.size] = image.reshape(-1)
    shape = np.array(image.shape[1:], dtype=np.int64)
    _add_patches(sums, np.ascontiguousarray(back), flat, shape, np.array(starts, dtype=np.int64))
    rows = sums[:, :, : high * n_lines].reshape(m, n_out, high, n_lines * LANES)
    return np.ascontiguousarray(rows[..., : wide * n_in]).reshape(m, -1)


@compile_loop
def _add_patches(sums, back, image, shape, starts):  # type: ignore[no-untyped-def]
    """Add up, for each channel, what its kernel saw times what came back.

    ``starts`` are the first numbers of the lines of a kernel's patch, counted from its corner.
    """
    m, height, width, n_out = back.shape
    values = np.empty((n_out, height * width + 1), dtype=np.float32)
    places = np.empty((n_out, height * width + 1), dtype=np.int64)
    counts = np.empty(n_out, dtype=np.int64)
    for sample in range(m):
        counts[:] = 0
        for y in range(height):
            for x in range(width):
                place = ((sample * shape[0] + y) * shape[1] + x) * shape[2]
                for channel in range(n_out):
                    value, count = back[sample, y, x, channel], counts[channel]
                    values[channel, count] = value  # overwritten by the next unless it counts
                    places[channel, count] = place
                    counts[channel] = count + (value != 0)
        for channel in range(n_out):
            value, place = values[channel], places[channel]
            for first in range(0, starts.size, GROUP):
                add_lines(
                    sums[sample, channel, first:],
                    image,
                    value,
                    place,
                    counts[channel],
                    starts[first:],
                )
