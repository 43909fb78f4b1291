"""How agents adapt: one file, one rule. Importing the package registers them all."""

from fcfn_abm.learning import (
    aggregate,
    best_response,
    estimate,
    fictitious_play,
    fixed,
    gradient,
    replicator,
    server_anticipate,
    server_fixed,
    server_gradient,
)
from fcfn_abm.learning.base import (
    LEARNING_RULES,
    SERVER_RULES,
    LearningRule,
    News,
    Observation,
    Reports,
    ServerObservation,
    ServerRule,
)

__all__ = [
    "LEARNING_RULES",
    "SERVER_RULES",
    "LearningRule",
    "News",
    "Observation",
    "Reports",
    "ServerObservation",
    "ServerRule",
    "aggregate",
    "best_response",
    "estimate",
    "fictitious_play",
    "fixed",
    "gradient",
    "replicator",
    "server_anticipate",
    "server_fixed",
    "server_gradient",
]
