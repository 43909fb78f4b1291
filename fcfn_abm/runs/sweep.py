"""Sweeps: many runs from one scenario, on many workers, into one table.

Each worker writes the results of its runs itself, each under its final name at once, so that
whatever dies, what is done is done; the same call goes on with what is missing.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from tqdm import tqdm

from fcfn_abm import build
from fcfn_abm.errors import InvalidRecordError, InvalidScenarioError, OutputError
from fcfn_abm.records import Record, new_folder, read_record, told_as, write_facts
from fcfn_abm.records.store import RUN_FILE, SCENARIO_FILE
from fcfn_abm.records.tables import NO_UNIT, Column, columns_of, frame_of, read_table, table_of
from fcfn_abm.runs.executors import MOST_DEATHS, Given, Serial, Workers, work_off
from fcfn_abm.runs.facts import versions
from fcfn_abm.scenario import Scenario, SweepRun, SweepSettings, read_toml, tree_to_scenario

KIND = "sweep"
RESULTS = "runs"
RECORDS = "records"
TABLE = "sweep.parquet"
LOCK = ".lock"
_CHUNK_SECONDS = 1.0  # after which a worker hands back what it has not begun
_TOLD = 5  # failed runs that are told one by one
_LONG_SECONDS = 5.0  # a first run that takes longer is not slow for what it had to load


@dataclass(frozen=True)
class Sweep:
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
            try:
                return read_table(self.path / TABLE)
            except (OSError, pa.ArrowException) as error:
                raise InvalidRecordError(f"{self.path / TABLE}: cannot be read: {error}") from error
        return frame_of(_table(build.runs_of(self.scenario), self.path))

    def record(self, run: int) -> Record:
        """Read the record of a run, of a sweep with ``keep = "record"``."""
        return read_record(self.path / RECORDS / _name(run))

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
        Where runs are carried out: any executor of the standard library's kind, or what
        :mod:`fcfn_abm.runs.executors` has, which survives killed workers. Without it one run after
        another, in this process.
    retry : bool, default False
        Whether runs that failed are run again.
    progress : bool, default False
        Whether to show a bar on stderr (never where stderr is not a terminal).

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
    scenario, runs = _checked(scenario)
    workers: Workers = Given(executor) if isinstance(executor, Executor) else executor or Serial()
    out = Path(out)
    with _claimed(scenario, runs, out):
        if retry:
            _forget_failures(runs, out)
        todo = _missing(out, runs)
        if todo or not (out / TABLE).is_file():
            with told_as(out):
                (out / TABLE).unlink(missing_ok=True)
            _carry_out(todo, len(runs), workers, scenario, out, progress=progress)
            with told_as(out):
                _write_whole(out / TABLE, partial(_write_table, _table(runs, out)))
                _remove_leftovers(out)
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
    try:
        run = json.loads((path / RUN_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "holds no sweep (no run.json)" if path.is_dir() else "there is no such folder"
        raise InvalidRecordError(f"{path}: {what}.") from None
    except (OSError, ValueError) as error:
        raise InvalidRecordError(f"{path}: the sweep cannot be read: {error}") from error
    if run.get("kind") != KIND:
        raise InvalidRecordError(f"{path}: holds a {run.get('kind', 'run')}, not a sweep.")
    file = path / SCENARIO_FILE
    scenario = build.resolved(tree_to_scenario(read_toml(file), str(file)))
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
    scenario, runs = _checked(scenario)
    out = Path(out)
    if out.exists():
        _require_same(scenario, out)
    todo = _missing(out, runs)
    seconds: list[float] = []
    errors: list[str] = []
    for run in dict.fromkeys([0, len(todo) - 1] if todo else []):
        started = time.perf_counter()
        result = _attempt(todo[run], None)
        if not seconds and time.perf_counter() - started < _LONG_SECONDS:
            started = time.perf_counter()  # once more, now that everything is loaded
            result = _attempt(todo[run], None)
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


def sweep_text(sweep: Sweep) -> str:
    """Say in a few lines how a sweep ended."""
    frame = sweep.frame()
    counts = ", ".join(f"{n:,} {status}" for status, n in sweep.counts().items() if n)
    failed = frame[frame["status"] == "failed"]
    told = [f"run {row.run}: {row.error}" for row in failed.head(_TOLD).itertuples()]
    if len(failed) > _TOLD:
        told.append(f"({len(failed) - _TOLD} more in the table)")
    lines = [f"{len(frame):,} runs: {counts}.", *told]
    return "\n".join([*lines, f"The table lies in {sweep.path / TABLE}."])


def _checked(scenario: Scenario) -> tuple[Scenario, list[SweepRun]]:
    if scenario.sweep is None:
        raise InvalidScenarioError(
            "The scenario has no [sweep]: it stands for one run, which 'fcfn run' carries out."
        )
    build.check_scenario(scenario)
    scenario = build.resolved(scenario)
    return scenario, build.runs_of(scenario)


@contextmanager
def _claimed(scenario: Scenario, runs: Sequence[SweepRun], out: Path) -> Iterator[None]:
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
    with told_as(out):
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
        raise OutputError(
            f"{out}: exists and is not a sweep; choose another folder with --out."
        ) from None
    if there != scenario:
        difference = _difference(there.model_dump(mode="json"), scenario.model_dump(mode="json"))
        raise OutputError(
            f"{out}: holds the sweep of another scenario: {difference}; choose another folder "
            "with --out."
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
    keeps = _settings(scenario).keep == "record"
    failed = 0
    with tqdm(
        total=n_runs,
        initial=n_runs - len(todo),
        desc="sweep",
        unit="run",
        smoothing=0.05,  # the time left follows runs of different lengths slowly
        disable=None if progress else True,
    ) as bar:

        def arrived(results: list[dict[str, Any]]) -> None:
            nonlocal failed
            for result in results:
                failed += result["status"] == "failed"
                path = _result_path(out, result["run"])
                if not path.exists():  # a worker that does not share our disk
                    _write_result(path, result)
            bar.set_postfix(failed=failed, refresh=False)
            bar.update(len(results))

        def gave_up(run: SweepRun) -> None:
            error = f"its worker died {MOST_DEATHS} times."
            arrived([_failure(run, error)])

        work_off(
            todo,
            partial(_work, out=out.resolve(), keeps=keeps),
            workers,
            missing=partial(_missing, out),
            on_results=arrived,
            on_killer=gave_up,
        )
        bar.update(n_runs - bar.n)  # done by workers that died before they could say so


def _work(runs: Sequence[SweepRun], *, out: Path, keeps: bool) -> list[dict[str, Any]]:
    """Carry out runs on a worker, write each result, and stop when the time is up."""
    started, results = time.perf_counter(), []
    for run in runs:
        path = _result_path(out, run.index)
        if path.exists():  # another worker had this chunk, and died
            results.append(_read_result(path))
            continue
        shared = path.parent.is_dir()  # without the folder, results are returned and no more
        if keeps and not shared:
            raise OutputError(f"{out}: workers do not see this folder, and cannot keep records.")
        result = _attempt(run, out / RECORDS / _name(run.index) if keeps else None)
        if shared:
            _write_result(path, result)
        results.append(result)
        if time.perf_counter() - started > _CHUNK_SECONDS:
            break
    return results


def _attempt(run: SweepRun, record_path: Path | None) -> dict[str, Any]:
    """Carry out a run, and return its results, or why there are none."""
    from fcfn_abm.runs.run import run_scenario  # loads Mesa

    try:
        record = run_scenario(run.scenario)
        if record_path:
            record.write(record_path, overwrite=True)
        return _results(run, record)
    except OutputError:  # a full disk is no result
        raise
    except Exception as error:  # a failed run is data, not a stop
        why = " ".join(str(error).split())
        return _failure(run, f"{type(error).__name__}: {why}")


def _failure(run: SweepRun, error: str) -> dict[str, Any]:
    return {"run": run.index, "status": "failed", "error": error}


def _results(run: SweepRun, record: Record) -> dict[str, Any]:
    verdict, form, market = (record.run[key] for key in ("verdict", "equilibrium", "market"))
    told = ("n_active", "total_epsilon", "mean_epsilon", "node_utility", "server_utility")
    measured = ("budget", "payment", "welfare", "exploitability", "distance")
    return {
        "run": run.index,
        "status": "done",
        "error": None,
        "verdict": verdict["kind"],
        "rounds": verdict["rounds"],
        "n_nodes": len(record.nodes),
        "participation": market["n_active"] / len(record.nodes),
        **{name: market[name] for name in (*told, *measured)},
        "equilibrium_status": form["status"],
        **{f"equilibrium_{name}": form[name] for name in (*told, "payment")},
        **_trained(record),
    }


def _trained(record: Record) -> dict[str, Any]:
    """Return what training with the market's epsilon led to, if anybody trained."""
    arms = record.run.get("training", {}).get("arms", [])
    own = next((arm for arm in arms if arm["name"] == record.scenario.mechanism.kind), None)
    if own is None:
        return {}
    spent = record.nodes.loc[record.nodes["active"], "epsilon_total"]
    return {
        "accuracy": own["accuracy"],
        "loss": own["loss"],
        "mean_epsilon_total": float(spent.mean()),
        "max_epsilon_total": float(spent.max()),
    }


def _table(runs: Sequence[SweepRun], out: Path) -> pa.Table:
    rows = []
    for run in runs:
        path = _result_path(out, run.index)
        result = _read_result(path) if path.exists() else {"status": "missing"}
        axes = {name: _cell(run.value_at(name)) for name in run.point}
        key = {"run": run.index, "replication": run.replication, "seed": run.scenario.seed}
        rows.append({**axes, **result, **key})
    columns = columns_of("sweep")
    place = [column.name for column in columns].index("seed") + 1
    columns = [*columns[:place], *_axis_columns(rows, runs), *columns[place:]]
    return table_of(rows, columns)


def _axis_columns(rows: list[dict[str, Any]], runs: Sequence[SweepRun]) -> list[Column]:
    """Return a column an axis; where its values are of several kinds they become text."""
    kinds = {bool: "bool", int: "int64", float: "float64"}
    columns = []
    for name in runs[0].point:
        found = {type(row[name]) for row in rows}
        kind = kinds.get(found.pop(), "string") if len(found) == 1 else "string"
        if kind == "string":
            for row in rows:
                row[name] = row[name] if isinstance(row[name], str) else json.dumps(row[name])
        columns.append(Column(name, kind, NO_UNIT, "axis of the sweep: this key of the scenario"))
    return columns


def _cell(value: Any) -> Any:
    """Return the value of an axis as it stands in the table: lists and tables as text."""
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)


def _name(index: int) -> str:
    return f"{index:06d}"


def _result_path(out: Path, index: int) -> Path:
    return out / RESULTS / f"{_name(index)}.json"


def _missing(out: Path, runs: Sequence[SweepRun]) -> list[SweepRun]:
    done = {entry.name for entry in os.scandir(out / RESULTS)} if (out / RESULTS).is_dir() else ()
    return [run for run in runs if _result_path(out, run.index).name not in done]


def _read_result(path: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRecordError(f"{path}: the result cannot be read: {error}") from error
    return result


def _write_result(path: Path, result: dict[str, Any]) -> None:
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    with told_as(path):
        _write_whole(path, lambda partial_path: partial_path.write_text(text, encoding="utf-8"))


def _write_table(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _write_whole(path: Path, write: Any) -> None:
    """Write a file under another name, which no other process uses, and rename it."""
    own = path.with_name(f".{path.name}.partial-{platform.node()}-{os.getpid()}")
    write(own)
    own.replace(path)


def _forget_failures(runs: Sequence[SweepRun], out: Path) -> None:
    for run in runs:
        path = _result_path(out, run.index)
        if path.exists() and _read_result(path)["status"] == "failed":
            path.unlink()


def _remove_leftovers(out: Path) -> None:
    """Remove what workers that were killed have left."""
    for folder in (RESULTS, RECORDS):
        for path in (out / folder).glob(".*.partial-*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
