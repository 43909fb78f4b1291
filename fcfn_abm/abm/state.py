"""What is measured at the end of a round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fcfn_abm.abm import order
from fcfn_abm.abm.churn import Turnover
from fcfn_abm.abm.columns import Floats
from fcfn_abm.abm.contracts import TakeOrLeave
from fcfn_abm.abm.round import Round
from fcfn_abm.abm.scores import contest_exploitability
from fcfn_abm.abm.server import ParameterServer
from fcfn_abm.game import (
    ContestEquilibrium,
    Equilibrium,
    Terms,
    averaged_nodes,
    best_budget,
    contest_regret,
    exploitability,
    server_utility,
    takes_part,
)
from fcfn_abm.population.manipulation import Counts, split_reports
from fcfn_abm.scenario import Game


@dataclass(frozen=True)
class RoundState:
    """What is measured of a round, while its reports stand.

    ``n_active``, ``n_inactive`` and ``n_exited`` sum to the nodes that are there: nodes leave at
    the end of a round, after its reports are paid, and are counted as exited from the next one on.
    """

    round: int
    """Number of the round, from 1."""
    budget: float
    """Announced payment cap B, in currency."""
    total_epsilon: float
    """S, the sum of all reports."""
    mean_epsilon: float
    """eps_g, over the nodes that ``game.average_over`` names."""
    n_active: int
    """Nodes that take part: their share is more than `LEAST_SHARE` of the largest."""
    n_inactive: int
    """The other nodes that were in the market."""
    n_exited: int
    """Nodes that had left before this round, and did not come back in it."""
    payment: float
    """What the server paid, in currency."""
    node_utility: float
    """Sum of the nodes' utilities, in currency."""
    server_utility: float
    """Utility of the server, in currency."""
    welfare: float
    """Utilities of all together, a middleman's included, in currency."""
    exploitability: float
    """Largest gain of a node from moving alone, as a share of B."""
    change: float
    """Largest change of an epsilon since the last round, as a share of the largest epsilon."""
    distance: float
    """Largest distance of an epsilon to the closed form at this B (without a contest: to the
    contracts), as a share of its largest."""


@dataclass(frozen=True)
class MovingState(RoundState):
    """The same where events change the game: where nodes should be."""

    equilibrium_budget: float
    """B* of the game as it is (41), in currency."""
    equilibrium_n_active: int
    """How many nodes take part in closed form, under any cap."""
    equilibrium_total_epsilon: float
    """S of the closed form at this round's B."""


@dataclass(frozen=True)
class ChurnState(RoundState):
    """The same where nodes come and go: who is there, and where they should be."""

    n_present: int
    """Nodes that are there."""
    n_arrived: int
    """Nodes that arrived in this round."""
    n_departed: int
    """Nodes that went away for good in this round."""
    equilibrium_budget: float
    """B* of those that are there (41), in currency."""
    equilibrium_n_active: int
    """How many of them take part in closed form, under any cap."""
    equilibrium_total_epsilon: float
    """S of their closed form at this round's B."""


@dataclass(frozen=True)
class Spending:
    """What has been paid over all rounds, and what is left."""

    money_spent: float
    """What the server has paid so far, this round included, in currency."""
    money_left: float
    """What is left of ``game.total_budget`` after this round, in currency."""


@dataclass(frozen=True)
class SpendingState(Spending, MovingState):
    """What is measured where the server's money is limited."""


@dataclass(frozen=True)
class SpendingChurnState(Spending, ChurnState):
    """The same where nodes come and go."""


def measure_round(
    played: Round,
    before: Floats,
    server: ParameterServer,
    contest: Equilibrium | None,
    churn: Turnover | None,
    *,
    moving: bool = False,
    solved: ContestEquilibrium | None = None,
    best_cap: float = 0.0,
    spending: Spending | None = None,
    identities: Counts | None = None,
) -> RoundState:
    """Measure a round that has been played and paid.

    Parameters
    ----------
    played : Round
        At its end.
    before : ndarray of float, shape (n,)
        Reports of the last round.
    server : ParameterServer
        With what it has announced and paid.
    contest : Equilibrium or None
        The closed form at B = 1 of the nodes that are there; None where they answer contracts, and
        under other terms than the paper's.
    churn : Turnover or None
        Who came and went, where the population changes.
    moving : bool, default False
        Whether the game changes as it is played.
    solved : ContestEquilibrium, optional
        Their equilibrium at this round's pool, under other terms than the paper's.
    best_cap : float, default 0
        The best cap under these terms, in currency.
    spending : Spending, optional
        What has been paid so far, where the money is limited.
    identities : ndarray of int, optional
        As how many the nodes come that are there.
    """
    columns, game = played.columns, server.game
    n_nodes = int(np.count_nonzero(columns.present))
    n_active = int(np.count_nonzero(takes_part(columns.epsilon)))
    n_exited = int(np.count_nonzero(columns.exited_before(played.index)))
    total_epsilon = float(columns.epsilon.sum())
    reports = split_reports(columns.epsilon[played.present], identities)
    n_averaged = averaged_nodes(game.average_over, reports)
    mean_epsilon = total_epsilon / n_averaged if n_averaged else 0.0
    left_to_server = server_utility(mean_epsilon, game.alpha, game.beta, server.paid)
    nodes = float(columns.utility.sum())
    exploitable, change, distance = _measure_moves(played, before, contest, solved)
    state = RoundState(
        round=played.index,
        budget=server.budget,
        total_epsilon=total_epsilon,
        mean_epsilon=mean_epsilon,
        n_active=n_active,
        n_inactive=n_nodes - n_active - n_exited,
        n_exited=n_exited,
        payment=server.paid,
        node_utility=nodes,
        server_utility=left_to_server,
        welfare=left_to_server + nodes + (server.paid - float(columns.payment.sum())),
        exploitability=exploitable,
        change=change,
        distance=distance,
    )
    if not (churn or moving):
        return state
    if solved is not None:
        return MovingState(
            **vars(state),
            equilibrium_budget=best_cap,
            equilibrium_n_active=solved.n_active,
            equilibrium_total_epsilon=solved.total_epsilon,
        )
    if contest is None:
        return state
    best, n_expected = expect_equilibrium(contest, game)
    expected = MovingState(
        **vars(state),
        equilibrium_budget=best,
        equilibrium_n_active=n_expected,
        equilibrium_total_epsilon=played.pool * contest.total_epsilon,
    )
    paid = {} if spending is None else vars(spending)
    if churn is None:
        return SpendingState(**vars(expected), **paid) if paid else expected
    changed = {
        "n_present": n_nodes,
        "n_arrived": churn.arrived.size,
        "n_departed": churn.departed.size,
    }
    if paid:
        return SpendingChurnState(**vars(expected), **changed, **paid)
    return ChurnState(**vars(expected), **changed)


def state_class(*, churn: bool, moving: bool, spending: bool) -> type[RoundState]:
    """Return what a market measures in each of its rounds."""
    if spending:
        return SpendingChurnState if churn else SpendingState
    return ChurnState if churn else MovingState if moving else RoundState


def expect_equilibrium(contest: Equilibrium, game: Game) -> tuple[float, int]:
    """Return B* (41), and how many nodes take part, in the closed form at B = 1."""
    n_averaged = averaged_nodes(game.average_over, contest.epsilon)
    best = best_budget(contest.tau, contest.n_active, n_averaged, game.alpha, game.beta)
    return best, contest.n_active


def _measure_moves(
    played: Round,
    before: Floats,
    contest: Equilibrium | None,
    solved: ContestEquilibrium | None,
) -> tuple[float, float, float]:
    """Return exploitability, change and distance, over the nodes that are there."""
    rows, pool, floor = played.present, played.pool, played.epsilon_floor
    epsilon, before, rho = played.columns.epsilon[rows], before[rows], played.columns.rho[rows]
    if solved is not None:
        gain = _gain_under_terms(played, rho, epsilon)
        target = min((solved.epsilon, *solved.others), key=lambda known: _largest(epsilon - known))
    elif contest is None:
        gain, target = _measure_contracts(played, rho, epsilon)
    elif played.contest is not None and not played.contest.is_linear:
        gain = contest_exploitability(played.contest.among(rows), epsilon, rho, pool, floor)
        target = pool * contest.epsilon
    elif epsilon.size >= order.MANY and pool > 0:
        from fcfn_abm.abm.measures import measures  # loads numba

        seen = measures(epsilon, before, contest.epsilon, rho, pool, floor)
        return (
            seen.exploitability,
            ratio(seen.change, seen.largest_before),
            ratio(seen.distance, seen.largest_target),
        )
    else:
        gain, target = exploitability(epsilon, rho, pool, floor), pool * contest.epsilon
    return (
        gain,
        ratio(_largest(epsilon - before), _largest(before)),
        ratio(_largest(epsilon - target), _largest(target)),
    )


def _gain_under_terms(played: Round, rho: Floats, epsilon: Floats) -> float:
    """Return the most that a node could gain by moving alone, as a share of the pool."""
    if played.pool <= 0:
        return float("inf") if epsilon.any() else 0.0
    return contest_regret(epsilon, rho, played.pool, played.terms or Terms())


def _measure_contracts(played: Round, rho: Floats, epsilon: Floats) -> tuple[float, Floats]:
    """Return the largest gain from taking or leaving a contract, and what was offered."""
    rule = played.groups[0].rule
    if not isinstance(rule, TakeOrLeave):
        raise TypeError(f"contracts are taken or left, and not played by {type(rule).__name__}")
    return rule.regret(rho, epsilon, played.pool), rule.contracts.epsilon


def ratio(size: float, scale: float) -> float:
    """Return size / scale, where a scale of zero makes any size infinite."""
    return size / scale if scale > 0 else (float("inf") if size > 0 else 0.0)


def _largest(values: Floats) -> float:
    return float(np.abs(values).max(initial=0.0))
