"""Costs and limits of taking part, as given by a scenario."""

from __future__ import annotations

import numpy as np

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import Terms
from fcfn_abm.scenario import Scenario


def read_terms(scenario: Scenario) -> Terms | None:
    """Return the terms of a scenario's game; None for those of the paper.

    Raises
    ------
    InvalidGameError
        If a node's cap is below the reserve; or if caps were to be read from a file, but were not
        read.
    """
    people, game = scenario.population, scenario.game
    cap = people.epsilon_max
    if isinstance(cap, str):
        raise InvalidGameError(
            f"epsilon_max = {cap!r} requires a scenario file with costs from a CSV file; "
            "alternatively, list one value per node."
        )
    terms = Terms(
        people.cost or "linear",
        np.inf if cap is None else np.asarray(cap, dtype=float),
        game.fixed_cost or 0.0,
        game.reserve or 0.0,
        game.epsilon_floor,
    )
    return None if terms.is_paper else terms
