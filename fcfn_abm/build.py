"""The composition root: from a scenario to the objects that carry it out.

The only module that knows all stages. Torch and Mesa are imported where they are needed, so that
a closed form costs neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidGameError, InvalidScenarioError, UnknownNameError
from fcfn_abm.game import StackelbergEquilibrium, stackelberg_equilibrium
from fcfn_abm.learning import LEARNING_RULES, SERVER_RULES
from fcfn_abm.mechanisms import MECHANISMS, Outcome, price
from fcfn_abm.population import (
    RHO_LAWS,
    Divergence,
    draw_rho,
    misreport_factors,
    require_room,
    require_sized,
)
from fcfn_abm.registry import OptionError, Registry
from fcfn_abm.rng import stream, stream_of_name
from fcfn_abm.scenario import (
    Choice,
    Scenario,
    SweepRun,
    choices,
    overridden,
    read_scenario,
    shipped_files,
    spot,
    sweep_runs,
    tree_to_scenario,
)
from fcfn_abm.training import (
    AGGREGATIONS,
    DATASETS,
    NETS,
    PARTITIONS,
    PLACEMENTS,
    label_divergence,
)

if TYPE_CHECKING:
    from fcfn_abm.abm import PrivacyMarket
    from fcfn_abm.training import ImageData
    from fcfn_abm.training.partition import Rows

type Floats = npt.NDArray[np.float64]

NO_NOISE = "no-noise"

REGISTRIES: dict[tuple[str, ...], Registry[Any]] = {
    ("population", "rho"): RHO_LAWS,
    ("mechanism",): MECHANISMS,
    ("server",): SERVER_RULES,
    ("learning",): LEARNING_RULES,
    ("privacy", "placement"): PLACEMENTS,
    ("training", "data"): DATASETS,
    ("training", "net"): NETS,
    ("training", "partition"): PARTITIONS,
    ("training", "aggregation"): AGGREGATIONS,
}
"""Where in a scenario which registered name stands."""


def load_scenario(path: str | Path, overrides: Iterable[str] = ()) -> Scenario:
    """Read and check a scenario file.

    Parameters
    ----------
    path : str or Path
        A TOML file, which may extend another one, or the name of a shipped one: ``"quickstart"``.
    overrides : iterable of str
        Replacements such as ``"game.alpha=20"``, carried out in order.

    Returns
    -------
    Scenario
        Frozen and complete: every default is filled in. If it has a sweep, each run of it has been
        checked too.

    Raises
    ------
    InvalidScenarioError
        With one sentence that says what is wrong, where, and what is allowed.
    """
    tree, where = read_scenario(Path(path))
    scenario = tree_to_scenario(overridden(tree, overrides), where)
    check_scenario(scenario, where)
    scenario = resolved(scenario)
    if scenario.sweep:
        runs_of(scenario, where)
    return scenario


def check_scenario(scenario: Scenario, where: str = "scenario") -> None:
    """Raise InvalidScenarioError where parts of a scenario do not go together."""
    try:
        require_room(scenario.population.n_nodes)
    except InvalidGameError as error:
        raise InvalidScenarioError(f"{where}, [population] n_nodes: {error}") from None
    for place, choice in choices(scenario):
        table = spot(list(place))
        try:
            entry = REGISTRIES[place].create(choice.kind, choice.options)
        except UnknownNameError as error:
            raise InvalidScenarioError(f"{where}, {table}kind: {error}") from None
        except OptionError as error:
            raise InvalidScenarioError(f"{where}, {table}{error}") from None
        if isinstance(entry, Divergence):
            if scenario.training is None:
                raise InvalidScenarioError(
                    f"{where}, {table}kind: 'divergence' follows the data that nodes hold, so "
                    "there must be a [training] table (with enabled = false to train no net)."
                )
        elif place == ("population", "rho"):
            try:
                chance = stream(scenario.seed, "population")
                rho = draw_rho(entry, scenario.population.n_nodes, chance)
                require_sized(rho=rho / misreport(scenario))
            except InvalidGameError as error:
                raise InvalidScenarioError(f"{where}, {table.rstrip()}: {error}") from None
    if scenario.server.kind == "fixed" and scenario.game.budget is None:
        raise InvalidScenarioError(
            f"{where}, [game] budget: is required, since the server rule is 'fixed'."
        )
    chooses = scenario.mechanism.kind == "stackelberg" and scenario.server.kind != "fixed"
    if chooses and scenario.game.budget == 0:
        raise InvalidScenarioError(
            f"{where}, [game] budget: must be positive, since the server rule "
            f"{scenario.server.kind!r} starts from it; leave it out to start from half of beta."
        )
    if scenario.population.churn is not None:
        _check_churn(scenario, where)
    needed = LEARNING_RULES[scenario.learning.kind].needs
    if needed == "full" and scenario.information.reports != "full":
        raise InvalidScenarioError(
            f"{where}, [learning] kind: the rule {scenario.learning.kind!r} needs to see every "
            "report, but information.reports = 'aggregate' shows their sum alone."
        )
    if scenario.training is not None:
        twice = [a for a in scenario.training.compare if scenario.training.compare.count(a) > 1]
        if twice:
            raise InvalidScenarioError(f"{where}, [training] compare: {twice[0]!r} stands twice.")
        for arm in scenario.training.compare:
            if arm != NO_NOISE and (arm == "stackelberg" or arm not in MECHANISMS):
                known = ", ".join([NO_NOISE, *(m for m in MECHANISMS if m != "stackelberg")])
                raise InvalidScenarioError(
                    f"{where}, [training] compare: {arm!r} is not known. Known: {known}."
                )
        _check_noise_of_sum(scenario, where)
        unit = PLACEMENTS[scenario.privacy.placement.kind].unit
        if unit != scenario.privacy.unit:
            raise InvalidScenarioError(
                f"{where}, [privacy] unit: the placement {scenario.privacy.placement.kind!r} "
                f"protects a {unit}, so unit must be {unit!r}, but it is "
                f"{scenario.privacy.unit!r}."
            )


def _check_churn(scenario: Scenario, where: str) -> None:
    """Raise InvalidScenarioError where a table cannot stand beside nodes that come and go."""
    people = scenario.population
    for table, reason, holds in (
        (
            "[population.rho] kind = 'divergence'",
            "newcomers bring no data of their own",
            people.rho.kind == "divergence",
        ),
        (
            "[population.misreport]",
            "nobody says whether newcomers lie",
            people.misreport is not None,
        ),
        (
            f"[mechanism] kind = {scenario.mechanism.kind!r}",
            "it makes its offer once, to those who are there at first; only 'stackelberg' does not",
            scenario.mechanism.kind != "stackelberg",
        ),
        (
            "[training]",
            "a newcomer would get the data and the privacy ledger of the node before it; with "
            "enabled = false no net is trained",
            scenario.trains,
        ),
    ):
        if holds:
            raise InvalidScenarioError(
                f"{where}, [population.churn] does not go together with {table}: {reason}."
            )


def _check_noise_of_sum(scenario: Scenario, where: str) -> None:
    """Raise InvalidScenarioError where noise that is drawn for the sum alone would not do."""
    privacy, training = scenario.privacy, scenario.training
    if privacy.noise_of != "sum" or training is None:
        return
    steps = training.local_epochs > 1 or training.batch_size is not None
    for reason, holds in (
        ("privacy.secure_noise = true draws it for each node", privacy.secure_noise),
        ("[privacy.check] looks at what each node sends", privacy.check is not None),
        ("'dp-sgd' adds it in each local step", privacy.placement.kind == "dp-sgd" and steps),
    ):
        if holds:
            raise InvalidScenarioError(
                f"{where}, [privacy] noise_of: noise cannot be drawn for the sum alone, since "
                f"{reason}."
            )


def resolved(scenario: Scenario) -> Scenario:
    """Return the scenario with the default options of every registered name written out."""
    tree = scenario.model_dump(exclude_none=True)
    for place, choice in choices(scenario):
        inner = tree
        for part in place[:-1]:
            inner = inner[part]
        inner[place[-1]] = {"kind": choice.kind, **asdict(created(scenario, place, choice))}
    return Scenario.model_validate(tree)


def runs_of(scenario: Scenario, where: str = "scenario") -> list[SweepRun]:
    """Return the runs of a scenario's sweep, each checked and complete."""

    def checked(run: Scenario, where: str) -> Scenario:
        check_scenario(run, where)
        return resolved(run)

    return sweep_runs(scenario, checked, where)


def created(scenario: Scenario, place: tuple[str, ...], choice: Choice | None = None) -> Any:
    """Build what a scenario names at ``place``, such as ``("training", "net")``."""
    if choice is None:
        choice = dict(choices(scenario))[place]
    return REGISTRIES[place].create(choice.kind, choice.options)


def scenario_schema() -> dict[str, Any]:
    """Return the JSON schema of a scenario file, with the options of every registered name."""
    schema = Scenario.model_json_schema()
    definitions = schema["$defs"]
    for place, registry in REGISTRIES.items():
        section = schema
        for part in place[:-1]:
            section = definitions[_definition(section["properties"][part])]
        section["properties"][place[-1]] = {
            "description": section["properties"][place[-1]].get("description", ""),
            "oneOf": [
                {"type": "string", "description": "A name alone, with the default options."},
                *(_kind_schema(registry, name) for name in registry),
            ],
        }
    definitions.pop("Choice", None)
    schema["properties"]["extends"] = {
        "description": "Another scenario file, relative to this one, or the name of a shipped one, "
        "which this one changes.",
        "type": "string",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _definition(schema: dict[str, Any]) -> str:
    options = [schema, *schema.get("allOf", []), *schema.get("anyOf", [])]
    return next(str(o["$ref"]).rsplit("/", 1)[1] for o in options if "$ref" in o)


def _kind_schema(registry: Registry[Any], name: str) -> dict[str, Any]:
    schema = registry.json_schema(name)
    return {
        **schema,
        "properties": {"kind": {"const": name}, **schema.get("properties", {})},
        "required": ["kind", *schema.get("required", [])],
    }


def population(scenario: Scenario) -> Floats:
    """Draw what a unit of reported epsilon costs each node of a scenario, shape (n_nodes,).

    That is a node's unit privacy cost, or as many times less as it misreports.
    """
    law = created(scenario, ("population", "rho"))
    chance = stream(scenario.seed, "population")
    rho = draw_rho(law, scenario.population.n_nodes, chance, lambda: _divergence(scenario))
    return rho / misreport(scenario)


def dealt_data(scenario: Scenario) -> tuple[ImageData, list[Rows]]:
    """Load the images of a scenario with training, and deal them: return each node's rows too."""
    data = created(scenario, ("training", "data")).load(stream(scenario.seed, "data", 0))
    shards = created(scenario, ("training", "partition")).split(
        data.train_labels,
        scenario.population.n_nodes,
        stream(scenario.seed, "data", 1),
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
    chance = stream(scenario.seed, "population", 1)
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
        rng=stream_of_name(scenario.seed, "mechanism", mechanism),
        **(own.options if own.kind == mechanism else {}),
    )


def listed_scenarios(folder: Path | None = None) -> Iterator[tuple[str, str]]:
    """Yield the shipped scenarios, or every TOML file below a folder, with their titles.

    What cannot be read has the reason in place of its title.
    """
    files = {str(path): path for path in sorted(folder.rglob("*.toml"))} if folder else None
    for name, path in (shipped_files() if files is None else files).items():
        try:
            tree, _ = read_scenario(path)
        except InvalidScenarioError as error:
            yield name, f"({str(error).removeprefix(f'{path}: ')})"
        else:
            yield name, str(tree.get("title", ""))
