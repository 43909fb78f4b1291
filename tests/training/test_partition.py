import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fcfn_abm.errors import InvalidDataError
from fcfn_abm.training import PARTITIONS, label_divergence


def split(kind, labels, n_nodes, seed=0, writers=None, **options):
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels)
    return PARTITIONS.create(kind, options).split(labels, n_nodes, rng, writers)


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
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


@given(n_nodes=st.integers(1, 12), per_node=st.integers(1, 4), extra=st.integers(0, 40))
def test_shards_deal_every_sample_once_and_few_labels_to_each(n_nodes, per_node, extra):
    labels = np.arange(n_nodes * per_node + extra) % 5
    shards = split("shards", labels, n_nodes, shards_per_node=per_node)
    assert_array_equal(np.sort(np.concatenate(shards)), np.arange(labels.size))
    size = labels.size / (n_nodes * per_node)
    for rows in shards:
        assert per_node * (size - 1) < len(rows) < per_node * (size + 1)


def test_a_node_with_one_shard_sees_one_label():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 50))
    shards = split("shards", labels, 20, shards_per_node=1)
    assert {len(set(labels[rows])) for rows in shards} == {1}
    assert {len(set(labels[rows])) for rows in split("shards", labels, 10)} <= {1, 2}
    assert not np.array_equal(shards[0], split("shards", labels, 20, seed=1, shards_per_node=1)[0])


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=30), share=st.floats(0.0, 1.0))
def test_writers_stay_whole_and_loads_even(counts, share):
    writers = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    n_nodes = 1 + int(share * (len(counts) - 1))
    shards = split("by-writer", np.zeros(writers.size, dtype=int), n_nodes, writers=writers)
    assert_array_equal(np.sort(np.concatenate(shards)), np.arange(writers.size))
    held = [set(writers[rows]) for rows in shards]
    assert all(held)
    assert sum(map(len, held)) == len(counts)  # no writer with two nodes
    sizes = [len(rows) for rows in shards]
    assert max(sizes) - min(sizes) <= max(counts)


def test_by_writer_needs_writers_and_enough_of_them():
    with pytest.raises(InvalidDataError, match="needs data with writers"):
        split("by-writer", [0, 1], 2)
    with pytest.raises(InvalidDataError, match="1 writers are too few for 2 nodes"):
        split("by-writer", [0, 1], 2, writers=np.array([5, 5]))
