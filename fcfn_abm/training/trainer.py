"""Federated training with the epsilons that nodes report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp import Calibration, Relation, multiplier_for_releases, spent_epsilon
from fcfn_abm.errors import InvalidDataError, MissingExtraError, RunFailedError
from fcfn_abm.rng import stream
from fcfn_abm.training.aggregate import Aggregation
from fcfn_abm.training.datasets import ImageData
from fcfn_abm.training.nets import Net, initialise
from fcfn_abm.training.partition import Rows
from fcfn_abm.training.placements import LocalSteps, Placement

if TYPE_CHECKING:
    from torch import Tensor

type Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained, how, and under which privacy."""

    net: Net
    placement: Placement
    aggregation: Aggregation
    rounds: int
    steps: LocalSteps
    delta: float
    calibration: Calibration
    horizon: Literal["round", "training"]
    neighbours: Relation
    seed: int


@dataclass(frozen=True)
class NodePrivacy:
    """What each node's epsilon means in this training, arrays of shape (n_nodes,)."""

    sensitivity: Floats
    """L2 sensitivity of one release."""
    noise_multiplier: Floats
    """Noise standard deviation over sensitivity; infinite where a node stays out."""
    noise_std: Floats
    """Noise standard deviation on each parameter, in units of what is released."""
    epsilon_per_round: Floats
    """True epsilon of one round."""
    epsilon_total: Floats
    """True epsilon of all rounds, by exact composition."""
    delta: float
    """Delta of both."""


@dataclass(frozen=True)
class TrainingRound:
    """How good the net is after a round."""

    round: int
    """Number of the round; 0 is before training."""
    accuracy: float
    """Share of test images that are labelled rightly."""
    loss: float
    """Mean cross entropy on the test images."""
    signal_to_noise: float
    """Norm of the clean aggregate over norm of its noise; infinite without noise."""
    n_nodes: int
    """How many nodes trained."""


class FederatedTrainer:
    """Trains one net on the shards of many nodes.

    Parameters
    ----------
    data : ImageData
        The images.
    shards : sequence of ndarray of int
        Each node's rows of the training images.
    plan : TrainingPlan
        What is trained, how, and under which privacy.

    Raises
    ------
    MissingExtraError
        If torch is not installed.
    InvalidDataError
        If a node has no samples.
    """

    def __init__(self, data: ImageData, shards: Sequence[Rows], plan: TrainingPlan) -> None:
        _require_torch()
        import torch

        for node, rows in enumerate(shards):
            if len(rows) == 0:
                raise InvalidDataError(f"node {node} has no training samples.")
        self.data, self.plan, self.shards = data, plan, shards
        self._images = [torch.from_numpy(data.train_images[rows]) for rows in shards]
        self._labels = [torch.from_numpy(data.train_labels[rows]) for rows in shards]
        self._test_images = torch.from_numpy(data.test_images)
        self._test_labels = torch.from_numpy(data.test_labels)
        with torch.random.fork_rng(devices=[]):  # building layers draws; undo that
            net = plan.net.build(data.train_images.shape[1:], len(data.class_names))
        initialise(net, stream(plan.seed, "training", 0))
        self._net = net
        self._shapes = {name: p.shape for name, p in net.named_parameters()}
        self._start = torch.cat([p.detach().reshape(-1) for p in net.parameters()])

    @property
    def n_parameters(self) -> int:
        """How many parameters the net has."""
        return self._start.numel()

    @cached_property
    def n_samples(self) -> Floats:
        """How many samples each node has, shape (n_nodes,)."""
        return np.array([len(rows) for rows in self.shards], dtype=float)

    def privacy(self, epsilon: npt.ArrayLike) -> NodePrivacy:
        """Work out noise and privacy of each node.

        Parameters
        ----------
        epsilon : array_like of float, shape (n_nodes,)
            What each node agreed to: per round, or in total, as the plan's horizon says.

        Returns
        -------
        NodePrivacy
            With the true epsilons under exact composition.

        Raises
        ------
        InvalidPrivacyError
            If epsilon is negative or not finite.
        """
        plan, epsilon = self.plan, np.asarray(epsilon, dtype=float)
        per_round = plan.placement.releases(plan.steps.n_steps)
        total = per_round * plan.rounds
        covered = per_round if plan.horizon == "round" else total
        multiplier = multiplier_for_releases(epsilon, plan.delta, covered, plan.calibration)
        sensitivity = np.array(
            [
                plan.placement.sensitivity(plan.steps.clipping, plan.neighbours, len(rows)).l2
                for rows in self.shards
            ]
        )
        return NodePrivacy(
            sensitivity=sensitivity,
            noise_multiplier=multiplier,
            noise_std=multiplier * sensitivity,
            epsilon_per_round=spent_epsilon(multiplier, per_round, plan.delta),
            epsilon_total=spent_epsilon(multiplier, total, plan.delta),
            delta=plan.delta,
        )

    def train(
        self,
        epsilon: npt.ArrayLike,
        *,
        private: bool = True,
        on_round: Callable[[TrainingRound], None] | None = None,
    ) -> list[TrainingRound]:
        """Train from the start; nodes with a positive epsilon take part in every round.

        Parameters
        ----------
        epsilon : array_like of float, shape (n_nodes,)
            What each node agreed to.
        private : bool, default True
            False trains the same nodes, with the same clipping, without noise.
        on_round : callable, optional
            Called after each round: for progress.

        Returns
        -------
        list of TrainingRound
            Round 0, before training, and one entry a round. The same for equal arguments, to the
            last bit.

        Raises
        ------
        RunFailedError
            If a gradient or the loss is not finite; names the round, and the node.
        """
        results = []
        with one_thread():
            for result in self._rounds(np.asarray(epsilon, dtype=float), private=private):
                results.append(result)
                if on_round:
                    on_round(result)
        return results

    def _rounds(self, epsilon: Floats, *, private: bool) -> Iterator[TrainingRound]:
        plan = self.plan
        nodes = np.flatnonzero(epsilon > 0)
        std = self.privacy(epsilon).noise_std if private else np.zeros(epsilon.shape)
        weights = plan.aggregation.weights(self.n_samples[nodes], std[nodes])
        flat = self._start.clone()
        yield self._evaluate(flat, 0, math.inf, 0)
        for round_index in range(1, plan.rounds + 1):
            clean, noise = flat.new_zeros(flat.shape), flat.new_zeros(flat.shape)
            for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
                sent = plan.placement.train(
                    flat,
                    self._images[node],
                    self._labels[node],
                    plan.steps,
                    self._per_sample,
                    self._noise(float(std[node]), round_index, node) if private else None,
                )
                if not bool(sent.clean.isfinite().all()):
                    raise RunFailedError(
                        f"training broke down in round {round_index}: the update of node {node} "
                        "is not finite; a smaller training.learning_rate may help."
                    )
                clean += weight * sent.clean
                noise += weight * sent.noise
            flat = flat + clean + noise
            size = float(noise.norm())
            ratio = float(clean.norm()) / size if size > 0 else math.inf
            yield self._evaluate(flat, round_index, ratio, len(nodes))

    def _noise(self, std: float, round_index: int, node: int) -> Tensor:
        from fcfn_abm.dp.noise import node_noise

        releases = self.plan.placement.releases(self.plan.steps.n_steps)
        size = releases * self.n_parameters
        return node_noise(size, std, self.plan.seed, round_index, node).view(releases, -1)

    def _evaluate(
        self, flat: Tensor, round_index: int, ratio: float, n_nodes: int
    ) -> TrainingRound:
        import torch
        from torch.func import functional_call
        from torch.nn.functional import cross_entropy

        with torch.no_grad():
            logits = functional_call(self._net, self._named(flat), (self._test_images,))
            loss = float(cross_entropy(logits, self._test_labels))
            right = float((logits.argmax(1) == self._test_labels).double().mean())
        if not math.isfinite(loss):
            raise RunFailedError(
                f"training broke down in round {round_index}: the loss is not finite; "
                "a smaller training.learning_rate may help."
            )
        return TrainingRound(round_index, right, loss, ratio, n_nodes)

    @cached_property
    def _per_sample(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Gradients of the loss at flat parameters, one row a sample."""
        from torch.func import functional_call, grad, vmap
        from torch.nn.functional import cross_entropy

        def loss(flat: Tensor, image: Tensor, label: Tensor) -> Tensor:
            logits = functional_call(self._net, self._named(flat), (image[None],))
            return cross_entropy(logits, label[None])

        gradients: Any = vmap(grad(loss), in_dims=(None, 0, 0))
        return lambda flat, images, labels: gradients(flat, images, labels)

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        """Return views of a flat vector, by the names of the net's parameters."""
        named, start = {}, 0
        for name, shape in self._shapes.items():
            named[name] = flat[start : start + shape.numel()].view(shape)
            start += shape.numel()
        return named


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: small nets are faster so, and sums do not depend on the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "Training needs torch, which is not installed: pip install 'fcfn-abm[train]'; "
            "or leave training out with --set training.enabled=false."
        ) from None
