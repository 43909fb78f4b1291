"""Figure 17: what the epsilons of three mechanisms train, on EMNIST and CIFAR-10."""

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
from fcfn_abm.runs.data import found as data_found
from fcfn_abm.scenario import Scenario, to_toml
from fcfn_zhou2023.base import (
    Finding,
    Scenarios,
    Setting,
    Study,
    code_of,
    number,
    pick,
    rows,
    scenario_of,
    table,
)
from fcfn_zhou2023.privacy import NOISE, NOISE_NAMES
from fcfn_zhou2023.rivals import NAMES, TWO_TYPES

READINGS = {**NOISE, "two-types": [*NOISE["exact-training"], *TWO_TYPES]}
TITLES = {**NOISE_NAMES, "two-types": "two costs, exact, all rounds"}
FREE = ("printed-round", "two-types")
"""Readings that train without noise too; the others' nets would be those of the first."""
FILES = {"EMNIST": "fig17", "CIFAR-10": "fig17-cifar10"}
STORED = {"EMNIST": "emnist", "CIFAR-10": "cifar10"}
STAND_IN = "handwritten digits, 8 x 8, which stand in for both data sets"
N_SEEDS = {"fast": 5, "full": 3}
FAST = [
    "population.n_nodes=100", "training.rounds=15", "training.local_epochs=1",
    "training.momentum=0.0", "training.net.kind=digits-cnn",
]  # fmt: skip
"""A tenth of the nodes, a small net, and one step a round on all of a node's samples, for which the
noise is proven to be private."""
STEPS = {"EMNIST": "training.learning_rate=2.0", "CIFAR-10": "training.learning_rate=1.0"}
FEW_IMAGES = [
    "training.data.split=own", "training.data.n_train=2000", "training.data.n_test=1000",
]  # fmt: skip
LABELS = {**NAMES, "no-noise": "no noise"}
UNDER: dict[str, dict[str, float]] = {"stackelberg": {"linewidth": 4.5, "alpha": 0.5, "zorder": 2}}
OVER: dict[str, float] = {"zorder": 3}
"""A line that shows under another one, and all others."""


def load(setting: Setting) -> Scenarios:
    """Return a scenario for each data set and reading; small ones with what data there is."""
    found = {}
    for data, file in FILES.items():
        changes: list[str] = []
        if setting.size == "fast":
            there = data_found(STORED[data]) is not None
            changes = [
                *FAST,
                STEPS[data],
                *(FEW_IMAGES if there else ["training.data.kind=digits"]),
            ]
            data = data if there else STAND_IN
        for reading, meant in READINGS.items():
            scenario = scenario_of(file, [*changes, *meant])
            if reading not in FREE:
                scenario = _comparing(scenario, ("ic-mle", "yang"))
            found[f"{data}|{reading}"] = scenario
    return found


def _comparing(scenario: Scenario, arms: tuple[str, ...]) -> Scenario:
    assert scenario.training is not None  # noqa: S101 - the scenario has the table
    return scenario.model_copy(
        update={"training": scenario.training.model_copy(update={"compare": arms})}
    )


def trained(scenario: Scenario, folder: Path, setting: Setting) -> fa.Record:
    """Return the record of a training: the one that is there, of the same code, or a new one."""
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
    return code_of(Path(fa.__file__).parent, "cli", "report", "viz")


def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:
    """Train all, once for each seed, and return accuracy and signal to noise by round."""
    parts = []
    todo = list(product(range(N_SEEDS[setting.size]), scenarios.items()))
    with progress_bar(len(todo), "fig17", "training", shown=setting.progress) as bar:
        for replication, (name, scenario) in todo:
            data, reading = name.split("|")
            seeded = scenario.model_copy(
                update={"seed": replication_seed(scenario.seed, replication)}
            )
            folder = f"{data.split(',')[0].replace(' ', '-').lower()}-{reading}-{replication}"
            record = trained(seeded, setting.out / "runs" / folder, setting)
            for arm, rounds in record.training.groupby("arm", sort=False):
                at = {
                    "panel": data, "reading": reading, "series": str(arm), "x": rounds["round"],
                    "x_name": "round", "replication": replication,
                }  # fmt: skip
                parts += [
                    rows("accuracy", rounds["accuracy"], **at),
                    rows(
                        "signal_to_noise", rounds["signal_to_noise"].replace(np.inf, np.nan), **at
                    ),
                ]
            if replication == 0 and reading == "printed-round":
                parts += _sizes(data, record)
            bar.update()
    return table(parts)


def _sizes(data: str, record: fa.Record) -> list[pd.DataFrame]:
    sizes = {
        "n_nodes": len(record.nodes),
        "n_rounds": record.training["round"].max(),
        "n_images": record.nodes["n_samples"].sum(),
        "n_parameters": record.run["training"]["n_parameters"],
        "n_classes": 62 if data == "EMNIST" else 10,
    }
    arms = {arm["name"]: arm["mean_epsilon"] for arm in record.run["training"]["arms"]}
    return [
        *(rows(name, value, panel=data) for name, value in sizes.items()),
        *(rows("epsilon", value, panel=data, series=arm) for arm, value in arms.items()),
    ]


def draw(values: pd.DataFrame) -> Figure:
    """Draw a row for each data set, and a panel for each reading: means, and all seeds."""
    data_sets = list(dict.fromkeys(values["panel"]))
    with theme():
        figure = Figure(figsize=(17, 0.9 + 3.6 * len(data_sets)))
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
    """See whether ours ends more accurate than a rival, seed by seed."""
    for rival in ("ic-mle", "yang"):
        for reading in READINGS:
            told, better = [], []
            for data in dict.fromkeys(values["panel"]):
                gain = gains(values, data, reading, rival)
                mean, half = 100 * gain.mean(), 100 * half_interval(gain)
                last = {
                    arm: 100 * final(values, data, reading, arm).mean()
                    for arm in ("stackelberg", rival)
                }
                better.append(bool(mean - half > 0))
                told.append(
                    f"{data.split(',')[0]}: ours {last['stackelberg']:.1f} %, {NAMES[rival]} "
                    f"{last[rival]:.1f} %, difference {mean:+.1f} +- {half:.1f} points"
                )
            yield Finding(f"fig17-{rival}", reading, all(better), "; ".join(told))


def final(values: pd.DataFrame, data: str, reading: str, arm: str) -> pd.Series[float]:
    """Return the last accuracy of an arm, by seed."""
    some = pick(values, panel=data, reading=reading, series=arm, quantity="accuracy")
    return pick(some, x=some["x"].max()).set_index("replication")["value"]


def gains(values: pd.DataFrame, data: str, reading: str, rival: str) -> pd.Series[float]:
    """Return by how much ours ends more accurate, by seed."""
    return final(values, data, reading, "stackelberg") - final(values, data, reading, rival)


def half_interval(gain: pd.Series[float]) -> float:
    """Return half of the 95 % interval of a mean, by Student's t."""
    quantile = float(stats.t.ppf(0.975, len(gain) - 1))
    return quantile * float(gain.std()) / math.sqrt(len(gain))


STUDY = Study(
    name="fig17",
    title="Accuracy under three mechanisms",
    setup="B = 1, alpha = 1, beta = 10, rho = 0.001; images dealt out at random (how the paper "
    "deals them is not known to us). In full: N = 1,000, T = 200, E = 5, batches of 128. Fast: "
    "N = 100, T = 15, one step a round on 20 images a node, and a small net: too little to train "
    "much.",
    load=load,
    compute=compute,
    draw=draw,
    judge=judge,
    heavy=True,
)
