"""Audits of every placement, as is and with planted faults: the tables of docs/audit.md.

Prints GitHub Markdown tables to stdout, in some minutes on one core. Arguments select parts:

    python benchmarks/privacy/audits.py [placements] [faults] [whole] > tables.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from planted_faults import FAULTS, planted

from fcfn_abm.build import load_scenario
from fcfn_abm.runs.audit import audit_scenario, write_bound
from fcfn_abm.runs.audit_whole import audit_whole
from fcfn_abm.scenario import Scenario
from fcfn_abm.training import PLACEMENTS

SCENARIO = "privacy/quickstart-local"
DELTA = "privacy.delta=1e-5"


def scenario(placement: str, n_steps: int = 1, momentum: float = 0.0, **privacy: Any) -> Scenario:
    privacy = {"unit": PLACEMENTS[placement].unit, "delta": 1e-5, **privacy}
    return load_scenario(
        SCENARIO,
        [
            f"privacy.placement.kind='{placement}'",
            f"training.local_epochs={n_steps}",
            f"training.momentum={momentum}",
            *(f"privacy.{name}={value!r}" for name, value in privacy.items()),
        ],
    )


def sample_records(rate: float) -> Scenario:
    made = scenario("dp-sgd")
    placement = made.privacy.placement.model_copy(update={"sampling_rate": rate})
    privacy = made.privacy.model_copy(update={"placement": placement})
    return made.model_copy(update={"privacy": privacy})


PLACED: dict[str, Scenario] = {
    "`dp-sgd`, 1 step": scenario("dp-sgd"),
    "`dp-sgd`, 1 step, zero-out": scenario("dp-sgd", neighbours="zero-out"),
    "`dp-sgd`, 1 step, noise of the sum": scenario("dp-sgd", noise_of="sum"),
    "`dp-sgd`, 3 steps, momentum 0.9": scenario("dp-sgd", 3, 0.9),
    "`dp-sgd`, 1 step, a tenth of the records": sample_records(0.1),
    "`update`, 1 step": scenario("update"),
    "`update`, 3 steps, momentum 0.9": scenario("update", 3, 0.9),
    "`paper`, 1 step": scenario("paper"),
    "`paper`, 3 steps (a heuristic)": scenario("paper", 3),
}
CHANGED = {
    "local steps share their noise": scenario("dp-sgd", 2),
    "updates of nodes are not clipped": scenario("update"),
    "the noise of the sum weighs nodes twice": scenario("dp-sgd", noise_of="sum"),
}
WHOLE = {
    "noise that repeats after 64 rounds": (100, 100),
    "noise that repeats after 32 nodes": (20, 128),
}
VIEWS = {"local": "its messages", "late": "a late node's", "central": "the sum of three"}


def write_row(name: str, seen: str, claim: float, bounds: Any, verdict: str) -> None:
    numbers = map(write_bound, (bounds.any_mechanism, bounds.gdp, bounds.gaussian))
    print(f"| {' | '.join([name, seen, f'{claim:.4g}', *numbers, verdict])} |", flush=True)


def write_heading(first: str) -> None:
    print(f"\n| {first} | seen | claim | any mechanism | mu-GDP | Gaussian | verdict |")
    print("| --- | --- | --- | --- | --- | --- | --- |")


def audit_placements() -> None:
    write_heading("placement")
    for name, made in PLACED.items():
        trials = 500 if "3 steps, momentum" in name and "dp-sgd" in name else 4000
        for row in audit_scenario(made, [1.0, 10.0], trials=trials).rows:
            write_row(name, VIEWS[row.view], row.epsilon, row.lower, row.verdict)


def audit_faults() -> None:
    write_heading("fault")
    for name in FAULTS:
        with planted(name):
            if name in WHOLE:
                rounds, canaries = WHOLE[name]
                made = load_scenario(SCENARIO, [DELTA, f"training.rounds={rounds}"])
                whole = audit_whole(made, canaries=canaries, blackbox=False)
                best = whole.strongest
                write_row(name, best.name, whole.epsilon, best.lower, whole.verdict)
                continue
            made = CHANGED.get(name, scenario("dp-sgd"))
            trials = 1500 if name == "norms leave biases out" else 400
            rows = audit_scenario(made, [10.0], trials=trials).rows
        row = next((row for row in rows if row.verdict == "broken"), rows[0])
        seen = f"{VIEWS[row.view]}: {row.attacker}"
        write_row(name, seen, row.epsilon, row.lower, row.verdict)


def audit_trainings() -> None:
    write_heading("attacker")
    made = load_scenario(SCENARIO, [DELTA, "training.rounds=200"])
    found = audit_whole(made, progress=True)
    for one in found.attackers:
        write_row(one.name, one.sees, found.epsilon, one.lower, found.verdict)


PARTS = {"placements": audit_placements, "faults": audit_faults, "whole": audit_trainings}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
