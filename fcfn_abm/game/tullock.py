"""The contest that shares the budget in proportion to a power of epsilon."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, as_number
from fcfn_abm.game.equilibrium import Equilibrium, as_population, nash_equilibrium
from fcfn_abm.game.exact import Floats

_STEPS = 200  # Newton's method needs five to thirty
_ROUNDING = 1e-15
_FEW = 1000  # nodes at each end, and blocks of nodes, of a coarse population


def tullock_equilibrium(rho: npt.ArrayLike, budget: float, exponent: float = 1.0) -> Equilibrium:
    """Solve the contest in which nodes share the budget in proportion to ``epsilon**exponent``.

    Node ``i`` earns ``budget * epsilon[i]**r / (epsilon**r).sum() - rho[i] * epsilon[i]``.

    Parameters
    ----------
    rho : array_like of float, shape (n,)
        Unit privacy costs, in currency per unit of epsilon; positive.
    budget : float
        Payment cap B of the server for one round, in currency; zero or positive.
    exponent : float, default 1
        r, above zero and at most one. With r = 1 the result is bitwise equal to
        :func:`nash_equilibrium`. Below one every node takes part, because the first bit of epsilon
        earns more than any cost.

    Returns
    -------
    Equilibrium
        The unique equilibrium; all zero if there is no market. An epsilon below the smallest
        positive float is zero.

    Raises
    ------
    InvalidGameError
        If ``rho`` is not one-dimensional or a number is outside its range.

    Notes
    -----
    With ``Z = sum epsilon**r``, a node's share s of the payment solves
    ``B r (1 - s) s**(1 - 1/r) = rho Z**(1/r)``, whose left side falls from infinity to zero; Z
    follows from shares that sum to one. Then ``epsilon = B r s (1 - s) / rho``. With
    ``a = 1/r - 1`` and the log-odds z of the share, the condition is
    ``-(1 - a) softplus(z) - a z = ln(rho Z**(1/r) / (B r))``, convex or concave with slopes between
    -1 and -a, so that Newton's method converges from one side. Epsilon is linear in B.

    References
    ----------
    Tullock 1980, "Efficient rent seeking"; Szidarovszky and Okuguchi 1997 for uniqueness.

    Examples
    --------
    >>> tullock_equilibrium([1.0, 1.0, 5.0], budget=4.0, exponent=0.5).epsilon.round(4)
    array([0.4912, 0.4912, 0.0461])
    """
    rho, exponent = as_population(rho), as_number("exponent", exponent)
    if not 0 < exponent <= 1:
        raise InvalidGameError(f"exponent must be above 0 and at most 1, but is {exponent:g}.")
    linear = nash_equilibrium(rho, budget)  # checks both
    if exponent == 1 or linear.n_active == 0:
        return linear
    budget = float(budget)
    share = _shares(np.log(rho) - np.log(rho.min()), 1.0 / exponent - 1.0)
    with np.errstate(over="ignore", under="ignore"):
        epsilon = budget / rho * (exponent * share * (1.0 - share))
        cost = budget * (exponent * share * (1.0 - share))
    total = float(epsilon.sum())
    if not np.isfinite(total):
        raise InvalidGameError(
            f"budget = {budget:g} is too large for costs as small as {rho.min():g}."
        )
    active = epsilon > 0
    return Equilibrium(
        epsilon=epsilon,
        active=active,
        n_active=int(np.count_nonzero(active)),
        total_epsilon=total,
        tau=float(rho[active].sum()),
        utility=np.where(active, budget * share - cost, 0.0),
        rho=rho,
    )


def tullock_reply(rho: Floats, others: Floats, budget: float, exponent: float) -> Floats:
    """Return the best scores ``epsilon**exponent`` against the others' total score.

    Parameters
    ----------
    rho : ndarray of float, shape (n,)
        Unit privacy costs, in currency per unit of epsilon; positive.
    others : ndarray of float, shape (n,)
        Sum of ``epsilon**exponent`` over all other nodes; positive.
    budget : float
        Payment cap B, in currency; positive.
    exponent : float
        r, above zero and below one.

    Returns
    -------
    ndarray of float, shape (n,)
        The scores y that maximise ``budget * y / (y + others) - rho * y**(1/r)``; positive.

    Notes
    -----
    The first-order condition is ``B r o y**(1 - 1/r) = rho (y + o)**2``. With ``y = o exp(z)`` and
    ``a = 1/r - 1`` it is ``-2 softplus(z) - a z = ln(rho / (B r)) + ln(o) / r``, concave in z.
    """
    power = 1.0 / exponent - 1.0
    level = np.log(rho) - np.log(budget) - np.log(exponent) + (power + 1.0) * np.log(others)
    odds = bound = np.minimum(-level / power, -level / (power + 2.0))
    for _ in range(_STEPS):
        share, softplus = _share(odds)
        step = (-2.0 * softplus - power * odds - level) / (2.0 * share + power)
        odds = np.minimum(odds + step, bound)
        if (np.abs(step) <= 1e-14 * np.maximum(1.0, np.abs(odds))).all():
            break
    return np.asarray(others * np.exp(odds))


def tullock_reply_one(rho: float, others: float, budget: float, exponent: float) -> float:
    """Return the best score of one node, without checks; `tullock_reply` in plain floats."""
    power = 1.0 / exponent - 1.0
    level = math.log(rho / exponent) - math.log(budget) + (power + 1.0) * math.log(others)
    odds = bound = min(-level / power, -level / (power + 2.0))
    for _ in range(_STEPS):
        small = math.exp(-abs(odds))
        share = (1.0 if odds >= 0 else small) / (1.0 + small)
        value = -2.0 * (max(odds, 0.0) + math.log1p(small)) - power * odds
        step = (value - level) / (2.0 * share + power)
        odds = min(odds + step, bound)
        if abs(step) <= 1e-14 * max(1.0, abs(odds)):
            break
    return others * math.exp(odds)


def tullock_exploitability(epsilon: Floats, rho: Floats, budget: float, exponent: float) -> float:
    """Return the largest gain of any node by moving alone, as a share of the budget.

    Parameters
    ----------
    epsilon, rho : ndarray of float, shape (n,)
        Privacy budgets (dimensionless) and unit privacy costs (currency per unit of epsilon).
    budget : float
        Payment cap B of the round, in currency.
    exponent : float
        r, above zero and below one.

    Returns
    -------
    float
        As :func:`fcfn_abm.game.exploitability`, but from a difference of utilities, and so accurate
        to about 1e-15. A node that is alone wins the whole budget with any report: only its cost
        can be reduced.
    """
    if epsilon.size == 0:
        return 0.0
    if budget == 0:
        return float("inf") if epsilon.any() else 0.0
    score = epsilon**exponent
    others = np.maximum(score.sum() - score, 0.0)
    contested = others > 0
    beside = np.where(contested, others, 1.0)
    reply = tullock_reply(rho, beside, budget, exponent)
    best = reply / (reply + beside) - rho / budget * reply ** (1.0 / exponent)
    best = np.where(contested, np.maximum(best, 0.0), 1.0)
    now = np.where(epsilon > 0, score / np.where(epsilon > 0, others + score, 1.0), 0.0)
    return max(0.0, float((best - (now - rho / budget * epsilon)).max()))


def _shares(log_rho: Floats, power: float) -> Floats:
    """Return the shares of the payment, which sum to one; ``power`` is ``1/r - 1``."""
    cost, back = np.unique(log_rho, return_inverse=True)
    count = np.bincount(back).astype(float)
    level = None
    if cost.size > 2 * _FEW:  # a coarse population gives a starting point for the root
        blocks = np.linspace(_FEW, cost.size, _FEW + 1).astype(int)[:-1]
        weight = np.append(count[:_FEW], np.add.reduceat(count, blocks))
        middle = np.add.reduceat(count * cost, blocks) / weight[_FEW:]
        level, _ = _solve_level(np.append(cost[:_FEW], middle), weight, power, level)
    _, share = _solve_level(cost, count, power, level)
    share = share[back]
    return np.asarray(share / share.sum())


def _solve_level(
    cost: Floats, count: Floats, power: float, level: float | None
) -> tuple[float, Floats]:
    """Return the level ``ln(Z**(1/r) / (B r))`` at which shares sum to one, and the shares.

    It lies between the levels for a population with only the highest cost, and with only the
    lowest, which is zero. Newton's method finds it, with bisection if a step leaves the bracket.
    """
    n_nodes = count.sum()
    high = float(np.log1p(-1.0 / n_nodes) + power * np.log(n_nodes))
    low, level, odds = high - float(cost[-1]), high if level is None else level, None
    for _ in range(_STEPS):
        odds = _log_odds(level + cost, power, odds)
        share, _ = _share(odds)
        excess = float(count @ share) - 1.0
        low, high = (level, high) if excess > 0 else (low, level)
        slope = float(count @ (share * (1.0 - share) / (power + (1.0 - power) * share)))
        step = excess / slope
        if abs(step) <= _ROUNDING * max(1.0, abs(level)):
            break
        level = level + step if low < level + step < high else (low + high) / 2.0
    return level, share


def _log_odds(level: Floats, power: float, odds: Floats | None) -> Floats:
    """Solve ``(1 - s) s**-power = exp(level)`` for the log-odds of the share s, from a guess.

    The function has two asymptotes, whose roots are the bounds; beyond the nearer one Newton's
    method never steps to the wrong side.
    """
    beyond = np.maximum if power > 1 else np.minimum
    bound = beyond(-level / power, -level)
    odds = bound if odds is None else beyond(odds, bound)
    for _ in range(_STEPS):
        share, softplus = _share(odds)
        step = ((power - 1.0) * softplus - power * odds - level) / (power + (1.0 - power) * share)
        odds = beyond(odds + step, bound)
        if (np.abs(step) <= 1e-14 * np.maximum(1.0, np.abs(odds))).all():
            break
    return odds


def _share(odds: Floats) -> tuple[Floats, Floats]:
    """Return the shares with given log-odds, and softplus of these, ``-ln(1 - share)``."""
    small = np.exp(-np.abs(odds))
    share = np.where(odds >= 0, 1.0, small) / (1.0 + small)
    return share, np.maximum(odds, 0.0) + np.log1p(small)
