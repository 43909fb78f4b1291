"""Selling privacy at auction: nodes report costs, and the lowest-cost nodes sell equal epsilons."""

from __future__ import annotations

from typing import ClassVar

from fcfn_abm.mechanisms.auction import CheapestSell
from fcfn_abm.mechanisms.base import MECHANISMS


@MECHANISMS.register("fair-query")
class FairQuery(CheapestSell):
    """As many of the lowest-cost nodes as the cap affords sell one epsilon each, at one price.

    Notes
    -----
    With reported costs ``v_1 <= ... <= v_n``, k is the largest j below n with ``v_j / (n - j) <= B
    / j``. The k lowest-cost nodes sell ``epsilon = 1 / (n - k)`` each, and are paid ``min(B / k,
    v_{k+1} / (n - k))`` each: the highest report with which each of them would still have sold.
    Truthful reports are optimal whatever others report, no node loses, and the cap is kept. Epsilon
    is at most one. Of equal costs at the margin, those in the first rows sell; the others lose
    nothing, because the price then equals their cost.

    References
    ----------
    Ghosh and Roth 2011, "Selling privacy at auction", mechanism FairQuery.
    """

    name: ClassVar = "fair-query"
    judged_by: ClassVar = slice(None, -1)  # the highest report among the sellers
