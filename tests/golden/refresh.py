"""What each shipped scenario's economics come to; ``python tests/golden/refresh.py`` writes it.

Run it when a change of the model is meant to change results, and look at what it changes. Digests
are of values, not of files, which also hold the versions of what wrote them; and of values rounded
to nine decimals: so much may differ between processors and libraries of mathematics.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

import fcfn_abm as fa
from fcfn_abm.scenario import shipped_files

RECORDS = Path(__file__).with_name("records.json")
DECIMALS = 9
LARGEST = 100_000  # nodes; a million take half a minute


def names() -> list[str]:
    """Return the scenarios that are one run, and not too large a one."""
    scenarios = {name: fa.load_scenario(name) for name in shipped_files()}
    return [n for n, s in scenarios.items() if not s.sweep and s.population.n_nodes <= LARGEST]


def digest(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of a table's values."""
    rounded = frame.round(DECIMALS)
    floats = rounded.select_dtypes("float").columns
    rounded[floats] += 0.0  # no negative zeros
    return hashlib.sha256(rounded.to_csv(index=False, lineterminator="\n").encode()).hexdigest()


def golden(name: str) -> dict[str, Any]:
    """Play a shipped scenario without training, and return what is kept of it."""
    scenario = fa.load_scenario(name)
    off = ["training.enabled=false"] if scenario.training else []
    record = fa.run_scenario(fa.load_scenario(name, off))
    last = record.rounds.iloc[-1]
    return {
        "verdict": record.run["verdict"]["kind"],
        "n_rounds": len(record.rounds),
        "n_active": int(last["n_active"]),
        "total_epsilon": round(float(last["total_epsilon"]), DECIMALS),
        **{table: digest(getattr(record, table)) for table in ("rounds", "nodes", "traces")},
    }


def main() -> None:
    """Write the golden records of all scenarios."""
    found = {name: golden(name) for name in names()}
    RECORDS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(found)} golden records in {RECORDS}\n")


if __name__ == "__main__":
    main()
