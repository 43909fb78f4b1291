import inspect
from itertools import combinations, product

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fcfn_abm.rng import PURPOSES, key, replication_seed, stream

PLACES = {  # never change: every run would have other numbers
    ("costs",): (0,),
    ("misreports",): (0, 1),
    ("group-costs", 3): (0, 2, 3),
    ("group-misreports", 3): (0, 3, 3),
    ("coalitions",): (0, 4),
    ("sybils",): (0, 5),
    ("market",): (1,),
    ("first-reports",): (1, 0),
    ("turns",): (1, 4086709037),
    ("observation-errors", 3): (1, 3, 1),
    ("movers", 3): (1, 3, 2),
    ("trials", 3): (1, 3, 3),
    ("first-trials", 3): (1, 3, 4),
    ("exploration", 3): (1, 2886666931, 3),
    ("data", 0): (2, 0),
    ("data", 1): (2, 1),
    ("first-parameters",): (3, 0),
    ("batches", 3, 7): (3, 1, 3, 7),
    ("attendance", 3): (3, 2, 3),
    ("noise",): (4,),
    ("count-noise", 3): (4, 2245608546, 3),
    ("canary",): (4, 1036808545),
    ("simulated-gain", 3): (4, 3499437312, 3),
    ("mechanism", "random"): (5, 373021397),
    ("replication", 3): (6, 3),
    ("design",): (7,),
    ("bootstrap",): (7, 1),
    ("turnover", 3): (8, 3),
    ("newcomers", 3): (8, 3, 1),
    ("cost-drift", 3): (8, 3, 2),
    ("group-newcomers", 3, 7): (8, 3, 3, 7),
    ("events", 3): (8, 3, 4),
    ("event-misreports", 3, 7): (8, 3, 5, 7),
    ("checked-game", 3): (9, 3),
}


@pytest.mark.parametrize(("use", "place"), PLACES.items(), ids=str)
def test_places_in_the_tree_of_seeds_never_change(use, place):
    expected = np.random.default_rng(np.random.SeedSequence(7, spawn_key=place))
    assert_array_equal(stream(7, *use).random(5), expected.random(5))


def test_every_purpose_has_its_place_above():
    assert {use[0] for use in PLACES} == set(PURPOSES)


def test_no_two_uses_of_chance_share_a_place():
    places = []
    for place in PURPOSES.values():
        n_indices = len(inspect.signature(place).parameters)
        places += [place(*index) for index in product(range(1, 5), repeat=n_indices)]
    assert len(set(places)) == len(places)


def test_a_stream_is_a_grandchild_of_the_seed():
    batches = np.random.SeedSequence(7).spawn(4)[3].spawn(2)[1]
    node_12_in_round_3 = batches.spawn(4)[3].spawn(13)[12]
    expected = np.random.default_rng(node_12_in_round_3).random(5)
    assert_array_equal(stream(7, "batches", 3, 12).random(5), expected)


def test_a_key_is_the_first_two_words_of_a_place_in_the_tree_of_seeds():
    state = np.random.SeedSequence(7).spawn(5)[4].generate_state(2)
    assert key(7, "noise") == tuple(state.tolist())
    keys = {key(seed, *use) for seed in (0, 7, 2**53) for use in PLACES}
    assert len(keys) == 3 * len(PLACES)


@pytest.mark.parametrize("use", PLACES, ids=str)
def test_the_same_use_of_chance_gives_the_same_numbers(use):
    assert_array_equal(stream(1, *use).random(9), stream(1, *use).random(9))


def test_all_other_uses_of_chance_are_independent_of_it():
    draws = [stream(0, *use).random(1000) for use in PLACES]
    draws += [stream(0, "batches", *index).random(1000) for index in [(0, 0), (1, 0), (0, 1)]]
    draws += [stream(1, "batches", 0, 0).random(1000)]
    for one, other in combinations(draws, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(1000)


def test_drawing_from_one_stream_changes_no_other():
    costs, batches = stream(3, "costs"), stream(3, "batches", 0, 0)
    costs.random(100)
    assert_array_equal(batches.random(4), stream(3, "batches", 0, 0).random(4))


def test_an_unknown_purpose_is_refused():
    with pytest.raises(
        ValueError, match="no random stream for 'weather'; known: costs, misreports"
    ):
        stream(1, "weather")


def test_a_purpose_that_asks_for_a_round_is_given_one():
    with pytest.raises(TypeError, match="round_index"):
        stream(1, "movers")


def test_replications_have_seeds_of_their_own_and_the_first_is_the_scenario_s():
    assert replication_seed(7, 0) == 7
    seeds = {replication_seed(seed, index) for seed in range(20) for index in range(50)}
    assert len(seeds) == 20 * 50
    assert all(type(seed) is int and 0 <= seed < 2**53 for seed in seeds)
    assert replication_seed(7, 3) == replication_seed(7, 3)
