"""The truthful mechanism with the highest expected utility of the server, for fixed sales."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from pydantic import field_validator

from fcfn_abm.errors import FcfnError, InvalidGameError
from fcfn_abm.mechanisms.auction import buy_from_cheapest, settle_contracts
from fcfn_abm.mechanisms.base import MECHANISMS, Contracts, Mechanism, Outcome, PricingGame
from fcfn_abm.mechanisms.claims import Claims
from fcfn_abm.population import RHO_DISTRIBUTIONS, RhoDistribution
from fcfn_abm.scenario.schema import Positive

_MOST_PRICES = 10_000  # cached prices: one for each number of sellers in a game


@MECHANISMS.register("myerson-cap")
class MyersonCap(Mechanism):
    """A server that knows the distribution of costs buys a fixed epsilon at the lowest costs.

    Notes
    -----
    Costs are assumed to be drawn independently from a distribution F with density f. The virtual
    cost of a node is ``psi = rho + F / f``, made non-decreasing where it falls: the server's loss
    from the node's sale, including the rent. With epsilon averaged over the population, the j-th
    seller of ``largest_epsilon`` e adds the value ``M_j`` per unit of epsilon, which falls with j:
    ``M_j = (beta / e) ln((1 + alpha e j / N) / (1 + alpha e (j - 1) / N))``. The server buys from
    the lowest-cost nodes while ``psi(v_k) <= M_k``, and pays each seller ``e min(v_{k+1},
    psi^-1(M_k))``, the highest report with which it would still have sold: that is e times the
    largest over j of ``min(o_j, psi^-1(M_j))`` with the others' reports o in order. Among truthful
    mechanisms in which nodes sell e or nothing, none has a higher server utility in expectation
    over F. There is no cap: the server spends as long as it pays.

    Nodes with costs above the support of F do not sell, so that no node loses; the optimality in
    expectation holds for costs drawn from F.

    References
    ----------
    Myerson 1981, "Optimal auction design".
    """

    reports: ClassVar = "cost"
    knobs: ClassVar = ("largest_epsilon",)
    claims: ClassVar[Claims] = Claims(
        individually_rational=("nodes",),
        incentive_compatible=("cost",),
        monotone=True,
        anonymous=True,
    )

    largest_epsilon: Positive = 10.0
    """Epsilon e of each seller, dimensionless."""
    distribution: Mapping[str, Any] | None = None
    """Distribution F, as a table like [population.rho]. By default that of the scenario's
    population."""

    @field_validator("distribution")
    @classmethod
    def _check(cls, table: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if table is not None:
            _known_costs(table)
        return table

    def outcome(self, game: PricingGame, rng: np.random.Generator) -> Outcome:
        """Price one round, by the reported costs."""
        why = "No node's virtual cost is below the value of its epsilon to the server."
        return settle_contracts("myerson-cap", game, self.offer(game, rng), why)

    def offer(self, game: PricingGame, rng: np.random.Generator) -> Contracts:  # noqa: ARG002
        """Return what each node sells, and its payment, for its reported cost.

        Raises
        ------
        InvalidGameError
            If the distribution is not given, or has no probabilities of costs.
        """
        if self.distribution is None:
            raise InvalidGameError(
                "'myerson-cap' needs the distribution of costs, such as "
                'distribution = {"kind": "uniform", "low": 0.5, "high": 1.5}.'
            )
        ranked = np.sort(game.bids)

        def limit(k: int) -> float:
            """Return psi^-1(M_k), the largest cost that the k-th seller may have."""
            return self._best_price(self._marginal_value(game, k))

        low, high = 0, ranked.size  # bounds of the number of sellers; the limit falls with k
        while low < high:
            middle = (low + high + 1) // 2
            if ranked[middle - 1] <= limit(middle):
                low = middle
            else:
                high = middle - 1
        price = min(limit(low), float(ranked[low]) if low < ranked.size else math.inf) if low else 0
        epsilon = self.largest_epsilon
        return buy_from_cheapest(game.bids, low, epsilon, price * epsilon)

    def _marginal_value(self, game: PricingGame, k: int) -> float:
        """Return M_k, in currency per unit of epsilon."""
        step = game.alpha * (self.largest_epsilon / game.rho.size)
        return game.beta / self.largest_epsilon * math.log1p(step / (1.0 + step * (k - 1)))

    def _best_price(self, value: float) -> float:
        """Return the best price for a value under F; cached, as it does not depend on reports."""
        known, prices = self._known
        if value not in prices:
            if len(prices) >= _MOST_PRICES:
                prices.clear()
            prices[value] = known.best_price(value)
        return prices[value]

    @property
    def _known(self) -> tuple[RhoDistribution, dict[float, float]]:
        """F, and the prices computed so far."""
        return _known_costs(self.distribution or {})


def _known_costs(table: Mapping[str, Any]) -> tuple[RhoDistribution, dict[float, float]]:
    """Return F as described by a table, and an empty cache of prices."""
    kind = table.get("kind")
    if not isinstance(kind, str):
        raise ValueError("needs a kind, such as 'uniform'")
    options = json.dumps({k: v for k, v in table.items() if k != "kind"}, default=str)
    try:
        return _find_known(kind, options, RHO_DISTRIBUTIONS[kind])
    except FcfnError as error:
        raise ValueError(str(error)) from None


@lru_cache(maxsize=64)  # mechanisms with another largest_epsilon share F
def _find_known(
    kind: str,
    options: str,
    entry: type[RhoDistribution],  # noqa: ARG001 - a plug-in may register another class
) -> tuple[RhoDistribution, dict[float, float]]:
    known = RHO_DISTRIBUTIONS.create(kind, json.loads(options))
    known.best_price(1.0)
    return known, {}
