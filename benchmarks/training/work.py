"""The work of a round, and alternation of programs in different environments.

Needs only torch, so that it can be imported with pfl or Flower.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import nn

LEARNING_RATE, MOMENTUM = 0.1, 0.9
SHAPE, N_CLASSES = (3, 32, 32), 10


@dataclass(frozen=True)
class Work:
    """One round: every node trains the same net on its own samples."""

    nodes: int = 50
    samples: int = 100
    """Samples per node."""
    batch: int = 100
    epochs: int = 1
    """Local epochs."""
    rounds: int = 4
    """Maximum number of rounds; the first is a warm-up."""
    variant: str = ""
    """Variant of the program; each program lists its variants."""

    @classmethod
    def from_command_line(cls) -> Work:
        """Read the work from the command line: one option per field."""
        parser = argparse.ArgumentParser()
        for field in fields(cls):
            parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
        return cls(**vars(parser.parse_args()))

    def command(self) -> list[str]:
        """Return the options from which :meth:`from_command_line` creates the same work."""
        return [f"--{field.name}={getattr(self, field.name)}" for field in fields(self)]

    @property
    def samples_per_round(self) -> int:
        """Number of samples that pass forward and backward in a round."""
        return self.nodes * self.samples * self.epochs

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return random images (nodes * samples, 3, 32, 32) and labels, equal in all programs."""
        rng = np.random.default_rng(1)
        n = self.nodes * self.samples
        return rng.random((n, *SHAPE), dtype=np.float32), rng.integers(0, N_CLASSES, n)

    def shards(self, channels_last: bool = False) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return each node's images and labels as tensors: views of the data."""
        images, labels = map(torch.from_numpy, self.data())
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return list(zip(images.split(self.samples), labels.split(self.samples), strict=True))


def create_timed_cnn(channels_last: bool = False) -> nn.Sequential:
    """Return the net of all timings, layer by layer; the driver checks that it is ours.

    It is "cifar-cnn" of fcfn_abm without its second dense layer (`TIMED`), which has been timed
    since the first version.
    """
    net = nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 128),
        nn.ReLU(),
        nn.Linear(128, N_CLASSES),
    )
    return net.to(memory_format=torch.channels_last) if channels_last else net


TIMED = {"kind": "cifar-cnn", "options": {"second_hidden": 0}}
"""The same net, by its registered name and options."""


class Turns:
    """Runs one round for each line from the driver, and reports its duration.

    Programs in different environments so alternate by round; waiting ones compute nothing.
    A program calls this once before its first round and once after each.
    """

    def __init__(self) -> None:
        torch.set_num_threads(1)
        # frameworks print to stdout; only these messages reach the driver
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._rounds = self._take()

    def __call__(self) -> None:
        """Report the finished round, and wait for the next."""
        next(self._rounds, None)

    def __iter__(self) -> Iterator[None]:
        """Yield once per round, for programs with their own loop."""
        return self._rounds

    def _take(self) -> Iterator[None]:
        self._say("ready")
        for _ in sys.stdin:
            start = time.perf_counter()
            yield
            self._say(time.perf_counter() - start)

    def _say(self, message: object) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()
