"""The training part of a run: the market's epsilon, and what it is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fcfn_abm import build
from fcfn_abm.abm import PrivacyMarket
from fcfn_abm.dp import (
    Clipping,
    Ledger,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_sigma,
)
from fcfn_abm.errors import RunFailedError
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.process.workers import require_workers
from fcfn_abm.records.tables import empty
from fcfn_abm.runs.checkpoint import Checkpoint
from fcfn_abm.runs.free_riders import group_facts, utility_a_round
from fcfn_abm.scenario import Scenario, Training
from fcfn_abm.training import (
    Chances,
    FederatedTrainer,
    TrainingPlan,
    TrainingRound,
    label_divergence,
)
from fcfn_abm.training.placements import LocalSteps

type Floats = npt.NDArray[np.float64]

NOISE_NOTE = (
    "The noise is floating-point Gaussian from a seeded generator: research output, not a release "
    "mechanism."
)
SECURE_NOTE = (
    "The noise is discrete Gaussian from the operating system's generator, on a grid: this run "
    "cannot be repeated."
)
"""What the records' privacy does not cover; docs/privacy.md says why."""

_CLASSICAL_RANGE = 1.0  # the proof of the classical formula holds below this epsilon
_NO_GUARANTEE = 0.5  # a claim that fails with this probability protects nobody


@dataclass(frozen=True)
class Trained:
    """What training adds to a record."""

    rounds: pd.DataFrame
    """One row an arm and round."""
    ledger: pd.DataFrame
    """One row a round and node of the market's own arm: privacy spent."""
    nodes: dict[str, Any]
    """Columns of the nodes' table."""
    facts: dict[str, Any]
    """Data, net, privacy note, and how each arm did."""


@dataclass(frozen=True)
class _Arm:
    name: str
    epsilon: Floats
    """At the market's end."""
    private: bool
    node_utility: Floats
    server_utility: float


def prepare(scenario: Scenario, workers: int = 1) -> FederatedTrainer:
    """Load the data, deal it out, and build the net, so that what is missing shows early."""
    require_workers(workers)
    settings, privacy = _training(scenario), scenario.privacy
    data, shards = build.dealt_data(scenario)
    plan = TrainingPlan(
        net=build.create(scenario, ("training", "net")),
        placement=build.create(scenario, ("privacy", "placement")),
        aggregation=build.create(scenario, ("training", "aggregation")),
        rounds=settings.rounds,
        steps=LocalSteps(
            settings.local_epochs,
            settings.learning_rate,
            settings.momentum,
            Clipping(privacy.clipping_norm),
            settings.batch_size,
        ),
        delta=privacy.delta,
        calibration=privacy.calibration,
        horizon=privacy.horizon,
        neighbours=privacy.neighbours,
        seed=scenario.seed,
        secure_noise=privacy.secure_noise,
        false_alarm=privacy.check.false_alarm if privacy.check else None,
        chances=Chances(settings.participation, settings.dropping, settings.straggling),
        noise_of=privacy.noise_of,
        precision=settings.precision,
    )
    workers = min(workers, len(shards))  # each has a net of its own
    return FederatedTrainer(data, shards, plan, workers, settings.engine, settings.device)


def train_arms(
    scenario: Scenario,
    market: PrivacyMarket,
    trainer: FederatedTrainer,
    *,
    play_round: Callable[[], None] | None = None,
    play_on: Callable[[], None] | None = None,
    checkpoint: Checkpoint | None = None,
    progress: bool = False,
) -> Trained:
    """Train once with the market's epsilon, and once with each thing it is compared with.

    Parameters
    ----------
    scenario : Scenario
        What is trained.
    market : PrivacyMarket
        At its end; with the schedule "every-round", at its start.
    trainer : FederatedTrainer
        From :func:`prepare`.
    play_round, play_on : callable, optional
        Play a round of the market, and play it to its end; needed by "every-round".
    checkpoint : Checkpoint, optional
        Where the training goes on from, and what it leaves for a later one.
    progress : bool, default False
        Whether to show a bar on stderr.

    Notes
    -----
    A training that breaks down ends them all; what came before is returned, and the facts say so in
    ``broke_down``.
    """
    settings = _training(scenario)
    frames, facts = [], []
    broke_down, reported = "", list[Floats]()
    dealt = _digest(trainer) if checkpoint else b""
    factors = build.misreport(scenario)
    flagged = trainer.flagged_round
    ledger, spent_rounds = Ledger(len(trainer.shards)), empty("ledger")  # nobody has spent anything
    with progress_bar(
        total=(1 + len(settings.compare)) * (settings.rounds + 1),
        desc="training",
        unit="round",
        shown=progress,
    ) as bar:

        def train(name: str, reports: Any, *, private: bool, own: bool) -> list[TrainingRound]:
            nonlocal spent_rounds, broke_down
            kept_as = _kept_as(name, trainer)
            kept = checkpoint.load(kept_as) if checkpoint else None
            if kept is not None and kept["dealt"].tobytes() != dealt:
                kept = None  # the data have changed
            spendings = [spent_rounds]
            if kept is not None:
                bar.update(len(kept["results"]))
                spendings += [_table_of(kept)] if own else []

            def after(result: TrainingRound) -> None:
                bar.set_postfix(arm=name, accuracy=f"{result.accuracy:.1%}", refresh=False)
                bar.update()
                if own and trainer.ledger and result.round:
                    spendings.append(_spending(trainer.ledger, result.round, trainer.plan.delta))
                due = result.round % settings.checkpoint_every == 0
                if checkpoint and (due or result.round == settings.rounds):
                    spent = _arrays_of(pd.concat(spendings, ignore_index=True)) if own else {}
                    mark = {"dealt": np.frombuffer(dealt, dtype=np.uint8)}
                    checkpoint.save(kept_as, {**trainer.state(), **spent, **mark})

            try:
                results = trainer.train(
                    reports, misreport=factors, private=private, on_round=after, resume=kept
                )
            except RunFailedError as error:
                broke_down, results = str(error), trainer.results
                if not results:
                    raise
            if own:
                spent_rounds = pd.concat(spendings, ignore_index=True)
            return results

        played: list[TrainingRound] = []
        if play_round and play_on:

            def reports(_: int) -> Floats:
                if market.running:
                    play_round()
                reported.append(market.columns.epsilon.copy())
                return reported[-1]

            played = train(scenario.mechanism.kind, reports, private=True, own=True)
            ledger, flagged = trainer.ledger or ledger, trainer.flagged_round
            play_on()
        for place, arm in enumerate(_arms(scenario, market)):
            own = place == 0
            used = [arm.epsilon]
            if own and played:
                results, used = played, reported
            elif broke_down:
                break
            elif arm.name == build.NO_NOISE and played:  # the same nodes in each round
                used = reported
                results = train(arm.name, lambda t: reported[t - 1], private=False, own=False)
            elif (arm.epsilon > 0).any():
                results = train(arm.name, arm.epsilon, private=arm.private, own=own)
            else:
                continue  # without trade nobody trains
            if own:
                ledger, flagged = trainer.ledger or ledger, trainer.flagged_round
            frames.append(pd.DataFrame([asdict(r) for r in results]).assign(arm=arm.name))
            facts.append(_facts(arm, used, results, trainer))
            if arm.private and (scenario.population.misreport or scenario.privacy.check):
                facts[-1]["free_riders"] = _free_riders(scenario, market, arm, trainer)
    spent = trainer.privacy(_latest([*reported, market.columns.epsilon]))
    return Trained(
        rounds=pd.concat(frames, ignore_index=True) if frames else empty("training"),
        ledger=spent_rounds,
        nodes={
            "n_samples": trainer.n_samples.astype(np.int64),
            "label_divergence": label_divergence(trainer.data.train_labels, trainer.shards),
            "noise_multiplier": spent.noise_multiplier,
            "noise_std": spent.noise_std,
            "epsilon_per_round": spent.epsilon_per_round,
            "epsilon_total": ledger.epsilon(spent.delta),
            "epsilon_central": ledger.central_epsilon(spent.delta),
            "delta": spent.delta,
            **({"flagged_round": _or_missing(flagged)} if scenario.privacy.check else {}),
        },
        facts={
            "data": trainer.data.label,
            "n_parameters": trainer.n_parameters,
            **trainer.engine.facts(),
            "arms": facts,
            **({"broke_down": broke_down} if broke_down else {}),
            "central_note": _central_note(trainer),
            "privacy_note": _privacy_note(
                trainer,
                [*reported, *(arm.epsilon for arm in _arms(scenario, market) if arm.private)],
            ),
            "noise_note": SECURE_NOTE if scenario.privacy.secure_noise else NOISE_NOTE,
        },
    )


def _kept_as(arm: str, trainer: FederatedTrainer) -> str:
    """Return the name of an arm's checkpoint: a training goes on where and how it began."""
    facts = trainer.engine.facts()
    by = "" if facts["engine"] == "serial" else f"-{facts['engine']}-{facts['device']}"
    return arm + by


def _arrays_of(table: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    return {f"spent_{name}": table[name].to_numpy() for name in table.columns}


def _table_of(arrays: Mapping[str, npt.NDArray[Any]]) -> pd.DataFrame:
    names = empty("ledger").columns
    return pd.DataFrame({name: arrays[f"spent_{name}"] for name in names})


def _training(scenario: Scenario) -> Training:
    return scenario.training or Training()


def _arms(scenario: Scenario, market: PrivacyMarket) -> list[_Arm]:
    columns = market.columns
    own = (columns.utility, market.state.server_utility)
    arms = [_Arm(scenario.mechanism.kind, columns.epsilon, True, *own)]
    for name in _training(scenario).compare:
        if name == build.NO_NOISE:
            arms.append(_Arm(name, columns.epsilon, False, *own))
        else:
            outcome = build.rival(scenario, name, columns.rho, market.budget)
            arms.append(
                _Arm(name, outcome.epsilon, True, outcome.node_utility, outcome.server_utility)
            )
    return arms


def _spending(ledger: Ledger, round_index: int, delta: float) -> pd.DataFrame:
    """Return what the nodes of a round have spent: in it, and so far, in both views."""
    now = ledger.latest
    if now is None:
        return empty("ledger")
    return pd.DataFrame(
        {
            "round": round_index,
            "node": now.nodes,
            "epsilon_round": ledger.epsilon_of(now, delta),
            "epsilon_total": ledger.epsilon(delta, now.nodes),
            "epsilon_central": ledger.central_epsilon(delta, now.nodes),
        }
    )


def _facts(
    arm: _Arm, used: list[Floats], results: list[TrainingRound], trainer: FederatedTrainer
) -> dict[str, Any]:
    """Say how an arm did; means are over all nodes in all rounds with an epsilon of their own."""
    epsilon = np.array(used)
    active = epsilon > 0
    return {
        "name": arm.name,
        "private": arm.private,
        "n_nodes": int(active.any(axis=0).sum()),
        "mean_epsilon": float(epsilon[active].mean()),
        "mean_true_epsilon": _mean_true_epsilon(epsilon, trainer) if arm.private else None,
        "node_utility": float(arm.node_utility.sum()),
        "n_losing": int((arm.node_utility < -1e-12).sum()),
        "server_utility": arm.server_utility,
        "accuracy": results[-1].accuracy,
        "loss": results[-1].loss,
    }


def _mean_true_epsilon(epsilon: Floats, trainer: FederatedTrainer) -> float:
    true = [trainer.privacy(of_round) for of_round in epsilon]
    per_round = trainer.plan.horizon == "round"
    covered = np.array([p.epsilon_per_round if per_round else p.epsilon_total for p in true])
    return float(covered[epsilon > 0].mean())


def _latest(reported: list[Floats]) -> Floats:
    """Return what each node reported last that was more than nothing."""
    latest = reported[0]
    for of_round in reported[1:]:
        latest = np.where(of_round > 0, of_round, latest)
    return latest


def _digest(trainer: FederatedTrainer) -> bytes:
    """Return what tells the data, and how they are dealt, from others."""
    data, found = trainer.data, hashlib.sha256()
    for images in (data.train_images, data.test_images):
        found.update(images.sum(axis=(1, 2, 3), dtype=np.float64).tobytes())
    for whole in (data.train_labels, data.test_labels, *trainer.shards):
        found.update(np.asarray(whole, dtype=np.int64).tobytes())
    return found.digest()


def _central_note(trainer: FederatedTrainer) -> str:
    """Say what the server's view of the total takes for granted."""
    plan = trainer.plan
    if plan.false_alarm is not None:
        return "The server checks every upload, so it sees more than their sum."
    if plan.steps.grid is not None:
        return (
            "Nothing is claimed for secure aggregation of secure noise: "
            "a weighted sum of values on a grid may give away each of them."
        )
    if all(plan.placement.draws(plan.steps, len(rows)) == 1 for rows in trainer.shards):
        return (
            "The server sees the sum alone, under secure aggregation, "
            "and the other nodes must add the noise that they reported."
        )
    return (
        "Of nodes that add noise several times a round nothing is claimed for secure aggregation: "
        "the server may see as much as anybody."
    )


def _free_riders(
    scenario: Scenario, market: PrivacyMarket, arm: _Arm, trainer: FederatedTrainer
) -> dict[str, Any]:
    """Say what those who misreport earn, and the others, if all were honest and as it is."""
    honest = build.honest(scenario)
    if arm.name == scenario.mechanism.kind:
        fair = build.reference(honest)
    else:
        fair = build.rival(honest, arm.name, build.population(honest), market.budget)
    cost, flagged = market.columns.rho * arm.epsilon, trainer.flagged_round
    utilities = {
        "utility_if_all_were_honest": fair.node_utility,
        "utility_unchecked": arm.node_utility,
        "utility": utility_a_round(arm.node_utility, cost, flagged, trainer.plan.rounds),
    }
    lies = build.misreport(scenario) != 1
    return {
        "misreporting": group_facts(lies, flagged, utilities),
        "honest": group_facts(~lies, flagged, utilities),
    }


def _or_missing(flagged_round: npt.NDArray[np.int64]) -> Any:
    """Return rounds, missing where they are zero."""
    rounds = pd.array(flagged_round, dtype="Int64")
    rounds[flagged_round == 0] = pd.NA
    return rounds


def _privacy_note(trainer: FederatedTrainer, used: list[Floats]) -> str:
    """Say where the claimed epsilons are not what the noise gives."""
    plan = trainer.plan
    largest = max((epsilon.max(initial=0.0) for epsilon in used), default=0.0)
    notes = [plan.placement.caveat(plan.steps)]
    most = int(trainer.n_samples.max())
    if plan.placement.unit == "record" and plan.delta * most >= 1:
        notes.append(
            f"delta = {plan.delta:g} is at least one over the {most} records of a node: publishing "
            "one of them whole would be as good."
        )
    if plan.calibration == "classical" and largest >= _CLASSICAL_RANGE:
        notes.append(_classical_note(float(largest), plan.delta))
    return "\n".join(note for note in notes if note)


def _classical_note(epsilon: float, delta: float) -> str:
    """Say what the noise of the classical formula is worth where it claims ``epsilon``.

    Sampled releases have its epsilon at this delta too; at others they may differ a little.
    """
    sigma = gaussian_sigma(epsilon, delta, calibration="classical")
    true_epsilon, true_delta = gaussian_epsilon(sigma, delta), gaussian_delta(epsilon, sigma)
    return (
        "The classical calibration is proven below epsilon = 1 only, and here it is used up to "
        f"{epsilon:.3g}:\nthere its noise truly has epsilon = {true_epsilon:.3g} at delta = "
        f"{delta:.3g}, and delta = {true_delta:.3g} at epsilon = {epsilon:.3g}"
        + (", which is no guarantee at all." if true_delta > _NO_GUARANTEE else ".")
    )
