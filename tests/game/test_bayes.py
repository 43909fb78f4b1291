"""The contest with private costs, against worked numbers, full information and chance."""

from __future__ import annotations

import numpy as np
import pytest

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import nash_equilibrium
from fcfn_abm.game.bayes import bayes_nash_equilibrium

TYPES, CHANCES = [0.5, 1.0, 3.0], [0.3, 0.4, 0.3]


@pytest.mark.parametrize(("n", "total"), [(2, 0.449), (3, 0.665), (4, 0.825)])
def test_the_worked_numbers_are_met(n, total):
    assert bayes_nash_equilibrium(TYPES, CHANCES, n, 1.0).expected_total == pytest.approx(
        total, abs=5e-4
    )


@pytest.mark.parametrize(("n", "total"), [(2, 0.456), (3, 0.661), (4, 0.807)])
def test_full_information_gives_the_other_worked_numbers(n, total):
    mean = 0.0
    for kinds in np.ndindex(*[3] * n):
        some = list(kinds)
        weight = np.prod(np.array(CHANCES)[some])
        mean += weight * nash_equilibrium(np.array(TYPES)[some], 1.0).total_epsilon
    assert mean == pytest.approx(total, abs=5e-4)


def test_one_type_is_the_equilibrium_of_equal_nodes():
    game = bayes_nash_equilibrium([0.7], [1.0], 5, 3.0)
    assert game.epsilon == pytest.approx(nash_equilibrium(np.full(5, 0.7), 3.0).epsilon[:1])
    assert game.regret <= 1e-12


def test_no_other_report_expects_more_in_drawn_populations():
    game = bayes_nash_equilibrium(TYPES, CHANCES, 4, 2.0)
    assert game.regret <= 1e-12
    rng = np.random.default_rng(1)
    others = game.epsilon[rng.choice(3, size=(200_000, 3), p=CHANCES)].sum(1)
    for rho, own, expected in zip(TYPES, game.epsilon, game.utility, strict=True):

        def earn(epsilon, rho=rho):
            return (2.0 * epsilon / (epsilon + others)).mean() - rho * epsilon

        assert earn(own) == pytest.approx(expected, abs=0.005)
        assert max(earn(own * factor) for factor in (0.0, 0.5, 0.9, 1.1, 2.0)) <= earn(own) + 1e-3


def test_it_is_linear_in_the_budget_over_cost():
    one = bayes_nash_equilibrium(TYPES, CHANCES, 3, 1.0).epsilon
    other = bayes_nash_equilibrium([5.0, 10.0, 30.0], CHANCES, 3, 7.0).epsilon
    assert other == pytest.approx(0.7 * one, rel=1e-10)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"types": [1.0, 1.0]}, "distinct"),
        ({"probabilities": [0.5, 0.4]}, "sum one"),
        ({"n_nodes": 1}, "a whole number from 2 to"),
        ({"n_nodes": 2.5}, "whole number"),
        ({"types": [1.0, 2.0, 3.0]}, "the same shape"),
        ({"budget": 0.0}, "budget must be positive"),
        (
            {"types": list(range(1, 31)), "probabilities": [1 / 30] * 30, "n_nodes": 20},
            "combinations of types",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(changes, words):
    given = {"types": [1.0, 2.0], "probabilities": [0.5, 0.5], "n_nodes": 3, "budget": 1.0}
    with pytest.raises(InvalidGameError, match=words):
        bayes_nash_equilibrium(**{**given, **changes})
