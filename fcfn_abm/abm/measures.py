"""What is paid and measured of a contest, in compiled passes with the digits of NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba.extending import register_jitable

from fcfn_abm.abm.columns import NEVER, Floats
from fcfn_abm.abm.compiled import inline
from fcfn_abm.game.activity import LEAST_SHARE
from fcfn_abm.game.best_response import reply_one
from fcfn_abm.jit import compile_loop

inline(reply_one)
_LEAF = 128  # entries that NumPy sums in eight lanes
_DEPTH = 64  # halvings


@register_jitable
def _sum_lanes(values, start, stop):  # type: ignore[no-untyped-def]
    """Return the sum of a few entries, eight lanes side by side."""
    whole = start + (stop - start) // 8 * 8
    total = 0.0
    if whole > start:
        a, b, c, d = values[start], values[start + 1], values[start + 2], values[start + 3]
        e, f, g, h = values[start + 4], values[start + 5], values[start + 6], values[start + 7]
        for place in range(start + 8, whole, 8):
            a += values[place]
            b += values[place + 1]
            c += values[place + 2]
            d += values[place + 3]
            e += values[place + 4]
            f += values[place + 5]
            g += values[place + 6]
            h += values[place + 7]
        total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for place in range(whole, stop):
        total += values[place]
    return total


@compile_loop
def pairwise_sum(values, size):  # type: ignore[no-untyped-def]
    """Return the sum of the first entries of an array with the digits of NumPy's ``sum``.

    NumPy halves an array until 128 entries are left, which it sums in eight lanes. (Numba's cache
    does not know functions again that call themselves: the halves wait in lists here.)
    """
    if size <= _LEAF:
        return _sum_lanes(values, 0, size)
    starts, stops = np.empty(_DEPTH, np.int64), np.empty(_DEPTH, np.int64)
    summed, left = np.zeros(_DEPTH, np.int64), np.empty(_DEPTH)
    depth, value = 0, 0.0
    starts[0], stops[0] = 0, size
    while depth >= 0:
        start, stop = starts[depth], stops[depth]
        if stop - start <= _LEAF:
            value = _sum_lanes(values, start, stop)
            depth -= 1
            continue
        half = (stop - start) // 2
        middle = start + half - half % 8
        if summed[depth] == 2:
            value = left[depth] + value
            depth -= 1
            continue
        if summed[depth] == 0:
            stop = middle
        else:
            left[depth] = value
            start = middle
        summed[depth] += 1
        depth += 1
        starts[depth], stops[depth], summed[depth] = start, stop, 0
    return value


@dataclass(frozen=True)
class Measures:
    """What one pass over the nodes of a contest measures: maxima, in whatever order."""

    exploitability: float
    change: float
    largest_before: float
    distance: float
    largest_target: float


def measures(
    epsilon: Floats,
    before: Floats,
    unit_target: Floats,
    rho: Floats,
    pool: float,
    epsilon_floor: float,
) -> Measures:
    """Measure a contest in one pass.

    Parameters
    ----------
    epsilon, before : ndarray of float, shape (n,)
        Reports of this round and of the last one.
    unit_target : ndarray of float, shape (n,)
        Epsilon of the closed form per unit of the pool.
    rho : ndarray of float, shape (n,)
        Unit privacy costs.
    pool : float
        What the nodes share, in currency; positive.
    epsilon_floor : float
        Smallest admissible report.

    Returns
    -------
    Measures
        The same digits as `fcfn_abm.game.exploitability` and NumPy's maxima.
    """
    total = float(epsilon.sum())
    return Measures(*measure_moves(epsilon, before, unit_target, rho, total, pool, epsilon_floor))


@compile_loop
def measure_moves(epsilon, before, unit_target, rho, total, pool, epsilon_floor):  # type: ignore[no-untyped-def]
    """Return the five numbers of `Measures`."""
    gain, change, largest, distance, largest_target = 0.0, 0.0, 0.0, 0.0, 0.0
    for row in range(epsilon.size):
        own, cost = epsilon[row], rho[row]
        target = pool * unit_target[row]
        change = max(change, abs(own - before[row]))
        largest = max(largest, abs(before[row]))
        distance = max(distance, abs(own - target))
        largest_target = max(largest_target, target)
        if pool <= 0.0:
            gain = np.inf if own > 0.0 else gain
            continue
        others = max(total - own, 0.0)
        reply = reply_one(cost, others, pool, epsilon_floor)
        if others / pool * cost > 0:
            standing = others + own
            if reply > 0:
                better = cost * (reply - own) * ((reply - own) / standing)
            else:
                better = own / standing * (cost * standing - pool)
        elif reply > 0:
            better = (0.0 if own > 0 else pool) - cost * (reply - own)
        else:
            better = cost * own - pool if own > 0 else 0.0
        gain = max(gain, better)
    return gain / pool if pool > 0.0 else gain, change, largest, distance, largest_target


@compile_loop
def scan(epsilon):  # type: ignore[no-untyped-def]
    """Return whether all reports are numbers from zero on, and the largest."""
    sound, largest = True, 0.0
    for own in epsilon:
        sound &= (own >= 0.0) & (own < np.inf)
        largest = max(largest, own)
    return sound, largest


@compile_loop
def pay(epsilon, rho, payment, utility, total, pool):  # type: ignore[no-untyped-def]
    """Share a pool by epsilon (3), and write what each node gets, and what that leaves it (6)."""
    for row in range(epsilon.size):
        own = epsilon[row]
        paid = pool * (own / total) if total > 0.0 else 0.0
        payment[row] = paid
        utility[row] = paid - rho[row] * own


@compile_loop
def count(epsilon, exit_round, largest, index):  # type: ignore[no-untyped-def]
    """Return how many nodes take part, and how many had left before a round."""
    n_active, n_exited, least = 0, 0, LEAST_SHARE * largest
    for row in range(epsilon.size):
        n_active += epsilon[row] > least
        left = exit_round[row]
        n_exited += (left != NEVER) & (left < index)
    return n_active, n_exited


@compile_loop
def leave(idle_rounds, exit_round, patience, index):  # type: ignore[no-untyped-def]
    """Let those nodes leave that had a reason to for long enough; return how many."""
    n_left = 0
    for row in range(idle_rounds.size):
        if (exit_round[row] == NEVER) & (idle_rounds[row] >= patience):
            exit_round[row] = index
            n_left += 1
    return n_left
