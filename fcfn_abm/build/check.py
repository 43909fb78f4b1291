"""Whether the parts of a scenario go together: a table of rules.

A rule is a function that yields what is wrong with a scenario, as far as it can tell. To add one,
write it and name it in ``RULES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import NamedTuple

from fcfn_abm.build.parts import (
    create_learning,
    draw_population,
    follows_data,
    missing_for,
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
    """What is wrong in a scenario, as :class:`~fcfn_abm.errors.InvalidScenarioError` has it."""

    reason: str
    table: str | None
    key: str | None = None
    conflict: str | None = None


type Problems = Iterator[Problem]


def check_scenario(scenario: Scenario, where: str = "scenario") -> None:
    """Raise InvalidScenarioError where parts of a scenario do not go together.

    The population is drawn, to see whether its costs can be: a run, which draws it anyway, asks
    :func:`check_settings`.
    """
    check_settings(scenario, where)
    if not needs_holdings(scenario):  # those that follow data always lie in range
        draw_population(scenario, where=where)


def check_settings(scenario: Scenario, where: str = "scenario") -> None:
    """Raise InvalidScenarioError where settings do not go together, without any draw."""
    for rule in RULES:
        for problem in rule(scenario):
            raise InvalidScenarioError(**problem._asdict(), file=where)


def check_node_count(scenario: Scenario) -> Problems:
    """Require no more nodes than fit into memory."""
    try:
        require_room(scenario.population.n_nodes)
    except InvalidGameError as error:
        yield Problem(str(error), "population", "n_nodes")


def check_groups(scenario: Scenario) -> Problems:
    """Require groups with names of their own, which together hold all nodes."""
    people = scenario.population
    groups, sizes = people.groups or (), people.group_sizes
    names = [group.name for group in groups]
    for name in names:
        if names.count(name) > 1:
            yield Problem(f"the name {name!r} stands twice.", "population", "groups")
    rests = [g.name for g in groups if g.share is None and g.n_nodes is None]
    if len(rests) > 1:
        yield Problem(
            "one group alone may take the rest, but neither share nor n_nodes is given for "
            f"{' and '.join(map(repr, rests))}.",
            "population",
            "groups",
        )
    if groups and sum(sizes) != people.n_nodes:
        parts = ", ".join(f"{n} {name!r}" for n, name in zip(sizes, names, strict=True))
        yield Problem(
            f"must hold all nodes, but population.n_nodes = {people.n_nodes}, and they hold "
            f"{sum(sizes)} ({parts}); a group without share and n_nodes takes the rest.",
            "population",
            "groups",
        )


def check_node_classes(scenario: Scenario) -> Problems:
    """Require classes of nodes that plug-ins hold which are imported."""
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
                yield Problem(f"{name} is no class.", table, "node_class")


def check_distribution(scenario: Scenario) -> Problems:
    """Require a registered distribution of costs, with options that it takes."""
    yield from _check_choice(scenario, ("population", "rho"), scenario.population.rho)


def check_divergence(scenario: Scenario) -> Problems:
    """Require data where costs follow them."""
    for place, choice in choices(scenario.population, ("population",)):
        if choice.kind == "divergence" and scenario.training is None:
            yield Problem(
                "'divergence' follows the data that nodes hold, so there must be a [training] "
                "table (with enabled = false to train no net).",
                table_name(place),
                "kind",
            )


def check_mechanism(scenario: Scenario) -> Problems:
    """Require what a mechanism needs to know, and rules that nodes can play it by."""
    kind, options = scenario.mechanism.kind, scenario.mechanism.options
    missing = missing_for(scenario, kind)
    if missing:
        yield Problem(missing, "mechanism", "distribution")
    mechanism = MECHANISMS.create(kind, options)
    if mechanism.needs_data and scenario.training is None:
        yield Problem(
            f"{options['by']!r} looks at the data that nodes hold, so there must be a [training] "
            "table (with enabled = false to train no net).",
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
                f"{choice.kind!r} knows the contest with exponent = 1 alone; with another "
                "exponent nodes learn by 'best-response'.",
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
                "'loss' knows the contest with exponent = 1 alone; with another exponent nodes "
                "leave by 'best-response'.",
                table,
                "criterion",
            )


def check_terms(scenario: Scenario) -> Problems:
    """Require terms that nodes can keep, and mechanism and rules that are made for them."""
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
            yield Problem(f"{choice.kind!r} does not play it: {why}.", *key)
        changes = people.churn is not None or scenario.events
        if rule and choice.kind == "aggregate" and changes:
            reason = (
                "'aggregate' follows a game that changes by steps that are made for the paper's."
            )
            yield Problem(reason, *key)
    for conflict, holds, reason in (
        (
            "[population.churn]",
            people.churn is not None,
            "B* would have to be searched each round.",
        ),
        (
            "[population.misreport]",
            people.can_misreport,
            "what a false report costs is worked out for rho * epsilon.",
        ),
        (
            "[population.coalitions]",
            people.coalitions is not None,
            "what a coalition gains is worked out for rho * epsilon.",
        ),
        (
            "[population.sybils]",
            people.sybils is not None,
            "what splitting a report gains is worked out for rho * epsilon.",
        ),
        (
            "total_budget or total_epsilon",
            scenario.keeps_account,
            "B* would be searched again whenever a node has sold all that it may.",
        ),
    ):
        if holds:
            yield Problem(reason, *key, conflict=conflict)


def check_registered_names(scenario: Scenario) -> Problems:
    """Require registered names, with options that they take."""
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
        yield Problem("is required, since the server rule is 'fixed'.", "game", "budget")


def check_first_budget(scenario: Scenario) -> Problems:
    """Require a positive first budget of a server that adapts it."""
    if scenario.chooses_cap and scenario.game.budget == 0:
        yield Problem(
            f"must be positive, since the server rule {scenario.server.kind!r} starts from it; "
            "leave it out to start from half of beta.",
            "game",
            "budget",
        )


def check_churn(scenario: Scenario) -> Problems:
    """Refuse tables about fixed nodes where nodes come and go."""
    people, mechanism = scenario.population, scenario.mechanism.kind
    if people.churn is None:
        return
    conflicts = {
        "[population.rho] kind = 'divergence'": (
            follows_data(scenario),
            "newcomers bring no data of their own.",
        ),
        "[population.rho] names": (
            people.node_names is not None,
            'newcomers have no names; name_column = "" leaves those of a file out.',
        ),
        "[population.misreport]": (
            people.can_misreport,
            "nobody says whether newcomers lie.",
        ),
        f"[mechanism] kind = {mechanism!r}": (
            mechanism != "stackelberg",
            "it makes its offer once, to those who are there at first; only 'stackelberg' does "
            "not.",
        ),
        "[training]": (
            scenario.trains,
            "a newcomer would get the data and the privacy ledger of the node before it; with "
            "enabled = false no net is trained.",
        ),
    }
    for conflict, (holds, reason) in conflicts.items():
        if holds:
            yield Problem(reason, "population.churn", conflict=conflict)


def check_events(scenario: Scenario) -> Problems:
    """Require events that can happen, to something that is there."""
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
            reason = "needs the table [population.misreport], which says by what factor nodes do."
            yield Problem(reason, table, "change")
        if mechanism != "stackelberg":
            reason = "it makes its offer once, in the game as it is at first."
            yield Problem(reason, table, conflict=f"[mechanism] kind = {mechanism!r}")
        if scenario.trains and event.change == "misreport":
            reason = (
                "the noise of the training follows who misreports at first; with enabled = false "
                "no net is trained."
            )
            yield Problem(reason, table, "change", conflict="[training]")


def check_value(scenario: Scenario) -> Problems:
    """Require rounds to learn from, and a cap that follows, where the server learns."""
    if scenario.value is None:
        return
    training, kind = scenario.training, scenario.mechanism.kind
    if training is None:
        yield Problem(
            "the server learns from rounds of training, so there must be a [training] table (with "
            "enabled = false alpha and beta stand).",
            "value",
        )
    elif training.schedule != "every-round":
        yield Problem(
            "the server learns between rounds of training, so training.schedule must be "
            f"'every-round', but it is {training.schedule!r}.",
            "value",
            conflict=f"[training] schedule = {training.schedule!r}",
        )
    if kind not in CONTESTS:
        yield Problem(
            f"{kind!r} makes its offer once, whatever the server learns; the cap follows in the "
            f"mechanisms {', '.join(map(repr, CONTESTS))}.",
            "value",
            conflict=f"[mechanism] kind = {kind!r}",
        )
    for index, event in enumerate(scenario.events or ()):
        if event.change in ("alpha", "beta"):
            reason = f"the server with a [value] table learns {event.change}: leave one out."
            yield Problem(reason, f"events.{index}", "change")


def check_account(scenario: Scenario) -> Problems:
    """Require a market whose rounds are all paid for where money or epsilon has a total."""
    game, training = scenario.game, scenario.training
    limits = scenario.population.total_epsilon_by_group
    if game.spending is not None and game.total_budget is None:
        yield Problem("needs total_budget, the money that it spreads.", "game", "spending")
    if not scenario.keeps_account:
        return
    table, key = ("population", "total_epsilon") if limits else ("game", "total_budget")
    mechanism = scenario.mechanism.kind
    if mechanism not in CONTESTS:
        known = ", ".join(map(repr, CONTESTS))
        reason = f"needs a contest that is held anew each round, by one of the mechanisms {known}."
        yield Problem(reason, table, key, f"[mechanism] kind = {mechanism!r}")
    if limits and scenario.population.churn is not None:
        reason = "a newcomer would take over what the node before it has sold."
        yield Problem(reason, table, key, "[population.churn]")
    if limits and scenario.privacy.horizon == "training":
        reason = "a report is then the total over the whole training already."
        yield Problem(reason, table, key, "privacy.horizon = 'training'")
    if training is None or not scenario.trains:
        return
    if training.schedule != "every-round":
        yield Problem(
            "the limit is on all rounds of the market, so that the net must train in each of "
            "them: take 'every-round', or enabled = false to train no net.",
            table,
            key,
            f"training.schedule = {training.schedule!r}",
        )
    if training.rounds > scenario.rounds.maximum:
        yield Problem(
            f"the market ends after {scenario.rounds.maximum} rounds (rounds.maximum), and those "
            f"of the training after it ({training.rounds} in all) would not be paid for.",
            table,
            key,
            "[training]",
        )


def check_manipulation(scenario: Scenario) -> Problems:
    """Require nodes that can agree or come as several, and a market that knows what that means."""
    people, n_nodes = scenario.population, scenario.population.n_nodes
    kind = scenario.mechanism.kind
    tables = {"coalitions": people.coalitions, "sybils": people.sybils}
    for name, settings in tables.items():
        if settings is None:
            continue
        table, rows = f"population.{name}", settings.rows or ()
        if rows and max(rows) >= n_nodes:
            yield Problem(f"there are {n_nodes} nodes, from row 0 on.", table, "rows")
        n_drawn = settings.number * (settings.size if isinstance(settings, Coalitions) else 1)
        if not rows and n_drawn > n_nodes:
            reason = f"asks for {n_drawn} nodes, but population.n_nodes = {n_nodes}."
            yield Problem(reason, table, "number")
        refused = {
            "tullock": "equal parts of an epsilon count for more than their sum there, which nodes "
            "do not learn; fa.build.measure_manipulation prices it.",
            "yang": "its agency takes each identity for a node, which nodes do not learn; "
            "fa.build.measure_manipulation prices it.",
        }
        conflicts = {
            "[population.groups]": (people.groups is not None, "members come from all nodes."),
            "[population.churn]": (people.churn is not None, "newcomers belong to nobody."),
            "[population.node_class]": (people.node_class is not None, "rules speak for a member."),
            "[events]": (scenario.events is not None, "the game of the members stays."),
            "[training]": (scenario.trains, "a member's data would not be trained on."),
            "a limit over all rounds": (scenario.keeps_account, "nobody says whose it is."),
            f"[mechanism] kind = {kind!r}": (
                name == "sybils" and kind in refused,
                refused.get(kind, ""),
            ),
        }
        for conflict, (holds, reason) in conflicts.items():
            if holds:
                yield Problem(reason, table, conflict=conflict)
    if people.coalitions and people.sybils:
        yield Problem("one of both.", "population.coalitions", conflict="[population.sybils]")


def check_payment(scenario: Scenario) -> Problems:
    """Refuse payments after reports where a mechanism posts its payments before nodes answer."""
    mechanism = scenario.mechanism.kind
    if scenario.rounds.payment == "after-reports" and mechanism != "stackelberg":
        yield Problem(
            f"'after-reports' is for the mechanism 'stackelberg'; {mechanism!r} posts what it pays "
            "before nodes answer.",
            "rounds",
            "payment",
        )


def check_learning_rule(scenario: Scenario) -> Problems:
    """Require public reports for a learning rule that reads each of them."""
    for place, choice in choices(scenario):
        if place[-1] != "learning":
            continue
        needed = LEARNING_RULES[choice.kind].needs
        if needed == "full" and scenario.information.reports != "full":
            yield Problem(
                f"the rule {choice.kind!r} needs to see every report, but "
                "information.reports = 'aggregate' shows their sum alone.",
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
            reason = "'bayes-nash' is solved for payments in proportion to epsilon."
            yield Problem(reason, table_name(place), "kind", f"[mechanism] kind = {kind!r}")


def check_comparisons(scenario: Scenario) -> Problems:
    """Require known names in the list of what is trained beside the market, each once."""
    compare = scenario.training.compare if scenario.training else ()
    for name in compare:
        if compare.count(name) > 1:
            yield Problem(f"{name!r} stands twice.", "training", "compare")
    for name in compare:
        if name != NO_NOISE and (name == "stackelberg" or name not in MECHANISMS):
            known = [NO_NOISE, *(known for known in MECHANISMS if known != "stackelberg")]
            reason = f"{name!r} is not known. Known: {', '.join(known)}."
            yield Problem(reason, "training", "compare")
        elif name != NO_NOISE and (missing := missing_for(scenario, name)):
            yield Problem(missing, "training", "compare")


def check_compared(scenario: Scenario) -> Problems:
    """Require known mechanisms in [compared], with options that they take."""
    for name, options in (scenario.compared or {}).items():
        try:
            MECHANISMS.create(name, options)
        except UnknownNameError as error:
            yield Problem(str(error), "compared", name)
        except OptionError as error:
            yield Problem(error.reason, f"compared.{name}", error.option)


def check_noise_of_sum(scenario: Scenario) -> Problems:
    """Refuse noise or privacy of the sum alone where a setting needs the noise of each node."""
    privacy, training = scenario.privacy, scenario.training
    central = privacy.view == "central"
    if training is None or not (central or privacy.noise_of == "sum"):
        return
    key, problem = "noise_of", "noise cannot be drawn for the sum alone"
    if central:
        key, problem = "view", "epsilon cannot hold against a server that sees the sum alone"
    steps = training.local_epochs > 1 or training.batch_size is not None
    for holds, reason in (
        (privacy.secure_noise, "privacy.secure_noise = true draws it for each node"),
        (privacy.check is not None, "[privacy.check] looks at what each node sends"),
        (privacy.placement.kind == "dp-sgd" and steps, "'dp-sgd' adds it in each local step"),
    ):
        if holds:
            yield Problem(f"{problem}, since {reason}.", "privacy", key)


def check_quorum(scenario: Scenario) -> Problems:
    """Require a quorum that can be reached, and none where nothing asks for it."""
    privacy, training = scenario.privacy, scenario.training
    if privacy.view == "local" and privacy.quorum < 1:
        yield Problem("means nothing without view = 'central'.", "privacy", "quorum")
    if privacy.view == "local" or training is None:
        return
    arriving = (1 - training.dropping) * (1 - training.straggling)
    if privacy.quorum > arriving:
        yield Problem(
            f"of the nodes asked in a round a share of {arriving:.3g} is expected to send in time, "
            f"so that most rounds would be given up with a quorum of {privacy.quorum:g}: take a "
            "lower one.",
            "privacy",
            "quorum",
        )


def check_adaptive_clipping(scenario: Scenario) -> Problems:
    """Refuse an adaptive clipping norm where counts cannot be made, or noised."""
    privacy, training = scenario.privacy, scenario.training
    if privacy.adaptive_clipping is None or training is None:
        return
    for conflict, holds, reason in (
        ("privacy.secure_noise = true", privacy.secure_noise, "its grid has one clipping norm."),
        (
            f"training.engine = {training.engine!r}",
            training.engine == "stacked",
            "the serial engine alone counts what lies within the norm.",
        ),
        (
            f"training.device = {training.device!r}",
            training.device == "cuda",
            "the serial engine alone, on the processor, counts what lies within the norm.",
        ),
    ):
        if holds:
            yield Problem(reason, "privacy.adaptive_clipping", conflict=conflict)


def check_currency(scenario: Scenario) -> Problems:
    """Refuse zCDP where settings of another currency would do nothing, or nothing is claimed."""
    privacy = scenario.privacy
    if privacy.currency != "zcdp":
        return
    if privacy.calibration != "analytic":
        reason = "'zcdp' gives the noise itself, so that there is nothing to calibrate."
        yield Problem(reason, "privacy", "currency", "privacy.calibration = 'classical'")
    rate = privacy.placement.options.get("sampling_rate", 1.0)
    if rate < 1:
        yield Problem(
            "zCDP gains nothing where data are sampled, and no rho is claimed for it.",
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
    """Refuse a batch size where sampling decides how many samples a step takes."""
    training, options = scenario.training, scenario.privacy.placement.options
    if training is None or training.batch_size is None:
        return
    rate = options.get("sampling_rate", 1.0)
    if rate < 1:
        yield Problem(
            "a local step then takes each sample with that probability, so that no batch has a "
            "given size; leave one of the two out.",
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
"""In the order in which they are asked: the first problem is the one that is reported, and a rule
may rely on all before it."""
