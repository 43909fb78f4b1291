"""Comparisons of mechanisms on the same populations and under the same cap."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fcfn_abm import build
from fcfn_abm.dp import gaussian_sigma, multiplier_for_zcdp
from fcfn_abm.errors import InvalidScenarioError, as_count, as_names, as_path
from fcfn_abm.game import welfare
from fcfn_abm.mechanisms import MECHANISMS, Mechanism, Outcome, PricingGame
from fcfn_abm.mechanisms.base import settle
from fcfn_abm.mechanisms.terms import read_terms
from fcfn_abm.population import Population
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.records import new_folder, raise_as_output_error, seal, write_facts
from fcfn_abm.records.folders import SCENARIO_FILE
from fcfn_abm.records.integrity import RUN_FILE
from fcfn_abm.records.tables import columns_of, write_table
from fcfn_abm.report.compare import averages_tree, status_counts
from fcfn_abm.rng import replication_seed
from fcfn_abm.runs.facts import describe_work
from fcfn_abm.scenario import Scenario, SweepSettings
from fcfn_abm.scenario.load import require_scenario

type Floats = npt.NDArray[np.float64]

MOST_RUNS = SweepSettings().maximum
"""Most populations, equal to the default maximum of runs in a sweep."""
_BLOCK = 2**16  # nodes of populations priced together


@dataclass(frozen=True)
class Comparison:
    """Outcomes of mechanisms on the same populations and under the same cap."""

    scenario: Scenario
    """The scenario, resolved: all defaults are filled in."""
    run: dict[str, Any]
    """Settings, means and intervals, versions and time."""
    frame: pd.DataFrame
    """One row per replication and mechanism."""
    path: Path | None = None
    """The folder, if the comparison is on disk."""


def compare_mechanisms(
    scenario: Scenario,
    mechanisms: Iterable[str] | None = None,
    replications: int = 20,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> Comparison:
    """Price populations of a scenario with several mechanisms, under the same cap.

    Parameters
    ----------
    scenario : Scenario
        The experiment, usually from :func:`fcfn_abm.load_scenario`. Its own mechanism keeps its
        options; the others have those of ``[compared]``, or their defaults.
    mechanisms : iterable of str, optional
        Registered names; by default all, starting with the scenario's own.
    replications : int, default 20
        Number of populations; the first has the scenario's seed.
    out : str or Path, optional
        Folder for table, figure and scenario, written atomically; by default the comparison stays
        in memory.
    overwrite : bool, default False
        Whether to replace an existing folder.
    progress : bool, default False
        Whether to show a bar on stderr; one line per half minute if it is not a terminal.

    Returns
    -------
    Comparison
        A frame with one row per replication and mechanism, and facts about it.

    Raises
    ------
    UnknownNameError
        If a mechanism is not registered.
    InvalidScenarioError
        If parts of the scenario are inconsistent, or there is nothing to compare.
    OutputError
        If ``out`` is taken or cannot be written.

    Notes
    -----
    The cap is the scenario's ``game.budget``, or by default the Stackelberg leader's B* of each
    population, for every mechanism. Rows of mechanisms without trade contain zeros; if a
    mechanism's equations have no solution, utilities and epsilon are nan.

    Examples
    --------
    >>> from fcfn_abm.scenario import Scenario
    >>> found = compare_mechanisms(Scenario(), ["stackelberg", "random"], replications=3)
    >>> found.frame.groupby("mechanism")["n_losing"].max()["stackelberg"]
    np.int64(0)
    """
    require_scenario(scenario, "compare_mechanisms")
    names = _names(scenario, mechanisms)
    replications = as_count(
        "replications", replications, most=MOST_RUNS, error=InvalidScenarioError
    )
    out = None if out is None else as_path("out", out)
    build.check_scenario(scenario)
    people = scenario.population
    if people.coalitions or people.sybils:
        raise InvalidScenarioError(
            "comparisons of mechanisms need nodes that report for themselves, as one identity: "
            "remove [population.coalitions] and [population.sybils], or compare runs."
        )
    scenario = build.resolve_defaults(scenario)
    with ExitStack() as stack:
        if out is not None:
            folder = stack.enter_context(new_folder(out, overwrite=overwrite, kind="comparison"))
        started = time.perf_counter()
        frame = _price_all(scenario, names, replications, progress=progress)
        run = _facts(scenario, names, frame, time.perf_counter() - started)
        if out is not None:
            with raise_as_output_error(out):
                _write(scenario, run, frame, folder)
    return Comparison(scenario, run, frame, out)


def _names(scenario: Scenario, mechanisms: Iterable[str] | None) -> list[str]:
    if mechanisms is None:
        mechanisms = [scenario.mechanism.kind, *MECHANISMS]
    asked = as_names("mechanisms", mechanisms, error=InvalidScenarioError)
    names = list(dict.fromkeys(asked))  # without duplicates, in the given order
    if not names:
        raise InvalidScenarioError("mechanisms must contain at least one name.")
    for name in names:
        MECHANISMS[name]
    return names


def _price_all(
    scenario: Scenario, names: list[str], replications: int, *, progress: bool
) -> pd.DataFrame:
    parts = []
    together = max(1, _BLOCK // scenario.population.n_nodes)
    with progress_bar(
        total=replications * len(names),
        desc="pricing",
        unit="outcome",
        shown=progress,
    ) as bar:
        for first in range(0, replications, together):
            indices = range(first, min(first + together, replications))
            seeds = [replication_seed(scenario.seed, index) for index in indices]
            replicas = [scenario.model_copy(update={"seed": seed}) for seed in seeds]
            populations = [build.draw_population(replica) for replica in replicas]
            rho = np.stack([population.rho for population in populations])
            budgets = np.full(len(seeds), scenario.game.budget or 0.0)
            if scenario.game.budget is None:
                budgets = _best_caps(scenario, rho)
            for name in names:
                bar.set_postfix(replication=first, mechanism=name, refresh=False)
                outcome = _price(replicas, name, populations, budgets)
                measured = _measure(scenario, populations, outcome)
                about = {"replication": indices, "seed": seeds, "mechanism": name}
                parts.append(pd.DataFrame({**about, "budget": budgets, **measured}))
                bar.update(len(seeds))
    frame = pd.concat(parts).sort_values("replication", kind="stable", ignore_index=True)
    frame = frame[[column.name for column in columns_of("comparison")]]
    unsolved = frame["status"] == "no-solution"
    unknown = [
        column.name
        for column in columns_of("comparison")
        if column.kind == "float64" and column.name not in ("budget", "optimum")
    ]
    frame.loc[unsolved, unknown] = float("nan")
    return frame


def _best_caps(scenario: Scenario, rho: Floats) -> Floats:
    """Return B* of each population; found by search under terms other than the paper's."""
    if read_terms(scenario) is None:
        return np.asarray(build.solve_equilibrium(scenario, rho).budget)
    return np.array([build.solve_equilibrium(scenario, own).budget for own in rho])


def _price(
    replicas: Sequence[Scenario],
    name: str,
    populations: Sequence[Population],
    budgets: Floats,
) -> Outcome:
    """Price with a mechanism; without the information it needs, there is no solution."""
    missing = build.describe_missing(replicas[0], name)
    if not missing:
        return build.price_populations(replicas, name, populations, budgets)
    game, rho = replicas[0].game, np.stack([population.rho for population in populations])
    primitives, nothing = (
        PricingGame(rho, game.alpha, game.beta, budgets, game.average_over),
        0 * rho,
    )
    return settle(name, primitives, nothing, nothing, status="no-solution", reason=missing)


def _measure(
    scenario: Scenario, populations: Sequence[Population], outcome: Outcome
) -> dict[str, Any]:
    """Return the measures of outcomes, one value per population."""
    game = scenario.game
    asks_for_costs = MECHANISMS[outcome.mechanism].reports == "cost"
    rho = np.stack([nodes.true_rho if asks_for_costs else nodes.rho for nodes in populations])
    judged = welfare(
        outcome.epsilon,
        rho,
        outcome.payment,
        game.alpha,
        game.beta,
        game.average_over,
        read_terms(scenario),
    )
    n_nodes = rho.shape[1]
    return {
        "status": outcome.status,
        "reason": outcome.reason,
        "n_nodes": n_nodes,
        "n_active": outcome.n_active,
        "n_losing": judged.n_losing,
        "participation": outcome.n_active / n_nodes,
        "mean_epsilon": outcome.mean_epsilon,
        "average_over": outcome.average_over,
        "noise_multiplier": _noise_multiplier(scenario, outcome),
        "mean_node_utility": outcome.node_utility.mean(axis=1),
        "node_utility": outcome.node_utility.sum(axis=1),
        "server_utility": outcome.server_utility,
        "agency_utility": outcome.agency_utility,
        "server_payment": outcome.server_payment,
        "welfare": judged.total,
        "optimum": judged.optimum,
        "price_of_anarchy": judged.price_of_anarchy,
        "rent_dissipation": judged.rent_dissipation,
        "gini": judged.gini,
    }


def _noise_multiplier(scenario: Scenario, outcome: Outcome) -> npt.NDArray[np.float64]:
    """Return the mean noise multiplier of each population's nodes; nan without active nodes."""
    privacy = scenario.privacy
    different, places = np.unique(outcome.epsilon[outcome.active], return_inverse=True)
    if privacy.currency == "zcdp":
        sigma = multiplier_for_zcdp(different, 1)[places]
    else:
        sigma = gaussian_sigma(different, privacy.delta, calibration=privacy.calibration)[places]
    by_population = np.split(sigma, np.cumsum(outcome.n_active)[:-1])
    return np.array([each.mean() if each.size else np.nan for each in by_population])


def _facts(
    scenario: Scenario, names: list[str], frame: pd.DataFrame, seconds: float
) -> dict[str, Any]:
    return {
        "kind": "comparison",
        "title": scenario.title,
        "seed": scenario.seed,
        "n_nodes": scenario.population.n_nodes,
        "replications": int(frame["replication"].nunique()),
        "mechanisms": names,
        "cap": "B* of each population" if scenario.game.budget is None else "game.budget",
        "average_over": scenario.game.average_over,
        "delta": scenario.privacy.delta,
        "calibration": scenario.privacy.calibration,
        "claims": {name: _mechanism(scenario, name).claims.facts() for name in names},
        "status": status_counts(frame),
        "statistics": averages_tree(frame),
        "seconds": seconds,
        **describe_work(seconds),
    }


def _mechanism(scenario: Scenario, name: str) -> Mechanism:
    own, compared = scenario.mechanism, scenario.compared or {}
    return MECHANISMS.create(name, own.options if own.kind == name else compared.get(name, {}))


def _write(scenario: Scenario, run: dict[str, Any], frame: pd.DataFrame, folder: Path) -> None:
    from fcfn_abm.report.figures import comparison  # loads matplotlib
    from fcfn_abm.report.figures.files import write_png

    write_table("comparison", frame, folder / "comparison.parquet")
    write_facts(scenario, run, folder)
    write_png({"comparison": comparison(frame)}, folder / "figures")
    seal(folder, [RUN_FILE, SCENARIO_FILE, "comparison.parquet"])
