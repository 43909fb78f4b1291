"""The parts of a scenario: population, data, trainer, and outcomes of mechanisms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.build.registries import create
from fcfn_abm.dp import AdaptiveClipping, Clipping
from fcfn_abm.errors import InvalidGameError, InvalidScenarioError
from fcfn_abm.game import StackelbergEquilibrium, stackelberg_equilibrium
from fcfn_abm.learning import LearningRule
from fcfn_abm.mechanisms import MECHANISMS, Mechanism, Outcome, PricingGame
from fcfn_abm.mechanisms.base import refusal, stack
from fcfn_abm.mechanisms.manipulation import Manipulated
from fcfn_abm.mechanisms.terms import read_terms
from fcfn_abm.population import (
    Group,
    Holdings,
    Population,
    draw_misreport_factors,
    draw_rho,
    require_sized,
)
from fcfn_abm.population.manipulation import (
    Manipulation,
    count_identities,
    draw_members,
    find_silent,
)
from fcfn_abm.process.workers import require_workers
from fcfn_abm.registry import OptionError
from fcfn_abm.rng import stream
from fcfn_abm.scenario import Scenario, Training
from fcfn_abm.training import (
    Chances,
    FederatedTrainer,
    ImageData,
    TrainingPlan,
    label_divergence,
)
from fcfn_abm.training.distributed import BlockWorkers

type Floats = npt.NDArray[np.float64]


def needs_images(scenario: Scenario) -> bool:
    """Return whether a run of a scenario needs images, for training or for payments."""
    return scenario.trains or needs_holdings(scenario)


def needs_holdings(scenario: Scenario) -> bool:
    """Return whether costs or payments depend on the nodes' data."""
    kind, options = scenario.mechanism.kind, scenario.mechanism.options
    needed: bool = MECHANISMS.create(kind, options).needs_data
    return needed or follows_data(scenario)


def follows_data(scenario: Scenario) -> bool:
    """Return whether costs depend on the nodes' data."""
    people = scenario.population
    laws = [people.rho, *(group.rho for group in people.groups or () if group.rho)]
    return any(law.kind == "divergence" for law in laws)


def describe_missing(scenario: Scenario, mechanism: str) -> str:
    """Return which input of a mechanism a scenario lacks; empty if none.

    Also if the mechanism does not support the costs of the scenario.
    """
    try:
        created = create_mechanism(scenario, mechanism)
    except InvalidScenarioError as error:
        return error.reason
    return "" if read_terms(scenario) is None else refusal(mechanism, created)


def create_mechanism(scenario: Scenario, kind: str | None = None) -> Mechanism:
    """Create a scenario's mechanism, or another one with its options for comparisons.

    A mechanism that needs the distribution of costs uses that of the population, unless its options
    give another one.
    """
    own = scenario.mechanism
    kind = own.kind if kind is None else kind
    options = own.options if own.kind == kind else (scenario.compared or {}).get(kind, {})
    if "distribution" not in MECHANISMS.options(kind) or options.get("distribution"):
        return MECHANISMS.create(kind, options)
    rho = scenario.population.rho
    if any(group.rho for group in scenario.population.groups or ()):
        raise InvalidScenarioError(
            f"{kind!r} needs the distribution of costs, but groups have their own: "
            'set one, such as distribution = { kind = "uniform", low = 0.5, high = 1.5 }.'
        )
    known = {"kind": rho.kind, **rho.options}
    try:
        return MECHANISMS.create(kind, {**options, "distribution": known})
    except OptionError as error:
        if error.option != "distribution":
            raise
        raise InvalidScenarioError(
            f"{kind!r} needs the distribution of costs, but [population.rho] kind = {rho.kind!r} "
            "has no probabilities: set one, such as distribution = "
            '{ kind = "uniform", low = 0.5, high = 1.5 }.'
        ) from None


def create_learning(scenario: Scenario, place: tuple[str, ...]) -> LearningRule:
    """Create a learning rule of a scenario, for nodes that know the distribution of costs.

    Raises
    ------
    InvalidGameError
        If the rule needs a distribution that the scenario does not have, or supports only smaller
        populations.
    """
    people = scenario.population
    rule: LearningRule = create(scenario, place)
    has_one_law = not any(group.rho for group in people.groups or ())
    law = create(scenario, ("population", "rho")) if has_one_law else None
    return rule.for_population(law, people.n_nodes)


def load_images(scenario: Scenario) -> ImageData:
    """Load the images of a scenario with a training table."""
    data: ImageData = create(scenario, ("training", "data")).load(stream(scenario.seed, "data", 0))
    return data


def draw_population(
    scenario: Scenario, images: ImageData | None = None, *, where: str = "scenario"
) -> Population:
    """Draw the nodes of a scenario: costs, misreports and data.

    Parameters
    ----------
    scenario : Scenario
        Complete and checked.
    images : ImageData, optional
        From :func:`load_images`, distributed over the nodes. By default nodes have no data, and
        images are loaded only if costs depend on them.
    where : str, default "scenario"
        Source of the scenario, for the error message.

    Raises
    ------
    InvalidScenarioError
        If a cost is not a positive number within the range of the formulas.
    """
    if images is None and needs_holdings(scenario):
        images = load_images(scenario)
    held = Holdings() if images is None else _deal(scenario, images)
    try:
        true_rho = _draw_costs(scenario, held.label_divergence)
        population = Population.of(
            true_rho,
            _draw_misreports(scenario),
            held,
            list_groups(scenario),
            scenario.population.node_names,
        )
        require_sized(rho=population.rho)
        population = replace(population, manipulation=_draw_manipulation(scenario, true_rho))
    except InvalidGameError as error:
        raise InvalidScenarioError(str(error), file=where, table="population.rho") from None
    return population


def deal_images(scenario: Scenario, population: Population, images: ImageData) -> Population:
    """Return a population with images that were loaded after it was drawn."""
    return replace(population, held=_deal(scenario, images))


def _deal(scenario: Scenario, images: ImageData) -> Holdings:
    """Distribute the training images over the nodes of a scenario."""
    partition = create(scenario, ("training", "partition"))
    chance = stream(scenario.seed, "data", 1)
    n_nodes, labels = scenario.population.n_nodes, images.train_labels
    shards = partition.split(labels, n_nodes, chance, images.train_writers)
    return Holdings(tuple(shards), label_divergence(labels, shards))


def list_groups(scenario: Scenario) -> tuple[Group, ...]:
    """Return the groups of a scenario with their rows; empty without groups."""
    people = scenario.population
    if not people.groups:
        return ()
    names = [group.name for group in people.groups]
    return Group.partition(dict(zip(names, people.group_sizes, strict=True)))


def _own_rows(scenario: Scenario, key: str) -> tuple[dict[int, slice], npt.NDArray[np.bool_]]:
    """Return the rows of the groups that have such a table, by number, and all other nodes."""
    others = np.ones(scenario.population.n_nodes, dtype=bool)
    own = {}
    for index, group in enumerate(list_groups(scenario)):
        if getattr((scenario.population.groups or ())[index], key) is not None:
            own[index] = group.rows
            others[group.rows] = False
    return own, others


def _draw_costs(scenario: Scenario, divergence: Floats | None) -> Floats:
    """Draw the nodes' true costs: of all together, except for groups with a distribution."""
    people, chance = scenario.population, stream(scenario.seed, "costs")
    own, others = _own_rows(scenario, "rho")
    costs = np.empty(people.n_nodes)

    def draw(place: tuple[str, ...], rows: Any, rng: np.random.Generator, count: str) -> None:
        part = None if divergence is None else divergence[rows]
        if size := costs[rows].size:
            costs[rows] = draw_rho(create(scenario, place), size, rng, part, count)

    draw(
        ("population", "rho"),
        others,
        chance,
        "the number of nodes without a distribution of their own" if own else "population.n_nodes",
    )
    for index, rows in own.items():
        name = (people.groups or ())[index].name
        place = ("population", "groups", str(index), "rho")
        chance = stream(scenario.seed, "group-costs", name)
        draw(place, rows, chance, f"the number of nodes of the group {name!r}")
    return costs


def _draw_misreports(scenario: Scenario) -> Floats | None:
    """Draw reported divided by spent epsilon of a scenario's nodes; None if nobody misreports."""
    people = scenario.population
    if not people.can_misreport:
        return None
    own, others = _own_rows(scenario, "misreport")
    factors = np.ones(people.n_nodes)
    if people.misreport:
        chance, n_others = stream(scenario.seed, "misreports"), int(np.count_nonzero(others))
        lies = people.misreport
        factors[others] = draw_misreport_factors(n_others, lies.share, lies.factor, chance)
    for index, rows in own.items():
        group = (people.groups or ())[index]
        chance = stream(scenario.seed, "group-misreports", group.name)
        if group.misreport:
            share, factor = group.misreport.share, group.misreport.factor
            n_own = rows.stop - rows.start
            factors[rows] = draw_misreport_factors(n_own, share, factor, chance)
    return factors


def _draw_manipulation(scenario: Scenario, rho: Floats) -> Manipulation | None:
    """Draw coalitions and multiple identities; None without any."""
    people, n_nodes = scenario.population, scenario.population.n_nodes
    coalitions: list[list[int]] = []
    doubled: list[int] = []
    if (agree := people.coalitions) is not None:
        chance = stream(scenario.seed, "coalitions")
        coalitions = (
            [list(agree.rows)]
            if agree.rows
            else draw_members(n_nodes, agree.number, agree.size, chance)
        )
    if (split := people.sybils) is not None:
        chance = stream(scenario.seed, "sybils")
        drawn = draw_members(n_nodes, split.number, 1, chance) if split.rows is None else []
        doubled = list(split.rows or ()) or [row for (row,) in drawn]
    if not (coalitions or doubled):
        return None
    manipulators = np.zeros(n_nodes, dtype=bool)
    manipulators[[row for members in coalitions for row in members] + doubled] = True
    identities = split.identities if split else 1
    return Manipulation(
        find_silent(rho, coalitions), count_identities(n_nodes, doubled, identities), manipulators
    )


def adapt_mechanism(mechanism: Mechanism, kind: str, population: Population) -> Mechanism:
    """Return a mechanism adapted to the coalitions and identities of a population."""
    if population.manipulation is None:
        return mechanism
    return Manipulated(mechanism, kind, population.manipulation)


def create_trainer(
    scenario: Scenario,
    population: Population,
    images: ImageData,
    workers: int | BlockWorkers = 1,
) -> FederatedTrainer:
    """Create the trainer of a scenario's net, with its nodes' data.

    Parameters
    ----------
    scenario : Scenario
        With a training table.
    population : Population
        With shards of the images.
    images : ImageData
        The images to which the shards refer.
    workers : int or BlockWorkers, default 1
        Number of training threads, or the workers of a cluster; results do not depend on it.
    """
    from fcfn_abm.training.local_steps import LocalSteps

    if not isinstance(workers, BlockWorkers):
        require_workers(workers)
    settings, privacy = scenario.training or Training(), scenario.privacy
    plan = TrainingPlan(
        net=create(scenario, ("training", "net")),
        placement=create(scenario, ("privacy", "placement")),
        aggregation=create(scenario, ("training", "aggregation")),
        rounds=settings.rounds,
        steps=LocalSteps(
            settings.local_epochs,
            settings.learning_rate,
            settings.momentum,
            Clipping(privacy.clipping_norm),
            settings.batch_size,
        ),
        delta=privacy.delta,
        calibration=privacy.calibration,
        horizon=privacy.horizon,
        neighbours=privacy.neighbours,
        seed=scenario.seed,
        secure_noise=privacy.secure_noise,
        false_alarm=privacy.check.false_alarm if privacy.check else None,
        chances=Chances(settings.participation, settings.dropping, settings.straggling),
        noise_of=privacy.noise_of,
        adaptive_clipping=(
            AdaptiveClipping(**privacy.adaptive_clipping.model_dump())
            if privacy.adaptive_clipping
            else None
        ),
        view=privacy.view,
        quorum=privacy.quorum,
        max_participations=privacy.max_participations,
        precision=settings.precision,
        server=create(scenario, ("training", "server")),
        averaging=create(scenario, ("training", "averaging")),
        currency=privacy.currency or "epsilon",
    )
    shards = population.held.shards
    if isinstance(workers, int):
        workers = min(workers, len(shards))  # each has its own net
    return FederatedTrainer(images, shards, plan, workers, settings.engine, settings.device)


def prepare_trainer(scenario: Scenario, workers: int | BlockWorkers = 1) -> FederatedTrainer:
    """Load a scenario's images, distribute them over its nodes, and create the trainer."""
    images = load_images(scenario)
    return create_trainer(scenario, draw_population(scenario, images), images, workers)


def solve_equilibrium(scenario: Scenario, rho: Floats | None = None) -> StackelbergEquilibrium:
    """Solve a scenario's game without play, for given costs or the scenario's own.

    Under terms other than the paper's the best cap of one population is found by a search.
    """
    game, terms = scenario.game, read_terms(scenario)
    rho = draw_population(scenario).rho if rho is None else rho
    if terms is not None:
        primitives = PricingGame(
            rho, game.alpha, game.beta, average_over=game.average_over, terms=terms
        )
        return primitives.stackelberg
    return stackelberg_equilibrium(rho, game.alpha, game.beta, game.average_over)


def price_scenario(scenario: Scenario, population: Population | None = None) -> Outcome:
    """Price given nodes, or a scenario's own, with its mechanism, in closed form."""
    population = draw_population(scenario) if population is None else population
    return price_mechanism(scenario, scenario.mechanism.kind, population, scenario.cap)


def price_mechanism(
    scenario: Scenario, mechanism: str, population: Population, budget: float | None
) -> Outcome:
    """Price nodes with any mechanism under a given cap (None: B*, or its own choice).

    The scenario's own mechanism has the options of ``[mechanism]``, others those of ``[compared]``,
    or their defaults.
    """
    priced = adapt_mechanism(create_mechanism(scenario, mechanism), mechanism, population)
    primitives = pricing_game(scenario, priced, population, budget)
    return priced.outcome(primitives, stream(scenario.seed, "mechanism", mechanism))


def pricing_game(
    scenario: Scenario, mechanism: Mechanism, population: Population, budget: float | None
) -> PricingGame:
    """Return the inputs of a mechanism for nodes in a scenario, under a given cap."""
    if mechanism.reports == "cost":
        population = population.report_costs()
    game = scenario.game
    return PricingGame(
        population.rho,
        game.alpha,
        game.beta,
        budget,
        game.average_over,
        population.reported_cost,
        population.held,
        read_terms(scenario),
    )


def price_populations(
    replicas: Sequence[Scenario],
    mechanism: str,
    populations: Sequence[Population],
    budgets: Floats,
) -> Outcome:
    """Price together the populations of scenarios that differ only in their seeds.

    Each row equals the result of :func:`price_mechanism`.
    """
    scenario = replicas[0]
    priced = create_mechanism(scenario, mechanism)
    if priced.needs_data or populations[0].manipulation is not None:
        rows = zip(replicas, populations, budgets.tolist(), strict=True)
        return stack([price_mechanism(one, mechanism, nodes, cap) for one, nodes, cap in rows])
    if priced.reports == "cost":
        populations = [nodes.report_costs() for nodes in populations]
    reported = [nodes.reported_cost for nodes in populations if nodes.reported_cost is not None]
    game = scenario.game
    primitives = PricingGame(
        np.stack([nodes.rho for nodes in populations]),
        game.alpha,
        game.beta,
        budgets,
        game.average_over,
        np.stack(reported) if reported else None,
        terms=read_terms(scenario),
    )
    return priced.outcomes(
        primitives, (stream(one.seed, "mechanism", mechanism) for one in replicas)
    )
