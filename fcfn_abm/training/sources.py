"""Stored data sets of labelled images, read on demand."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidDataError

type Labels = npt.NDArray[np.int64]
type Pixels = npt.NDArray[np.uint8 | np.uint16]
"""Pixel values; the largest value of the type is full brightness."""

FOLDER_VARIABLE = "FCFN_DATA"
"""Environment variable with the folder of data sets."""


@dataclass(frozen=True)
class Part:
    """Labelled images of one or more files."""

    labels: Labels
    """Shape (n,)."""
    pixels: Callable[[Labels], Pixels]
    """Takes row numbers, shape (m,); returns shape (m, channels, height, width)."""
    where: str
    """File or folder, for messages."""
    writers: Labels | None = None
    """Writer of each image, shape (n,), if known."""


@dataclass(frozen=True)
class Source:
    """A stored data set."""

    train: Part
    test: Part | None
    """The test images; None if there is one part, which is split."""
    class_names: tuple[str, ...]
    """Class names by label."""
    where: str
    """Its folder or file."""
    notes: tuple[str, ...] = ()
    """Notes about its files, such as unused ones."""


def data_folder() -> Path:
    """Return the folder of data sets: FCFN_DATA, or one in the user's cache.

    Raises
    ------
    InvalidDataError
        If there is neither FCFN_DATA nor a home folder.
    """
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(os.path.expanduser(named))  # pathlib's version fails for unknown users
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if cache.startswith("~"):  # without HOME and an entry in the password file
        raise InvalidDataError(
            f"there is no folder for data sets, since this user has no home folder; set "
            f"{FOLDER_VARIABLE} to one."
        )
    return Path(cache) / "fcfn_abm" / "data"


def require_one_kind(shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise unless images of several files have the same size, and all are grey or all in colour.

    Parameters
    ----------
    shapes : mapping of str to sequence of int
        Channels, height and width of the images of each file.
    """
    (first, expected), *others = shapes.items()
    for where, shape in others:
        if tuple(shape) != tuple(expected):
            raise InvalidDataError(
                f"{where}: all images must have the same size and type, but these are "
                f"{describe_kind(shape)}, and those of {first} are {describe_kind(expected)}."
            )


def describe_kind(shape: Sequence[int]) -> str:
    """Describe the size and colour of images; ``shape`` has channels first."""
    channels, height, width = shape
    return f"{width} x {height} in {'grey' if channels == 1 else 'colour'}"


def join_parts(parts: Sequence[Part]) -> Part:
    """Concatenate several parts."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(part.labels.size for part in parts)])

    def pixels(rows: Labels) -> Pixels:
        which = np.searchsorted(starts, rows, side="right") - 1
        pieces = {i: parts[i].pixels(rows[which == i] - starts[i]) for i in np.unique(which)}
        require_one_kind({parts[i].where: piece.shape[1:] for i, piece in pieces.items()})
        kind = np.result_type(*pieces.values())
        shape = next(iter(pieces.values())).shape[1:]
        gathered = np.empty((len(rows), *shape), dtype=kind)
        for i, piece in pieces.items():  # 255 in 8 bits is 65,535 in 16
            scale = np.iinfo(kind).max // np.iinfo(piece.dtype).max
            gathered[which == i] = piece.astype(kind, copy=False) * kind.type(scale)
        return gathered

    writers = [part.writers for part in parts if part.writers is not None]
    return Part(
        np.concatenate([part.labels for part in parts]),
        pixels,
        ", ".join(part.where for part in parts),
        np.concatenate(writers) if len(writers) == len(parts) else None,
    )
