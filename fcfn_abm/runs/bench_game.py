"""One population of a benchmark: the outcome of each mechanism on equal terms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fcfn_abm import build
from fcfn_abm.build import BenchCell
from fcfn_abm.errors import FcfnError
from fcfn_abm.game import averaged_nodes, welfare
from fcfn_abm.mechanisms import Outcome
from fcfn_abm.mechanisms.matching import Match, match_outcome
from fcfn_abm.mechanisms.regret import largest_gain
from fcfn_abm.population import Population
from fcfn_abm.rng import stream
from fcfn_abm.scenario import Scenario
from fcfn_abm.training import ImageData

type Floats = npt.NDArray[np.float64]

_ROUNDING = 1e-9  # tolerance by which payments may exceed the cap


@dataclass(frozen=True)
class BenchGame:
    """One population of a cell, with its random numbers."""

    cell: BenchCell
    replication: int
    replica: Scenario
    population: Population
    images: ImageData | None
    _references: dict[str, float] = field(default_factory=dict)

    @classmethod
    def draw(cls, cell: BenchCell, replication: int) -> Self:
        """Draw a population of a cell; the same for all mechanisms and caps."""
        replica = cell.replica(replication)
        images = build.load_images(replica) if replica.training else None
        return cls(cell, replication, replica, cell.draw_population(replication, images), images)

    def key(self, mode: str, mechanism: str) -> dict[str, Any]:
        """Return the columns that identify a row of the table."""
        return {
            "costs": self.cell.costs,
            "data": self.cell.data,
            "budget": self.cell.budget,
            "mode": mode,
            "mechanism": mechanism,
            "replication": self.replication,
        }

    def match(self, mode: str, name: str) -> Match:
        """Return the outcome of a mechanism, set as the mode requires.

        Raises
        ------
        FcfnError
            If it cannot price this population.
        """
        budget = self.cell.budget
        mechanism = build.create_mechanism(self.replica, name)
        game = build.pricing_game(self.replica, mechanism, self.population, budget)
        tolerance = self.cell.bench.tolerance

        def chance() -> np.random.Generator:
            return self._chance(name)

        if mode == "equal-epsilon":
            aim = self._reference_epsilon()
            return match_outcome(mechanism, game, chance, "mean_epsilon", aim, tolerance)
        if mode == "equal-cap":
            outcome = mechanism.outcome(game, chance())
            if outcome.server_payment <= budget * (1.0 + _ROUNDING):
                return Match(outcome, mechanism, game, {}, True)
        return match_outcome(mechanism, game, chance, "server_payment", budget, tolerance)

    def _chance(self, name: str) -> np.random.Generator:
        """Return a mechanism's random generator, which is independent of its setting."""
        return stream(self.replica.seed, "mechanism", name)

    def _reference_epsilon(self) -> float:
        """Return the mean epsilon that the scenario's mechanism buys under the cap."""
        if "mean_epsilon" not in self._references:
            own = self.replica.mechanism.kind
            outcome = build.price_mechanism(self.replica, own, self.population, self.cell.budget)
            self._references["mean_epsilon"] = float(outcome.mean_epsilon)
        return self._references["mean_epsilon"]

    def measure(self, mode: str, name: str) -> dict[str, Any]:
        """Return the numbers of a row, or none if the mode is not reached."""
        about: dict[str, Any] = {"seed": self.replica.seed, "n_nodes": self.population.n_nodes}
        try:
            match = self.match(mode, name)
        except FcfnError as error:
            return {**about, "status": "no-solution", "reason": " ".join(str(error).split())}
        settings = ", ".join(f"{knob} = {value!r}" for knob, value in match.settings.items())
        about["settings"] = settings
        if not match.reached:
            return {**about, "status": "not-reachable", "reason": match.reason}
        outcome = match.outcome
        facts = {"status": str(outcome.status), "reason": str(outcome.reason)}
        if outcome.status == "no-solution":
            return {**about, **facts}
        return {**about, **facts, **self._measure(match, name)}

    def _measure(self, match: Match, name: str) -> dict[str, Any]:
        outcome, game = match.outcome, self.replica.game
        nodes = self.population
        rho = nodes.true_rho if match.mechanism.reports == "cost" else nodes.rho
        judged = welfare(
            outcome.epsilon,
            rho,
            outcome.payment,
            game.alpha,
            game.beta,
            game.average_over,
            match.game.terms,
        )
        paid = float(outcome.payment.sum())
        return {
            "n_active": outcome.n_active,
            "n_losing": judged.n_losing,
            "participation": outcome.n_active / outcome.epsilon.size,
            "effective_number": float(averaged_nodes("effective", outcome.epsilon)),
            "total_epsilon": float(outcome.epsilon.sum()),
            "largest_epsilon": float(outcome.epsilon.max()),
            "mean_epsilon": float(outcome.mean_epsilon),
            "server_payment": float(outcome.server_payment),
            "node_utility": float(outcome.node_utility.sum()),
            "server_utility": float(outcome.server_utility),
            "agency_utility": float(outcome.agency_utility),
            "welfare": float(judged.total),
            "rent": 1.0 - float(judged.rent_dissipation) if paid > 0 else None,
            "regret": None
            if match.game.terms
            else largest_gain(match.mechanism, match.game, outcome, lambda: self._chance(name)),
            **self._left_out(outcome),
        }

    def _left_out(self, outcome: Outcome) -> dict[str, Any]:
        """Return the participation of the most expensive third, and of that with unusual labels."""
        rank = np.argsort(np.argsort(self.population.true_rho, kind="stable"))
        n_nodes, outside = rank.size, ~outcome.active
        rank_of_outside = float(rank[outside].mean()) / (n_nodes - 1) if outside.any() else None
        return {
            "left_out_rank": rank_of_outside,
            "expensive_third": _share_of_third(outcome.active, self.population.true_rho),
            "unusual_third": _share_of_third(outcome.active, self.population.held.label_divergence),
        }


def _share_of_third(active: npt.NDArray[np.bool_], by: Floats | None) -> float | None:
    """Return the participation of the third of the nodes with the highest ranks."""
    if by is None:
        return None
    third = max(by.size // 3, 1)
    return float(active[np.argsort(by, kind="stable")[-third:]].mean())
