"""Data sets in Parquet files of encoded images: finding, opening and combining the files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidDataError, abbreviate, describe_cause, did_you_mean
from fcfn_abm.memory import format_gib, measure_memory
from fcfn_abm.training.decode import Background, decode_images
from fcfn_abm.training.sources import Labels, Part, Pixels, Source, join_parts

if TYPE_CHECKING:
    import pyarrow as pa

type Values = npt.NDArray[Any]
"""Integers, or text as objects."""

USUAL_NAMES = {
    "image": ("image", "img", "picture", "png", "jpg"),
    "label": ("label", "fine_label", "labels", "class", "target", "character", "digit"),
    "writer": ("writer", "writer_id", "user_id", "client_id"),
}
"""Recognised column names; the first one present is used."""

_MOST_CLASSES = 65_536
_ROWS_AT_ONCE = 256  # Arrow holds at most 2 GiB of bytes in one array
_FILE_NAME = re.compile(
    r"(?P<split>train|test|validation|valid|val|dev)"
    r"(?:-(?P<index>\d{5})-of-(?P<count>\d{5})(?:-[0-9a-f]+)?)?\.parquet"
)
_TEST_SPLITS = ("test", "validation", "valid", "val", "dev")


@dataclass(frozen=True)
class Columns:
    """Names of the columns; by default common names are recognised."""

    image: str | None = None
    label: str | None = None
    writer: str | None = None


_USUAL = Columns()


@dataclass(frozen=True)
class _Files:
    """The files of a folder in use."""

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Encoded:
    """The encoded images of a file, in arrays of some rows each."""

    chunks: tuple[Any, ...]
    starts: Labels
    """First row of each chunk, and the total number."""

    def take(self, rows: Labels) -> Iterator[bytes | None]:
        """Yield some images."""
        which = np.searchsorted(self.starts, rows, side="right") - 1
        for chunk, row in zip(which, rows - self.starts[which], strict=True):
            yield self.chunks[chunk][row].as_py()


@dataclass(frozen=True)
class _Table:
    """The table of a file."""

    file: Path
    encoded: _Encoded
    labels: Values
    class_names: tuple[str, ...]
    """Class names from the file's metadata; empty if it has none."""
    writers: Values | None


def has_parquet(folder: Path) -> bool:
    """Return whether a folder has training images in Parquet files."""
    return _find_files(folder) is not None


def parquet_source(
    path: Path, columns: Columns = _USUAL, background: Background | None = None
) -> Source:
    """Open Parquet files of encoded images.

    A folder has ``train.parquet``, or ``train-00000-of-00003.parquet`` and so on, itself or in its
    subfolder ``data``, and possibly test images named likewise with ``test`` (or ``validation``).
    Class names can be in each file's metadata, in Hugging Face's format or as a JSON list under
    ``class_names``; labels of files with another order of names are matched by name. Without names
    the classes are the labels that occur.

    Parameters
    ----------
    path : Path
        A file or a folder.
    columns : Columns, optional
        Names of the columns: encoded images (binary, or a struct with ``bytes``), labels (integers
        from 0, or text), and optionally writers (likewise).
    background : {"white", "black"}, optional
        Background of transparent pixels; by default images with transparency are rejected.

    Raises
    ------
    InvalidDataError
        If a file is missing or not valid.
    """
    files = _Files((path,), (), ())
    if path.is_dir():
        found = _find_files(path)
        if found is None:
            raise InvalidDataError(f"{path}: has no train.parquet.")
        files = found
    elif not path.is_file():
        raise InvalidDataError(f"{path}: does not exist.")
    tables = [_read_table(file, columns) for file in (*files.train, *files.test)]
    labels, class_names = _number_classes(tables)
    writers = _number_writers(tables)
    parts = [
        Part(own, partial(_decode_rows, table, background), str(table.file), written)
        for table, own, written in zip(tables, labels, writers, strict=True)
    ]
    n_train = len(files.train)
    test = join_parts(parts[n_train:]) if files.test else None
    return Source(join_parts(parts[:n_train]), test, class_names, str(path), files.notes)


def _decode_rows(table: _Table, background: Background | None, rows: Labels) -> Pixels:
    return decode_images(table.file, table.encoded.take(rows), rows, background)


# Files


def _find_files(folder: Path) -> _Files | None:
    """Return the files of a data set, or None without training images."""
    for place in (folder, folder / "data"):
        names = _list_parquet(place)
        splits: dict[str, list[re.Match[str]]] = {}
        for found in filter(None, map(_FILE_NAME.fullmatch, names)):
            splits.setdefault(found["split"], []).append(found)
        if "train" not in splits:
            continue
        for shards in splits.values():
            _require_whole(place, shards)
        second = next((split for split in _TEST_SPLITS if split in splits), "")
        train, test = ([found.string for found in splits.get(s, ())] for s in ("train", second))
        unused = [name for name in names if name not in (*train, *test)]
        notes = [f"test images from {', '.join(test)}"] if second not in ("", "test") else []
        notes += [f"{', '.join(unused)} not used"] if unused else []
        return _Files(
            tuple(place / name for name in train),
            tuple(place / name for name in test),
            tuple(notes),
        )
    return None


def _list_parquet(folder: Path) -> list[str]:
    """Return the names of the Parquet files in a folder, if it exists."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InvalidDataError(f"{folder}: cannot be read: {describe_cause(error)}.") from None
    return sorted(name for name in names if name.endswith(".parquet") and name[0] != ".")


def _require_whole(folder: Path, shards: Sequence[re.Match[str]]) -> None:
    """Raise unless a split is a single file, or its set of numbered files is complete."""
    split, counts = shards[0]["split"], {found["count"] for found in shards}
    if len(counts) > 1:
        names = " and ".join(found.string for found in (shards[0], shards[-1]))
        raise InvalidDataError(
            f"{folder}: {names} belong to different sets of {split} images; keep only one."
        )
    (count,) = counts
    present = [int(found["index"]) for found in shards if found["index"]]
    if len(shards) == 1 and count is None:
        return
    missing = sorted(set(range(int(count))) - set(present))
    if missing:
        raise InvalidDataError(
            f"{folder}: {split}-{missing[0]:05}-of-{count}.parquet is missing "
            f"({len(missing)} of {int(count)} files)."
        )
    if len(present) != int(count):
        raise InvalidDataError(
            f"{folder}: there are {len(present)} files of {split} images, but their names count "
            f"{int(count)}."
        )


# Columns


def _read_table(file: Path, columns: Columns) -> _Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            image, label, writer = (
                _choose_column(file, schema.names, what, getattr(columns, what))
                for what in ("image", "label", "writer")
            )
            if image is None or label is None or not _is_encoded(schema.field(image).type):
                raise InvalidDataError(
                    f"{file}: needs a column image (encoded, a struct with bytes or binary) and a "
                    f"column label (integers or text), but has "
                    f"{', '.join(schema.names) or 'none'}; set the keys image and label to use "
                    "others."
                )
            wanted = [name for name in (image, label, writer) if name is not None]
            batches = list(_read_batches(file, parquet, wanted))
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, InvalidDataError):
            raise
        raise InvalidDataError(
            f"{file}: cannot be read as a Parquet file: {describe_cause(error)}."
        ) from None
    if not batches:
        raise InvalidDataError(f"{file}: has no rows.")
    table = pa.Table.from_batches(batches)
    chunks = tuple(
        chunk.field("bytes") if pa.types.is_struct(chunk.type) else chunk
        for chunk in table[image].chunks
    )
    return _Table(
        file,
        _Encoded(chunks, np.cumsum([0, *map(len, chunks)])),
        _read_values(file, table, label),
        _read_class_names(file, schema.metadata or {}, label),
        None if writer is None else _read_values(file, table, writer),
    )


def _read_batches(file: Path, parquet: Any, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield all rows; raise before they fill the memory, since small files can unpack to many."""
    held, memory = 0, measure_memory()
    for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=columns):
        held += batch.nbytes
        if held > memory // 2:
            raise InvalidDataError(
                f"{file}: has more than {format_gib(memory // 2)} GiB of encoded images, half "
                "of the memory."
            )
        yield batch


def _choose_column(file: Path, present: list[str], what: str, named: str | None) -> str | None:
    """Return the name of a column: the given or a common one; None if there is none."""
    if named is not None and named not in present:
        raise InvalidDataError(
            f"{file}: has no column {abbreviate(named)} ({what}).{did_you_mean(named, present)} "
            f"It has {', '.join(present) or 'none'}."
        )
    name = named or next((name for name in USUAL_NAMES[what] if name in present), None)
    if present.count(name or "") > 1:
        raise InvalidDataError(f"{file}: has {present.count(name or '')} columns called {name}.")
    return name


def _is_encoded(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    known = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(is_known(kind) for is_known in known)


def _read_values(file: Path, table: pa.Table, name: str) -> Values:
    """Return a column of integers from 0, or of text."""
    import pyarrow as pa

    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    is_text = any(is_kind(column.type) for is_kind in texts)
    if column.null_count or not (is_text or pa.types.is_integer(column.type)):
        raise InvalidDataError(
            f"{file}: {name} must contain integers from 0, or text, without missing values."
        )
    if is_text:
        return np.array(column.to_pylist(), dtype=object)
    values: Values = column.to_numpy()
    if values.min() < 0 or values.max() > np.iinfo(np.int64).max:
        raise InvalidDataError(f"{file}: {name} must contain integers from 0 of at most 63 bits.")
    return values.astype(np.int64)


# Classes


def _read_class_names(file: Path, metadata: dict[bytes, bytes], label: str) -> tuple[str, ...]:
    own = metadata.get(b"class_names")
    try:
        if own is not None:
            names = json.loads(own)
        else:
            names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        names = None
    if isinstance(names, list) and all(isinstance(name, str | int) for name in names):
        return tuple(map(str, names))
    if own is not None:
        raise InvalidDataError(f"{file}: class_names in its metadata must be a JSON list of names.")
    return ()


def _number_classes(tables: Sequence[_Table]) -> tuple[list[Labels], tuple[str, ...]]:
    """Return labels that number the same classes from 0 in all files, and the class names."""
    named = next((table for table in tables if table.class_names), None)
    if named is None or any(table.labels.dtype == object for table in tables):
        known, labels = _number_values({table.file: table.labels for table in tables}, "labels")
        names = tuple(map(str, known))
    else:
        names = named.class_names
        labels = {table.file: _match_classes(table, named) for table in tables}
    if len(names) > _MOST_CLASSES:
        raise InvalidDataError(
            f"{tables[0].file}: there are {len(names):,} labels, but at most {_MOST_CLASSES:,} "
            "classes are allowed."
        )
    return [labels[table.file] for table in tables], names


def _match_classes(table: _Table, named: _Table) -> Labels:
    """Return labels in another file's numbering of the classes."""
    own, names = table.class_names or named.class_names, named.class_names
    labels: Labels = table.labels
    if labels.max() >= len(own):
        raise InvalidDataError(
            f"{table.file}: has labels up to {labels.max()}, but names of only {len(own)} "
            "classes; labels must be indices of the names, from 0."
        )
    if own == names:
        return labels
    for file, listed in ((table.file, own), (named.file, names)):
        if len(set(listed)) < len(listed):
            raise InvalidDataError(
                f"{file}: gives two classes the same name, so they cannot be matched with other "
                "files."
            )
    numbers = {name: number for number, name in enumerate(names)}
    matched: Labels = np.array([numbers.get(name, -1) for name in own])[labels]
    if (matched < 0).any():
        name = own[labels[matched < 0][0]]
        raise InvalidDataError(
            f"{table.file}: has images of {abbreviate(name)}, a class that {named.file} does not "
            "name."
        )
    return matched


def _number_writers(tables: Sequence[_Table]) -> list[Labels | None]:
    """Return the writers, numbered consistently in all files; None for files without writers."""
    known = {table.file: table.writers for table in tables if table.writers is not None}
    numbered = _number_values(known, "writers")[1] if known else {}
    return [numbered.get(table.file) for table in tables]


def _number_values(values: dict[Path, Values], what: str) -> tuple[Values, dict[Path, Labels]]:
    """Return the values that occur in any file, sorted, and their numbers for each file."""
    if len({own.dtype for own in values.values()}) > 1:
        names = ", ".join(map(str, values))
        raise InvalidDataError(f"{names}: {what} must all be integers or all be text.")
    known = np.unique(np.concatenate(list(values.values())))
    return known, {file: np.searchsorted(known, own) for file, own in values.items()}
