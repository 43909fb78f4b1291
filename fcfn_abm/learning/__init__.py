"""How agents adapt: one file, one rule. Importing the package registers them all."""

from fcfn_abm.learning import best_response, fixed, server_anticipate, server_fixed
from fcfn_abm.learning.base import (
    LEARNING_RULES,
    SERVER_RULES,
    LearningRule,
    Observation,
    ServerObservation,
    ServerRule,
)

__all__ = [
    "LEARNING_RULES",
    "SERVER_RULES",
    "LearningRule",
    "Observation",
    "ServerObservation",
    "ServerRule",
    "best_response",
    "fixed",
    "server_anticipate",
    "server_fixed",
]
