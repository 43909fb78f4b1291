"""Federated training with the epsilons that nodes report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import astuple, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp import (
    Ledger,
    central_multipliers,
    multiplier_for_releases,
    spent_epsilon,
)
from fcfn_abm.dp.check import longest_upload
from fcfn_abm.errors import (
    InvalidDataError,
    InvalidPrivacyError,
    MissingExtraError,
    RunFailedError,
)
from fcfn_abm.rng import stream
from fcfn_abm.training.datasets import ImageData
from fcfn_abm.training.engines import Device, Engine, EngineName, Serial, chosen
from fcfn_abm.training.gradients import Gradients, NetGradients
from fcfn_abm.training.nets import initialise
from fcfn_abm.training.partition import Rows
from fcfn_abm.training.placements import Sent
from fcfn_abm.training.plan import NodePrivacy, TrainingPlan, TrainingRound
from fcfn_abm.training.stacked import Deal, Stacked
from fcfn_abm.training.sums import Sums

if TYPE_CHECKING:
    from torch import Tensor

type Floats = npt.NDArray[np.float64]

_MOST_NOISE = 1e30


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
        last bit for any number. With the stacked engine threads only draw noise.
    engine : {"auto", "serial", "stacked"}, default "auto"
        Whether nodes train one after another, on a processor, or whole groups of nodes at once, on
        stacked parameters; "auto" takes the former on a processor, and the latter on a CUDA device.
    device : {"auto", "cpu", "cuda"}, default "auto"
        Where; "auto" takes a CUDA device where there is one and the plan allows.

    Raises
    ------
    MissingExtraError
        If torch is not installed; with secure noise, also if OpenDP is not.
    InvalidDataError
        If a node has no samples; or engine, device and plan do not go together.
    """

    ledger: Ledger | None = None
    """What each node has released in the latest training, round by round; None without noise."""

    flagged_round: npt.NDArray[np.int64]
    """Round of the latest training in which the check flagged each node; 0 where it did not."""

    def __init__(
        self,
        data: ImageData,
        shards: Sequence[Rows],
        plan: TrainingPlan,
        workers: int = 1,
        engine: EngineName = "auto",
        device: Device = "auto",
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
        with torch.random.fork_rng(devices=[]):  # building layers draws; undo that
            net = plan.net.build(data.train_images.shape[1:], len(data.class_names))
        initialise(net, stream(plan.seed, "first-parameters"))
        name, place = chosen(engine, device, plan)
        nets = [deepcopy(net) for _ in range(workers if name == "serial" else 1)]
        self.gradients = [NetGradients(net, plan.precision) for net in nets]
        self._start = self.gradients[0].flat
        self._flat, self._results = self._start, list[TrainingRound]()
        self.flagged_round = np.zeros(len(shards), dtype=np.int64)
        if plan.secure_noise:
            self.plan = replace(plan, steps=replace(plan.steps, grid=self._grid()))
        tests = _channels_last(data.test_images), torch.from_numpy(data.test_labels)
        self.engine: Engine = Serial(self.gradients, self.send, *tests)
        if name == "stacked":
            sizes = self.n_samples.astype(np.int64)
            deal = Deal(self._images, self._labels, np.array(self._ends) - sizes, sizes)
            draws = self._noise, self._sampling
            self.engine = Stacked(plan, net, deal, *tests, *draws, place, workers)

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
        noisiest = np.where(np.isfinite(multiplier), multiplier, 0.0) * sensitivity
        if noisiest.max(initial=0.0) > _MOST_NOISE:
            node = int(np.argmax(noisiest))
            raise InvalidPrivacyError(
                f"epsilon = {epsilon[node]:.3g} of node {node} takes noise of {noisiest[node]:.3g} "
                "on each parameter, which is more than 32-bit numbers hold."
            )
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
        epsilon: npt.ArrayLike | Callable[[int], Floats],
        *,
        misreport: npt.ArrayLike = 1.0,
        private: bool = True,
        on_round: Callable[[TrainingRound], None] | None = None,
        resume: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> list[TrainingRound]:
        """Train from the start, or from where an earlier training stood.

        In a round those nodes take part whose epsilon is positive, and whom the plan's chances
        leave in. With noise :attr:`ledger` starts afresh, and when ``on_round`` is called it holds
        the round: what nodes claim, by their reports. With a check a node whose upload holds more
        noise than it reported is flagged: that upload is not aggregated, and the node takes no
        further part.

        Parameters
        ----------
        epsilon : array_like of float, shape (n_nodes,), or callable
            What each node agreed to; or what gives that for a round, asked once for each in order.
        misreport : array_like of float, shape (n_nodes,), default 1
            Reported over spent epsilon: a node with more than one injects the noise of less.
        private : bool, default True
            False trains the same nodes, with the same clipping, without noise.
        on_round : callable, optional
            Called after each round: for progress, and to keep :meth:`state`.
        resume : mapping, optional
            What :meth:`state` gave after some round of the same training; rounds before are not
            run, and ``on_round`` is not called for them.

        Returns
        -------
        list of TrainingRound
            Round 0, before training, and one entry a round. The same for equal arguments, to the
            last bit, unless noise is secure; also if it was resumed.

        Raises
        ------
        RunFailedError
            If a gradient or the loss is not finite; names the round, and the node.
        """
        fixed = None if callable(epsilon) else np.asarray(epsilon, dtype=float)
        reports = epsilon if callable(epsilon) else lambda _: fixed
        factors = np.broadcast_to(np.asarray(misreport, dtype=float), (len(self.shards),))
        self.ledger = self._new_ledger() if private else None
        self.flagged_round = np.zeros(len(self.shards), dtype=np.int64)
        self._flat, self._results = self._start.to(self.engine.device, copy=True), []
        if resume is not None:
            self._go_back_to(resume)
        with self.engine.at_work():
            for result in self._rounds(reports, factors, private=private):
                self._results.append(result)
                if on_round:
                    on_round(result)
        return self._results

    @property
    def results(self) -> list[TrainingRound]:
        """Rounds of the latest training, so far if it broke down."""
        return list(self._results)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return all that a training needs to go on after its latest round, as plain arrays."""
        ledger = self.ledger.state() if self.ledger else {}
        return {
            "flat": self._flat.to("cpu", copy=True).numpy(),
            "results": np.array([astuple(result) for result in self._results], dtype=float),
            "flagged_round": self.flagged_round.copy(),
            **{f"ledger_{name}": column for name, column in ledger.items()},
        }

    def _go_back_to(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        import torch

        self._flat = torch.tensor(state["flat"], device=self.engine.device)
        self._results = [
            TrainingRound(int(index), accuracy, loss, ratio, int(n_nodes))
            for index, accuracy, loss, ratio, n_nodes in state["results"].tolist()
        ]
        self.flagged_round = state["flagged_round"].copy()
        if self.ledger:
            columns = {
                name.removeprefix("ledger_"): column
                for name, column in state.items()
                if name.startswith("ledger_")
            }
            self.ledger = Ledger.from_state(
                columns, len(self.shards), self.ledger.sampling_rate, self.ledger.neighbours
            )

    def _rounds(
        self, reports: Callable[[int], Any], misreport: Floats, *, private: bool
    ) -> Iterator[TrainingRound]:
        plan = self.plan
        if not self._results:
            yield self._evaluate(self._flat, 0, math.inf, 0)
        for earlier in range(1, len(self._results)):
            reports(earlier)  # so that a market comes to where it was
        reported = np.zeros(0)
        for round_index in range(len(self._results), plan.rounds + 1):
            told = np.asarray(reports(round_index), dtype=float)
            if not np.array_equal(told, reported):
                reported = told
                privacy = self.privacy(reported) if private else None
                std = privacy.noise_std if privacy else np.zeros(reported.shape)
                lies = private and (misreport != 1).any()
                true_std = self.privacy(reported / misreport).noise_std if lies else std
                longest = self._longest(std) if private else np.full(reported.shape, np.inf)
            able = (reported > 0) & (self.flagged_round == 0)
            nodes, late = self._present(able, round_index)
            weights = np.zeros(0)  # nobody may be left
            if nodes.size:
                weights = plan.aggregation.weights(self.n_samples[nodes], std[nodes])
            sums = self._sums(
                self._flat, nodes, weights, true_std if private else None, longest, round_index
            )
            self.flagged_round[sums.flagged] = round_index
            if self.ledger and privacy:
                self._enter(self.ledger, nodes, weights, late, privacy)
            update, clean = sums.update, sums.clean
            if sums.flagged and sums.passed > 0:  # the weights of those that passed are to be one
                update, clean = update / sums.passed, clean / sums.passed
            self._flat = self._flat + update
            size = float((update - clean).norm())
            ratio = float(clean.norm()) / size if size > 0 else math.inf
            n_nodes = nodes.size - len(sums.flagged)
            yield self._evaluate(self._flat, round_index, ratio, n_nodes)

    def _present(
        self, able: npt.NDArray[np.bool_], round_index: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Draw whose updates arrive in a round, and whose arrive too late to be of use."""
        chances = self.plan.chances
        draws = stream(self.plan.seed, "attendance", round_index).random((3, able.size))
        sends = able & (draws[0] < chances.participation) & (draws[1] >= chances.dropping)
        late = sends & (draws[2] < chances.straggling)
        return np.flatnonzero(sends & ~late), np.flatnonzero(late)

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
    ) -> Sums:
        """Let nodes train, and add up what they send, in the order of nodes."""
        if std is not None and self.plan.noise_of == "sum":
            sums = self._sums(flat, nodes, weights, None, longest, round_index)
            noise = self._noise_of_sum(nodes, weights, std, round_index)
            return replace(sums, update=sums.update + noise.to(sums.update.device))
        return self.engine.sums(flat, nodes, weights, std, longest, round_index)

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
        self,
        ledger: Ledger,
        nodes: npt.NDArray[np.int64],
        weights: Floats,
        late: npt.NDArray[np.int64],
        privacy: NodePrivacy,
    ) -> None:
        """Enter what some nodes have released in a round, as themselves and as the sum shows it.

        Who came too late is in no sum, and has given away as much as if it had been in time.
        """
        plan = self.plan
        n_releases = plan.placement.releases(plan.steps.epochs)
        # where a node's later steps have seen its own noise, nothing beyond the local view is
        # proven; who checks each upload has more than their sum; and a sum of values on grids may
        # give away each of them
        both = np.concatenate([nodes, late])
        central = privacy.noise_multiplier[both]
        once = self._of_sizes(lambda n: plan.placement.draws(plan.steps, n))[nodes] == 1
        if once.any() and plan.false_alarm is None and plan.steps.grid is None:
            hidden = nodes[once]
            central[: nodes.size][once] = central_multipliers(
                weights[once], privacy.noise_std[hidden], privacy.sensitivity[hidden]
            )
        order = np.argsort(both)
        ledger.spend(both[order], privacy.noise_multiplier[both[order]], n_releases, central[order])

    def _noise(self, std: float, round_index: int, node: int) -> Tensor:
        from fcfn_abm.dp.noise import node_noise, secure_noise

        draws = self.plan.placement.draws(self.plan.steps, len(self.shards[node]))
        size, grid = draws * self.n_parameters, self.plan.steps.grid
        if grid is not None:
            return secure_noise(size, std, grid).view(draws, -1)
        return node_noise(size, std, self.plan.seed, round_index, node).view(draws, -1)

    def _noise_of_sum(
        self, nodes: npt.NDArray[np.int64], weights: Floats, std: Floats, round_index: int
    ) -> Tensor:
        """Draw the noise of the weighted sum at once: the same law, for one draw instead of n."""
        from fcfn_abm.dp.noise import node_noise

        spread = self._of_sizes(lambda n: self.plan.placement.spread(self.plan.steps, n))
        whole = float(np.sqrt(((weights * spread[nodes] * std[nodes]) ** 2).sum()))
        nobody = len(self.shards)  # a stream that no node has
        return node_noise(self.n_parameters, whole, self.plan.seed, round_index, nobody)

    def _sampling(self, round_index: int, node: int) -> np.random.Generator:
        """Return what draws samples: who knew the seed of secure noise would know who took part."""
        if self.plan.secure_noise:
            return np.random.default_rng()
        return stream(self.plan.seed, "batches", round_index, node)

    def _evaluate(
        self, flat: Tensor, round_index: int, ratio: float, n_nodes: int
    ) -> TrainingRound:
        loss, right = self.engine.tested(flat)
        if not math.isfinite(loss):
            raise RunFailedError(
                f"training broke down in round {round_index}: the loss is not finite; "
                "a smaller training.learning_rate may help."
            )
        return TrainingRound(round_index, right / len(self.data.test_labels), loss, ratio, n_nodes)


def _channels_last(images: npt.NDArray[np.float32]) -> Tensor:
    import torch

    return torch.from_numpy(images).contiguous(memory_format=torch.channels_last)


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "Training needs torch, which is not installed: pip install 'fcfn-abm[train]'; "
            "or leave training out with --set training.enabled=false."
        ) from None
