"""Federated averaging by our trainer.

Variants are words joined by "+": a placement first; then "noise" (each node adds its own) or
"noise-of-sum" (one draw for all), "bf16", "idle" (only the first node trains), "2workers" and so
on.
"""

from __future__ import annotations

import re

import numpy as np
from work import LEARNING_RATE, MOMENTUM, N_CLASSES, TIMED, Turns, Work

from fcfn_abm.dp import Clipping
from fcfn_abm.training import (
    AGGREGATIONS,
    NETS,
    PLACEMENTS,
    FederatedTrainer,
    ImageData,
    TrainingPlan,
)
from fcfn_abm.training.local_steps import LocalSteps


def create_plan(work: Work) -> tuple[ImageData, list[np.ndarray], TrainingPlan]:
    """Return data with a single test image (to time only training), shards, and the plan."""
    images, labels = work.data()
    data = ImageData(
        images,
        labels,
        images[:1],
        labels[:1],
        class_names=tuple(map(str, range(N_CLASSES))),
        label="random",
    )
    placement, *words = work.variant.split("+")
    plan = TrainingPlan(
        net=NETS.create(TIMED["kind"], TIMED["options"]),
        placement=PLACEMENTS.create(placement or "update"),
        aggregation=AGGREGATIONS.create("data-size"),
        rounds=work.rounds,
        steps=LocalSteps(
            epochs=work.epochs,
            learning_rate=LEARNING_RATE,
            momentum=MOMENTUM,
            clipping=Clipping(1.0),
            batch_size=work.batch,
        ),
        delta=1e-5,
        calibration="analytic",
        horizon="round",
        neighbours="replace-one",
        seed=1,
        noise_of="sum" if "noise-of-sum" in words else "nodes",
        precision="bf16" if "bf16" in words else "fp32",
    )
    shards = np.split(np.arange(len(labels)), work.nodes)
    return data, shards, plan


def trainer(work: Work) -> FederatedTrainer:
    """Build the trainer."""
    words = work.variant.split("+")
    workers = [int(found[1]) for word in words if (found := re.fullmatch(r"(\d+)workers", word))]
    return FederatedTrainer(*create_plan(work), *workers, engine="serial")


def main() -> None:
    """Run a round on request."""
    work = Work.from_command_line()
    turns = Turns()
    made = trainer(work)
    words = work.variant.split("+")
    # minimal noise, which takes as long to draw: with more, training of few nodes diverges
    epsilon = np.full(work.nodes, 1e6)
    if "idle" in words:
        epsilon[1:] = 0.0
    private = "noise" in words or "noise-of-sum" in words
    training = made.begin(private=private)
    turns()  # before the first round, and after each
    while not training.over:
        training.step(epsilon)
        turns()


if __name__ == "__main__":
    main()
