"""Averages and their intervals, beside textbook values and an independent implementation."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fcfn_abm.report.estimates import (
    BOUNDS,
    POSITIVE,
    SHARE,
    average,
    average_paired,
    interval,
    is_skewed,
)

FINITE = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)


@given(FINITE)
def test_the_interval_of_a_mean_is_students(values):
    of = average(np.array(values))
    if np.std(values) > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (of.low, of.high) == (pytest.approx(low, rel=1e-6), pytest.approx(high, rel=1e-6))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_no_interval_of_a_share_leaves_its_bounds(values):
    of = average(np.array(values), SHARE)
    assert -1e-15 <= of.low <= of.mean <= of.high <= 1 + 1e-15


@pytest.mark.parametrize(
    ("n", "ranks"),
    # the tables of order statistics for 95 % (Conover 1999, table A3 of the binomial)
    [
        (6, (1, 6)),
        (8, (1, 8)),
        (9, (2, 8)),
        (10, (2, 9)),
        (15, (4, 12)),
        (20, (6, 15)),
        (25, (8, 18)),
    ],
)
def test_the_interval_of_a_median_has_the_ranks_of_the_tables(n, ranks):
    of = average(np.arange(1.0, n + 1))
    assert (of.median_low, of.median_high) == ranks


def test_five_values_give_no_interval_of_the_median():
    assert math.isnan(average(np.arange(5.0)).median_low)


def test_the_interval_of_a_median_covers_it_in_95_of_100_samples():
    rng = np.random.default_rng(3)
    found = [average(rng.lognormal(0, 2, 12)) for _ in range(2000)]
    covered = np.mean([of.median_low <= 1.0 <= of.median_high for of in found])
    assert 0.95 <= covered < 0.975  # the next narrower interval has 0.88


def test_skewed_and_infinite_values_are_described_by_their_median():
    rng = np.random.default_rng(3)
    assert is_skewed([average(rng.normal(size=30)), average(rng.lognormal(0, 2, 30))])
    assert not is_skewed([average(rng.normal(size=30)), average(np.full(30, 0.1))])
    assert is_skewed([average(np.array([1.0] * 9 + [math.inf]))])
    assert not is_skewed([average(np.array([1.0, 1.0, 9.0]))])  # three values show no skewness


def test_texts_show_where_an_interval_is_cut():
    shares = np.array([0.9, 0.95, 1.0])
    assert interval(average(shares)) == "0.95 ± 0.12"
    assert interval(average(shares, SHARE)) == "0.95 (0.83 to 1)"
    assert interval(average(np.array([1e-9, 3e-9]), POSITIVE)) == "2e-09 (0 to 1.5e-08)"
    assert interval(average(np.arange(1.0, 11)), as_median=True) == "5 (2 to 9)"
    assert interval(average(np.array([1.0, 3.0])), as_median=True) == "1"


def test_runs_of_one_replication_count_once():
    values = pd.Series([1.0, 3.0, 5.0, 7.0, np.nan])
    of = average_paired(values, pd.Series([0, 0, 1, 1, 1]))
    assert (of.mean, of.n) == (4.0, 2)
    assert of.half_width == pytest.approx(stats.t.ppf(0.975, 1) * np.sqrt(8) / np.sqrt(2))
    alone = average_paired(values, pd.Series([0] * 5))
    assert (alone.mean, alone.n) == (4.0, 1)
    assert math.isnan(alone.half_width)  # one replication gives no interval


def test_bounds_name_outcomes_of_the_tables():
    from fcfn_abm.records.tables import columns_of
    from fcfn_abm.report.compare import QUANTITIES

    known = {c.name for table in ("sweep", "rounds", "nodes") for c in columns_of(table)}
    assert set(BOUNDS) <= known | set(QUANTITIES)
