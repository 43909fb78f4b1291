"""Images to train on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import MissingExtraError
from fcfn_abm.registry import Registry

type Images = npt.NDArray[np.float32]
type Labels = npt.NDArray[np.int64]

TRAIN_SHARE = 0.8  # the paper's 8:2 split


@dataclass(frozen=True)
class ImageData:
    """Labelled images, split for training and testing."""

    train_images: Images
    """Shape (n, channels, height, width), values from 0 to 1."""
    train_labels: Labels
    """Shape (n,)."""
    test_images: Images
    """Shape (m, channels, height, width), values from 0 to 1."""
    test_labels: Labels
    """Shape (m,)."""
    class_names: tuple[str, ...]
    """One name a label."""
    label: str
    """What the images are, for titles."""


class Dataset(Protocol):
    """Loads images."""

    def load(self, rng: np.random.Generator) -> ImageData:
        """Return the images; ``rng`` draws the split where the data has none of its own."""
        ...


DATASETS: Registry[Dataset] = Registry("data set")


@DATASETS.register("digits")
class Digits(Dataset):
    """1,797 real handwritten digits, 8 x 8, that come with scikit-learn: no download."""

    def load(self, rng: np.random.Generator) -> ImageData:
        """Return the digits, split 8:2 at random."""
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise MissingExtraError(
                "The data set 'digits' comes with scikit-learn, which is not installed: "
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
