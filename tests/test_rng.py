from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fcfn_abm.rng import STREAMS, replication_seed, stream


def test_places_are_seeds_and_never_change():
    first = ("population", "game", "data", "training", "noise", "mechanism", "replication")
    assert STREAMS[: len(first)] == first
    assert len(set(STREAMS)) == len(STREAMS)


def test_a_stream_is_a_grandchild_of_the_seed():
    noise = np.random.SeedSequence(7).spawn(5)[4]
    node_12_in_round_3 = noise.spawn(4)[3].spawn(13)[12]
    expected = np.random.default_rng(node_12_in_round_3).random(5)
    assert_array_equal(stream(7, "noise", 3, 12).random(5), expected)


@pytest.mark.parametrize("name", STREAMS)
def test_the_same_use_of_chance_gives_the_same_numbers(name):
    assert_array_equal(stream(1, name, 2).random(9), stream(1, name, 2).random(9))


def test_all_other_uses_of_chance_are_independent_of_it():
    draws = [stream(0, name).random(1000) for name in STREAMS]
    draws += [stream(0, "noise", *index).random(1000) for index in [(0,), (1,), (0, 0), (1, 0)]]
    draws += [stream(1, "noise").random(1000)]
    for one, other in combinations(draws, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(1000)


def test_drawing_from_one_stream_changes_no_other():
    population, noise = stream(3, "population"), stream(3, "noise", 0)
    population.random(100)
    assert_array_equal(noise.random(4), stream(3, "noise", 0).random(4))


def test_an_unknown_stream_is_refused():
    with pytest.raises(ValueError, match="not in tuple"):
        stream(1, "weather")


def test_replications_have_seeds_of_their_own_and_the_first_is_the_scenario_s():
    assert replication_seed(7, 0) == 7
    seeds = {replication_seed(seed, index) for seed in range(20) for index in range(50)}
    assert len(seeds) == 20 * 50
    assert all(type(seed) is int and 0 <= seed < 2**53 for seed in seeds)
    assert replication_seed(7, 3) == replication_seed(7, 3)
