"""Figures 4 to 17 of Zhou et al. 2023, made again, and a ledger of what holds.

One module makes a figure or a family of figures: numbers as a tidy frame, the figure from the
frame, and findings from the same frame. ``expected.toml`` says what the paper claims, as far as we
know it.
Installed, the package is called ``fcfn_zhou2023``; ``fcfn replicate`` is its command.
"""

from fcfn_zhou2023.run import FIGURES, Replication, replicate

__all__ = ["FIGURES", "Replication", "replicate"]
