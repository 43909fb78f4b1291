"""Results packed with their description, into a zip file or a folder."""

from __future__ import annotations

import hashlib
import stat
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fcfn_abm.crate.metadata import COMMANDS, METADATA, File, describe
from fcfn_abm.errors import InvalidRecordError, abbreviate, as_path
from fcfn_abm.process.files import (
    is_system_file,
    list_files,
    list_folder,
    name_file,
    replace_file,
)
from fcfn_abm.records import new_folder, raise_as_output_error
from fcfn_abm.records.folders import (
    RUN_KIND,
    belongs_to_results,
    read_facts,
    resolve_output_file,
)
from fcfn_abm.records.integrity import (
    RUN_FILE,
    fingerprint,
    list_data,
    require_same,
    require_unchanged,
)

_OF_RUNS = ("runs", "records")
"""Folders in which sweeps and benchmarks keep what each of their runs led to."""
_TABLES = {"sweep": "sweep.parquet", "benchmark": "bench.parquet"}
"""What is written when all runs have ended."""
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)
"""Of all entries of a zip file: equal results give equal files."""
_MODE = stat.S_IFREG | 0o644
_CHUNK = 2**20


@dataclass(frozen=True)
class Crate:
    """What was packed."""

    path: Path
    """The zip file, or the folder."""
    left_out: tuple[str, ...]
    """Names in the folder of results that are not of the results."""


def write_crate(
    record: str | Path,
    out: str | Path | None = None,
    *,
    authors: Sequence[str] = (),
    license: str | None = None,  # noqa: A002 - the property's name
    overwrite: bool = False,
) -> Crate:
    """Pack results as an RO-Crate 1.1 that conforms to the profile Process Run Crate 0.5.

    Parameters
    ----------
    record : str or Path
        Folder of a run, a sweep, a comparison, a calibration or a benchmark. It stays as it is.
    out : str or Path, optional
        A file whose name ends in ``.zip``, or a new folder; without it ``NAME.crate.zip`` beside
        the folder of results.
    authors : sequence of str
        Names of those who made the results; without them the description names no author.
    license : str, optional
        License of the results: an SPDX identifier, or the address of a license. Without it the
        description says that no license is stated.
    overwrite : bool, default False
        Whether ``out`` is replaced: a file, or a folder with results of the same kind.

    Returns
    -------
    Crate
        Where it is, and which names in the folder were left out since they are not of the results.

    Raises
    ------
    InvalidRecordError
        If there are no results, they are incomplete or of another kind, or a file does not hold
        what was written.
    OutputError
        If ``out`` is taken, or cannot be written.
    """
    folder = as_path("record", record, error=InvalidRecordError)
    first = fingerprint(folder)
    facts = _read(folder)
    files, left_out = _list(folder)
    text = describe(folder, facts, files, authors=authors, license=license)
    if out is None:
        whole = folder.resolve()
        out = whole.with_name(f"{whole.name}.crate.zip")
    out = as_path("out", out)
    kind = facts.get("kind", RUN_KIND)
    if out.suffix.lower() == ".zip":
        out = resolve_output_file(out, overwrite=overwrite)
        with raise_as_output_error(out):
            replace_file(out, lambda partial: _write_zip(partial, folder, files, text))
    else:
        with new_folder(out, overwrite=overwrite, kind=kind) as new, raise_as_output_error(out):
            _write_folder(new, folder, files, text)
    require_same(folder, first)
    return Crate(out, tuple(left_out))


def _read(folder: Path) -> dict[str, Any]:
    """Return the facts about results, which are complete and unchanged."""
    if not (folder / RUN_FILE).exists() and (folder / "ledger.md").exists():
        raise InvalidRecordError(
            f"{folder}: holds figures of the paper, whose runs left no records; a crate is made of "
            "a run, a sweep, a comparison, a calibration or a benchmark."
        )
    facts = read_facts(folder)
    kind = facts.get("kind", RUN_KIND)
    if kind not in COMMANDS:
        raise InvalidRecordError(
            f"{folder}: holds {abbreviate(kind)}; a crate is made of a run, a sweep, a comparison, "
            "a calibration or a benchmark."
        )
    table = _TABLES.get(kind)
    if table and not (folder / table).exists():
        raise InvalidRecordError(
            f"{folder}: the {kind} is not complete (no {table}); carry it out to the end first."
        )
    _require_whole(folder)
    return facts


def _require_whole(folder: Path) -> None:
    """Raise unless every file in the checksums of a folder, and of those below, is unchanged."""
    require_unchanged(folder, sorted(list_data(folder) or ()))
    records = folder / "records"
    if records.is_dir():
        for entry in list_folder(records):
            if entry.is_dir() and not entry.name.startswith("."):
                require_unchanged(Path(entry.path), sorted(list_data(Path(entry.path)) or ()))


def _list(folder: Path) -> tuple[list[File], list[str]]:
    """Return the files of results, and the names that are not of theirs."""
    files, left_out = [], []
    try:
        for entry in list_folder(folder):
            name = entry.name
            if name.startswith(".") or name == METADATA or is_system_file(name):
                continue
            if not belongs_to_results(folder, name) and name not in _OF_RUNS:
                left_out.append(name)
            elif entry.is_dir(follow_symlinks=False):
                files += [_examine(folder, path) for path in list_files(Path(entry.path))]
            elif entry.is_file():
                files.append(_examine(folder, Path(entry.path)))
    except OSError as error:
        raise InvalidRecordError(f"{error.filename}: cannot be read: {error.strerror}.") from error
    return [file for file in files if not file.name.startswith(".")], left_out


def _examine(folder: Path, path: Path) -> File:
    with name_file(path), path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return File(path.relative_to(folder).as_posix(), path.stat().st_size, digest)


def _write_zip(partial: Path, folder: Path, files: Iterable[File], text: str) -> None:
    with zipfile.ZipFile(partial, "x", compression=zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(_entry(METADATA), text)
        for file in files:
            with packed.open(_entry(file.path), "w", force_zip64=True) as target:
                _copy(folder, file, target)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _FIRST_DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = _MODE << 16
    entry.create_system = 3  # Unix, whatever wrote it
    return entry


def _write_folder(new: Path, folder: Path, files: Iterable[File], text: str) -> None:
    (new / METADATA).write_text(text, encoding="utf-8")
    for file in files:
        target = new / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as content:
            _copy(folder, file, content)


def _read_chunk(path: Path, source: IO[bytes]) -> bytes:
    with name_file(path):
        return source.read(_CHUNK)


def _copy(folder: Path, file: File, target: IO[bytes]) -> None:
    """Copy a file, which must still hold what was described."""
    digest = hashlib.sha256()
    path = folder / file.path
    with path.open("rb") as source:
        while chunk := _read_chunk(path, source):
            digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != file.sha256:
        raise InvalidRecordError(f"{folder / file.path}: changed while it was packed; try again.")
