"""Where a server that chooses its cap converges, and whether its verdict is right.

Prints one GitHub-markdown table: verdicts, B/B* and rounds by server rule, share of nodes that move
in a round, and distance d to the border of no trade, where ``alpha beta kappa = 1 + d``. B* is then
``beta d / (1 + d)``. Ten nodes, costs uniform within 10 %, half best responses in turn.

    python benchmarks/dynamics/leader.py --quick
    python benchmarks/dynamics/leader.py > table.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from fcfn_abm.abm.verdict import Verdict
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.game import nash_equilibrium
from fcfn_abm.scenario import Scenario

SERVERS = ("anticipate", "gradient")
SHARES = (1.0, 0.5, 0.1)
DISTANCES = (1e-4, 1e-3, 1e-2, 0.1, 1.0)
ALPHA = BETA = 10.0


def play(server: str, share: float, distance: float, seed: int, maximum: int) -> Verdict:
    """Play one market, with costs at a given distance from the border of no trade."""
    rho = 1 + 0.1 * np.random.default_rng(seed).uniform(-1, 1, 10)
    contest = nash_equilibrium(rho, 1.0)
    rho *= ALPHA * BETA * (contest.total_epsilon / contest.n_active) / (1 + distance)
    scenario = Scenario.model_validate(
        {
            "seed": seed,
            "population": {"n_nodes": rho.size},
            "game": {"alpha": ALPHA, "beta": BETA},
            "server": server,
            "rounds": {"participation": share, "maximum": maximum},
        }
    )
    verdict = PrivacyMarket(scenario, rho=rho).run_until()
    if verdict is None:
        raise RuntimeError("a finished market has no verdict")
    return verdict


def summarise(verdicts: Iterable[Verdict]) -> str:
    """Return a cell: verdicts, the B/B* farthest from one, and the median of the rounds."""
    verdicts = list(verdicts)
    kinds = [verdict.kind for verdict in verdicts]
    said = ", ".join(
        kind if kinds.count(kind) == len(kinds) else f"{kind} {kinds.count(kind)}"
        for kind in sorted(set(kinds))
    )
    ratios = [verdict.budget_ratio or 0.0 for verdict in verdicts]
    farthest = max(ratios, key=lambda ratio: abs(ratio - 1))
    rounds = np.median([verdict.rounds for verdict in verdicts])
    return f"{said}; {farthest:.5f}; {rounds:,.0f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one seed, and at most 2,000 rounds")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--maximum", type=int, default=50_000, help="maximum number of rounds")
    given = parser.parse_args()
    seeds = range(1 if given.quick else given.seeds)
    maximum = 2_000 if given.quick else given.maximum
    heads = ("server", "participation", *(f"d = {distance:g}" for distance in DISTANCES))
    print("|", " | ".join(heads), "|")
    print("|", " | ".join("---" for _ in heads), "|")
    bar = tqdm(total=len(SERVERS) * len(SHARES) * len(DISTANCES) * len(seeds), file=sys.stderr)
    for server in SERVERS:
        for share in SHARES:
            cells = []
            for distance in DISTANCES:
                verdicts = []
                for seed in seeds:
                    verdicts.append(play(server, share, distance, seed, maximum))
                    bar.update()
                cells.append(summarise(verdicts))
            print("|", " | ".join((server, f"{share:g}", *cells)), "|", flush=True)


if __name__ == "__main__":
    main()
