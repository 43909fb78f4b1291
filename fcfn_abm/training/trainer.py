"""Federated training with the epsilons that nodes report."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal

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
from fcfn_abm.training.gradients import Gradients, NetGradients
from fcfn_abm.training.nets import Net, initialise
from fcfn_abm.training.partition import Rows
from fcfn_abm.training.placements import LocalSteps, Placement, Sent

if TYPE_CHECKING:
    from torch import Tensor

type Floats = npt.NDArray[np.float64]

_GROUP = 4  # nodes whose sum is taken together: the order of summation, whoever does it
_TESTED = 1000  # test images that are looked at together


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
    workers : int, default 1
        Threads that train nodes at once, each with a net of its own; results are the same to the
        last bit for any number.

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

    def __init__(
        self, data: ImageData, shards: Sequence[Rows], plan: TrainingPlan, workers: int = 1
    ) -> None:
        _require_torch()
        import torch

        for node, rows in enumerate(shards):
            if len(rows) == 0:
                raise InvalidDataError(f"node {node} has no training samples.")
        self.data, self.plan, self.shards = data, plan, shards
        # one copy of all samples, each node's side by side, channels last as processors like them
        order = np.concatenate(shards)
        self._images = _channels_last(data.train_images[order])
        self._labels = torch.from_numpy(data.train_labels[order])
        self._ends = np.cumsum([len(rows) for rows in shards]).tolist()
        self._test_images = _channels_last(data.test_images)
        self._test_labels = torch.from_numpy(data.test_labels)
        with torch.random.fork_rng(devices=[]):  # building layers draws; undo that
            net = plan.net.build(data.train_images.shape[1:], len(data.class_names))
        initialise(net, stream(plan.seed, "training", 0))
        nets = [deepcopy(net) for _ in range(workers)]
        self.gradients = [NetGradients(net) for net in nets]
        self._start = self.gradients[0].flat
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
        per_round = plan.placement.releases(plan.steps.epochs)
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
        return self._of_sizes(
            lambda n: plan.placement.sensitivity(plan.steps, plan.neighbours, n).l2
        )

    def _of_sizes(self, function: Callable[[int], float]) -> Floats:
        """Return what depends on a node's number of samples, of each node."""
        sizes, which = np.unique(self.n_samples, return_inverse=True)
        return np.array([function(int(size)) for size in sizes])[which]

    def samples(self, node: int) -> tuple[Tensor, Tensor]:
        """Return a node's images and labels."""
        rows = slice(self._ends[node] - len(self.shards[node]), self._ends[node])
        return self._images[rows], self._labels[rows]

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
            sums = self._sums(
                flat, nodes, weights, true_std if private else None, longest, round_index
            )
            update, clean, passed = sums.update, sums.clean, sums.passed
            self.flagged_round[sums.flagged] = round_index
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

    def send(
        self,
        flat: Tensor,
        node: int,
        round_index: int,
        std: float | None,
        gradients: Gradients,
        labels: Tensor | None = None,
    ) -> Sent:
        """Train a node for a round, and return what it sends.

        Parameters
        ----------
        flat : Tensor, shape (n_parameters,)
            The round's parameters.
        node, round_index : int
            Whose samples, and whose and when the draws.
        std : float or None
            Standard deviation of its noise; None for none.
        gradients : Gradients
            What it trains with.
        labels : Tensor, optional
            In place of its own.
        """
        images, own = self.samples(node)
        return self.plan.placement.train(
            flat,
            images,
            own if labels is None else labels,
            self.plan.steps,
            gradients,
            None if std is None else self._noise(std, round_index, node),
            self._sampling(round_index, node),
        )

    def _sums(
        self,
        flat: Tensor,
        nodes: npt.NDArray[np.int64],
        weights: Floats,
        std: Floats | None,
        longest: Floats,
        round_index: int,
    ) -> _Sums:
        """Let nodes train, some at once, and add up what they send, in an order of its own."""
        pairs = list(zip(nodes.tolist(), weights.tolist(), strict=True))
        idle: SimpleQueue[NetGradients] = SimpleQueue()
        for gradients in self.gradients:
            idle.put(gradients)

        def some(start: int) -> _Sums:
            gradients, sums = idle.get(), _Sums.none(flat)
            try:
                for node, weight in pairs[start : start + _GROUP]:
                    noise_std = None if std is None else float(std[node])
                    sent = self.send(flat, node, round_index, noise_std, gradients)
                    _require_finite(sent, node, round_index)
                    sums.add(node, weight, sent, float(longest[node]))
            finally:
                idle.put(gradients)
            return sums

        whole, starts = _Sums.none(flat), range(0, len(pairs), _GROUP)
        if len(self.gradients) == 1:
            for start in starts:
                whole.join(some(start))
            return whole
        pending: deque[Future[_Sums]] = deque()
        with ThreadPoolExecutor(len(self.gradients)) as threads:
            for start in starts:
                pending.append(threads.submit(some, start))
                if len(pending) > 2 * len(self.gradients):  # sums that wait take memory
                    whole.join(pending.popleft().result())
            while pending:
                whole.join(pending.popleft().result())
        return whole

    def _longest(self, noise_std: Floats) -> Floats:
        """Return how long an upload of each node may be before the check flags it."""
        plan = self.plan
        if plan.false_alarm is None:
            return np.full(noise_std.shape, np.inf)
        return longest_upload(
            self.n_parameters,
            noise_std * self._of_sizes(lambda n: plan.placement.spread(plan.steps, n)),
            self._of_sizes(lambda n: plan.placement.reach(plan.steps, n)),
            plan.false_alarm / plan.rounds,
            self._of_sizes(lambda n: plan.placement.draws(plan.steps, n)),
        )

    def _new_ledger(self) -> Ledger:
        """Return a ledger in which nothing is spent."""
        plan = self.plan
        return Ledger(len(self.shards), plan.placement.sampling_rate, plan.neighbours)

    def _enter(
        self, ledger: Ledger, nodes: npt.NDArray[np.int64], weights: Floats, privacy: NodePrivacy
    ) -> None:
        """Enter what some nodes have released in a round, as themselves and as the sum shows it."""
        n_releases = self.plan.placement.releases(self.plan.steps.epochs)
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

        draws = self.plan.placement.draws(self.plan.steps, len(self.shards[node]))
        size, grid = draws * self.n_parameters, self.plan.steps.grid
        if grid is not None:
            return secure_noise(size, std, grid).view(draws, -1)
        return node_noise(size, std, self.plan.seed, round_index, node).view(draws, -1)

    def _sampling(self, round_index: int, node: int) -> np.random.Generator:
        """Return what draws samples: who knew the seed of secure noise would know who took part."""
        if self.plan.secure_noise:
            return np.random.default_rng()
        return stream(self.plan.seed, "training", 1, round_index, node)

    def _evaluate(
        self, flat: Tensor, round_index: int, ratio: float, n_nodes: int
    ) -> TrainingRound:
        import torch
        from torch.nn.functional import cross_entropy

        gradients = self.gradients[0]
        gradients.load(flat)
        loss, right, n_test = 0.0, 0, len(self._test_labels)
        with torch.no_grad():
            for start in range(0, n_test, _TESTED):
                labels = self._test_labels[start : start + _TESTED]
                logits = gradients.net(self._test_images[start : start + _TESTED])
                loss += float(cross_entropy(logits, labels, reduction="sum")) / n_test
                right += int((logits.argmax(1) == labels).sum())
        if not math.isfinite(loss):
            raise RunFailedError(
                f"training broke down in round {round_index}: the loss is not finite; "
                "a smaller training.learning_rate may help."
            )
        return TrainingRound(round_index, right / n_test, loss, ratio, n_nodes)


@dataclass
class _Sums:
    """What some nodes send in a round, weighted and added up."""

    update: Tensor
    clean: Tensor
    passed: float
    """Weight of the nodes that were not flagged."""
    flagged: list[int]

    @classmethod
    def none(cls, flat: Tensor) -> _Sums:
        """Return the sums of nobody."""
        return cls(flat.new_zeros(flat.shape), flat.new_zeros(flat.shape), 0.0, [])

    def add(self, node: int, weight: float, sent: Sent, longest: float) -> None:
        """Add what a node sent, unless the check flags it."""
        if float(sent.upload.norm()) > longest:
            self.flagged.append(node)
            return
        self.update.add_(sent.upload, alpha=weight)
        self.clean.add_(sent.clean, alpha=weight)
        self.passed += weight

    def join(self, others: _Sums) -> None:
        """Add the sums of other nodes."""
        self.update += others.update
        self.clean += others.clean
        self.passed += others.passed
        self.flagged += others.flagged


def _require_finite(sent: Sent, node: int, round_index: int) -> None:
    if not bool(sent.clean.isfinite().all()):
        raise RunFailedError(
            f"training broke down in round {round_index}: the update of node {node} "
            "is not finite; a smaller training.learning_rate may help."
        )


def _channels_last(images: npt.NDArray[np.float32]) -> Tensor:
    import torch

    return torch.from_numpy(images).contiguous(memory_format=torch.channels_last)


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
