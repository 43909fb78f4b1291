"""What shapes a market, beside who plays in it: tables of a scenario, and classes of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from fcfn_abm.abm.contracts import TakeOrLeave
from fcfn_abm.abm.node import EdgeNode
from fcfn_abm.abm.scores import playing
from fcfn_abm.errors import InvalidGameError, abbreviate
from fcfn_abm.game import Terms
from fcfn_abm.learning import LearningRule
from fcfn_abm.mechanisms import Contracts, Offer
from fcfn_abm.mechanisms.terms import read_terms
from fcfn_abm.scenario import Churn, Event, Game, Information, Rounds, Scenario
from fcfn_abm.scenario import Population as PopulationSettings

type NodeClass = type[EdgeNode] | Mapping[str, type[EdgeNode]]


@dataclass(frozen=True)
class MarketRules:
    """The tables of a scenario that shape a market, and nothing of its training or record."""

    game: Game
    rounds: Rounds
    information: Information
    churn: Churn | None
    """None where the same nodes stay."""
    events: tuple[Event, ...]
    """What changes the game while it is played."""
    misreport_factor: dict[str, float]
    """Reported over spent epsilon of nodes that misreport, by group; "" for all."""
    cap: float | None
    """The payment cap that stands in every round; None where the server chooses it."""
    total_epsilon: dict[str, float]
    """The most that a node sells over all rounds, by group; "" for all, empty without limits."""
    last_round: int
    """The last round that is played."""
    mechanism: str
    """Registered name of the mechanism, which names the stream of its chance."""
    terms: Terms | None = None
    """Form of the cost, caps, fixed cost and reserve; None in the game of the paper."""

    @classmethod
    def of(cls, scenario: Scenario) -> Self:
        """Take those of a scenario."""
        return cls(
            game=scenario.game,
            rounds=scenario.rounds,
            information=scenario.information,
            churn=scenario.population.churn,
            events=scenario.events or (),
            misreport_factor=_misreport_factors(scenario.population),
            cap=scenario.cap,
            total_epsilon=scenario.population.total_epsilon_by_group,
            last_round=scenario.last_round,
            mechanism=scenario.mechanism.kind,
            terms=read_terms(scenario),
        )


def _misreport_factors(people: PopulationSettings) -> dict[str, float]:
    """Return reported over spent epsilon of nodes that misreport, by group; "" for all."""
    tables = {"": people.misreport} | {g.name: g.misreport for g in people.groups or ()}
    return {name: table.factor for name, table in tables.items() if table}


def play_by(offer: Offer, terms: Terms | None, rule: LearningRule) -> LearningRule:
    """Return the rule by which nodes with a learning rule answer an offer.

    Raises
    ------
    InvalidGameError
        If the rule does not play under these terms, or the offer does not stand for them.
    """
    if isinstance(offer, Contracts):
        return TakeOrLeave(offer, terms)
    if terms is not None:
        if not offer.is_linear or offer.pool is not None:
            raise InvalidGameError(
                "other costs, caps, fixed costs and reserves are played in the contest of the "
                "paper alone."
            )
        if why := rule.refuses(terms):
            raise InvalidGameError(f"nodes cannot learn by {type(rule).__name__}: {why}.")
    return playing(offer, rule)


def classes_of(node_class: NodeClass | None, names: Sequence[str]) -> dict[str, type[EdgeNode]]:
    """Return the class of the nodes of each group that has one of its own."""
    if node_class is None:
        return {}
    classes = node_class if isinstance(node_class, Mapping) else dict.fromkeys(names, node_class)
    for name, kind in classes.items():
        if name not in names:
            known = ", ".join(map(repr, names)) if any(names) else "it has no groups"
            raise InvalidGameError(
                f"node_class names the group {name!r}, which the market lacks: {known}."
            )
        if not (isinstance(kind, type) and issubclass(kind, EdgeNode)):
            raise InvalidGameError(
                f"node_class must be a class derived from EdgeNode, not {abbreviate(kind)}."
            )
    return dict(classes)
