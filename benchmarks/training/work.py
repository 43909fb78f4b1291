"""The work that all do, and how they take turns: shared by programs in different environments.

Needs torch and nothing else, so that it can be imported beside pfl or Flower.
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
    """Samples a node."""
    batch: int = 100
    epochs: int = 1
    """Local epochs."""
    rounds: int = 4
    """Rounds that there will be at most, the first of which warms up."""
    variant: str = ""
    """What distinguishes ways to do it; each program says which it knows."""

    @classmethod
    def from_command_line(cls) -> Work:
        """Read the work from the command line: one option a field."""
        parser = argparse.ArgumentParser()
        for field in fields(cls):
            parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
        return cls(**vars(parser.parse_args()))

    def command(self) -> list[str]:
        """Return the options from which :meth:`from_command_line` makes the same work."""
        return [f"--{field.name}={getattr(self, field.name)}" for field in fields(self)]

    @property
    def samples_a_round(self) -> int:
        """How many samples pass forward and back in a round."""
        return self.nodes * self.samples * self.epochs

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return random images (nodes * samples, 3, 32, 32) and labels, the same for everybody."""
        rng = np.random.default_rng(1)
        n = self.nodes * self.samples
        return rng.random((n, *SHAPE), dtype=np.float32), rng.integers(0, N_CLASSES, n)

    def shards(self, channels_last: bool = False) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return each node's images and labels as tensors: views of the data."""
        images, labels = map(torch.from_numpy, self.data())
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return list(zip(images.split(self.samples), labels.split(self.samples), strict=True))


def timed_cnn(channels_last: bool = False) -> nn.Sequential:
    """Return the net that all timings use, layer by layer; the driver checks that it is ours.

    It is "cifar-cnn" of fcfn_abm without its second dense layer (`TIMED`): the net that has been
    timed from the first version on.
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
    """Does one round whenever the driver writes a line, and tells how long it took.

    So programs in different environments alternate round by round, and who waits computes nothing.
    A program calls this once before its first round and once after each.
    """

    def __init__(self) -> None:
        torch.set_num_threads(1)
        # frameworks print; only what is said here reaches the driver
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._rounds = self._take()

    def __call__(self) -> None:
        """Report the round that ends, and wait until the next may start."""
        next(self._rounds, None)

    def __iter__(self) -> Iterator[None]:
        """Yield once a round, for programs that own their loop."""
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
