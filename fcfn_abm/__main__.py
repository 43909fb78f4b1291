"""``python -m fcfn_abm``: the same as ``fcfn``."""

from fcfn_abm.cli import main

main()
