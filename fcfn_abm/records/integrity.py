"""Checksums of what was written, in the form of ``sha256sum``: damage never passes for a result."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from fcfn_abm.errors import FcfnError, InvalidRecordError, abbreviate
from fcfn_abm.process.files import is_system_file, list_files, write_file
from fcfn_abm.process.folders import describe_error

RUN_FILE = "run.json"
"""File with the facts about results, by which a folder of results is known."""

SUMS = "SHA256SUMS"
"""File that lists the data of a folder; ``sha256sum --check SHA256SUMS`` reads it too."""

DERIVED = {SUMS, "figures", "report.html", "report.md", "ro-crate-metadata.json"}
"""What is made from the data, and made again."""


def seal(
    folder: Path, written: Iterable[str] = (), *, files: Mapping[str, Path] | None = None
) -> str:
    """Write the checksums of the data in a folder, once all of it is written.

    Parameters
    ----------
    folder : Path
        Takes the list.
    written : iterable of str
        Names that were written there, and must be found.
    files : mapping of str to Path, optional
        Names in the list, and where what will have that name lies now. Without it all files below
        the folder but figures and reports, which are derived, and which nothing reads.

    Returns
    -------
    str
        The folder's fingerprint; see :func:`fingerprint`.

    Raises
    ------
    OSError
        If a folder cannot be listed, a file cannot be read, or one that was written is missing.
    """
    if files is None:
        files = {
            path.relative_to(folder).as_posix(): path
            for path in list_files(folder)
            if _is_data(path.relative_to(folder))
        }
    for name in written:
        if name not in files:
            raise OSError(errno.EIO, "what was written there is not listed", str(folder / name))
    text = "".join(f"{_digest(path)}  {name}\n" for name, path in files.items()).encode()
    write_file(folder / SUMS, text)
    return hashlib.sha256(text).hexdigest()


def _is_data(path: Path) -> bool:
    """Whether a file, relative to its folder of results, is listed in its checksums."""
    hidden = path.name[0] == "." or is_system_file(path.name)
    return path.parts[0] not in DERIVED and path.name != SUMS and not hidden


def fingerprint(folder: Path, *names: str) -> str:
    """Return what tells the results in a folder from all others that may take its place.

    Parameters
    ----------
    folder : Path
        With results.
    *names : str
        Files whose content tells; without them the list of checksums, or the facts where there is
        none.

    Returns
    -------
    str
        A checksum; empty if there are no results.

    Raises
    ------
    InvalidRecordError
        If a file is there and cannot be read.
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
    """Raise unless a folder holds the results that were read from it first.

    Parameters
    ----------
    folder : Path
        With results.
    expected : str, optional
        Their :func:`fingerprint` at that time; without it nothing is known.
    *names : str
        As for the fingerprint.

    Raises
    ------
    InvalidRecordError
        If it is gone, or holds other results.
    """
    if expected is None:
        return
    found = fingerprint(folder, *names)
    if not found:
        raise InvalidRecordError(f"{folder}: what was read from it before is not there any more.")
    if found != expected:
        raise InvalidRecordError(
            f"{folder}: holds other results than those that were read from it before; read it "
            "again."
        )


def require_unchanged(folder: Path, names: Iterable[str]) -> None:
    """Raise unless files are as they were when their folder was sealed.

    Parameters
    ----------
    folder : Path
        Without a list of checksums, as records of an earlier version are, nothing is known.
    names : iterable of str
        Files, or folders, relative to it.

    Raises
    ------
    InvalidRecordError
        Names the first file that is missing, was added, or does not hold what was written.
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
    """Turn the exceptions that edited facts and tables lead to into an InvalidRecordError.

    Parameters
    ----------
    folder : Path, optional
        Where they were read from. With checksums they are as this program wrote them, and so they
        are without a folder: an exception is a bug then, and passes.

    Raises
    ------
    InvalidRecordError
        Names what is missing, or what is wrong with it.
    """
    try:
        yield
    except FcfnError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if folder is None or list_data(folder) is not None:
            raise
        if isinstance(error, KeyError) and error.args:
            what = f"{folder / 'run.json'}: {abbreviate(error.args[0])} is missing or not known"
        else:
            why = " ".join(str(error).split())
            what = f"{folder}: run.json or a table holds what no run writes: {why.rstrip('.')}"
        raise InvalidRecordError(f"{what}.") from error


def list_data(folder: Path) -> set[str] | None:
    """Return what lies in a sealed folder by right: files, and folders; None without a list."""
    known = _read_sums(folder)
    return None if known is None else {name.split("/")[0] for name in known}


def require_utf8(path: Path, error: type[FcfnError] = InvalidRecordError) -> None:
    """Raise ``error`` if Parquet could not write or read there: it takes no other names."""
    absolute = Path(os.path.abspath(path))
    try:
        os.fspath(absolute).encode()
    except UnicodeEncodeError:
        raise error(f"{absolute}: the name is not UTF-8, which results need.") from None


def _require_file(folder: Path, file: str, expected: str | None) -> None:
    path = folder / file
    with _raise_as_unreadable(path):
        if expected is None:
            if os.path.lexists(path):
                raise InvalidRecordError(f"{path}: was not there when {SUMS} was written.")
            return
        found = _digest(path)
    if found != expected:
        raise InvalidRecordError(
            f"{path}: does not hold what was written: it was damaged or edited ({SUMS} lists "
            "what its checksum should be)."
        )


def _read_sums(folder: Path) -> dict[str, str] | None:
    """Return the checksums of a folder by file; None if it has no list of them."""
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
            f"{sums}: the checksums cannot be read: a line holds no checksum and name."
        ) from None


@contextmanager
def _raise_as_unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = describe_error(error)
        raise InvalidRecordError(f"{path}: cannot be read: {why}.") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
