"""One fuzz target under Atheris, which looks for inputs that reach new code.

``python -m soak.guided TARGET [SECONDS]``; needs atheris, and ends with what it counted, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter

import atheris

SEARCHED = [
    "fcfn_abm.build", "fcfn_abm.records", "fcfn_abm.registry", "fcfn_abm.report",
    "fcfn_abm.runs.report", "fcfn_abm.scenario", "fcfn_abm.training.sources", "fcfn_abm.viz",
    "tomllib",
]  # fmt: skip

with atheris.instrument_imports(include=SEARCHED):
    import tomllib  # noqa: F401

    import fcfn_abm.training.sources  # noqa: F401
    from soak import fuzz


def main(name: str, seconds: float) -> None:
    """Drive a target for a while; an input that breaks it stops with its traceback."""
    target, counts, began = fuzz.TARGETS[name], Counter[str](), time.perf_counter()
    target(b"")  # what it caches is no part of the search

    def one(data: bytes) -> None:
        counts[target(data)] += 1
        if time.perf_counter() - began > seconds:
            print(json.dumps(counts), flush=True)
            os._exit(0)  # to libFuzzer any other end is a crash

    atheris.Setup([sys.argv[0], "-max_len=4096"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60.0)
