"""Payments and measurements of a contest, in compiled passes with NumPy's exact results."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fcfn_abm.abm.columns import NEVER, Floats
from fcfn_abm.game.activity import LEAST_SHARE
from fcfn_abm.game.best_response import reply_one
from fcfn_abm.jit import compile_loop, inline

inline(reply_one)
_LEAF = 128  # block size of NumPy's pairwise sum
_DEPTH = 64  # halvings


@inline
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
def find_leaves(size):  # type: ignore[no-untyped-def]
    """Return the ends of the blocks that NumPy sums in eight lanes, ascending.

    NumPy halves an array, the first half a multiple of eight, down to 128 entries.
    """
    found, n_found = np.empty(size // (_LEAF // 4) + 1, np.int64), 0
    starts, stops, depth = np.zeros(_DEPTH, np.int64), np.zeros(_DEPTH, np.int64), 0
    stops[0] = size
    while depth >= 0:
        start, stop = starts[depth], stops[depth]
        if stop - start <= _LEAF:
            found[n_found] = stop
            n_found += 1
            depth -= 1
            continue
        half = (stop - start) // 2
        middle = start + half - half % 8
        starts[depth], stops[depth] = middle, stop  # comes after the first half
        depth += 1
        starts[depth], stops[depth] = start, middle
    return found[:n_found]


@compile_loop
def combine(sums, size):  # type: ignore[no-untyped-def]
    """Return the sum of the sums of the blocks, two halves at a time, as NumPy does.

    (Numba's cache does not support recursive functions, so lists hold the pending halves.)
    """
    if size <= _LEAF:
        return sums[0]
    sizes, summed = np.empty(_DEPTH, np.int64), np.zeros(_DEPTH, np.int64)
    left = np.empty(_DEPTH)
    depth, value, leaf = 0, 0.0, 0
    sizes[0] = size
    while depth >= 0:
        whole = sizes[depth]
        first = whole // 2 - whole // 2 % 8
        if whole <= _LEAF:
            value = sums[leaf]
            leaf += 1
            depth -= 1
        elif summed[depth] == 2:
            value = left[depth] + value
            depth -= 1
        else:
            if summed[depth] == 1:
                left[depth] = value
            summed[depth] += 1
            depth += 1
            sizes[depth] = first if summed[depth - 1] == 1 else whole - first
            summed[depth] = 0
    return value


@compile_loop
def pairwise_sum(values, size):  # type: ignore[no-untyped-def]
    """Return the sum of the first entries of an array, bitwise equal to NumPy's ``sum``."""
    if size <= _LEAF:
        return _sum_lanes(values, 0, size)
    leaves = find_leaves(size)
    sums, start = np.empty(leaves.size), 0
    for leaf, stop in enumerate(leaves):
        sums[leaf] = _sum_lanes(values, start, stop)
        start = stop
    return combine(sums, size)


@dataclass(frozen=True)
class Measures:
    """Measurements of one pass over the nodes of a contest: maxima, independent of the order."""

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
        Reports of this round and of the previous one.
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
        Bitwise equal to `fcfn_abm.game.exploitability` and NumPy's maxima.
    """
    total = float(epsilon.sum())
    return Measures(*measure_moves(epsilon, before, unit_target, rho, total, pool, epsilon_floor))


@inline
def _largest(values, start, stop):  # type: ignore[no-untyped-def]
    """Return the largest of some entries, or zero; four lanes side by side."""
    a = b = c = d = 0.0
    whole = start + (stop - start) // 4 * 4
    for place in range(start, whole, 4):
        a = max(a, values[place])
        b = max(b, values[place + 1])
        c = max(c, values[place + 2])
        d = max(d, values[place + 3])
    for place in range(whole, stop):
        a = max(a, values[place])
    return max(max(a, b), max(c, d))


@inline
def _smallest(values, start, stop):  # type: ignore[no-untyped-def]
    """Return the smallest of some entries, or zero; four lanes side by side."""
    a = b = c = d = 0.0
    whole = start + (stop - start) // 4 * 4
    for place in range(start, whole, 4):
        a = min(a, values[place])
        b = min(b, values[place + 1])
        c = min(c, values[place + 2])
        d = min(d, values[place + 3])
    for place in range(whole, stop):
        a = min(a, values[place])
    return min(min(a, b), min(c, d))


@inline
def _largest_distance(values, others, scale, start, stop):  # type: ignore[no-untyped-def]
    """Return the largest ``|values - scale * others|`` of some entries; four lanes side by side."""
    a = b = c = d = 0.0
    whole = start + (stop - start) // 4 * 4
    for place in range(start, whole, 4):
        a = max(a, abs(values[place] - scale * others[place]))
        b = max(b, abs(values[place + 1] - scale * others[place + 1]))
        c = max(c, abs(values[place + 2] - scale * others[place + 2]))
        d = max(d, abs(values[place + 3] - scale * others[place + 3]))
    for place in range(whole, stop):
        a = max(a, abs(values[place] - scale * others[place]))
    return max(max(a, b), max(c, d))


@inline
def _gain_alone(own, cost, pool, epsilon_floor):  # type: ignore[no-untyped-def]
    """Return the gain of a node that is alone in the market, in currency."""
    if reply_one(cost, 0.0, pool, epsilon_floor) > 0.0:
        return (0.0 if own > 0.0 else pool) - cost * (epsilon_floor - own)
    return cost * own - pool if own > 0.0 else 0.0


@inline
def _largest_gain(epsilon, rho, start, stop, total, pool, epsilon_floor, gains):  # type: ignore[no-untyped-def]
    """Return the largest gain of a node by moving alone, among some nodes, in currency."""
    n_alone = 0
    for place in range(stop - start):  # a plain loop, which compilers vectorize
        own, cost = epsilon[start + place], rho[start + place]
        others = max(total - own, 0.0)
        pull = others / pool * cost
        reply = others * (1.0 - pull) / (math.sqrt(pull) + pull) if pull < 1.0 else 0.0
        step, standing = reply - own, others + own
        moving = cost * step * (step / standing)
        leaving = own / standing * (cost * standing - pool)
        gains[place] = moving if reply > 0.0 else leaving
        n_alone += pull <= 0.0
    if n_alone:
        for place in range(stop - start):
            own, cost = epsilon[start + place], rho[start + place]
            if max(total - own, 0.0) / pool * cost <= 0.0:
                gains[place] = _gain_alone(own, cost, pool, epsilon_floor)
    return _largest(gains, 0, stop - start)


@compile_loop
def measure_moves(epsilon, before, unit_target, rho, total, pool, epsilon_floor):  # type: ignore[no-untyped-def]
    """Return the five numbers of `Measures`."""
    gains, size = np.empty(_LEAF), epsilon.size
    gain = 0.0
    for start in range(0, size, _LEAF):
        stop = min(start + _LEAF, size)
        largest = _largest_gain(epsilon, rho, start, stop, total, pool, epsilon_floor, gains)
        gain = max(gain, largest)
    change = _largest_distance(epsilon, before, 1.0, 0, size)
    distance = _largest_distance(epsilon, unit_target, pool, 0, size)
    largest_target = pool * _largest(unit_target, 0, size)
    return gain / pool, change, _largest(before, 0, size), distance, largest_target


@compile_loop
def clear_exited(epsilon, exit_round, leaves, sums):  # type: ignore[no-untyped-def]
    """Set reports of nodes that left to zero; return the largest report before, and the sum."""
    largest, start = 0.0, 0
    for leaf, stop in enumerate(leaves):
        largest = max(largest, _largest(epsilon, start, stop))
        for row in range(start, stop):
            epsilon[row] = epsilon[row] if exit_round[row] == NEVER else 0.0
        sums[leaf] = _sum_lanes(epsilon, start, stop)
        start = stop
    return largest, combine(sums, epsilon.size)


@compile_loop
def scan(epsilon, leaves, sums):  # type: ignore[no-untyped-def]
    """Return whether all reports are non-negative numbers, the largest one, and their sum."""
    smallest, largest, start = 0.0, 0.0, 0
    for leaf, stop in enumerate(leaves):
        smallest = min(smallest, _smallest(epsilon, start, stop))
        largest = max(largest, _largest(epsilon, start, stop))
        sums[leaf] = _sum_lanes(epsilon, start, stop)
        start = stop
    total = combine(sums, epsilon.size)
    return smallest >= 0.0 and total < np.inf, largest, total  # NaN makes the sum NaN


@compile_loop
def count(epsilon, exit_round, largest, index):  # type: ignore[no-untyped-def]
    """Return how many nodes take part, and how many had left before a round."""
    n_active, n_exited, least = 0, 0, LEAST_SHARE * largest
    for row in range(epsilon.size):
        n_active += epsilon[row] > least
        n_exited += (exit_round[row] != NEVER) & (exit_round[row] < index)
    return n_active, n_exited


@compile_loop
def pay_and_measure(  # type: ignore[no-untyped-def]
    epsilon, before, unit_target, rho, payment, utility, total, pool, epsilon_floor, leaves, sums
):
    """Share a pool by epsilon (3) and measure, a few rows at a time.

    Writes payments and utilities (6); returns their sums, the largest gain as a share of the pool,
    the largest change, and the largest distance to the closed form.
    """
    gains = np.empty(_LEAF)
    gain, change, distance, start = 0.0, 0.0, 0.0, 0
    for leaf, stop in enumerate(leaves):
        if total > 0.0:
            for row in range(start, stop):
                paid = pool * (epsilon[row] / total)
                payment[row] = paid
                utility[row] = paid - rho[row] * epsilon[row]
        else:
            for row in range(start, stop):
                payment[row] = 0.0
                utility[row] = 0.0 - rho[row] * epsilon[row]
        sums[0, leaf] = _sum_lanes(payment, start, stop)
        sums[1, leaf] = _sum_lanes(utility, start, stop)
        if pool > 0.0:
            better = _largest_gain(epsilon, rho, start, stop, total, pool, epsilon_floor, gains)
            gain = max(gain, better)
        change = max(change, _largest_distance(epsilon, before, 1.0, start, stop))
        distance = max(distance, _largest_distance(epsilon, unit_target, pool, start, stop))
        start = stop
    if pool > 0.0:
        gain /= pool
    elif total > 0.0:
        gain = np.inf
    to_nodes, of_nodes = combine(sums[0], epsilon.size), combine(sums[1], epsilon.size)
    return to_nodes, of_nodes, gain, change, distance


@compile_loop
def leave(idle_rounds, exit_round, patience, index):  # type: ignore[no-untyped-def]
    """Remove nodes that had a reason to leave for enough rounds; return how many."""
    n_left = 0
    for row in range(idle_rounds.size):
        leaving = (exit_round[row] == NEVER) & (idle_rounds[row] >= patience)
        exit_round[row] = index if leaving else exit_round[row]
        n_left += leaving
    return n_left
