"""Figure 17: accuracy with the epsilons of three mechanisms, on EMNIST and CIFAR-10."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

import fcfn_abm as fa
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.records import raise_as_output_error
from fcfn_abm.report.theme import ARM_COLOURS, ARM_DASHES, theme
from fcfn_abm.rng import replication_seed
from fcfn_abm.runs.data import find_data_set
from fcfn_abm.scenario import Scenario, to_toml
from fcfn_zhou2023.base import (
    Finding,
    Scenarios,
    Setting,
    Study,
    hash_code,
    number,
    pick,
    rows,
    scenario_of,
    table,
)
from fcfn_zhou2023.methods import NAMES, THREE, TYPES, costs_of, solve_yang

EXACT_TRAINING = ["privacy.calibration=analytic", "privacy.horizon=training"]
READINGS: dict[str, list[str]] = {
    "printed-round": ["privacy.calibration=classical", "privacy.horizon=round"],
    "exact-training": EXACT_TRAINING,
    "two-types": [
        *EXACT_TRAINING, "population.rho.kind=two-group", f"population.rho.low={TYPES[0]}",
        f"population.rho.high={TYPES[1]}",
    ],
}  # fmt: skip
TITLES = {
    "printed-round": "(2), ε for one round",
    "exact-training": "exact noise, ε for all rounds",
    "two-types": "two types of cost, exact, all rounds",
}
FREE = ("printed-round", "two-types")
"""Readings that also train without noise; the other's nets would equal those of the first."""
FILES = {"EMNIST": "fig17", "CIFAR-10": "fig17-cifar10"}
STORED = {"EMNIST": "emnist", "CIFAR-10": "cifar10"}
STAND_IN = "handwritten digits, 8 x 8, which stand in for both data sets"
N_SEEDS = {"fast": 5, "full": 3}
FAST = [
    "population.n_nodes=100", "training.rounds=15", "training.local_epochs=1",
    "training.momentum=0.0", "training.net.kind=digits-cnn",
]  # fmt: skip
"""A tenth of the clients, a small net, and one step per round on all samples of a client, for which
exact noise is provably private."""
STEPS = {"EMNIST": "training.learning_rate=2.0", "CIFAR-10": "training.learning_rate=1.0"}
FEW_IMAGES = [
    "training.data.split=own", "training.data.n_train=2000", "training.data.n_test=1000",
]  # fmt: skip
LABELS = {**{name: NAMES[name] for name in THREE}, "no-noise": "no noise"}
UNDER: dict[str, dict[str, float]] = {"stackelberg": {"linewidth": 4.5, "alpha": 0.5, "zorder": 2}}
OVER: dict[str, float] = {"zorder": 3}
"""Line styles: one visible below another, and all others."""


def load(setting: Setting) -> Scenarios:
    """Return a scenario for each data set and reading; small ones with the available data."""
    found = {}
    for data, file in FILES.items():
        changes: list[str] = []
        if setting.size == "fast":
            there = find_data_set(STORED[data]) is not None
            changes = [
                *FAST,
                STEPS[data],
                *(FEW_IMAGES if there else ["training.data.kind=digits"]),
            ]
            data = data if there else STAND_IN
        for reading, meant in READINGS.items():
            scenario = scenario_of(file, [*changes, *meant])
            n, two_types = scenario.population.n_nodes, reading == "two-types"
            market = scenario_of(file, changes)
            sold = solve_yang(costs_of(market, n, two_types=two_types), market.game.alpha)
            assert sold is not None  # noqa: S101 - there is a solution at these numbers
            epsilon = f"mechanism.epsilon={float(sold.epsilon.mean())!r}"
            yang = scenario_of(file, [*changes, *meant, "mechanism.kind=static", epsilon])
            if reading not in FREE:
                scenario = _comparing(scenario, ("ic-mle",))
            found[f"{data}|{reading}"] = scenario
            found[f"{data}|{reading}|yang"] = _comparing(yang, ())
    return found


def _comparing(scenario: Scenario, arms: tuple[str, ...]) -> Scenario:
    assert scenario.training is not None  # noqa: S101 - the scenario has the table
    return scenario.model_copy(
        update={"training": scenario.training.model_copy(update={"compare": arms})}
    )


def train_once(scenario: Scenario, folder: Path, setting: Setting) -> fa.Record:
    """Train, or return the record of an earlier training of the same scenario and code."""
    code, beside = _code(), folder.with_name(f"{folder.name}.code")
    if folder.is_dir() and beside.is_file() and beside.read_text(encoding="utf-8") == code:
        record = fa.read_record(folder)
        if to_toml(record.scenario) == to_toml(scenario):
            return record
    record = fa.run_scenario(
        scenario, folder, overwrite=True, progress=setting.progress, workers=setting.workers
    )
    with raise_as_output_error(beside):
        beside.write_text(code, encoding="utf-8")
    return record


@cache
def _code() -> str:
    """Return a hash of the code that markets and trainings come from."""
    return hash_code(Path(fa.__file__).parent, "cli", "report", "viz")


def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:
    """Train all, once for each seed, and return accuracy and signal to noise by round."""
    parts = []
    todo = list(product(range(N_SEEDS[setting.size]), scenarios.items()))
    with progress_bar(len(todo), "fig17", "training", shown=setting.progress) as bar:
        for replication, (name, scenario) in todo:
            data, reading, *yang = name.split("|")
            seeded = scenario.model_copy(
                update={"seed": replication_seed(scenario.seed, replication)}
            )
            short = data.split(",")[0].replace(" ", "-").lower()
            folder = "-".join((short, reading, *yang, str(replication)))
            record = train_once(seeded, setting.out / "runs" / folder, setting)
            for arm, rounds in record.training.groupby("arm", sort=False):
                at = {
                    "panel": data, "reading": reading, "series": yang[0] if yang else str(arm),
                    "x": rounds["round"],
                    "x_name": "round", "replication": replication,
                }  # fmt: skip
                parts += [
                    rows("accuracy", rounds["accuracy"], **at),
                    rows(
                        "signal_to_noise", rounds["signal_to_noise"].replace(np.inf, np.nan), **at
                    ),
                ]
            if replication == 0 and reading == "printed-round":
                parts += _sizes(data, record, *yang)
            bar.update()
    return table(parts)


def _sizes(data: str, record: fa.Record, yang: str = "") -> list[pd.DataFrame]:
    arms = {arm["name"]: arm["mean_epsilon"] for arm in record.run["training"]["arms"]}
    if yang:
        arms = {yang: next(iter(arms.values()))}
    sizes = {} if yang else {
        "n_nodes": len(record.nodes),
        "n_rounds": record.training["round"].max(),
        "n_images": record.nodes["n_samples"].sum(),
        "n_parameters": record.run["training"]["n_parameters"],
        "n_classes": 62 if data == "EMNIST" else 10,
    }  # fmt: skip
    return [
        *(rows(name, value, panel=data) for name, value in sizes.items()),
        *(rows("epsilon", value, panel=data, series=arm) for arm, value in arms.items()),
    ]


def draw(values: pd.DataFrame) -> Figure:
    """Draw a row for each data set, and a panel for each reading: means, and all seeds."""
    data_sets = list(dict.fromkeys(values["panel"]))
    with theme():
        figure = Figure(figsize=(13, 0.9 + 3.6 * len(data_sets)))
        shape = (len(data_sets), len(READINGS))
        grid = figure.subplots(*shape, sharex=True, sharey="row", squeeze=False)
        for line, data in zip(grid, data_sets, strict=True):
            chance = 1 / number(values, panel=data, quantity="n_classes")
            free = pick(values, panel=data, series="no-noise", quantity="accuracy")
            for axes, (reading, title) in zip(line, TITLES.items(), strict=True):
                some = pick(values, panel=data, reading=reading, quantity="accuracy")
                if reading not in FREE:
                    some = table([some, pick(free, reading=FREE[0])])
                for arm, label in LABELS.items():
                    of_arm = pick(some, series=arm)
                    mean = of_arm.groupby("x")["value"].mean()
                    style = {
                        "color": ARM_COLOURS[arm], "dashes": ARM_DASHES[arm] or (None, None),
                    }  # fmt: skip
                    axes.plot(mean.index, mean, label=label, **{**style, **UNDER.get(arm, OVER)})
                    for _, seed in of_arm.groupby("replication"):
                        axes.plot(
                            seed["x"], seed["value"], linewidth=0.5, alpha=0.35, zorder=1, **style
                        )
                axes.axhline(chance, color="0.6", linewidth=0.8, label="chance")
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
                axes.set_title(title, fontsize="medium")
                axes.yaxis.set_major_formatter("{x:.0%}")
                axes.text(0.03, 0.96, _ratio(values, data, reading), transform=axes.transAxes,
                          va="top", fontsize="small", color="0.25")  # fmt: skip
            line[0].set_ylabel(f"{data.split(',')[0]}\ntest accuracy")
            line[0].set_ylim(0, 1.25 * free["value"].max())
        for axes in grid[-1]:
            axes.set_xlabel("communication round")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def _ratio(values: pd.DataFrame, data: str, reading: str) -> str:
    of_ours = pick(values, panel=data, reading=reading, series="stackelberg")
    ratio = pick(of_ours, quantity="signal_to_noise")["value"].median()
    return f"ours: signal to noise {ratio:.2g}"


def judge(values: pd.DataFrame) -> Iterator[Finding]:
    """Test whether ours is more accurate at the end than another method, by seed."""
    for other in ("ic-mle", "yang"):
        for reading in READINGS:
            described, better = [], []
            for data in dict.fromkeys(values["panel"]):
                gain = gains(values, data, reading, other)
                mean, half = 100 * gain.mean(), 100 * half_interval(gain)
                last = {
                    arm: 100 * final(values, data, reading, arm).mean()
                    for arm in ("stackelberg", other)
                }
                better.append(bool(mean - half > 0))
                described.append(
                    f"{data.split(',')[0]}: ours {last['stackelberg']:.1f} %, {NAMES[other]} "
                    f"{last[other]:.1f} %, difference {mean:+.1f} +- {half:.1f} points"
                )
            yield Finding(f"fig17-{other}", reading, all(better), "; ".join(described))


def final(values: pd.DataFrame, data: str, reading: str, arm: str) -> pd.Series[float]:
    """Return the final accuracy of a training, by seed."""
    some = pick(values, panel=data, reading=reading, series=arm, quantity="accuracy")
    return pick(some, x=some["x"].max()).set_index("replication")["value"]


def gains(values: pd.DataFrame, data: str, reading: str, other: str) -> pd.Series[float]:
    """Return the difference in final accuracy between ours and another method, by seed."""
    return final(values, data, reading, "stackelberg") - final(values, data, reading, other)


def half_interval(gain: pd.Series[float]) -> float:
    """Return half of the 95 % interval of a mean, by Student's t."""
    quantile = float(stats.t.ppf(0.975, len(gain) - 1))
    return quantile * float(gain.std()) / math.sqrt(len(gain))


STUDY = Study(
    name="fig17",
    title="Accuracy under three mechanisms",
    setup="EMNIST: alpha = beta = 10, B = 1, rho = 0.001; CIFAR-10: 20, 20, 2, 0.003. The paper "
    "does not state N, the x axis (the round, we take it), how images are dealt (at random here), "
    "delta (1e-5), clipping, or repetitions. In full: N = 1,000, T = 200, E = 5, batches of 128. "
    "Fast: N = 100, T = 15, one step a round on 20 images a client, and a small net: too little to "
    "train much.",
    load=load,
    compute=compute,
    draw=draw,
    judge=judge,
    heavy=True,
)
