"""Checksums of what was written, in the form of ``sha256sum``: damage never passes for a result."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fcfn_abm.errors import FcfnError, InvalidRecordError, abbreviate

SUMS = "SHA256SUMS"
"""File that lists the data of a folder; ``sha256sum --check SHA256SUMS`` reads it too."""

DERIVED = {SUMS, "figures", "report.html", "report.md"}
"""What is made from the data, and made again."""


def seal(folder: Path, files: Mapping[str, Path] | None = None) -> None:
    """Write the checksums of the data in a folder.

    Parameters
    ----------
    folder : Path
        Takes the list.
    files : mapping of str to Path, optional
        Names in it, and where what will have that name lies now. Without it all files below the
        folder but figures and reports, which are derived, and which nothing reads.
    """
    if files is None:
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        names = {path.relative_to(folder).as_posix(): path for path in found}
        files = {
            name: path
            for name, path in names.items()
            if name.split("/")[0] not in DERIVED and path.name[0] != "." and path.name != SUMS
        }
    lines = [f"{_digest(path)}  {name}\n" for name, path in files.items()]
    own = folder / f".{SUMS}.partial"
    own.write_text("".join(lines), encoding="utf-8")
    own.replace(folder / SUMS)


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
    if not (folder / SUMS).is_file():
        return
    known = _read_sums(folder / SUMS)
    for name in names:
        below = f"{name}/"
        there = [
            path.relative_to(folder).as_posix()
            for path in sorted((folder / name).rglob("[!.]*") if (folder / name).is_dir() else ())
        ]
        expected = [file for file in known if file == name or file.startswith(below)]
        for file in dict.fromkeys([*expected, *there, *([name] if not expected else [])]):
            _require_same(folder, file, known.get(file))


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
        if folder is None or (folder / SUMS).is_file():
            raise
        if isinstance(error, KeyError) and error.args:
            what = f"{folder / 'run.json'}: {abbreviate(error.args[0])} is missing or not known"
        else:
            why = " ".join(str(error).split())
            what = f"{folder}: run.json or a table holds what no run writes: {why.rstrip('.')}"
        raise InvalidRecordError(f"{what}.") from error


def list_data(folder: Path) -> set[str] | None:
    """Return what lies in a sealed folder by right: files, and folders; None without a list."""
    if not (folder / SUMS).is_file():
        return None
    return {name.split("/")[0] for name in _read_sums(folder / SUMS)}


def require_utf8(path: Path, error: type[FcfnError] = InvalidRecordError) -> None:
    """Raise ``error`` if Parquet could not write or read there: it takes no other names."""
    absolute = Path(os.path.abspath(path))
    try:
        os.fspath(absolute).encode()
    except UnicodeEncodeError:
        raise error(f"{absolute}: the name is not UTF-8, which results need.") from None


def _require_same(folder: Path, file: str, expected: str | None) -> None:
    path = folder / file
    if expected is None:
        if path.exists():
            raise InvalidRecordError(f"{path}: was not there when {SUMS} was written.")
        return
    try:
        found = _digest(path)
    except OSError as error:
        raise InvalidRecordError(f"{path}: cannot be read: {error.strerror}.") from error
    if found != expected:
        raise InvalidRecordError(
            f"{path}: does not hold what was written: it was damaged or edited ({SUMS} lists "
            "what its checksum should be)."
        )


def _read_sums(sums: Path) -> dict[str, str]:
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise InvalidRecordError(f"{sums}: the checksums cannot be read: {error}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
