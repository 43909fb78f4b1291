"""The facts about a run in its ``run.json``."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

import fcfn_abm
from fcfn_abm import build
from fcfn_abm.errors import InvalidRecordError, InvalidScenarioError, UnknownNameError
from fcfn_abm.game import (
    ContestEquilibrium,
    averaged_nodes,
    epsilon_ceiling,
    nash_equilibrium,
    privacy_cost_ceiling,
)
from fcfn_abm.learning import LearningRule
from fcfn_abm.learning.bayes_nash import BayesNash
from fcfn_abm.mechanisms import MECHANISMS, Outcome
from fcfn_abm.mechanisms.terms import read_terms
from fcfn_abm.plugins import list_plugins
from fcfn_abm.population import Population
from fcfn_abm.runs.provenance import describe_provenance
from fcfn_abm.scenario import Scenario

_LIBRARIES = (
    "mesa",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "pydantic",
    "torch",
    "scikit-learn",
    "opendp",
)


def versions() -> dict[str, str]:
    """Return the versions of the libraries that results depend on."""
    return dict(_versions())


def describe_program() -> dict[str, Any]:
    """Return what results depend on besides the scenario: versions and plug-ins."""
    plugins = [plugin.facts() for plugin in list_plugins()]
    return {"versions": versions(), **({"plugins": plugins} if plugins else {})}


def describe_work(seconds: float | None = None) -> dict[str, Any]:
    """Return what the facts about any results end with: program and provenance.

    Parameters
    ----------
    seconds : float, optional
        How long the work took that has just ended; without it times are left out.
    """
    return {**describe_program(), "provenance": describe_provenance(seconds)}


def describe_plugin(plugin: Mapping[str, Any]) -> str:
    """Return the version and the SHA-256 of a plug-in named in a record, as text.

    Examples
    --------
    >>> describe_plugin({"name": "my_rules.py", "version": None, "sha256": "0f" * 32})
    'SHA-256 0f0f0f0f0f0f'
    """
    digest = f"SHA-256 {plugin['sha256'][:12]}"
    return f"{plugin['version']}, {digest}" if plugin["version"] else digest


@contextmanager
def require_plugins(path: Path, run: Mapping[str, Any]) -> Iterator[None]:
    """Raise InvalidRecordError if a block misses a name of a plug-in that the record needs."""
    try:
        yield
    except (UnknownNameError, InvalidScenarioError):
        here = {plugin.name for plugin in list_plugins()}
        missing = [plugin for plugin in run.get("plugins", ()) if plugin["name"] not in here]
        if not missing:
            raise
        named = ", ".join(f"{plugin['name']} ({describe_plugin(plugin)})" for plugin in missing)
        raise InvalidRecordError(
            f"{path}: needs the plug-in {named}, which is not imported; import its file or module "
            "with --import (in Python: fa.import_plugin)."
        ) from None


@cache  # reading versions takes longer than a short run
def _versions() -> dict[str, str]:
    found = {"fcfn_abm": fcfn_abm.__version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def reference_facts(outcome: Outcome, rho: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return the numbers of a mechanism's outcome, without those of single nodes.

    ``tau`` and ``threshold`` are defined for contests, otherwise zero.
    """
    contested = MECHANISMS[outcome.mechanism].contested
    solved = outcome.contest
    plain = contested and solved is None
    contest = nash_equilibrium(
        rho if plain else [], 1.0
    )  # the active set does not depend on the pool
    sums = outcome_facts(outcome)
    return {
        "mechanism": outcome.mechanism,
        "status": sums.pop("status"),
        "reason": outcome.reason,
        "payment": sums.pop("payment"),
        "n_active": sums.pop("n_active"),
        "total_epsilon": sums.pop("total_epsilon"),
        "mean_epsilon": sums.pop("mean_epsilon"),
        "average_over": outcome.average_over,
        "tau": contest.tau,
        "threshold": contest.threshold,
        **sums,
        **({} if solved is None else {"solution": _solution_facts(solved, outcome.note)}),
    }


def _solution_facts(solved: ContestEquilibrium, note: str) -> dict[str, Any]:
    """Return how a contest with terms other than the paper's was solved."""
    return {
        "found_by": solved.method,
        "regret": solved.regret,
        "unique": solved.unique,
        "n_others": len(solved.others),
        "note": note,
    }


def outcome_facts(outcome: Outcome) -> dict[str, Any]:
    """Return the columns of a sweep's table about a mechanism's outcome."""
    return {
        "status": outcome.status,
        "payment": outcome.server_payment,
        "n_active": outcome.n_active,
        "total_epsilon": float(outcome.epsilon.sum()),
        "mean_epsilon": outcome.mean_epsilon,
        "node_utility": float(outcome.node_utility.sum()),
        "server_utility": outcome.server_utility,
    }


def belief_facts(learning: LearningRule, budget: float) -> dict[str, Any]:
    """Return the expectations of nodes that know only the cost distribution; else nothing."""
    if not isinstance(learning, BayesNash):
        return {}
    known = learning.solution
    return {
        "bayes_nash": {
            "n_types": known.types.size,
            "types": known.types.tolist(),
            "probabilities": known.probabilities.tolist(),
            "expected_total_epsilon": budget * known.expected_total,
            "regret": known.regret,
        }
    }


def bound_facts(scenario: Scenario, rho: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the bounds that the paper derives for its contest, or nothing for other games.

    ``privacy_cost_ceiling`` is the unit cost that no active node reaches if trade pays off (47).
    ``epsilon_ceiling_low`` and ``epsilon_ceiling_high`` are the upper bounds of epsilon of the
    nodes with the highest and the lowest cost (52), at the cap of the closed form.
    """
    if scenario.mechanism.kind != "stackelberg" or read_terms(scenario) is not None:
        return {}
    game, form = scenario.game, build.solve_equilibrium(scenario, rho)
    if form.n_active == 0:
        return {}
    budget = form.budget if scenario.cap is None else scenario.cap
    averaged = averaged_nodes(game.average_over, form.epsilon)
    ceiling = epsilon_ceiling(rho, budget)
    return {
        "privacy_cost_ceiling": privacy_cost_ceiling(game.alpha, game.beta, averaged),
        "epsilon_ceiling_low": float(ceiling.min()),
        "epsilon_ceiling_high": float(ceiling.max()),
    }


def group_facts(groups: Iterable[str], nodes: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the results of each group of nodes; their sums are those of all nodes.

    Parameters
    ----------
    groups : iterable of str
        Names, including those of empty groups.
    nodes : DataFrame
        Table of the nodes.
    """
    facts = []
    for name in groups:
        own = nodes[nodes["group"] == name]
        facts.append(
            {
                "name": name,
                "n_nodes": len(own),
                "n_active": int(own["active"].sum()),
                "total_epsilon": float(own["epsilon"].sum()),
                "payment": float(own["payment"].sum()),
                "node_utility": float(own["utility"].sum()),
                "equilibrium_n_active": int((own["equilibrium_epsilon"] > 0).sum()),
                "equilibrium_total_epsilon": float(own["equilibrium_epsilon"].sum()),
                "equilibrium_node_utility": float(own["equilibrium_utility"].sum()),
            }
        )
    return facts


def manipulation_facts(scenario: Scenario, population: Population) -> dict[str, Any]:
    """Return the gains and losses from coalitions and split identities, if there are any."""
    if population.manipulation is None:
        return {}
    found = build.measure_manipulation(scenario, population)
    return {"manipulation": vars(found)} if found else {}


def tracking_facts(rounds: pd.DataFrame, until: int | None) -> dict[str, Any]:
    """Return how closely a market followed the equilibrium of the present nodes.

    Parameters
    ----------
    rounds : DataFrame
        Table of the rounds.
    until : int, optional
        Last round in which the population changed.

    Returns
    -------
    dict
        Means over the second half of the rounds up to ``until``, after the initial transient,
        without rounds with fewer than two nodes, which have no equilibrium.
    """
    moving = rounds[: until or len(rounds)]
    late = moving[len(moving) // 2 :]
    late = late[late["equilibrium_n_active"] > 0]
    missed = late["total_epsilon"] / late["equilibrium_total_epsilon"] - 1.0
    means = {
        "tracking_distance": late["distance"],
        "tracking_total_error": missed.abs(),
        "tracking_exploitability": late["exploitability"],
        "tracking_n_present": late["n_present"],
        "tracking_participation": late["n_active"] / late["n_present"],
        "tracking_equilibrium_participation": late["equilibrium_n_active"] / late["n_present"],
    }
    return {"n_rounds": len(late)} | {
        name: float(values.mean()) if len(late) else None for name, values in means.items()
    }
