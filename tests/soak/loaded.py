"""Everything that commands load, loaded once for all processes of a campaign."""

import contextlib
import importlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

for name in (
    "fcfn_abm.cli",
    "fcfn_abm.runs.run",
    "fcfn_abm.runs.sweep",
    "fcfn_abm.runs.compare",
    "fcfn_abm.runs.calibrate",
    "fcfn_abm.report.figures",
    "fcfn_abm.training.trainer",
    "sklearn.datasets",
    "matplotlib.backends.backend_agg",
    "torch",
):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
