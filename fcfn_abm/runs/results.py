"""The results of a sweep's runs: how a worker gets and keeps them, and the table that they make."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fcfn_abm.errors import InvalidRecordError, OutputError
from fcfn_abm.plugins import Plugin, import_again
from fcfn_abm.process.files import list_folder, replace_file, write_file
from fcfn_abm.process.folders import describe_error, remove_folder
from fcfn_abm.process.interrupts import obey_interrupts
from fcfn_abm.records import Record, raise_as_output_error, seal
from fcfn_abm.records.folders import SCENARIO_FILE
from fcfn_abm.records.integrity import RUN_FILE
from fcfn_abm.records.tables import BY_GROUP, NO_UNIT, TRACKING, Column, columns_of, table_of
from fcfn_abm.scenario import SweepRun

RESULTS = "runs"
RECORDS = "records"
_CHECKSUM = "sha256"
_CHUNK_SECONDS = 1.0  # after which a worker hands back what it has not begun


def carry_out_runs(
    runs: Sequence[SweepRun],
    *,
    out: Path,
    keeps: bool,
    durable: bool = True,
    plugins: Sequence[Plugin] = (),
) -> list[dict[str, Any]]:
    """Carry out runs on a worker, write each result, and stop when the time is up.

    The worker imports the plug-ins first.

    Returns the results of the first runs; whoever handed them out hands the others out again.
    """
    import_again(plugins)
    started, results = time.perf_counter(), []
    for run in runs:
        path = result_path(out, run.index)
        found = read_result(path)
        if found is not None:  # another worker had this chunk, and died
            results.append(found)
            continue
        shared = path.parent.is_dir()  # without the folder, results are returned and no more
        if keeps and not shared:
            raise OutputError(f"{out}: workers do not see this folder, and cannot keep records.")
        record_path = out / RECORDS / run_name(run.index) if keeps else None
        result = carry_out_run(run, record_path, durable=durable)
        if shared:
            write_result(path, result, durable=durable)
        results.append(result)
        if time.perf_counter() - started > _CHUNK_SECONDS:
            break
    return results


def carry_out_run(
    run: SweepRun, record_path: Path | None, *, durable: bool = True
) -> dict[str, Any]:
    """Carry out a run, and return its results, or why there are none."""
    from fcfn_abm.runs.run import run_scenario  # loads Mesa

    try:
        with obey_interrupts():  # a run that an interrupt broke did not fail
            record = run_scenario(run.scenario)
            if record_path:
                record.write(record_path, overwrite=True, durable=durable)
            return _results(run, record)
    except OutputError:  # a full disk is no result
        raise
    except Exception as error:  # a failed run is data, not a stop
        why = " ".join(str(error).split())
        return failed_result(run, f"{type(error).__name__}: {why}")


def failed_result(run: SweepRun, error: str) -> dict[str, Any]:
    """Return the result of a run that failed."""
    return {"run": run.index, "status": "failed", "error": error}


def _results(run: SweepRun, record: Record) -> dict[str, Any]:
    verdict, form, market = (record.run[key] for key in ("verdict", "equilibrium", "market"))
    shared = ("n_active", "total_epsilon", "mean_epsilon", "node_utility", "server_utility")
    measured = ("budget", "payment", "welfare", "exploitability", "distance")
    n_nodes = len(record.nodes)
    return {
        "run": run.index,
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
        **{
            name: value
            for name, value in record.run.get("tracking", {}).items()
            if name in TRACKING
        },
        **{
            f"group.{group['name']}.{name}": group[name]
            for group in record.run.get("groups", ())
            for name in BY_GROUP
        },
        **_training_results(record),
    }


def _training_results(record: Record) -> dict[str, Any]:
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


def create_table(runs: Sequence[SweepRun], out: Path) -> pa.Table:
    """Return a sweep's table: one row a run, whether it has been carried out or not."""
    rows = []
    for run in runs:
        path = result_path(out, run.index)
        result = read_result(path) or {"status": "missing"}
        axes = {name: _table_value(run.value_at(name)) for name in run.point}
        key = {"run": run.index, "replication": run.replication, "seed": run.scenario.seed}
        rows.append({**axes, **result, **key})
    tracked = any(name in row for row in rows for name in TRACKING)
    columns = [c for c in columns_of("sweep") if tracked or c.name not in TRACKING]
    columns += _group_columns(rows)
    place = [column.name for column in columns].index("seed") + 1
    columns = [*columns[:place], *_axis_columns(rows, runs), *columns[place:]]
    return table_of(rows, columns)


def _group_columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the columns of what groups came to, of all groups that some run has."""
    found = {name: None for row in rows for name in row if name.startswith("group.")}
    return [replace(BY_GROUP[name.rsplit(".", 1)[1]], name=name) for name in found]


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


def _table_value(value: Any) -> Any:
    """Return the value of an axis as it stands in the table: lists and tables as text."""
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)


def run_name(index: int) -> str:
    """Return how a run is called in file names."""
    return f"{index:06d}"


def result_path(out: Path, index: int) -> Path:
    """Return where the result of a run lies."""
    return out / RESULTS / f"{run_name(index)}.json"


def find_missing_runs(out: Path, runs: Sequence[SweepRun]) -> list[SweepRun]:
    """Return the runs that have no result yet, or one that cannot be read."""
    return [run for run in runs if read_result(result_path(out, run.index)) is None]


def read_result(path: Path) -> dict[str, Any] | None:
    """Read the result of a run; None if there is none, or it does not hold what was written.

    A power cut can leave empty files, and disks flip bits. The run is carried out again then.

    Raises
    ------
    InvalidRecordError
        If the system cannot read the file.
    """
    try:
        result: dict[str, Any] = json.loads(path.read_bytes())
        checksum = result.pop(_CHECKSUM)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        why = describe_error(error)
        raise InvalidRecordError(f"{path}: the result cannot be read: {why}.") from error
    except (ValueError, LookupError, RecursionError, AttributeError, TypeError):
        return None
    return result if checksum == _checksum(result) else None


def _checksum(result: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def write_result(path: Path, result: dict[str, Any], *, durable: bool = True) -> None:
    """Write the result of a run, whole or not at all."""
    sealed = {**result, _CHECKSUM: _checksum(result)}
    text = json.dumps(sealed, indent=1, ensure_ascii=False) + "\n"
    with raise_as_output_error(path):
        write_file(path, text.encode(), durable=durable)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a sweep's table, whole or not at all, and the checksums of all that is no run's."""
    kept = {name: path.with_name(name) for name in (SCENARIO_FILE, RUN_FILE)}

    def write(partial: Path) -> None:
        pq.write_table(table, partial, compression="zstd")
        seal(path.parent, files={**kept, path.name: partial})

    replace_file(path, write)


def find_failed_runs(out: Path, runs: Sequence[SweepRun]) -> list[SweepRun]:
    """Return the runs that failed."""

    def has_failed(run: SweepRun) -> bool:
        result = read_result(result_path(out, run.index))
        return result is not None and result["status"] == "failed"

    return [run for run in runs if has_failed(run)]


def remove_partial_results(out: Path) -> None:
    """Remove what killed processes have left in a sweep's folder, as far as that is possible."""
    for folder in (out, out / RESULTS, out / RECORDS):
        with suppress(OSError):
            for entry in list_folder(folder):
                if entry.name.startswith(".") and ".partial-" in entry.name:
                    path = Path(entry.path)
                    with suppress(OSError):
                        remove_folder(path) if entry.is_dir() else path.unlink()
