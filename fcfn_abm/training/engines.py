"""Who does the work of a round: nodes one after another, or whole groups at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from fcfn_abm.errors import InvalidDataError
from fcfn_abm.training.gradients import NetGradients
from fcfn_abm.training.placements import Upload
from fcfn_abm.training.plan import TrainingPlan
from fcfn_abm.training.sums import RoundWork, Sums, split_into_blocks
from fcfn_abm.training.workers import map_in_order, use_one_thread

if TYPE_CHECKING:
    from torch import Tensor

type EngineName = Literal["auto", "serial", "stacked"]
type Device = Literal["auto", "cpu", "cuda"]

EVALUATION_BATCH = 250
"""Test images that are evaluated together: more take memory, and on processors no less time."""


class Engine(Protocol):
    """Trains the nodes of a round, and evaluates the net."""

    device: str
    """Where the parameters that it takes and returns are."""
    shares: ClassVar[bool] = False
    """Whether several trainings may use it at the same time, each in a thread of its own."""

    def configure_torch(self) -> AbstractContextManager[object]:
        """Return a context for a whole training: how torch is to compute."""
        ...

    def train_round(self, work: RoundWork) -> Sums:
        """Let nodes train, and add up their uploads.

        Raises
        ------
        RunFailedError
            If an update is not finite; names the round, and the first such node.
        """
        ...

    def evaluate(self, flat: Tensor) -> tuple[float, int]:
        """Return the mean loss on the test images, and how many are classified correctly."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what the record says of it."""
        ...


class Serial(Engine):
    """Nodes one after another, on flat vectors: the fastest on processors.

    Parameters
    ----------
    gradients : sequence of NetGradients
        As many nodes train at once, in threads; sums do not depend on how many.
    train_node : callable
        Trains one node: the round's work, node, standard deviation of its noise (None for none),
        and gradients, to its upload.
    test_images, test_labels : Tensor
        What the net is evaluated on.
    """

    device = "cpu"

    def __init__(
        self,
        gradients: Sequence[NetGradients],
        train_node: Callable[[RoundWork, int, float | None, NetGradients], Upload],
        test_images: Tensor,
        test_labels: Tensor,
    ) -> None:
        self._gradients, self._train_node = gradients, train_node
        self._test_images, self._test_labels = test_images, test_labels

    def configure_torch(self) -> AbstractContextManager[object]:
        """Let torch use one thread."""
        return use_one_thread()

    def train_round(self, work: RoundWork) -> Sums:
        """Let nodes train, and add up their uploads, block by block."""

        def train(node: int, gradients: NetGradients) -> Upload:
            std = None if work.noise_std is None else float(work.noise_std[node])
            return self._train_node(work, node, std, gradients)

        sums = Sums.zeros(work.flat, has_noise=work.noise_std is not None)
        uploads = map_in_order(train, work.nodes.tolist(), self._gradients)
        for block in split_into_blocks(work):
            sums.merge(block.add_up(uploads, work.flat, work.round_index))
        return sums

    def evaluate(self, flat: Tensor) -> tuple[float, int]:
        """Return the mean loss on the test images, and how many are classified correctly."""

        def evaluate_part(start: int, gradients: NetGradients) -> tuple[float, int]:
            part = slice(start, start + EVALUATION_BATCH)
            return gradients.evaluate(flat, self._test_images[part], self._test_labels[part])

        n_test = len(self._test_labels)
        starts = range(0, n_test, EVALUATION_BATCH)
        return add_up_evaluations(map_in_order(evaluate_part, starts, self._gradients), n_test)

    def facts(self) -> dict[str, Any]:
        """Return what the record says of it."""
        return {"engine": "serial", "device": "cpu"}


def add_up_evaluations(parts: Iterable[tuple[float, int]], n_test: int) -> tuple[float, int]:
    """Return the mean loss, and how many are right, of sums over parts of the test images."""
    loss, n_correct = 0.0, 0
    for part_loss, part_correct in parts:
        loss += part_loss / n_test
        n_correct += part_correct
    return loss, n_correct


def select_engine(
    engine: EngineName, device: Device, plan: TrainingPlan, *, with_formulas: bool = True
) -> tuple[Literal["serial", "stacked"], Literal["cpu", "cuda"]]:
    """Select the engine that trains, and its device, for a net ``with_formulas`` or without.

    "auto" takes a CUDA device where there is one and the plan allows, and there the
    stacked engine; elsewhere the serial one.

    Raises
    ------
    InvalidDataError
        If engine, device and plan do not go together, or there is no such device.
    """
    import torch

    needs = ""
    if plan.secure_noise:
        needs = "privacy.secure_noise = true"
    elif plan.adaptive_clipping:
        needs = "[privacy.adaptive_clipping]"
    elif plan.precision == "bf16":
        needs = 'training.precision = "bf16"'
    elif not with_formulas:
        needs = "training.net, with layers whose gradients have no formula,"
    if device == "auto":
        free = engine != "serial" and not needs
        device = "cuda" if free and torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise InvalidDataError(
            'training.device = "cuda", but torch finds no CUDA device here; "auto" takes one where '
            "there is one."
        )
    if engine == "auto":
        engine = "stacked" if device == "cuda" else "serial"
    if engine == "serial" and device == "cuda":
        raise InvalidDataError(
            'training.engine = "serial" works on the processor alone; training.device = "cuda" '
            'takes "stacked".'
        )
    if engine == "stacked" and needs:
        raise InvalidDataError(
            f"{needs} is for the serial engine on the processor; training.engine and "
            'training.device choose it when both are "auto".'
        )
    return engine, device
