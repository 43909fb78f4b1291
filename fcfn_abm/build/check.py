"""Consistency checks between the parts of a scenario, as a table of rules.

A rule is a function that yields the problems that it finds in a scenario. To add a rule, write it
and list it in ``RULES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import NamedTuple

from fcfn_abm.build.parts import (
    create_learning,
    describe_missing,
    draw_population,
    follows_data,
    needs_holdings,
)
from fcfn_abm.build.registries import registry_at
from fcfn_abm.errors import (
    InvalidGameError,
    InvalidScenarioError,
    PluginError,
    UnknownNameError,
)
from fcfn_abm.learning import LEARNING_RULES
from fcfn_abm.mechanisms import MECHANISMS
from fcfn_abm.mechanisms.base import refusal
from fcfn_abm.mechanisms.terms import read_terms
from fcfn_abm.plugins import find_object, list_plugins
from fcfn_abm.population import require_room
from fcfn_abm.registry import OptionError
from fcfn_abm.scenario import Choice, Scenario, choices, table_name
from fcfn_abm.scenario.schema import CONTESTS, Coalitions
from fcfn_abm.training import PLACEMENTS

NO_NOISE = "no-noise"


class Problem(NamedTuple):
    """A problem in a scenario, as :class:`~fcfn_abm.errors.InvalidScenarioError` reports it."""

    reason: str
    table: str | None
    key: str | None = None
    conflict: str | None = None


type Problems = Iterator[Problem]


def check_scenario(scenario: Scenario, where: str = "scenario") -> None:
    """Raise InvalidScenarioError if parts of a scenario conflict.

    This draws the population to check its costs; a run, which draws it anyway, uses
    :func:`check_settings`.
    """
    check_settings(scenario, where)
    if not needs_holdings(scenario):  # costs that depend on data are always in range
        draw_population(scenario, where=where)


def check_settings(scenario: Scenario, where: str = "scenario") -> None:
    """Raise InvalidScenarioError if settings conflict, without drawing random numbers."""
    for rule in RULES:
        for problem in rule(scenario):
            raise InvalidScenarioError(**problem._asdict(), file=where)


def check_node_count(scenario: Scenario) -> Problems:
    """Require that the nodes fit into memory."""
    try:
        require_room(scenario.population.n_nodes)
    except InvalidGameError as error:
        yield Problem(str(error), "population", "n_nodes")


def check_groups(scenario: Scenario) -> Problems:
    """Require groups with unique names that together hold all nodes."""
    people = scenario.population
    groups, sizes = people.groups or (), people.group_sizes
    names = [group.name for group in groups]
    for name in names:
        if names.count(name) > 1:
            yield Problem(f"the name {name!r} is used twice.", "population", "groups")
    rests = [g.name for g in groups if g.share is None and g.n_nodes is None]
    if len(rests) > 1:
        yield Problem(
            "only one group may omit both share and n_nodes, but these groups do: "
            f"{' and '.join(map(repr, rests))}.",
            "population",
            "groups",
        )
    if groups and sum(sizes) != people.n_nodes:
        parts = ", ".join(f"{n} {name!r}" for n, name in zip(sizes, names, strict=True))
        yield Problem(
            f"groups must hold population.n_nodes = {people.n_nodes} nodes in total, but hold "
            f"{sum(sizes)} ({parts}); a group without share and n_nodes takes the rest.",
            "population",
            "groups",
        )


def check_node_classes(scenario: Scenario) -> Problems:
    """Require that node classes are in imported plug-ins."""
    tables = {"population": scenario.population.node_class} | {
        f"population.groups.{index}": group.node_class
        for index, group in enumerate(scenario.population.groups or ())
    }
    for table, name in tables.items():
        if name is None:
            continue
        try:
            found = find_object(name)
        except PluginError as error:
            yield Problem(str(error), table, "node_class")
        else:
            if not isinstance(found, type):
                yield Problem(f"{name} is not a class.", table, "node_class")


def check_distribution(scenario: Scenario) -> Problems:
    """Require a registered distribution of costs, with valid options."""
    yield from _check_choice(scenario, ("population", "rho"), scenario.population.rho)


def check_divergence(scenario: Scenario) -> Problems:
    """Require data if costs depend on them."""
    for place, choice in choices(scenario.population, ("population",)):
        if choice.kind == "divergence" and scenario.training is None:
            yield Problem(
                "'divergence' depends on the nodes' data; add a [training] table (with enabled = "
                "false to train no net).",
                table_name(place),
                "kind",
            )


def check_mechanism(scenario: Scenario) -> Problems:
    """Require the inputs of the mechanism, and rules that support it."""
    kind, options = scenario.mechanism.kind, scenario.mechanism.options
    missing = describe_missing(scenario, kind)
    if missing:
        yield Problem(missing, "mechanism", "distribution")
    mechanism = MECHANISMS.create(kind, options)
    if mechanism.needs_data and scenario.training is None:
        yield Problem(
            f"{options['by']!r} depends on the nodes' data; add a [training] table (with enabled = "
            "false to train no net).",
            "mechanism",
            "by",
        )
    n_nodes = scenario.population.n_nodes
    for name in ("weights", "accepted"):
        listed = options.get(name) or ()
        if listed and len(listed) != n_nodes:
            reason = f"must have one value for each of {n_nodes} nodes, but has {len(listed)}."
            yield Problem(reason, "mechanism", name)
    if kind != "tullock" or getattr(mechanism, "exponent", 1.0) == 1:
        return
    for place, choice in choices(scenario):
        if place[-1] == "learning" and choice.kind != "best-response":
            yield Problem(
                f"{choice.kind!r} supports the contest with exponent = 1 only; with another "
                "exponent the learning rule must be 'best-response'.",
                table_name(place),
                "kind",
            )
    exits = {"exit": scenario.exit} | {
        f"population.groups.{index}.exit": group.exit
        for index, group in enumerate(scenario.population.groups or ())
        if group.exit
    }
    for table, settings in exits.items():
        if settings.criterion == "loss":
            yield Problem(
                "'loss' supports the contest with exponent = 1 only; with another exponent the "
                "criterion must be 'best-response'.",
                table,
                "criterion",
            )


def check_terms(scenario: Scenario) -> Problems:
    """Require feasible terms, and a mechanism and rules that support them."""
    people, game = scenario.population, scenario.game
    cap = people.epsilon_max
    if isinstance(cap, tuple) and len(cap) != people.n_nodes:
        reason = f"must have one value for each of {people.n_nodes} nodes, but has {len(cap)}."
        yield Problem(reason, "population", "epsilon_max")
        return
    try:
        terms = read_terms(scenario)
    except InvalidGameError as error:
        yield Problem(str(error), "population", "epsilon_max")
        return
    if terms is None:
        return
    key = (
        ("population", "cost")
        if terms.cost != "linear"
        else ("population", "epsilon_max")
        if terms.has_caps
        else ("game", "fixed_cost" if game.fixed_cost else "reserve")
    )
    kind = scenario.mechanism.kind
    if why := refusal(kind, MECHANISMS.create(kind, scenario.mechanism.options)):
        yield Problem(why, *key)
    for place, choice in choices(scenario):
        rule = (
            LEARNING_RULES.create(choice.kind, choice.options) if place[-1] == "learning" else None
        )
        if rule and (why := rule.refuses(terms)):
            yield Problem(f"{choice.kind!r} does not support it: {why}.", *key)
        changes = people.churn is not None or scenario.events
        if rule and choice.kind == "aggregate" and changes:
            reason = "'aggregate' supports churn for the game of the paper only."
            yield Problem(reason, *key)
    for conflict, holds, reason in (
        (
            "[population.churn]",
            people.churn is not None,
            "B* would need a search in every round.",
        ),
        (
            "[population.misreport]",
            people.can_misreport,
            "misreports are supported for the cost rho * epsilon only.",
        ),
        (
            "[population.coalitions]",
            people.coalitions is not None,
            "coalitions are supported for the cost rho * epsilon only.",
        ),
        (
            "[population.sybils]",
            people.sybils is not None,
            "sybils are supported for the cost rho * epsilon only.",
        ),
        (
            "total_budget or total_epsilon",
            scenario.keeps_account,
            "B* would need a search whenever a node sells out.",
        ),
    ):
        if holds:
            yield Problem(reason, *key, conflict=conflict)


def check_registered_names(scenario: Scenario) -> Problems:
    """Require registered names with valid options."""
    for place, choice in choices(scenario):
        yield from _check_choice(scenario, place, choice)


def _check_choice(scenario: Scenario, place: tuple[str, ...], choice: Choice) -> Problems:
    try:
        registry_at(place).create(choice.kind, choice.options)
    except UnknownNameError as error:
        here = {plugin.name for plugin in list_plugins()}
        missing = [name for name in scenario.imports or () if PurePath(name).name not in here]
        hint = f" The scenario needs {missing[0]}: fa.import_plugin." if missing else ""
        yield Problem(f"{error}{hint}", table_name(place), "kind")
    except OptionError as error:
        yield Problem(error.reason, table_name(place), error.option)


def check_fixed_budget(scenario: Scenario) -> Problems:
    """Require a budget for a server that always pays the same."""
    if scenario.server.kind == "fixed" and scenario.game.budget is None:
        yield Problem("is required with the server rule 'fixed'.", "game", "budget")


def check_first_budget(scenario: Scenario) -> Problems:
    """Require a positive first budget for a server that adapts it."""
    if scenario.chooses_cap and scenario.game.budget == 0:
        yield Problem(
            f"must be positive, because the server rule {scenario.server.kind!r} starts from it; "
            "remove it to start from half of beta.",
            "game",
            "budget",
        )


def check_churn(scenario: Scenario) -> Problems:
    """Refuse churn with settings for individual nodes."""
    people, mechanism = scenario.population, scenario.mechanism.kind
    if people.churn is None:
        return
    conflicts = {
        "[population.rho] kind = 'divergence'": (
            follows_data(scenario),
            "newcomers have no data.",
        ),
        "[population.rho] names": (
            people.node_names is not None,
            'newcomers have no names; name_column = "" ignores the names in a file.',
        ),
        "[population.misreport]": (
            people.can_misreport,
            "it is undefined whether newcomers misreport.",
        ),
        f"[mechanism] kind = {mechanism!r}": (
            mechanism != "stackelberg",
            "it makes one offer, to the first nodes; use 'stackelberg'.",
        ),
        "[training]": (
            scenario.trains,
            "a newcomer would get the data and the privacy ledger of the departed node; with "
            "enabled = false no net is trained.",
        ),
    }
    for conflict, (holds, reason) in conflicts.items():
        if holds:
            yield Problem(reason, "population.churn", conflict=conflict)


def check_events(scenario: Scenario) -> Problems:
    """Require events that can happen, and that affect something."""
    people, mechanism = scenario.population, scenario.mechanism.kind
    groups = {group.name: group for group in people.groups or ()}
    for index, event in enumerate(scenario.events or ()):
        table = f"events.{index}"
        if event.round is not None and event.round > scenario.rounds.maximum:
            reason = f"the market ends with round {scenario.rounds.maximum} (rounds.maximum)."
            yield Problem(reason, table, "round")
        if event.group is not None and event.group not in groups:
            known = f"known: {', '.join(groups)}" if groups else "there are no groups"
            yield Problem(f"there is no group {event.group!r}; {known}.", table, "group")
        if event.change == "budget" and scenario.cap is None:
            reason = f"the server rule {scenario.server.kind!r} chooses the cap itself."
            yield Problem(reason, table, "change")
        own = groups[event.group].misreport if event.group else None
        if event.change == "misreport" and not (own or people.misreport):
            reason = "needs a [population.misreport] table with the factor."
            yield Problem(reason, table, "change")
        if mechanism != "stackelberg":
            reason = "it makes one offer, for the initial game."
            yield Problem(reason, table, conflict=f"[mechanism] kind = {mechanism!r}")
        if scenario.trains and event.change == "misreport":
            reason = (
                "the noise of the training depends on who misreports at first; with enabled = "
                "false no net is trained."
            )
            yield Problem(reason, table, "change", conflict="[training]")


def check_value(scenario: Scenario) -> Problems:
    """Require training rounds to learn from, and a mechanism with a variable cap."""
    if scenario.value is None:
        return
    training, kind = scenario.training, scenario.mechanism.kind
    if training is None:
        yield Problem(
            "the server learns from training rounds; add a [training] table (with enabled = "
            "false, alpha and beta stay constant).",
            "value",
        )
    elif training.schedule != "every-round":
        yield Problem(
            "the server learns between training rounds, so training.schedule must be "
            f"'every-round', but it is {training.schedule!r}.",
            "value",
            conflict=f"[training] schedule = {training.schedule!r}",
        )
    if kind not in CONTESTS:
        yield Problem(
            f"{kind!r} makes one offer and ignores what the server learns; use "
            f"{', '.join(map(repr, CONTESTS))}.",
            "value",
            conflict=f"[mechanism] kind = {kind!r}",
        )
    for index, event in enumerate(scenario.events or ()):
        if event.change in ("alpha", "beta"):
            reason = f"the server learns {event.change} by the [value] table; remove one of them."
            yield Problem(reason, f"events.{index}", "change")


def check_account(scenario: Scenario) -> Problems:
    """Require that every round is paid for, if money or epsilon is limited in total."""
    game, training = scenario.game, scenario.training
    limits = scenario.population.total_epsilon_by_group
    if game.spending is not None and game.total_budget is None:
        yield Problem("needs total_budget.", "game", "spending")
    if not scenario.keeps_account:
        return
    table, key = ("population", "total_epsilon") if limits else ("game", "total_budget")
    mechanism = scenario.mechanism.kind
    if mechanism not in CONTESTS:
        known = ", ".join(map(repr, CONTESTS))
        reason = f"needs a contest in every round, with one of the mechanisms {known}."
        yield Problem(reason, table, key, f"[mechanism] kind = {mechanism!r}")
    if limits and scenario.population.churn is not None:
        reason = "a newcomer would inherit the sales of the departed node."
        yield Problem(reason, table, key, "[population.churn]")
    if limits and scenario.privacy.horizon == "training":
        reason = "a report is then already the total of the training."
        yield Problem(reason, table, key, "privacy.horizon = 'training'")
    if training is None or not scenario.trains:
        return
    if training.schedule != "every-round":
        yield Problem(
            "the limit covers all rounds of the market, so that the net must be trained in each of "
            "them; use 'every-round', or enabled = false to train no net.",
            table,
            key,
            f"training.schedule = {training.schedule!r}",
        )
    if training.rounds > scenario.rounds.maximum:
        yield Problem(
            f"the market ends after {scenario.rounds.maximum} rounds (rounds.maximum), so that "
            f"later rounds of the training ({training.rounds} in all) would not be paid for.",
            table,
            key,
            "[training]",
        )


def check_manipulation(scenario: Scenario) -> Problems:
    """Require nodes for coalitions or sybils, and a market that supports them."""
    people, n_nodes = scenario.population, scenario.population.n_nodes
    kind = scenario.mechanism.kind
    tables = {"coalitions": people.coalitions, "sybils": people.sybils}
    for name, settings in tables.items():
        if settings is None:
            continue
        table, rows = f"population.{name}", settings.rows or ()
        if rows and max(rows) >= n_nodes:
            yield Problem(f"rows must be from 0 to {n_nodes - 1}.", table, "rows")
        n_drawn = settings.number * (settings.size if isinstance(settings, Coalitions) else 1)
        if not rows and n_drawn > n_nodes:
            reason = f"needs {n_drawn} nodes, but population.n_nodes = {n_nodes}."
            yield Problem(reason, table, "number")
        refused = {
            "tullock": "splitting epsilon pays more there, which nodes do not learn; "
            "fa.build.measure_manipulation prices it.",
            "yang": "its agency treats identities as nodes, which nodes do not learn; "
            "fa.build.measure_manipulation prices it.",
        }
        conflicts = {
            "[population.groups]": (people.groups is not None, "members are drawn from all nodes."),
            "[population.churn]": (
                people.churn is not None,
                "newcomers would belong to no coalition.",
            ),
            "[population.node_class]": (
                people.node_class is not None,
                "custom nodes cannot report for others.",
            ),
            "[events]": (scenario.events is not None, "the game of the members must not change."),
            "[training]": (scenario.trains, "the data of silent members would not be used."),
            "a limit over all rounds": (
                scenario.keeps_account,
                "the owner of the limit is undefined.",
            ),
            f"[mechanism] kind = {kind!r}": (
                name == "sybils" and kind in refused,
                refused.get(kind, ""),
            ),
        }
        for conflict, (holds, reason) in conflicts.items():
            if holds:
                yield Problem(reason, table, conflict=conflict)
    if people.coalitions and people.sybils:
        yield Problem(
            "use only one of them.", "population.coalitions", conflict="[population.sybils]"
        )


def check_payment(scenario: Scenario) -> Problems:
    """Refuse payments after reports for mechanisms that post payments before nodes answer."""
    mechanism = scenario.mechanism.kind
    if scenario.rounds.payment == "after-reports" and mechanism != "stackelberg":
        yield Problem(
            f"'after-reports' requires the mechanism 'stackelberg'; {mechanism!r} posts its "
            "payments before nodes answer.",
            "rounds",
            "payment",
        )


def check_learning_rule(scenario: Scenario) -> Problems:
    """Require public reports for learning rules that read each of them."""
    for place, choice in choices(scenario):
        if place[-1] != "learning":
            continue
        needed = LEARNING_RULES[choice.kind].needs
        if needed == "full" and scenario.information.reports != "full":
            yield Problem(
                f"the rule {choice.kind!r} needs every report, but information.reports = "
                "'aggregate' shows only their sum.",
                table_name(place),
                "kind",
            )
        try:
            create_learning(scenario, place)
        except InvalidGameError as error:
            yield Problem(str(error), table_name(place), "kind")
        if choice.kind != "bayes-nash":
            continue
        kind = scenario.mechanism.kind
        if kind in ("tullock", "weighted"):
            reason = "'bayes-nash' requires payments in proportion to epsilon."
            yield Problem(reason, table_name(place), "kind", f"[mechanism] kind = {kind!r}")


def check_comparisons(scenario: Scenario) -> Problems:
    """Require known, unique names in the list of trainings to compare."""
    compare = scenario.training.compare if scenario.training else ()
    for name in compare:
        if compare.count(name) > 1:
            yield Problem(f"{name!r} is listed twice.", "training", "compare")
    for name in compare:
        if name != NO_NOISE and (name == "stackelberg" or name not in MECHANISMS):
            known = [NO_NOISE, *(known for known in MECHANISMS if known != "stackelberg")]
            reason = f"{name!r} is not known. Known: {', '.join(known)}."
            yield Problem(reason, "training", "compare")
        elif name != NO_NOISE and (missing := describe_missing(scenario, name)):
            yield Problem(missing, "training", "compare")


def check_compared(scenario: Scenario) -> Problems:
    """Require known mechanisms in [compared], with valid options."""
    for name, options in (scenario.compared or {}).items():
        try:
            MECHANISMS.create(name, options)
        except UnknownNameError as error:
            yield Problem(str(error), "compared", name)
        except OptionError as error:
            yield Problem(error.reason, f"compared.{name}", error.option)


def check_noise_of_sum(scenario: Scenario) -> Problems:
    """Refuse noise or privacy of the sum only, if a setting needs the noise of each node."""
    privacy, training = scenario.privacy, scenario.training
    central = privacy.view == "central"
    if training is None or not (central or privacy.noise_of == "sum"):
        return
    key, problem = "noise_of", "noise cannot be drawn for the sum only"
    if central:
        key, problem = "view", "epsilon cannot hold against a server that sees only the sum"
    steps = training.local_epochs > 1 or training.batch_size is not None
    for holds, reason in (
        (privacy.secure_noise, "privacy.secure_noise = true draws it for each node"),
        (privacy.check is not None, "[privacy.check] tests each node's upload"),
        (privacy.placement.kind == "dp-sgd" and steps, "'dp-sgd' adds it in each local step"),
    ):
        if holds:
            yield Problem(f"{problem}, because {reason}.", "privacy", key)


def check_quorum(scenario: Scenario) -> Problems:
    """Require a quorum that can be reached, and none if it has no effect."""
    privacy, training = scenario.privacy, scenario.training
    if privacy.view == "local" and privacy.quorum < 1:
        yield Problem("requires view = 'central'.", "privacy", "quorum")
    if privacy.view == "local" or training is None:
        return
    arriving = (1 - training.dropping) * (1 - training.straggling)
    if privacy.quorum > arriving:
        yield Problem(
            f"a share of {arriving:.3g} of the selected nodes is expected to send in time, so that "
            f"most rounds would be discarded with a quorum of {privacy.quorum:g}; use a "
            "lower one.",
            "privacy",
            "quorum",
        )


def check_adaptive_clipping(scenario: Scenario) -> Problems:
    """Refuse an adaptive clipping norm if norms cannot be counted privately."""
    privacy, training = scenario.privacy, scenario.training
    if privacy.adaptive_clipping is None or training is None:
        return
    for conflict, holds, reason in (
        (
            "privacy.secure_noise = true",
            privacy.secure_noise,
            "its grid needs a constant clipping norm.",
        ),
        (
            f"training.engine = {training.engine!r}",
            training.engine == "stacked",
            "only the serial engine counts the norms.",
        ),
        (
            f"training.device = {training.device!r}",
            training.device == "cuda",
            "only the serial engine, on the processor, counts the norms.",
        ),
    ):
        if holds:
            yield Problem(reason, "privacy.adaptive_clipping", conflict=conflict)


def check_currency(scenario: Scenario) -> Problems:
    """Refuse zCDP with settings that would have no effect, or for which nothing is proven."""
    privacy = scenario.privacy
    if privacy.currency != "zcdp":
        return
    if privacy.calibration != "analytic":
        reason = "'zcdp' determines the noise without a calibration."
        yield Problem(reason, "privacy", "currency", "privacy.calibration = 'classical'")
    rate = privacy.placement.options.get("sampling_rate", 1.0)
    if rate < 1:
        yield Problem(
            "zCDP has no amplification by sampling, and no rho is claimed for it.",
            "privacy",
            "currency",
            f"privacy.placement.sampling_rate = {rate:g}",
        )


def check_protected_unit(scenario: Scenario) -> Problems:
    """Require the unit of privacy that the placement of noise protects."""
    privacy = scenario.privacy
    unit = PLACEMENTS[privacy.placement.kind].unit
    if scenario.training is not None and unit != privacy.unit:
        yield Problem(
            f"the placement {privacy.placement.kind!r} protects a {unit}, so unit must be "
            f"{unit!r}, but it is {privacy.unit!r}.",
            "privacy",
            "unit",
        )


def check_sampling(scenario: Scenario) -> Problems:
    """Refuse a batch size if sampling determines the number of samples per step."""
    training, options = scenario.training, scenario.privacy.placement.options
    if training is None or training.batch_size is None:
        return
    rate = options.get("sampling_rate", 1.0)
    if rate < 1:
        yield Problem(
            "a local step then takes each sample with that probability, so that batches have no "
            "fixed size; remove one of the two.",
            "training",
            "batch_size",
            f"privacy.placement.sampling_rate = {rate:g}",
        )


RULES: tuple[Callable[[Scenario], Problems], ...] = (
    check_node_count,
    check_groups,
    check_node_classes,
    check_distribution,
    check_divergence,
    check_registered_names,
    check_terms,
    check_mechanism,
    check_fixed_budget,
    check_first_budget,
    check_churn,
    check_events,
    check_value,
    check_account,
    check_manipulation,
    check_payment,
    check_learning_rule,
    check_compared,
    check_comparisons,
    check_noise_of_sum,
    check_quorum,
    check_adaptive_clipping,
    check_protected_unit,
    check_sampling,
    check_currency,
)
"""In the order of evaluation: the first problem is reported, and a rule may rely on all rules
before it."""
