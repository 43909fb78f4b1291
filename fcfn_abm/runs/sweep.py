"""Sweeps: many runs of one scenario, on many workers, in one table.

Each worker gets a stretch of runs and writes its results atomically to a file of its own. If a
process dies, at most a stretch of about a second is lost, and the same call resumes with the
missing runs.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fcfn_abm import build
from fcfn_abm.errors import (
    InvalidRecordError,
    InvalidScenarioError,
    RunFailedError,
    as_path,
)
from fcfn_abm.learning.base import scalar_moves
from fcfn_abm.plugins import list_plugins
from fcfn_abm.process.cluster import Cluster
from fcfn_abm.process.progress import print_note, progress_bar
from fcfn_abm.process.tasks import run_tasks
from fcfn_abm.process.workers import (
    MAX_DEATHS,
    Processes,
    Workers,
    as_workers,
)
from fcfn_abm.records import raise_as_output_error
from fcfn_abm.report.marks import Text, join, verdict
from fcfn_abm.runs.results import (
    carry_out_run,
    carry_out_runs,
    create_failed_result,
    create_table,
    drop_failed_results,
    drop_unreadable_results,
    find_failed_results,
    find_missing_runs,
    keep_results,
    list_results,
    remove_partial_results,
    write_table,
)
from fcfn_abm.runs.sensitivity import sensitivity_text
from fcfn_abm.runs.sweep_folder import (
    TABLE,
    Sweep,
    claim_folder,
    has_table,
    read_sweep,
    require_same_scenario,
    require_same_versions,
    sweep_identity,
)
from fcfn_abm.scenario import Scenario, SweepRun
from fcfn_abm.scenario.load import require_scenario

_MAX_LISTED = 5  # most failed runs listed
_PRELOAD = "fcfn_abm.runs.run"  # loads all that a run needs, including Mesa
_PRELOAD_COMPILED = "fcfn_abm.abm.play"  # loads numba
_MANY_NODES = 5_000  # total over all markets, above which compiled rounds are preloaded
_LONG_SECONDS = 5.0  # a first run that takes longer is not slow because of imports


@dataclass(frozen=True)
class Plan:
    """The size and estimated time of a sweep."""

    n_runs: int
    """Number of runs."""
    n_missing: int
    """Number of missing runs."""
    n_workers: int
    """Number of workers that share the runs."""
    seconds_a_run: float
    """Time of a run in seconds: mean of the first and the last missing run."""
    error: str | None = None
    """The error of one of these runs, if it failed."""

    @property
    def seconds(self) -> float:
        """Estimated time of all missing runs, without starting workers."""
        return self.n_missing * self.seconds_a_run / self.n_workers

    def facts(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return {**asdict(self), "seconds": self.seconds}


def run_sweep(
    scenario: Scenario,
    out: str | Path,
    executor: Executor | Workers | None = None,
    *,
    retry: bool = False,
    durable: bool = True,
    timeout: float | None = None,
    progress: bool = False,
) -> Sweep:
    """Run the missing runs of a scenario's sweep in a folder.

    Parameters
    ----------
    scenario : Scenario
        With a sweep, usually from :func:`fcfn_abm.load_scenario`.
    out : str or Path
        Folder of the sweep; one of an equal scenario is resumed.
    executor : concurrent.futures.Executor or Workers, optional
        Executor for the runs: any standard-library executor; or ``Processes`` or ``Cluster`` of
        :mod:`fcfn_abm.process`, which survive killed workers. By default runs are sequential in
        this process.
    retry : bool, default False
        Whether to run failed runs again.
    durable : bool, default True
        Whether to flush the result of each run to disk before the next one. Otherwise a power
        failure may lose results, which are run again.
    timeout : float, optional
        Time limit of a run in seconds, by default the scenario's ``sweep.timeout``. Only ending a
        process ends a hanging run, so runs then need ``Processes`` or ``Cluster``; without an
        executor they run in one separate process.
    progress : bool, default False
        Whether to show a bar on stderr; one line per half minute if it is not a terminal.

    Returns
    -------
    Sweep
        Its frame has one row per run, with the error of failed runs.

    Raises
    ------
    InvalidScenarioError
        If the scenario has no sweep, or one of its runs is not valid; or if the timeout is not
        positive, or not supported by the executor.
    OutputError
        If ``out`` holds something else, belongs to another scenario, is in use by another process,
        or cannot be written.
    RunFailedError
        If workers are not available, or lost; finished runs are kept.

    Notes
    -----
    The results do not depend on the workers: equal scenarios give identical files.
    """
    scenario, runs = _resolve_sweep(scenario)
    place = as_workers(executor)
    timeout = _choose_timeout(scenario, timeout, executor)
    if executor is None and timeout is not None:
        place = Processes(1)  # a process that can be ended
    out = as_path("out", out)
    with claim_folder(scenario, sweep_identity(scenario, len(runs)), out):
        again = find_failed_results(out) if retry else []
        if again or find_missing_runs(out, runs):
            require_same_versions(out)
        for path in again:
            drop_failed_results(out, path)
        todo = find_missing_runs(out, runs)
        if todo or not has_table(out):
            with raise_as_output_error(out):
                (out / TABLE).unlink(missing_ok=True)
            drop_unreadable_results(out)
            _carry_out(
                todo,
                len(runs),
                place,
                scenario,
                out,
                durable=durable,
                timeout=timeout,
                progress=progress,
            )
            with raise_as_output_error(out):
                write_table(create_table(runs, out), out / TABLE)
        remove_partial_results(out)
    return read_sweep(out)


def plan_sweep(scenario: Scenario, out: str | Path, n_workers: int = 1) -> Plan:
    """Return the number of runs of a sweep and their estimated time, without writing anything.

    Parameters
    ----------
    scenario : Scenario
        With a sweep, usually from :func:`fcfn_abm.load_scenario`.
    out : str or Path
        Folder of the sweep, which may not exist yet.
    n_workers : int, default 1
        Number of workers that share the runs.

    Returns
    -------
    Plan
        With the mean time of the first and the last missing run, which are run.

    Raises
    ------
    InvalidScenarioError
        If the scenario has no sweep, or one of its runs is not valid.
    OutputError
        If ``out`` holds something else.
    """
    scenario, runs = _resolve_sweep(scenario)
    out = as_path("out", out)
    if out.exists():
        require_same_scenario(scenario, out)
    todo = find_missing_runs(out, runs)
    seconds: list[float] = []
    errors: list[str] = []
    for run in dict.fromkeys([0, len(todo) - 1] if todo else []):
        started = time.perf_counter()
        result = carry_out_run(todo[run], None)
        if not seconds and time.perf_counter() - started < _LONG_SECONDS:
            started = time.perf_counter()  # once more, after all imports
            result = carry_out_run(todo[run], None)
        seconds.append(time.perf_counter() - started)
        errors += [f"run {result['run']}: {result['error']}"] if result["error"] else []
    mean = sum(seconds) / len(seconds) if seconds else 0.0
    return Plan(len(runs), len(todo), n_workers, mean, errors[0] if errors else None)


def plan_text(plan: Plan) -> str:
    """Describe the plan of a sweep in a few lines."""
    text = f"{plan.n_runs:,} runs, {plan.n_missing:,} missing."
    if plan.n_missing:
        text += (
            f"\nThe first and the last missing run take {plan.seconds_a_run:.3g} s on average: "
            f"about {tqdm.format_interval(plan.seconds)} on {plan.n_workers} "
            f"worker{'s' if plan.n_workers > 1 else ''}."
        )
    return text + (f"\nOne of them failed: {plan.error}" if plan.error else "")


def sweep_facts(sweep: Sweep) -> dict[str, Any]:
    """Return the result of a sweep as plain values."""
    facts = {**sweep.run, "counts": sweep.counts(), "path": str(sweep.path)}
    if sweep.run["mode"] == "sobol" and facts["counts"]["done"] == sweep.run["n_runs"]:
        facts["sensitivity"] = json.loads(sweep.sensitivity().to_json(orient="records"))
    return facts


def sweep_text(sweep: Sweep) -> Text:
    """Describe the result of a sweep in a few lines."""
    frame = sweep.frame()
    counts = join(
        ", ",
        (join(" ", [f"{n:,}", verdict(status)]) for status, n in sweep.counts().items() if n),
    )
    failed = frame[frame["status"] == "failed"]
    errors = [f"run {row.run}: {row.error}" for row in failed.head(_MAX_LISTED).itertuples()]
    if len(failed) > _MAX_LISTED:
        errors.append(f"({len(failed) - _MAX_LISTED} more in the table)")
    lines: list[str | Text] = [join("", [f"{len(frame):,} runs: ", counts, "."]), *errors]
    lines += [f"Table: {sweep.path / TABLE}"]
    if sweep.run["mode"] == "sobol":
        try:
            lines += ["", sensitivity_text(sweep.sensitivity())]
        except InvalidRecordError as error:
            lines.append(str(error))
    return join("\n", lines)


def _resolve_sweep(scenario: Scenario) -> tuple[Scenario, list[SweepRun]]:
    require_scenario(scenario, "run_sweep")
    if scenario.sweep is None:
        raise InvalidScenarioError(
            "the scenario has no [sweep] table; use 'fcfn run' for a single run."
        )
    build.check_scenario(scenario)
    scenario = build.resolve_defaults(scenario)
    return scenario, build.list_runs(scenario)


def _choose_timeout(
    scenario: Scenario, timeout: float | None, executor: Executor | Workers | None
) -> float | None:
    """Return the time limit of a run in seconds, if there is one."""
    if timeout is None:
        timeout = scenario.sweep.timeout if scenario.sweep else None
    if timeout is None:
        return None
    if not 0 < timeout <= threading.TIMEOUT_MAX - 60:
        raise InvalidScenarioError(
            f"timeout must be positive and at most {threading.TIMEOUT_MAX - 60:.0f} seconds, not "
            f"{timeout:g}."
        )
    if executor is not None and not isinstance(executor, Processes | Cluster):
        raise InvalidScenarioError(
            "a timeout ends the process of a hanging run, so it needs workers that can be ended: "
            "Processes or Cluster of fcfn_abm.process, or no executor."
        )
    return timeout


def _carry_out(
    todo: list[SweepRun],
    n_runs: int,
    workers: Workers,
    scenario: Scenario,
    out: Path,
    *,
    durable: bool,
    timeout: float | None,
    progress: bool,
) -> None:
    if isinstance(workers, Processes):
        n_workers = min(workers.n_workers, max(len(todo), 1))
        workers = replace(workers, n_workers=n_workers, preload=_list_preloads(scenario, len(todo)))
    keeps = scenario.sweep is not None and scenario.sweep.keep == "record"
    failed = 0
    with progress_bar(
        total=n_runs,
        initial=n_runs - len(todo),
        desc="sweep",
        unit="run",
        smoothing=0.05,  # smooths the estimate over runs of different lengths
        shown=progress,
    ) as bar:

        def take_in(results: list[dict[str, Any]]) -> None:
            nonlocal failed
            failed += sum(result["status"] == "failed" for result in results)
            keep_results(out, results, durable=durable)
            bar.set_postfix(failed=failed, refresh=False)
            bar.update(len(results))

        def give_up(run: SweepRun, last: str) -> None:
            error = f"its worker died {MAX_DEATHS} times"
            error += f"; the last was {last}." if last else "."
            if timeout is not None and isinstance(workers, Cluster):
                # a worker without access to the folder cannot report it
                error += f" Runs over the timeout of {timeout:g} s also end this way."
            take_in([create_failed_result(run, error)])

        def report(last: str) -> None:
            with bar.external_write_mode():
                print_note(f"a worker died: {last}; its runs are repeated.", shown=progress)

        try:
            run_tasks(
                todo,
                partial(
                    carry_out_runs,
                    out=out.resolve(),
                    keeps=keeps,
                    durable=durable,
                    timeout=timeout,
                    plugins=list_plugins(),
                ),
                workers,
                missing=partial(find_missing_runs, out),
                on_results=take_in,
                on_killer=give_up,
                on_death=report,
            )
        except RunFailedError as error:
            if not list_results(out):
                raise
            raise RunFailedError(
                f"{error} Finished runs are kept in {out}. Run the same command to resume."
            ) from None
        bar.update(n_runs - bar.n)  # runs of workers that died before reporting


def _list_preloads(scenario: Scenario, n_runs: int) -> tuple[str, ...]:
    """Return what all workers load once: including compiled rounds if each worker needs them."""
    is_compiled = scalar_moves(build.create(scenario, ("learning",)), 2) is not None
    is_large = n_runs * scenario.population.n_nodes >= _MANY_NODES
    return (_PRELOAD, _PRELOAD_COMPILED) if is_compiled and is_large else (_PRELOAD,)
