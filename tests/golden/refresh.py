"""What each shipped scenario comes to; ``python tests/golden/refresh.py`` writes it.

Run it when a change of the model is meant to change results, and look at what it changes. Economics
are kept as digests, of values and not of files, which also hold the versions of what wrote them;
and of values rounded to eight digits of a column's largest, nine decimals at most: the rest may
differ between processors and libraries of mathematics. Of a sweep there are its axes, its first
run, and its last. Where a net is trained there are its numbers, which differ by more:
docs/training.md says by how much, and why.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import fcfn_abm as fa
from fcfn_abm.build import list_runs
from fcfn_abm.scenario import Scenario, shipped_files

RECORDS = Path(__file__).with_name("records.json")
TRAININGS = Path(__file__).with_name("trainings.json")
DECIMALS, DIGITS = 9, 8
LARGEST = 100_000  # nodes of a sweep's last run; a million are a scenario of their own
TRAINED = {  # what is trained too, and how it is made short
    "quickstart": ["training.rounds=5"],
    "quickstart, dp-sgd": [
        "training.rounds=2",
        "training.batch_size=10",
        "training.learning_rate=0.2",
        "training.compare=[]",
        "privacy.placement=dp-sgd",
        "privacy.view=local",
    ],
}
MEASURED = ("accuracy", "loss", "signal_to_noise")


def digest(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of a table's values."""
    rounded = frame.copy()
    for name in frame.select_dtypes("float"):
        values = frame[name].to_numpy()
        largest = np.abs(values[np.isfinite(values)]).max(initial=10.0 ** (DIGITS - DECIMALS - 1))
        before = math.floor(math.log10(largest) + 1e-6) + 1  # a hair below 10 counts as 10
        rounded[name] = values.round(DIGITS - before) + 0.0  # no negative zeros
    return hashlib.sha256(rounded.to_csv(index=False, lineterminator="\n").encode()).hexdigest()


def golden(name: str) -> dict[str, Any]:
    """Play a shipped scenario without training, and return what is kept of it."""
    scenario = fa.load_scenario(name)
    if scenario.training:
        scenario = fa.load_scenario(name, ["training.enabled=false"])
    if not scenario.sweep:
        return played(scenario)
    runs = list_runs(scenario)
    last = next(r for r in reversed(runs) if r.scenario.population.n_nodes <= LARGEST)
    axes = pd.DataFrame([{**run.point, "seed": run.scenario.seed} for run in runs])
    return {
        "n_runs": len(runs),
        "axes": digest(axes),
        **{f"run {run.index}": played(run.scenario) for run in (runs[0], last)},
    }


def played(scenario: Scenario) -> dict[str, Any]:
    """Carry out one run, and return what is kept of it."""
    record = fa.run_scenario(scenario)
    last = record.rounds.iloc[-1]
    return {
        "verdict": record.run["verdict"]["kind"],
        "n_rounds": len(record.rounds),
        "n_active": int(last["n_active"]),
        "total_epsilon": float(f"{last['total_epsilon']:.{DIGITS}g}"),
        **{
            table: digest(getattr(record, table).head(LARGEST))
            for table in ("rounds", "nodes", "traces")
        },
    }


def trained(name: str) -> dict[str, Any]:
    """Train for a few rounds, and return what is exact of it as digests, the rest as numbers."""
    record = fa.run_scenario(fa.load_scenario(name.split(",")[0], TRAINED[name]))
    return {
        "arms": digest(record.training.drop(columns=list(MEASURED))),
        **{table: digest(getattr(record, table)) for table in ("rounds", "nodes", "ledger")},
        **{name: record.training[name].round(DECIMALS).tolist() for name in MEASURED},
    }


def main() -> None:
    """Write the golden records of all scenarios."""
    found = {name: golden(name) for name in shipped_files()}
    RECORDS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    nets = {name: trained(name) for name in TRAINED}
    TRAININGS.write_text(json.dumps(nets, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(found)} golden records in {RECORDS}, {len(nets)} in {TRAININGS}\n")


if __name__ == "__main__":
    main()
