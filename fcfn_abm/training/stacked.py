"""Training of groups of nodes on stacked parameters, for devices where launches dominate."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp.sensitivity import l2_norms
from fcfn_abm.training.convolve import CONVOLUTIONS, StackedGradients, estimate_sample_bytes
from fcfn_abm.training.draws import Draws
from fcfn_abm.training.engines import EVALUATION_BATCH, Engine
from fcfn_abm.training.graphs import Graphs
from fcfn_abm.training.local_steps import Batch, LocalSteps
from fcfn_abm.training.placements import ReleasePlan, Upload
from fcfn_abm.training.plan import TrainingPlan
from fcfn_abm.training.sums import RoundWork, Sums, nonfinite_update
from fcfn_abm.training.workers import map_in_order, use_one_thread

if TYPE_CHECKING:
    from torch import Tensor, nn

type Floats = npt.NDArray[np.float64]

_CPU_BYTES = 2**28  # memory of a group on a CPU
_CUDA_SHARE = 0.25  # of the initially free GPU memory; graphs keep their share
_VECTORS = 8  # parameter-sized vectors per node in a round, besides its noise
_MAX_SIZE_RATIO = (
    1.25  # largest ratio of samples in a class, since padding costs as much as samples
)
_SAMPLED_MULTIPLE = 8  # Poisson samples are padded to a multiple of this, so that shapes repeat


@dataclass(frozen=True)
class NodeSamples:
    """All samples, with the nodes that hold them."""

    images: Tensor
    labels: Tensor
    shards: Sequence[npt.NDArray[np.intp]]
    """Rows of each node's samples."""
    sizes: npt.NDArray[np.int64]
    """Samples of each node, shape (n_nodes,)."""


@dataclass(frozen=True)
class _Class:
    """Nodes with equal numbers of steps and similar numbers of samples."""

    nodes: npt.NDArray[np.int64]
    """Nodes in ascending order."""
    widths: tuple[int, ...]
    """Most samples of each step; empty for sampled steps."""
    group_size: int
    """Number of nodes that fit into memory."""


class Stacked(Engine):
    """Engine for groups of nodes: parameters are matrices with a row per node.

    Batches, draws and formulas are those of the serial engine; sums are in another order, so
    results agree up to rounding.

    Parameters
    ----------
    plan : TrainingPlan
        Plan of the training; without secure noise, in 32 bits.
    net : torch.nn.Sequential
        The layers, whose own parameters are not used.
    samples : NodeSamples
        The training images, with the nodes that hold them.
    releases : sequence of ReleasePlan
        Releases of each node per round.
    test_images, test_labels : Tensor
        Test set.
    draws : Draws
        Noise and batches of the nodes.
    device : {"cpu", "cuda"}
        Device of data and parameters.
    threads : int
        Number of threads that draw noise.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        net: nn.Sequential,
        samples: NodeSamples,
        releases: Sequence[ReleasePlan],
        test_images: Tensor,
        test_labels: Tensor,
        draws: Draws,
        device: str,
        threads: int = 1,
    ) -> None:
        import torch

        self.device, self._plan, self._samples = device, plan, samples
        self._releases, self._draws, self._threads = releases, draws, threads
        self._images = samples.images.to(device)
        # an ignored label after the last one, for padding
        nothing = torch.full_like(samples.labels[:1], -100)
        self._labels = torch.cat([samples.labels, nothing]).to(device)
        self._test_images, self._test_labels = test_images.to(device), test_labels.to(device)
        self._graphs = Graphs()
        self._gradients = StackedGradients(net, self._graphs)
        self._n_parameters = sum(parameter.numel() for parameter in net.parameters())
        self._sample_bytes = estimate_sample_bytes(net, test_images[:1])
        self._budget = float(_CPU_BYTES)
        if device == "cuda":
            self._budget = _CUDA_SHARE * torch.cuda.mem_get_info()[0]
        self._classes = list(self._split_into_classes())
        if device == "cuda":
            with self.configure_torch():
                self._choose_formulation()

    def configure_torch(self) -> AbstractContextManager[object]:
        """Return a context: deterministic 32-bit kernels on a GPU, otherwise one thread."""
        import torch

        if self.device == "cpu":
            return use_one_thread()
        context: AbstractContextManager[object] = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        return context

    def facts(self) -> dict[str, Any]:
        """Return the facts for the record."""
        facts: dict[str, Any] = {"engine": "stacked", "device": self.device}
        if self.device == "cuda":
            import torch

            facts["device_name"] = torch.cuda.get_device_name()
            facts["cuda_graphs"] = self._graphs.failure or len(self._graphs)
        return {**facts, "formulation": self._gradients.formulation}

    def train_round(self, work: RoundWork) -> Sums:
        """Train nodes, and add their uploads group by group."""
        import torch

        device = work.flat.device
        sums = Sums.zeros(work.flat, has_noise=work.noise_std is not None)
        order, finite, fitting = [], [], []
        for group in self._split_into_groups(work.nodes):
            upload = self._train_group(work, group)
            most = torch.from_numpy(work.max_upload_norm[group.nodes]).to(device)
            fits = torch.ones_like(most, dtype=torch.bool)
            if self._plan.false_alarm is not None:
                fits = ~(l2_norms(upload.values)[:, 0] > most)
            weights = work.weights[np.searchsorted(work.nodes, group.nodes)].astype(np.float32)
            counted = torch.from_numpy(weights).to(device) * fits
            sums.update.addmv_(upload.values.T, counted)
            if work.noise_std is not None:
                sums.clean.addmv_(upload.clean.T, counted)
            order.append(group.nodes)
            finite.append(upload.clean.sum(1).isfinite())
            fitting.append(fits)
        if order:  # values are read once, after all work is queued
            trained = np.concatenate(order)
            bad = trained[~torch.cat(finite).cpu().numpy()]
            if bad.size:
                raise nonfinite_update(int(bad.min()), work.round_index)
            sums.flagged = np.sort(trained[~torch.cat(fitting).cpu().numpy()]).tolist()
            sums.passed = sum(work.weights[~np.isin(work.nodes, sums.flagged)].tolist())
        return sums

    def evaluate(self, flat: Tensor) -> tuple[float, int]:
        """Return the mean loss on the test images, and how many are classified correctly."""
        import torch
        from torch.nn.functional import cross_entropy

        size = EVALUATION_BATCH
        if self.device == "cuda":
            size = max(size, int(self._budget / self._sample_bytes))
        loss = torch.zeros((), dtype=torch.float64, device=flat.device)
        n_correct = torch.zeros((), dtype=torch.int64, device=flat.device)
        for images, labels in zip(
            torch.split(self._test_images, size), torch.split(self._test_labels, size), strict=True
        ):
            with torch.no_grad():
                logits = self._gradients.compute_logits(flat, images)
            loss += cross_entropy(logits, labels, reduction="sum")
            n_correct += (logits.argmax(1) == labels).sum()
        return float(loss) / len(self._test_labels), int(n_correct)

    def _split_into_classes(self) -> Iterator[_Class]:
        """Split nodes into classes, by number of steps and of samples."""
        steps, sizes = self._plan.steps, self._samples.sizes
        n_steps = np.array([steps.count_steps(size) for size in sizes.tolist()])
        sampled = self._plan.placement.sampling_rate < 1
        if sampled:
            n_steps[:] = steps.epochs
        order = np.lexsort((sizes, n_steps))
        first = 0
        for place, node in enumerate(order, start=1):
            following = order[place] if place < len(order) else None
            if (
                following is None
                or n_steps[following] != n_steps[node]
                or sizes[following] > _MAX_SIZE_RATIO * sizes[order[first]]
            ):
                widths = () if sampled else _widths(steps, int(sizes[node]))
                taken = max(widths, default=int(sizes[node]))
                draws = self._releases[node].n_noise_draws
                vectors = 4 * self._n_parameters * (_VECTORS + draws)
                most = int(self._budget // (taken * self._sample_bytes + vectors))
                yield _Class(np.sort(order[first:place]), widths, max(most, 1))
                first = place

    def _split_into_groups(self, nodes: npt.NDArray[np.int64]) -> Iterator[_Group]:
        """Yield groups of nodes of a class, as many as fit into memory."""
        for alike in self._classes:
            present = np.intersect1d(alike.nodes, nodes, assume_unique=True)
            for start in range(0, present.size, alike.group_size):
                members = present[start : start + alike.group_size]
                size = members.size
                if self.device == "cuda":  # few sizes, so that graphs can be reused
                    size = min(1 << (size - 1).bit_length(), alike.group_size)
                yield _Group(members, size, alike.widths)

    def _train_group(self, work: RoundWork, group: _Group) -> Upload:
        """Train a group for a round: each tensor of its upload has a row per node."""
        plan, n_nodes = self._plan, group.nodes.size
        noise, batches = self._draw_noise(work, group), self._draw_batches(group, work.round_index)
        upload = plan.placement.train(work.flat, batches, work.steps, self._gradients, noise)
        return Upload(upload.values[:n_nodes], upload.clean[:n_nodes])

    def _draw_noise(self, work: RoundWork, group: _Group) -> Tensor | None:
        """Draw the noise of a group, shape (n_noise_draws, n_rows, n_parameters)."""
        import torch

        std = work.noise_std
        if std is None:
            return None

        def draw(node: int, _: int) -> Tensor:
            return self._draws.draw_noise(float(std[node]), work.round_index, node)

        rows = list(map_in_order(draw, group.nodes.tolist(), range(self._threads)))
        rows += [torch.zeros_like(rows[0])] * (group.n_rows - len(rows))
        return torch.stack(rows, dim=1).to(self.device)

    def _draw_batches(self, group: _Group, round_index: int) -> Iterator[Batch]:
        """Yield the samples of each step; row numbers are copied to the device at once."""
        import torch

        plan, samples, nodes = self._plan, self._samples, group.nodes.tolist()
        each = []  # samples of the steps of each node
        for node, size in zip(nodes, samples.sizes[group.nodes].tolist(), strict=True):
            own, rng = samples.shards[node], self._draws.create_batch_generator(round_index, node)
            batches = plan.placement.draw_batches(plan.steps, size, rng)
            each.append([own[rows] for rows in batches])
        by_step = list(zip(*each, strict=True))
        widths = group.widths or [_round_up(max(map(len, taken))) for taken in by_step]
        tables, divisors = [], np.ones((len(by_step), group.n_rows, 1), dtype=np.float32)
        for step, (taken, width) in enumerate(zip(by_step, widths, strict=True)):
            table = np.full((group.n_rows, width), len(samples.labels))
            for row, (node, rows) in enumerate(zip(nodes, taken, strict=True)):
                table[row, : len(rows)] = rows
                divisor = self._releases[node].divisor
                divisors[step, row] = len(rows) if divisor is None else divisor
            tables.append(table)
        places = torch.from_numpy(np.concatenate(tables, axis=1)).to(self.device)
        shares = torch.from_numpy(divisors).to(self.device)
        for at, divisor in zip(torch.split(places, list(widths), dim=1), shares, strict=True):
            images = self._images[
                at.clamp(max=len(self._images) - 1)
            ]  # any image serves as padding
            yield Batch(images, self._labels[at], divisor)

    def _choose_formulation(self) -> None:
        """Select the formulation of stacked nets that is fastest on the first class."""
        import torch

        alike = max(self._classes, key=lambda one: one.nodes.size)
        n_nodes = min(alike.nodes.size, alike.group_size)
        width = max(alike.widths, default=int(self._samples.sizes[alike.nodes].max()))
        flat = torch.full((n_nodes, self._n_parameters), 0.01, device=self.device)
        at = torch.arange(n_nodes * width, device=self.device) % len(self._samples.labels)
        images, labels = (part[at.view(n_nodes, width)] for part in (self._images, self._labels))
        times = {}
        for name in CONVOLUTIONS:
            tried = StackedGradients(self._gradients.net, Graphs(), name)
            try:
                tried.mean(flat, images, labels)  # the first call captures
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(3):
                    tried.mean(flat, images, labels)
                torch.cuda.synchronize()
                times[name] = time.perf_counter() - start
            except RuntimeError:  # skip formulations that do not fit into memory
                continue
        if times:
            self._gradients.formulation = min(times, key=lambda name: times[name])


@dataclass(frozen=True)
class _Group:
    """Nodes that train at once."""

    nodes: npt.NDArray[np.int64]
    n_rows: int
    """Number of rows, including padding after the last node."""
    widths: tuple[int, ...]


def _widths(steps: LocalSteps, n_samples: int) -> tuple[int, ...]:
    """Return the number of samples in each step of a node."""
    size = steps.samples_per_step(n_samples)
    return steps.epochs * tuple(min(size, n_samples - start) for start in range(0, n_samples, size))


def _round_up(width: int) -> int:
    return max(-(-width // _SAMPLED_MULTIPLE), 1) * _SAMPLED_MULTIPLE
