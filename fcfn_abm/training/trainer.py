"""Federated training with the epsilons that nodes report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp import (
    Calibration,
    Ledger,
    Relation,
    central_multipliers,
    multiplier_for_releases,
    spent_epsilon,
)
from fcfn_abm.dp.check import longest_upload
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
    secure_noise: bool = False
    """Whether noise comes from the operating system, on a grid that releases are rounded to."""
    false_alarm: float | None = None
    """Chance that the server's check ever flags an honest node, at most; None for no check."""


@dataclass(frozen=True)
class NodePrivacy:
    """What each node's epsilon means in this training, arrays of shape (n_nodes,)."""

    sensitivity: Floats
    """L2 sensitivity of one release; with secure noise that of rounding is in it."""
    noise_multiplier: Floats
    """Noise standard deviation over sensitivity; infinite where a node stays out."""
    noise_std: Floats
    """Noise standard deviation on each parameter, in units of what is released."""
    epsilon_per_round: Floats
    """True epsilon of one round."""
    epsilon_total: Floats
    """True epsilon of all rounds, by composition: exact, or closely above where data is sampled."""
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
    """How many nodes' updates were aggregated."""


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
        If torch is not installed; with secure noise, also if OpenDP is not.
    InvalidDataError
        If a node has no samples.
    """

    ledger: Ledger | None = None
    """What each node has released in the latest training, round by round; None without noise."""

    flagged_round: npt.NDArray[np.int64]
    """Round of the latest training in which the check flagged each node; 0 where it did not."""

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
        self.flagged_round = np.zeros(len(shards), dtype=np.int64)
        if plan.secure_noise:
            self.plan = replace(plan, steps=replace(plan.steps, grid=self._grid()))

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
            With the true epsilons.

        Raises
        ------
        InvalidPrivacyError
            If epsilon is negative or not finite.
        MissingExtraError
            With sampled data, if dp-accounting is not installed.
        """
        plan, epsilon = self.plan, np.asarray(epsilon, dtype=float)
        per_round = plan.placement.releases(plan.steps.n_steps)
        total = per_round * plan.rounds
        covered = per_round if plan.horizon == "round" else total
        sampling = (plan.placement.sampling_rate, plan.neighbours)
        multiplier = multiplier_for_releases(
            epsilon, plan.delta, covered, plan.calibration, *sampling
        )
        rounding = (plan.steps.grid or 0.0) * math.sqrt(self.n_parameters)
        sensitivity = self._sensitivity() + rounding
        return NodePrivacy(
            sensitivity=sensitivity,
            noise_multiplier=multiplier,
            noise_std=multiplier * sensitivity,
            epsilon_per_round=spent_epsilon(multiplier, per_round, plan.delta, *sampling),
            epsilon_total=spent_epsilon(multiplier, total, plan.delta, *sampling),
            delta=plan.delta,
        )

    def _sensitivity(self) -> Floats:
        """Return the L2 sensitivity of one release of each node, before any rounding."""
        plan = self.plan
        return np.array(
            [
                plan.placement.sensitivity(plan.steps.clipping, plan.neighbours, len(rows)).l2
                for rows in self.shards
            ]
        )

    def _grid(self) -> float:
        """Return the grid of secure noise, fine enough for the node with the least sensitivity."""
        from fcfn_abm.dp.noise import release_grid, require_secure

        require_secure()
        return release_grid(float(self._sensitivity().min()), self.n_parameters)

    def train(
        self,
        epsilon: npt.ArrayLike,
        *,
        misreport: npt.ArrayLike = 1.0,
        private: bool = True,
        on_round: Callable[[TrainingRound], None] | None = None,
    ) -> list[TrainingRound]:
        """Train from the start; nodes with a positive epsilon take part in every round.

        With noise :attr:`ledger` starts afresh, and when ``on_round`` is called it holds the round:
        what nodes claim, by their reports. With a check a node whose upload holds more noise than
        it reported is flagged: that upload is not aggregated, and the node takes no further part.

        Parameters
        ----------
        epsilon : array_like of float, shape (n_nodes,)
            What each node agreed to.
        misreport : array_like of float, shape (n_nodes,), default 1
            Reported over spent epsilon: a node with more than one injects the noise of less.
        private : bool, default True
            False trains the same nodes, with the same clipping, without noise.
        on_round : callable, optional
            Called after each round: for progress.

        Returns
        -------
        list of TrainingRound
            Round 0, before training, and one entry a round. The same for equal arguments, to the
            last bit, unless noise is secure.

        Raises
        ------
        RunFailedError
            If a gradient or the loss is not finite; names the round, and the node.
        """
        results = []
        with one_thread():
            reported = np.asarray(epsilon, dtype=float)
            factors = np.broadcast_to(np.asarray(misreport, dtype=float), reported.shape)
            for result in self._rounds(reported, factors, private=private):
                results.append(result)
                if on_round:
                    on_round(result)
        return results

    def _rounds(
        self, epsilon: Floats, misreport: Floats, *, private: bool
    ) -> Iterator[TrainingRound]:
        plan = self.plan
        nodes = np.flatnonzero(epsilon > 0)
        privacy = self.privacy(epsilon) if private else None
        std = privacy.noise_std if privacy else np.zeros(epsilon.shape)
        lies = private and (misreport != 1).any()
        true_std = self.privacy(epsilon / misreport).noise_std if lies else std
        longest = self._longest(std) if private else np.full(epsilon.shape, np.inf)
        self.flagged_round = np.zeros(epsilon.shape, dtype=np.int64)
        self.ledger = self._new_ledger() if private else None
        flat = self._start.clone()
        yield self._evaluate(flat, 0, math.inf, 0)
        for round_index in range(1, plan.rounds + 1):
            weights = np.zeros(0)  # all may have been flagged
            if nodes.size:
                weights = plan.aggregation.weights(self.n_samples[nodes], std[nodes])
            update, clean = flat.new_zeros(flat.shape), flat.new_zeros(flat.shape)
            passed = 0.0
            for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
                sent = plan.placement.train(
                    flat,
                    self._images[node],
                    self._labels[node],
                    plan.steps,
                    self._per_sample,
                    self._noise(float(true_std[node]), round_index, node) if private else None,
                    self._sampling(round_index, node),
                )
                if not bool(sent.clean.isfinite().all()):
                    raise RunFailedError(
                        f"training broke down in round {round_index}: the update of node {node} "
                        "is not finite; a smaller training.learning_rate may help."
                    )
                if float(sent.upload.norm()) > longest[node]:
                    self.flagged_round[node] = round_index
                    continue
                passed += weight
                update += weight * sent.upload
                clean += weight * sent.clean
            if self.ledger and privacy:
                self._enter(self.ledger, nodes, weights, privacy)
            trusted = nodes[self.flagged_round[nodes] == 0]
            if 0 < trusted.size < nodes.size:  # the weights of those that passed add up to one
                update, clean = update / passed, clean / passed
            nodes = trusted
            flat = flat + update
            size = float((update - clean).norm())
            ratio = float(clean.norm()) / size if size > 0 else math.inf
            yield self._evaluate(flat, round_index, ratio, len(nodes))

    def _longest(self, noise_std: Floats) -> Floats:
        """Return how long an upload of each node may be before the check flags it."""
        plan = self.plan
        if plan.false_alarm is None:
            return np.full(noise_std.shape, np.inf)
        return longest_upload(
            self.n_parameters,
            noise_std * plan.placement.spread(plan.steps),
            plan.placement.reach(plan.steps),
            plan.false_alarm / plan.rounds,
            plan.placement.releases(plan.steps.n_steps),
        )

    def _new_ledger(self) -> Ledger:
        """Return a ledger in which nothing is spent."""
        plan = self.plan
        return Ledger(len(self.shards), plan.placement.sampling_rate, plan.neighbours)

    def _enter(
        self, ledger: Ledger, nodes: npt.NDArray[np.int64], weights: Floats, privacy: NodePrivacy
    ) -> None:
        """Enter what some nodes have released in a round, as themselves and as the sum shows it."""
        n_releases = self.plan.placement.releases(self.plan.steps.n_steps)
        # of several releases nothing beyond the local view is proven, and who checks each upload
        # has more than their sum
        central = None
        if n_releases == 1 and self.plan.false_alarm is None:
            central = central_multipliers(
                weights, privacy.noise_std[nodes], privacy.sensitivity[nodes]
            )
        ledger.spend(nodes, privacy.noise_multiplier[nodes], n_releases, central)

    def _noise(self, std: float, round_index: int, node: int) -> Tensor:
        from fcfn_abm.dp.noise import node_noise, secure_noise

        releases = self.plan.placement.releases(self.plan.steps.n_steps)
        size, grid = releases * self.n_parameters, self.plan.steps.grid
        if grid is not None:
            return secure_noise(size, std, grid).view(releases, -1)
        return node_noise(size, std, self.plan.seed, round_index, node).view(releases, -1)

    def _sampling(self, round_index: int, node: int) -> np.random.Generator:
        """Return what draws samples: who knew the seed of secure noise would know who took part."""
        if self.plan.secure_noise:
            return np.random.default_rng()
        return stream(self.plan.seed, "training", 1, round_index, node)

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
