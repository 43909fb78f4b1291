"""Audits of every placement as it is, and with faults planted: the tables of docs/audit.md.

Prints two GitHub-markdown tables to stdout, progress to stderr. A few minutes on one core:

    python benchmarks/privacy/audits.py > tables.md
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import fcfn_abm.dp.noise
from fcfn_abm.build import load_scenario
from fcfn_abm.dp import Clipping
from fcfn_abm.dp.noise import node_noise
from fcfn_abm.runs.audit import audit_scenario
from fcfn_abm.scenario import Scenario
from fcfn_abm.training import PLACEMENTS

SCENARIO = "privacy/quickstart-local"


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


HONEST: dict[str, Scenario] = {
    "`dp-sgd`, 1 step": scenario("dp-sgd"),
    "`dp-sgd`, 1 step, zero-out": scenario("dp-sgd", neighbours="zero-out"),
    "`dp-sgd`, 3 steps, momentum 0.9": scenario("dp-sgd", 3, 0.9),
    "`dp-sgd`, 1 step, a tenth of the records": sample_records(0.1),
    "`update`, 1 step": scenario("update"),
    "`update`, 3 steps, momentum 0.9": scenario("update", 3, 0.9),
    "`paper`, 1 step": scenario("paper"),
    "`paper`, 3 steps (a heuristic)": scenario("paper", 3),
}


def halve_noise(size: int, std: float, *where: int) -> Any:
    return node_noise(size, std / 2, *where)


def share_noise(size: int, std: float, *where: int) -> Any:
    return node_noise(size // 2, std, *where).repeat(2)


def use_zero_out(self: Clipping, unit: Any, _: Any, share: float = 1.0) -> Any:
    return SENSITIVITY(self, unit, "zero-out", share)


SENSITIVITY = Clipping.sensitivity


BROKEN: dict[str, tuple[Scenario, float, tuple[Any, str, Callable[..., Any]] | None]] = {
    "half the noise": (scenario("dp-sgd"), 4.0, (fcfn_abm.dp.noise, "node_noise", halve_noise)),
    "clipping off": (scenario("dp-sgd"), 4.0, (Clipping, "__call__", lambda _, rows: rows)),
    "sensitivity of a record that goes, for one that is replaced": (
        scenario("dp-sgd"),
        4.0,
        (Clipping, "sensitivity", use_zero_out),
    ),
    "two local steps share their noise": (
        scenario("dp-sgd", 2),
        4.0,
        (fcfn_abm.dp.noise, "node_noise", share_noise),
    ),
    "classical formula": (scenario("dp-sgd", calibration="classical"), 98.0, None),
}


def row(name: str, found: Any) -> str:
    lower = found.lower
    bounds = (lower.any_mechanism, lower.gdp, lower.gaussian)
    cells = [name, f"{found.epsilon:g}", f"{found.n_trials:,}", *(f"{b:.3g}" for b in bounds)]
    return f"| {' | '.join(cells)} | {found.verdict} |"


def heading(first: str) -> None:
    print(f"| {first} | claim | trials | any mechanism | mu-GDP | Gaussian | verdict |")
    print("| --- | --- | --- | --- | --- | --- | --- |")


def main() -> None:
    heading("placement")
    for name, made in HONEST.items():
        for found in audit_scenario(made, progress=True).rows:
            print(row(name, found), flush=True)
    print()
    heading("fault")
    for name, (made, claim, fault) in BROKEN.items():
        if fault is None:
            (found,) = audit_scenario(made, [claim], trials=2000).rows
        else:
            with mock.patch.object(*fault):
                (found,) = audit_scenario(made, [claim], trials=2000).rows
        print(row(name, found), flush=True)


if __name__ == "__main__":
    main()
