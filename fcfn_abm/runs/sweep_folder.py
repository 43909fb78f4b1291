"""The folder of a sweep: its files, its identity, and its lock."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fcfn_abm import build
from fcfn_abm.errors import InvalidRecordError, OutputError, as_count, as_path, join_lines
from fcfn_abm.process.files import has_files
from fcfn_abm.process.folders import LOCK
from fcfn_abm.process.locks import Lock
from fcfn_abm.records import (
    Record,
    new_folder,
    raise_as_output_error,
    read_record,
    remove_leftovers,
    seal,
    write_facts,
)
from fcfn_abm.records.folders import SCENARIO_FILE, read_facts
from fcfn_abm.records.integrity import RUN_FILE, fingerprint, require_same, require_unchanged
from fcfn_abm.records.tables import empty, frame_of, read_table
from fcfn_abm.runs.facts import describe_plugin, describe_program, describe_work, require_plugins
from fcfn_abm.runs.results import (
    RECORDS,
    RESULTS,
    create_table,
    run_name,
)
from fcfn_abm.runs.sensitivity import sensitivity
from fcfn_abm.scenario import Scenario, SweepSettings, read_toml, tree_to_scenario
from fcfn_abm.scenario.schema import MOST_RUNS
from fcfn_abm.show import Shown

KIND = "sweep"
TABLE = "sweep.parquet"
_IDENTITY = (RUN_FILE, SCENARIO_FILE)  # files that do not change while a sweep runs


@dataclass(frozen=True, repr=False)
class Sweep(Shown):
    """The runs of a sweep, on disk."""

    scenario: Scenario
    """The scenario with its sweep, resolved: all defaults are filled in."""
    run: dict[str, Any]
    """Axes, number of runs, and the versions with which it was started."""
    path: Path
    """The folder; absolute."""
    fingerprint: str | None = None
    """Fingerprint of the folder, to detect its replacement."""

    def frame(self) -> pd.DataFrame:
        """Return each run's number, seed, axes, status and results, one row per run.

        Returns
        -------
        DataFrame
            One column per axis, named by its path. Values that a run does not have are missing:
            results of failed runs, accuracy without training.

        Raises
        ------
        InvalidRecordError
            If a result cannot be read; or the folder is missing, or holds another sweep.
        """
        self._require_same()
        if (self.path / TABLE).exists():
            require_unchanged(self.path, [TABLE])
            return read_table(self.path / TABLE)
        with require_plugins(self.path, self.run):
            runs = build.list_runs(self.scenario)
        frame = frame_of(create_table(runs, self.path))
        self._require_same()  # the folder was not replaced meanwhile
        return frame

    def _require_same(self) -> None:
        """Raise unless the folder still holds the sweep that was read first."""
        require_same(self.path, self.fingerprint, *_IDENTITY)

    def sensitivity(self, outcomes: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the Sobol indices of each outcome and axis.

        Parameters
        ----------
        outcomes : sequence of str, optional
            Numeric columns of the frame. By default those of participation, total_epsilon, budget,
            welfare, server_utility and accuracy that every run has and that vary.

        Returns
        -------
        DataFrame
            One row per outcome and axis: ``first_order``, the share explained by the axis alone;
            ``total_order``, including its interactions; and the ends of their 95 % bootstrap
            intervals, ``..._low`` and ``..._high``. The outcome of a point is the mean over its
            replications.

        Raises
        ------
        InvalidScenarioError
            If the sweep's mode is not ``"sobol"``.
        InvalidRecordError
            If runs have failed or are missing, or have no value of the outcome.
        UnknownNameError
            If there is no such outcome.
        """
        return sensitivity(self.scenario, self.frame(), outcomes)

    def record(self, run: int) -> Record:
        """Read the record of a run, for sweeps with ``keep = "record"``."""
        run = as_count("run", run, least=0, most=MOST_RUNS, error=InvalidRecordError)
        self._require_same()
        return read_record(self.path / RECORDS / run_name(run))

    def rounds(self) -> pd.DataFrame:
        """Return the rounds of all records, for sweeps with ``keep = "record"``.

        Returns
        -------
        DataFrame
            One row per run and round: the run's number, replication, seed and axes, and the columns
            of ``rounds.parquet``.

        Raises
        ------
        InvalidRecordError
            If there are no records, or one cannot be read.
        """
        if self.scenario.sweep is None or self.scenario.sweep.keep != "record":
            raise InvalidRecordError(
                f"{self.path}: this sweep has no records of rounds; set [sweep] keep = 'record' to "
                "write them."
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


def read_sweep(path: str | Path) -> Sweep:
    """Read a sweep from disk, complete or not.

    Parameters
    ----------
    path : str or Path
        Its folder.

    Returns
    -------
    Sweep
        Its ``frame()`` has one row per run.

    Raises
    ------
    InvalidRecordError
        If the folder does not exist, or is not a sweep.
    """
    return Sweep(*read_identity(as_path("path", path, error=InvalidRecordError), KIND))


def read_identity(path: Path, kind: str) -> tuple[Scenario, dict[str, Any], Path, str]:
    """Read a folder of runs: its scenario, facts, absolute path and fingerprint."""
    path = Path(os.path.abspath(path))
    found = fingerprint(path, *_IDENTITY)
    require_unchanged(path, _IDENTITY)
    run = read_facts(path, kind)
    if run.get("kind") != kind:
        raise InvalidRecordError(f"{path}: is a {run.get('kind', 'run')}, not a {kind}.")
    file = path / SCENARIO_FILE
    scenario = tree_to_scenario(read_toml(file), str(file))
    with require_plugins(path, run):
        scenario = build.resolve_defaults(scenario)
    require_same(path, found, *_IDENTITY)  # the folder was not replaced meanwhile
    return scenario, run, path, found


def has_table(out: Path) -> bool:
    """Whether a sweep has its table; a corrupt one does not count, since it is rebuilt."""
    try:
        require_unchanged(out, [TABLE])
        read_table(out / TABLE)
    except InvalidRecordError:
        return False
    return True


@contextmanager
def claim_folder(scenario: Scenario, facts: Mapping[str, Any], out: Path) -> Iterator[None]:
    """Create the folder or check that it belongs to the scenario, and lock it."""
    kind = facts["kind"]
    with raise_as_output_error(out):
        is_free = not out.exists() or (out.is_dir() and not has_files(out))
    if is_free:
        try:
            with new_folder(out) as folder, raise_as_output_error(out):
                write_facts(scenario, facts, folder)
                (folder / RESULTS).mkdir()
                seal(folder, _IDENTITY)
        except OutputError:
            if not (out / RUN_FILE).is_file():  # otherwise another process was faster
                raise
    require_same_scenario(scenario, out, kind)
    remove_leftovers(out)
    lock = Lock(out / LOCK)
    with raise_as_output_error(out):
        if not lock.acquire():
            raise OutputError(f"{out}: another process works on this {kind}.")
    try:
        yield
    finally:
        lock.release(remove=True)


def require_same_scenario(scenario: Scenario, out: Path, kind: str = KIND) -> None:
    """Raise OutputError unless a folder holds the sweep, or benchmark, of an equal scenario."""
    try:
        there = read_identity(out, kind)[0]
    except InvalidRecordError:
        if (out / RESULTS).is_dir():  # it is one, but corrupt
            raise
        raise OutputError(
            f"{out}: exists but is not a {kind}; choose another folder with --out."
        ) from None
    if there != scenario:
        difference = _difference(there.model_dump(mode="json"), scenario.model_dump(mode="json"))
        raise OutputError(
            f"{out}: holds the {kind} of another scenario ({difference}); choose another folder "
            "with --out."
        )


def require_same_versions(out: Path, kind: str = KIND) -> None:
    """Raise OutputError if the runs of a folder were started with other versions or plug-ins."""
    there, here = _list_versions(read_identity(out, kind)[1]), _list_versions(describe_program())
    for name in there:
        if there[name] != here.get(name):
            raise OutputError(
                f"{out}: was started with {name} {there[name]}, but here it is "
                f"{here.get(name, 'missing')}, so runs would not be comparable; continue with that "
                "version, or choose another folder with --out."
            )


def _list_versions(run: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions of libraries and plug-ins in the facts about a sweep."""
    plugins = {p["name"]: describe_plugin(p) for p in run.get("plugins", ())}
    return {**run.get("versions", {}), **plugins}


def _difference(there: Any, here: Any, path: str = "") -> str:
    """Describe the first key in which two scenarios differ."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*there, *here]:
            if there.get(key) != here.get(key):
                return _difference(there.get(key), here.get(key), f"{path}.{key}".lstrip("."))
    return f"{path} is {there!r} there and {here!r} here"


def sweep_identity(scenario: Scenario, n_runs: int) -> dict[str, Any]:
    """Return the facts that identify the folder of a sweep."""
    sweep = scenario.sweep or SweepSettings()
    return {
        "kind": KIND,
        "title": scenario.title,
        "seed": scenario.seed,
        "mode": sweep.mode,
        "axes": list(sweep.axes),
        "replications": sweep.replications,
        "n_runs": n_runs,
        **describe_work(),
    }
