"""Churn: random arrivals and departures of nodes between rounds, and drift of their costs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.population.distributions import Floats, RhoDistribution, draw_rho
from fcfn_abm.rng import Chance, as_generator

type Places = npt.NDArray[np.intp]


def draw_turnover(
    present: npt.NDArray[np.bool_], arrivals: float, departures: float, rng: Chance
) -> tuple[Places, Places]:
    """Draw arrivals and departures of a round.

    Parameters
    ----------
    present : ndarray of bool, shape (n_places,)
        Which places hold a node.
    arrivals : float
        Probability that an empty place is taken, from 0 to 1.
    departures : float
        Probability that a node departs, from 0 to 1.
    rng : Generator, BitGenerator, SeedSequence, int or list of int
        Source of randomness; the number of draws does not depend on the probabilities.

    Returns
    -------
    arriving, departing : ndarray of int
        Places, ascending.

    Notes
    -----
    Each place is an independent Markov chain. In the long run it holds a node with probability
    ``arrivals / (arrivals + departures)``, so that the number of nodes is binomial, and the
    influence of the initial state decays like ``(1 - arrivals - departures)**t``.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> draw_turnover(np.array([True, False, True]), arrivals=1.0, departures=0.0, rng=rng)
    (array([1]), array([], dtype=int64))
    """
    changing = as_generator(rng).random(present.size) < np.where(present, departures, arrivals)
    return np.flatnonzero(changing & ~present), np.flatnonzero(changing & present)


def draw_newcomer_costs(
    distribution: RhoDistribution, n_places: int, n_new: int, rng: Chance
) -> Floats:
    """Draw the unit privacy costs of newcomers, in currency per unit of epsilon, shape (n_new,).

    They are sampled from a new population of ``n_places`` nodes, because distributions with exact
    shares, or with listed costs, describe a population and not a single node.
    """
    if n_new == 0:
        return np.empty(0)
    chance = as_generator(rng)
    fresh = draw_rho(distribution, n_places, chance)
    return chance.choice(fresh, n_new, replace=False, shuffle=False)


def drift_costs(deviation: Floats, drift: float, reversion: float, rng: Chance) -> Floats:
    """Apply one round of drift to the logarithms of costs.

    Parameters
    ----------
    deviation : ndarray of float, shape (n,)
        ln(rho) of each node, minus its initial value.
    drift : float
        Standard deviation of the random change.
    reversion : float
        Share of the deviation that is removed, from 0 to 1.
    rng : Generator, BitGenerator, SeedSequence, int or list of int
        Source of randomness.

    Returns
    -------
    ndarray of float, shape (n,)
        The new deviation.

    Notes
    -----
    An autoregression around each node's initial cost, which stays its median. The variance of the
    deviation tends to ``drift**2 / (1 - (1 - reversion)**2)``, and grows without bound if
    ``reversion`` is zero. It adds to the variance of the distribution of rho.

    Examples
    --------
    >>> drift_costs(np.array([0.4]), drift=0.0, reversion=0.25, rng=np.random.default_rng(1))
    array([0.3])
    """
    return (1.0 - reversion) * deviation + drift * as_generator(rng).standard_normal(deviation.size)
