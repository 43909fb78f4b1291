"""Who does the work of a round: nodes one after another, or whole groups at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidDataError
from fcfn_abm.training.gradients import NetGradients
from fcfn_abm.training.placements import Sent
from fcfn_abm.training.plan import TrainingPlan
from fcfn_abm.training.sums import Sums, require_finite
from fcfn_abm.training.workers import in_order, one_thread

if TYPE_CHECKING:
    from torch import Tensor

type Floats = npt.NDArray[np.float64]
type EngineName = Literal["auto", "serial", "stacked"]
type Device = Literal["auto", "cpu", "cuda"]

TEST_BATCH = 250
"""Test images that are looked at together: more take memory, and on processors no less time."""


@dataclass(frozen=True)
class RoundWork:
    """What the nodes of a round have to do."""

    parameters: Tensor
    """The round's parameters, shape (n_parameters,)."""
    nodes: npt.NDArray[np.int64]
    """Who trains, in ascending order, shape (n,)."""
    weights: Floats
    """What each of them counts in the sum, shape (n,)."""
    noise_std: Floats | None
    """Standard deviation of each node's noise, shape (n_nodes,); None for none."""
    max_upload_norm: Floats
    """L2 norm above which the check flags an upload, shape (n_nodes,)."""
    round_index: int
    """Number of the round, whose draws are used."""


class Engine(Protocol):
    """Trains the nodes of a round, and tests the net."""

    device: str
    """Where the parameters that it takes and gives are."""

    def at_work(self) -> AbstractContextManager[object]:
        """Return a context for a whole training: how torch is to compute."""
        ...

    def sums(self, work: RoundWork) -> Sums:
        """Let nodes train, and add up what they send.

        Raises
        ------
        RunFailedError
            If an update is not finite; names the round, and the first such node.
        """
        ...

    def evaluate(self, flat: Tensor) -> tuple[float, int]:
        """Return the mean loss on the test images, and how many are labelled rightly."""
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
    send : callable
        Trains one node.
    test_images, test_labels : Tensor
        What the net is tested on.
    """

    device = "cpu"

    def __init__(
        self,
        gradients: Sequence[NetGradients],
        send: Callable[[Tensor, int, int, float | None, NetGradients], Sent],
        test_images: Tensor,
        test_labels: Tensor,
    ) -> None:
        self._gradients, self._send = gradients, send
        self._test_images, self._test_labels = test_images, test_labels

    def at_work(self) -> AbstractContextManager[object]:
        """Let torch use one thread."""
        return one_thread()

    def sums(self, work: RoundWork) -> Sums:
        """Let nodes train, and add up what they send, in the order of nodes."""

        def train(node: int, gradients: NetGradients) -> Sent:
            std = None if work.noise_std is None else float(work.noise_std[node])
            return self._send(work.parameters, node, work.round_index, std, gradients)

        sums = Sums.none(work.parameters, noisy=work.noise_std is not None)
        nodes = work.nodes.tolist()
        arriving = in_order(train, nodes, self._gradients)
        for node, weight, sent in zip(nodes, work.weights.tolist(), arriving, strict=True):
            require_finite(sent, node, work.round_index)
            sums.add(node, weight, sent, float(work.max_upload_norm[node]))
        return sums

    def evaluate(self, flat: Tensor) -> tuple[float, int]:
        """Return the mean loss on the test images, and how many are labelled rightly."""
        import torch
        from torch.nn.functional import cross_entropy

        loss, right, n_test = 0.0, 0, len(self._test_labels)

        def evaluate(start: int, gradients: NetGradients) -> tuple[float, int]:
            labels = self._test_labels[start : start + TEST_BATCH]
            gradients.load(flat)
            with torch.no_grad():
                logits = gradients.net(self._test_images[start : start + TEST_BATCH])
            total = cross_entropy(logits, labels, reduction="sum")
            return float(total), int((logits.argmax(1) == labels).sum())

        for part_loss, part_right in in_order(
            evaluate, range(0, n_test, TEST_BATCH), self._gradients
        ):
            loss += part_loss / n_test
            right += part_right
        return loss, right

    def facts(self) -> dict[str, Any]:
        """Return what the record says of it."""
        return {"engine": "serial", "device": "cpu"}


def select_engine(
    engine: EngineName, device: Device, plan: TrainingPlan
) -> tuple[Literal["serial", "stacked"], Literal["cpu", "cuda"]]:
    """Select the engine that trains, and where.

    Left to choose, "auto" takes a CUDA device where there is one and the plan allows, and there the
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
    elif plan.precision == "bf16":
        needs = 'training.precision = "bf16"'
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
