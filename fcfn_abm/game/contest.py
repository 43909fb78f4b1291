"""Equilibria of the contest with non-linear costs, caps on epsilon, or a fixed cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, as_floats, as_number, require_positive, require_type
from fcfn_abm.game.costs import Terms, reply_under, utilities
from fcfn_abm.game.equilibrium import as_population, nash_equilibrium
from fcfn_abm.game.exact import Floats
from fcfn_abm.show import Shown

type Members = npt.NDArray[np.bool_]

TOLERANCE = 1e-10
"""Largest regret, as a share of the budget, at which a profile counts as an equilibrium."""
_FEW = 8  # largest number of nodes for which every set is tried
_MANY = 60  # largest number of nodes for which runs by cost and best responses are tried
_RUNS = 10  # number of starts of such runs, per length
_ROUNDS = 60


@dataclass(frozen=True, repr=False)
class ContestEquilibrium(Shown):
    """A profile from which no node gains by moving alone, and other equilibria that were found."""

    epsilon: Floats
    """Privacy budgets, dimensionless, shape (n,); all zero if none was found."""
    active: Members
    """Which nodes take part, shape (n,)."""
    n_active: int
    """Number of nodes that take part."""
    total_epsilon: float
    """S, the sum of all epsilon."""
    utility: Floats
    """Utilities of the nodes, in currency, shape (n,)."""
    rho: Floats
    """Costs for which it was solved, shape (n,)."""
    regret: float
    """Largest gain of a node by moving alone, as a share of the budget."""
    status: Literal["solved", "no-trade", "none-found"]
    """``none-found``: the search found no equilibrium, and there may be none."""
    unique: bool | None
    """True if proven, False if others were found, None if unknown."""
    method: str
    """The method that found it."""
    others: tuple[Floats, ...] = ()
    """Epsilon of further equilibria, each of shape (n,); those with more nodes first."""

    def _describe(self) -> tuple[str, Mapping[str, object]]:
        known = {True: "yes", False: f"no: {len(self.others)} others were found", None: "not known"}
        return type(self).__name__, {
            "nodes that take part": f"{self.n_active:,} of {self.epsilon.size:,}",
            "total epsilon S": self.total_epsilon,
            "utility of all nodes": float(self.utility.sum()),
            "status": self.status,
            "found by": self.method,
            "regret / B": self.regret,
            "unique": known[self.unique],
        }


def contest_equilibrium(
    rho: npt.ArrayLike, budget: float, terms: Terms | None = None
) -> ContestEquilibrium:
    """Solve the contest under any terms: form of the cost, caps, fixed cost, reserve.

    Node ``i`` earns ``budget * epsilon[i] / epsilon.sum() - rho[i] k(epsilon[i]) - fixed_cost``.

    Parameters
    ----------
    rho : array_like of float, shape (n,)
        Costs of a unit of k, in currency; positive.
    budget : float
        Payment cap B of a round, in currency; zero or positive.
    terms : Terms, optional
        By default the game of the paper.

    Returns
    -------
    ContestEquilibrium
        With convex costs, no fixed cost and no reserve, the only equilibrium. Otherwise, of those
        found, the one in which most nodes take part, with the others in ``others``; ``unique``
        states what is known.

    Raises
    ------
    InvalidGameError
        If ``rho`` is not one-dimensional, or a number is outside its range.

    Notes
    -----
    *Convex costs, no fixed cost, no reserve.* At a total S, a node sells the x that solves ``B (S -
    x) / S**2 = rho k'(x)``, clipped. The shares x / S fall with S, and the equilibrium is where
    they sum to one (Szidarovszky and Okuguchi 1997; Cornes and Hartley 2005).

    *Fixed cost or reserve.* For a given set of participants, the same root, with x clipped to the
    reserve from below; the profile counts if no participant gains by leaving and no other node by
    entering. With at most 8 nodes all sets are tried; with at most 60 nodes, those that are
    contiguous in the order of costs (for each length, the ten with the lowest costs); with more
    nodes, those that remain when the nodes that lose most leave one by one. With linear costs and
    no cap or reserve all prefixes are tried at any size.

    *sqrt.* Best responses in turn from several starts. Two unequal nodes without caps have no
    equilibrium: each sells only if it gets half of the budget or more.

    In all cases the regret is computed from global best responses.

    References
    ----------
    Zhou et al. 2023, eq. 6, for the game without terms.

    Examples
    --------
    >>> contest_equilibrium([1.0, 1.0], 4.0, Terms("power")).epsilon.round(6)
    array([0.707107, 0.707107])
    >>> costs = [0.5627, 0.6645, 0.8167, 0.8751, 1.3255]
    >>> contest_equilibrium(costs, 1.0, Terms(fixed_cost=0.2105)).active.tolist()
    [False, False, True, True, False]
    """
    terms = Terms() if terms is None else terms
    require_type(Terms, terms=terms)
    rho, budget = as_population(rho), as_number("budget", budget)
    plain = nash_equilibrium(rho, budget)  # checks both
    caps = terms.caps(rho.size)
    nobody = np.zeros_like(rho)
    if rho.size < 2 or budget == 0:
        return _result(nobody, rho, budget, terms, "no-trade", unique=True, method="no market")
    if terms.is_paper:
        return _result(plain.epsilon, rho, budget, terms, unique=True, method="closed form")
    if terms.has_one_equilibrium:
        epsilon = _rest(rho, budget, terms, caps)
        return _result(epsilon, rho, budget, terms, unique=True, method="root of the shares' sum")
    found: list[Floats] = []
    for epsilon in _candidates(rho, budget, terms, caps):
        known = any(np.allclose(epsilon, one, rtol=1e-7, atol=0.0) for one in found)
        if not known and contest_regret(epsilon, rho, budget, terms) <= TOLERANCE:
            found.append(epsilon)
    method = "best responses" if not terms.form.is_convex else "sets of nodes, and best responses"
    if not found:
        return _result(nobody, rho, budget, terms, "none-found", unique=None, method=method)
    found.sort(key=lambda one: (-np.count_nonzero(one), rho[one > 0].sum()))
    unique = False if len(found) > 1 else None
    return _result(
        found[0], rho, budget, terms, unique=unique, method=method, others=tuple(found[1:])
    )


def find_equilibrium(rho: Floats, budget: float, terms: Terms) -> ContestEquilibrium:
    """Return an equilibrium of a contest by a short search, without checks and alternatives.

    If uniqueness is proven it is that of :func:`contest_equilibrium`. Otherwise the search tries
    the prefixes by cost (with linear costs) and the nodes that remain when those that lose most
    leave; if the cost is not convex, it iterates simultaneous best responses from the largest
    epsilon that nodes can sell. If none of these is an equilibrium, nobody takes part;
    ``contest_equilibrium`` searches further.
    """
    if terms.has_one_equilibrium or rho.size < 2 or budget <= 0:
        return contest_equilibrium(rho, budget, terms)
    method = "a short search"
    for epsilon in _first_candidates(rho, budget, terms, terms.caps(rho.size)):
        if contest_regret(epsilon, rho, budget, terms) <= TOLERANCE:
            return _result(epsilon, rho, budget, terms, unique=None, method=method)
    nobody = np.zeros_like(rho)
    return _result(nobody, rho, budget, terms, "none-found", unique=None, method=method)


def _first_candidates(rho: Floats, budget: float, terms: Terms, caps: Floats) -> Iterator[Floats]:
    """Yield a few profiles that may be equilibria."""
    if not terms.form.is_convex:
        epsilon = np.minimum(caps, budget / rho)
        for _ in range(_ROUNDS):
            before = epsilon
            epsilon = reply_under(rho, _others(before), budget, terms, caps)
            if np.allclose(epsilon, before, rtol=1e-13, atol=0.0):
                yield epsilon
                return
        return
    order = np.argsort(rho, kind="stable")
    sets = [_drop_losers(rho, budget, terms, caps, order)]
    if terms.cost == "linear" and terms.reserve == 0 and not terms.has_caps:
        sets.insert(0, _prefixes(rho, budget, terms, order))
    for members in chain(*sets):
        epsilon = np.zeros_like(rho)
        epsilon[members] = _rest(rho[members], budget, terms, caps[members])
        yield epsilon


def contest_regret(
    epsilon: npt.ArrayLike, rho: npt.ArrayLike, budget: float, terms: Terms
) -> float:
    """Return the largest gain of a node by moving alone, as a share of the budget.

    Parameters
    ----------
    epsilon, rho : array_like of float, shape (n,)
        Privacy budgets, and costs of a unit of k in currency.
    budget : float
        Payment cap B, in currency; positive.
    terms : Terms
        Form of the cost, caps, fixed cost, reserve.

    Returns
    -------
    float
        Zero at an equilibrium. The best response is the global one.

    Raises
    ------
    InvalidGameError
        If a number is outside its range, or the shapes differ.
    """
    require_type(Terms, terms=terms)
    epsilon, rho = as_floats("epsilon", epsilon), as_floats("rho", rho)
    budget = as_number("budget", budget)
    require_positive(rho=rho, budget=budget)
    require_positive(zero=True, epsilon=epsilon)
    if epsilon.ndim != 1 or epsilon.shape != rho.shape:
        raise InvalidGameError(
            f"epsilon and rho must have one shape (n,), but have {epsilon.shape} and {rho.shape}."
        )
    if epsilon.size == 0:
        return 0.0
    others = _others(epsilon)
    reply = reply_under(rho, others, budget, terms, terms.caps(rho.size))
    best = utilities(reply, rho, others, budget, terms)
    now = utilities(epsilon, rho, others, budget, terms)
    return max(0.0, float((best - now).max()) / budget)


def _others(epsilon: Floats) -> Floats:
    """Return the sum of all other reports; exactly zero for a single report."""
    if np.count_nonzero(epsilon) == 1:
        return np.where(epsilon > 0, 0.0, epsilon.sum())
    return np.maximum(epsilon.sum() - epsilon, 0.0)


def _result(
    epsilon: Floats,
    rho: Floats,
    budget: float,
    terms: Terms,
    status: Literal["solved", "no-trade", "none-found"] = "solved",
    *,
    unique: bool | None,
    method: str,
    others: tuple[Floats, ...] = (),
) -> ContestEquilibrium:
    active = epsilon > 0
    there = status == "solved"
    return ContestEquilibrium(
        epsilon=epsilon,
        active=active,
        n_active=int(np.count_nonzero(active)),
        total_epsilon=float(epsilon.sum()),
        utility=utilities(epsilon, rho, _others(epsilon), budget, terms),
        rho=rho,
        regret=contest_regret(epsilon, rho, budget, terms) if there else 0.0,
        status=status,
        unique=unique,
        method=method,
        others=others,
    )


def _rest(rho: Floats, budget: float, terms: Terms, caps: Floats) -> Floats:
    """Return the profile of mutual best responses, with epsilon between the reserve and its cap.

    The total lies between a value so small that two nodes would each have all of it, and one at
    which the lowest-cost node would pay the whole budget.
    """
    from scipy.optimize import brentq  # slow to import

    share = terms.form.share
    if share is None:
        raise InvalidGameError(f"cost {terms.cost!r} is not convex, so that shares are not unique.")

    def sell_at(log_total: float) -> Floats:
        total = np.exp(log_total)
        own = total * share(rho / budget * total, total)
        return np.asarray(np.minimum(np.maximum(own, terms.reserve), caps))

    def excess(log_total: float) -> float:
        return float(sell_at(log_total).sum() / np.exp(log_total)) - 1.0

    low = high = np.log(budget) - np.log(rho.min())
    while excess(low) < 0:
        low -= 2.0
    while excess(high) > 0:
        high += 2.0
    root = low if low == high else brentq(excess, low, high, xtol=1e-15, rtol=1e-15)
    return _refine(sell_at(float(root)), rho, budget, terms, caps)


def _refine(epsilon: Floats, rho: Floats, budget: float, terms: Terms, caps: Floats) -> Floats:
    """Return the closed form of linear costs for given sets of nodes: at the cap, inside, at zero.

    ``tau S**2 / B - (n - 1) S - E = 0`` with n and tau of the nodes inside, and E sold by the
    others.
    """
    inside = (epsilon > terms.reserve) & (epsilon < caps)
    n_inside = np.count_nonzero(inside)
    if terms.cost != "linear" or n_inside == 0:
        return epsilon
    fixed = float(epsilon[~inside].sum())
    slope, lead = float(rho[inside].sum()) / budget, n_inside - 1.0
    total = (lead + np.sqrt(lead**2 + 4.0 * slope * fixed)) / (2.0 * slope)
    own = total * (1.0 - rho / budget * total)
    return np.where(inside, np.clip(own, terms.reserve, caps), epsilon)


def _candidates(rho: Floats, budget: float, terms: Terms, caps: Floats) -> Iterator[Floats]:
    """Yield profiles that may be equilibria."""
    if terms.form.is_convex:
        for members in _sets(rho, budget, terms, caps):
            epsilon = np.zeros_like(rho)
            epsilon[members] = _rest(rho[members], budget, terms, caps[members])
            yield epsilon
    order = np.argsort(rho, kind="stable")
    starts = [np.zeros_like(rho), np.minimum(caps, budget / rho)]
    if not terms.form.is_convex:  # one dominant node that keeps the others out
        starts += [np.where(np.arange(rho.size) == node, starts[1], 0.0) for node in order[:3]]
    for start in starts:
        for turn in (order, order[::-1]):
            end = _play(start, turn, rho, budget, terms, caps)
            if end is not None:
                yield end


def _sets(rho: Floats, budget: float, terms: Terms, caps: Floats) -> Iterator[Members]:
    """Yield sets of two nodes or more that may be the participants, large ones first."""
    n_nodes = rho.size
    order = np.argsort(rho, kind="stable")
    if terms.cost == "linear" and terms.reserve == 0 and not terms.has_caps:
        yield from _prefixes(rho, budget, terms, order)
    if n_nodes <= _FEW:
        for size in range(n_nodes, 1, -1):
            for some in combinations(range(n_nodes), size):
                yield _members(order[list(some)], n_nodes)
    elif n_nodes <= _MANY:
        for size in range(n_nodes, 1, -1):
            for first in range(min(n_nodes - size + 1, _RUNS)):
                yield _members(order[first : first + size], n_nodes)
    else:
        yield from _drop_losers(rho, budget, terms, caps, order)


def _drop_losers(
    rho: Floats, budget: float, terms: Terms, caps: Floats, order: npt.NDArray[np.intp]
) -> Iterator[Members]:
    """Yield the nodes that remain when those that lose most leave, if two or more do."""
    members = order
    while members.size > 1:
        inside = _members(members, rho.size)
        epsilon = np.zeros_like(rho)
        epsilon[inside] = _rest(rho[inside], budget, terms, caps[inside])
        earned = utilities(epsilon, rho, _others(epsilon), budget, terms)[members]
        if (earned > 0).all():
            yield inside
            return
        n_losing = np.count_nonzero(earned <= 0)
        members = members[np.argsort(earned, kind="stable")[max(1, n_losing // 4) :]]


def _prefixes(
    rho: Floats, budget: float, terms: Terms, order: npt.NDArray[np.intp]
) -> Iterator[Members]:
    """Yield the n lowest-cost nodes, for every n at which the last of them earns its fixed cost.

    That node keeps ``B (1 - rho (n - 1) / tau)**2``; the next one would get at most
    ``(sqrt(B) - sqrt(rho S))**2``.
    """
    costs = rho[order]
    rest = np.arange(1.0, costs.size)  # n - 1
    total = budget * rest / np.cumsum(costs)[1:]
    share = 1.0 - costs[1:] * total / budget
    stays = (share > 0) & (budget * share**2 >= terms.fixed_cost)
    pull = np.append(costs[2:], np.inf) * total
    enters = (pull < budget) & ((np.sqrt(budget) - np.sqrt(pull)) ** 2 > terms.fixed_cost)
    for size in np.flatnonzero(stays & ~enters)[::-1] + 2:
        yield _members(order[:size], rho.size)


def _members(rows: npt.NDArray[np.intp], n_nodes: int) -> Members:
    members = np.zeros(n_nodes, dtype=bool)
    members[rows] = True
    return members


def _play(
    start: Floats,
    turn: npt.NDArray[np.intp],
    rho: Floats,
    budget: float,
    terms: Terms,
    caps: Floats,
) -> Floats | None:
    """Return where best responses in turn converge, or None."""
    epsilon = start.copy()
    for _ in range(_ROUNDS if rho.size <= _MANY else 0):
        moved = 0.0
        for node in turn:
            others = np.array([epsilon.sum() - epsilon[node]])
            if np.count_nonzero(epsilon) == (epsilon[node] > 0):
                others[0] = 0.0
            one = slice(node, node + 1)
            reply = reply_under(rho[one], np.maximum(others, 0.0), budget, terms, caps[one])[0]
            moved = max(moved, abs(reply - epsilon[node]) / max(reply, epsilon[node], 1e-300))
            epsilon[node] = reply
        if moved < 1e-13:
            return epsilon
    return None
