"""Data sets of labelled images."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from fcfn_abm.errors import InvalidDataError, MissingExtraError
from fcfn_abm.registry import Registry
from fcfn_abm.training.decode import Background
from fcfn_abm.training.parquet import Columns, has_parquet, parquet_source
from fcfn_abm.training.sources import (
    FOLDER_VARIABLE,
    Labels,
    Part,
    Source,
    data_folder,
    join_parts,
    require_one_kind,
)
from fcfn_abm.training.torchvision_files import cifar10_source, emnist_source

type Images = npt.NDArray[np.float32]

TRAIN_SHARE = 0.8  # the paper's 8:2 split


@dataclass(frozen=True)
class ImageData:
    """Labelled images, split for training and testing."""

    train_images: Images
    """Shape (n, channels, height, width), values from 0 to 1. Nets are fastest with channels last
    in memory; the trainer copies other layouts."""
    train_labels: Labels
    """Shape (n,)."""
    test_images: Images
    """Shape (m, channels, height, width), values from 0 to 1."""
    test_labels: Labels
    """Shape (m,)."""
    class_names: tuple[str, ...]
    """Class names by label."""
    label: str
    """Name of the data, for titles."""
    train_writers: Labels | None = None
    """Writer of each training image, shape (n,), if known."""


class Dataset(Protocol):
    """Loads images."""

    def load(self, rng: np.random.Generator) -> ImageData:
        """Return the images; ``rng`` draws the split if the data have none."""
        ...


DATASETS: Registry[Dataset] = Registry("data set")


@DATASETS.register("digits")
class Digits(Dataset):
    """1,797 real handwritten digits, 8 x 8, included in scikit-learn (no download)."""

    def load(self, rng: np.random.Generator) -> ImageData:
        """Return the digits, split 8:2 at random."""
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise MissingExtraError(
                "The data set 'digits' requires scikit-learn, which is not installed: "
                "pip install 'fcfn-abm[train]'."
            ) from None
        bunch = load_digits()
        images = (bunch.images[:, None] / 16.0).astype(np.float32)
        labels = bunch.target.astype(np.int64)
        order = rng.permutation(len(labels))
        train, test = np.split(order, [round(TRAIN_SHARE * len(labels))])
        return ImageData(
            images[train],
            labels[train],
            images[test],
            labels[test],
            class_names=tuple(str(name) for name in bunch.target_names),
            label="handwritten digits, 8 x 8 (quick start)",
        )


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(use_attribute_docstrings=True))
class Stored(Dataset):
    """Images on disk."""

    split: Literal["own", "paper"] = "own"
    """Whether to use the data's own test images, or all images split 8:2 at random as in the paper.
    Data without test images are always split at random."""
    n_train: Annotated[int, Field(ge=1)] | None = None
    """Number of training images to use, drawn at random; by default all."""
    n_test: Annotated[int, Field(ge=1)] | None = None
    """Number of test images to use, drawn at random; by default all."""

    @property
    @abstractmethod
    def title(self) -> str:
        """Name of the images."""

    @abstractmethod
    def source(self) -> Source:
        """Open the files.

        Raises
        ------
        InvalidDataError
            If they are missing, or cannot be read.
        """

    def load(self, rng: np.random.Generator) -> ImageData:
        """Return the images, decoding only those in use."""
        source = self.source()
        train, test = source.train, source.test
        if self.split == "paper" and test is not None:
            train, test = join_parts([train, test]), None
        if test is None:
            order = rng.permutation(train.labels.size)
            train_rows, test_rows = np.split(order, [round(TRAIN_SHARE * order.size)])
            test = train
        else:
            train_rows, test_rows = np.arange(train.labels.size), np.arange(test.labels.size)
        train_rows = _draw_rows(train_rows, self.n_train, "n_train", rng)
        test_rows = _draw_rows(test_rows, self.n_test, "n_test", rng)
        if not (train_rows.size and test_rows.size):
            raise InvalidDataError(f"{source.where}: too few images for training and test sets.")
        images, test_images = _scale(train, train_rows), _scale(test, test_rows)
        require_one_kind({train.where: images.shape[1:]} | {test.where: test_images.shape[1:]})
        notes = f" ({'; '.join(source.notes)})" if source.notes else ""
        return ImageData(
            images,
            train.labels[train_rows],
            test_images,
            test.labels[test_rows],
            class_names=source.class_names,
            label=f"{self.title}, {len(train_rows):,} training and {len(test_rows):,} test images"
            f"{notes}",
            train_writers=None if train.writers is None else train.writers[train_rows],
        )


def _draw_rows(rows: Labels, count: int | None, name: str, rng: np.random.Generator) -> Labels:
    if count is None or count == rows.size:
        return rows
    if count > rows.size:
        raise InvalidDataError(f"{name} = {count:,} exceeds the {rows.size:,} available images.")
    return rng.choice(rows, count, replace=False)


def _scale(part: Part, rows: Labels) -> Images:
    """Return images with values from 0 to 1, channels last in memory."""
    pixels = part.pixels(rows).transpose(0, 2, 3, 1)
    images = np.empty(pixels.shape, dtype=np.float32)
    np.divide(pixels, np.float32(np.iinfo(pixels.dtype).max), out=images)
    return images.transpose(0, 3, 1, 2)


def _open_stored(name: str, open_torchvision: Callable[[Path], Source]) -> Source:
    """Open a data set in the data folder: Parquet files, or torchvision's copy."""
    folder = data_folder()
    if has_parquet(folder / name):
        return parquet_source(folder / name)
    try:
        return open_torchvision(folder)
    except FileNotFoundError:
        raise InvalidDataError(
            f"The data set {name!r} is not in {folder}: download it with `fcfn data prepare "
            f"{name}`, or set {FOLDER_VARIABLE} to a folder with {name}/train.parquet and "
            f"{name}/test.parquet."
        ) from None


@DATASETS.register("cifar10")
class Cifar10(Stored):
    """60,000 colour photographs, 32 x 32, in ten classes (Krizhevsky 2009)."""

    @property
    def title(self) -> str:
        """Name of the images."""
        return "CIFAR-10"

    def source(self) -> Source:
        """Open the files."""
        return _open_stored("cifar10", cifar10_source)


@DATASETS.register("emnist")
class Emnist(Stored):
    """Handwritten characters, 28 x 28 (Cohen et al. 2017).

    In the data folder, Parquet files of "byclass" are in ``emnist``, those of other splits in
    ``emnist-balanced`` and so on.
    """

    part: Literal["byclass", "balanced", "letters", "digits"] = "byclass"
    """Split: 62 classes; 47 balanced classes; 26 letters; 10 digits."""

    @property
    def title(self) -> str:
        """Name of the images."""
        return f"EMNIST {self.part}"

    @property
    def folder(self) -> str:
        """Name of the folder of Parquet files."""
        return "emnist" if self.part == "byclass" else f"emnist-{self.part}"

    def source(self) -> Source:
        """Open the files."""
        return _open_stored(self.folder, partial(emnist_source, self.part))


@DATASETS.register("parquet")
class Parquet(Stored):
    """Any labelled images in Parquet files, encoded as PNG, JPEG, WebP, GIF, BMP or TIFF."""

    path: str
    """A file, or a folder with ``train.parquet`` (or ``train-00000-of-00003.parquet`` and so on,
    there or in ``data``) and test images named likewise with ``test`` or ``validation``."""
    image: str | None = None
    """Column of images; by default a common name: ``image``, ``img`` and so on."""
    label: str | None = None
    """Column of labels, integers or text; by default ``label``, ``fine_label``, ``character``..."""
    writer: str | None = None
    """Column of writers, integers or text; by default ``writer``, ``writer_id``..."""
    background: Background | None = None
    """Background of transparent pixels; by default they are rejected."""

    @property
    def title(self) -> str:
        """Name of the images."""
        return Path(self.path).name

    def source(self) -> Source:
        """Open the files."""
        columns = Columns(self.image, self.label, self.writer)
        return parquet_source(Path(os.path.expanduser(self.path)), columns, self.background)
