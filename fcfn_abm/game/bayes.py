"""The contest of nodes that know only the distribution of each other's costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, as_count, as_floats, as_number, require_positive
from fcfn_abm.game.exact import Floats
from fcfn_abm.show import Shown

_MOST_CASES = 200_000
_STEPS = 500
_ACCURACY = 1e-13


@dataclass(frozen=True, repr=False)
class BayesNashEquilibrium(Shown):
    """The epsilon that each type of node sells; no type gains by selling another epsilon."""

    types: Floats
    """Unit privacy costs of the types, in currency, shape (k,)."""
    probabilities: Floats
    """Probability of each type, shape (k,)."""
    epsilon: Floats
    """Epsilon that a node of each type sells, shape (k,)."""
    utility: Floats
    """Expected utility of each type, in currency, shape (k,)."""
    n_nodes: int
    """Number of nodes that share the budget."""
    budget: float
    """Payment cap B, in currency."""
    expected_total: float
    """The mean of S, the sum of all epsilon."""
    regret: float
    """Largest expected gain of a type by selling another epsilon, as a share of the budget."""

    def reply(self, rho: npt.ArrayLike) -> Floats:
        """Return the best response of nodes with these costs, if all others play the equilibrium.

        Parameters
        ----------
        rho : array_like of float, shape (n,)
            Unit privacy costs, in currency; positive. For the cost of a type, its equilibrium
            epsilon.

        Returns
        -------
        ndarray of float, shape (n,)
            Epsilon; zero for a node whose cost is so high that it stays out.

        Raises
        ------
        InvalidGameError
            If a cost is not positive and finite.
        """
        rho = as_floats("rho", rho)
        require_positive(rho=rho)
        cheapest = self.types.min()
        counts = _counts(self.n_nodes - 1, self.types.size)
        chance = _chances(counts, self.probabilities / self.probabilities.sum())
        others = counts @ (self.epsilon * (cheapest / self.budget))
        different, places = np.unique(rho, return_inverse=True)
        best = np.array([_best(cost / cheapest, others, chance) for cost in different])
        return np.asarray(best[places] * (self.budget / cheapest))

    def _describe(self) -> tuple[str, Mapping[str, object]]:
        return type(self).__name__, {
            "types": self.types.size,
            "nodes": self.n_nodes,
            "expected total epsilon E[S]": self.expected_total,
            "epsilon of the lowest and the highest cost": (
                f"{self.epsilon[self.types.argmin()]:.6g} and "
                f"{self.epsilon[self.types.argmax()]:.6g}"
            ),
            "regret / B": self.regret,
        }


def bayes_nash_equilibrium(
    types: npt.ArrayLike, probabilities: npt.ArrayLike, n_nodes: int, budget: float
) -> BayesNashEquilibrium:
    """Solve the contest in which each node knows its own cost and the distribution of the others'.

    Parameters
    ----------
    types : array_like of float, shape (k,)
        Possible unit privacy costs of a node, in currency; positive and distinct.
    probabilities : array_like of float, shape (k,)
        Probability of each of them, independent across nodes; positive, with sum one.
    n_nodes : int
        Number of nodes that share the budget; at least two.
    budget : float
        Payment cap B of a round, in currency; positive.

    Returns
    -------
    BayesNashEquilibrium
        The symmetric equilibrium in pure strategies: all nodes of one type sell the same epsilon.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or there are more than 200,000 combinations of the other
        nodes' types.

    Notes
    -----
    The epsilon e of a type with cost rho solves ``E[B s / (e + s)**2] = rho``, the mean over the
    others' total s: multinomial counts of n - 1 nodes. Every type sells something: if all others
    might report zero, the smallest epsilon would win the budget. Half steps towards the best
    response, for one type after another, converge; the regret is that of a global best response,
    because the expected utility is concave in e.

    References
    ----------
    Fey 2008, "Rent-seeking contests with incomplete information"; Ewerhart 2014 for uniqueness.

    Examples
    --------
    >>> game = bayes_nash_equilibrium([0.5, 1.0, 3.0], [0.3, 0.4, 0.3], n_nodes=2, budget=1.0)
    >>> round(game.expected_total, 3)
    0.449
    """
    types, probabilities = as_floats("types", types), as_floats("probabilities", probabilities)
    budget, n_nodes = as_number("budget", budget), as_count("n_nodes", n_nodes, least=2, most=2**53)
    require_positive(types=types, probabilities=probabilities, budget=budget)
    if types.ndim != 1 or types.shape != probabilities.shape or types.size == 0:
        raise InvalidGameError(
            f"types and probabilities must have the same shape (k,), but have {types.shape} and "
            f"{probabilities.shape}."
        )
    if np.unique(types).size != types.size:
        raise InvalidGameError("types must be distinct; merge equal types into one.")
    if abs(probabilities.sum() - 1.0) > 1e-9:
        raise InvalidGameError(
            f"probabilities must have the sum one, but sum to {probabilities.sum():.9g}."
        )
    require_few_cases(n_nodes, types.size)
    counts = _counts(n_nodes - 1, types.size)
    chance = _chances(counts, probabilities / probabilities.sum())
    scale = budget / float(types.min())
    rho = types / types.min()  # in units of the lowest cost, with a budget of one
    epsilon = _solve(rho, counts, chance)
    utility = np.array(
        [_expects(e, rho[k], counts @ epsilon, chance) for k, e in enumerate(epsilon)]
    )
    best = [_best(rho[k], counts @ epsilon, chance) for k in range(rho.size)]
    gain = [_expects(e, rho[k], counts @ epsilon, chance) - utility[k] for k, e in enumerate(best)]
    return BayesNashEquilibrium(
        types=types,
        probabilities=probabilities,
        epsilon=epsilon * scale,
        utility=utility * budget,
        n_nodes=n_nodes,
        budget=budget,
        expected_total=float(n_nodes * (probabilities @ epsilon)) * scale,
        regret=max(0.0, *gain),
    )


def count_cases(n_nodes: int, n_types: int) -> int:
    """Return the number of combinations of the other nodes' types."""
    return comb(n_nodes - 2 + n_types, n_types - 1)


def require_few_cases(n_nodes: int, n_types: int) -> None:
    """Raise InvalidGameError if there are too many combinations of the other nodes' types."""
    n_cases = count_cases(n_nodes, n_types)
    if n_cases > _MOST_CASES:
        raise InvalidGameError(
            f"{n_nodes} nodes of {n_types} types have {n_cases:,} combinations of types, but "
            f"at most {_MOST_CASES:,} are allowed: use fewer types or nodes."
        )


def _counts(n_others: int, n_types: int) -> Floats:
    """Return the possible counts of the others' types, one row per combination."""
    if n_types == 1:
        return np.array([[float(n_others)]])
    rows = []
    for first in range(n_others + 1):
        rest = _counts(n_others - first, n_types - 1)
        rows.append(np.column_stack([np.full(len(rest), float(first)), rest]))
    return np.vstack(rows)


def _chances(counts: Floats, probabilities: Floats) -> Floats:
    """Return the multinomial probability of each row."""
    from scipy.special import gammaln, xlogy  # slow to import

    log = gammaln(counts[0].sum() + 1.0) - gammaln(counts + 1.0).sum(1)
    return np.asarray(np.exp(log + xlogy(counts, probabilities).sum(1)))


def _solve(rho: Floats, counts: Floats, chance: Floats) -> Floats:
    """Return the equilibrium, by half steps in turn, in logarithms."""
    n_nodes = counts[0].sum() + 1.0
    epsilon = (n_nodes - 1.0) / n_nodes**2 / rho
    for _ in range(_STEPS):
        moved = 0.0
        for k in range(rho.size):
            best = _best(rho[k], counts @ epsilon, chance)
            moved = max(moved, abs(best / epsilon[k] - 1.0))
            # if the others sell too much for this type, it sells half; never zero, as explained
            # above
            epsilon[k] = np.sqrt(epsilon[k] * best) if best > 0 else epsilon[k] / 2.0
        if moved < _ACCURACY:
            break
    return np.asarray(epsilon)


def _best(rho: float, others: Floats, chance: Floats) -> float:
    """Return the epsilon whose expected marginal payment equals its cost; zero if there is none."""
    from scipy.optimize import brentq

    def excess(log_epsilon: float) -> float:
        return float(chance @ (others / (np.exp(log_epsilon) + others) ** 2)) - rho

    if float(chance @ (1.0 / others)) <= rho:
        return 0.0
    high = float(np.log(1.0 / rho))  # a node never spends more than the budget
    low = high - 1.0
    while excess(low) < 0:
        low -= 4.0
    return float(np.exp(brentq(excess, low, high, xtol=1e-15, rtol=1e-14)))


def _expects(epsilon: float, rho: float, others: Floats, chance: Floats) -> float:
    return float(chance @ (epsilon / (epsilon + others))) - rho * epsilon
