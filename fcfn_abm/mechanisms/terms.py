"""What a scenario says about the costs of taking part."""

from __future__ import annotations

import numpy as np

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import Terms
from fcfn_abm.scenario import Scenario


def read_terms(scenario: Scenario) -> Terms | None:
    """Return the terms of a scenario's game; None where they are the paper's.

    Raises
    ------
    InvalidGameError
        If a node can sell less than the least that is paid; or if the most that nodes can sell was
        to be read from a file, and was not.
    """
    people, game = scenario.population, scenario.game
    cap = people.epsilon_max
    if isinstance(cap, str):
        raise InvalidGameError(
            f"epsilon_max = {cap!r} is read with a scenario file, whose costs come from a file; "
            "a list has one value for each node."
        )
    terms = Terms(
        people.cost or "linear",
        np.inf if cap is None else np.asarray(cap, dtype=float),
        game.fixed_cost or 0.0,
        game.reserve or 0.0,
        game.epsilon_floor,
    )
    return None if terms.is_paper else terms
