"""Federated averaging in pfl-research; needs a Python with pfl[pytorch].

Variants: "" as in its examples, with the data in memory as tensors and a fused optimiser;
"channels_last" also with that memory layout.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch.nn.functional import cross_entropy
from work import LEARNING_RATE, MOMENTUM, Turns, Work, create_timed_cnn


class Classifier(torch.nn.Module):
    """A net with the two methods that pfl calls."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return cross_entropy(self.net(images), labels)

    def metrics(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Weighted]:
        """Return the evaluation's measures; not called in timed rounds."""
        return {"loss": Weighted(float(self.loss(images, labels)), 1)}


class AfterEachRound(TrainingProcessCallback):
    """Alternates with other programs."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def on_train_begin(self, *, model: PyTorchModel) -> Metrics:  # noqa: ARG002
        """Wait for the first round."""
        self._turns()
        return Metrics()

    def after_central_iteration(
        self,
        aggregate_metrics: Metrics,  # noqa: ARG002
        model: PyTorchModel,  # noqa: ARG002
        *,
        central_iteration: int,  # noqa: ARG002
    ) -> tuple[bool, Metrics]:
        """Report a round, and wait for the next."""
        self._turns()
        return False, Metrics()


def main() -> None:
    """Run a round of federated averaging on request."""
    work = Work.from_command_line()
    turns = Turns()
    channels_last = work.variant == "channels_last"
    users = [PyTorchTensorDataset(shard) for shard in work.shards(channels_last)]
    data = FederatedDataset(
        users.__getitem__, get_user_sampler("minimize_reuse", np.arange(work.nodes))
    )
    net = Classifier(create_timed_cnn(channels_last))
    model = PyTorchModel(
        net,
        local_optimizer_create=partial(torch.optim.SGD, momentum=MOMENTUM, fused=True),
        central_optimizer=torch.optim.SGD(net.parameters(), 1.0),
    )
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=work.rounds + 1,  # the first round evaluates; it warms up
            train_cohort_size=work.nodes,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(data, data, postprocessors=[WeightByDatapoints()]),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_learning_rate=LEARNING_RATE,
            local_num_epochs=work.epochs,
            local_batch_size=work.batch,
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=work.batch),
        callbacks=[AfterEachRound(turns)],
    )


if __name__ == "__main__":
    main()
