import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from fcfn_abm.dp import Clipping
from fcfn_abm.dp.sensitivity import l2_norms


@pytest.mark.parametrize("width", [1, 127, 128, 129, 5000])
@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1.0, 1e25])
def test_norms_are_those_of_64_bits(width, scale):
    rng = np.random.default_rng(width)
    rows = (scale * rng.standard_normal((3, width))).astype(np.float32)
    found = l2_norms(torch.from_numpy(rows))
    assert (found.dtype, found.shape) == (torch.float64, (3, 1))
    assert_allclose(found[:, 0], np.linalg.norm(rows.astype(float), axis=1), rtol=5e-6)


def test_the_norm_of_each_row_is_its_own_though_some_are_extreme():
    rows = torch.ones(6, 1000)
    rows[0], rows[1], rows[2] = 0.0, 1e-30, 1e30
    rows[3, 7], rows[4, 999] = np.nan, np.inf
    found = l2_norms(rows)[:, 0].numpy()
    assert_allclose(found, np.sqrt(1000) * np.array([0, 1e-30, 1e30, np.nan, np.inf, 1]), rtol=5e-6)
    assert l2_norms(rows[:0]).shape == (0, 1)


def test_large_entries_do_not_hide_small_ones_wherever_they_stand():
    rows = torch.full((2, 200_000), 2.4e-4)  # beside one, 32 bits lose the square of each
    rows[[0, 1], [0, 123_456]] = 1.0
    expected = np.sqrt(1 + 199_999 * float(rows[0, 1]) ** 2)
    assert_allclose(l2_norms(rows), expected, rtol=4e-6)
    assert_allclose(l2_norms(rows.double()), expected, rtol=1e-12)


def test_the_factor_of_one_row_is_that_of_many():
    clipping = Clipping(2.0)
    norms = [0.0, 1e-30, 1.9, 2.0, 2.1, 1e20, 1e38, 1e300, np.inf, np.nan]
    many = clipping.factors(torch.tensor(norms, dtype=torch.float64)[:, None])[:, 0]
    one = [np.float32(clipping.factor(norm)) for norm in norms]
    np.testing.assert_array_equal(np.array(one), many.numpy())
    assert np.isnan(one[-3:]).all()
    assert not np.isnan(one[:6]).any()
