"""Gradients of convolutions, sample by sample, against sums that are written out."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from fcfn_abm.training import gradients
from fcfn_abm.training.gradients import Kernels, Matrix, sample_blocks
from fcfn_abm.training.kernels import is_sparse, kernel_gradients


def sparse(rng, shape, share):
    values = rng.standard_normal(shape).astype(np.float32)
    values[rng.random(shape) >= share] = 0
    return values


def written_out(back, image, kernel):
    """Sum over all places, in 64 bits."""
    m, height, width, n_out = back.shape
    total = np.zeros((m, n_out, *kernel, image.shape[3]))
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            seen = image[:, row : row + height, column : column + width].astype(float)
            total[:, :, row, column] = np.einsum("mhwo,mhwi->moi", back.astype(float), seen)
    return total.reshape(m, -1)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 1.0])
@pytest.mark.parametrize(
    ("m", "size", "n_out", "n_in", "kernel"),
    [(3, (6, 5), 4, 7, (5, 5)), (1, (1, 1), 1, 1, (1, 1)), (2, (4, 9), 3, 16, (3, 2))],
)
def test_the_loop_adds_up_what_each_kernel_saw(m, size, n_out, n_in, kernel, share):
    rng = np.random.default_rng(1)
    back = sparse(rng, (m, *size, n_out), share)
    padded = [length + side - 1 for length, side in zip(size, kernel, strict=True)]
    image = rng.standard_normal((m, *padded, n_in)).astype(np.float32)
    found = kernel_gradients(back, image, kernel)
    assert_allclose(found, written_out(back, image, kernel), rtol=1e-4, atol=1e-5)


def test_sparse_is_what_a_pool_and_a_rectifier_leave():
    rng = np.random.default_rng(2)
    assert is_sparse(sparse(rng, (9, 8, 8, 4), 0.15))
    assert not is_sparse(sparse(rng, (9, 8, 8, 4), 0.5))
    assert not is_sparse(np.zeros((0, 8, 8, 4), dtype=np.float32))


def test_what_is_not_finite_stays_so():
    back, image = np.zeros((2, 4, 4, 1), np.float32), np.ones((2, 6, 6, 8), np.float32)
    back[1, 2, 2, 0] = np.nan
    found = kernel_gradients(back, image, (3, 3))
    assert_array_equal(np.isnan(found).all(axis=1), [False, True])


@pytest.mark.parametrize("share", [0.1, 1.0])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("n_in", [1, 16])
def test_both_ways_give_the_gradients_of_torch(n_in, stride, share, monkeypatch):
    monkeypatch.setattr(gradients, "_CACHE_BYTES", 4000)  # a few samples at a time
    layer = nn.Conv2d(n_in, 6, (5, 3), padding=(2, 1), stride=stride)
    rng = np.random.default_rng(3)
    images = torch.from_numpy(rng.standard_normal((7, n_in, 9, 8)).astype(np.float32))
    out = layer(images)
    back = torch.from_numpy(sparse(rng, tuple(out.shape), share))
    weights, biases = sample_blocks(layer, images, back)
    loops = n_in == 16 and stride == 1 and share < 0.3
    assert type(weights) is (Matrix if loops else Kernels)
    expected = []
    for sample in range(7):
        loss = (layer(images[sample : sample + 1]) * back[sample]).sum()
        expected.append(torch.autograd.grad(loss, [layer.weight, layer.bias]))
    own = torch.stack([weight.permute(0, 2, 3, 1).flatten() for weight, _ in expected])
    assert_allclose(weights.rows(), own, rtol=1e-4, atol=1e-5)
    assert_allclose(
        biases.rows(), torch.stack([bias for _, bias in expected]), rtol=1e-4, atol=1e-5
    )
    assert_allclose(weights.norms()[:, 0], own.double().norm(dim=1), rtol=1e-5)
    factors = torch.linspace(0, 1, 7)[:, None]
    assert_allclose(weights.sum_weighted(factors), (factors * own).sum(0), rtol=1e-4, atol=1e-5)
