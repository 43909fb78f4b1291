"""Inputs and results of the compiled loop over rounds."""

from __future__ import annotations

from typing import Any, NamedTuple

PLAYED, MOVED, PAID = range(3)
"""Where the last round of a stretch stopped: at its end, or when numbers left their range after the
moves or after the payments; NumPy then runs the rest of the round and raises the error."""


class Settings(NamedTuple):
    """Settings of a stretch of rounds."""

    first_round: int
    in_turn: bool
    shuffled: bool
    """Whether nodes move in turn, in a new order each round."""
    after_reports: bool
    """Whether the server sets the cap from the reports of a round, instead of before them."""
    learns_cap: bool
    pool: float
    """What the nodes share, in currency; negative if it is the cap."""
    price: float
    """Server's price of a unit of epsilon; negative if it pays the nodes."""
    alpha: float
    beta: float
    over_population: bool
    """Whether eps_g averages over all nodes, instead of the nodes that take part."""
    largest_unit_target: float
    """Largest epsilon of the closed form per unit of the pool."""
    epsilon_floor: float
    tolerance: float
    patience: int
    rounds_a_turn: int
    moving: bool
    """Whether the game is about to change, so that the market cannot be at rest."""
    judged: bool
    """Whether the cap is judged against the best cap."""
    best_budget: float
    """B*, in currency."""
    same_parameters: bool
    """Whether rules ignore the number of participants; otherwise a stretch ends when it changes."""


class Groups(NamedTuple):
    """Settings of each group; arrays of shape (n_groups,)."""

    ends: Any
    decided: Any
    """False: all rules move without decisions made in advance."""
    reentry: Any
    leaves_on_loss: Any
    patience: Any


class Standing(NamedTuple):
    """State of a market between two rounds."""

    budget: float
    """Payment cap, in currency."""
    server_utility: float
    """Server's utility in the last round, in currency."""
    n_active: int
    """Number of nodes that took part in it."""
    calm_rounds: int
    """Number of consecutive calm rounds."""
