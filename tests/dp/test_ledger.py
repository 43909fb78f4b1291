import io
import sys

import numpy as np
import pytest
from dp_accounting import pld, rdp
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fcfn_abm.dp import Ledger, central_multipliers, gaussian_epsilon, spent_epsilon
from fcfn_abm.errors import InvalidPrivacyError, MissingExtraError

DELTA = 1e-5


def filled(rounds=12, **settings):
    """Five nodes: one leaves half way, one comes then, one changes its noise, one never trains."""
    ledger = Ledger(5, **settings)
    for index in range(rounds):
        half = index >= rounds // 2
        nodes = [0, 2, 3] if half else [0, 1, 3]
        multipliers = np.array([6.0, 8.0, 12.0 if half else 5.0])
        ledger.spend(nodes, multipliers, central=3 * multipliers)
    return ledger


def test_releases_of_changing_noise_add_up_exactly():
    ledger = filled()
    assert_array_equal(ledger.n_releases, [12, 6, 6, 12, 0])
    precision = np.array([12 / 36, 6 / 64, 6 / 64, 6 / 25 + 6 / 144])
    assert_allclose(ledger.epsilon(DELTA)[:4], gaussian_epsilon(precision**-0.5, DELTA), rtol=1e-12)
    assert ledger.epsilon(DELTA)[4] == 0
    assert_allclose(
        ledger.central_epsilon(DELTA)[:4], gaussian_epsilon(3 * precision**-0.5, DELTA), rtol=1e-12
    )
    assert_array_equal(ledger.epsilon(DELTA, [3, 0]), ledger.epsilon(DELTA)[[3, 0]])


def test_a_node_that_left_stops_spending():
    early, late = filled(6), filled(12)
    assert early.epsilon(DELTA)[0] < late.epsilon(DELTA)[0]
    ledger = Ledger(2)
    ledger.spend([0, 1], [4.0, 4.0])
    before = ledger.epsilon(DELTA)
    ledger.spend([1], [4.0])
    assert ledger.epsilon(DELTA)[0] == before[0]
    assert ledger.epsilon(DELTA)[1] > before[1]


@pytest.mark.parametrize("node", range(4))
def test_events_tell_other_accountants_the_same_story(node):
    ledger = filled()
    event, ours = ledger.event(node), ledger.epsilon(DELTA)[node]
    numeric = pld.PLDAccountant(ledger.accounting_relation).compose(event).get_epsilon(DELTA)
    assert_allclose(ours, numeric, rtol=1e-3)
    bound = rdp.RdpAccountant(neighboring_relation=ledger.accounting_relation).compose(event)
    assert ours <= bound.get_epsilon(DELTA) < 1.3 * ours


def test_a_node_that_released_nothing_has_an_event_of_no_cost():
    ledger = filled()
    event = ledger.event(4)
    assert pld.PLDAccountant().compose(event).get_epsilon(DELTA) == 0


@pytest.mark.parametrize("neighbours", ["zero-out", "replace-one"])
def test_sampled_releases_are_charged_as_other_accountants_do_and_never_less(neighbours):
    ledger = filled(sampling_rate=0.2, neighbours=neighbours)
    for node in range(4):
        accountant = pld.PLDAccountant(ledger.accounting_relation, 1e-5)
        numeric = accountant.compose(ledger.event(node)).get_epsilon(DELTA)
        ours = ledger.epsilon(DELTA)[node]
        assert numeric < ours < 1.005 * numeric  # also of node 3, which changed its noise
    assert ledger.epsilon(DELTA)[4] == 0
    assert (ledger.central_epsilon(DELTA)[:4] < ledger.epsilon(DELTA)[:4]).all()


def test_a_resumed_ledger_ends_like_one_that_was_never_interrupted():
    halves, whole = filled(6), filled(6)
    file = io.BytesIO()
    np.savez(file, **halves.state())
    file.seek(0)
    resumed = Ledger.from_state(np.load(file), 5)
    for ledger in (resumed, whole):
        ledger.spend([0, 1], [6.0, 9.0], central=[18.0, 27.0])  # node 0 as before, node 1 not
        ledger.spend([0, 4], [7.0, 3.0])
    for name, column in whole.state().items():
        assert_array_equal(resumed.state()[name], column)
    assert_array_equal(resumed.epsilon(DELTA), whole.epsilon(DELTA))
    assert_array_equal(resumed.central_epsilon(DELTA), whole.central_epsilon(DELTA))
    assert (whole.epsilon(DELTA) > filled(6).epsilon(DELTA)).sum() == 3


def test_equal_rounds_take_no_more_room():
    ledger = Ledger(1000)
    for _ in range(50):
        ledger.spend(np.arange(1000), np.linspace(20, 40, 1000))
    assert len(ledger.state()["node"]) == 1000
    assert_allclose(ledger.epsilon(DELTA), spent_epsilon(np.linspace(20, 40, 1000), 50, DELTA))


nodes = st.lists(
    st.tuples(st.floats(0.01, 1), st.floats(0.1, 50), st.floats(0.01, 5)), min_size=1, max_size=6
)


@given(nodes)
def test_in_the_sum_every_node_has_the_noise_of_all(drawn):
    weights, std, sensitivity = np.array(drawn).T
    central = central_multipliers(weights, std, sensitivity)
    assert (central >= std / sensitivity).all()
    # the sum that the server sees, as a single release of each node
    total = np.sqrt(np.sum(weights**2 * std**2))
    ledger = Ledger(weights.size)
    ledger.spend(np.arange(weights.size), std / sensitivity, central=central)
    expected = gaussian_epsilon(total, DELTA, weights * sensitivity)
    assert_allclose(ledger.central_epsilon(DELTA), expected, rtol=1e-9, atol=1e-12)
    assert (ledger.central_epsilon(DELTA) <= ledger.epsilon(DELTA)).all()


def test_of_several_releases_a_round_the_central_view_claims_nothing():
    ledger = Ledger(2)
    ledger.spend([0, 1], [5.0, 6.0], n_releases=4)
    assert_array_equal(ledger.central_epsilon(DELTA), ledger.epsilon(DELTA))
    assert_allclose(ledger.epsilon_of(ledger.latest, DELTA), gaussian_epsilon([2.5, 3.0], DELTA))
    with pytest.raises(InvalidPrivacyError, match="requires one release per round"):
        ledger.spend([0, 1], [5.0, 6.0], n_releases=4, central=[9.0, 9.0])


@pytest.mark.parametrize(
    ("nodes", "multipliers", "n_releases", "words"),
    [
        ([0, 3], [1.0, 1.0], 1, "rows from 0 to 2, without repetition"),
        ([-1], [1.0], 1, "rows from 0 to 2, without repetition"),
        ([1, 1], [1.0, 1.0], 1, "rows from 0 to 2, without repetition, but are \\[1, 1\\]"),
        ([0, 1], [1.0], 1, "must have the same length"),
        ([0], [0.0], 1, "multipliers must be positive"),
        ([0], [np.inf], 1, "multipliers must be positive and finite"),
        ([0], [np.nan], 1, "multipliers must be positive and finite"),
        ([0], [1.0], 0, "n_releases must be a whole number of at least 1"),
        ([0], [1.0], 1.5, "n_releases must be a whole number of at least 1, but is 1.5"),
        ([0], [1.0], True, "n_releases must be a whole number of at least 1, but is True"),
        ([0.7], [1.0], 1, "nodes must be whole numbers"),
    ],
)
def test_what_cannot_be_entered_is_refused_and_leaves_the_ledger_alone(
    nodes, multipliers, n_releases, words
):
    ledger = Ledger(3)
    with pytest.raises(InvalidPrivacyError, match=words):
        ledger.spend(nodes, multipliers, n_releases)
    assert (ledger.epsilon(DELTA) == 0).all()
    assert ledger.latest is None


def test_the_sum_cannot_hide_a_node_less_than_its_own_noise():
    ledger = Ledger(3)
    words = "for node 2 it is 4.9, below 5"
    with pytest.raises(InvalidPrivacyError, match=words):
        ledger.spend([0, 2], [5.0, 5.0], central=[5.0, 4.9])
    state = filled().state()
    state["central"][1] = 0.1
    with pytest.raises(InvalidPrivacyError, match="must not be below a node's multiplier"):
        Ledger.from_state(state, 5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"neighbours": "replace_one"}, "'replace-one' or 'zero-out', but is 'replace_one'"),
        ({"neighbours": None}, "'replace-one' or 'zero-out'"),
        ({"sampling_rate": np.nan}, "sampling_rate must be"),
        ({"n_nodes": 2.5}, "n_nodes must be a whole number"),
    ],
)
def test_a_ledger_of_unknown_neighbours_is_not_opened(settings, words):
    with pytest.raises(InvalidPrivacyError, match=words):
        Ledger(**{"n_nodes": 5, **settings})


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
def test_central_multipliers_of_what_cannot_be_are_refused(place, wrong):
    columns = [np.ones(2), np.ones(2), np.ones(2)]
    columns[place] = np.array([1.0, wrong])
    with pytest.raises(InvalidPrivacyError, match="must be positive and finite"):
        central_multipliers(*columns)


def test_a_state_that_does_not_fit_is_refused():
    state = filled().state()
    with pytest.raises(InvalidPrivacyError, match="names node 3, but there are 2"):
        Ledger.from_state(state, 2)
    del state["central"]
    with pytest.raises(InvalidPrivacyError, match="must have columns node, multiplier, central"):
        Ledger.from_state(state, 5)


def test_events_without_their_library_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(MissingExtraError, match="need dp-accounting"):
        filled().event(0)
