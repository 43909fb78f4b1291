"""Sweeps: many runs from one scenario, on many workers, into one table.

Each worker writes the results of its runs itself, each under its final name at once, so that
whatever dies, what is done is done; the same call goes on with what is missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from tqdm import tqdm

from fcfn_abm import build
from fcfn_abm.errors import InvalidRecordError, InvalidScenarioError, OutputError, join_lines
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.process.tasks import carry_out_tasks
from fcfn_abm.process.workers import (
    MAX_DEATHS,
    ExternalExecutor,
    Processes,
    Serial,
    Workers,
)
from fcfn_abm.records import Record, new_folder, raise_as_output_error, read_record, write_facts
from fcfn_abm.records.folders import RUN_FILE, SCENARIO_FILE, read_facts
from fcfn_abm.records.integrity import require_unchanged
from fcfn_abm.records.tables import empty, frame_of, read_table
from fcfn_abm.report.marks import Text, join, verdict
from fcfn_abm.runs.facts import versions
from fcfn_abm.runs.results import (
    RECORDS,
    RESULTS,
    carry_out_run,
    carry_out_runs,
    create_table,
    failed_result,
    find_failed_results,
    find_missing_runs,
    remove_leftovers,
    result_path,
    run_name,
    write_result,
    write_table,
)
from fcfn_abm.runs.sensitivity import sensitivity, sensitivity_text
from fcfn_abm.scenario import Scenario, SweepRun, SweepSettings, read_toml, tree_to_scenario
from fcfn_abm.scenario.load import require_scenario
from fcfn_abm.show import Shown

KIND = "sweep"
TABLE = "sweep.parquet"
LOCK = ".lock"
_MAX_LISTED = 5  # failed runs that are listed one by one
_PRELOAD = "fcfn_abm.runs.run"  # loads all that a run needs, Mesa too
_LONG_SECONDS = 5.0  # a first run that takes longer is not slow for what it had to load


@dataclass(frozen=True, repr=False)
class Sweep(Shown):
    """The runs of a sweep, on disk."""

    scenario: Scenario
    """The scenario with its sweep, resolved: every default written out."""
    run: dict[str, Any]
    """What is swept, how many runs there are, and the versions that it was begun with."""
    path: Path
    """The folder."""

    def frame(self) -> pd.DataFrame:
        """Return one row a run: its number, seed and axes, how it ended, and its results.

        Returns
        -------
        DataFrame
            One column an axis, named by its path. What a run does not have is missing: results of
            a run that failed, accuracy of one that does not train.

        Raises
        ------
        InvalidRecordError
            If a result cannot be read.
        """
        if (self.path / TABLE).is_file():
            require_unchanged(self.path, [TABLE])
            return read_table(self.path / TABLE)
        return frame_of(create_table(build.list_runs(self.scenario), self.path))

    def sensitivity(self, outcomes: Sequence[str] | None = None) -> pd.DataFrame:
        """Return how much of each outcome's variance each axis explains: its Sobol indices.

        Parameters
        ----------
        outcomes : sequence of str, optional
            Numeric columns of the frame. Without them those of participation, total_epsilon,
            budget, welfare, server_utility and accuracy that every run has and that vary.

        Returns
        -------
        DataFrame
            One row an outcome and axis: ``first_order``, the share that the axis explains by
            itself; ``total_order``, with all its interactions; and the ends of their 95 % bootstrap
            intervals, ``..._low`` and ``..._high``. The outcome of a point is the mean over its
            replications.

        Raises
        ------
        InvalidScenarioError
            If the sweep's mode is not ``"sobol"``.
        InvalidRecordError
            If runs have failed or are missing, or have no such value.
        UnknownNameError
            If there is no such outcome.
        """
        return sensitivity(self.scenario, self.frame(), outcomes)

    def record(self, run: int) -> Record:
        """Read the record of a run, of a sweep with ``keep = "record"``."""
        return read_record(self.path / RECORDS / run_name(run))

    def rounds(self) -> pd.DataFrame:
        """Return all rounds of the records that were kept, of a sweep with ``keep = "record"``.

        Returns
        -------
        DataFrame
            One row a run and round: the run's number, replication, seed and axes, and the columns
            of ``rounds.parquet``.

        Raises
        ------
        InvalidRecordError
            If no records were kept, or one cannot be read.
        """
        if self.scenario.sweep is None or self.scenario.sweep.keep != "record":
            raise InvalidRecordError(
                f"{self.path}: this sweep kept no rounds; with [sweep] keep = 'record' it does."
            )
        runs = self.frame()
        about = ["run", "replication", "seed", *self.scenario.sweep.axes]
        tables = []
        for _, row in runs[runs["status"] == "done"][about].iterrows():
            folder = self.path / RECORDS / run_name(int(row["run"]))
            require_unchanged(folder, ["rounds.parquet"])
            table = read_table(folder / "rounds.parquet")
            keys = runs.loc[[row.name] * len(table), about].reset_index(drop=True)
            tables.append(pd.concat([keys, table], axis=1))
        return pd.concat(tables, ignore_index=True) if tables else empty("rounds")

    def _describe(self) -> tuple[str, Mapping[str, object]]:
        counts = self.counts()
        settings = self.scenario.sweep
        title = join_lines(self.scenario.title)
        return f"Sweep: {title}" if title else "Sweep", {
            "runs": ", ".join(f"{n:,} {status}" for status, n in counts.items() if n),
            "axes": ", ".join(settings.axes) if settings and settings.axes else "none",
            "replications": settings.replications if settings else 1,
            "folder": str(self.path),
        }

    def counts(self) -> dict[str, int]:
        """Return how many runs are done, failed and missing."""
        found = self.frame()["status"].value_counts()
        return {status: int(found.get(status, 0)) for status in ("done", "failed", "missing")}


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
    progress : bool, default False
        Whether to show a bar on stderr; a line each half minute where it is not a terminal.

    Returns
    -------
    Sweep
        Its frame has one row a run; a run that failed is a row with the reason.

    Raises
    ------
    InvalidScenarioError
        If there is no sweep in the scenario, or a run of it is not right.
    OutputError
        If ``out`` is taken by something else, by another scenario or by a process that works on
        it, or cannot be written.
    RunFailedError
        If the workers cannot be had.

    Notes
    -----
    The results do not depend on the workers: equal scenarios give equal files, byte for byte.
    """
    scenario, runs = _resolve_sweep(scenario)
    workers = ExternalExecutor(executor) if isinstance(executor, Executor) else executor
    out = Path(out)
    with _claim_folder(scenario, runs, out):
        again = find_failed_results(out, runs) if retry else []
        if again or find_missing_runs(out, runs):
            _require_same_versions(out)
        for path in again:
            path.unlink()
        todo = find_missing_runs(out, runs)
        if todo or not (out / TABLE).is_file():
            with raise_as_output_error(out):
                (out / TABLE).unlink(missing_ok=True)
            _carry_out(todo, len(runs), workers or Serial(), scenario, out, progress=progress)
            with raise_as_output_error(out):
                write_table(create_table(runs, out), out / TABLE)
                remove_leftovers(out)
    return read_sweep(out)


def read_sweep(path: str | Path) -> Sweep:
    """Read a sweep back, whether it has ended or not.

    Parameters
    ----------
    path : str or Path
        Its folder.

    Returns
    -------
    Sweep
        Its ``frame()`` has one row a run.

    Raises
    ------
    InvalidRecordError
        If the folder is missing, or does not hold a sweep.
    """
    path = Path(path)
    require_unchanged(path, [RUN_FILE, SCENARIO_FILE])
    run = read_facts(path, KIND)
    if run.get("kind") != KIND:
        raise InvalidRecordError(f"{path}: holds a {run.get('kind', 'run')}, not a sweep.")
    file = path / SCENARIO_FILE
    scenario = build.resolve_defaults(tree_to_scenario(read_toml(file), str(file)))
    return Sweep(scenario, run, path)


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
    out = Path(out)
    if out.exists():
        _require_same(scenario, out)
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
    if _settings(sweep.scenario).mode == "sobol" and facts["counts"]["done"] == sweep.run["n_runs"]:
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
    if _settings(sweep.scenario).mode == "sobol":
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


@contextmanager
def _claim_folder(scenario: Scenario, runs: Sequence[SweepRun], out: Path) -> Iterator[None]:
    """Make the folder, or check that it is the scenario's; keep other processes out of it."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        try:
            with new_folder(out) as folder:
                write_facts(scenario, _facts(scenario, len(runs)), folder)
                (folder / RESULTS).mkdir()
        except OutputError:
            if not (out / RUN_FILE).is_file():  # else another process was quicker
                raise
    _require_same(scenario, out)
    lock = FileLock(out / LOCK, timeout=0)
    with raise_as_output_error(out):
        try:
            lock.acquire()
        except Timeout:
            raise OutputError(f"{out}: another process works on this sweep.") from None
    try:
        yield
    finally:
        lock.release()


def _require_same(scenario: Scenario, out: Path) -> None:
    """Raise OutputError unless a folder holds the sweep of an equal scenario."""
    try:
        there = read_sweep(out).scenario
    except InvalidRecordError:
        if (out / RESULTS).is_dir():  # it is one, and damaged
            raise
        raise OutputError(
            f"{out}: exists and is not a sweep; choose another folder with --out."
        ) from None
    if there != scenario:
        difference = _difference(there.model_dump(mode="json"), scenario.model_dump(mode="json"))
        raise OutputError(
            f"{out}: holds the sweep of another scenario: {difference}; choose another folder "
            "with --out."
        )


def _require_same_versions(out: Path) -> None:
    """Raise OutputError if the runs of a folder were begun with other versions than these."""
    there, here = read_sweep(out).run.get("versions", {}), versions()
    for name in there:
        if there[name] != here.get(name):
            raise OutputError(
                f"{out}: was begun with {name} {there[name]}, and here it is "
                f"{here.get(name, 'missing')}: runs of both would not be comparable; go on with "
                "that version, or choose another folder with --out."
            )


def _difference(there: Any, here: Any, path: str = "") -> str:
    """Say in which key two scenarios differ first."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*there, *here]:
            if there.get(key) != here.get(key):
                return _difference(there.get(key), here.get(key), f"{path}.{key}".lstrip("."))
    return f"{path} is {there!r} there, and {here!r} here"


def _settings(scenario: Scenario) -> SweepSettings:
    return scenario.sweep or SweepSettings()


def _facts(scenario: Scenario, n_runs: int) -> dict[str, Any]:
    sweep = _settings(scenario)
    return {
        "kind": KIND,
        "title": scenario.title,
        "seed": scenario.seed,
        "mode": sweep.mode,
        "axes": list(sweep.axes),
        "replications": sweep.replications,
        "n_runs": n_runs,
        "versions": versions(),
    }


def _carry_out(
    todo: list[SweepRun],
    n_runs: int,
    workers: Workers,
    scenario: Scenario,
    out: Path,
    *,
    progress: bool,
) -> None:
    if isinstance(workers, Processes):
        n_workers = min(workers.n_workers, max(len(todo), 1))
        workers = replace(workers, n_workers=n_workers, preload=(_PRELOAD,))
    keeps = _settings(scenario).keep == "record"
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
            for result in results:
                failed += result["status"] == "failed"
                path = result_path(out, result["run"])
                if not path.exists():  # a worker that does not share our disk
                    write_result(path, result)
            bar.set_postfix(failed=failed, refresh=False)
            bar.update(len(results))

        def give_up(run: SweepRun) -> None:
            take_in([failed_result(run, f"its worker died {MAX_DEATHS} times.")])

        carry_out_tasks(
            todo,
            partial(carry_out_runs, out=out.resolve(), keeps=keeps),
            workers,
            missing=partial(find_missing_runs, out),
            on_results=take_in,
            on_killer=give_up,
        )
        bar.update(n_runs - bar.n)  # done by workers that died before they could say so
