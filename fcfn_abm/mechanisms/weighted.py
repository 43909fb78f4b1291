"""The contest with weights, which may depend on a node's data."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fcfn_abm.errors import InvalidGameError
from fcfn_abm.game import averaged_nodes, best_linear_budget, nash_equilibrium
from fcfn_abm.mechanisms.base import (
    MECHANISMS,
    Contest,
    Floats,
    Mechanism,
    Outcome,
    PricingGame,
    settle,
    settle_contest,
)
from fcfn_abm.mechanisms.claims import Claims
from fcfn_abm.scenario.schema import NotNegative, Positive


@MECHANISMS.register("weighted")
class Weighted(Mechanism):
    """Nodes share the cap in proportion to weight * epsilon: the server pays more for some data.

    Notes
    -----
    In the scores ``x_i = w_i epsilon_i`` this is the contest of Zhou et al. 2023 with the unit
    costs ``rho_i / w_i``, so that their closed form holds. Epsilon is proportional to the cap, and
    (41) holds with another kappa.

    References
    ----------
    Zhou et al. 2023 mention an incentive that depends on data as future work.
    """

    by: (
        Literal["equal", "listed", "samples", "divergence"]
        | Annotated[str, Field(pattern=r"^column:.+$")]
    ) = "equal"
    """Source of the weights: none (the contest of the paper); "listed", the option ``weights``; the
    nodes' numbers of samples; "divergence", 1 / (1 + coupling * divergence) of a node's label
    shares from the overall ones; or a column of the costs file, such as "column:beds"."""
    weights: Annotated[tuple[Positive, ...], Field(strict=False)] = ()
    """One weight per node, with by = "listed"."""
    coupling: NotNegative = 1.0
    """Strength of the dependence on divergence, with by = "divergence"; a node without common
    labels has the weight 1 / (1 + coupling)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.weights) != (self.by == "listed"):
            raise ValueError("weights are required with by = 'listed', and not allowed otherwise")
        if self.coupling != 1 and self.by != "divergence":
            raise ValueError("coupling requires by = 'divergence'")
        return self

    @property
    def claims(self) -> Claims:
        """Claims; unequal weights depend on a node's place, and a higher cost may sell more."""
        return Claims(
            budget_balanced=True,
            individually_rational=("nodes",),
            incentive_compatible=("epsilon",),
            monotone=True,
            anonymous=self.by == "equal",
            scale_invariant=True,
        )

    @property
    def knows_terms(self) -> bool:
        """Whether this is the contest of the paper, which is solved under any terms."""
        return self.by == "equal"

    @property
    def needs_data(self) -> bool:
        """Whether weights depend on the nodes' data."""
        return self.by in ("samples", "divergence")

    def weigh(self, game: PricingGame) -> Floats | None:
        """Return the weight of each node, shape (n,); None for equal weights.

        Raises
        ------
        InvalidGameError
            If the number of weights is not the number of nodes.
        """
        held = game.held
        if self.by == "equal":
            return None
        if self.by == "listed":
            weight = np.array(self.weights)
        elif self.by.startswith("column:"):
            raise InvalidGameError(
                f"by = {self.by!r} requires a scenario file with costs from a CSV file; "
                "by = 'listed' takes weights from a list."
            )
        elif held.label_divergence is None:
            raise InvalidGameError(
                f"by = {self.by!r} requires training data, but there are none here; "
                "by = 'listed' takes weights from a list."
            )
        elif self.by == "samples":
            weight = np.array([float(rows.size) for rows in held.shards])
        else:
            weight = 1.0 / (1.0 + self.coupling * held.label_divergence)
        if weight.size != game.rho.size:
            raise InvalidGameError(
                f"weights must have one value for each of {game.rho.size} nodes, but have "
                f"{weight.size}."
            )
        return weight

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price one round at the equilibrium of the nodes."""
        if game.terms is not None:
            return settle_contest("weighted", game)
        offer = self.offer(game, rng)
        costs = game.rho if offer.weight is None else game.rho / offer.weight
        cap = game.cap if offer.weight is None else self._cap(game, costs, offer)
        epsilon = offer.epsilon(nash_equilibrium(costs, cap).epsilon)
        return settle("weighted", game, epsilon, offer.payment(epsilon, cap))

    def _cap(self, game: PricingGame, costs: Floats, offer: Contest) -> float:
        """Return the payment cap: the given one, otherwise the best one (41)."""
        if game.budget is not None:
            return float(game.budget)
        bought = offer.epsilon(nash_equilibrium(costs, 1.0).epsilon)
        if not bought.any():
            return 0.0
        mean_epsilon = float(bought.sum()) / averaged_nodes(game.average_over, bought)
        return best_linear_budget(mean_epsilon, game.alpha, game.beta)

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contest:  # noqa: ARG002
        """Return the contest for the cap that the server announces."""
        return Contest(weight=self.weigh(game))
