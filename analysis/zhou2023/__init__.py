"""Figures 4 to 17 of Zhou et al. 2023 as printed, and a ledger of its claims.

Each module makes a figure or a family of figures: numbers as a tidy frame, the figure and the
findings from this frame. ``expected.toml`` lists the paper's claims. Figures named ``extra-...``
are not in the paper. The installed package is ``fcfn_zhou2023``, and its command is
``fcfn replicate``.
"""

from fcfn_zhou2023.run import FIGURES, Replication, replicate

__all__ = ["FIGURES", "Replication", "replicate"]
