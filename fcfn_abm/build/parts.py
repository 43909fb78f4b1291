"""What a scenario stands for: population, data, market, and what each mechanism leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fcfn_abm.build.registries import create
from fcfn_abm.game import StackelbergEquilibrium, stackelberg_equilibrium
from fcfn_abm.mechanisms import Outcome, price
from fcfn_abm.population import draw_rho, misreport_factors
from fcfn_abm.rng import stream
from fcfn_abm.scenario import Scenario
from fcfn_abm.training import label_divergence

if TYPE_CHECKING:
    from fcfn_abm.abm import PrivacyMarket
    from fcfn_abm.training import ImageData
    from fcfn_abm.training.partition import Rows

type Floats = npt.NDArray[np.float64]


def population(scenario: Scenario) -> Floats:
    """Draw what a unit of reported epsilon costs each node of a scenario, shape (n_nodes,).

    That is a node's unit privacy cost, or as many times less as it misreports.
    """
    law = create(scenario, ("population", "rho"))
    chance = stream(scenario.seed, "costs")
    rho = draw_rho(law, scenario.population.n_nodes, chance, lambda: _divergence(scenario))
    return rho / misreport(scenario)


def dealt_data(scenario: Scenario) -> tuple[ImageData, list[Rows]]:
    """Load the images of a scenario with training, and deal them: return each node's rows too."""
    data = create(scenario, ("training", "data")).load(stream(scenario.seed, "images"))
    shards = create(scenario, ("training", "partition")).split(
        data.train_labels,
        scenario.population.n_nodes,
        stream(scenario.seed, "partition"),
        data.train_writers,
    )
    return data, shards


def _divergence(scenario: Scenario) -> Floats:
    data, shards = dealt_data(scenario)
    return label_divergence(data.train_labels, shards)


def misreport(scenario: Scenario) -> Floats:
    """Draw reported over spent epsilon of a scenario's nodes, shape (n_nodes,); one if honest."""
    n_nodes, settings = scenario.population.n_nodes, scenario.population.misreport
    if settings is None:
        return np.ones(n_nodes)
    chance = stream(scenario.seed, "misreports")
    return misreport_factors(n_nodes, settings.share, settings.factor, chance)


def honest(scenario: Scenario) -> Scenario:
    """Return the scenario in which every node spends what it reports."""
    people = scenario.population.model_copy(update={"misreport": None})
    return scenario.model_copy(update={"population": people})


def closed_form(scenario: Scenario, rho: Floats | None = None) -> StackelbergEquilibrium:
    """Solve a scenario's game without playing it."""
    game = scenario.game
    rho = population(scenario) if rho is None else rho
    return stackelberg_equilibrium(rho, game.alpha, game.beta, game.average_over)


def market(scenario: Scenario) -> PrivacyMarket:
    """Build the market of a scenario, for a recorder that keeps the traces."""
    from fcfn_abm.abm import PrivacyMarket

    return PrivacyMarket(scenario, rho=population(scenario), collect_nodes=False)


def reference(scenario: Scenario, rho: Floats | None = None) -> Outcome:
    """Price a scenario's nodes with its own mechanism: where play should come to rest."""
    rho = population(scenario) if rho is None else rho
    return rival(scenario, scenario.mechanism.kind, rho, scenario.cap)


def rival(scenario: Scenario, mechanism: str, rho: Floats, budget: float | None) -> Outcome:
    """Price the same nodes with any mechanism under a given cap (None: B*, or its own choice).

    Where it is the scenario's own mechanism it has the scenario's options, else its defaults.
    """
    game, own = scenario.game, scenario.mechanism
    return price(
        mechanism,
        rho,
        alpha=game.alpha,
        beta=game.beta,
        budget=budget,
        average_over=game.average_over,
        rng=stream(scenario.seed, "mechanism", mechanism),
        **(own.options if own.kind == mechanism else {}),
    )


