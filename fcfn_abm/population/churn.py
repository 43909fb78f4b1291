"""Nodes that come and go, and costs that drift: what chance does between two rounds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.population.distributions import Floats, RhoDistribution, draw_rho
from fcfn_abm.rng import Chance, as_generator

type Places = npt.NDArray[np.intp]


def draw_turnover(
    present: npt.NDArray[np.bool_], arrivals: float, departures: float, rng: Chance
) -> tuple[Places, Places]:
    """Draw who arrives in a round, and who goes away.

    Parameters
    ----------
    present : ndarray of bool, shape (n_places,)
        Which places hold a node.
    arrivals : float
        Probability with which an empty place is taken, from 0 to 1.
    departures : float
        Probability with which a node goes away, from 0 to 1.
    rng : Generator, BitGenerator, SeedSequence, int or list of int
        Source of chance; as many numbers are drawn whatever the probabilities.

    Returns
    -------
    arriving, departing : ndarray of int
        Places, ascending.

    Notes
    -----
    Each place is a Markov chain of its own. In the long run it holds a node with probability
    ``arrivals / (arrivals + departures)``, so that the number of nodes is binomial, and what it
    was at first fades like ``(1 - arrivals - departures)**t``.

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

    They are some of a fresh population of ``n_places`` nodes: distributions with exact shares, or
    with listed costs, describe a population, and not one node.
    """
    if n_new == 0:
        return np.empty(0)
    chance = as_generator(rng)
    fresh = draw_rho(distribution, n_places, chance)
    return chance.choice(fresh, n_new, replace=False, shuffle=False)


def drift_costs(deviation: Floats, drift: float, reversion: float, rng: Chance) -> Floats:
    """Let the logarithms of costs drift for one round.

    Parameters
    ----------
    deviation : ndarray of float, shape (n,)
        ln(rho) of each node, less what it was at first.
    drift : float
        Standard deviation of what chance adds.
    reversion : float
        Share of the deviation that is made up for, from 0 to 1.
    rng : Generator, BitGenerator, SeedSequence, int or list of int
        Source of chance.

    Returns
    -------
    ndarray of float, shape (n,)
        The new deviation.

    Notes
    -----
    An autoregression around each node's own first cost, which stays its median. The variance of
    the deviation tends to ``drift**2 / (1 - (1 - reversion)**2)``, and grows for ever where
    ``reversion`` is zero. It comes on top of that of the distribution of rho.

    Examples
    --------
    >>> drift_costs(np.array([0.4]), drift=0.0, reversion=0.25, rng=np.random.default_rng(1))
    array([0.3])
    """
    return (1.0 - reversion) * deviation + drift * as_generator(rng).standard_normal(deviation.size)
