"""Sweeps: many runs from one scenario, on many workers, into one table.

Each worker gets a stretch of runs and writes its results itself, as one file, whole or not at all:
whatever dies, a stretch of about a second is lost at most, and the same call goes on with what is
missing.
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
    create_table,
    drop_failed_results,
    drop_unreadable_results,
    failed_result,
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

_MAX_LISTED = 5  # failed runs that are listed one by one
_PRELOAD = "fcfn_abm.runs.run"  # loads all that a run needs, Mesa too
_PRELOAD_COMPILED = "fcfn_abm.abm.play"  # loads numba
_MANY_NODES = 5_000  # over all markets: after ten rounds each of them rounds are played compiled
_LONG_SECONDS = 5.0  # a first run that takes longer is not slow for what it had to load


@dataclass(frozen=True)
class Plan:
    """What a sweep would do."""

    n_runs: int
    """How many runs there are."""
    n_missing: int
    """How many of them have not been done yet."""
    n_workers: int
    """How many workers would share them."""
    seconds_a_run: float
    """How long one takes here, in seconds: mean of the first and the last one that is missing."""
    error: str | None = None
    """Why one of those failed, if it did."""

    @property
    def seconds(self) -> float:
        """How long all that is missing would take, without the workers' start."""
        return self.n_missing * self.seconds_a_run / self.n_workers

    def facts(self) -> dict[str, Any]:
        """Return all of it, for scripts."""
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
    """Carry out the runs of a scenario's sweep that are missing in a folder.

    Parameters
    ----------
    scenario : Scenario
        With a sweep, best from :func:`fcfn_abm.load_scenario`.
    out : str or Path
        Folder of the sweep: a new one, or that of an equal scenario, which is gone on with.
    executor : concurrent.futures.Executor or Workers, optional
        Where runs are carried out: any executor of the standard library's kind; or ``Processes``
        or ``Cluster`` of :mod:`fcfn_abm.process`, which survive killed workers. Without it one run
        after another, in this process.
    retry : bool, default False
        Whether runs that failed are run again.
    durable : bool, default True
        Whether the result of each run is on the disk before the next one: a power cut takes none
        of them with it. If not, those that it takes are run again.
    timeout : float, optional
        Seconds after which a run has failed; in place of the scenario's ``sweep.timeout``. As only
        the end of a process ends a run that hangs, runs then need ``Processes`` or ``Cluster``;
        without an executor they are carried out in one process beside this one.
    progress : bool, default False
        Whether to show a bar on stderr; a line each half minute where it is not a terminal.

    Returns
    -------
    Sweep
        Its frame has one row a run; a run that failed is a row with the reason.

    Raises
    ------
    InvalidScenarioError
        If there is no sweep in the scenario, or a run of it is not right; or if the timeout is not
        positive, or an executor of another kind would have to keep it.
    OutputError
        If ``out`` is taken by something else, by another scenario or by a process that works on
        it, or cannot be written.
    RunFailedError
        If the workers cannot be had, or are lost for good; what has ended is kept.

    Notes
    -----
    The results do not depend on the workers: equal scenarios give equal files, byte for byte.
    """
    scenario, runs = _resolve_sweep(scenario)
    place = as_workers(executor)
    timeout = _choose_timeout(scenario, timeout, executor)
    if executor is None and timeout is not None:
        place = Processes(1)  # what can be ended
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
    """Say how many runs a sweep has, and about how long it takes, without writing anything.

    Parameters
    ----------
    scenario : Scenario
        With a sweep, best from :func:`fcfn_abm.load_scenario`.
    out : str or Path
        Folder of the sweep, which may not exist yet.
    n_workers : int, default 1
        How many workers would share the runs.

    Returns
    -------
    Plan
        With the time of the first and of the last missing run, which are carried out here.

    Raises
    ------
    InvalidScenarioError
        If there is no sweep in the scenario, or a run of it is not right.
    OutputError
        If ``out`` is taken by something else.
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
            started = time.perf_counter()  # once more, now that everything is loaded
            result = carry_out_run(todo[run], None)
        seconds.append(time.perf_counter() - started)
        errors += [f"run {result['run']}: {result['error']}"] if result["error"] else []
    mean = sum(seconds) / len(seconds) if seconds else 0.0
    return Plan(len(runs), len(todo), n_workers, mean, errors[0] if errors else None)


def plan_text(plan: Plan) -> str:
    """Say in a few lines what a sweep would do."""
    text = f"{plan.n_runs:,} runs, {plan.n_missing:,} of them missing."
    if plan.n_missing:
        text += (
            f"\nThe first and the last of these take {plan.seconds_a_run:.3g} s on average: about "
            f"{tqdm.format_interval(plan.seconds)} on {plan.n_workers} "
            f"worker{'s' if plan.n_workers > 1 else ''}."
        )
    return text + (f"\nIt would not go well: {plan.error}" if plan.error else "")


def sweep_facts(sweep: Sweep) -> dict[str, Any]:
    """Return how a sweep ended, for scripts."""
    facts = {**sweep.run, "counts": sweep.counts(), "path": str(sweep.path)}
    if sweep.run["mode"] == "sobol" and facts["counts"]["done"] == sweep.run["n_runs"]:
        facts["sensitivity"] = json.loads(sweep.sensitivity().to_json(orient="records"))
    return facts


def sweep_text(sweep: Sweep) -> Text:
    """Say in a few lines how a sweep ended."""
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
    lines += [f"The table lies in {sweep.path / TABLE}."]
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
            "The scenario has no [sweep]: it stands for one run, which 'fcfn run' carries out."
        )
    build.check_scenario(scenario)
    scenario = build.resolve_defaults(scenario)
    return scenario, build.list_runs(scenario)


def _choose_timeout(
    scenario: Scenario, timeout: float | None, executor: Executor | Workers | None
) -> float | None:
    """Return the seconds that a run may take, if they are limited."""
    if timeout is None:
        timeout = scenario.sweep.timeout if scenario.sweep else None
    if timeout is None:
        return None
    if not 0 < timeout <= threading.TIMEOUT_MAX - 60:
        raise InvalidScenarioError(
            f"timeout must be positive, and at most {threading.TIMEOUT_MAX - 60:.0f} seconds, but "
            f"is {timeout:g}."
        )
    if executor is not None and not isinstance(executor, Processes | Cluster):
        raise InvalidScenarioError(
            "a timeout ends the process of a run that hangs, and needs workers that may end: "
            "Processes or Cluster of fcfn_abm.process, or no executor at all."
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
        smoothing=0.05,  # the time left follows runs of different lengths slowly
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
                # a worker that does not see the folder cannot say so itself
                error += f" A run that takes longer than the timeout of {timeout:g} s ends so too."
            take_in([failed_result(run, error)])

        def report(last: str) -> None:
            with bar.external_write_mode():
                print_note(f"a worker died: {last}; its runs are done again.", shown=progress)

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
                f"{error} The runs that ended are in {out}: the same command goes on from there."
            ) from None
        bar.update(n_runs - bar.n)  # done by workers that died before they could say so


def _list_preloads(scenario: Scenario, n_runs: int) -> tuple[str, ...]:
    """Return what all workers load once: compiled rounds too where each worker would need them."""
    is_compiled = scalar_moves(build.create(scenario, ("learning",)), 2) is not None
    is_large = n_runs * scenario.population.n_nodes >= _MANY_NODES
    return (_PRELOAD, _PRELOAD_COMPILED) if is_compiled and is_large else (_PRELOAD,)
