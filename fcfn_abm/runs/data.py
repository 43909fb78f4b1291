"""What data sets there are on this machine, and getting those that are not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fcfn_abm.errors import InvalidDataError, MissingExtraError, RunFailedError, UnknownNameError
from fcfn_abm.training import DATASETS
from fcfn_abm.training.sources import (
    FOLDER_VARIABLE,
    Source,
    cifar10_source,
    data_folder,
    emnist_source,
    stored,
)

KNOWN: dict[str, Callable[..., Source]] = {
    "cifar10": cifar10_source,
    "emnist": partial(emnist_source, "byclass"),
    **{
        f"emnist-{part}": partial(emnist_source, part) for part in ("balanced", "letters", "digits")
    },
}
"""Data sets by the names of their folders, and what opens torchvision's copies."""


def found(name: str) -> Source | None:
    """Return a data set if it is on this machine.

    Raises
    ------
    InvalidDataError
        If it is there and cannot be read.
    UnknownNameError
        If there is no data set of that name.
    """
    if name not in KNOWN:
        raise UnknownNameError("data set", name, KNOWN)
    if (data_folder() / name / "train.parquet").is_file():
        return stored(name, KNOWN[name])
    try:
        return KNOWN[name](data_folder())
    except FileNotFoundError:
        return None


def listing() -> list[list[str]]:
    """Return a row for each data set: name, sizes, classes, and where it lies or how to get it."""
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
            source = found(name)
        except (InvalidDataError, MissingExtraError) as error:
            rows.append([name, "-", "-", "-", str(error)])
            continue
        if source is None:
            rows.append([name, "-", "-", "-", f"missing; fcfn data prepare {name}"])
        else:
            rows.append([name, *_sizes(source), source.where])
    return rows


def prepare(name: str) -> str:
    """Get a data set, unless it is there, and check it.

    Parameters
    ----------
    name : str
        One of :data:`KNOWN`.

    Returns
    -------
    str
        A sentence on what there is.

    Raises
    ------
    UnknownNameError
        If there is no data set of that name.
    RunFailedError
        If it cannot be downloaded.
    """
    source = found(name) or _downloaded(name)
    last = source.train.labels[-1:] * 0 + source.train.labels.size - 1
    source.train.pixels(last)  # an image that can be decoded, at the far end
    n_train, n_test, n_classes = _sizes(source)
    return (
        f"{name} is ready in {source.where}: {n_train} training and {n_test} test images, "
        f"{n_classes} classes."
    )


def _downloaded(name: str) -> Source:
    folder = data_folder()
    try:
        return KNOWN[name](folder, download=True)
    except (OSError, RuntimeError, EOFError) as error:
        reason = str(getattr(error, "reason", error)).splitlines()[0].rstrip(".")
        raise RunFailedError(
            f"{name} could not be downloaded: {reason}. On a machine with a network run "
            f"`fcfn data prepare {name}` and copy {folder} here; or let {FOLDER_VARIABLE} name a "
            f"folder with {Path(name) / 'train.parquet'} and {Path(name) / 'test.parquet'}."
        ) from None


def _sizes(source: Source) -> list[str]:
    test = "-" if source.test is None else f"{source.test.labels.size:,}"
    return [f"{source.train.labels.size:,}", test, str(len(source.class_names))]
