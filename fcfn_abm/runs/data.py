"""Listing, downloading and checking data sets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from fcfn_abm.errors import (
    InvalidDataError,
    MissingExtraError,
    OutputError,
    RunFailedError,
    UnknownNameError,
    describe_cause,
)
from fcfn_abm.process.files import list_files
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.records.integrity import SUMS
from fcfn_abm.training import DATASETS
from fcfn_abm.training.parquet import has_parquet, parquet_source
from fcfn_abm.training.sources import (
    FOLDER_VARIABLE,
    Part,
    Source,
    data_folder,
    require_one_kind,
)
from fcfn_abm.training.torchvision_files import cifar10_source, emnist_source

KNOWN: dict[str, Callable[..., Source]] = {
    "cifar10": cifar10_source,
    "emnist": partial(emnist_source, "byclass"),
    **{
        f"emnist-{part}": partial(emnist_source, part) for part in ("balanced", "letters", "digits")
    },
}
"""Data sets by folder name, with the functions that open torchvision's copies."""

_AT_ONCE = 1000  # images decoded per step of the progress bar


def find_data_set(name: str) -> Source | None:
    """Return a data set if it is on this machine, otherwise None.

    Raises
    ------
    InvalidDataError
        If it exists but cannot be read.
    UnknownNameError
        If there is no data set of that name.
    """
    try:
        return _open_parquet(name) or KNOWN[name](data_folder())
    except FileNotFoundError:
        return None


def list_data_sets() -> list[list[str]]:
    """Return a row per data set: name, sizes, classes, and its location or how to get it."""
    rows = []
    try:
        digits = DATASETS.create("digits").load(np.random.default_rng(0))
    except MissingExtraError as error:
        rows.append(["digits", "-", "-", "-", str(error)])
    else:
        sizes = (digits.train_labels.size, digits.test_labels.size, len(digits.class_names))
        rows.append(["digits", *(f"{size:,}" for size in sizes), "comes with scikit-learn"])
    for name in KNOWN:
        try:
            source = find_data_set(name)
        except InvalidDataError as error:
            rows.append([name, "-", "-", "-", f"damaged: {error}"])
            continue
        except MissingExtraError as error:
            rows.append([name, "-", "-", "-", str(error)])
            continue
        if source is None:
            rows.append([name, "-", "-", "-", f"missing; fcfn data prepare {name}"])
        else:
            rows.append([name, *_sizes(source), source.where])
    return rows


def prepare_data_set(name: str, *, progress: bool = False) -> str:
    """Download a data set unless it exists, and check all of it.

    Every image is decoded, and files listed in checksum files (``SHA256SUMS``) in the data set's
    folder or its parent are verified.

    Parameters
    ----------
    name : str
        One of :data:`KNOWN`.
    progress : bool, default False
        Whether to show a bar on stderr.

    Returns
    -------
    str
        A sentence that describes the data set.

    Raises
    ------
    UnknownNameError
        If there is no data set of that name.
    InvalidDataError
        If it is corrupt.
    OutputError
        If it cannot be written to the folder of data sets.
    RunFailedError
        If it cannot be downloaded.
    """
    source = _open_parquet(name)
    if not source:
        _require_folder(data_folder())
        source = _download(name)
    _require_sums(Path(source.where))
    _require_images(source, progress=progress)
    n_train, n_test, n_classes = _sizes(source)
    return (
        f"{name} is ready in {source.where}: {n_train} training and {n_test} test images, "
        f"{n_classes} classes{''.join(f'; {note}' for note in source.notes)}."
    )


def _require_sums(folder: Path) -> None:
    """Verify the files of a data set against lists of checksums, if there are any."""
    folder = folder.absolute()
    try:
        below = [file for file in list_files(folder) if file.name == SUMS]
    except OSError as error:
        raise InvalidDataError(f"{error.filename}: cannot be read: {error.strerror}.") from None
    for sums in [folder.parent / SUMS, *below]:
        if not sums.is_file():
            continue
        for file, expected in _read_checksums(sums):
            if not file.is_relative_to(folder):  # of another data set
                continue
            try:
                with file.open("rb") as opened:
                    same = hashlib.file_digest(opened, "sha256").hexdigest() == expected
            except OSError as error:
                raise InvalidDataError(
                    f"{file}: is listed in {sums} but cannot be read: {describe_cause(error)}."
                ) from None
            if not same:
                raise InvalidDataError(
                    f"{file}: does not match its checksum in {sums}: the file is corrupt or was "
                    "edited. Replace it, or update the list."
                )


def _read_checksums(sums: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files that ``sha256sum`` listed, and their checksums."""
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InvalidDataError(
            f"{sums}: the checksums cannot be read: {describe_cause(error)}."
        ) from None
    for number, line in enumerate(lines, start=1):
        digest, _, file = line.partition(" ")
        if line.startswith("#") or not line.strip():
            continue
        if len(digest) != 64 or len(file) < 2:
            raise InvalidDataError(
                f"{sums}: line {number} must contain a checksum, two spaces and a file name, as "
                "written by sha256sum."
            )
        yield sums.parent / file[1:], digest.lower()  # file[0] is " " or "*", for text or binary


def _require_images(source: Source, *, progress: bool) -> None:
    """Raise unless all images can be decoded and have the same size and type."""
    parts = [source.train] if source.test is None else [source.train, source.test]
    total = sum(part.labels.size for part in parts)
    with progress_bar(total, "checking", "image", shown=progress) as bar:
        for part in parts:
            for start in range(0, part.labels.size, _AT_ONCE):
                rows = np.arange(start, min(start + _AT_ONCE, part.labels.size))
                part.pixels(np.concatenate([[0], rows]))  # all must have the first image's size
                bar.update(rows.size)
    require_one_kind({part.where: _shape(part) for part in parts})


def _shape(part: Part) -> tuple[int, ...]:
    return part.pixels(np.zeros(1, dtype=np.int64)).shape[1:]


def _open_parquet(name: str) -> Source | None:
    """Open a data set's Parquet files, if there are any."""
    if name not in KNOWN:
        raise UnknownNameError("data set", name, KNOWN)
    folder = data_folder() / name
    return parquet_source(folder) if has_parquet(folder) else None


def _require_folder(folder: Path) -> None:
    """Raise OutputError if a folder does not exist and cannot be created, or is read-only."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    why = "is not a folder" if not there.is_dir() else "is not writable"
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise OutputError(
            f"{folder}: cannot be used for data sets: {there} {why}. Set {FOLDER_VARIABLE} to "
            "another folder."
        )


def _download(name: str) -> Source:
    """Open torchvision's copy, downloading missing files."""
    folder = data_folder()
    try:
        return KNOWN[name](folder, download=True)
    except (OSError, RuntimeError, EOFError) as error:
        reason = describe_cause(getattr(error, "reason", error))
        raise RunFailedError(
            f"{name} could not be downloaded: {reason}. On a machine with a network run "
            f"`fcfn data prepare {name}` and copy {folder} here; or set {FOLDER_VARIABLE} to a "
            f"folder with {Path(name) / 'train.parquet'} and {Path(name) / 'test.parquet'}."
        ) from None


def _sizes(source: Source) -> list[str]:
    test = "-" if source.test is None else f"{source.test.labels.size:,}"
    return [f"{source.train.labels.size:,}", test, str(len(source.class_names))]
