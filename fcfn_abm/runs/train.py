"""The training part of a run: the market's epsilon, and what it is compared with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from fcfn_abm import build
from fcfn_abm.abm import PrivacyMarket
from fcfn_abm.dp import Clipping
from fcfn_abm.records.tables import empty
from fcfn_abm.rng import stream
from fcfn_abm.scenario import Scenario, Training
from fcfn_abm.training import FederatedTrainer, TrainingPlan, TrainingRound, label_divergence
from fcfn_abm.training.placements import LocalSteps

type Floats = npt.NDArray[np.float64]

_CLASSICAL_RANGE = 1.0  # the proof of the classical formula holds below this epsilon


@dataclass(frozen=True)
class Trained:
    """What training adds to a record."""

    rounds: pd.DataFrame
    """One row an arm and round."""
    nodes: dict[str, Any]
    """Columns of the nodes' table."""
    facts: dict[str, Any]
    """Data, net, privacy note, and how each arm did."""


@dataclass(frozen=True)
class _Arm:
    name: str
    epsilon: Floats
    private: bool
    node_utility: Floats
    server_utility: float


def prepare(scenario: Scenario) -> FederatedTrainer:
    """Load the data, deal it out, and build the net, so that what is missing shows early."""
    settings, privacy = _training(scenario), scenario.privacy
    data = build.created(scenario, ("training", "data")).load(stream(scenario.seed, "data", 0))
    shards = build.created(scenario, ("training", "partition")).split(
        data.train_labels, scenario.population.n_nodes, stream(scenario.seed, "data", 1)
    )
    plan = TrainingPlan(
        net=build.created(scenario, ("training", "net")),
        placement=build.created(scenario, ("privacy", "placement")),
        aggregation=build.created(scenario, ("training", "aggregation")),
        rounds=settings.rounds,
        steps=LocalSteps(
            settings.local_steps,
            settings.learning_rate,
            settings.momentum,
            Clipping(privacy.clipping_norm),
        ),
        delta=privacy.delta,
        calibration=privacy.calibration,
        horizon=privacy.horizon,
        neighbours=privacy.neighbours,
        seed=scenario.seed,
    )
    return FederatedTrainer(data, shards, plan)


def train_arms(
    scenario: Scenario, market: PrivacyMarket, trainer: FederatedTrainer, *, progress: bool
) -> Trained:
    """Train once with the market's epsilon, and once with each thing it is compared with."""
    frames, facts = [], []
    arms = _arms(scenario, market)
    rounds = _training(scenario).rounds
    arms = [arm for arm in arms if (arm.epsilon > 0).any()]  # without trade nobody trains
    with tqdm(
        total=len(arms) * (rounds + 1),
        desc="training",
        unit="round",
        disable=None if progress else True,
    ) as bar:
        for arm in arms:

            def show(result: TrainingRound, name: str = arm.name) -> None:
                bar.set_postfix(arm=name, accuracy=f"{result.accuracy:.1%}", refresh=False)
                bar.update()

            results = trainer.train(arm.epsilon, private=arm.private, on_round=show)
            frames.append(pd.DataFrame([asdict(r) for r in results]).assign(arm=arm.name))
            facts.append(_facts(arm, results, trainer))
    spent = trainer.privacy(market.columns.epsilon)
    return Trained(
        rounds=pd.concat(frames, ignore_index=True) if frames else empty("training"),
        nodes={
            "n_samples": trainer.n_samples.astype(np.int64),
            "label_divergence": label_divergence(trainer.data.train_labels, trainer.shards),
            "noise_multiplier": spent.noise_multiplier,
            "noise_std": spent.noise_std,
            "epsilon_per_round": spent.epsilon_per_round,
            "epsilon_total": spent.epsilon_total,
            "delta": spent.delta,
        },
        facts={
            "data": trainer.data.label,
            "n_parameters": trainer.n_parameters,
            "arms": facts,
            "privacy_note": _privacy_note(scenario, arms),
        },
    )


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


def _facts(arm: _Arm, results: list[TrainingRound], trainer: FederatedTrainer) -> dict[str, Any]:
    active = arm.epsilon > 0
    true = trainer.privacy(arm.epsilon)
    covered = true.epsilon_per_round if trainer.plan.horizon == "round" else true.epsilon_total
    return {
        "name": arm.name,
        "private": arm.private,
        "n_nodes": int(active.sum()),
        "mean_epsilon": float(arm.epsilon[active].mean()),
        "mean_true_epsilon": float(covered[active].mean()) if arm.private else None,
        "node_utility": float(arm.node_utility.sum()),
        "n_losing": int((arm.node_utility < -1e-12).sum()),
        "server_utility": arm.server_utility,
        "accuracy": results[-1].accuracy,
        "loss": results[-1].loss,
    }


def _privacy_note(scenario: Scenario, arms: list[_Arm]) -> str:
    largest = max((arm.epsilon.max(initial=0.0) for arm in arms if arm.private), default=0.0)
    if scenario.privacy.calibration == "classical" and largest >= _CLASSICAL_RANGE:
        return (
            "The classical calibration is proven below epsilon = 1 only, and here it is used up to "
            f"{largest:.3g}: the epsilons above, and the true ones below, are those of its noise."
        )
    return ""
