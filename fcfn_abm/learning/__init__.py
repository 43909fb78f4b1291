"""Rules by which agents adapt: one rule per file. Importing the package registers all of them."""

from fcfn_abm.learning.base import (
    LEARNING_RULES,
    SERVER_RULES,
    LearningRule,
    News,
    Observation,
    Reports,
    ScalarMoves,
    ScalarServer,
    ServerObservation,
    ServerRule,
)
from fcfn_abm.registry import import_modules

__all__ = [
    "LEARNING_RULES",
    "SERVER_RULES",
    "LearningRule",
    "News",
    "Observation",
    "Reports",
    "ScalarMoves",
    "ScalarServer",
    "ServerObservation",
    "ServerRule",
]

import_modules(__name__)
