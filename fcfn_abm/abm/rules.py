"""Settings of a market besides its nodes: tables of a scenario, and node classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from fcfn_abm.abm.contracts import TakeOrLeave
from fcfn_abm.abm.node import EdgeNode
from fcfn_abm.abm.scores import adapt_rule
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
    """The tables of a scenario that shape a market, without training and record."""

    game: Game
    rounds: Rounds
    information: Information
    churn: Churn | None
    """None if the same nodes stay."""
    events: tuple[Event, ...]
    """Changes of the game during the market."""
    misreport_factor: dict[str, float]
    """Reported divided by spent epsilon of misreporting nodes, by group; "" for all."""
    cap: float | None
    """Payment cap of every round; None if the server chooses it."""
    total_epsilon: dict[str, float]
    """Largest epsilon that a node sells over all rounds, by group; "" for all, empty without
    limits."""
    last_round: int
    """Last round of the market."""
    mechanism: str
    """Registered name of the mechanism, which also names its random stream."""
    terms: Terms | None = None
    """Form of the cost, caps, fixed cost and reserve; None in the game of the paper."""

    @classmethod
    def of(cls, scenario: Scenario) -> Self:
        """Return the rules of a scenario."""
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
    """Return reported divided by spent epsilon of misreporting nodes, by group; "" for all."""
    tables = {"": people.misreport} | {g.name: g.misreport for g in people.groups or ()}
    return {name: table.factor for name, table in tables.items() if table}


def play_by(offer: Offer, terms: Terms | None, rule: LearningRule) -> LearningRule:
    """Return the rule by which nodes with a learning rule answer an offer.

    Raises
    ------
    InvalidGameError
        If the rule does not support these terms, or the offer does not.
    """
    if isinstance(offer, Contracts):
        return TakeOrLeave(offer, terms)
    if terms is not None:
        if not offer.is_linear or offer.pool is not None:
            raise InvalidGameError(
                "other costs, caps, fixed costs and reserves are supported in the contest of the "
                "paper only."
            )
        if why := rule.refuses(terms):
            raise InvalidGameError(f"nodes cannot learn by {type(rule).__name__}: {why}.")
    return adapt_rule(offer, rule)


def classes_of(node_class: NodeClass | None, names: Sequence[str]) -> dict[str, type[EdgeNode]]:
    """Return the classes of the groups' nodes, for groups with their own class."""
    if node_class is None:
        return {}
    classes = node_class if isinstance(node_class, Mapping) else dict.fromkeys(names, node_class)
    for name, kind in classes.items():
        if name not in names:
            known = ", ".join(map(repr, names)) if any(names) else "none"
            raise InvalidGameError(f"node_class names an unknown group {name!r}; groups: {known}.")
        if not (isinstance(kind, type) and issubclass(kind, EdgeNode)):
            raise InvalidGameError(
                f"node_class must be a class derived from EdgeNode, not {abbreviate(kind)}."
            )
    return dict(classes)
