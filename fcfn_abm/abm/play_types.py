"""What the compiled loop over rounds is given, and how it ends."""

from __future__ import annotations

from typing import Any, NamedTuple

PLAYED, MOVED, PAID = range(3)
"""How far the last round of a stretch came: to its end; or numbers left their range after the
moves, or after the payments, and the rest of the round is for NumPy, which says what is wrong."""


class Settings(NamedTuple):
    """What stands for a stretch of rounds."""

    first_round: int
    in_turn: bool
    shuffled: bool
    """Whether the order of moves in turn is another one in each round."""
    after_reports: bool
    """Whether the server sets the cap from the reports of a round, and not before them."""
    learns_cap: bool
    pool: float
    """What the nodes share, in currency; below zero where it is the cap."""
    price: float
    """What the server pays for a unit of epsilon; below zero where it pays the nodes."""
    alpha: float
    beta: float
    over_population: bool
    """Whether eps_g averages over all nodes, and not over those that take part."""
    largest_unit_target: float
    """Largest epsilon of the closed form per unit of the pool."""
    epsilon_floor: float
    tolerance: float
    patience: int
    rounds_a_turn: int
    moving: bool
    """Whether the game is about to change: nothing is at rest then."""
    judged: bool
    """Whether the cap is judged by the best one."""
    best_budget: float
    """B*, in currency."""
    same_parameters: bool
    """Whether rules do not ask how many nodes take part; else a stretch ends when that changes."""


class Groups(NamedTuple):
    """What tells one group from another; arrays of shape (n_groups,)."""

    ends: Any
    decided: Any
    """False: all rules move by themselves."""
    reentry: Any
    leaves_on_loss: Any
    patience: Any


class Standing(NamedTuple):
    """Where a market stands between two rounds."""

    budget: float
    """Payment cap, in currency."""
    server_utility: float
    """What the last round left the server, in currency."""
    n_active: int
    """How many nodes took part in it."""
    calm_rounds: int
    """For how many rounds in a row the market has been calm."""
