"""Checksums of written data in the format of ``sha256sum``, which detect corruption on read."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from fcfn_abm.errors import FcfnError, InvalidRecordError, abbreviate
from fcfn_abm.process.files import is_system_file, list_files, name_file, write_file
from fcfn_abm.process.folders import describe_error

RUN_FILE = "run.json"
"""File with the facts about results, which identifies a folder of results."""

SUMS = "SHA256SUMS"
"""File with the checksums of a folder, readable by ``sha256sum --check SHA256SUMS``."""

DERIVED = {SUMS, "figures", "report.html", "report.md", "ro-crate-metadata.json"}
"""Names of derived files, which can be rebuilt from the data."""


def seal(
    folder: Path, written: Iterable[str] = (), *, files: Mapping[str, Path] | None = None
) -> str:
    """Write the checksums of the data in a folder, after all data are written.

    Parameters
    ----------
    folder : Path
        Folder of the list.
    written : iterable of str
        Names that were written there and must exist.
    files : mapping of str to Path, optional
        Names in the list, with the current paths of their files. By default all files below the
        folder except figures and reports, which are derived and never read.

    Returns
    -------
    str
        The folder's fingerprint; see :func:`fingerprint`.

    Raises
    ------
    OSError
        If a folder cannot be listed, a file cannot be read, or a written file is missing.
    """
    if files is None:
        files = {
            path.relative_to(folder).as_posix(): path
            for path in list_files(folder)
            if _is_data(path.relative_to(folder))
        }
    for name in written:
        if name not in files:
            raise OSError(errno.EIO, "a written file is missing", str(folder / name))
    text = "".join(f"{_digest(path)}  {name}\n" for name, path in files.items()).encode()
    write_file(folder / SUMS, text)
    return hashlib.sha256(text).hexdigest()


def _is_data(path: Path) -> bool:
    """Whether a file, relative to its folder of results, has a checksum."""
    hidden = path.name[0] == "." or is_system_file(path.name)
    return path.parts[0] not in DERIVED and path.name != SUMS and not hidden


def fingerprint(folder: Path, *names: str) -> str:
    """Return an identifier of the results in a folder, to detect their replacement.

    Parameters
    ----------
    folder : Path
        Folder of results.
    *names : str
        Files to identify; by default the list of checksums, or the facts if there is no list.

    Returns
    -------
    str
        A checksum; empty if there are no results.

    Raises
    ------
    InvalidRecordError
        If a file exists but cannot be read.
    """
    with _raise_as_unreadable(folder):
        try:
            if names:
                return "".join(_digest(folder / name) for name in names)
            with suppress(FileNotFoundError):
                return _digest(folder / SUMS)
            return _digest(folder / RUN_FILE)
        except (FileNotFoundError, NotADirectoryError):
            return ""


def require_same(folder: Path, expected: str | None, *names: str) -> None:
    """Raise unless a folder still holds the results that were read first.

    Parameters
    ----------
    folder : Path
        Folder of results.
    expected : str, optional
        Their :func:`fingerprint` at that time; if None, nothing is checked.
    *names : str
        As for the fingerprint.

    Raises
    ------
    InvalidRecordError
        If they are missing, or were replaced.
    """
    if expected is None:
        return
    found = fingerprint(folder, *names)
    if not found:
        raise InvalidRecordError(f"{folder}: the results were removed since they were read.")
    if found != expected:
        raise InvalidRecordError(
            f"{folder}: the results were replaced since they were read; read them again."
        )


def require_unchanged(folder: Path, names: Iterable[str]) -> None:
    """Raise unless files are as they were when their folder was sealed.

    Parameters
    ----------
    folder : Path
        Folder of results. Without a list of checksums (earlier versions) nothing is checked.
    names : iterable of str
        Files, or folders, relative to it.

    Raises
    ------
    InvalidRecordError
        If a file is missing, was added, or was changed; names the first one.
    """
    known = _read_sums(folder)
    if known is None:
        return
    for name in names:
        below = f"{name}/"
        there: list[str] = []
        with _raise_as_unreadable(folder / name), suppress(FileNotFoundError, NotADirectoryError):
            found = (path.relative_to(folder) for path in list_files(folder / name))
            there = [path.as_posix() for path in found if _is_data(path)]
        expected = [file for file in known if file == name or file.startswith(below)]
        for file in dict.fromkeys([*expected, *there, *([name] if not expected else [])]):
            _require_file(folder, file, known.get(file))


@contextmanager
def raise_as_record_error(folder: Path | None) -> Iterator[None]:
    """Convert exceptions caused by edited facts and tables to InvalidRecordError.

    Parameters
    ----------
    folder : Path, optional
        Folder of the files. With checksums, or without a folder, the data are as this program
        wrote them, so an exception is a bug and is not converted.

    Raises
    ------
    InvalidRecordError
        If a value is missing or not valid.
    """
    try:
        yield
    except FcfnError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if folder is None or list_data(folder) is not None:
            raise
        if isinstance(error, KeyError) and error.args:
            what = f"{folder / 'run.json'}: {abbreviate(error.args[0])} is missing or unknown"
        else:
            why = " ".join(str(error).split())
            what = f"{folder}: run.json or a table has an unexpected value: {why.rstrip('.')}"
        raise InvalidRecordError(f"{what}.") from error


def list_data(folder: Path) -> set[str] | None:
    """Return the files and folders that belong to a sealed folder, or None without a list."""
    known = _read_sums(folder)
    return None if known is None else {name.split("/")[0] for name in known}


def require_utf8(path: Path, error: type[FcfnError] = InvalidRecordError) -> None:
    """Raise ``error`` unless a path is valid UTF-8, which Parquet needs."""
    absolute = Path(os.path.abspath(path))
    try:
        os.fspath(absolute).encode()
    except UnicodeEncodeError:
        raise error(f"{absolute}: the path is not valid UTF-8, which results need.") from None


def _require_file(folder: Path, file: str, expected: str | None) -> None:
    path = folder / file
    with _raise_as_unreadable(path):
        if expected is None:
            if os.path.lexists(path):
                raise InvalidRecordError(f"{path}: was added after {SUMS} was written.")
            return
        found = _digest(path)
    if found != expected:
        raise InvalidRecordError(
            f"{path}: is corrupt or was edited: it does not match its checksum in {SUMS}."
        )


def _read_sums(folder: Path) -> dict[str, str] | None:
    """Return the checksums of a folder by file, or None if it has none."""
    sums = folder / SUMS
    try:
        lines = sums.read_bytes().decode().splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        why = describe_error(error)
        raise InvalidRecordError(f"{sums}: the checksums cannot be read: {why}.") from error
    except ValueError:
        raise InvalidRecordError(
            f"{sums}: the checksums cannot be read: a line has no checksum and name."
        ) from None


@contextmanager
def _raise_as_unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = describe_error(error)
        raise InvalidRecordError(f"{path}: cannot be read: {why}.") from error


def _digest(path: Path) -> str:
    with name_file(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
