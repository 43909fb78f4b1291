"""The results of a sweep's runs: how workers compute and store them, and their table."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from fcfn_abm.errors import InvalidRecordError, OutputError, RunFailedError
from fcfn_abm.plugins import Plugin, import_again
from fcfn_abm.process.files import list_folder, replace_file, write_file
from fcfn_abm.process.folders import describe_error, remove_folder
from fcfn_abm.process.interrupts import obey_interrupts
from fcfn_abm.records import Record, raise_as_output_error, seal
from fcfn_abm.records.folders import SCENARIO_FILE
from fcfn_abm.records.integrity import RUN_FILE
from fcfn_abm.records.tables import (
    BY_GROUP,
    MANIPULATION,
    NO_UNIT,
    TRACKING,
    Column,
    columns_of,
    table_of,
)
from fcfn_abm.runs.facts import outcome_facts
from fcfn_abm.scenario import Scenario, SweepRun

RESULTS = "runs"
RECORDS = "records"
_RESULT = re.compile(r"[0-9]+(-[0-9]+)?\.json")
_CHECKSUM = "sha256"
_GRACE_SECONDS = 10.0  # time to write the result of a run that timed out
_STRETCH_SECONDS = 1.0  # time after which a worker returns runs that it has not started


def carry_out_runs(
    runs: Sequence[SweepRun],
    *,
    out: Path,
    keeps: bool,
    durable: bool = True,
    timeout: float | None = None,
    plugins: Sequence[Plugin] = (),
) -> list[dict[str, Any]]:
    """Run a stretch of runs on a worker, write the results, and stop when the time is up.

    The worker imports the plug-ins first. Results are written together, once: if the process dies
    before, only this stretch is lost. A run that takes longer than ``timeout`` seconds ends the
    process, since nothing else ends a hanging run; its result is written before.

    Returns the results of the first runs; the caller distributes the others again.
    """
    import_again(plugins)
    import_module("fcfn_abm.runs.run")  # so that a run's time does not include slow imports
    shared = (out / RESULTS).is_dir()  # without the folder, results are only returned
    if keeps and not shared:
        raise OutputError(f"{out}: workers do not see this folder, so they cannot write records.")
    started = time.perf_counter()
    results: list[dict[str, Any]] = []
    new: list[dict[str, Any]] = []
    there = list_results(out) if shared else {}
    for run in runs:
        found = _result_in(there.get(run.index), run)
        if found is not None:  # another worker had this stretch and died
            results.append(found)
            continue
        record_path = out / RECORDS / run_name(run.index) if keeps else None
        late = create_failed_result(
            run, f"took longer than {timeout or 0:g} s, the sweep's timeout."
        )
        with _end_process_after(
            timeout, partial(write_results, out, [*new, late], durable=durable) if shared else None
        ):
            result = carry_out_run(run, record_path, durable=durable)
        results.append(result)
        new.append(result)
        if time.perf_counter() - started > _STRETCH_SECONDS:
            break
    if shared:
        write_results(out, new, durable=durable)
    return results


@contextmanager
def _end_process_after(
    seconds: float | None, last_act: Callable[[], None] | None
) -> Iterator[None]:
    """End this process if the block takes longer, after a final action.

    An exception does not suffice: it is raised only when a library call returns.
    """
    if seconds is None:
        yield
        return

    def end() -> None:
        try:
            if last_act:
                last_act()
        finally:
            os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    # compiled code that blocks all threads blocks the timer, too
    faulthandler.dump_traceback_later(seconds + _GRACE_SECONDS, exit=True, file=_nowhere())
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()


@cache
def _nowhere() -> TextIO:
    """Return a file that discards everything and stays open."""
    return open(os.devnull, "w")


def carry_out_run(
    run: SweepRun, record_path: Path | None, *, durable: bool = True
) -> dict[str, Any]:
    """Run one run, and return its results or the reason of its failure."""
    from fcfn_abm.runs.run import run_scenario  # loads Mesa

    try:
        with obey_interrupts():  # an interrupted run did not fail
            if record_path is None and _is_market_alone(run.scenario):
                return {"run": run.index, **_play(run.scenario)}
            record = run_scenario(run.scenario)
            if record_path:
                record.write(record_path, overwrite=True, durable=durable)
            return _results(run, record)
    except OutputError:  # a full disk is not a result
        raise
    except Exception as error:  # a failed run is data, not a stop
        why = " ".join(str(error).split())
        return create_failed_result(run, f"{type(error).__name__}: {why}")


def create_failed_result(run: SweepRun, error: str) -> dict[str, Any]:
    """Return the result of a run that failed."""
    return {"run": run.index, "status": "failed", "error": error}


def _is_market_alone(scenario: Scenario) -> bool:
    """Whether the end of a market is its whole result: no training, no groups, no churn."""
    people = scenario.population
    manipulated = people.coalitions or people.sybils
    changes = people.churn and people.churn.moves
    return not (scenario.trains or people.groups or changes or manipulated)


def _play(scenario: Scenario) -> dict[str, Any]:
    """Play a market without a record, and return its results."""
    from fcfn_abm.build.market import PrivacyMarket  # loads Mesa

    market = PrivacyMarket(scenario, collect_nodes=False, is_checked=True)
    verdict = market.run_until()
    if verdict is None:
        raise RunFailedError("the market did not end.")
    n_nodes = market.columns.epsilon[market.present].size
    return _market_results(
        vars(verdict), outcome_facts(market.outcome), vars(market.state), n_nodes
    )


def _results(run: SweepRun, record: Record) -> dict[str, Any]:
    verdict, form, market = (record.run[key] for key in ("verdict", "equilibrium", "market"))
    return {
        "run": run.index,
        **_market_results(verdict, form, market, len(record.nodes)),
        **{
            name: value
            for name, value in record.run.get("tracking", {}).items()
            if name in TRACKING
        },
        **{
            name: value
            for name, value in record.run.get("manipulation", {}).items()
            if name in MANIPULATION
        },
        **{
            f"group.{group['name']}.{name}": group[name]
            for group in record.run.get("groups", ())
            for name in BY_GROUP
        },
        **_training_results(record),
    }


def _market_results(
    verdict: Mapping[str, Any], form: Mapping[str, Any], market: Mapping[str, Any], n_nodes: int
) -> dict[str, Any]:
    """Return the results of a market, and of its mechanism in closed form."""
    shared = ("n_active", "total_epsilon", "mean_epsilon", "node_utility", "server_utility")
    measured = ("budget", "payment", "welfare", "exploitability", "distance")
    return {
        "status": "done",
        "error": None,
        "verdict": verdict["kind"],
        "rounds": verdict["rounds"],
        "budget_ratio": verdict["budget_ratio"],
        "server_regret": verdict["server_regret"],
        "n_nodes": n_nodes,
        "participation": market["n_active"] / n_nodes if n_nodes else 0.0,
        **{name: market[name] for name in (*shared, *measured)},
        "equilibrium_status": form["status"],
        **{f"equilibrium_{name}": form[name] for name in (*shared, "payment")},
    }


def _training_results(record: Record) -> dict[str, Any]:
    """Return the results of training with the market's epsilon, if a node trained."""
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


def create_table(runs: Sequence[SweepRun], out: Path) -> pa.Table:
    """Return a sweep's table: one row per run, done or not."""
    results = find_results(out)
    rows = []
    for run in runs:
        result = results.get(run.index, {"status": "missing"})
        axes = {name: _table_value(run.value_at(name)) for name in run.point}
        key = {"run": run.index, "replication": run.replication, "seed": run.scenario.seed}
        rows.append({**axes, **result, **key})
    present = {name for row in rows for name in row}
    absent = {name for part in (TRACKING, MANIPULATION) if not present & set(part) for name in part}
    columns = [c for c in columns_of("sweep") if c.name not in absent]
    columns += _group_columns(rows)
    place = [column.name for column in columns].index("seed") + 1
    columns = [*columns[:place], *_axis_columns(rows, runs), *columns[place:]]
    return table_of(rows, columns)


def _group_columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the columns about groups, for all groups that occur in a run."""
    found = {name: None for row in rows for name in row if name.startswith("group.")}
    return [replace(BY_GROUP[name.rsplit(".", 1)[1]], name=name) for name in found]


def _axis_columns(rows: list[dict[str, Any]], runs: Sequence[SweepRun]) -> list[Column]:
    """Return one column per axis; values of mixed types become text."""
    kinds = {bool: "bool", int: "int64", float: "float64"}
    columns = []
    for name in runs[0].point:
        found = {type(row[name]) for row in rows}
        kind = kinds.get(found.pop(), "string") if len(found) == 1 else "string"
        if kind == "string":
            for row in rows:
                row[name] = row[name] if isinstance(row[name], str) else json.dumps(row[name])
        columns.append(Column(name, kind, NO_UNIT, "axis of the sweep: this scenario key"))
    return columns


def _table_value(value: Any) -> Any:
    """Return the value of an axis in the table: lists and tables as text."""
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)


def run_name(index: int) -> str:
    """Return the name of a run in file names."""
    return f"{index:06d}"


def list_results(out: Path) -> dict[int, Path]:
    """Return the runs that have a result, each with its file.

    A file has the name of its run, ``000007.json``, or of its first and last run:
    ``000007-000031.json``.
    """
    found = {}
    for path in _list_files(out):
        first, _, last = path.stem.partition("-")
        found.update(dict.fromkeys(range(int(first), int(last or first) + 1), path))
    return found


def _list_files(out: Path) -> list[Path]:
    """Return the files with results; raises OSError if they cannot be listed."""
    try:
        names = [entry.name for entry in list_folder(out / RESULTS)]
    except FileNotFoundError:
        return []
    return [out / RESULTS / name for name in names if _RESULT.fullmatch(name)]


class Indexed(Protocol):
    """An item with a number, such as a run."""

    @property
    def index(self) -> int:
        """Number of the run, from 0."""
        ...


def find_missing_runs[R: Indexed](out: Path, runs: Sequence[R]) -> list[R]:
    """Return the runs without a readable result."""
    done = find_results(out)
    return [run for run in runs if run.index not in done]


def find_results(out: Path) -> dict[int, dict[str, Any]]:
    """Return the readable results by run."""
    return {result["run"]: result for path in _list_files(out) for result in read_results(path)}


def _result_in(path: Path | None, run: SweepRun) -> dict[str, Any] | None:
    """Return the result of a run from a file, or None if it has none."""
    found = read_results(path) if path else []
    return next((result for result in found if result["run"] == run.index), None)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read the results in a file; none if the file is corrupt.

    A power failure can leave empty files, and disks flip bits; such runs are repeated.

    Raises
    ------
    InvalidRecordError
        If the system cannot read the file.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        checksum = content.pop(_CHECKSUM)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        why = describe_error(error)
        raise InvalidRecordError(f"{path}: the result cannot be read: {why}.") from error
    except (ValueError, LookupError, RecursionError, AttributeError, TypeError):
        return []
    if checksum != _checksum(content):
        return []
    results: list[dict[str, Any]] = content.get("results", [content])
    return results


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_results(out: Path, results: Sequence[dict[str, Any]], *, durable: bool = True) -> None:
    """Write results of runs, one file per stretch of consecutive runs, atomically."""
    for path, stretch in _stretches(out, results):
        content = stretch[0] if len(stretch) == 1 else {"results": stretch}
        sealed = {**content, _CHECKSUM: _checksum(content)}
        indent = (
            1 if len(stretch) == 1 else None
        )  # without indentation, writing is ten times as fast
        text = json.dumps(sealed, indent=indent, ensure_ascii=False) + "\n"
        with raise_as_output_error(path):
            write_file(path, text.encode(), durable=durable)


def keep_results(out: Path, results: Sequence[dict[str, Any]], *, durable: bool = True) -> None:
    """Write results of workers that do not share our disk."""
    for path, stretch in _stretches(out, results):
        if not path.exists():
            write_results(out, stretch, durable=durable)


def _stretches(
    out: Path, results: Sequence[dict[str, Any]]
) -> list[tuple[Path, list[dict[str, Any]]]]:
    """Divide results into stretches of consecutive runs, each with its path."""
    stretches: list[list[dict[str, Any]]] = []
    for result in sorted(results, key=itemgetter("run")):
        if stretches and stretches[-1][-1]["run"] + 1 == result["run"]:
            stretches[-1].append(result)
        else:
            stretches.append([result])
    return [(out / RESULTS / _stretch_name(stretch), stretch) for stretch in stretches]


def _stretch_name(stretch: Sequence[dict[str, Any]]) -> str:
    ends = dict.fromkeys((stretch[0]["run"], stretch[-1]["run"]))
    return "-".join(map(run_name, ends)) + ".json"


def write_table(table: pa.Table, path: Path) -> None:
    """Write a sweep's table atomically, and the checksums of the files that are not of runs."""
    kept = {name: path.with_name(name) for name in (SCENARIO_FILE, RUN_FILE)}

    def write(partial: Path) -> None:
        pq.write_table(table, partial, compression="zstd")
        seal(path.parent, files={**kept, path.name: partial})

    replace_file(path, write)


def find_failed_results(out: Path) -> list[Path]:
    """Return the files with results of runs that failed."""
    return [p for p in _list_files(out) if any(r["status"] == "failed" for r in read_results(p))]


def drop_failed_results(out: Path, path: Path) -> None:
    """Remove failed runs from a file of results."""
    with raise_as_output_error(path):
        write_results(out, [r for r in read_results(path) if r["status"] != "failed"])
        path.unlink()


def drop_unreadable_results(out: Path) -> None:
    """Remove corrupt files of results; their runs are then missing."""
    for path in _list_files(out):
        if not read_results(path):
            with raise_as_output_error(path):
                path.unlink()


def remove_partial_results(out: Path) -> None:
    """Remove leftovers of killed processes from a sweep's folder, as far as possible."""
    for folder in (out, out / RESULTS, out / RECORDS):
        with suppress(OSError):
            for entry in list_folder(folder):
                if entry.name.startswith(".") and ".partial-" in entry.name:
                    path = Path(entry.path)
                    with suppress(OSError):
                        remove_folder(path) if entry.is_dir() else path.unlink()
