"""Cost of a round, as ratios within one run: to plain Mesa, and to memory bandwidth.

    python benchmarks/abm/rounds.py [--quick] [--mesa-frames PYTHON]

PYTHON is an interpreter with mesa-frames; without it that table is omitted.

Prints GitHub Markdown. Machines are shared and noisy, so only ratios count. Each is between the
best of several repetitions in this process, on one core.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from contextlib import nullcontext
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import plain_loop
from plain_mesa import PlainMarket

from fcfn_abm.abm import stretch
from fcfn_abm.abm.compiled import TurnLoop, move_at_once
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.game import nash_equilibrium
from fcfn_abm.learning import LEARNING_RULES
from fcfn_abm.records import Recorder, TraceWriter
from fcfn_abm.rng import stream
from fcfn_abm.scenario import RecordSettings, Scenario

BUDGET = 3.0


def market(n_nodes, order="in_turn", rule="best-response", rho=None, groups=None, cap=BUDGET):
    """Build a market with a fixed cap and steps that converge."""
    damped = order == "simultaneous" and rule in {"best-response", "gradient"}
    tree = {
        "seed": 1,
        "population": {
            "n_nodes": n_nodes,
            "rho": {"kind": "uniform"},
            **({"groups": groups} if groups else {}),
        },
        "game": {"budget": cap},
        "server": {"kind": "fixed"},
        "learning": {"kind": rule, **({"gain": "auto"} if damped else {})},
        "rounds": {"order": order},
    }
    return PrivacyMarket(Scenario.model_validate(tree), rho=rho)


def best(function, repetitions=5):
    """Return the shortest of several times, in seconds."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def moves(made, rows=None):
    """Return the moves of a round: in this order, or simultaneous."""
    played = made.round
    form = played.groups[0].rule.scalar_moves(played.n_active)
    if rows is None:
        return lambda: move_at_once(played, played.groups[0], form, slice(None))
    loop = TurnLoop(played, [form], {})
    return lambda: loop.move(rows)


def random_order(n_nodes):
    """Return an order of moves in row numbers of the type used in play."""
    return stream(1, "turns").permutation(n_nodes).astype(np.int32)


def streaming_pass(made):
    """Read and write the data of a pass over the nodes once, in NumPy: the memory limit."""
    columns = made.columns
    for column in (columns.rho, columns.exit_round):
        column.sum()
    for column in (columns.epsilon, columns.idle_rounds, columns.memory["caution"]):
        np.add(column, 0, out=column)


def table(head, rows):
    """Print a markdown table."""
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def passes(sizes):
    """Measure the cost of moves and of whole rounds, by size."""
    rows = []
    for n_nodes in sizes:
        cells = [f"{n_nodes:,}"]
        for order in ("in_turn", "simultaneous"):
            made = market(n_nodes, order)
            for _ in range(2):
                made.step()
            whole = best(made.step, 3)
            movers = np.arange(n_nodes)
            shuffled = random_order(n_nodes)
            if order == "in_turn":
                ways = [moves(made, rows) for rows in (shuffled, movers)]
            else:
                ways = [moves(made)]
            limit = best(lambda m=made: streaming_pass(m))
            times = [best(way) for way in ways]
            cells += [f"{1e9 * t / n_nodes:.1f}" for t in times]
            cells += [f"{times[-1] / limit:.2f}", f"{1e9 * whole / n_nodes:.0f}"]
        rows.append(cells)
    print("**Moves and whole rounds, half best responses: ns per node**\n")
    table(
        [
            "N",
            "in turn, random order",
            "fixed order",
            "over a streaming pass",
            "whole round",
            "at once",
            "over a streaming pass",
            "whole round",
        ],
        rows,
    )


GROUPS = {
    "half steps, and steps of 0.3": {"kind": "best-response", "gain": 0.3},
    "best responses, and gradients": {"kind": "gradient"},
    "best responses, and imitators": {"kind": "replicator"},
    "best responses, and fictitious play": {"kind": "fictitious-play"},
}


def groups(n_nodes):
    """Cost of a whole round with two groups of equal size, over one of best responses."""
    times = {}
    for name, rule in {"one": None, **GROUPS}.items():
        two = [{"name": "a", "share": 0.5}, {"name": "b", "learning": rule}]
        made = market(n_nodes, groups=two if rule else None)
        for _ in range(2):
            made.step()
        times[name] = best(made.step, 7)
    print(f"**A round in turn with two groups, N = {n_nodes:,}, over one of best responses**\n")
    table(["two groups", "over one"], [[n, f"{times[n] / times['one']:.2f}"] for n in GROUPS])


def rules(n_nodes):
    """Cost of a whole round with each rule, in turn and at once, over best responses."""
    times = {}
    for kind in LEARNING_RULES:
        for order in ("in_turn", "simultaneous"):
            made = market(n_nodes, order, kind)
            for _ in range(2):
                made.step()
            times[kind, order] = best(made.step, 3)
    base = times["best-response", "in_turn"]
    print(f"**A whole round of each rule, N = {n_nodes:,}, over one of best responses in turn**\n")
    table(
        ["rule", "in turn, random order", "at once"],
        [
            [
                kind,
                *(f"{times[kind, order] / base:.2f}" for order in ("in_turn", "simultaneous")),
            ]
            for kind in LEARNING_RULES
        ],
    )


def tracing(n_nodes, n_rounds=32, repetitions=2):
    """Time what each kind of trace adds to rounds, including the last bytes on disk."""
    rows = []
    for order in ("in_turn", "simultaneous"):
        times = dict.fromkeys(("none", "sample", "last:4", "all"), float("inf"))
        for _ in range(repetitions):
            for traces in times:
                made = market(n_nodes, order)
                expected = made.equilibrium.active
                made.step()
                with tempfile.TemporaryDirectory() as folder:
                    start = time.perf_counter()
                    parts = Path(folder) / "parts"
                    writer = TraceWriter(parts, parts) if traces == "all" else nullcontext()
                    with writer as stream_:
                        settings = RecordSettings(traces=traces)
                        recorder = Recorder(settings, made.columns.rho, expected, stream_)
                        for _ in range(n_rounds):
                            made.step()
                            recorder(made)
                    times[traces] = min(times[traces], time.perf_counter() - start)
        added = [f"{t / times['none'] - 1:+.0%}" for t in list(times.values())[1:]]
        rows.append([order.replace("_", " "), *added])
    print(
        f"**What traces add to {n_rounds} rounds of N = {n_nodes:,}, on {os.cpu_count()} cores**\n"
    )
    table(["", "sample (default)", "last:4", "all, streamed"], rows)


def against_mesa(n_nodes):
    """Plain Mesa agents with the same game, the same start, in random turns."""
    made = market(n_nodes)
    plain = PlainMarket(made.columns.rho, made.columns.epsilon.copy(), BUDGET)
    for _ in range(2):
        made.step()
        plain.step()
    ours = best(moves(made, random_order(n_nodes)))
    whole = best(made.step, 3)
    theirs = best(plain.step, 2)
    print(f"**Against plain Mesa, N = {n_nodes:,}, in turn**\n")
    table(
        ["", "times plain Mesa's round"],
        [
            ["moves alone", f"{theirs / ours:.0f} times faster"],
            ["whole round, measured and paid", f"{theirs / whole:.0f} times faster"],
        ],
    )
    for _ in range(15):
        made.step()
        plain.step()
    close = abs(plain.total_epsilon / made.total_epsilon - 1)
    print(f"Both reach the same total (relative difference {close:.1e}).\n")


def against_mesa_frames(n_nodes, python):
    """All moves at once, against Polars frames, in a process of its own."""
    script = Path(__file__).parent / "mesa_frames_market.py"
    made = market(n_nodes, "simultaneous")
    for _ in range(2):
        made.step()
    ours = best(moves(made))
    rows = []
    for threads in ("1", "2"):
        done = subprocess.run(
            [python, str(script), str(n_nodes)],
            env={**os.environ, "POLARS_MAX_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        )
        rows.append([f"mesa-frames on {threads} core(s)", f"{float(done.stdout) / ours:.1f}"])
    print(f"**Against mesa-frames, N = {n_nodes:,}, at once: its moves over ours (on one core)**\n")
    table(["", "times"], rows)


def round_by_round(made):
    """Play to the verdict round by round, as if each round were displayed."""
    pays, stretch.pays = stretch.pays, lambda _: False
    try:
        made.run_until()
    finally:
        stretch.pays = pays


def whole_markets(sizes):
    """Markets from the first round to their verdict, built beforehand, and a plain loop of them."""
    stretch.count_single_moves(stretch.LOADING)
    rows = []
    for n_nodes in sizes:
        made = market(n_nodes, cap=5.0)
        rho, start = made.columns.rho.copy(), made.columns.epsilon.copy()
        rounds = made.run_until().rounds
        n_plain = plain_loop.play(rho, start.copy(), 5.0, 1e-9, 3, 1000, 1)
        alone = best_of(lambda n=n_nodes: market(n, cap=5.0), round_by_round, 5) / rounds
        ahead = best_of(lambda n=n_nodes: market(n, cap=5.0), PrivacyMarket.run_until, 40) / rounds
        build = best(lambda n=n_nodes: market(n, cap=5.0), 20)
        plain = best_of(
            start.copy, lambda e, rho=rho: plain_loop.play(rho, e, 5.0, 1e-9, 3, 1000, 1), 40
        )
        rows.append(
            [
                f"{n_nodes:,}",
                f"{rounds}",
                f"{1e3 * ahead * rounds:.2f}",
                f"{1e3 * build:.2f}",
                f"{alone / ahead:.0f}",
                f"{ahead / (plain / n_plain):.1f}",
            ]
        )
    print("**Whole markets in turn, from the first round to the verdict**\n")
    table(
        [
            "N",
            "rounds",
            "ms to play",
            "ms to build, scenario included",
            "times faster than round by round",
            "over a plain compiled loop, a round",
        ],
        rows,
    )


def best_of(make, function, repetitions):
    """Return the shortest time of a function of a newly created object, in seconds."""
    times = []
    for _ in range(repetitions):
        made = make()
        start = time.perf_counter()
        function(made)
        times.append(time.perf_counter() - start)
    return min(times)


def loading(repetitions=5):
    """Measure the time of a new process to its first compiled market, with cached code."""
    code = (
        "import time, fcfn_abm\n"
        "from fcfn_abm.abm import stretch\n"
        "from fcfn_abm.build.market import PrivacyMarket\n"
        "stretch.count_single_moves(stretch.LOADING)\n"
        "start = time.perf_counter()\n"
        "PrivacyMarket().run_until()\n"
        "print(time.perf_counter() - start)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(repetitions)
    ]
    print(f"A fresh process loads numba and plays its first market in {min(times[1:]):.2f} s.\n")


def memory(n_nodes):
    """Measure the bytes per node, of rows and of plain agents."""
    rho = np.linspace(1.0, 1.5, n_nodes)
    tracemalloc.start()
    made = market(n_nodes, rho=rho)
    ours = tracemalloc.get_traced_memory()[0] / n_nodes
    held = [v for v in vars(made.columns).values() if isinstance(v, np.ndarray)]
    held += list(made.columns.memory.values())
    columns = sum(v.nbytes for v in held) / n_nodes
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    plain = PlainMarket(rho, np.ones(n_nodes), BUDGET)
    theirs = (tracemalloc.get_traced_memory()[0] - before) / n_nodes
    tracemalloc.stop()
    build = best(lambda: market(n_nodes, rho=rho), 3)
    build_plain = best(lambda: PlainMarket(rho, np.ones(n_nodes), BUDGET), 1)
    del plain
    print(f"**Memory and building, N = {n_nodes:,}**\n")
    table(
        ["", "rows", "plain Mesa agents"],
        [
            ["bytes per node, including columns", f"{ours:.0f}", f"{theirs:.0f}"],
            ["bytes per node beyond the columns", f"{ours - columns:.0f}", f"{theirs:.0f}"],
            ["building, relative", "1", f"{build_plain / build:.0f}"],
        ],
    )


def closed_form(sizes):
    """Measure the growth of the closed form, and of a whole run of the aggregate rule."""
    rows = []
    for n_nodes in sizes:
        laws = {
            "uniform": np.random.default_rng(1).uniform(0.5, 1.5, n_nodes),
            "nearly equal": 1.0 + 1e-9 * np.random.default_rng(1).standard_normal(n_nodes),
        }
        sort = best(lambda laws=laws: np.sort(laws["uniform"]), 3)
        times = [best(lambda r=rho: nash_equilibrium(r, 1.0), 3) for rho in laws.values()]

        def run(n_nodes=n_nodes):
            made = market(n_nodes, "simultaneous", "aggregate")
            verdict = made.run_until()
            if verdict.kind != "converged":
                raise RuntimeError(verdict.reason)

        whole = best(run, 1)
        cells = [f"{n_nodes:,}", *(f"{t / sort:.2f}" for t in times), f"{whole / sort:.0f}"]
        rows.append([*cells, f"{1e9 * whole / n_nodes:.0f}"])
    print("**The closed form, and a whole run with the rule `aggregate` to exploitability 1e-9**\n")
    table(
        [
            "N",
            "closed form over np.sort: uniform costs",
            "nearly equal costs",
            "whole run over np.sort",
            "whole run: ns per node",
        ],
        rows,
    )


def main():
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="up to 10^5 nodes")
    parser.add_argument("--mesa-frames", metavar="PYTHON", help="a Python that has mesa-frames")
    options = parser.parse_args()
    quick = options.quick
    loading()
    whole_markets([50, 1000])
    largest = 5 if quick else 7
    passes([10**k for k in range(3, largest + 1)])
    rules(10**4 if quick else 10**6)
    groups(10**4 if quick else 10**6)
    tracing(10**5 if quick else 10**6)
    against_mesa(10**4 if quick else 10**6)
    if options.mesa_frames:
        against_mesa_frames(10**5 if quick else 10**6, options.mesa_frames)
    memory(10**4 if quick else 10**6)
    closed_form([10**k for k in range(4, min(largest, 6) + 1)])


if __name__ == "__main__":
    main()
