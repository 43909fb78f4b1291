"""CIFAR-10 and EMNIST in torchvision's files."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fcfn_abm.errors import InvalidDataError, MissingExtraError, describe_cause
from fcfn_abm.training.sources import Labels, Part, Pixels, Source

_UNREADABLE = (  # raised by torchvision, torch and pickle for corrupt files
    OSError, RuntimeError, ValueError, AssertionError, TypeError, LookupError, EOFError,
    pickle.UnpicklingError,
)  # fmt: skip


def cifar10_source(folder: Path, *, download: bool = False) -> Source:
    """Open torchvision's CIFAR-10, whose checksums torchvision verifies.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    InvalidDataError
        If it is corrupt or incomplete; downloading repairs incomplete files.
    """
    place = _Place("cifar10", folder, "cifar-10-batches-py", "*")
    kind = _torchvision().CIFAR10
    sets = [_open(kind, place, train=train, download=download) for train in (True, False)]
    train, test = (
        Part(
            np.array(s.targets, dtype=np.int64),
            partial(_rows_of, s.data.transpose(0, 3, 1, 2)),
            where=str(place.path),
        )
        for s in sets
    )
    return Source(train, test, tuple(sets[0].classes), str(place.path))


def emnist_source(split: str, folder: Path, *, download: bool = False) -> Source:
    """Open a split of torchvision's EMNIST.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    InvalidDataError
        If it is corrupt or incomplete; downloading repairs incomplete files.
    """
    name = "emnist" if split == "byclass" else f"emnist-{split}"
    place = _Place(name, folder, "EMNIST", f"raw/emnist-{split}-*")
    kind = _torchvision().EMNIST
    sets = [
        _open(kind, place, split=split, train=train, download=download) for train in (True, False)
    ]
    names = tuple(sets[0].classes)
    first = 1 if names[0] == "N/A" else 0  # "letters" counts from one
    for s in sets:  # files may be intact but not belong together
        labels = s.targets.numpy()
        if len(labels) != len(s.data):
            raise place.create_error(f"{len(s.data):,} images and {len(labels):,} labels")
        if labels.min() < first or labels.max() >= len(names):
            raise place.create_error(f"there are labels from {labels.min()} to {labels.max()}")
    train, test = (
        # images are stored transposed
        Part(
            s.targets.numpy() - first,
            partial(_rows_of, s.data.numpy().transpose(0, 2, 1)[:, None]),
            where=str(place.path),
        )
        for s in sets
    )
    return Source(train, test, names[first:], str(place.path))


@dataclass(frozen=True)
class _Place:
    """Location of a data set of torchvision."""

    name: str
    """Name of the data set."""
    root: Path
    folder: str
    """Subfolder of ``root``, chosen by torchvision."""
    files: str
    """Pattern of the data set's files in it."""

    @property
    def path(self) -> Path:
        return self.root / self.folder

    def create_error(self, reason: str) -> InvalidDataError:
        return InvalidDataError(
            f"{self.path}: the files of {self.name!r} are corrupt or incomplete: {reason}. Delete "
            f"this folder and run `fcfn data prepare {self.name}` again."
        )


def _torchvision() -> Any:
    try:
        from torchvision import datasets
    except ImportError:
        raise MissingExtraError(
            "CIFAR-10 and EMNIST require torchvision, which is not installed: "
            "pip install 'fcfn-abm[train]'."
        ) from None
    return datasets


def _rows_of(pixels: Pixels, rows: Labels) -> Pixels:
    return np.ascontiguousarray(pixels[rows])


def _open(kind: Any, place: _Place, *, download: bool, **options: Any) -> Any:
    try:
        return kind(place.root, **options)
    except _UNREADABLE as error:
        # torchvision's message for missing files and, for CIFAR-10, wrong checksums; all other
        # errors are about files that it finds, and would not download again
        if not (isinstance(error, RuntimeError) and str(error).startswith("Dataset ")):
            raise place.create_error(describe_cause(error)) from error
    if download:
        place.root.mkdir(parents=True, exist_ok=True)
        return kind(place.root, download=True, **options)
    if any(place.path.glob(place.files)):
        raise InvalidDataError(
            f"{place.path}: files of {place.name!r} are missing or corrupt; download them with "
            f"`fcfn data prepare {place.name}`."
        )
    raise FileNotFoundError(place.path)
