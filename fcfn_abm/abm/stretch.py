"""Stretches of rounds that are played in one compiled call, when nothing observes them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np

from fcfn_abm.abm import order
from fcfn_abm.abm.columns import Floats
from fcfn_abm.abm.groups import NodeGroup
from fcfn_abm.abm.play_types import Groups, Settings, Standing
from fcfn_abm.abm.round import Round
from fcfn_abm.abm.state import RoundState
from fcfn_abm.game.equilibrium import ActiveSet, active_set
from fcfn_abm.learning import LearningRule, ScalarMoves, ScalarServer
from fcfn_abm.learning.base import Rows, scalar_moves
from fcfn_abm.mechanisms import Contest
from fcfn_abm.scenario import Game, Rounds

LOADING = 50_000
"""Number of single moves that takes as long as loading compiled code."""

_FIELDS = [field.name for field in fields(RoundState)][1:]  # the round is the row index
BUDGET, PAYMENT, TOTAL, CHANGE, DISTANCE = map(
    _FIELDS.index, ("budget", "payment", "total_epsilon", "change", "distance")
)
"""Column indices of these fields in the table."""
_COUNTS = slice(_FIELDS.index("n_active"), _FIELDS.index("n_exited") + 1)  # whole numbers
_ENTRIES = 2**15  # random numbers or traces in memory at once
_MOST_ROUNDS = 64  # per call, between two updates of a progress bar

_single_moves = 0


def count_single_moves(n_moves: int) -> None:
    """Count single moves in this process, to decide when loading compiled code pays off."""
    global _single_moves  # a process-wide counter without effect on results
    _single_moves += n_moves


def is_loaded() -> bool:
    """Return whether compiled code is loaded."""
    return "fcfn_abm.abm.play" in sys.modules


def find_active(rho: Floats) -> ActiveSet:
    """Return the active set of one game: compiled if compiled code is loaded, else in NumPy."""
    if not is_loaded():
        return active_set(rho)
    active, _, _ = _load()
    members, gap = np.empty(rho.size, dtype=np.intp), np.empty(rho.size)
    n_active, tau = active.find_active(rho, members, gap)
    return members[:n_active], gap[:n_active], tau


@cache
def _load() -> tuple[Any, Any, Any]:
    """Return the modules with compiled code; the first call loads numba."""
    from fcfn_abm.abm import active, compiled, play

    return active, compiled, play


def pays(n_nodes: int) -> bool:
    """Return whether rounds with this number of nodes are played compiled."""
    return is_loaded() or n_nodes >= order.MANY or _single_moves >= LOADING


@dataclass(frozen=True)
class Forms:
    """Compiled forms of a market's rules."""

    moves: tuple[ScalarMoves, ...]
    """One form per group."""
    server: ScalarServer


@dataclass(frozen=True)
class Stretch:
    """Rounds that have been played."""

    status: int
    """Where the last round stopped: `PLAYED`, `MOVED` or `PAID`."""
    table: Floats
    """The fields of `RoundState` without the round, and the relative change of the cap, one row per
    round; the last row is valid only if its round was completed."""
    traces: Floats
    """Epsilon, payment and utility of the traced nodes, shape (n_rounds, 3, n_traced)."""
    budget: float
    """The cap after the last round, in currency."""
    budget_before: float
    """The cap before the last round, in currency."""
    answered_pool: float
    """What the nodes shared in the last round during their moves, in currency."""
    before: Floats
    """Reports before the last round."""
    calm_rounds: int
    """Number of consecutive calm rounds before the last one."""
    looked: bool
    """Whether the server remembers the reports that it saw last."""
    server_memory: Floats

    @property
    def n_rounds(self) -> int:
        """Number of rounds played, including the last one."""
        return len(self.table)


def list_rounds(table: Floats, first_round: int, **more: list[Any]) -> dict[str, list[Any]]:
    """Return the fields of `RoundState`, one value per row of a stretch's table."""
    found: dict[str, list[Any]] = {"round": list(range(first_round, first_round + len(table)))}
    found.update(zip(_FIELDS, table.T.tolist(), strict=False))
    found.update(zip(_FIELDS[_COUNTS], table.T[_COUNTS].astype(int).tolist(), strict=True))
    return found | more


def last_round(table: Floats, first_round: int) -> dict[str, Any]:
    """Return the fields of `RoundState` for the last row of a stretch's table."""
    row = table[-1].tolist()
    row[_COUNTS] = map(int, row[_COUNTS])
    return {"round": first_round + len(table) - 1, **dict(zip(_FIELDS, row, strict=False))}


@dataclass(frozen=True)
class Passed:
    """Results of rounds, for records."""

    rounds: dict[str, list[Any]]
    """The fields of `RoundState`, one number per round."""
    traces: Floats
    """Epsilon, payment and utility of the traced nodes, shape (n_rounds, 3, n_traced)."""


def forms_of(groups: Sequence[NodeGroup], n_active: int) -> tuple[ScalarMoves, ...] | None:
    """Return the compiled form of each group's rule; None if a rule has none, or learns."""
    forms = []
    for group in groups:
        rule = group.rule
        form = scalar_moves(rule, n_active)
        if form is None or rule.explores or type(rule).learn is not LearningRule.learn:
            return None
        forms.append(form)
    return tuple(forms)


def play(
    played: Round,
    forms: Forms,
    rounds: Rounds,
    game: Game,
    offer: Contest,
    unit_target: Floats,
    largest_unit_target: float,
    standing: Standing,
    server_memory: dict[str, Any],
    *,
    best_budget: float | None,
    patience: int,
    n_rounds: int,
    moving: bool,
    traced: Rows,
) -> Stretch:
    """Play rounds, starting with ``played``; its columns are changed.

    Parameters
    ----------
    played : Round
        The first round, before the server has announced its cap.
    forms : Forms
        The rules.
    rounds, game : Rounds, Game
        Settings.
    offer : Contest
        How the server pays; must be linear.
    unit_target : ndarray of float, shape (n,)
        Epsilon of the closed form per unit of the pool.
    largest_unit_target : float
        Its largest entry.
    standing : Standing
        State at the end of the last round.
    server_memory : dict
        Memory of the server's rule; not changed.
    best_budget : float or None
        B*, against which the cap is judged; None if it is not judged.
    patience : int
        Number of calm rounds after which the market is at rest.
    n_rounds : int
        Largest number of rounds to play.
    moving : bool
        Whether the game is about to change.
    traced : slice or ndarray of int
        Nodes whose reports, payments and utilities are kept for each round.
    """
    _, compiled, loop = _load()
    columns, groups, n_nodes = played.columns, played.groups, len(played.columns)
    shuffled = played.turns is not None
    n_traced = columns.epsilon[traced].size
    n_numbers = max(n_nodes if shuffled else 0, 3 * n_traced, 1)  # a round
    n_rounds = min(n_rounds, max(1, min(_MOST_ROUNDS, _ENTRIES // n_numbers)))
    numbers = played.turns.draw(played.index, n_rounds) if played.turns else np.empty((0, n_nodes))
    before = columns.epsilon if n_rounds == 1 else columns.epsilon.copy()
    columns.epsilon = columns.epsilon.copy()  # references to the old arrays stay valid
    columns.payment, columns.utility = np.empty(n_nodes), np.empty(n_nodes)
    last = server_memory.get("last_reports")
    memory = np.array([server_memory[name] for name in forms.server.memory], dtype=float)
    table = np.empty((n_rounds, len(_FIELDS) + 1))
    traces = np.empty((n_rounds, 3, n_traced))
    play_rounds = loop.play_of(
        tuple(compiled.kind_of(form) for form in forms.moves),
        forms.server.choose,
        forms.server.is_content,
        forms.server.reads_reports,
    )
    settings = Settings(
        first_round=played.index,
        in_turn=rounds.order == "in_turn",
        shuffled=shuffled,
        after_reports=rounds.payment == "after-reports",
        learns_cap=offer.learns_cap,
        pool=-1.0 if offer.pool is None else float(offer.pool),
        price=-1.0 if offer.price is None else float(offer.price),
        alpha=float(game.alpha),
        beta=float(game.beta),
        over_population=game.average_over == "population",
        largest_unit_target=largest_unit_target,
        epsilon_floor=float(game.epsilon_floor),
        tolerance=float(rounds.tolerance),
        patience=patience,
        rounds_a_turn=1,
        moving=moving,
        judged=best_budget is not None,
        best_budget=float(best_budget or 0.0),
        same_parameters=all(form.constant for form in forms.moves),
    )
    exits = [group.exit for group in groups]
    described = Groups(
        ends=np.array([group.rows.stop for group in groups]),
        decided=np.zeros(len(groups), dtype=bool),
        reentry=np.array([settings.reentry for settings in exits]),
        leaves_on_loss=np.array([settings.criterion == "loss" for settings in exits]),
        patience=np.array([settings.patience for settings in exits]),
    )
    status, n_played, budget, calm_before, looked, budget_before, pool = play_rounds(
        columns.rho,
        unit_target,
        columns.epsilon,
        columns.payment,
        columns.utility,
        columns.idle_rounds,
        columns.exit_round,
        tuple(
            group.memory[form.memory] if form.memory else compiled.NOTHING
            for group, form in zip(groups, forms.moves, strict=True)
        ),
        tuple(form.parameters for form in forms.moves),
        described,
        numbers,
        np.arange(n_nodes, dtype=np.int32),
        before,
        before if last is None else last,
        np.empty(n_nodes if forms.server.reads_reports else 0),
        forms.server.parameters,
        memory,
        last is not None,
        settings,
        standing,
        table,
        traced if isinstance(traced, np.ndarray) else np.arange(*traced.indices(n_nodes)),
        traces,
    )
    return Stretch(
        status,
        table[:n_played],
        traces[:n_played],
        budget,
        budget_before,
        pool,
        before,
        calm_before,
        looked,
        memory,
    )
