"""Selling privacy at auction, at the price of the first node that does not sell."""

from __future__ import annotations

from typing import ClassVar

from fcfn_abm.mechanisms.auction import CheapestSell
from fcfn_abm.mechanisms.base import MECHANISMS


@MECHANISMS.register("vcg")
class VickreyClarkeGroves(CheapestSell):
    """As many of the lowest-cost nodes as the cap affords are paid the cost of the next one.

    Notes
    -----
    With reported costs ``v_1 <= ... <= v_n``, k is the largest j below n with
    ``j v_{j+1} / (n - j) <= B``. The k lowest-cost nodes sell ``epsilon = 1 / (n - k)`` each, and
    are paid ``v_{k+1} / (n - k)`` each: what the others would lose without them, the
    Vickrey-Clarke-Groves payment for that k. k is the largest number for which the cap holds.
    Truthful reports are optimal, because no node's own report sets its price, and a report low
    enough to change k only lowers the price further. It buys at most as much as ``fair-query``.

    References
    ----------
    Ghosh and Roth 2011, "Selling privacy at auction".
    """

    name: ClassVar = "vcg"
    judged_by: ClassVar = slice(1, None)  # the report that sets their price
