"""Whole rounds of a contest as one compiled loop: moves, payments, measurements, exits, the cap.

`fcfn_abm.abm.market.Market` defines a round; its steps are repeated here, for markets that nothing
observes between rounds. Sums are taken in NumPy's order, so that results are bitwise equal.
With ``NUMBA_DISABLE_JIT=1`` the same code runs in plain Python.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from fcfn_abm.abm.compiled import (
    NOTHING,
    Kinds,
    at_once_of,
    in_turn_of,
    stamp_files,
    stamp_of,
)
from fcfn_abm.abm.measures import (
    clear_exited,
    count,
    find_leaves,
    leave,
    pairwise_sum,
    pay_and_measure,
    scan,
)
from fcfn_abm.abm.play_types import MOVED, PAID, PLAYED
from fcfn_abm.abm.server import announce
from fcfn_abm.abm.turns import shuffle
from fcfn_abm.abm.verdict import LEADER_TOLERANCE
from fcfn_abm.game.activity import LEAST_SHARE
from fcfn_abm.game.payoffs import server_profit
from fcfn_abm.game.stackelberg import marginal_budget
from fcfn_abm.jit import compile_loop, inline
from fcfn_abm.learning.base import Reading, try_again
from fcfn_abm.learning.server_anticipate import FALLING, MINOR
from fcfn_abm.learning.server_gradient import hold_trial

for _function in (
    announce,
    hold_trial,
    marginal_budget,
    server_profit,
    shuffle,
    try_again,
):
    inline(_function)


@inline
def _ratio(size: Any, scale: Any) -> Any:
    if scale > 0.0:
        return size / scale
    return np.inf if size > 0.0 else 0.0


@inline
def _read(
    epsilon: Any, last: Any, scratch: Any, looked: Any, budget: Any, utility: Any, settings: Any
) -> Any:
    """Return what a server reads from the reports; one pass for the server rule "anticipate"."""
    largest = 0.0
    for own in epsilon:
        largest = max(largest, own)
    n_active, on_its_way_out = 0, False
    for row in range(epsilon.size):
        own = epsilon[row]
        if own > LEAST_SHARE * largest:
            scratch[n_active] = own
            n_active += 1
            if looked and own < MINOR * largest and own < FALLING * last[row]:
                on_its_way_out = True
    total = pairwise_sum(scratch, n_active)
    moved = 1.0
    if looked and total > 0.0 and not on_its_way_out:
        moved = abs(total - pairwise_sum(last, last.size)) / total
    for place in range(n_active):
        scratch[place] = budget * ((total - scratch[place]) / total) / total
    tau = pairwise_sum(scratch, n_active)
    n_averaged = epsilon.size if settings.over_population else n_active
    return Reading(
        budget,
        utility,
        settings.alpha,
        settings.beta,
        settings.rounds_a_turn,
        total,
        tau,
        n_active,
        float(n_averaged),
        moved,
    )


def _all_at_once_of(kinds: Kinds, index: int = 0) -> Any:
    """Return the loop for simultaneous moves over the groups from ``index`` on."""
    own, remembers = at_once_of(kinds[index]), kinds[index][2]
    is_last = index == len(kinds) - 1
    later: Any = None if is_last else _all_at_once_of(kinds, index + 1)

    def move(  # type: ignore[no-untyped-def]
        start,
        rho,
        epsilon,
        idle_rounds,
        exit_round,
        memories,
        total,
        pool,
        floor,
        parameters,
        groups,
    ):
        end = groups.ends[index]
        own(
            rho[start:end],
            epsilon[start:end],
            idle_rounds[start:end],
            exit_round[start:end],
            memories[index][start:end] if remembers else memories[index],
            total,
            pool,
            floor,
            parameters[index],
            groups.reentry[index],
            groups.leaves_on_loss[index],
        )
        if not is_last:
            later(
                end,
                rho,
                epsilon,
                idle_rounds,
                exit_round,
                memories,
                total,
                pool,
                floor,
                parameters,
                groups,
            )

    return inline(move)


@cache
def play_of(
    kinds: Kinds,
    choose: Callable[..., float],
    is_content: Callable[..., bool],
    reads_reports: bool,
) -> Any:
    """Return the loop over rounds, for the rules of a market's groups and server."""
    in_turn, at_once = in_turn_of(kinds), _all_at_once_of(kinds)
    inline(choose)
    inline(is_content)
    stamp = (
        stamp_of(kinds),
        stamp_files(
            choose, try_again, announce, server_profit, marginal_budget, pay_and_measure, shuffle
        ),
    )

    @inline
    def set_cap(epsilon, last, scratch, looked, budget, utility, settings, parameters, memory):  # type: ignore[no-untyped-def]
        """Return the next cap."""
        if reads_reports and budget > 0.0:
            seen = _read(epsilon, last, scratch, looked, budget, utility, settings)
        else:
            seen = Reading(
                budget,
                utility,
                settings.alpha,
                settings.beta,
                settings.rounds_a_turn,
                0.0,
                0.0,
                0,
                0.0,
                1.0,
            )
        return announce(choose(seen, parameters, memory), budget, settings.beta)

    def play_rounds(  # type: ignore[no-untyped-def]
        rho,
        unit_target,
        epsilon,
        payment,
        utility,
        idle_rounds,
        exit_round,
        memories,
        parameters,
        groups,
        numbers,
        rows,
        before,
        last,
        scratch,
        server_parameters,
        server_memory,
        looked,
        settings,
        standing,
        table,
        traced,
        traces,
    ):
        _ = stamp  # part of the cache key
        budget, server_utility = standing.budget, standing.server_utility
        n_active, calm_rounds = standing.n_active, standing.calm_rounds
        n_nodes, n_left, total, largest = epsilon.size, 1, 0.0, 0.0
        leaves = find_leaves(n_nodes)
        sums = np.empty((2, leaves.size))
        calm_before = calm_rounds
        status, played, answered = PLAYED, 0, 0.0
        budget_before = budget
        for place in range(table.shape[0]):
            index = settings.first_round + place
            played = place + 1
            budget_before, calm_before = budget, calm_rounds
            if settings.learns_cap and not settings.after_reports and index > 1:
                chosen = set_cap(
                    epsilon,
                    before if place else last,
                    scratch,
                    looked,
                    budget,
                    server_utility,
                    settings,
                    server_parameters,
                    server_memory,
                )
                looked = budget > 0.0
                budget = chosen
            if place:  # the caller has a copy for the first round
                before[:] = epsilon
            answered = pool = settings.pool if settings.pool >= 0.0 else budget
            if n_left:  # nodes that left report nothing
                largest, total = clear_exited(epsilon, exit_round, leaves, sums[0])
            largest_before = largest
            if settings.in_turn:
                if settings.shuffled:
                    shuffle(range(n_nodes), numbers[place], rows)
                in_turn(
                    rows,
                    rho,
                    epsilon,
                    idle_rounds,
                    exit_round,
                    NOTHING,
                    0,
                    total,
                    memories,
                    parameters,
                    groups.ends,
                    groups.decided,
                    groups.reentry,
                    groups.leaves_on_loss,
                    pool,
                    settings.epsilon_floor,
                )
            else:
                at_once(
                    0,
                    rho,
                    epsilon,
                    idle_rounds,
                    exit_round,
                    memories,
                    total,
                    pool,
                    settings.epsilon_floor,
                    parameters,
                    groups,
                )
            sound, largest, total = scan(epsilon, leaves, sums[0])
            if not sound:
                status = MOVED
                break
            was_active = n_active
            n_active, n_exited = count(epsilon, exit_round, largest, index)
            n_averaged = n_nodes if settings.over_population else n_active
            mean = total / n_averaged if n_averaged else 0.0
            if settings.learns_cap and settings.after_reports:
                unchanged = server_profit(mean, settings.alpha, settings.beta, budget)
                chosen = set_cap(
                    epsilon,
                    before,
                    scratch,
                    looked,
                    budget,
                    unchanged,
                    settings,
                    server_parameters,
                    server_memory,
                )
                looked = budget > 0.0
                budget = chosen
                pool = budget
            to_nodes, of_nodes, gain, moved, away = pay_and_measure(
                epsilon,
                before,
                unit_target,
                rho,
                payment,
                utility,
                total,
                pool,
                settings.epsilon_floor,
                leaves,
                sums,
            )
            paid = to_nodes if settings.price < 0.0 else settings.price * total
            server_utility = server_profit(mean, settings.alpha, settings.beta, paid)
            if not (abs(server_utility) < np.inf and (pool <= 0.0 or gain < np.inf)):
                status = PAID
                break
            n_left, start = 0, 0
            for group in range(groups.ends.size):
                end = groups.ends[group]
                n_left += leave(
                    idle_rounds[start:end], exit_round[start:end], groups.patience[group], index
                )
                start = end
            change, distance = (
                _ratio(moved, largest_before),
                _ratio(away, pool * settings.largest_unit_target),
            )
            row = table[place]
            row[0] = budget
            row[1] = total
            row[2] = mean
            row[3] = n_active
            row[4] = n_nodes - n_active - n_exited
            row[5] = n_exited
            row[6] = paid
            row[7] = of_nodes
            row[8] = server_utility
            row[9] = server_utility + of_nodes + (paid - to_nodes)
            row[10] = gain
            row[11] = change
            row[12] = distance
            row[13] = _ratio(abs(budget - budget_before), budget_before)
            for column, values in enumerate((epsilon, payment, utility)):
                for node in range(traced.size):
                    traces[place, column, node] = values[traced[node]]
            calm = max(gain, change, row[13]) <= settings.tolerance
            if settings.learns_cap and not is_content(server_parameters, server_memory):
                calm = False
            calm_rounds = calm_rounds + 1 if calm and not settings.moving else 0
            best = settings.best_budget
            near = not settings.judged or abs(budget - best) <= LEADER_TOLERANCE * best
            if total == 0.0 or (calm_rounds >= settings.patience and (near or n_active == 0)):
                break
            if not settings.same_parameters and n_active != was_active:
                break
        return status, played, budget, calm_before, looked, budget_before, answered

    return compile_loop(play_rounds)
