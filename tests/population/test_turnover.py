import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from fcfn_abm.population import RHO_DISTRIBUTIONS, draw_newcomer_costs, draw_turnover, drift_costs


def chain(n_places, arrivals, departures, n_rounds, seed=1):
    """Return how many nodes there are, round by round, and who is there in the end."""
    rng = np.random.default_rng(seed)
    present = np.ones(n_places, dtype=bool)
    counts = []
    for _ in range(n_rounds):
        arriving, departing = draw_turnover(present, arrivals, departures, rng)
        assert not present[arriving].any()
        assert present[departing].all()
        present[arriving], present[departing] = True, False
        counts.append(np.count_nonzero(present))
    return np.array(counts), present


@pytest.mark.parametrize(("arrivals", "departures"), [(0.3, 0.1), (1.0, 0.25), (0.05, 0.2)])
def test_in_the_long_run_the_number_of_nodes_is_binomial(arrivals, departures):
    n_places, n_rounds = 300, 6000
    counts = chain(n_places, arrivals, departures, n_rounds)[0][200:]
    share = arrivals / (arrivals + departures)
    variance = n_places * share * (1 - share)
    memory = 1 - arrivals - departures  # correlation of one round with the next
    error = np.sqrt(variance / counts.size * (1 + memory) / (1 - memory))
    assert abs(counts.mean() - n_places * share) < 4 * error
    assert_allclose(counts.var(), variance, rtol=0.15)
    lagged = np.corrcoef(counts[:-1], counts[1:])[0, 1]
    assert_allclose(lagged, memory, atol=0.06)


def test_a_full_market_empties_towards_that_at_the_rate_that_is_documented():
    n_places, arrivals, departures = 200_000, 0.02, 0.08
    counts, _ = chain(n_places, arrivals, departures, 20)
    share = arrivals / (arrivals + departures)
    expected = share + (1 - share) * (1 - arrivals - departures) ** np.arange(1, 21)
    assert_allclose(counts / n_places, expected, atol=5 * 0.5 / np.sqrt(n_places))


def test_nobody_comes_or_goes_where_nobody_may_and_everybody_where_all_must():
    rng = np.random.default_rng(0)
    present = np.array([True, False, True, False])
    for arrivals, departures in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        arriving, departing = draw_turnover(present, arrivals, departures, rng)
        assert_array_equal(arriving, [1, 3] if arrivals else [])
        assert_array_equal(departing, [0, 2] if departures else [])


def test_the_drift_of_a_cost_comes_to_the_variance_that_is_documented():
    rng, drift, reversion = np.random.default_rng(2), 0.05, 0.1
    deviation = np.zeros(40_000)
    for _ in range(100):
        before, deviation = deviation, drift_costs(deviation, drift, reversion, rng)
    variance = drift**2 / (1 - (1 - reversion) ** 2)
    assert_allclose(deviation.var(), variance, rtol=0.03)
    assert_allclose(np.corrcoef(before, deviation)[0, 1], 1 - reversion, atol=0.01)
    assert abs(np.median(deviation)) < 0.003  # the first cost stays the median
    assert stats.kstest(deviation / np.sqrt(variance), "norm").pvalue > 0.001


def test_without_reversion_a_cost_wanders_off():
    rng, deviation = np.random.default_rng(3), np.zeros(40_000)
    for _ in range(64):
        deviation = drift_costs(deviation, 0.05, 0.0, rng)
    assert_allclose(deviation.var(), 64 * 0.05**2, rtol=0.03)


def test_newcomers_follow_the_distribution_of_those_who_were_there_first():
    rng = np.random.default_rng(4)
    law = RHO_DISTRIBUTIONS.create("lognormal", {"median": 2.0, "sigma": 0.5})
    costs = np.concatenate([draw_newcomer_costs(law, 50, 3, rng) for _ in range(1000)])
    assert stats.kstest(np.log(costs / 2.0) / 0.5, "norm").pvalue > 0.001


def test_single_newcomers_follow_distributions_that_deal_exact_shares():
    rng = np.random.default_rng(5)
    law = RHO_DISTRIBUTIONS.create("two-group", {"low": 1.0, "high": 2.0, "share_high": 0.3})
    costly = [draw_newcomer_costs(law, 10, 1, rng).item() == 2.0 for _ in range(2000)]
    assert_allclose(np.mean(costly), 0.3, atol=4 * np.sqrt(0.21 / 2000))
    listed = RHO_DISTRIBUTIONS.create("listed", {"values": [1.0, 2.0, 4.0]})
    drawn = [draw_newcomer_costs(listed, 3, 2, rng) for _ in range(300)]
    assert all(len(set(pair)) == 2 for pair in drawn)  # of one population: none stands twice
    assert_allclose(
        np.bincount(np.concatenate(drawn).astype(int))[[1, 2, 4]] / 300, 2 / 3, atol=0.1
    )
    assert draw_newcomer_costs(law, 10, 0, rng).size == 0
