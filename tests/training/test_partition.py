import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fcfn_abm.errors import InvalidDataError
from fcfn_abm.training import PARTITIONS, label_divergence


def split(kind, labels, n_nodes, seed=0, **options):
    rng = np.random.default_rng(seed)
    return PARTITIONS.create(kind, options).split(np.asarray(labels), n_nodes, rng)


@pytest.mark.parametrize("kind", list(PARTITIONS))
@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=80),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 99),
)
def test_every_sample_goes_to_one_node_in_equal_parts(kind, labels, share, seed):
    n_nodes = 1 + int(share * (len(labels) - 1))
    shards = split(kind, labels, n_nodes, seed)
    assert_array_equal(np.sort(np.concatenate(shards)), np.arange(len(labels)))
    sizes = [len(rows) for rows in shards]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


@pytest.mark.parametrize("dirichlet_alpha", [1e-4, 0.5, 1e4])
def test_extreme_skew_neither_hangs_nor_empties_a_node(dirichlet_alpha):
    labels = np.repeat(np.arange(10), 100)
    shards = split("dirichlet", labels, 37, dirichlet_alpha=dirichlet_alpha)
    assert {len(rows) for rows in shards} == {27, 28}


def test_small_concentration_is_skewed_and_large_is_even():
    labels = np.repeat(np.arange(10), 100)
    skewed, even = (
        label_divergence(labels, split("dirichlet", labels, 20, dirichlet_alpha=a)).mean()
        for a in (0.05, 1e4)
    )
    assert skewed > 0.6
    assert even < 0.25


def test_divergence_by_hand():
    labels = np.array([0, 0, 1, 1])
    shards = [np.array([0, 1]), np.array([2, 3])]
    assert_allclose(label_divergence(labels, shards), [0.5, 0.5])
    assert_allclose(label_divergence(labels, [np.arange(4)]), [0.0])


def test_too_many_nodes_for_the_data_are_refused():
    with pytest.raises(InvalidDataError, match="3 training samples are too few for 4 nodes"):
        split("iid", [0, 1, 2], 4)
