import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.population import RHO_DISTRIBUTIONS, draw_rho
from fcfn_abm.registry import OptionError
from fcfn_abm.rng import stream

OPTIONS = {"listed": {"values": [0.5] * 40}}


def draw(kind, n_nodes=40, seed=3, **options):
    law = RHO_DISTRIBUTIONS.create(kind, options)
    return draw_rho(law, n_nodes, stream(seed, "costs"), np.linspace(0, 1, n_nodes))


@pytest.mark.parametrize("kind", sorted({*RHO_DISTRIBUTIONS} - {"csv"}))  # read from a file
def test_every_distribution_gives_positive_costs_and_the_same_again(kind):
    options = OPTIONS.get(kind, {})
    rho = draw(kind, **options)
    assert rho.shape == (40,)
    assert (rho > 0).all()
    assert_allclose(draw(kind, **options), rho, rtol=0)


@pytest.mark.parametrize(
    ("kind", "options", "law"),
    [
        ("uniform", {"low": 0.5, "high": 1.5}, stats.uniform(0.5, 1.0)),
        ("lognormal", {"median": 2.0, "sigma": 0.7}, stats.lognorm(0.7, scale=2.0)),
        ("pareto", {"minimum": 0.3, "exponent": 1.5}, stats.pareto(1.5, scale=0.3)),
    ],
)
def test_draws_follow_their_distribution(kind, options, law):
    rho = draw(kind, n_nodes=20_000, **options)
    assert stats.kstest(rho, law.cdf).pvalue > 1e-4


def test_shares_are_exact():
    rho = draw("two-group", n_nodes=50, low=1.0, high=3.0, share_high=0.3)
    assert np.count_nonzero(rho == 3.0) == 15
    assert np.count_nonzero(rho == 1.0) == 35
    plain = draw("outliers", n_nodes=50, sigma=0.1, share=0.0)
    few = draw("outliers", n_nodes=50, sigma=0.1, share=0.1, factor=100.0)
    assert np.count_nonzero(few != plain) == 5
    assert_allclose(few[few != plain], 100.0 * plain[few != plain])


def test_a_list_must_have_as_many_costs_as_there_are_nodes():
    with pytest.raises(InvalidGameError, match=r"has 3 costs, but population.n_nodes = 4"):
        draw("listed", n_nodes=4, values=[1.0, 2.0, 3.0])


@pytest.mark.parametrize("bad", [-1.0, 0.0, float("nan"), float("inf")])
def test_costs_must_be_positive_numbers(bad):
    with pytest.raises(OptionError, match=r"values\.1"):
        RHO_DISTRIBUTIONS.create("listed", {"values": [1.0, bad]})


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(OptionError, match="low must not exceed high"):
        RHO_DISTRIBUTIONS.create("uniform", {"low": 2.0, "high": 1.0})


def test_costs_rise_with_the_divergence_of_the_data_and_only_with_it():
    far = np.array([0.0, 0.25, 1.0])
    law = RHO_DISTRIBUTIONS.create("divergence", {"rho0": 2.0, "coupling": 3.0})
    rho = draw_rho(law, 3, stream(3, "costs"), far)
    assert_allclose(rho, [2.0, 3.5, 8.0])
    alike = RHO_DISTRIBUTIONS.create("divergence", {"rho0": 2.0, "coupling": 0.0})
    assert_allclose(draw_rho(alike, 3, stream(3, "costs"), far), 2.0, rtol=0)
    with pytest.raises(OptionError, match="coupling"):
        RHO_DISTRIBUTIONS.create("divergence", {"coupling": -1.0})
    with pytest.raises(InvalidGameError, match="depends on the nodes' training data"):
        draw_rho(law, 3, stream(3, "costs"))
    with pytest.raises(InvalidGameError, match=r"has 3 costs, but population.n_nodes = 4"):
        draw_rho(law, 4, stream(3, "costs"), far)
