"""A mechanism with coalitions and multiple identities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.game import averaged_nodes, best_linear_budget, server_utility
from fcfn_abm.game.stackelberg import average_per_node
from fcfn_abm.mechanisms.base import Contest, Contracts, Mechanism, Offer, Outcome, PricingGame
from fcfn_abm.mechanisms.claims import Claims
from fcfn_abm.population import Holdings
from fcfn_abm.population.manipulation import Counts, Manipulation, Places, split_reports
from fcfn_abm.scenario.schema import CONTESTS

type Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Manipulated(Mechanism):
    """A mechanism that sees the reporting nodes, each with its identities.

    In a contest a node with several identities splits its epsilon into equal parts, and chooses
    their sum, because it is paid for all of them. Other mechanisms see each identity as a separate
    node with the cost of the node behind it.

    Parameters
    ----------
    mechanism : Mechanism
        The mechanism that sets payments.
    kind : str
        Its registered name.
    manipulation : Manipulation
        Coalitions and identities.
    """

    mechanism: Mechanism
    kind: str
    manipulation: Manipulation

    @property
    def claims(self) -> Claims:
        """Claims of the mechanism, which do not cover coalitions and identities."""
        return self.mechanism.claims

    @property
    def reports(self) -> Any:  # type: ignore[override]
        """What nodes report."""
        return self.mechanism.reports

    @property
    def needs_data(self) -> bool:
        """Whether it uses the nodes' data."""
        return self.mechanism.needs_data

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price one round of the reporting nodes; the others sell nothing."""
        if self.kind in CONTESTS:
            return self._price_contest(game, rng)
        rows = self.manipulation.list_identities()
        found = self._with_rows(rows).outcome(self._game_of(game, rows), rng)
        fold = self._folder(rows, game.rho.size)
        epsilon = fold(found.epsilon)
        return replace(
            found,
            epsilon=epsilon,
            payment=fold(found.payment),
            active=epsilon > 0,
            node_utility=fold(found.node_utility),
        )

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Offer:
        """Return the server's offer, with voluntary participation."""
        if self.kind in CONTESTS:
            return self.mechanism.offer(game, rng)
        rows = self.manipulation.list_identities()
        offer = self._with_rows(rows).offer(self._game_of(game, rows), rng)
        if isinstance(offer, Contest):
            return offer
        fold = self._folder(rows, game.rho.size)
        parts = (None if one is None else fold(one) for one in (offer.fee, offer.margin))
        return Contracts(fold(offer.epsilon), *parts)

    def _price_contest(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price a contest in which each node chooses the sum of its identities' epsilons.

        With an exponent r, k equal parts of epsilon have the score ``k**(1 - r) * epsilon**r``,
        which is that of ``k**(1 / r - 1) * epsilon`` at the unit cost ``rho * k**(1 - 1 / r)``.
        """
        rows = np.flatnonzero(~self.manipulation.silent)
        identities = self.manipulation.identities[rows]
        exponent = getattr(self.mechanism, "exponent", 1.0)
        lift = identities.astype(float) ** (1.0 / exponent - 1.0)
        mechanism = self._with_rows(rows)
        own = self._game_of(game, rows)
        own = replace(own, rho=own.rho / lift)
        cap = game.budget
        if cap is None:
            unit = mechanism.outcome(replace(own, budget=1.0), rng).epsilon / lift
            bought = self._mean(game, unit, identities)
            cap = best_linear_budget(bought, game.alpha, game.beta)
        found = mechanism.outcome(replace(own, budget=cap), rng)
        reports = found.epsilon / lift
        mean_epsilon = self._mean(game, reports, identities)
        fold = self._folder(rows, game.rho.size)
        epsilon = fold(reports)
        return replace(
            found,
            epsilon=epsilon,
            payment=fold(found.payment),
            active=epsilon > 0,
            node_utility=fold(found.node_utility),
            mean_epsilon=mean_epsilon,
            server_utility=server_utility(
                mean_epsilon, game.alpha, game.beta, found.server_payment
            ),
        )

    @staticmethod
    def _mean(game: PricingGame, epsilon: Floats, identities: Counts) -> float:
        """Return the mean epsilon of all identities that report."""
        n_averaged = averaged_nodes(game.average_over, split_reports(epsilon, identities))
        return float(average_per_node(float(epsilon.sum()), n_averaged))

    def _with_rows(self, rows: Places) -> Mechanism:
        """Return the mechanism with its per-node options reordered to some rows."""
        listed = {
            name: tuple(np.asarray(getattr(self.mechanism, name))[rows].tolist())
            for name in ("weights", "accepted")
            if getattr(self.mechanism, name, None)
        }
        return replace(self.mechanism, **listed) if listed else self.mechanism  # type: ignore[type-var]

    @staticmethod
    def _game_of(game: PricingGame, rows: Places) -> PricingGame:
        held, reported = game.held, game.reported_cost
        shards = tuple(held.shards[row] for row in rows) if held.shards else ()
        divergence = held.label_divergence
        return replace(
            game,
            rho=game.rho[rows],
            budget=game.budget,
            reported_cost=None if reported is None else reported[rows],
            held=Holdings(shards, None if divergence is None else divergence[rows]),
        )

    @staticmethod
    def _folder(rows: Places, n_nodes: int) -> Any:
        """Return a function that sums values of identities by the node behind them."""

        def fold(values: Floats) -> Floats:
            return np.bincount(rows, weights=values, minlength=n_nodes)

        return fold
