"""What nodes gain that agree, come as several or report false costs, and whom they hurt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fcfn_abm.build.parts import create_mechanism, draw_population, price_mechanism
from fcfn_abm.mechanisms import Outcome
from fcfn_abm.population import Population
from fcfn_abm.population.manipulation import Manipulation
from fcfn_abm.scenario import Scenario


@dataclass(frozen=True)
class ManipulationEffect:
    """Utilities as nodes play less those of the same nodes if they did not, in currency.

    Both in closed form, under one cap: the scenario's, or B* of the nodes that do not manipulate.
    """

    n_manipulators: int
    """How many nodes agree, come as several, or report a false cost."""
    manipulators_gain: float
    """Of these nodes together."""
    outsiders_gain: float
    """Of all other nodes together."""
    server_gain: float
    """Of the server."""
    paid: float
    """What the server pays in all if nobody manipulates, for comparison."""
    more_paid: float
    """What it pays more than that as nodes play."""


def measure_manipulation(
    scenario: Scenario, population: Population | None = None
) -> ManipulationEffect | None:
    """Return what a scenario's coalitions, split identities or false costs gain and lose whom.

    Parameters
    ----------
    scenario : Scenario
        With ``[population.coalitions]``, ``[population.sybils]``, or with
        ``[population.misreport]`` and a mechanism that asks for costs.
    population : Population, optional
        Its nodes, as :func:`draw_population` draws them.

    Returns
    -------
    ManipulationEffect or None
        None where nobody does any of these.
    """
    population = draw_population(scenario) if population is None else population
    kind = scenario.mechanism.kind
    asked = create_mechanism(scenario).reports == "cost"
    lies = population.misreports if asked else np.zeros(population.n_nodes, dtype=bool)
    agreed = population.manipulation
    if agreed is None and not lies.any():
        return None
    # nobody manipulates, in the order of the others: mechanisms that draw then draw the same
    everybody = Manipulation(np.zeros_like(lies), np.ones(lies.size, dtype=np.int64), lies)
    played = replace(population, manipulation=agreed or everybody)
    truthful = played.without_misreports() if asked else played
    fair = replace(truthful, manipulation=(agreed or everybody).without_manipulation)
    cap = scenario.game.budget
    if cap is None:
        cap = price_mechanism(scenario, "stackelberg", fair, None).server_payment
    before = price_mechanism(scenario, kind, fair, cap)
    after = price_mechanism(scenario, kind, played, cap)
    return _compare(before, after, lies | (agreed or everybody).manipulators)


def _compare(before: Outcome, after: Outcome, manipulators: np.ndarray) -> ManipulationEffect:
    gained = after.node_utility - before.node_utility
    return ManipulationEffect(
        int(np.count_nonzero(manipulators)),
        float(gained[manipulators].sum()),
        float(gained[~manipulators].sum()),
        float(after.server_utility - before.server_utility),
        float(before.server_payment),
        float(after.server_payment - before.server_payment),
    )
