"""Training: data sets, partitions, nets, local training, aggregation.

Torch is imported when a net is trained, not when a scenario is read.
"""

from fcfn_abm.training.aggregate import AGGREGATIONS
from fcfn_abm.training.datasets import DATASETS, ImageData
from fcfn_abm.training.nets import NETS
from fcfn_abm.training.partition import PARTITIONS, label_divergence
from fcfn_abm.training.placements import PLACEMENTS
from fcfn_abm.training.plan import Chances, NodePrivacy, TrainingPlan, TrainingRound
from fcfn_abm.training.server_steps import AVERAGINGS, SERVER_OPTIMISERS
from fcfn_abm.training.trainer import FederatedTrainer
from fcfn_abm.training.training import Training

__all__ = [
    "AGGREGATIONS",
    "AVERAGINGS",
    "DATASETS",
    "NETS",
    "PARTITIONS",
    "PLACEMENTS",
    "SERVER_OPTIMISERS",
    "Chances",
    "FederatedTrainer",
    "ImageData",
    "NodePrivacy",
    "Training",
    "TrainingPlan",
    "TrainingRound",
    "label_divergence",
]
