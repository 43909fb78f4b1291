"""Stretches of rounds that are played in one compiled call, where nothing looks in between."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from fcfn_abm.abm import order
from fcfn_abm.abm.columns import Floats
from fcfn_abm.abm.groups import NodeGroup
from fcfn_abm.abm.play_types import Groups, Settings, Standing
from fcfn_abm.abm.round import Round
from fcfn_abm.abm.state import RoundState
from fcfn_abm.learning import LearningRule, ScalarMoves, ScalarServer
from fcfn_abm.learning.base import Rows, scalar_moves
from fcfn_abm.mechanisms import Contest
from fcfn_abm.scenario import Game, Rounds

LOADING = 50_000
"""Moves of single agents that take as long as loading compiled code does."""

_FIELDS = [field.name for field in fields(RoundState)][1:]  # the round is the place in the table
PAYMENT, TOTAL = _FIELDS.index("payment"), _FIELDS.index("total_epsilon")
"""Their places in the table."""
_COUNTS = ("n_active", "n_inactive", "n_exited")
_ENTRIES = 2**15  # of random numbers, or of traces, that are held at once
_MOST_ROUNDS = 64  # in a call, between two looks of a progress bar

_single_moves = 0


def count_single_moves(n_moves: int) -> None:
    """Count moves by single agents in this process, after which loading compiled code pays."""
    global _single_moves  # a fact about the process, which changes no number
    _single_moves += n_moves


def pays(n_nodes: int) -> bool:
    """Return whether rounds of so many nodes are played compiled."""
    loaded = "fcfn_abm.abm.play" in sys.modules
    return loaded or n_nodes >= order.MANY or _single_moves >= LOADING


@dataclass(frozen=True)
class Forms:
    """The rules of a market in their compiled forms."""

    moves: tuple[ScalarMoves, ...]
    """Of each group."""
    server: ScalarServer


@dataclass(frozen=True)
class Stretch:
    """Rounds that have been played."""

    status: int
    """How far the last round came: `PLAYED`, `MOVED` or `PAID`."""
    table: Floats
    """The fields of `RoundState` but the round, and the relative change of the cap, a row a round;
    the last row says nothing unless its round came to its end."""
    traces: Floats
    """Epsilon, payment and utility of the traced nodes, shape (n_rounds, 3, n_traced)."""
    budget: float
    """The cap after the last round, in currency."""
    budget_before: float
    """The cap before the last round, in currency."""
    answered_pool: float
    """What the nodes shared in the last round as they moved, in currency."""
    before: Floats
    """Reports before the last round."""
    calm_rounds: int
    """How many rounds in a row before the last one were calm."""
    looked: bool
    """Whether the server remembers the reports that it saw last."""
    server_memory: Floats

    @property
    def n_rounds(self) -> int:
        """How many rounds were played, the last one included."""
        return len(self.table)

    def columns(self, first_round: int, n_rounds: int) -> dict[str, list[Any]]:
        """Return the fields of `RoundState` in the first so many rounds."""
        table = self.table[:n_rounds].T.tolist()
        found: dict[str, list[Any]] = {"round": list(range(first_round, first_round + n_rounds))}
        found.update(zip(_FIELDS, table, strict=False))
        for name in _COUNTS:
            found[name] = [int(number) for number in found[name]]
        return found


@dataclass(frozen=True)
class Passed:
    """What rounds have shown, for records."""

    rounds: dict[str, list[Any]]
    """The fields of `RoundState`, a number a round."""
    traces: Floats
    """Epsilon, payment and utility of the traced nodes, shape (n_rounds, 3, n_traced)."""


def forms_of(groups: Sequence[NodeGroup], n_active: int) -> tuple[ScalarMoves, ...] | None:
    """Return the compiled form of each group's rule; None where a rule has none, or learns."""
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
    """Play rounds from that of ``played`` on; its columns change.

    Parameters
    ----------
    played : Round
        The first of them, before the server has announced its cap.
    forms : Forms
        The rules.
    rounds, game : Rounds, Game
        Settings.
    offer : Contest
        How the server pays; linear.
    unit_target : ndarray of float, shape (n,)
        Epsilon of the closed form per unit of the pool.
    largest_unit_target : float
        Its largest entry.
    standing : Standing
        How the last round ended.
    server_memory : dict
        What the server's rule remembers; not changed.
    best_budget : float or None
        B*, by which the cap is judged; None where it is not.
    patience : int
        After how many calm rounds the market is at rest.
    n_rounds : int
        Most rounds to play.
    moving : bool
        Whether the game is about to change.
    traced : slice or ndarray of int
        Of which nodes the reports, payments and utilities of each round are kept.
    """
    from fcfn_abm.abm import compiled  # loads numba
    from fcfn_abm.abm import play as loop

    columns, groups, n_nodes = played.columns, played.groups, len(played.columns)
    shuffled = played.turns is not None
    n_traced = columns.epsilon[traced].size
    n_numbers = max(n_nodes if shuffled else 0, 3 * n_traced, 1)  # a round
    n_rounds = min(n_rounds, max(1, min(_MOST_ROUNDS, _ENTRIES // n_numbers)))
    numbers = played.turns.draw(played.index, n_rounds) if played.turns else np.empty((0, n_nodes))
    before = columns.epsilon if n_rounds == 1 else columns.epsilon.copy()
    columns.epsilon = columns.epsilon.copy()  # whoever holds the old arrays keeps them
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
    with np.errstate(all="ignore"):  # in plain Python, which numba's loops do not heed
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
