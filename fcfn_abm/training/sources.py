"""Where stored images lie, and how they are read: Parquet files, and what torchvision downloads."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidDataError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa

type Labels = npt.NDArray[np.int64]
type Pixels = npt.NDArray[np.uint8]

FOLDER_VARIABLE = "FCFN_DATA"
"""Environment variable that names the folder with data sets."""

_MOST_CLASSES = 65_536

_UNREADABLE = (  # what torchvision, torch and pickle raise at damaged files
    OSError, RuntimeError, ValueError, AssertionError, TypeError, LookupError, EOFError,
    pickle.UnpicklingError,
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Labelled images that are read when they are asked for."""

    labels: Labels
    """Shape (n,)."""
    pixels: Callable[[Labels], Pixels]
    """Takes row numbers, shape (m,); returns shape (m, channels, height, width)."""
    writers: Labels | None = None
    """Who wrote each image, shape (n,), where that is known."""


@dataclass(frozen=True)
class Source:
    """A stored data set."""

    train: Part
    test: Part | None
    """None where there is one part, which is then split."""
    class_names: tuple[str, ...]
    """One name a label."""
    where: str
    """Its folder or file."""


def data_folder() -> Path:
    """Return the folder with data sets: FCFN_DATA, or one in the user's cache."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(os.path.expanduser(named))  # Path's own fails where there is no such user
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if cache.startswith("~"):  # as in a container whose user has no entry and no HOME
        raise InvalidDataError(
            f"There is no home folder to look for data sets in: let {FOLDER_VARIABLE} name theirs."
        )
    return Path(cache) / "fcfn_abm" / "data"


def stored(name: str, torchvision: Callable[[Path], Source]) -> Source:
    """Open a data set, as Parquet files or as torchvision keeps it.

    Parameters
    ----------
    name : str
        Its folder of Parquet files below :func:`data_folder`, and what the user calls it.
    torchvision : callable
        Opens torchvision's files below a folder; raises FileNotFoundError where there are none.

    Raises
    ------
    InvalidDataError
        If it is not there, or what is there cannot be read.
    """
    folder = data_folder()
    if (folder / name / "train.parquet").is_file():
        return parquet_source(folder / name)
    try:
        return torchvision(folder)
    except FileNotFoundError:
        raise InvalidDataError(
            f"The data set {name!r} is not in {folder}: get it with `fcfn data prepare {name}`, or "
            f"let {FOLDER_VARIABLE} name a folder that holds {name}/train.parquet and "
            f"{name}/test.parquet."
        ) from None


def parquet_source(path: Path) -> Source:
    """Open Parquet files of encoded images.

    Parameters
    ----------
    path : Path
        A file, or a folder with ``train.parquet`` and perhaps ``test.parquet``. Columns: ``image``
        (struct with ``bytes``, an encoded JPEG or PNG), ``label`` (int64), perhaps ``writer``
        (int64). Names of classes may stand in the schema's metadata, as JSON under
        ``class_names``.

    Raises
    ------
    InvalidDataError
        If a file is missing, or is not such a file.
    """
    files = [path / "train.parquet", path / "test.parquet"] if path.is_dir() else [path]
    if not files[0].is_file():
        what = f"holds no {files[0].name}" if path.is_dir() else "there is no such file or folder"
        raise InvalidDataError(f"{path}: {what}.")
    tables = [_read_table(file) for file in files if file.is_file()]
    parts = [_parquet_part(file, table) for file, table in zip(files, tables, strict=False)]
    n_classes = 1 + max(int(part.labels.max()) for part in parts)
    if n_classes > _MOST_CLASSES:
        raise InvalidDataError(
            f"{path}: there is a label {n_classes - 1}, but labels number the classes from 0, and "
            f"at most {_MOST_CLASSES} classes can be told apart."
        )
    names = _class_names(tables[0])
    if len(names) < n_classes:
        if names:
            raise InvalidDataError(
                f"{path}: there are labels up to {n_classes - 1}, but names of {len(names)} "
                "classes only."
            )
        names = tuple(map(str, range(n_classes)))
    return Source(parts[0], parts[1] if len(parts) > 1 else None, names, str(path))


def _read_table(file: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
        wanted = [name for name in ("image", "label", "writer") if name in schema.names]
        table = pq.read_table(file, columns=wanted)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InvalidDataError(f"{file}: not a Parquet file that can be read: {error}.") from None
    image: Any = schema.field("image").type if "image" in wanted else pa.null()
    encoded = pa.types.is_struct(image) and image.get_field_index("bytes") >= 0
    if not encoded or "label" not in wanted:
        raise InvalidDataError(
            f"{file}: needs a column image (struct with bytes) and a column label (integers), but "
            f"has {', '.join(schema.names) or 'none'}."
        )
    if table.num_rows == 0:
        raise InvalidDataError(f"{file}: has no rows.")
    return table


def _parquet_part(file: Path, table: pa.Table) -> Part:
    encoded = table["image"].combine_chunks().field("bytes")
    return Part(
        labels=_whole_numbers(file, table, "label"),
        pixels=partial(_decoded, file, encoded),
        writers=_whole_numbers(file, table, "writer") if "writer" in table.column_names else None,
    )


def _whole_numbers(file: Path, table: pa.Table, name: str) -> Labels:
    values: npt.NDArray[Any] = table[name].to_numpy()
    if values.dtype.kind not in "iu" or (values < 0).any():
        raise InvalidDataError(
            f"{file}: {name} must hold integers from 0, and none may be missing."
        )
    return np.asarray(values, dtype=np.int64)


def _decoded(file: Path, encoded: Any, rows: Labels) -> Pixels:
    """Decode some images; all must be of one size and kind."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError(
            "Reading images needs Pillow, which is not installed: pip install 'fcfn-abm[train]'."
        ) from None
    images: Pixels | None = None
    for place, (row, data) in enumerate(zip(rows, encoded.take(rows).to_pylist(), strict=True)):
        try:
            with Image.open(io.BytesIO(data or b"")) as image:
                grey = image.mode in {"L", "1", "I;16"}
                pixels = np.asarray(image.convert("L" if grey else "RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            # a SyntaxError is Pillow's for some broken PNG files
            raise InvalidDataError(f"{file}: the image in row {row} cannot be decoded.") from None
        pixels = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
        if images is None:
            images = np.empty((len(rows), *pixels.shape), dtype=np.uint8)
        if pixels.shape != images.shape[1:]:
            raise InvalidDataError(
                f"{file}: all images must be of one size and kind, but row {row} is "
                f"{_size(pixels)} and another is {_size(images[0])}."
            )
        images[place] = pixels
    return np.empty((0, 1, 1, 1), dtype=np.uint8) if images is None else images


def _size(pixels: Pixels) -> str:
    channels, height, width = pixels.shape
    return f"{width} x {height} in {'grey' if channels == 1 else 'colour'}"


def _class_names(table: pa.Table) -> tuple[str, ...]:
    metadata = table.schema.metadata or {}
    try:
        if b"class_names" in metadata:
            return tuple(map(str, json.loads(metadata[b"class_names"])))
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features["label"]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()


def cifar10_source(folder: Path, *, download: bool = False) -> Source:
    """Open CIFAR-10 as torchvision keeps it; it checks its files' sums.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    InvalidDataError
        If it is damaged, or not whole; downloading mends what is not whole.
    """
    place = _Place("cifar10", folder, "cifar-10-batches-py", "*")
    kind = _torchvision().CIFAR10
    sets = [_opened(kind, place, train=train, download=download) for train in (True, False)]
    train, test = (
        Part(np.array(s.targets, dtype=np.int64), partial(_rows_of, s.data.transpose(0, 3, 1, 2)))
        for s in sets
    )
    return Source(train, test, tuple(sets[0].classes), str(place.path))


def emnist_source(split: str, folder: Path, *, download: bool = False) -> Source:
    """Open a split of EMNIST as torchvision keeps it.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    InvalidDataError
        If it is damaged, or not whole; downloading mends what is not whole.
    """
    name = "emnist" if split == "byclass" else f"emnist-{split}"
    place = _Place(name, folder, "EMNIST", f"raw/emnist-{split}-*")
    kind = _torchvision().EMNIST
    sets = [
        _opened(kind, place, split=split, train=train, download=download) for train in (True, False)
    ]
    names = tuple(sets[0].classes)
    first = 1 if names[0] == "N/A" else 0  # "letters" counts from one
    for s in sets:  # each file may be whole, and yet not belong to the other
        labels = s.targets.numpy()
        if len(labels) != len(s.data):
            raise place.damaged(f"{len(s.data):,} images and {len(labels):,} labels")
        if labels.min() < first or labels.max() >= len(names):
            raise place.damaged(f"there are labels from {labels.min()} to {labels.max()}")
    train, test = (
        # stored transposed: as one reads, rows come first
        Part(
            s.targets.numpy() - first, partial(_rows_of, s.data.numpy().transpose(0, 2, 1)[:, None])
        )
        for s in sets
    )
    return Source(train, test, names[first:], str(place.path))


@dataclass(frozen=True)
class _Place:
    """Where torchvision keeps a data set."""

    name: str
    """What the user calls the data set."""
    root: Path
    folder: str
    """Of torchvision's choice, below ``root``."""
    files: str
    """Pattern of the data set's own files in it."""

    @property
    def path(self) -> Path:
        return self.root / self.folder

    def damaged(self, reason: str) -> InvalidDataError:
        return InvalidDataError(
            f"{self.path}: the files of {self.name!r} are damaged, or not whole: {reason}. Delete "
            f"that folder and run `fcfn data prepare {self.name}` again."
        )


def _torchvision() -> Any:
    try:
        from torchvision import datasets
    except ImportError:
        raise MissingExtraError(
            "CIFAR-10 and EMNIST are read by torchvision, which is not installed: "
            "pip install 'fcfn-abm[train]'."
        ) from None
    return datasets


def _rows_of(pixels: Pixels, rows: Labels) -> Pixels:
    return np.ascontiguousarray(pixels[rows])


def _opened(kind: Any, place: _Place, *, download: bool, **options: Any) -> Any:
    try:
        return kind(place.root, **options)
    except _UNREADABLE as error:
        # torchvision's way to say that a file is missing or, of CIFAR-10, has another sum; all
        # else is of files that it finds, and so would not download again
        if not (isinstance(error, RuntimeError) and str(error).startswith("Dataset ")):
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise place.damaged(reason or type(error).__name__) from error
    if download:
        place.root.mkdir(parents=True, exist_ok=True)
        return kind(place.root, download=True, **options)
    if any(place.path.glob(place.files)):
        raise InvalidDataError(
            f"{place.path}: files of {place.name!r} are missing or damaged: get them again with "
            f"`fcfn data prepare {place.name}`."
        )
    raise FileNotFoundError(place.path)


def joined(parts: Sequence[Part]) -> Part:
    """Return several parts as one, rows in their order."""
    starts = np.cumsum([0, *(part.labels.size for part in parts)])

    def pixels(rows: Labels) -> Pixels:
        which = np.searchsorted(starts, rows, side="right") - 1
        pieces = [part.pixels(rows[which == i] - starts[i]) for i, part in enumerate(parts)]
        pieces = [piece for piece in pieces if len(piece)]
        gathered = np.empty((len(rows), *pieces[0].shape[1:]), dtype=np.uint8)
        for i, piece in zip(np.unique(which), pieces, strict=True):
            gathered[which == i] = piece
        return gathered

    writers = [part.writers for part in parts if part.writers is not None]
    return Part(
        np.concatenate([part.labels for part in parts]),
        pixels,
        np.concatenate(writers) if len(writers) == len(parts) else None,
    )
