"""How nodes answer a take-it-or-leave-it offer, in place of a learning rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fcfn_abm.abm.columns import Floats
from fcfn_abm.game import Terms
from fcfn_abm.game.costs import profits
from fcfn_abm.learning import LearningRule, Observation
from fcfn_abm.mechanisms import Contracts

_ROUNDING = 1e-12  # accept a contract that pays exactly its cost despite rounding


@dataclass(frozen=True)
class TakeOrLeave(LearningRule):
    """Train with the contract's epsilon; leave after enough rounds with a loss."""

    contracts: Contracts
    terms: Terms | None = None
    """Cost of taking part; None in the game of the paper."""

    knows_terms: ClassVar[bool] = True

    def plan[Value: (float, Floats)](self, seen: Observation[Value]) -> Value:
        """Return the contract's epsilon if it pays, otherwise zero."""
        epsilon = self._of(self.contracts.epsilon, seen)
        planned = np.where(self._pays(epsilon, seen), epsilon, 0.0)
        return float(planned) if isinstance(seen.epsilon, float) else planned

    def loses[Value: (float, Floats)](self, seen: Observation[Value]) -> Any:
        """Return whether the contract that a node has accepted pays less than it costs."""
        return (seen.epsilon > 0) & ~self._pays(seen.epsilon, seen)

    def next_epsilon[Value: (float, Floats)](
        self,
        seen: Observation[Value],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> Value:
        """Return the contract's epsilon."""
        return self._of(self.contracts.epsilon, seen)

    def watches_total(self) -> bool:
        """Return whether the payment of a contract is a share of the cap."""
        return self.contracts.fee is None

    def regret(self, rho: Floats, epsilon: Floats, budget: float) -> float:
        """Return the largest gain of a node by leaving or returning, per unit of B."""
        total = float(epsilon.sum())
        out = np.where(epsilon > 0, 0.0, self.contracts.epsilon)
        if self.contracts.fee is None:
            fee = budget * (epsilon + out) / np.maximum(total + out, 1e-300)
        else:
            fee = np.where(epsilon + out > 0, self.contracts.fee, 0.0)
        cost = self._cost(rho, epsilon + out)
        profit = np.where(np.abs(fee - cost) <= _ROUNDING * cost, 0.0, fee - cost)
        gain = np.where(epsilon > 0, -profit, profit)
        return max(0.0, float(gain.max())) / budget if budget > 0 else 0.0

    def _pays[Value: (float, Floats)](self, epsilon: Value, seen: Observation[Value]) -> Any:
        """Return whether the contract, or its share of the cap, covers the cost of an epsilon."""
        if self.contracts.fee is None:
            with np.errstate(invalid="ignore"):
                fee = seen.budget * epsilon / np.maximum(epsilon + seen.others, 1e-300)
        else:
            fee = self._of(self.contracts.fee, seen)
        return np.asarray(fee >= self._cost(seen.rho, epsilon) * (1.0 - _ROUNDING))

    def _cost(self, rho: Any, epsilon: Any) -> Any:
        """Return the cost of epsilon, in currency."""
        if self.terms is None:
            return rho * epsilon
        epsilon = np.asarray(epsilon, dtype=float)
        return -profits(epsilon, np.asarray(rho), np.zeros_like(epsilon), self.terms)

    @staticmethod
    def _of[Value: (float, Floats)](values: Floats, seen: Observation[Value]) -> Value:
        own: Any = values.item(seen.row) if isinstance(seen.row, int) else values[seen.row]
        return own  # type: ignore[no-any-return]
