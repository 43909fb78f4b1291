"""Whether the parts of a scenario go together."""

from __future__ import annotations

from fcfn_abm.build.parts import misreport
from fcfn_abm.build.registries import REGISTRIES
from fcfn_abm.errors import InvalidGameError, InvalidScenarioError, UnknownNameError
from fcfn_abm.learning import LEARNING_RULES
from fcfn_abm.mechanisms import MECHANISMS
from fcfn_abm.population import Divergence, draw_rho, require_room, require_sized
from fcfn_abm.registry import OptionError
from fcfn_abm.rng import stream
from fcfn_abm.scenario import Scenario, choices, spot
from fcfn_abm.training import PLACEMENTS

NO_NOISE = "no-noise"


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
                chance = stream(scenario.seed, "costs")
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


