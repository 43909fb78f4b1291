"""Figures 4 to 17 of Zhou et al. 2023 as printed, and a ledger of its claims.

One module makes a figure or a family of figures: numbers as a tidy frame, the figure from the
frame, and findings from the same frame. ``expected.toml`` lists the paper's claims. Figures called
``extra-...`` are not in the paper. Installed, the package is called ``fcfn_zhou2023``;
``fcfn replicate`` is its command.
"""

from fcfn_zhou2023.run import FIGURES, Replication, replicate

__all__ = ["FIGURES", "Replication", "replicate"]
