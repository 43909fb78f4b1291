"""How the server prices privacy: one file, one paper. Importing the package registers them all."""

from fcfn_abm.mechanisms import random, stackelberg, static
from fcfn_abm.mechanisms.base import MECHANISMS, Mechanism, Outcome, PricingGame, price

__all__ = [
    "MECHANISMS",
    "Mechanism",
    "Outcome",
    "PricingGame",
    "price",
    "random",
    "stackelberg",
    "static",
]
