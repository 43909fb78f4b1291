"""Effects of coalitions, split identities and false costs on all parties."""

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
    """Utilities with manipulation minus utilities without it, in currency.

    Both in closed form, under the same cap: the scenario's, or B* of the truthful nodes.
    """

    n_manipulators: int
    """Number of nodes that collude, have several identities, or report a false cost."""
    manipulators_gain: float
    """Change of the utility of these nodes together."""
    outsiders_gain: float
    """Change of the utility of all other nodes together."""
    server_gain: float
    """Change of the utility of the server."""
    paid: float
    """Total payment of the server without manipulation."""
    more_paid: float
    """Change of the server's total payment."""


def measure_manipulation(
    scenario: Scenario, population: Population | None = None
) -> ManipulationEffect | None:
    """Return the effects of a scenario's coalitions, split identities or false costs.

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
        None without any manipulation.
    """
    population = draw_population(scenario) if population is None else population
    kind = scenario.mechanism.kind
    asked = create_mechanism(scenario).reports == "cost"
    lies = population.misreports if asked else np.zeros(population.n_nodes, dtype=bool)
    agreed = population.manipulation
    if agreed is None and not lies.any():
        return None
    # without manipulation, in the same order of nodes, so that random draws are the same
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
