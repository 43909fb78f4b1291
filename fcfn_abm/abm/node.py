"""An edge node: a view of its row that leaves every decision to its learning rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import mesa

from fcfn_abm.abm.columns import NEVER
from fcfn_abm.errors import InvalidGameError
from fcfn_abm.learning import Observation

if TYPE_CHECKING:
    from fcfn_abm.abm.market import PrivacyMarket


class EdgeNode(mesa.Agent):
    """One edge node: a view of a row of the market's columns, which is a place.

    Where nodes come and go, it shows whoever is there.
    """

    model: PrivacyMarket
    COLUMNS: ClassVar = frozenset(
        {"rho", "epsilon", "payment", "utility", "idle_rounds", "exit_round", "present"}
    )
    """What is a column, and so can be read for all nodes at once."""

    @classmethod
    def of_row(cls, market: PrivacyMarket, row: int) -> EdgeNode:
        """Return the node of a row; nothing is registered, since the market knows its rows."""
        node = cls.__new__(cls)
        node.model, node.row, node.pos = market, row, None
        node.unique_id = market.first_node_id + row
        return node

    def remove(self) -> None:
        """Refuse: rows stay, and nodes leave by `exit_round`."""
        raise InvalidGameError(
            "A node cannot be removed from a market: it leaves when staying does not pay."
        )

    @property
    def rho(self) -> float:
        """Unit privacy cost, currency per unit of epsilon."""
        return self.model.columns.rho.item(self.row)

    @property
    def epsilon(self) -> float:
        """Report of this round, dimensionless."""
        return self.model.columns.epsilon.item(self.row)

    @property
    def payment(self) -> float:
        """What the server paid in this round, in currency."""
        return self.model.columns.payment.item(self.row)

    @property
    def utility(self) -> float:
        """Payment less privacy cost of this round, in currency."""
        return self.model.columns.utility.item(self.row)

    @property
    def present(self) -> bool:
        """Whether there is a node in this place."""
        return self.model.columns.present.item(self.row)

    @property
    def exited(self) -> bool:
        """Whether the node has left the market."""
        return self.model.columns.exit_round.item(self.row) != NEVER

    @property
    def idle_rounds(self) -> int:
        """For how many rounds in a row there has been a reason to leave."""
        return self.model.columns.idle_rounds.item(self.row)

    @property
    def exit_round(self) -> int:
        """Round at whose end the node left, or -1."""
        return self.model.columns.exit_round.item(self.row)

    def respond(self) -> None:
        """See the running total, and choose the epsilon of this round."""
        respond(self.model, self.row)


def respond(market: PrivacyMarket, row: int) -> None:
    """Let the node of a row see the running total, and choose the epsilon of this round."""
    columns, settings = market.columns, market.scenario.exit
    if not columns.present.item(row):
        return
    epsilon = columns.epsilon.item(row)
    seen = Observation(
        columns.rho.item(row),
        epsilon,
        market.bulletin.others(epsilon, row),
        market.pool,
        market.n_active,
        market.scenario.game.epsilon_floor,
        row,
        columns.memory,
    )
    pays = market.rule.planned(seen) > 0
    if columns.exit_round.item(row) != NEVER:
        if not (pays and settings.reentry):
            return
        columns.exit_round[row] = NEVER
    reason = not pays
    if settings.criterion == "loss":
        reason = epsilon > 0 and seen.budget < seen.rho * (seen.others + epsilon)
    columns.idle_rounds[row] = columns.idle_rounds.item(row) + 1 if reason else 0
    columns.epsilon[row] = chosen = market.rule.next_epsilon(seen, market.rng)
    market.bulletin.move(row, epsilon, chosen)
