"""Closing the loop: the server's alpha and beta from what training at several epsilons is worth."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.optimize import least_squares
from scipy.special import fdtri, stdtrit
from tqdm import tqdm

from fcfn_abm import build
from fcfn_abm.errors import (
    InvalidGameError,
    InvalidScenarioError,
    OutputError,
    RunFailedError,
    require_positive,
)
from fcfn_abm.game import averaged_nodes, nash_equilibrium
from fcfn_abm.progress import progress_bar
from fcfn_abm.records import new_folder, told_as, write_facts
from fcfn_abm.records.store import require_free
from fcfn_abm.records.tables import MONEY, NO_UNIT, Column, frame_of, table_of
from fcfn_abm.report.calibrate import identification
from fcfn_abm.rng import replication_seed
from fcfn_abm.runs.facts import reference_facts, versions
from fcfn_abm.runs.train import prepare
from fcfn_abm.scenario import Scenario, to_toml
from fcfn_abm.training import FederatedTrainer, TrainingRound

type Floats = npt.NDArray[np.float64]

KIND = "calibration"
CALIBRATED = "calibrated.toml"
N_EPSILONS = 8
CONFIDENCE = 0.95
_LEAST = 3  # epsilons: two of them fit any alpha and beta
_DECADES = 2.0  # that the default epsilons span at least
_SHAPES = (
    -10.0,
    50.0,
)  # bounds of ln(alpha eps) in mid-range: a straight line, and no slope at all
_N_SHAPES = 61
_TIGHT = 1e-14  # relative tolerance of the fit
_COLUMNS = [
    Column("replication", "int64", NO_UNIT, "number of the repetition, from 0"),
    Column("seed", "int64", NO_UNIT, "seed of its data split, first net and noise"),
    Column("epsilon", "float64", NO_UNIT, "what every node trained with"),
    Column("accuracy", "float64", NO_UNIT, "share of test images labelled rightly in the end"),
    Column("loss", "float64", NO_UNIT, "mean cross entropy on the test images in the end"),
    Column(
        "signal_to_noise",
        "float64",
        NO_UNIT,
        "norm of the last round's clean aggregate over norm of its noise",
    ),
    Column("value", "float64", MONEY, "accuracy beyond chance, times what accuracy is worth"),
]


@dataclass(frozen=True)
class ValueFit:
    """The law ``beta ln(1 + alpha eps)`` that fits measured values best, and how well it does."""

    alpha: float
    """Estimate, dimensionless."""
    beta: float
    """Estimate, in currency."""
    identified: Literal["both", "product", "level"]
    """What the values tell: alpha and beta; or, where a straight line through zero fits them as
    well, alpha * beta alone; or, where they are the same at every epsilon, this level alone."""
    alpha_interval: tuple[float, float] | None
    """None where alpha is not identified, or there is one seed."""
    beta_interval: tuple[float, float] | None
    """The same for beta."""
    limit: float | None
    """alpha * beta, or the level, in currency, where that alone is identified."""
    limit_interval: tuple[float, float] | None
    """Its interval; None with one seed."""
    r_squared: float
    """Share of the variance of all values that the law explains."""
    residual_std: float
    """Standard deviation of the values around it, in currency."""

    def __call__(self, epsilon: npt.ArrayLike) -> Floats:
        """Return the value at some epsilons, in currency."""
        return np.asarray(self.beta * np.log1p(self.alpha * np.asarray(epsilon, dtype=float)))


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


def fit_value(
    epsilon: npt.ArrayLike, value: npt.ArrayLike, confidence: float = CONFIDENCE
) -> ValueFit:
    """Fit ``beta ln(1 + alpha eps)`` with positive alpha and beta to measured values.

    Parameters
    ----------
    epsilon : array_like of float, shape (m,)
        Where the value was measured; three different ones or more.
    value : array_like of float, shape (n_seeds, m)
        The measured values, in currency; one row a seed.
    confidence : float, default 0.95
        Of the intervals, and of the test whether alpha and beta are identified separately.

    Returns
    -------
    ValueFit
        Estimates by least squares over all values, and intervals.

    Raises
    ------
    InvalidGameError
        If an epsilon is not positive and finite, fewer than three differ, or the shapes do not fit.
    RunFailedError
        If no positive law fits better than zero: the values are not positive on average.

    Notes
    -----
    Intervals are t-intervals of ln(alpha) and ln(beta) over the seeds, each seed's own estimate
    linearised at the common one. All values of a seed may be correlated, as they share data and
    draws of noise; where they are not, a covariance of the residuals would be somewhat narrower.

    As alpha tends to zero with alpha * beta fixed the law becomes a line; as it tends to infinity
    with the level fixed, a constant. Where an F-test cannot tell the fit from one of these, only
    that one's single parameter is identified.

    Examples
    --------
    >>> epsilon = np.array([0.1, 1.0, 10.0])
    >>> fit = fit_value(epsilon, [2 * np.log1p(3 * epsilon)])
    >>> round(fit.alpha, 6), round(fit.beta, 6), fit.identified
    (3.0, 2.0, 'both')
    """
    epsilon, value = np.asarray(epsilon, dtype=float), np.asarray(value, dtype=float)
    require_positive(epsilon=epsilon)
    if np.unique(epsilon).size < _LEAST:
        raise InvalidGameError(f"A fit needs {_LEAST} different epsilons or more.")
    if value.ndim != 2 or value.shape[1:] != epsilon.shape:
        raise InvalidGameError(
            f"value must have one row a seed and one column an epsilon ({epsilon.size}), but has "
            f"shape {value.shape}."
        )
    alpha, beta = _least_squares(epsilon, value)
    law = beta * np.log1p(alpha * epsilon)
    unexplained = float(np.sum((value - law) ** 2))
    identified: Literal["both", "product", "level"] = "both"
    freedom = value.size - 2
    allowed = 1 + float(fdtri(1, freedom, confidence)) / freedom
    limits = {"product": epsilon, "level": np.ones_like(epsilon)}
    per_seed = {name: value @ shape / (shape @ shape) for name, shape in limits.items()}
    left = {
        name: float(np.sum((value - per_seed[name].mean() * shape) ** 2))
        for name, shape in limits.items()
    }
    if min(left.values()) <= allowed * unexplained:
        identified = "product" if left["product"] < left["level"] else "level"
    intervals: list[tuple[float, float] | None] = [None, None]
    limit, limit_interval = None, None
    if identified == "both":
        gain = alpha * epsilon
        slopes = np.column_stack([beta * gain / (1 + gain), law])  # in ln(alpha) and ln(beta)
        each = (value - law) @ np.linalg.pinv(slopes).T  # how far each seed's estimates are off
        for i, centre in enumerate((math.log(alpha), math.log(beta))):
            if found := _interval(centre + each[:, i], confidence, centre):
                intervals[i] = (math.exp(found[0]), math.exp(found[1]))
    else:
        limit = float(per_seed[identified].mean())
        limit_interval = _interval(per_seed[identified], confidence, limit)
    return ValueFit(
        alpha=alpha,
        beta=beta,
        identified=identified,
        alpha_interval=intervals[0],
        beta_interval=intervals[1],
        limit=limit,
        limit_interval=limit_interval,
        r_squared=1 - unexplained / max(float(np.sum((value - value.mean()) ** 2)), 1e-300),
        residual_std=math.sqrt(unexplained / freedom),
    )


def _least_squares(epsilon: Floats, value: Floats) -> tuple[float, float]:
    """Return alpha and beta, through the logarithms of alpha and of the value in mid-range.

    These two stay well apart where alpha and beta do not: one is the curve's shape, and the other
    its size.
    """
    middle = math.exp(np.log(epsilon).mean())
    size = float(np.abs(value).max())
    scaled, relative = value / size, epsilon / middle

    def curve(shape: Floats | float) -> Floats:
        gain = np.exp(shape)
        return np.asarray(np.log1p(gain * relative) / np.log1p(gain))

    def residuals(point: Floats) -> Floats:
        return np.asarray((scaled - np.exp(point[1]) * curve(point[0])).ravel())

    # for a given shape the best size has a closed form: start from the best of a coarse grid
    shapes = np.linspace(*_SHAPES, _N_SHAPES)
    curves = curve(shapes[:, None])
    lengths = np.linalg.norm(curves, axis=1)
    projections = curves @ scaled.mean(axis=0) / lengths
    best = int(np.argmax(projections))
    if not projections[best] > 0:
        raise RunFailedError(
            "the net is no better than chance on average, so there is nothing to fit: train with "
            "larger epsilons, or for longer."
        )
    start = [float(shapes[best]), math.log(projections[best] / lengths[best])]
    bounds = ([_SHAPES[0], -np.inf], [_SHAPES[1], np.inf])
    shape, level = least_squares(residuals, start, bounds=bounds, ftol=_TIGHT, xtol=_TIGHT).x
    return math.exp(shape) / middle, size * math.exp(level) / math.log1p(math.exp(shape))


def _interval(each: Floats, confidence: float, centre: float) -> tuple[float, float] | None:
    """Return the t-interval of a mean over seeds; None with one seed."""
    if each.size < 2:
        return None
    half = _half_width(each, confidence)
    return centre - half, centre + half


def _half_width(each: Floats, confidence: float = CONFIDENCE) -> float:
    n = each.size
    return float(stdtrit(n - 1, 0.5 + confidence / 2)) * float(each.std(ddof=1)) / math.sqrt(n)


def calibrate_value(
    scenario: Scenario,
    epsilons: Iterable[float] | None = None,
    seeds: int = 3,
    out: str | Path | None = None,
    *,
    value: float = 1.0,
    overwrite: bool = False,
    progress: bool = False,
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

    Returns
    -------
    ValueCalibration
        The scenario with the fitted parameters, the fit, and the trainings.

    Raises
    ------
    InvalidScenarioError
        If the scenario does not train or stands for a sweep, its parts do not go together, or the
        epsilons, ``seeds`` or ``value`` are not right.
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
    scenario = _checked(scenario, seeds, value)
    rho = build.population(scenario)
    before = build.reference(scenario, rho)
    grid = _grid(before.epsilon[before.epsilon > 0]) if epsilons is None else _listed(epsilons)
    kept = None
    if out is not None:
        out = Path(out)
        require_free(out, overwrite=overwrite)
        kept = _kept_folder(scenario, out)
    rows = _train_all(scenario, grid, seeds, kept, progress=progress)
    chance = 1 / rows[0]["n_classes"]
    for row in rows:
        row["value"] = value * (row["accuracy"] - chance)
    table = table_of(rows, _COLUMNS)
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
            "calibrated": reference_facts(build.reference(calibrated, rho), rho),
        },
        "worth_of_trade": _worth_of_trade(calibrated, rho, value),
        "versions": versions(),
    }
    if out is not None:
        with new_folder(out, overwrite=overwrite) as folder, told_as(out):
            _write(scenario, calibrated, run, table, folder)
    if kept:
        shutil.rmtree(kept, ignore_errors=True)
    return ValueCalibration(calibrated, fit, run, frame, out)


def _checked(scenario: Scenario, seeds: int, value: float) -> Scenario:
    if scenario.sweep:
        raise InvalidScenarioError(
            "A scenario with a [sweep] stands for many runs, and calibration needs one."
        )
    if not scenario.trains:
        raise InvalidScenarioError(
            "The scenario trains no net, and calibration measures one: it needs a [training] table "
            "with enabled = true."
        )
    if seeds < 1:
        raise InvalidScenarioError(f"seeds must be 1 or more, but is {seeds}.")
    require_positive(error=InvalidScenarioError, value=value)
    build.check_scenario(scenario)
    return build.resolved(scenario)


def _grid(active: Floats) -> list[float]:
    """Return the default epsilons, in three digits, from those that take part."""
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


def _listed(epsilons: Iterable[float]) -> list[float]:
    grid = sorted({float(epsilon) for epsilon in epsilons})
    require_positive(error=InvalidScenarioError, epsilons=grid)
    if len(grid) < _LEAST:
        raise InvalidScenarioError(
            f"epsilons must hold {_LEAST} different numbers or more, but holds {len(grid)}: two of "
            "them fit any alpha and beta."
        )
    return grid


def _train_all(
    scenario: Scenario, grid: Sequence[float], seeds: int, kept: Path | None, *, progress: bool
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
            trainer = None
            for epsilon in grid:
                path = kept / f"{replication}-{epsilon!r}.json" if kept else None
                found = _read(path)
                if found:
                    bar.update(rounds)
                else:
                    trainer = trainer or prepare(seeded)
                    bar.set_postfix(seed=replication, epsilon=f"{epsilon:.3g}", refresh=False)
                    found = _train(trainer, epsilon, bar)
                    _keep(found, path)
                key = {"replication": replication, "seed": seeded.seed, "epsilon": epsilon}
                rows.append({**key, **found})
    return rows


def _train(trainer: FederatedTrainer, epsilon: float, bar: tqdm[Any]) -> dict[str, Any]:
    def after(result: TrainingRound) -> None:  # noqa: ARG001
        bar.update()

    try:
        last = trainer.train(np.full(len(trainer.shards), epsilon), on_round=after)[-1]
    except RunFailedError as error:
        raise RunFailedError(f"with epsilon = {epsilon:g}, {error}") from None
    return {
        "accuracy": last.accuracy,
        "loss": last.loss,
        "signal_to_noise": last.signal_to_noise,
        "n_classes": len(trainer.data.class_names),
        "data": trainer.data.label,
    }


def _kept_folder(scenario: Scenario, out: Path) -> Path:
    """Make the hidden folder of trainings that have ended: one for each scenario and program."""
    what = json.dumps([to_toml(scenario), versions()])
    digest = hashlib.sha256(what.encode()).hexdigest()[:12]
    folder = out.parent / f".{out.name}.trainings-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}.") from None
    return folder


def _read(path: Path | None) -> dict[str, Any] | None:
    if path is None or not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _keep(found: dict[str, Any], path: Path | None) -> None:
    if path is None:
        return
    with told_as(path):
        partial = path.with_suffix(f".partial-{os.getpid()}")
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.replace(path)


def _points(
    grid: Sequence[float], values: Floats, fit: ValueFit, frame: pd.DataFrame
) -> list[dict[str, Any]]:
    accuracy = frame.groupby("epsilon", sort=True)["accuracy"].mean()
    return [
        {
            "epsilon": epsilon,
            "accuracy": float(accuracy[epsilon]),
            "value": float(column.mean()),
            "half_width": _half_width(column) if column.size > 1 else None,
            "fitted": float(fit(epsilon)),
            "residual": float(column.mean() - fit(epsilon)),
        }
        for epsilon, column in zip(grid, values.T, strict=True)
    ]


def _worth_of_trade(calibrated: Scenario, rho: Floats, value: float) -> float | None:
    """Return what accuracy must be worth before the contest pays the server (45); None elsewhere.

    Beta is proportional to that worth, and alpha does not depend on it.
    """
    game = calibrated.game
    contest = nash_equilibrium(rho, 1.0)
    if calibrated.mechanism.kind != "stackelberg" or contest.n_active == 0:
        return None
    n = averaged_nodes(game.average_over, contest.n_active, rho.size)
    bought = contest.total_epsilon / n  # mean epsilon for a unit of money
    return value / (game.alpha * game.beta * bought)


def _write(
    scenario: Scenario,
    calibrated: Scenario,
    run: dict[str, Any],
    table: pa.Table,
    folder: Path,
) -> None:
    from fcfn_abm.report.figures import calibration  # loads matplotlib
    from fcfn_abm.report.figures.files import svg_of, write_png

    pq.write_table(table, folder / "calibration.parquet", compression="zstd")
    write_facts(scenario, run, folder)
    told = [
        "The scenario with game.alpha and game.beta from 'fcfn calibrate'.",
        identification(run),
    ]
    header = "\n# ".join("\n".join(told).split("\n"))
    (folder / CALIBRATED).write_text(to_toml(calibrated, header), encoding="utf-8")
    figure = calibration(frame_of(table), run)
    write_png({"calibration": figure}, folder / "figures")
    (folder / "figures" / "calibration.svg").write_text(svg_of(figure), encoding="utf-8")
