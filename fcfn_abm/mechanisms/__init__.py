"""How the server prices privacy: one file, one paper. Importing the package registers them all."""

from fcfn_abm.mechanisms import ic_mle, random, stackelberg, static, yang
from fcfn_abm.mechanisms.base import (
    MECHANISMS,
    Contest,
    Contracts,
    Mechanism,
    Offer,
    Outcome,
    PricingGame,
    price,
)

__all__ = [
    "MECHANISMS",
    "Contest",
    "Contracts",
    "Mechanism",
    "Offer",
    "Outcome",
    "PricingGame",
    "ic_mle",
    "price",
    "random",
    "stackelberg",
    "static",
    "yang",
]
