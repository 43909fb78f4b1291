"""Mechanisms by which the server sets payments: one per file. Importing registers all of them."""

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
from fcfn_abm.mechanisms.claims import Claims
from fcfn_abm.registry import import_modules

__all__ = [
    "MECHANISMS",
    "Claims",
    "Contest",
    "Contracts",
    "Mechanism",
    "Offer",
    "Outcome",
    "PricingGame",
    "price",
]

import_modules(__name__)
