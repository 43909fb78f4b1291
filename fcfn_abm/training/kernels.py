"""Per-sample gradients of a convolution's weights for mostly zero output gradients.

A pool passes its gradient to one position per window, and a rectifier to none where it is off.
A matrix product multiplies all those zeros; this loop visits only the rest. It adds numbers in
a fixed order, so that every CPU gives the same bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.jit import compile_loop

type Singles = npt.NDArray[np.float32]

LEAST_WIDTH = 32
"""Numbers in a kernel row from which the loop outweighs its overhead."""

_MOST_SHARE = 0.3
"""Share of non-zero numbers above which matrix products are faster."""


def is_sparse(back: Singles) -> bool:
    """Return whether most output gradients are zero, based on the first few samples.

    Parameters
    ----------
    back : ndarray of float32, shape (m, ...)
        Gradients of a layer's outputs.
    """
    few = back[:4]
    return bool(few.size and np.count_nonzero(few) <= _MOST_SHARE * few.size)


def kernel_gradients(back: Singles, image: Singles, kernel: tuple[int, int]) -> Singles:
    """Return the gradients of the weights of a convolution of stride 1, one row per sample.

    Parameters
    ----------
    back : ndarray of float32, shape (m, height, width, n_out)
        Gradients of each sample's outputs.
    image : ndarray of float32, shape (m, height + kernel[0] - 1, width + kernel[1] - 1, n_in)
        Padded inputs; contiguous.
    kernel : (int, int)
        Height and width of the kernel.

    Returns
    -------
    ndarray of float32, shape (m, n_out * kernel[0] * kernel[1] * n_in)
        Numbers in the order (n_out, row, column, n_in).
    """
    n_out, n_in = back.shape[3], image.shape[3]
    rows = np.empty((len(back), n_out, kernel[0], kernel[1] * n_in), dtype=np.float32)
    line = image.shape[2] * n_in
    _add_patches(rows, np.ascontiguousarray(back), image.reshape(len(image), -1), line, n_in)
    return rows.reshape(len(back), -1)


@compile_loop
def _add_patches(rows, back, image, line, n_in):  # type: ignore[no-untyped-def]
    """Add the products of inputs and output gradients per channel, four positions at a time.

    ``line`` is the number of values in a line of the flat image.
    """
    m, height, width, n_out = back.shape
    n_rows, run = rows.shape[2:]
    values = np.empty((n_out, height * width), dtype=np.float32)
    places = np.empty((n_out, height * width), dtype=np.int64)
    counts = np.empty(n_out, dtype=np.int64)
    total = np.empty(run, dtype=np.float32)
    for sample in range(m):
        counts[:] = 0
        for y in range(height):
            for x in range(width):
                for channel in range(n_out):
                    value = back[sample, y, x, channel]
                    if value != 0:
                        count = counts[channel]
                        values[channel, count] = value
                        places[channel, count] = y * line + x * n_in
                        counts[channel] = count + 1
        for channel in range(n_out):
            count, value, place = counts[channel], values[channel], places[channel]
            for row in range(n_rows):
                seen = image[sample, row * line :]
                total[:] = 0
                whole = count - count % 4
                for j in range(0, whole, 4):
                    b0, b1, b2, b3 = value[j], value[j + 1], value[j + 2], value[j + 3]
                    s0, s1 = seen[place[j] :], seen[place[j + 1] :]
                    s2, s3 = seen[place[j + 2] :], seen[place[j + 3] :]
                    for i in range(run):
                        total[i] += (b0 * s0[i] + b1 * s1[i]) + (b2 * s2[i] + b3 * s3[i])
                for j in range(whole, count):
                    b0, s0 = value[j], seen[place[j] :]
                    for i in range(run):
                        total[i] += b0 * s0[i]
                rows[sample, channel, row] = total
