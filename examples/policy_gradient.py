"""Nodes that learn by policy gradient, in the market as a PettingZoo environment.

Each node draws its action from a log-normal distribution whose median it learns by REINFORCE
(Williams 1992): the median moves in the direction of better-paid draws. Before the update, the part
of a round's reward explained by the others' total is removed by least squares; each node observes
this total after the round. This keeps the gradient and removes most of its noise. No node knows
the game or another node's cost.

    pip install 'fcfn-abm[env]'
    python examples/policy_gradient.py             # five nodes: half a minute
    python examples/policy_gradient.py --nodes 3 --seed 2
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import fcfn_abm as fa

type Floats = npt.NDArray[np.float64]

BATCH = 50
"""Rounds per update of the medians."""
STEP = 6.0
"""Step of ln(median) per unit of the gradient of utility / B; decreases during training."""
SPREAD = (0.3, 0.03)
"""Standard deviation of ln(action), in the first batch and in the last."""


@dataclass(frozen=True)
class Training:
    """Result of a training; arrays have shape (n_nodes,)."""

    epsilon: Floats
    """The median report of each node."""
    equilibrium: Floats
    """Epsilon of the closed form."""

    @property
    def distance(self) -> float:
        """The largest relative error of a report."""
        return float(np.abs(self.epsilon / self.equilibrium - 1).max())


def train(n_nodes: int = 5, n_rounds: int = 40_000, seed: int = 1) -> Training:
    """Train the nodes of a market with a fixed cap, simultaneously."""
    scenario = fa.Scenario.model_validate(
        {
            "seed": seed,
            "population": {"n_nodes": n_nodes, "rho": {"kind": "uniform", "low": 0.8, "high": 1.2}},
            "game": {"budget": 1.0},
            "server": "fixed",
            "rounds": {"maximum": n_rounds},
        }
    )
    market = fa.env(scenario)
    others = market.observation_names("node_0").index("others")
    chance = np.random.default_rng(seed)
    market.reset()
    median = np.log(np.full(n_nodes, 0.3))  # median of the action, a share of B / (4 rho)
    n_batches = n_rounds // BATCH
    for batch in range(n_batches):
        progress = batch / n_batches
        spread = SPREAD[0] * (SPREAD[1] / SPREAD[0]) ** progress
        draws = chance.standard_normal((BATCH, n_nodes))
        reward, seen = np.empty((BATCH, n_nodes)), np.empty((BATCH, n_nodes))
        for played, draw in enumerate(draws):
            action = np.minimum(np.exp(median + spread * draw), 1.0)
            observed, rewards, *_ = market.step(dict(zip(market.agents, action, strict=True)))
            reward[played] = list(rewards.values())
            seen[played] = [observation[others] for observation in observed.values()]
        gradient = (draws * remove_explained(reward, seen)).mean(axis=0) / spread
        median += STEP * (1.0 - 0.9 * progress) * np.clip(gradient, -0.05, 0.05)
        median = np.minimum(median, 0.0)
    rho = market.market.columns.rho
    epsilon = np.exp(median) * scenario.game.budget / (4 * rho)
    return Training(epsilon, fa.nash_equilibrium(rho, scenario.game.budget).epsilon)


def remove_explained(reward: Floats, others: Floats) -> Floats:
    """Return rewards, shape (rounds, n), minus their linear regression on the others' total."""
    reward, others = reward - reward.mean(axis=0), others - others.mean(axis=0)
    slope = (reward * others).sum(axis=0) / np.maximum((others**2).sum(axis=0), 1e-300)
    return np.asarray(reward - slope * others)


def main() -> None:
    """Train, and print the nodes' epsilons."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    trained = train(options.nodes, options.rounds, options.seed)
    print("node  learned epsilon   equilibrium")
    for row, (learnt, best) in enumerate(zip(trained.epsilon, trained.equilibrium, strict=True)):
        print(f"{row:4d}   {learnt:14.4f}   {best:11.4f}")
    print(f"largest relative error: {100 * trained.distance:.1f} %")


if __name__ == "__main__":
    main()
