"""An emulator of the market: a fast model fitted to many runs, and its errors.

Draws populations and servers over decades, plays their markets (``fcfn sweep``), and fits
gradient-boosted trees to four fifths of the points. On the others it compares the predictions with
the markets' outcomes, and with the randomness of the draw, which no emulator can predict for new
draws: each point is played twice, with different nodes of the same distribution.

    pip install 'fcfn-abm[train]'                   # for scikit-learn
    python examples/emulator.py --workers 2         # 100,000 markets
    python examples/emulator.py --markets 4000      # a first look
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

import fcfn_abm as fa
from fcfn_abm.process.workers import Processes, count_cores

type Floats = npt.NDArray[np.float64]

INPUTS = {
    "population.n_nodes": "nodes N",
    "population.rho.sigma": "spread of costs",
    "game.alpha": "alpha",
    "game.beta": "beta",
}
OUTCOMES = {"participation": "participation", "budget": "cap B"}
REPLICATIONS = 2
HELD_OUT = 0.2
"""Share of the points held out of the fit."""


@dataclass(frozen=True)
class Emulation:
    """Predictions of an emulator of one outcome for held-out points."""

    outcome: str
    """Column of the sweep's table."""
    points: pd.DataFrame
    """One row per held-out point: inputs, ``played`` (mean of its runs), ``predicted``, ``luck``
    (standard deviation of one run around its point's mean), ``trades`` (share of its runs)."""
    spread: float
    """Standard deviation of the outcome over the held-out points."""

    @property
    def error(self) -> float:
        """Root mean square error of the predictions."""
        return float(np.sqrt(((self.points["predicted"] - self.points["played"]) ** 2).mean()))

    @property
    def luck(self) -> float:
        """Standard deviation of the mean of a point's runs over draws of its nodes.

        All points share their two seeds, so an emulator of many points learns these draws, and its
        error can be smaller; for other draws it is at least this large.
        """
        return float(np.sqrt((self.points["luck"] ** 2).mean() / REPLICATIONS))

    @property
    def explained(self) -> float:
        """R squared: share of the variance over points that the emulator explains."""
        return 1.0 - (self.error / self.spread) ** 2


def load_sweep(n_markets: int) -> fa.Scenario:
    """Return a sweep of ``n_markets`` markets over a Latin hypercube of the four inputs."""
    sweep = {
        "mode": '"latin-hypercube"',
        "n_samples": n_markets // REPLICATIONS,
        "replications": REPLICATIONS,
        "maximum": max(n_markets, 10_000),
    }
    return fa.load_scenario(
        "heterogeneity/sensitivity", [f"sweep.{key}={value}" for key, value in sweep.items()]
    )


def emulate(frame: pd.DataFrame, outcome: str) -> Emulation:
    """Fit an emulator of an outcome to a sweep's table, and predict the held-out points.

    Parameters
    ----------
    frame : DataFrame
        Table of a sweep from :func:`load_sweep`.
    outcome : str
        One of its columns.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    done = frame[frame["status"] == "done"]
    runs = done.assign(trades=done["budget"] > 0).groupby(done["run"] // REPLICATIONS)
    points = runs[list(INPUTS)].first()
    points["played"], points["trades"] = runs[outcome].mean(), runs["trades"].mean()
    points["luck"] = runs[outcome].std(ddof=1)
    held_out = np.arange(len(points)) % round(1 / HELD_OUT) == 0
    inputs = np.log(points[list(INPUTS)])
    trees = HistGradientBoostingRegressor(max_iter=500, learning_rate=0.05, random_state=0)
    trees.fit(inputs[~held_out], points["played"][~held_out])
    unseen = points[held_out].assign(predicted=trees.predict(inputs[held_out]))
    return Emulation(outcome, unseen, float(unseen["played"].std(ddof=0)))


def errors_by(emulation: Emulation, values: pd.Series, edges: Floats) -> pd.DataFrame:
    """Return the error and the luck of the draw of points in each range of a value."""
    points = emulation.points
    squares = pd.DataFrame(
        {
            "points": 1,
            "error": (points["predicted"] - points["played"]) ** 2,
            "luck": points["luck"] ** 2 / REPLICATIONS,
        }
    )
    ranges = pd.Series(np.searchsorted(edges, values.to_numpy()), index=values.index)
    table = squares.groupby(ranges).agg({"points": "sum", "error": "mean", "luck": "mean"})
    table[["error", "luck"]] = np.sqrt(table[["error", "luck"]])
    return table


def describe(emulation: Emulation) -> str:
    """Describe how well an outcome is emulated, and where errors are large."""
    points = emulation.points
    lines = [
        f"{OUTCOMES[emulation.outcome]}: R2 = {emulation.explained:.4f}, root mean square error "
        f"{emulation.error:.4f} for {len(points):,} points held out (spread over points "
        f"{emulation.spread:.4f}; another draw of nodes changes a point by {emulation.luck:.4f})"
    ]
    edge = points["trades"].between(0, 1, inclusive="neither")
    for name, where in (
        ("all trade", points["trades"] == 1),
        ("no trade", points["trades"] == 0),
        ("trade in one draw of two", edge),
    ):
        if where.any():
            square = (points["predicted"] - points["played"])[where] ** 2
            lines.append(f"  {name:24} {where.sum():6,} points, error {np.sqrt(square.mean()):.4f}")
    for name, label in INPUTS.items():
        values = points[name]
        edges = np.geomspace(values.min() * (1 - 1e-9), values.max() * (1 + 1e-9), 4)
        table = errors_by(emulation, values, edges)
        for low, high, error, luck in zip(
            edges, edges[1:], table["error"], table["luck"], strict=False
        ):
            lines.append(
                f"  {label:16} {low:8.3g} to {high:8.3g}: error {error:.4f}, luck {luck:.4f}"
            )
    return "\n".join(lines)


def draw(emulations: list[Emulation], file: Path) -> None:
    """Draw predicted against played outcomes, one panel per outcome."""
    import matplotlib.pyplot as plt

    from fcfn_abm.report.theme import theme

    with theme():
        figure, panels = plt.subplots(1, len(emulations), figsize=(9, 4), layout="constrained")
        for emulation, axes in zip(emulations, panels, strict=True):
            points = emulation.points
            axes.axline((0, 0), slope=1, color="0.6", linewidth=1)
            spread = points["population.rho.sigma"]
            dots = axes.scatter(
                points["played"], points["predicted"], c=spread, s=4, norm="log", cmap="viridis"
            )
            axes.set_xlabel(f"{OUTCOMES[emulation.outcome]}, played")
            axes.set_ylabel(f"{OUTCOMES[emulation.outcome]}, emulated")
        figure.colorbar(dots, ax=panels, label=r"spread of costs, $\sigma$ of ln $\rho$")
        figure.savefig(file, dpi=120)
        plt.close(figure)


def main() -> None:
    """Play the missing markets, fit the emulators, and print their errors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--markets", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=count_cores())
    parser.add_argument("--out", type=Path, help="folder of the sweep")
    parser.add_argument("--figure", type=Path, help="file for the figure")
    args = parser.parse_args()
    out = args.out or Path("results") / f"emulator-{args.markets}"
    sweep = fa.run_sweep(load_sweep(args.markets), out, Processes(args.workers), progress=True)
    frame = sweep.frame()
    emulations = [emulate(frame, outcome) for outcome in OUTCOMES]
    print(f"{len(frame):,} markets, {(frame['status'] == 'failed').sum()} failed")
    print("\n".join(map(describe, emulations)))
    if args.figure:
        draw(emulations, args.figure)


if __name__ == "__main__":
    main()
