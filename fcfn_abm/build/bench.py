"""The cells of a benchmark, and their populations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fcfn_abm.build.parts import draw_population
from fcfn_abm.errors import InvalidGameError, InvalidScenarioError, UnknownNameError
from fcfn_abm.mechanisms import MECHANISMS
from fcfn_abm.population import Population, require_sized
from fcfn_abm.registry import OptionError
from fcfn_abm.rng import replication_seed
from fcfn_abm.scenario import BenchData, BenchSettings, Scenario
from fcfn_abm.scenario.sweep import Check, replace_values
from fcfn_abm.training import ImageData

OWN = "scenario"
"""Name of the scenario's own costs or data, if the benchmark names none."""


@dataclass(frozen=True)
class BenchCell:
    """One distribution of costs, one distribution of data and one cap, with all its populations."""

    costs: str
    """Name of the distribution of costs."""
    data: str
    """Name of the distribution of data."""
    budget: float
    """Payment cap B, in currency."""
    coupling: float
    """How costs depend on the data (:class:`~fcfn_abm.scenario.BenchData`)."""
    bench: BenchSettings
    """The benchmark to which the cell belongs."""
    scenario: Scenario
    """The cell as an ordinary scenario with these costs, data and cap, without a benchmark."""

    def replica(self, replication: int) -> Scenario:
        """Return the scenario of a population, with its own seed (the file's for the first)."""
        seed = replication_seed(self.scenario.seed, replication)
        return self.scenario.model_copy(update={"seed": seed})

    def draw_population(self, replication: int, images: ImageData | None) -> Population:
        """Draw a population: the same for every mechanism, cap and mode.

        Parameters
        ----------
        replication : int
            Its number, from 0.
        images : ImageData, optional
            Images of the replica; None if no data are used.

        Raises
        ------
        InvalidScenarioError
            If a cost is not a positive number within the range of the formulas.
        """
        population = draw_population(self.replica(replication), images)
        divergence = population.held.label_divergence
        if not self.coupling or divergence is None:
            return population
        factor = 1.0 + self.coupling * divergence
        rho = population.true_rho * (factor / factor.mean())
        try:
            require_sized(rho=rho)
        except InvalidGameError as error:
            raise InvalidScenarioError(str(error), table="bench.data", key=self.data) from None
        coupled = Population.of(rho, population.misreport_factor, population.held)
        return replace(coupled, groups=population.groups, names=population.names)


def list_cells(scenario: Scenario, check: Check, where: str = "scenario") -> list[BenchCell]:
    """Return the cells of a scenario's benchmark, each checked.

    Parameters
    ----------
    scenario : Scenario
        With a benchmark.
    check : callable
        Validates a scenario, raises InvalidScenarioError, and returns it with defaults.
    where : str, default "scenario"
        Source of the scenario, for error messages.

    Returns
    -------
    list of BenchCell
        Caps change fastest, and distributions of costs slowest.

    Raises
    ------
    InvalidScenarioError
        If a cell is invalid.
    """
    bench = require_bench(scenario)
    _check_names(scenario, bench, where)
    base = scenario.model_copy(update={"bench": None, "sweep": None})
    cells = []
    for costs, rho in (bench.costs or {OWN: None}).items():
        _check_costs(costs, rho, where)
        for data, dealt in (bench.data or {OWN: BenchData()}).items():
            values: dict[str, Any] = {} if rho is None else {"population.rho": rho}
            if dealt.partition is not None:
                values["training.partition"] = dealt.partition
            place = f"{where}, [bench] costs {costs!r} and data {data!r}"
            point = replace_values(base, values, check, place)
            for budget in bench.budgets:
                game = point.game.model_copy(update={"budget": budget})
                played = point.model_copy(update={"game": game})
                cells.append(BenchCell(costs, data, budget, dealt.coupling, bench, played))
    return cells


def require_bench(scenario: Scenario) -> BenchSettings:
    """Return the benchmark of a scenario; raise InvalidScenarioError if it has none."""
    if scenario.bench is None:
        raise InvalidScenarioError(
            "The scenario has no [bench] table; use 'fcfn compare' to compare mechanisms in it."
        )
    return scenario.bench


def name_mechanisms(scenario: Scenario) -> Scenario:
    """Return a scenario whose benchmark lists its mechanisms: all of them by default."""
    bench = require_bench(scenario)
    if bench.mechanisms is not None:
        return scenario
    names = tuple(dict.fromkeys([scenario.mechanism.kind, *MECHANISMS]))
    named = bench.model_copy(update={"mechanisms": names})
    return scenario.model_copy(update={"bench": named})


def _check_costs(name: str, rho: Any, where: str) -> None:
    if rho is not None and not isinstance(rho, (str, Mapping)):
        raise InvalidScenarioError(
            "must be a distribution of costs, as a name or a table like [population.rho].",
            file=where,
            table="bench.costs",
            key=name,
        )
    kind = rho.partition(":")[0] if isinstance(rho, str) else (rho or {}).get("kind")
    if kind == "csv":
        raise InvalidScenarioError(
            "a file of costs cannot be used here; name it in [population.rho], and remove "
            "[bench.costs].",
            file=where,
            table="bench.costs",
            key=name,
        )


def _check_names(scenario: Scenario, bench: BenchSettings, where: str) -> None:
    """Require known, unique names, and data if a mechanism uses them."""

    def refuse(reason: str, key: str, table: str = "bench") -> InvalidScenarioError:
        return InvalidScenarioError(reason, file=where, table=table, key=key)

    for key in ("mechanisms", "modes", "budgets"):
        values = getattr(bench, key) or ()
        for value in values:
            if values.count(value) > 1:
                raise refuse(f"{value!r} is listed twice.", key)
    for name in bench.mechanisms or ():
        try:
            MECHANISMS[name]
        except UnknownNameError as error:
            raise refuse(str(error), "mechanisms") from None
    for table in ("coalitions", "sybils"):
        if getattr(scenario.population, table):
            raise InvalidScenarioError(
                "a benchmark supports neither coalitions nor sybils.",
                file=where,
                table="bench",
                conflict=f"[population.{table}]",
            )
    has_data = scenario.training is not None
    for name, dealt in bench.data.items():
        if not has_data and (dealt.coupling or dealt.partition is not None):
            raise refuse(
                "there are no data to distribute; add a [training] table (with enabled = false to "
                "train no net).",
                name,
                "bench.data",
            )
    for name in bench.mechanisms or MECHANISMS:
        for knob in MECHANISMS[name].knobs:
            if knob not in ("budget", *MECHANISMS.options(name)):
                raise refuse(
                    f"the knob {knob!r} of {name!r} is not one of its options.", "mechanisms"
                )
    for name in bench.mechanisms or ():
        own = scenario.mechanism
        options = own.options if own.kind == name else (scenario.compared or {}).get(name, {})
        try:
            looks = MECHANISMS.create(name, options).needs_data
        except OptionError:  # raised elsewhere
            continue
        if looks and not has_data:
            raise refuse(
                f"{name!r} uses the nodes' data; add a [training] table (with enabled = false to "
                "train no net).",
                "mechanisms",
            )
    _check_training(scenario, bench, refuse)


def _check_training(scenario: Scenario, bench: BenchSettings, refuse: Any) -> None:
    part = bench.training
    if part is None:
        return
    if scenario.training is None:
        raise refuse("needs a [training] table.", "training")
    known: dict[str, Any] = {
        "costs": list(bench.costs or (OWN,)),
        "data": list(bench.data or (OWN,)),
        "budget": list(bench.budgets),
        "mode": list(bench.modes),
    }
    for key, allowed in known.items():
        if getattr(part, key) not in allowed:
            listed = ", ".join(map(repr, allowed))
            reason = f"must be one of {listed}, but is {getattr(part, key)!r}."
            raise refuse(reason, key, "bench.training")
    for key, most, what in (
        ("seeds", bench.replications, "bench.replications"),
        ("last", scenario.training.rounds, "training.rounds"),
    ):
        if getattr(part, key) > most:
            reason = f"must not exceed {what} = {most}, but is {getattr(part, key)}."
            raise refuse(reason, key, "bench.training")
