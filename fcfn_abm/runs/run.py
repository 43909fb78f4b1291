"""A run: from a scenario to a record."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fcfn_abm import build
from fcfn_abm.abm.columns import NEVER, Floats
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.errors import RunFailedError, WorkersLostError, as_path
from fcfn_abm.game import takes_part
from fcfn_abm.population import Population
from fcfn_abm.process.progress import print_note, progress_bar
from fcfn_abm.process.workers import require_workers
from fcfn_abm.records import (
    PARTS,
    Record,
    Recorder,
    TraceWriter,
    new_folder,
    raise_as_output_error,
    write_record,
)
from fcfn_abm.records.tables import WHERE_ASKED_FOR, empty, insert_names
from fcfn_abm.runs.checkpoint import Checkpoint, checkpoint_of
from fcfn_abm.runs.closed_loop import ValueLoop, create_learner
from fcfn_abm.runs.facts import (
    belief_facts,
    describe_work,
    group_facts,
    manipulation_facts,
    reference_facts,
    tracking_facts,
)
from fcfn_abm.runs.provenance import find_commit
from fcfn_abm.runs.rounds import Rounds
from fcfn_abm.runs.train import RunTrainings, Trained
from fcfn_abm.scenario import Scenario
from fcfn_abm.scenario.load import require_scenario
from fcfn_abm.training import Training
from fcfn_abm.training.distributed import BlockWorkers


def run_scenario(
    scenario: Scenario,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
    workers: int | BlockWorkers = 1,
) -> Record:
    """Play a scenario's market, train with its epsilons, and record both.

    Parameters
    ----------
    scenario : Scenario
        The experiment, usually from :func:`fcfn_abm.load_scenario`.
    out : str or Path, optional
        Folder for the record, written atomically; by default the record stays in memory.
    overwrite : bool, default False
        Whether to replace an existing record.
    progress : bool, default False
        Whether to show bars on stderr; one line per half minute if it is not a terminal.
    workers : int or BlockWorkers, default 1
        Threads that train, or the workers of a cluster, see :func:`connect_cluster`; the
        record is the same for any number.

    Returns
    -------
    Record
        Frames of rounds, nodes, traces and training, and the facts about the run.

    Raises
    ------
    InvalidScenarioError
        If parts of the scenario are inconsistent.
    OutputError
        If ``out`` is taken or cannot be written (checked before the run), or the disk is full
        later.
    RunFailedError
        If training fails; the record of the rounds before is written.

    Notes
    -----
    A run with ``out`` saves checkpoints next to that folder. If it is killed or interrupted, the
    same call resumes, with the same record.
    """
    require_scenario(scenario, "run_scenario")
    if not isinstance(workers, BlockWorkers):
        require_workers(workers)
    out = None if out is None else as_path("out", out)
    build.check_settings(scenario)
    scenario = build.resolve_defaults(scenario)
    find_commit()  # that of the code which runs, whatever is checked out by the end
    if out is None:
        record = _carry_out(scenario, nullcontext(), None, progress=progress, workers=workers)
        _require_whole(record)
        return record
    # load seaborn, which the runs of a sweep do not need
    from fcfn_abm.report.figures.files import write_png
    from fcfn_abm.report.figures.records import main_figures

    home = Path(os.path.abspath(out))  # absolute, in case the working directory changes
    checkpoint_or_none = (
        checkpoint_of(out, scenario, overwrite=overwrite) if scenario.trains else nullcontext()
    )
    with (
        checkpoint_or_none as checkpoint,
        new_folder(out, overwrite=overwrite) as folder,
    ):
        if checkpoint and checkpoint.discarded:
            print_note(f"{out}: {checkpoint.discarded}", shown=progress)
        streamed = scenario.record.traces == "all"
        stream = TraceWriter(folder / PARTS, out / PARTS) if streamed else nullcontext()
        try:
            record = _carry_out(scenario, stream, checkpoint, progress=progress, workers=workers)
        except KeyboardInterrupt:
            message = checkpoint.interrupt_message() if checkpoint else ()
            raise KeyboardInterrupt(*message) from None
        except WorkersLostError as error:
            raise WorkersLostError(f"{error} Run the same command to resume.") from None
        record = replace(record, path=folder)
        with raise_as_output_error(out):
            found = write_record(record, folder)
            write_png(main_figures(record), folder / "figures")
    _require_whole(record, f" The record of the rounds before is in {out}.")
    return replace(record, path=home, fingerprint=found)


def _require_whole(record: Record, kept: str = "") -> None:
    """Raise RunFailedError if training failed."""
    why = record.run.get("training", {}).get("broke_down")
    if why:
        raise RunFailedError(why + kept)


def _carry_out(
    scenario: Scenario,
    stream: AbstractContextManager[TraceWriter | None],
    checkpoint: Checkpoint | None,
    *,
    progress: bool,
    workers: int | BlockWorkers,
) -> Record:
    started = time.perf_counter()
    # missing requirements fail before the work
    images = build.load_images(scenario) if build.needs_images(scenario) else None
    population = build.draw_population(scenario, images)
    trainings = None
    if scenario.trains and images is not None:
        trainer = build.create_trainer(scenario, population, images, workers)
        trainings = RunTrainings(scenario, population, trainer, checkpoint)
    market = PrivacyMarket(scenario, population=population, collect_nodes=False, is_checked=True)
    trained = None
    with stream as writer:
        expected = market.outcome.epsilon > 0
        recorder = Recorder(scenario.record, market.columns.rho, expected, writer)
        learner = create_learner(scenario, market)
        rounds = _rounds(scenario, market, recorder, trainings, learner)
        _play(rounds, market, recorder, progress=progress)
        if trainings and market.running:
            trained = trainings.carry_out(market, rounds, progress=progress)
    played = time.perf_counter()
    if trainings and trained is None:
        trained = trainings.carry_out(market, rounds, progress=progress)
    ended = time.perf_counter()

    seconds = {"market": played - started, "training": ended - played}
    return collect_record(market, population, recorder, trained, learner, seconds)


def collect_record(
    market: PrivacyMarket,
    population: Population,
    recorder: Recorder,
    trained: Trained | None,
    learner: ValueLoop | None,
    seconds: dict[str, float],
) -> Record:
    """Return the record of a market in its current state.

    Parameters
    ----------
    market : PrivacyMarket
        A market after at least one round.
    population : Population
        Its nodes, with their data if they train.
    recorder : Recorder
        The recorder of all rounds.
    trained : Trained or None
        Results of the training.
    learner : ValueLoop or None
        The server's learner of the value of epsilon.
    seconds : dict
        Durations of ``market`` and ``training``.
    """
    scenario = market.scenario
    nodes, traces = _nodes(market, population, trained), recorder.traces
    played_rounds, learned = recorder.rounds, {}
    if learner and trained:
        played_rounds = learner.extend(played_rounds, trained.ledger)
        learned = {"value": learner.facts(played_rounds)}
    names = [group.name for group in population.groups]
    run = {
        "title": scenario.title,
        "seed": scenario.seed,
        "verdict": asdict(market.verdict) if market.verdict else _describe_paused(market),
        "equilibrium": reference_facts(market.outcome, reporting_costs(market, population)),
        "market": asdict(market.state),
        **({"groups": group_facts(names, nodes)} if names else {}),
        **belief_facts(market.groups[0].rule, market.pool),
        **_tracking(market, played_rounds),
        **manipulation_facts(scenario, population),
        **({"training": trained.facts} if trained else {}),
        **learned,
        "seconds": seconds,
        **describe_work(sum(seconds.values())),
    }
    return Record(
        scenario=scenario,
        run=run,
        rounds=played_rounds,
        nodes=insert_names(nodes, population.names),
        kept_traces=None if traces is None else insert_names(traces, population.names),
        training=trained.rounds if trained else empty("training"),
        ledger=insert_names(trained.ledger if trained else empty("ledger"), population.names),
    )


def _describe_paused(market: PrivacyMarket) -> dict[str, Any]:
    """Return the verdict of a market that has not ended."""
    reason = "the run was saved before the market ended."
    return {
        "kind": "paused",
        "rounds": market.round_index,
        "reason": reason,
        "budget_ratio": None,
        "server_regret": None,
    }


def _rounds(
    scenario: Scenario,
    market: PrivacyMarket,
    recorder: Recorder,
    trainings: RunTrainings | None,
    learner: ValueLoop | None,
) -> Rounds[Training]:
    """Return the rounds of a run: those of its market, and of its training."""
    record = partial(recorder, market)
    if trainings is None or scenario.training is None:
        return Rounds(market, record)
    return Rounds(
        market,
        record,
        begin=trainings.begin,
        n_rounds=scenario.training.rounds,
        every_round=scenario.training.schedule == "every-round",
        learner=learner,
    )


def _play(
    rounds: Rounds[Training], market: PrivacyMarket, recorder: Recorder, *, progress: bool
) -> None:
    """Run rounds until the net trains."""
    if rounds.trains_next:
        return
    with progress_bar(
        total=market.scenario.rounds.maximum,
        desc="market",
        unit="round",
        shown=progress,
    ) as bar:
        while not (rounds.over or rounds.trains_next):
            before = market.round_index
            if recorder.streams:
                rounds.step()
            else:  # many rounds at once, without training between
                passed = market.step_ahead(market.scenario.rounds.maximum, recorder.rows)
                recorder.take_in(passed.rounds, passed.traces)
            bar.set_postfix(
                n_active=market.n_active,
                exploitability=f"{market.state.exploitability:.1e}",
                refresh=False,
            )
            bar.update(market.round_index - before)
        bar.total = market.round_index


def _nodes(market: PrivacyMarket, population: Population, trained: Trained | None) -> pd.DataFrame:
    columns, changed = market.columns, market.scenario.events is not None
    exit_round = pd.array(columns.exit_round, dtype="Int64")
    exit_round[columns.exit_round == NEVER] = pd.NA
    frame = pd.DataFrame(
        {
            "node": range(len(columns)),
            **({"group": population.group} if population.groups else {}),
            "rho": columns.rho,
            **_manipulation(population),
            **_misreport(market.scenario, market.population if changed else population),
            "epsilon": columns.epsilon,
            "payment": columns.payment,
            "utility": columns.utility,
            "active": takes_part(columns.epsilon),
            "exit_round": exit_round,
            **_sales(market),
            "equilibrium_epsilon": _place(market, market.outcome.epsilon),
            "equilibrium_utility": _place(market, market.outcome.node_utility),
            **_churn(market),
            **(trained.nodes if trained else {}),
        }
    )
    frame = frame[columns.present].reset_index(drop=True)  # empty slots are not nodes
    if trained:
        return frame
    absent = [name for name in WHERE_ASKED_FOR if name not in frame]
    return frame.reindex(columns=empty("nodes").columns.drop(absent))


def reporting_costs(market: PrivacyMarket, population: Population) -> Floats:
    """Return the final costs of the reporting nodes."""
    manipulated = population.manipulation is not None
    return population.reporting_rho if manipulated else market.primitives.rho


def _place(market: PrivacyMarket, values: Floats) -> Floats:
    """Return values of the present nodes by slot, with zero in empty slots."""
    if values.size == len(market.columns):
        return values
    placed = np.zeros(len(market.columns))
    placed[market.present] = values
    return placed


def _sales(market: PrivacyMarket) -> dict[str, Any]:
    """Return the columns of what was sold in all rounds, if there is an account of it."""
    account = market.account
    if account is None:
        return {}
    left, sold_out = market.columns.exited, account.sold_out
    return {
        "exit_reason": np.where(sold_out, "sold-out", np.where(left, "no-gain", "")),
        "total_sold": account.epsilon_sold,
    }


def _churn(market: PrivacyMarket) -> dict[str, Any]:
    """Return the columns of presence, if nodes come and go."""
    if market.churn is None:
        return {}
    return {
        "arrival_round": market.churn.arrival_round,
        "first_rho": market.churn.first_rho,
    }


def _tracking(market: PrivacyMarket, rounds: pd.DataFrame) -> dict[str, Any]:
    """Return the facts about a moving equilibrium, if it moves."""
    churn = market.scenario.population.churn
    if churn is None or not churn.moves:
        return {}
    return {"tracking": tracking_facts(rounds, churn.until)}


def _manipulation(population: Population) -> dict[str, Any]:
    """Return the columns of coalitions and split identities."""
    manipulation = population.manipulation
    if manipulation is None:
        return {}
    return {
        "manipulates": manipulation.manipulators,
        "identities": np.where(manipulation.silent, 0, manipulation.identities),
    }


def _misreport(scenario: Scenario, population: Population) -> dict[str, Any]:
    """Return the columns of misreports, if the scenario has any."""
    if not scenario.population.can_misreport:
        return {}
    return {
        "true_rho": population.true_rho,
        "misreport_factor": population.misreport_factor,
    }
