"""Results and regret of nodes and servers that learn only from their own utility.

Prints three GitHub-markdown tables, and draws a figure of the regrets:

1. S as a share of the closed form's, and the median distance of epsilon to it, over the second half
   of the rounds up to each horizon;
2. the mean regret of a node per round, against the best report of its grid in hindsight, as a share
   of B, and the bound of EXP3 on it;
3. what a server has lost against B* since the first round, by server rule and by the nodes'
behaviour.

    python benchmarks/dynamics/learners.py --quick
    python benchmarks/dynamics/learners.py --figure docs/images/learning_regret.png > tables.md
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import fcfn_abm as fa
from fcfn_abm.learning.exp3 import Exp3
from fcfn_abm.learning.grid import LARGEST_COST
from fcfn_abm.report.theme import theme

type Floats = npt.NDArray[np.float64]

RULES = ("exp3", "q-learning")
SERVERS = ("anticipate", "gradient", "bandit")
CROWDS: dict[str, dict[str, Any]] = {
    "half best responses": {},
    "half best responses, reports wrong by 5 %": {"information": {"noise": 0.05}},
    "q-learning": {"learning": "q-learning"},
}
COLOURS = ("#0072B2", "#D55E00", "#009E73")
DASHES = ("-", "--", ":")


def build(n_nodes: int, seed: int, n_rounds: int, **tables: Any) -> fa.PrivacyMarket:
    """Build a market of nodes whose costs are uniform within 10 %."""
    rho = 1 + 0.1 * np.random.default_rng(seed).uniform(-1, 1, n_nodes)
    tree = {
        "seed": seed,
        "population": {"n_nodes": n_nodes},
        "rounds": {"maximum": n_rounds},
        "record": {"traces": "none"},
        **tables,
    }
    return fa.PrivacyMarket(fa.Scenario.model_validate(tree), rho=rho)


@dataclass(frozen=True)
class Played:
    """Results of learners in a market."""

    total: Floats
    """S as a share of the closed form's, by round."""
    distance: Floats
    """Distance to the closed form, by round."""
    regret: Floats
    """Cumulative regret of a node, in units of B; mean over nodes, by round."""


def play_learners(rule: str, n_nodes: int, seed: int, n_rounds: int) -> Played:
    """Play learners under a fixed cap to the last round, regardless of the verdict."""
    tables = {"game": {"budget": 1.0}, "server": "fixed", "learning": rule}
    market = build(n_nodes, seed, n_rounds, **tables)
    rho, shares = market.columns.rho, market.groups[0].rule.shares
    grid = (shares[:, None] * LARGEST_COST / rho).T  # reports of each node, (n, actions)
    earned = np.zeros(n_nodes)
    possible = np.zeros(grid.shape)  # utility of each possible report of each node so far
    total, distance, regret = np.empty((3, n_rounds))
    for played in range(n_rounds):
        market.step()
        epsilon = market.columns.epsilon
        others = (epsilon.sum() - epsilon)[:, None]
        earned += market.columns.utility
        with np.errstate(invalid="ignore"):
            possible += np.where(grid > 0, grid / (grid + others), 0.0) - rho[:, None] * grid
        total[played] = epsilon.sum() / market.contest.total_epsilon
        distance[played] = market.state.distance
        regret[played] = (possible.max(axis=1) - earned).mean()
    return Played(total, distance, regret)


def play_server(server: str, crowd: str, seed: int, n_rounds: int) -> Floats:
    """Return a server's cumulative loss relative to B*, in currency."""
    market = build(10, seed, n_rounds, server=server, game={"alpha": 100.0}, **CROWDS[crowd])
    best = market.equilibrium.server_utility
    lost = np.empty(n_rounds)
    for played in range(n_rounds):
        market.step()
        lost[played] = best - market.state.server_utility
    return np.cumsum(lost)


def bound_exp3(n_rounds: Floats | int) -> Floats:
    """Return the bound on EXP3's regret per round, as a share of B."""
    n_actions = Exp3().levels + 1
    bound = 2 * np.sqrt(n_actions * math.log(n_actions) / np.asarray(n_rounds))
    return np.asarray((1 + LARGEST_COST) * bound)


def markdown(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Yield the lines of a GitHub-markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def reach_table(found: dict[tuple[str, int], list[Played]], horizons: list[int]) -> Iterator[str]:
    """Yield the lines of table 1."""
    yield "\n**S as a share of the closed form's, and median distance of epsilon**\n"
    rows = []
    for (rule, n_nodes), runs in found.items():
        cells = []
        for horizon in horizons:
            late = slice(horizon // 2, horizon)
            total = np.mean([run.total[late].mean() for run in runs])
            distance = np.mean([np.median(run.distance[late]) for run in runs])
            cells.append(f"{total:.2f} [{distance:.2f}]")
        rows.append([rule, f"{n_nodes}", *cells])
    yield from markdown(["rule", "N", *(f"T = {horizon:,}" for horizon in horizons)], rows)


def regret_table(found: dict[tuple[str, int], list[Played]], horizons: list[int]) -> Iterator[str]:
    """Yield the lines of table 2."""
    yield "\n**Mean regret of a node per round, as a share of B**\n"
    rows = [
        [
            rule,
            f"{n_nodes}",
            *(
                f"{np.mean([run.regret[horizon - 1] for run in runs]) / horizon:.4f}"
                for horizon in horizons
            ),
        ]
        for (rule, n_nodes), runs in found.items()
    ]
    rows.append(["bound of exp3", "any", *(f"{bound_exp3(horizon):.3f}" for horizon in horizons)])
    yield from markdown(["rule", "N", *(f"T = {horizon:,}" for horizon in horizons)], rows)


def server_table(found: dict[tuple[str, str], Floats], horizons: list[int]) -> Iterator[str]:
    """Yield the lines of table 3."""
    yield "\n**What the server has lost against B* after T rounds, in currency**\n"
    rows = [
        [crowd, server, *(f"{lost[:, horizon - 1].mean():.1f}" for horizon in horizons)]
        for (crowd, server), lost in found.items()
    ]
    yield from markdown(["nodes", "server", *(f"T = {horizon:,}" for horizon in horizons)], rows)


def draw(
    learners: dict[tuple[str, int], list[Played]], servers: dict[tuple[str, str], Floats]
) -> Any:
    """Draw the nodes' regret per round, and the servers' cumulative losses."""
    import matplotlib.pyplot as plt

    with theme():
        figure, grid = plt.subplots(2, 2, figsize=(11, 8))
        left, *right = grid.flat
        sizes = sorted({n_nodes for _, n_nodes in learners})
        for (rule, n_nodes), runs in learners.items():
            regret = np.mean([run.regret for run in runs], axis=0)
            rounds = np.arange(1, regret.size + 1)
            shown = np.unique(np.geomspace(10, regret.size, 200).astype(int)) - 1
            left.plot(
                rounds[shown],
                (regret / rounds)[shown],
                COLOURS[RULES.index(rule)],
                linestyle=DASHES[sizes.index(n_nodes)],
                label=f"{rule}, N = {n_nodes}",
            )
        left.plot(rounds[9:], bound_exp3(rounds[9:]), "0.5", label="bound of exp3")
        left.set(xscale="log", yscale="log", xlabel="round", ylabel="regret a round, share of B")
        left.set_title("Nodes", fontsize=11)
        left.set_ylim(bottom=2e-4)
        left.legend(fontsize=8, ncols=2, loc="lower left")
        for axes, crowd in zip(right, CROWDS, strict=True):
            for server, colour, dash in zip(SERVERS, COLOURS, DASHES, strict=True):
                lost = servers[crowd, server].mean(axis=0)
                rounds = np.arange(1, lost.size + 1)
                axes.plot(rounds, lost, colour, linestyle=dash, label=server)
            axes.set(xlabel="round", ylabel="lost against B* so far, currency")
            axes.set_title(f"Server; nodes: {crowd}", fontsize=11)
            axes.set_ylim(bottom=0)
        right[0].legend(fontsize=9)
    return figure


def main() -> None:
    """Print the tables, and draw the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed, and short horizons")
    parser.add_argument("--figure", type=Path, help="file for the figure")
    options = parser.parse_args()
    n_seeds, horizons = (
        (1, [100, 300, 1000]) if options.quick else (4, [1000, 3000, 10_000, 30_000])
    )
    server_horizons = [30, 100, 300] if options.quick else [100, 300, 1000, 3000]
    learners = {(rule, n): [] for rule in RULES for n in (2, 5, 10)}
    servers: dict[tuple[str, str], Floats] = {}
    total = n_seeds * (len(learners) + len(CROWDS) * len(SERVERS))
    with tqdm(total=total, unit="market", file=sys.stderr) as bar:
        for rule, n_nodes in learners:
            for seed in range(n_seeds):
                learners[rule, n_nodes].append(play_learners(rule, n_nodes, seed, horizons[-1]))
                bar.update()
        for crowd in CROWDS:
            for server in SERVERS:
                lost = []
                for seed in range(n_seeds):
                    lost.append(play_server(server, crowd, seed, server_horizons[-1]))
                    bar.update()
                servers[crowd, server] = np.array(lost)
    for table in (
        reach_table(learners, horizons),
        regret_table(learners, horizons),
        server_table(servers, server_horizons),
    ):
        for line in table:
            print(line, flush=True)
    if options.figure:
        draw(learners, servers).savefig(options.figure)


if __name__ == "__main__":
    main()
