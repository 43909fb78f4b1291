"""Rounds that each learning rule needs to reach the closed form, and disturbances.

Prints four GitHub-markdown tables to stdout, progress to stderr:

1. rounds until the distance to the closed form falls below 1e-6 and stays there, by rule, order of
   moves, number of nodes and cost distribution;
2. the remaining distance under observation noise;
3. rounds when only a share of the nodes moves in each round;
4. the frequency with which final exits change the active set.

The server's cap is fixed throughout, so that only the nodes' dynamics are measured. Distance is
that of the market: the largest error of an epsilon as a share of the largest equilibrium epsilon.

    python benchmarks/dynamics/rounds_to_equilibrium.py --quick
    python benchmarks/dynamics/rounds_to_equilibrium.py --workers 2 > tables.md
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

import fcfn_abm as fa
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.scenario import tree_to_scenario

NEAR = 1e-6  # as a share of the largest equilibrium epsilon
HOLD = 20  # rounds for which a run must stay near before it ends
AT_REST = 1e-12  # relative change of epsilon in a round

LAWS: dict[str, dict[str, Any]] = {
    "equal": {"kind": "constant"},
    "log-normal, sigma 0.7": {"kind": "lognormal", "sigma": 0.7},
    "uniform, 0.5 to 1.5": {"kind": "uniform", "low": 0.0005, "high": 0.0015},
    "log-normal, sigma 0.1": {"kind": "lognormal", "sigma": 0.1},
}
RULES: dict[str, dict[str, Any]] = {
    "best-response, gain 1/2": {"kind": "best-response", "gain": 0.5},
    "best-response, gain 1": {"kind": "best-response", "gain": 1.0},
    "best-response, gain auto": {"kind": "best-response", "gain": "auto"},
    "gradient, gain 1/2": {"kind": "gradient", "gain": 0.5},
    "gradient, gain auto": {"kind": "gradient", "gain": "auto"},
    "fictitious-play": {"kind": "fictitious-play"},
    "estimate": {"kind": "estimate"},
    "aggregate": {"kind": "aggregate"},
    "replicator": {"kind": "replicator"},
}
ORDERS = {"in turn": "in_turn", "at once": "simultaneous"}


@dataclass(frozen=True)
class Job:
    """One market, with its cell of a table."""

    cell: tuple[Any, ...]
    n_nodes: int
    law: str
    rule: str
    order: str
    seed: int
    maximum: int
    tables: dict[str, Any] = field(default_factory=dict)

    def market(self) -> PrivacyMarket:
        """Build the market; only the round limit stops it."""
        tree = {
            "seed": self.seed,
            "population": {"n_nodes": self.n_nodes, "rho": LAWS[self.law]},
            "game": {"budget": 1.0},
            "server": {"kind": "fixed"},
            "learning": RULES[self.rule],
            **self.tables,
        }
        tree["rounds"] = {
            "order": ORDERS[self.order],
            "maximum": self.maximum,
            "tolerance": 1e-300,
            **self.tables.get("rounds", {}),
        }
        return fa.PrivacyMarket(tree_to_scenario(tree, "benchmark"))


@dataclass(frozen=True)
class Settling:
    """How one market reached the closed form, or failed to."""

    round: float
    """First round from which the distance stays below `NEAR`; infinite if never."""
    distance: float
    """Median distance over the last quarter."""
    verdict: str
    """The market's verdict, or that epsilon rests elsewhere."""


def settle(job: Job) -> Settling:
    """Play until epsilon has been near, or constant, for `HOLD` rounds, or to the limit."""
    market, distances = job.market(), []
    near = still = 0
    hold = HOLD / market.scenario.rounds.participation  # nodes that would move may not be drawn
    while market.running and max(near, still) < hold:
        market.step()
        distances.append(market.state.distance)
        near = near + 1 if distances[-1] < NEAR else 0
        # fictitious play may pause at S = 0 until its mean has fallen: this is not rest
        moves = market.state.change >= AT_REST or market.total_epsilon == 0
        still = 0 if moves else still + 1
    if near:
        return Settling(len(distances) - near + 1, distances[-1], "settled")
    verdict = "rests elsewhere" if still or market.verdict is None else market.verdict.kind
    return Settling(math.inf, float(np.median(distances[-(len(distances) // 4 + 1) :])), verdict)


def measure_lasting_error(job: Job) -> float:
    """Return the median distance over the second half of the play."""
    market, distances = job.market(), []
    while market.running:
        market.step()
        distances.append(market.state.distance)
    return float(np.median(distances[len(distances) // 2 :]))


@dataclass(frozen=True)
class ActiveSets:
    """Comparison of the final active set with the closed form's."""

    missing: int
    extra: int
    expected: int


def compare_active_sets(job: Job) -> ActiveSets:
    """Play until nothing moves, and compare active sets; a node at the threshold counts as out."""
    market, still = job.market(), 0
    while market.running and still < HOLD:
        market.step()
        still = still + 1 if market.state.change < AT_REST else 0
    target = market.equilibrium.epsilon / market.equilibrium.epsilon.max()
    played = market.columns.epsilon / market.columns.epsilon.max()
    return ActiveSets(
        missing=int(np.count_nonzero((target > NEAR) & (played <= NEAR))),
        extra=int(np.count_nonzero((target == 0) & (played > NEAR))),
        expected=int(np.count_nonzero(target > NEAR)),
    )


def carry_out[R](
    function: Callable[[Job], R], jobs: Iterable[Job], workers: int, what: str
) -> dict[tuple[Any, ...], list[R]]:
    """Run jobs, slow ones first, and collect the results by cell."""
    jobs = sorted(jobs, key=lambda job: -job.n_nodes * job.maximum)
    found: dict[tuple[Any, ...], list[R]] = defaultdict(list)
    with tqdm(total=len(jobs), desc=what, unit="market", file=sys.stderr) as bar:
        for job, result in zip(jobs, _results(function, jobs, workers), strict=True):
            found[job.cell].append(result)
            bar.update()
    return found


def _results[R](function: Callable[[Job], R], jobs: list[Job], workers: int) -> Iterator[R]:
    if workers == 1:
        yield from map(function, jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(function, jobs)


def limit(n_nodes: int, order: str) -> int:
    """Return the round limit: in turn, a round takes time proportional to N."""
    if n_nodes <= 100 or order == "at once":
        return 2000
    return 500 if n_nodes <= 1000 else 200


def rounds_table(sizes: list[int], seeds: int, most: int, workers: int) -> Iterator[str]:
    """Yield the lines of table 1."""
    laws = [law for law in LAWS if law != "log-normal, sigma 0.1"]
    jobs = [
        Job((law, rule, order, n), n, law, rule, order, seed, min(most, limit(n, order)))
        for law in laws
        for rule in RULES
        for order in ORDERS
        for n in sizes
        for seed in range(seeds)
    ]
    found = carry_out(settle, jobs, workers, "rounds")
    for law in laws:
        yield f"\n**Rounds to the closed form; costs: {law}; median of {seeds} runs**\n"
        rows = [
            [
                rule,
                order,
                *(
                    _describe_settled(found[law, rule, order, n], min(most, limit(n, order)))
                    for n in sizes
                ),
            ]
            for rule in RULES
            for order in ORDERS
        ]
        yield from markdown(["rule", "order", *(f"N = {n:,}" for n in sizes)], rows)


def _describe_settled(cells: list[Settling], maximum: int) -> str:
    rounds = float(np.median([cell.round for cell in cells]))
    if math.isfinite(rounds):
        late = sum(math.isinf(cell.round) for cell in cells)
        return f"{rounds:.0f}" + (f" (not {late} of {len(cells)})" if late else "")
    lost = [cell for cell in cells if math.isinf(cell.round)]
    kinds = [cell.verdict for cell in lost]
    kind = max(dict.fromkeys(kinds), key=kinds.count)  # the first of the most frequent
    distance = float(np.median([cell.distance for cell in lost if cell.verdict == kind]))
    size = f"{distance:.0f}" if distance >= 10 else f"{distance:.1g}"
    return f"{f'> {maximum}' if kind == 'max-rounds' else kind} [{size}]"


def noise_table(n_nodes: int, maximum: int, seeds: int, workers: int) -> Iterator[str]:
    """Yield the lines of table 2."""
    played = [
        ("best-response, gain 1/2", "in turn", "full"),
        ("best-response, gain 1", "in turn", "full"),
        ("best-response, gain auto", "at once", "full"),
        ("fictitious-play", "at once", "full"),
        ("estimate", "at once", "full"),
        ("aggregate", "at once", "full"),
        ("best-response, gain 1/2", "in turn", "aggregate"),
        ("fictitious-play", "at once", "aggregate"),
        ("aggregate", "at once", "aggregate"),
    ]
    noises = [0.01, 0.05, 0.2]
    laws = ["equal", "uniform, 0.5 to 1.5"]
    jobs = [
        Job(
            (rule, order, reports, law, noise),
            n_nodes,
            law,
            rule,
            order,
            seed,
            maximum,
            {"information": {"reports": reports, "noise": noise}},
        )
        for rule, order, reports in played
        for law in laws
        for noise in noises
        for seed in range(seeds)
    ]
    found = carry_out(measure_lasting_error, jobs, workers, "noise")
    yield f"\n**Median distance under observation noise; N = {n_nodes}, {maximum} rounds**\n"
    yield from markdown(
        [
            "rule",
            "order",
            "noise on",
            *(f"{law}: {100 * x:.0f} %" for law in laws for x in noises),
        ],
        [
            [
                rule,
                order,
                "each report" if reports == "full" else "each view of S",
                *(
                    f"{np.median(found[rule, order, reports, law, noise]):.2g}"
                    for law in laws
                    for noise in noises
                ),
            ]
            for rule, order, reports in played
        ],
    )


def participation_table(n_nodes: int, maximum: int, seeds: int, workers: int) -> Iterator[str]:
    """Yield the lines of table 3."""
    played = [
        ("best-response, gain 1/2", "in turn"),
        ("best-response, gain 1", "in turn"),
        ("best-response, gain auto", "at once"),
        ("gradient, gain 1/2", "in turn"),
        ("estimate", "at once"),
        ("aggregate", "at once"),
    ]
    shares = [1.0, 0.5, 0.1]
    laws = ["equal", "uniform, 0.5 to 1.5"]
    jobs = [
        Job(
            (rule, order, law, share),
            n_nodes,
            law,
            rule,
            order,
            seed,
            maximum,
            {"rounds": {"participation": share}},
        )
        for rule, order in played
        for law in laws
        for share in shares
        for seed in range(seeds)
    ]
    found = carry_out(settle, jobs, workers, "participation")
    yield f"\n**Rounds when a share of the nodes moves in each; N = {n_nodes}**\n"
    yield from markdown(
        ["rule", "order", *(f"{law}: {share:g}" for law in laws for share in shares)],
        [
            [
                rule,
                order,
                *(
                    _describe_settled(found[rule, order, law, share], maximum)
                    for law in laws
                    for share in shares
                ),
            ]
            for rule, order in played
        ],
    )


def exits_table(n_nodes: int, maximum: int, populations: int, workers: int) -> Iterator[str]:
    """Yield the lines of table 4."""
    laws = [law for law in LAWS if law != "equal"]
    settings = [
        {"reentry": reentry, "criterion": criterion, "patience": patience}
        for reentry in (True, False)
        for criterion in ("best-response", "loss")
        for patience in (1, 3, 10)
        if not reentry or patience == 1
    ]
    jobs = [
        Job(
            (law, tuple(exits.values())),
            n_nodes,
            law,
            "best-response, gain 1/2",
            "in turn",
            seed,
            maximum,
            {"exit": exits},
        )
        for law in laws
        for exits in settings
        for seed in range(populations)
    ]
    found = carry_out(compare_active_sets, jobs, workers, "exits")
    yield (
        f"\n**Populations whose final active set is not the closed form's; N = {n_nodes}, "
        f"{populations} populations per cell, half best responses in turn**\n"
    )
    yield from markdown(
        ["re-entry", "criterion", "patience", *laws],
        [
            [
                "yes" if exits["reentry"] else "no",
                exits["criterion"],
                exits["patience"],
                *(_describe_differing(found[law, tuple(exits.values())]) for law in laws),
            ]
            for exits in settings
        ],
    )


def _describe_differing(cells: list[ActiveSets]) -> str:
    other = [cell for cell in cells if cell.missing or cell.extra]
    if not other:
        return "0 %"
    missing = float(np.mean([cell.missing for cell in other]))
    expected = float(np.mean([cell.expected for cell in other]))
    extra = float(np.mean([cell.extra for cell in other]))
    text = f"{100 * len(other) / len(cells):.0f} %: {missing:.1f} of {expected:.1f} missing"
    return text + (f", {extra:.1f} instead" if extra else "")


def markdown(head: list[str], rows: list[list[Any]]) -> Iterator[str]:
    """Yield the lines of a GitHub-markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(str(entry) for entry in row)} |"


def main() -> None:
    """Parse the command line, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="small N, few seeds: under a minute")
    parser.add_argument("--workers", type=int, choices=(1, 2), default=2, help="processes")
    names = ("rounds", "noise", "participation", "exits")
    parser.add_argument("--only", choices=names, help="one of the tables; by default all")
    options = parser.parse_args()
    quick, workers = options.quick, options.workers
    sizes, seeds = ([2, 3, 10], 3) if quick else ([2, 3, 5, 10, 100, 1000, 10000], 5)
    n_nodes = 10 if quick else 50
    tables = (
        rounds_table(sizes, seeds, 300 if quick else 2000, workers),
        noise_table(n_nodes, 200 if quick else 1000, seeds, workers),
        participation_table(n_nodes, 500 if quick else 5000, seeds, workers),
        exits_table(n_nodes, 300, 20 if quick else 300, workers),
    )
    for name, table in zip(names, tables, strict=True):
        if options.only in (None, name):
            for line in table:
                print(line, flush=True)


if __name__ == "__main__":
    main()
