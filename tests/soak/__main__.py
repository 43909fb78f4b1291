"""The long campaigns: ``make soak``. Prints what was done, and how often."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from soak import calls, faults, fuzz, verdicts
from soak.works import WORKS

_INPUTS = {"scenario values": 4_000, "records": 1_500}  # each of these takes a while


def main() -> None:
    """Run all campaigns, and end with exit code 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="how long: 1 is under an hour")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    broken = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for what, campaign in tqdm(
            list(_campaigns(folder, given.scale, given.seed)), unit="campaign"
        ):
            began = time.perf_counter()
            try:
                report = ", ".join(f"{n:,} {how}" for how, n in sorted(campaign().items()))
            except AssertionError as error:
                broken, report = broken + 1, f"BROKEN: {error}"
            tqdm.write(f"{what:34} {report} ({time.perf_counter() - began:.0f} s)", file=sys.stdout)
    sys.exit(1 if broken else 0)


def _campaigns(folder: Path, scale: float, seed: int):
    def many(n: int) -> int:
        return max(1, round(n * scale))

    def named(campaign: Callable, work, *size: int) -> Callable:
        rng = np.random.default_rng([seed, *map(ord, work.name)])
        return lambda: campaign(work, folder, *(many(n) for n in size), *([rng] if size else []))

    for work in WORKS:
        yield f"kill -9: {work.name}", named(faults.kills, work, 100)
        yield f"Ctrl-C: {work.name}", named(faults.interrupts, work, 100)
        yield f"full disk: {work.name}", named(faults.full_disks, work, 40)
        yield f"small disk: {work.name}", named(faults.small_disks, work, 20)
        yield f"closed folder: {work.name}", named(faults.closed_folders, work)
        yield f"three at once: {work.name}", named(faults.crowds, work, 10)
        yield f"damaged files: {work.name}", named(faults.damage, work, 300)
        if work.verb != "sweep":
            yield f"jumping clock: {work.name}", named(faults.jumping_clocks, work, 5)
    yield "calls that fail", lambda: _calls(many(600), seed)
    yield "verdicts of markets at random", lambda: verdicts.campaign(many(1_000), seed)
    for name in fuzz.TARGETS:
        n = many(_INPUTS.get(name, 10_000))
        yield f"fuzz: {name}", lambda name=name, n=n: fuzz.campaign(name, n, seed)
    if importlib.util.find_spec("atheris"):
        for name in ("scenario files", "overrides", "images", "records"):
            yield f"guided by coverage: {name}", lambda name=name: _guided(name, 200 * scale)


def _calls(n: int, seed: int) -> dict[str, int]:
    ended = calls.run_with_shim(["--sample", str(n), "--seed", str(seed)])
    if ended is None:
        return {"left out, without a C compiler": 0}
    assert ended.returncode == 0, ended.stdout
    counts: dict[str, int] = json.loads(ended.stdout.splitlines()[-1])
    return counts


def _guided(name: str, seconds: float) -> dict[str, int]:
    command = [sys.executable, "-m", "soak.guided", name, str(seconds)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    counts: dict[str, int] = json.loads(ended.stdout.splitlines()[-1])
    return counts


if __name__ == "__main__":
    main()
