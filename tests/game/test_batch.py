from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import alphas, betas, positive

import fcfn_abm as fa
from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import nash_equilibrium, payments, stackelberg_equilibrium, welfare
from fcfn_abm.mechanisms import MECHANISMS

AVERAGES = ["active", "population", "effective"]
BATCHED = ["stackelberg", "random", "static"]


@st.composite
def populations(draw, max_nodes=60, scales=(-150, 150)):
    """Rows of costs: wild ones, close ones and ties, each row at a scale of its own."""
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, max_nodes)))
    kind = draw(st.sampled_from([positive, st.floats(0.9, 1.1), st.sampled_from([0.5, 1.0, 2.0])]))
    rho = draw(hnp.arrays(float, shape, elements=kind))
    powers = draw(hnp.arrays(int, shape[0], elements=st.integers(*scales)))
    return np.ldexp(rho, powers[:, None])


def assert_rows(together, alone):
    """Each field of what came of all rows at once holds what comes of each, bit for bit."""
    assert is_dataclass(together)
    for field in fields(together):
        ours = getattr(together, field.name)
        if isinstance(ours, str):  # the same for all: a name
            assert {getattr(one, field.name) for one in alone} == {ours}
            continue
        if ours is None:  # how the equilibrium was found, under other costs alone
            assert all(getattr(one, field.name) is None for one in alone)
            continue
        assert len(ours) == len(alone)
        for row, one in zip(ours, alone, strict=True):
            theirs = getattr(one, field.name)
            assert np.asarray(row).dtype.kind == np.asarray(theirs).dtype.kind, field.name
            np.testing.assert_array_equal(row, theirs, err_msg=field.name, strict=False)


@given(rho=populations(), data=st.data())
def test_equilibria_of_many_populations_are_those_of_each(rho, data):
    budgets = data.draw(hnp.arrays(float, len(rho), elements=st.one_of(st.just(0.0), positive)))
    assert_rows(
        nash_equilibrium(rho, budgets),
        [nash_equilibrium(row, budget) for row, budget in zip(rho, budgets, strict=True)],
    )
    assert_rows(nash_equilibrium(rho, 3.0), [nash_equilibrium(row, 3.0) for row in rho])


@pytest.mark.parametrize("average_over", AVERAGES)
@given(rho=populations(), alpha=alphas, beta=betas)
@settings(max_examples=40)
def test_leaders_of_many_populations_choose_what_each_chooses(average_over, rho, alpha, beta):
    assert_rows(
        stackelberg_equilibrium(rho, alpha, beta, average_over),
        [stackelberg_equilibrium(row, alpha, beta, average_over) for row in rho],
    )


def test_nodes_at_the_threshold_stay_out_of_every_population():
    # the third node costs what the two others do together, and any number of its kind
    rho = np.array(
        [[1.0, 1.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.5, 2.0, 9.0], [3.0, 3.0, 3.0, 3.0, 3.0]]
    )
    found = nash_equilibrium(rho, 1.0)
    assert found.n_active.tolist() == [2, 3, 5]
    assert found.tau.tolist() == [2.0, 3.5, 15.0]


def test_more_populations_than_are_worked_on_at_once_are_all_solved():
    rho = np.random.default_rng(5).lognormal(0, 0.5, (3000, 50))
    found = nash_equilibrium(rho, 2.0)
    for row in (0, 1, 326, 327, 328, 2999):
        assert found.epsilon[row].tolist() == nash_equilibrium(rho[row], 2.0).epsilon.tolist()


@pytest.mark.parametrize("order", ["C", "F"])
def test_how_a_table_lies_in_memory_changes_no_digit(order):
    rho = np.array(np.random.default_rng(5).lognormal(0, 0.5, (300, 200)), order=order)
    alone = [fa.price("stackelberg", row, alpha=3.0, beta=10.0) for row in rho]
    assert_rows(fa.price("stackelberg", rho, alpha=3.0, beta=10.0), alone)
    assert_rows(
        fa.price("stackelberg", rho[:, ::2], alpha=3.0, beta=10.0),
        [fa.price("stackelberg", row[::2], alpha=3.0, beta=10.0) for row in rho],
    )


@pytest.mark.parametrize("average_over", AVERAGES)
@pytest.mark.parametrize("budget", [None, 0.0, 5.0])
@pytest.mark.parametrize("mechanism", BATCHED)
def test_mechanisms_price_many_populations_as_they_price_each(mechanism, budget, average_over):
    rho = np.random.default_rng(1).lognormal(-2, 0.6, (40, 33))
    rho[3] *= 1e6  # no trade pays
    more = {"alpha": 2.0, "beta": 10.0, "budget": budget, "average_over": average_over}
    one_by_one = np.random.default_rng(8)
    assert_rows(
        fa.price(mechanism, rho, rng=8, **more),
        [fa.price(mechanism, row, rng=one_by_one, **more) for row in rho],
    )


@pytest.mark.parametrize("mechanism", [name for name in MECHANISMS if name not in BATCHED])
def test_mechanisms_without_a_form_for_tables_take_them_too(mechanism):
    rho = np.random.default_rng(1).uniform(0.1, 0.2, (3, 6))
    options = {"distribution": {"kind": "uniform", "low": 0.1, "high": 0.2}}
    more = options if "distribution" in MECHANISMS.options(mechanism) else {}
    budgets = np.array([1.0, 2.0, 3.0])
    chance = np.random.default_rng(8)
    alone = [
        fa.price(mechanism, row, alpha=2.0, beta=10.0, budget=budget, rng=chance, **more)
        for row, budget in zip(rho, budgets, strict=True)
    ]
    together = fa.price(mechanism, rho, alpha=2.0, beta=10.0, budget=budgets, rng=8, **more)
    assert_rows(together, alone)
    assert together.n_active.tolist() == [one.n_active for one in alone]


@given(rho=populations(scales=(-20, 20)), data=st.data())
@settings(max_examples=50)
def test_welfare_of_many_games_is_that_of_each(rho, data):
    epsilon = data.draw(hnp.arrays(float, rho.shape, elements=st.one_of(st.just(0.0), positive)))
    paid = payments(epsilon, 4.0)
    for average_over in AVERAGES:
        assert_rows(
            welfare(epsilon, rho, paid, 2.0, 10.0, average_over),
            [
                welfare(*rows, 2.0, 10.0, average_over)
                for rows in zip(epsilon, rho, paid, strict=True)
            ],
        )


def test_a_table_of_results_has_a_row_a_node_and_says_of_which_population():
    found = nash_equilibrium([[1.0, 1.0], [1.0, 3.0]], [4.0, 8.0])
    frame = found.to_frame()
    assert frame["population"].tolist() == [0, 0, 1, 1]
    assert frame["node"].tolist() == [0, 1, 0, 1]
    assert frame["epsilon"].tolist() == found.epsilon.ravel().tolist()
    assert "2 populations of 2 nodes" in repr(found)


@pytest.mark.parametrize(
    ("rho", "budget", "words"),
    [
        ([[1.0, 2.0], [3.0]], 1.0, "rho must have rows of equal length"),
        ([[1.0, 2.0], [3.0, -1.0]], 1.0, r"rho\[1, 1\] = -1 \(1 of 4 values\)"),
        ([[1.0, 2.0], [3.0, np.nan]], 1.0, r"rho\[1, 1\] = nan"),
        (np.ma.masked_greater([[1.0, 2.0], [3.0, 9.0]], 5.0), 1.0, r"rho\[1, 1\] is masked"),
        (np.ones((2, 2, 2)), 1.0, r"rho must have shape \(n,\), or \(k, n\).*\(2, 2, 2\)"),
        (np.ones((2, 3)), [1.0, 2.0, 3.0], r"budget must be one number, or 2: one per pop.*\(3,\)"),
        (np.ones((2, 3)), [[1.0], [2.0]], r"budget must be one number, or 2.*\(2, 1\)"),
        (np.ones((2, 3)), [1.0, -2.0], r"budget\[1\] = -2"),
        (np.full((2, 3), 1e-9), [1.0, 1e300], r"budget = 1e\+300 is too large for costs"),
    ],
)
def test_tables_that_are_not_right_are_refused(rho, budget, words):
    with pytest.raises(InvalidGameError, match=words):
        nash_equilibrium(rho, budget)


def test_pricing_refuses_tables_that_are_not_right():
    with pytest.raises(
        InvalidGameError, match=r"reported_cost must have the shape of rho, \(2, 3\)"
    ):
        fa.price("vcg", np.ones((2, 3)), alpha=1.0, beta=1.0, reported_cost=np.ones(3))
    with pytest.raises(InvalidGameError, match="rho must contain at least one population"):
        fa.price("static", np.ones((0, 3)), alpha=1.0, beta=1.0)
