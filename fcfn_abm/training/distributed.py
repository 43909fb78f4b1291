"""Training of a round on many workers: blocks of nodes are distributed, and their sums added.

Any workers can be used; :mod:`fcfn_abm.process.cluster` provides those of Dask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fcfn_abm.training.draws import Draws
from fcfn_abm.training.engines import EVALUATION_BATCH, Engine, add_up_evaluations
from fcfn_abm.training.gradients import NetGradients
from fcfn_abm.training.local_steps import LocalSteps
from fcfn_abm.training.local_training import LocalTraining, build_net
from fcfn_abm.training.partition import Rows
from fcfn_abm.training.placements import Upload
from fcfn_abm.training.plan import TrainingPlan
from fcfn_abm.training.sums import (
    Block,
    RoundWork,
    Sums,
    count_block_nodes,
    split_into_blocks,
)
from fcfn_abm.training.workers import use_one_thread

if TYPE_CHECKING:
    from torch import Tensor

type Floats32 = npt.NDArray[np.float32]


class Handle(Protocol):
    """Reference to a value stored on workers, for use in arguments of computations."""


@runtime_checkable
class BlockWorkers(Protocol):
    """Workers that store values and compute with them."""

    def place(self, value: object) -> Handle:
        """Store a value on workers, for the lifetime of its handle."""
        ...

    def compute[R](
        self, function: Callable[..., R], calls: Sequence[tuple[object, ...]]
    ) -> Iterator[R]:
        """Yield the results of a function's calls, in order, even if workers die.

        Handles among the arguments are replaced by their values.
        """
        ...

    def count(self) -> int:
        """Return the current number of workers."""
        ...


class NetOfNodes:
    """The shared data of a training's blocks, stored on each worker.

    Parameters
    ----------
    plan : TrainingPlan
        Plan of the training.
    n_samples : ndarray of int, shape (n_nodes,)
        Samples of each node of the market.
    shape : tuple of int
        Channels, height and width of an image.
    n_classes : int
        Number of classes.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        n_samples: npt.NDArray[np.int64],
        shape: tuple[int, int, int],
        n_classes: int,
    ) -> None:
        self._given = plan, n_samples, shape, n_classes
        self._idle: SimpleQueue[NetGradients] = SimpleQueue()

    def __reduce__(self) -> tuple[Any, ...]:
        """Omit what each process builds itself."""
        return type(self), self._given

    @contextmanager
    def borrow(self) -> Iterator[NetGradients]:
        """Borrow a net for exclusive use, with torch on one thread."""
        plan, _, shape, n_classes = self._given
        with use_one_thread():
            try:
                gradients = self._idle.get_nowait()
            except Empty:
                gradients = NetGradients(build_net(plan, shape, n_classes), plan.precision)
            try:
                yield gradients
            finally:
                self._idle.put(gradients)

    @cached_property
    def training(self) -> LocalTraining:
        """Local training of the nodes."""
        plan, n_samples = self._given[:2]
        releases = plan.plan_releases(n_samples)
        with self.borrow() as gradients:
            n_parameters = gradients.flat.numel()
        return LocalTraining(plan, releases, Draws(plan, releases, n_parameters))


class Samples:
    """Images and labels stored on a worker, and their nodes.

    Parameters
    ----------
    images, labels : ndarray
        Images and labels.
    shards : dict of int to ndarray of int
        Rows of each node; empty for test images.
    """

    def __init__(
        self,
        images: Floats32,
        labels: npt.NDArray[np.int64],
        shards: dict[int, npt.NDArray[np.intp]],
    ) -> None:
        self._given = images, labels, shards
        self.shards = shards

    def __reduce__(self) -> tuple[Any, ...]:
        """Omit the tensors."""
        return type(self), self._given

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Images, channels last in memory, and labels."""
        import torch

        images, labels = (torch.from_numpy(_make_writable(array)) for array in self._given[:2])
        return images.contiguous(memory_format=torch.channels_last), labels


class Distributed(Engine):
    """Engine for blocks of nodes on many workers, with the same results as the serial engine.

    Parameters
    ----------
    workers : BlockWorkers
        The workers.
    plan : TrainingPlan
        Plan of the training.
    images, labels : Tensor
        The training images.
    shards : sequence of ndarray of int
        Rows of each node.
    test_images, test_labels : Tensor
        Test set.
    n_classes : int
        Number of classes.
    """

    device = "cpu"
    shares = False  # a block once waited for minutes when workers were killed at short intervals

    def __init__(
        self,
        workers: BlockWorkers,
        plan: TrainingPlan,
        images: Tensor,
        labels: Tensor,
        shards: Sequence[Rows],
        test_images: Tensor,
        test_labels: Tensor,
        n_classes: int,
    ) -> None:
        import torch

        self._workers = workers
        n_samples = np.array([len(rows) for rows in shards], dtype=np.int64)
        _, channels, height, width = images.shape
        net = NetOfNodes(plan, n_samples, (channels, height, width), n_classes)
        self._net = workers.place(net)
        size = count_block_nodes(len(shards))
        self._blocks = [
            workers.place(_take_samples(images, labels, first, shards[first : first + size]))
            for first in range(0, len(shards), size)
        ]
        self._tests = [
            workers.place(Samples(part_images.numpy(), part_labels.numpy(), {}))
            for part_images, part_labels in zip(
                torch.split(test_images, EVALUATION_BATCH),
                torch.split(test_labels, EVALUATION_BATCH),
                strict=True,
            )
        ]
        self._n_test = len(test_labels)
        self._n_rounds = self._sent = self._received = 0
        self._counts = set[int]()
        self._lock = Lock()

    def configure_torch(self) -> AbstractContextManager[object]:
        """Let torch use one thread."""
        return use_one_thread()

    def train_round(self, work: RoundWork) -> Sums:
        """Train nodes on the workers, and add the sums of their blocks."""
        sums = Sums.zeros(work.flat, has_noise=work.noise_std is not None)
        blocks = list(split_into_blocks(work))
        if not blocks:
            return sums
        flat = self._workers.place(work.flat.numpy())
        calls = [
            (self._net, self._blocks[block.index], flat, block, work.round_index, work.steps)
            for block in blocks
        ]
        n_workers = self._workers.count()
        received = 0
        for found in self._workers.compute(train_block, calls):
            received += _count_bytes(found)
            sums.merge(_unpack(found))
        with self._lock:  # of several trainings
            self._counts.add(n_workers)
            self._n_rounds += 1
            self._sent += work.flat.nbytes * n_workers + sum(map(_count_bytes, blocks))
            self._received += received
        return sums

    def evaluate(self, flat: Tensor) -> tuple[float, int]:
        """Return the mean loss on the test images, and how many are classified correctly."""
        placed = self._workers.place(flat.numpy())
        calls = [(self._net, tests, placed) for tests in self._tests]
        return add_up_evaluations(self._workers.compute(evaluate_part, calls), self._n_test)

    def facts(self) -> dict[str, Any]:
        """Return the facts for the record."""
        rounds = max(self._n_rounds, 1)
        return {
            "engine": "serial",
            "device": "cpu",
            "cluster": {
                "n_workers": [min(self._counts, default=0), max(self._counts, default=0)],
                "n_blocks": len(self._blocks),
                "bytes_sent_per_round": round(self._sent / rounds),
                "bytes_received_per_round": round(self._received / rounds),
            },
        }


type _Packed = tuple[Floats32, Floats32 | None, float, float, list[int]]


def train_block(
    net: NetOfNodes,
    samples: Samples,
    flat: Floats32,
    block: Block,
    round_index: int,
    steps: LocalSteps,
) -> _Packed:
    """Train the nodes of a block on a worker, and return the sums of their uploads."""
    import torch

    parameters, training = torch.from_numpy(_make_writable(flat)), net.training
    stds: Iterable[float | None] = (
        [None] * block.nodes.size if block.noise_std is None else block.noise_std.tolist()
    )
    with net.borrow() as gradients:

        def train(node: int, std: float | None) -> Upload:
            own = samples.shards[node]
            return training.train(
                parameters, node, round_index, samples.tensors, own, steps, std, gradients
            )

        uploads = map(train, block.nodes.tolist(), stds)
        sums = block.add_up(uploads, parameters, round_index)
    clean = None if sums.clean is sums.update else sums.clean.numpy()
    return sums.update.numpy(), clean, sums.passed, sums.within, sums.flagged


def evaluate_part(net: NetOfNodes, tests: Samples, flat: Floats32) -> tuple[float, int]:
    """Evaluate a net on a worker, on its test images."""
    import torch

    with net.borrow() as gradients:
        return gradients.evaluate(torch.from_numpy(_make_writable(flat)), *tests.tensors)


def _unpack(packed: _Packed) -> Sums:
    import torch

    update, clean, passed, within, flagged = packed
    total = torch.from_numpy(_make_writable(update))
    return Sums(
        total,
        total if clean is None else torch.from_numpy(_make_writable(clean)),
        passed,
        flagged,
        within,
    )


def _take_samples(images: Tensor, labels: Tensor, first: int, shards: Sequence[Rows]) -> Samples:
    """Return the samples of consecutive nodes, starting at a row of the market."""
    rows = np.concatenate([np.asarray(own) for own in shards])
    ends = np.cumsum([len(own) for own in shards])
    places = {
        first + number: np.arange(end - len(own), end)
        for number, (own, end) in enumerate(zip(shards, ends.tolist(), strict=True))
    }
    return Samples(images[rows].contiguous().numpy(), labels[rows].numpy(), places)


def _make_writable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a writable array; arrays from a network are read-only."""
    return array if array.flags.writeable else array.copy()


def _count_bytes(value: Block | _Packed) -> int:
    """Return the bytes of the arrays in a message; the rest takes some hundred bytes."""
    parts = vars(value).values() if isinstance(value, Block) else value
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))
