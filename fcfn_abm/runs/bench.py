"""The benchmark of mechanisms: cells of costs, data and caps, on equal terms, in one table.

Each cell and each training is a task of a worker, which writes its rows atomically to a file of
its own. After any failure the same call resumes with the missing tasks, with identical results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from fcfn_abm import build
from fcfn_abm.build import BenchCell
from fcfn_abm.errors import InvalidRecordError, InvalidScenarioError, RunFailedError, as_path
from fcfn_abm.plugins import Plugin, import_again, list_plugins
from fcfn_abm.process.files import replace_file, write_file
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.process.tasks import run_tasks
from fcfn_abm.process.workers import Processes, Workers, as_workers
from fcfn_abm.records import raise_as_output_error, seal
from fcfn_abm.records.folders import SCENARIO_FILE
from fcfn_abm.records.integrity import RUN_FILE, require_same, require_unchanged
from fcfn_abm.records.tables import columns_of, frame_of, read_table, table_of
from fcfn_abm.runs.bench_game import BenchGame
from fcfn_abm.runs.facts import describe_work
from fcfn_abm.runs.results import (
    drop_unreadable_results,
    find_missing_runs,
    find_results,
    keep_results,
    remove_partial_results,
    write_results,
)
from fcfn_abm.runs.sweep_folder import claim_folder, read_identity, require_same_versions
from fcfn_abm.scenario import Scenario
from fcfn_abm.scenario.load import require_scenario

KIND = "benchmark"
TABLE, SUMMARY = "bench.parquet", "bench.csv"
DEFAULT = "bench/default"
"""The bundled benchmark that runs by default."""
_PRELOAD = "fcfn_abm.runs.bench"
_KEY = ("costs", "data", "budget", "mode", "mechanism", "replication")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark on disk."""

    scenario: Scenario
    """The scenario with its benchmark, resolved: all defaults are filled in."""
    run: dict[str, Any]
    """What is compared, and the versions with which it was started."""
    path: Path
    """The folder; absolute."""
    fingerprint: str | None = None
    """Fingerprint of the folder, to detect its replacement."""

    def frame(self) -> pd.DataFrame:
        """Return the table: one row per cell, mode, mechanism and population.

        Raises
        ------
        InvalidRecordError
            If the benchmark is incomplete, or its table cannot be read.
        """
        require_same(self.path, self.fingerprint, RUN_FILE, SCENARIO_FILE)
        require_unchanged(self.path, [TABLE])
        return read_table(self.path / TABLE)


@dataclass(frozen=True)
class BenchTask:
    """A unit of work: a cell with all its populations, or one training."""

    index: int
    """Number of the task, from 0."""
    cell: BenchCell
    mechanism: str | None = None
    """Mechanism whose epsilon is trained; None for a cell without training."""
    replication: int = 0
    """Number of the population."""


def run_bench(
    scenario: Scenario,
    out: str | Path,
    workers: Workers | None = None,
    *,
    progress: bool = False,
) -> Benchmark:
    """Run the missing tasks of a benchmark in a folder.

    Parameters
    ----------
    scenario : Scenario
        With a benchmark, usually from :func:`fcfn_abm.load_scenario`.
    out : str or Path
        Folder of the benchmark; one of an equal scenario is resumed.
    workers : Workers, optional
        Workers for the tasks: ``Processes`` or ``Cluster`` of :mod:`fcfn_abm.process`. By default
        tasks run one after another in this process.
    progress : bool, default False
        Whether to show a bar on stderr; one line per half minute if it is not a terminal.

    Returns
    -------
    Benchmark
        Its frame has one row per cell, mode, mechanism and population.

    Raises
    ------
    InvalidScenarioError
        If the scenario has no benchmark, or it is not valid.
    OutputError
        If ``out`` holds something else, belongs to another scenario, is in use by another process,
        or cannot be written.
    RunFailedError
        If workers are not available, or a task kills them.

    Notes
    -----
    A population and its random numbers depend only on the seed and the population's number:
    mechanisms, modes and caps share populations. Results do not depend on the workers; equal
    scenarios give identical files.
    """
    require_scenario(scenario, "run_bench")
    build.check_scenario(scenario)
    scenario = build.name_mechanisms(build.resolve_defaults(scenario))
    tasks = list_tasks(scenario)
    place, out = as_workers(workers), as_path("out", out)
    with claim_folder(scenario, _facts(scenario, len(tasks)), out):
        todo = find_missing_runs(out, tasks)
        if todo:
            require_same_versions(out, KIND)
            with raise_as_output_error(out):
                (out / TABLE).unlink(missing_ok=True)
            drop_unreadable_results(out)
            _carry_out(todo, len(tasks), place, out, progress=progress)
        if not (out / TABLE).exists():
            _write(scenario, out)
        remove_partial_results(out)
    return read_bench(out)


def read_bench(path: str | Path) -> Benchmark:
    """Read a benchmark from disk.

    Parameters
    ----------
    path : str or Path
        Its folder.

    Raises
    ------
    InvalidRecordError
        If the folder does not exist, or is not a benchmark.
    """
    return Benchmark(*read_identity(as_path("path", path, error=InvalidRecordError), KIND))


def list_tasks(scenario: Scenario) -> list[BenchTask]:
    """Return all tasks of a benchmark, starting with the trainings, which take longest."""
    bench = build.require_bench(scenario)
    cells = build.list_bench(scenario)
    tasks: list[BenchTask] = []
    part = bench.training if scenario.trains else None
    for cell in cells:
        if part and (cell.costs, cell.data, cell.budget) == (part.costs, part.data, part.budget):
            for replication in range(part.seeds):
                for name in bench.mechanisms or ():
                    tasks.append(BenchTask(len(tasks), cell, name, replication))
    for cell in cells:
        tasks.append(BenchTask(len(tasks), cell))
    return tasks


def _carry_out(
    todo: list[BenchTask], n_tasks: int, workers: Workers, out: Path, *, progress: bool
) -> None:
    if isinstance(workers, Processes):
        n_workers = min(workers.n_workers, len(todo))
        workers = replace(workers, n_workers=n_workers, preload=(_PRELOAD,))
    with progress_bar(
        total=n_tasks,
        initial=n_tasks - len(todo),
        desc="benchmark",
        unit="task",
        smoothing=0.05,
        shown=progress,
    ) as bar:

        def take_in(results: list[dict[str, Any]]) -> None:
            keep_results(out, results)
            bar.update(len(results))

        def give_up(task: BenchTask, last: str) -> None:
            what = f"the training of {task.mechanism!r}" if task.mechanism else "the cell"
            cause = f" (the last was {last})" if last else ""
            raise RunFailedError(
                f"workers died during {what} with costs {task.cell.costs!r}, data "
                f"{task.cell.data!r} and the cap {task.cell.budget:g}{cause}; "
                "finished results are kept."
            )

        run_tasks(
            todo,
            partial(carry_out_first, out=out.resolve(), plugins=list_plugins()),
            workers,
            missing=partial(find_missing_runs, out),
            on_results=take_in,
            on_killer=give_up,
        )


def carry_out_first(
    tasks: Sequence[BenchTask], *, out: Path, plugins: Sequence[Plugin] = ()
) -> list[dict[str, Any]]:
    """Run the first of some tasks on a worker, and write its rows."""
    import_again(plugins)
    task = tasks[0]
    rows = list(_train(task) if task.mechanism else _price(task.cell))
    result = {"run": task.index, "status": "done", "rows": rows}
    write_results(out, [result])
    return [result]


def _price(cell: BenchCell) -> Iterator[dict[str, Any]]:
    """Yield the rows of a cell: every mechanism in all modes, in all populations."""
    bench = cell.bench
    for replication in range(bench.replications):
        game = BenchGame.draw(cell, replication)
        for mode in bench.modes:
            for name in bench.mechanisms or ():
                yield {**game.key(mode, name), **game.measure(mode, name)}


def _train(task: BenchTask) -> Iterator[dict[str, Any]]:
    """Yield the accuracy with a mechanism's epsilon; nothing without an epsilon."""
    part, name = task.cell.bench.training, task.mechanism
    if part is None or name is None:
        return
    game = BenchGame.draw(task.cell, task.replication)
    match = game.match(part.mode, name)
    if not match.reached or not match.outcome.active.any():
        return
    if game.images is None:
        raise InvalidScenarioError("there are no images to train on.")
    trainer = build.create_trainer(game.replica, game.population, game.images)
    training = trainer.begin(game.population.misreport_factor)
    while not training.over:
        training.step(match.outcome.epsilon)
    ledger, delta = training.ledger, trainer.plan.delta
    if ledger is None:
        raise RunFailedError("a training with noise has no ledger.")
    is_central = trainer.plan.view == "central"
    spent = ledger.central_epsilon(delta) if is_central else ledger.epsilon(delta)
    yield {
        **game.key(part.mode, name),
        "accuracy": float(np.mean([r.accuracy for r in training.results[-part.last :]])),
        "true_epsilon": float(spent[match.outcome.active].mean()),
        "largest_true_epsilon": float(spent.max()),
    }


def _facts(scenario: Scenario, n_tasks: int) -> dict[str, Any]:
    bench = build.require_bench(scenario)
    return {
        "kind": KIND,
        "title": scenario.title,
        "seed": scenario.seed,
        "n_nodes": scenario.population.n_nodes,
        "average_over": scenario.game.average_over,
        "reference": scenario.mechanism.kind,
        "mechanisms": list(bench.mechanisms or ()),
        "modes": list(bench.modes),
        "budgets": list(bench.budgets),
        "costs": list(bench.costs) or [build.OWN],
        "data": list(bench.data) or [build.OWN],
        "replications": bench.replications,
        "tolerance": bench.tolerance,
        "n_tasks": n_tasks,
        **describe_work(),
    }


def _write(scenario: Scenario, out: Path) -> None:
    """Write table and figure from the rows of all tasks, and write checksums."""
    from fcfn_abm.report.bench import summarise
    from fcfn_abm.report.figures.bench import benchmark  # loads matplotlib
    from fcfn_abm.report.figures.files import write_figure

    table, facts = _table(out), _facts(scenario, 0)
    frame = frame_of(table)
    with raise_as_output_error(out):
        summary = summarise(frame, facts)
        text = summary.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_file(out / SUMMARY, text.encode())
        (out / "figures").mkdir(exist_ok=True)
    figure = benchmark(frame, facts)
    for suffix in ("png", "pdf"):
        write_figure(figure, out / "figures" / f"benchmark.{suffix}")

    def write(partial_path: Path) -> None:
        pq.write_table(table, partial_path, compression="zstd")
        kept = {name: out / name for name in (SCENARIO_FILE, RUN_FILE, SUMMARY)}
        seal(out, files={**kept, TABLE: partial_path})

    with raise_as_output_error(out):
        replace_file(out / TABLE, write)


def _table(out: Path) -> Any:
    """Return the rows of all tasks as one table; training results join the row of their outcome."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    results = find_results(out)
    for index in sorted(results, reverse=True):  # cells, which have one row each; then trainings
        for row in results[index]["rows"]:
            rows.setdefault(tuple(row[name] for name in _KEY), {}).update(row)
    return table_of(list(rows.values()), columns_of("bench"))
