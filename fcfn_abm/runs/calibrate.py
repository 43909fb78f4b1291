"""Closing the loop: the server's alpha and beta from what training at several epsilons is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
from tqdm import tqdm

from fcfn_abm import build
from fcfn_abm.errors import (
    InvalidScenarioError,
    RunFailedError,
    WorkersLostError,
    as_count,
    as_list,
    as_number,
    as_path,
)
from fcfn_abm.game import averaged_nodes, nash_equilibrium
from fcfn_abm.mechanisms.terms import read_terms
from fcfn_abm.population import Population
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.process.workers import require_workers
from fcfn_abm.records import new_folder, raise_as_output_error, seal, write_facts
from fcfn_abm.records.folders import SCENARIO_FILE
from fcfn_abm.records.integrity import RUN_FILE
from fcfn_abm.records.tables import columns_of, frame_of, table_of
from fcfn_abm.report.calibrate import identification
from fcfn_abm.rng import replication_seed
from fcfn_abm.runs.checkpoint import Checkpoint, checkpoint_of
from fcfn_abm.runs.compare import MOST_RUNS
from fcfn_abm.runs.facts import describe_program, reference_facts
from fcfn_abm.runs.rounds import KnownReports, Rounds
from fcfn_abm.runs.value_fit import CONFIDENCE, LEAST, ValueFit, fit_value, half_width
from fcfn_abm.scenario import Scenario, to_toml
from fcfn_abm.scenario.load import require_scenario
from fcfn_abm.training import FederatedTrainer, TrainingRound
from fcfn_abm.training.distributed import BlockWorkers
from fcfn_abm.training.workers import run_side_by_side

type Floats = npt.NDArray[np.float64]

KIND = "calibration"
CALIBRATED = "calibrated.toml"
N_EPSILONS = 8
_SMALLEST, _LARGEST = 1e-12, 1e12  # with them alpha and beta are such as a scenario may have
_DECADES = 2.0  # that the default epsilons span at least


@dataclass(frozen=True)
class ValueCalibration:
    """What accuracy is worth at several epsilons, and the scenario that follows from it."""

    scenario: Scenario
    """The scenario with the fitted ``game.alpha`` and ``game.beta``."""
    fit: ValueFit
    """The fit."""
    run: dict[str, Any]
    """What was trained and how, the fit, means and residuals, what the market then does."""
    frame: pd.DataFrame
    """One row a training."""
    path: Path | None = None
    """The folder, if the calibration is on disk."""


def calibrate_value(
    scenario: Scenario,
    epsilons: Iterable[float] | None = None,
    seeds: int = 3,
    out: str | Path | None = None,
    *,
    value: float = 1.0,
    overwrite: bool = False,
    progress: bool = False,
    workers: int | BlockWorkers = 1,
) -> ValueCalibration:
    """Train at several epsilons, and fit the server's alpha and beta to what comes out.

    Parameters
    ----------
    scenario : Scenario
        With training, best from :func:`fcfn_abm.load_scenario`.
    epsilons : iterable of float, optional
        What all nodes train with, one after another; three or more. Without it eight on a
        logarithmic grid over the epsilons of the nodes that take part at the scenario's
        equilibrium, the 5 % at either end left out, and over two decades at least.
    seeds : int, default 3
        How often each is trained: with a data split, a first net and noise of its own. The first
        one has the scenario's seed.
    out : str or Path, optional
        Folder that takes table, figure and the calibrated scenario, written whole or not at all;
        without it the calibration stays in memory.
    value : float, default 1.0
        What accuracy is worth to the server, in currency a round: from 0 to 100 %.
    overwrite : bool, default False
        Whether a record that stands there is replaced.
    progress : bool, default False
        Whether to show a bar on stderr; a line each half minute where it is not a terminal.
    workers : int or BlockWorkers, default 1
        Threads that train, or the workers of a cluster that :func:`connect_cluster` gives; the
        result is the same for any number.

    Returns
    -------
    ValueCalibration
        The scenario with the fitted parameters, the fit, and the trainings.

    Raises
    ------
    InvalidScenarioError
        If the scenario does not train or stands for a sweep, its parts do not go together, or the
        epsilons, ``seeds``, ``value`` or ``workers`` are not right.
    OutputError
        If ``out`` is taken or cannot be written.
    RunFailedError
        If training breaks down, or no net is better than chance.

    Notes
    -----
    The value of a net is ``value * (accuracy - 1 / n_classes)``. At epsilon = 0 the law is zero,
    and so is this: noise drowns everything, and such a net is right by chance. The untrained net
    is one draw of the same chance, and would shift all values of its seed by what it happens to be.

    With ``out``, trainings that have ended are kept in a hidden folder beside it until all is
    written: after an interruption the same call goes on with what is missing, to the same files.
    """
    require_scenario(scenario, "calibrate_value")
    scenario = _check_and_resolve(scenario, seeds, value, workers)
    out = None if out is None else as_path("out", out)
    population = build.draw_population(scenario)
    grid = (
        _choose_epsilons(build.price_scenario(scenario, population).epsilon)
        if epsilons is None
        else _sort_epsilons(epsilons)
    )
    if out is None:
        rows = _train_all(scenario, grid, seeds, None, workers, progress=progress)
        return _fit(scenario, population, grid, seeds, value, rows)
    with checkpoint_of(out, scenario, overwrite=overwrite, kind=KIND) as checkpoint:
        try:
            rows = _train_all(scenario, grid, seeds, checkpoint, workers, progress=progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(*checkpoint.interrupt_message()) from None
        except WorkersLostError as error:
            raise WorkersLostError(f"{error} The same command resumes there.") from None
        found = _fit(scenario, population, grid, seeds, value, rows)
        with new_folder(out, overwrite=overwrite, kind=KIND) as folder, raise_as_output_error(out):
            _write(scenario, found, folder)
    return replace(found, path=out)


def _fit(
    scenario: Scenario,
    population: Population,
    grid: Sequence[float],
    seeds: int,
    value: float,
    rows: list[dict[str, Any]],
) -> ValueCalibration:
    """Return what follows from the trainings."""
    rho = population.rho
    before = build.price_scenario(scenario, population)
    chance = 1 / rows[0]["n_classes"]
    for row in rows:
        row["value"] = value * (row["accuracy"] - chance)
    table = table_of(rows, columns_of(KIND))
    frame = frame_of(table)
    values = frame["value"].to_numpy().reshape(seeds, len(grid))
    fit = fit_value(grid, values)
    game = scenario.game.model_copy(update={"alpha": fit.alpha, "beta": fit.beta})
    calibrated = scenario.model_copy(update={"game": game})
    run = {
        "kind": KIND,
        "title": scenario.title,
        "seed": scenario.seed,
        "data": rows[0]["data"],
        "n_nodes": scenario.population.n_nodes,
        "rounds": scenario.training.rounds if scenario.training else 0,
        "horizon": scenario.privacy.horizon,
        "seeds": seeds,
        "value_of_accuracy": value,
        "chance": chance,
        "confidence": CONFIDENCE,
        "fit": asdict(fit),
        "points": _points(grid, values, fit, frame),
        "equilibrium": {
            "before": reference_facts(before, rho),
            "calibrated": reference_facts(build.price_scenario(calibrated, population), rho),
        },
        "worth_of_trade": _find_least_value(calibrated, rho, value),
        **describe_program(),
    }
    return ValueCalibration(calibrated, fit, run, frame)


def _check_and_resolve(
    scenario: Scenario, seeds: int, value: float, workers: int | BlockWorkers
) -> Scenario:
    if scenario.sweep:
        raise InvalidScenarioError(
            "A scenario with a [sweep] stands for many runs, and calibration needs one."
        )
    if not scenario.trains:
        raise InvalidScenarioError(
            "The scenario trains no net, and calibration measures one: it needs a [training] table "
            "with enabled = true."
        )
    if read_terms(scenario) is not None:
        raise InvalidScenarioError(
            "calibration takes nodes whose privacy costs rho * epsilon, without caps, a fixed cost "
            "or a reserve: another cost, epsilon_max, fixed_cost and reserve must be left out."
        )
    if scenario.privacy.currency == "zcdp":
        raise InvalidScenarioError(
            "calibration takes nodes that sell epsilon, and here they sell zCDP's rho.",
            table="privacy",
            key="currency",
        )
    as_count("seeds", seeds, most=MOST_RUNS, error=InvalidScenarioError)
    if not isinstance(workers, BlockWorkers):
        require_workers(workers)
    _require_in_range("value", value)
    build.check_scenario(scenario)
    return build.resolve_defaults(scenario)


def _require_in_range(name: str, number: float) -> None:
    number = as_number(name, number, error=InvalidScenarioError)
    if not _SMALLEST <= number <= _LARGEST:
        raise InvalidScenarioError(
            f"{name} must lie from {_SMALLEST:g} to {_LARGEST:g}, but is {number:g}."
        )


def _choose_epsilons(epsilon: Floats) -> list[float]:
    """Return the default epsilons, in three digits, from those of the nodes that take part."""
    active = epsilon[epsilon > 0]
    if active.size == 0:
        raise InvalidScenarioError(
            "Nobody takes part at the scenario's equilibrium, so it names no epsilons to train "
            "with: name them (--epsilons 0.1,1,10)."
        )
    low, high = np.log10(np.quantile(active, [0.05, 0.95]))
    middle, half = (low + high) / 2, max(high - low, _DECADES) / 2
    return [
        float(f"{x:.3g}") for x in np.logspace(middle - half, middle + half, N_EPSILONS).tolist()
    ]


def _sort_epsilons(epsilons: Iterable[float]) -> list[float]:
    given = as_list("epsilons", epsilons, what="numbers", error=InvalidScenarioError)
    numbers = [as_number("an epsilon", epsilon, error=InvalidScenarioError) for epsilon in given]
    grid = sorted(set(numbers))
    for epsilon in grid:
        _require_in_range("epsilons", epsilon)
    if len(grid) < LEAST:
        raise InvalidScenarioError(
            f"epsilons must hold {LEAST} different numbers or more, but holds {len(grid)}: two of "
            "them fit any alpha and beta."
        )
    return grid


def _train_all(
    scenario: Scenario,
    grid: Sequence[float],
    seeds: int,
    checkpoint: Checkpoint | None,
    workers: int | BlockWorkers,
    *,
    progress: bool,
) -> list[dict[str, Any]]:
    rounds = scenario.training.rounds + 1 if scenario.training else 0  # round 0 is before training
    rows = []
    with progress_bar(
        total=seeds * len(grid) * rounds,
        desc="calibrating",
        unit="round",
        shown=progress,
    ) as bar:
        for replication in range(seeds):
            seeded = scenario.model_copy(
                update={"seed": replication_seed(scenario.seed, replication)}
            )
            trained = {}
            for epsilon in grid:
                kept = checkpoint.load(f"{replication}-{epsilon!r}") if checkpoint else None
                if kept is not None:
                    trained[epsilon] = {key: array.item() for key, array in kept.items()}
                    bar.update(rounds)
            left = [epsilon for epsilon in grid if epsilon not in trained]
            if left:
                trainer = build.prepare_trainer(seeded, workers)
                trained |= _train_grid(trainer, left, replication, checkpoint, bar)
            key = {"replication": replication, "seed": seeded.seed}
            rows += [{**key, "epsilon": epsilon, **trained[epsilon]} for epsilon in grid]
    return rows


def _train_grid(
    trainer: FederatedTrainer,
    grid: Sequence[float],
    replication: int,
    checkpoint: Checkpoint | None,
    bar: tqdm[Any],
) -> dict[float, dict[str, Any]]:
    """Train at one epsilon after another; at the same time where the engine allows it."""

    def train(epsilon: float, stops: Callable[[], bool]) -> dict[str, Any]:
        found = _train(trainer, epsilon, replication, bar, stops)
        if checkpoint and found:
            arrays = {key: np.asarray(value) for key, value in found.items()}
            checkpoint.save(f"{replication}-{epsilon!r}", arrays)
        return found

    if trainer.engine.shares:
        with closing(run_side_by_side([partial(train, epsilon) for epsilon in grid])) as found:
            return dict(zip(grid, found, strict=True))
    return {epsilon: train(epsilon, lambda: False) for epsilon in grid}


def _train(
    trainer: FederatedTrainer,
    epsilon: float,
    replication: int,
    bar: tqdm[Any],
    stops: Callable[[], bool],
) -> dict[str, Any]:
    """Return how well a net trains; nothing if it stops early."""
    reports = KnownReports([np.full(len(trainer.shards), epsilon)])
    rounds = Rounds(reports, begin=trainer.begin, n_rounds=trainer.plan.rounds)

    def show(last: TrainingRound) -> TrainingRound:
        bar.set_postfix(
            seed=replication,
            epsilon=f"{epsilon:.3g}",
            accuracy=f"{last.accuracy:.1%}",
            refresh=False,
        )
        bar.update()
        return last

    try:
        last = show(rounds.begin_training().results[0])
        while not rounds.over:
            if stops():
                return {}
            last = show(rounds.step() or last)  # reports stand, so each round trains
    except WorkersLostError:
        raise
    except RunFailedError as error:
        raise RunFailedError(f"with epsilon = {epsilon:g}, {error}") from None
    return {
        "accuracy": last.accuracy,
        "loss": last.loss,
        "signal_to_noise": last.signal_to_noise,
        "n_classes": len(trainer.data.class_names),
        "data": trainer.data.label,
    }


def _points(
    grid: Sequence[float], values: Floats, fit: ValueFit, frame: pd.DataFrame
) -> list[dict[str, Any]]:
    accuracy = frame.groupby("epsilon", sort=True)["accuracy"].mean()
    return [
        {
            "epsilon": epsilon,
            "accuracy": float(accuracy[epsilon]),
            "value": float(column.mean()),
            "half_width": half_width(column) if column.size > 1 else None,
            "fitted": float(fit(epsilon)),
            "residual": float(column.mean() - fit(epsilon)),
        }
        for epsilon, column in zip(grid, values.T, strict=True)
    ]


def _find_least_value(calibrated: Scenario, rho: Floats, value: float) -> float | None:
    """Return what accuracy must be worth before the contest pays the server (45); None elsewhere.

    Beta is proportional to that worth, and alpha does not depend on it.
    """
    game = calibrated.game
    contest = nash_equilibrium(rho, 1.0)
    if calibrated.mechanism.kind != "stackelberg" or contest.n_active == 0:
        return None
    n = averaged_nodes(game.average_over, contest.epsilon)
    bought: float = contest.total_epsilon / n  # mean epsilon for a unit of money
    return value / (game.alpha * game.beta * bought)


def _write(scenario: Scenario, found: ValueCalibration, folder: Path) -> None:
    from fcfn_abm.report.figures import calibration  # loads matplotlib
    from fcfn_abm.report.figures.files import svg_of, write_png

    name = f"{KIND}.parquet"
    rows: list[dict[str, Any]] = found.frame.to_dict("records")  # type: ignore[assignment]
    pq.write_table(table_of(rows, columns_of(KIND)), folder / name, compression="zstd")
    write_facts(scenario, found.run, folder)
    lines = [
        "The scenario with game.alpha and game.beta from 'fcfn calibrate'.",
        identification(found.run),
    ]
    header = "\n# ".join("\n".join(lines).split("\n"))
    (folder / CALIBRATED).write_text(to_toml(found.scenario, header), encoding="utf-8")
    figure = calibration(found.frame, found.run)
    write_png({"calibration": figure}, folder / "figures")
    (folder / "figures" / "calibration.svg").write_text(svg_of(figure), encoding="utf-8")
    seal(folder, [RUN_FILE, SCENARIO_FILE, CALIBRATED, name])
