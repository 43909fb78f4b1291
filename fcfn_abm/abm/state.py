"""Measurements at the end of a round."""

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
    """Measurements of a round, taken while its reports are in place.

    ``n_active``, ``n_inactive`` and ``n_exited`` sum to the number of nodes in the market: nodes
    leave at the end of a round, after its reports are paid, and count as exited from the next round
    on.
    """

    round: int
    """Number of the round, from 1."""
    budget: float
    """Announced payment cap B, in currency."""
    total_epsilon: float
    """S, the sum of all reports."""
    mean_epsilon: float
    """eps_g, averaged as ``game.average_over`` defines."""
    n_active: int
    """Number of nodes that take part: their share is above `LEAST_SHARE` of the largest share."""
    n_inactive: int
    """Number of the other nodes in the market."""
    n_exited: int
    """Number of nodes that had left before this round, and did not return in it."""
    payment: float
    """Payment of the server, in currency."""
    node_utility: float
    """Sum of the nodes' utilities, in currency."""
    server_utility: float
    """Utility of the server, in currency."""
    welfare: float
    """Sum of all utilities, including an agency's, in currency."""
    exploitability: float
    """Largest gain of a node by moving alone, as a share of B."""
    change: float
    """Largest change of an epsilon since the last round, relative to the largest epsilon."""
    distance: float
    """Largest distance of an epsilon to the closed form at this B (without a contest: to the
    contracts), relative to its largest epsilon."""


@dataclass(frozen=True)
class MovingState(RoundState):
    """A round's state, with the current equilibrium, if events change the game."""

    equilibrium_budget: float
    """B* of the current game (41), in currency."""
    equilibrium_n_active: int
    """Number of nodes that take part in the closed form, under any cap."""
    equilibrium_total_epsilon: float
    """S of the closed form at this round's B."""


@dataclass(frozen=True)
class ChurnState(RoundState):
    """A round's state, with the population and its equilibrium, if there is churn."""

    n_present: int
    """Number of nodes in the market."""
    n_arrived: int
    """Number of nodes that arrived in this round."""
    n_departed: int
    """Number of nodes that departed for good in this round."""
    equilibrium_budget: float
    """B* of the nodes in the market (41), in currency."""
    equilibrium_n_active: int
    """Number of these nodes that take part in the closed form, under any cap."""
    equilibrium_total_epsilon: float
    """S of their closed form at this round's B."""


@dataclass(frozen=True)
class Spending:
    """Payments over all rounds, and the money left."""

    money_spent: float
    """Payments of the server so far, including this round, in currency."""
    money_left: float
    """Rest of ``game.total_budget`` after this round, in currency."""


@dataclass(frozen=True)
class SpendingState(Spending, MovingState):
    """A round's state, if the server's money is limited."""


@dataclass(frozen=True)
class SpendingChurnState(Spending, ChurnState):
    """The same with churn."""


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
        The round, at its end.
    before : ndarray of float, shape (n,)
        Reports of the last round.
    server : ParameterServer
        The server, after its announcement and payments.
    contest : Equilibrium or None
        The closed form at B = 1 of the nodes in the market; None with contracts, and under terms
        other than the paper's.
    churn : Turnover or None
        Arrivals and departures, if there is churn.
    moving : bool, default False
        Whether the game changes during the market.
    solved : ContestEquilibrium, optional
        The equilibrium at this round's pool, under terms other than the paper's.
    best_cap : float, default 0
        Best cap under these terms, in currency.
    spending : Spending, optional
        Payments so far, if the money is limited.
    identities : ndarray of int, optional
        Number of identities of each node in the market.
    """
    columns, game = played.columns, server.game
    n_nodes = int(np.count_nonzero(columns.present))
    n_active = int(np.count_nonzero(takes_part(columns.epsilon)))
    n_exited = int(np.count_nonzero(columns.find_exited(played.index)))
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
    """Return the class of the states that a market measures."""
    if spending:
        return SpendingChurnState if churn else SpendingState
    return ChurnState if churn else MovingState if moving else RoundState


def expect_equilibrium(contest: Equilibrium, game: Game) -> tuple[float, int]:
    """Return B* (41), and the number of participants, for the closed form at B = 1."""
    n_averaged = averaged_nodes(game.average_over, contest.epsilon)
    best = best_budget(contest.tau, contest.n_active, n_averaged, game.alpha, game.beta)
    return best, contest.n_active


def _measure_moves(
    played: Round,
    before: Floats,
    contest: Equilibrium | None,
    solved: ContestEquilibrium | None,
) -> tuple[float, float, float]:
    """Return exploitability, change and distance, over the nodes in the market."""
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
    """Return the largest gain of a node by moving alone, as a share of the pool."""
    if played.pool <= 0:
        return float("inf") if epsilon.any() else 0.0
    return contest_regret(epsilon, rho, played.pool, played.terms or Terms())


def _measure_contracts(played: Round, rho: Floats, epsilon: Floats) -> tuple[float, Floats]:
    """Return the largest gain by accepting or refusing a contract, and the offered epsilon."""
    rule = played.groups[0].rule
    if not isinstance(rule, TakeOrLeave):
        raise TypeError(f"{type(rule).__name__} does not support contracts")
    return rule.regret(rho, epsilon, played.pool), rule.contracts.epsilon


def ratio(size: float, scale: float) -> float:
    """Return size / scale; a scale of zero makes any size infinite."""
    return size / scale if scale > 0 else (float("inf") if size > 0 else 0.0)


def _largest(values: Floats) -> float:
    return float(np.abs(values).max(initial=0.0))
