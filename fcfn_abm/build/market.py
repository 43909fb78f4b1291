"""The market of a scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fcfn_abm.population import Population
from fcfn_abm.scenario import Scenario

if TYPE_CHECKING:
    from fcfn_abm.abm import PrivacyMarket


def create_market(scenario: Scenario, population: Population) -> PrivacyMarket:
    """Build the market of a scenario, for a recorder that keeps the traces."""
    from fcfn_abm.abm import PrivacyMarket

    return PrivacyMarket(scenario, rho=population.rho, collect_nodes=False)
