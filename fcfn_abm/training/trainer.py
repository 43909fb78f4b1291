"""Federated training with the epsilons that nodes report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import InvalidDataError, InvalidPrivacyError, MissingExtraError
from fcfn_abm.rng import stream
from fcfn_abm.training.datasets import ImageData
from fcfn_abm.training.distributed import BlockWorkers, Distributed
from fcfn_abm.training.draws import Draws
from fcfn_abm.training.engines import Device, Engine, EngineName, Serial, select_engine
from fcfn_abm.training.gradients import Gradients, NetGradients
from fcfn_abm.training.local_steps import LocalSteps
from fcfn_abm.training.local_training import LocalTraining, build_net
from fcfn_abm.training.net_checks import has_formula, require_independent_samples
from fcfn_abm.training.nets import initialise
from fcfn_abm.training.partition import Rows
from fcfn_abm.training.placements import ReleasePlan, Upload
from fcfn_abm.training.plan import NodePrivacy, TrainingPlan
from fcfn_abm.training.privacy import PrivacyAccounts
from fcfn_abm.training.stacked import NodeSamples, Stacked
from fcfn_abm.training.sums import RoundWork
from fcfn_abm.training.training import Training, TrainingSetup

if TYPE_CHECKING:
    from torch import Tensor


class FederatedTrainer:
    """Trains a net on the shards of many nodes; its trainings share this object.

    Parameters
    ----------
    data : ImageData
        The images.
    shards : sequence of ndarray of int
        Each node's rows of the training images.
    plan : TrainingPlan
        Task, method and privacy of the training.
    workers : int or BlockWorkers, default 1
        Threads that train nodes, each with its own net, or the workers of a cluster; results are
        identical for any number. With the stacked engine threads only draw noise.
    engine : {"auto", "serial", "stacked"}, default "auto"
        Train nodes one after another on a CPU ("serial"), or groups of nodes on stacked parameters
        ("stacked"). "auto" uses the former on CPUs and the latter on CUDA devices.
    device : {"auto", "cpu", "cuda"}, default "auto"
        Device; "auto" uses a CUDA device if there is one and the plan allows it.

    Raises
    ------
    MissingExtraError
        If torch is not installed; with secure noise, also if OpenDP is not.
    InvalidDataError
        If a node has no samples; or engine, device and plan are incompatible.
    """

    def __init__(
        self,
        data: ImageData,
        shards: Sequence[Rows],
        plan: TrainingPlan,
        workers: int | BlockWorkers = 1,
        engine: EngineName = "auto",
        device: Device = "auto",
    ) -> None:
        _require_torch()
        import torch

        for node, rows in enumerate(shards):
            if len(rows) == 0:
                raise InvalidDataError(f"node {node} has no training samples.")
        self.data, self.shards = data, shards
        self.n_samples = np.array([len(rows) for rows in shards], dtype=np.int64)
        """Samples of each node, shape (n_nodes,)."""
        self._images = _channels_last(data.train_images)
        self._labels = torch.from_numpy(data.train_labels)
        net = build_net(plan, data.train_images.shape[1:], len(data.class_names))
        require_independent_samples(net, data.train_images.shape[1:])
        initialise(net, stream(plan.seed, "first-parameters"))
        with_formulas = all(has_formula(layer) for layer in net if list(layer.parameters()))
        if not isinstance(workers, int):
            if engine == "stacked" or device == "cuda":
                raise InvalidDataError(
                    'a cluster requires training.engine = "serial" and training.device = "cpu" (or '
                    '"auto"): its workers train on CPUs.'
                )
            engine, device = "serial", "cpu"
        name, place = select_engine(engine, device, plan, with_formulas=with_formulas)
        n_threads = workers if isinstance(workers, int) else 1
        nets = [deepcopy(net) for _ in range(n_threads if name == "serial" else 1)]
        self.gradients = [NetGradients(net, plan.precision) for net in nets]
        self.first_parameters = self.gradients[0].flat
        """Initial parameters of every training, shape (n_parameters,)."""
        if plan.secure_noise:
            plan = self._on_a_grid(plan)
        self.plan = plan
        self.releases = plan.plan_releases(self.n_samples)
        """Releases of each node per round."""
        _require_one_noise_per_node(plan, self.releases)
        self.draws = Draws(plan, self.releases, self.n_parameters)
        self._training = LocalTraining(plan, self.releases, self.draws)
        self._accounts = PrivacyAccounts(plan, self.releases, self.n_parameters)
        tests = _channels_last(data.test_images), torch.from_numpy(data.test_labels)
        self.engine: Engine = Serial(self.gradients, self._train_node_of_round, *tests)
        if not isinstance(workers, int):
            samples_of_all = self._images, self._labels, shards
            n_classes = len(data.class_names)
            self.engine = Distributed(workers, plan, *samples_of_all, *tests, n_classes)
        elif name == "stacked":
            samples = NodeSamples(self._images, self._labels, shards, self.n_samples)
            self.engine = Stacked(
                plan, net, samples, self.releases, *tests, self.draws, place, n_threads
            )

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the net."""
        return self.first_parameters.numel()

    def privacy(self, epsilon: npt.ArrayLike) -> NodePrivacy:
        """Calibrate noise and privacy of each node.

        Parameters
        ----------
        epsilon : array_like of float, shape (n_nodes,)
            Epsilon of each node: per round or in total, according to the plan's horizon.

        Returns
        -------
        NodePrivacy
            With the true epsilons.

        Raises
        ------
        InvalidPrivacyError
            If epsilon is negative or not finite.
        MissingExtraError
            If data are sampled and dp-accounting is not installed.
        """
        return self._accounts.calibrate(epsilon)

    def own_privacy(self, epsilon: npt.ArrayLike) -> NodePrivacy:
        """Return the noise that each node adds, and what its own messages reveal.

        Equal to :meth:`privacy`, unless epsilon holds only against the server (the central view):
        then the noise is smaller and epsilon larger, as in a round that asks all nodes with a
        positive epsilon.
        """
        return self._accounts.describe_own(epsilon, self.n_samples)

    def begin(
        self,
        misreport: npt.ArrayLike = 1.0,
        *,
        private: bool = True,
        resume: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Training:
        """Start a training from the initial parameters, or resume an earlier one.

        Parameters
        ----------
        misreport : array_like of float, shape (n_nodes,), default 1
            Reported over spent epsilon: a node with a factor above one adds the noise of a smaller
            epsilon.
        private : bool, default True
            False trains the same nodes, with the same clipping, without noise.
        resume : mapping, optional
            State of the same training after a round, from :meth:`Training.state`.

        Returns
        -------
        Training
            The training, whose rounds are run by :meth:`Training.step`. Trainings of one trainer do
            not affect each other, but must not run at the same time.

        Raises
        ------
        RunFailedError
            If the loss before training is not finite.

        Examples
        --------
        Train a whole plan with fixed reports::

            training = trainer.begin()
            while not training.over:
                training.step(epsilon)
        """
        setup = TrainingSetup(
            self.plan,
            self.engine,
            self._accounts,
            self.draws,
            self.n_samples,
            self.first_parameters,
            len(self.data.test_labels),
        )
        return Training(setup, misreport, private=private, resume=resume)

    def samples(self, node: int) -> tuple[Tensor, Tensor]:
        """Return a node's images and labels."""
        own = self.shards[node]
        return self._images[own], self._labels[own]

    def train_node(
        self,
        flat: Tensor,
        node: int,
        round_index: int,
        noise_std: float | None,
        gradients: Gradients,
        labels: Tensor | None = None,
        steps: LocalSteps | None = None,
    ) -> Upload:
        """Train a node for a round, and return its upload.

        Parameters
        ----------
        flat : Tensor, shape (n_parameters,)
            The round's parameters.
        node, round_index : int
            Node of the samples; node and round of the random numbers.
        noise_std : float or None
            Standard deviation of its noise, in units of a release; None for none.
        gradients : Gradients
            Gradients of the net.
        labels : Tensor, optional
            Labels to use instead of the node's own.
        steps : LocalSteps, optional
            Settings to use instead of the plan's, with the clipping norm of the round.
        """
        own: Rows | None = self.shards[node]
        samples = self._images, self._labels
        if labels is not None:
            samples, own = (self._images[own], labels), None
        steps = steps or self.plan.steps
        return self._training.train(
            flat, node, round_index, samples, own, steps, noise_std, gradients
        )

    def _train_node_of_round(
        self, work: RoundWork, node: int, noise_std: float | None, gradients: Gradients
    ) -> Upload:
        """Train a node for the engine."""
        where = work.flat, node, work.round_index
        return self.train_node(*where, noise_std, gradients, steps=work.steps)

    def _on_a_grid(self, plan: TrainingPlan) -> TrainingPlan:
        """Return a plan with a grid of secure noise, fine enough for the least sensitivity."""
        from fcfn_abm.dp.noise import release_grid, require_secure

        require_secure()
        least = min(release.sensitivity.l2 for release in plan.plan_releases(self.n_samples))
        return replace(plan, steps=replace(plan.steps, grid=release_grid(least, self.n_parameters)))


def _require_one_noise_per_node(plan: TrainingPlan, releases: Sequence[ReleasePlan]) -> None:
    """Raise InvalidPrivacyError unless the noise of the sum is the sum of the nodes' noise."""
    if plan.view == "central":
        problem = 'epsilon cannot hold only against the server (view = "central")'
    elif plan.noise_of == "sum":
        problem = 'noise cannot be drawn only for the sum (noise_of = "sum")'
    else:
        return
    for holds, reason in (
        (plan.secure_noise, "secure noise is drawn for each node"),
        (plan.false_alarm is not None, "the check inspects each node's upload"),
        (any(r.n_noise_draws > 1 for r in releases), "nodes add noise several times per round"),
    ):
        if holds:
            raise InvalidPrivacyError(f"{problem}, because {reason}.")


def _channels_last(images: npt.NDArray[np.float32]) -> Tensor:
    """Return images channels last in memory, without a copy if they already are."""
    import torch

    return torch.from_numpy(images).contiguous(memory_format=torch.channels_last)


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "Training requires torch, which is not installed: pip install 'fcfn-abm[train]'; "
            "or disable training with --set training.enabled=false."
        ) from None
