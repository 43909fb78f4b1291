from dataclasses import replace

import numpy as np
import pytest

from fcfn_abm.dp import Clipping
from fcfn_abm.errors import InvalidDataError, InvalidPrivacyError
from fcfn_abm.training import AGGREGATIONS, NETS, PLACEMENTS, TrainingPlan
from fcfn_abm.training.local_steps import LocalSteps
from fcfn_abm.training.plan import Chances

STEPS = LocalSteps(1, 0.1, 0.0, Clipping(1.0))
PLAN = TrainingPlan(
    net=NETS.create("digits-cnn"),
    placement=PLACEMENTS.create("dp-sgd"),
    aggregation=AGGREGATIONS.create("uniform"),
    rounds=3,
    steps=STEPS,
    delta=1e-5,
    calibration="analytic",
    horizon="round",
    neighbours="replace-one",
    seed=1,
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"neighbours": "replace_one"},
            "or 'zero-out', but is 'replace_one'",
        ),
        ({"horizon": "Training"}, "horizon must be 'round' or 'training'"),
        ({"calibration": "exact"}, "calibration must be 'analytic' or 'classical'"),
        ({"noise_of": "node"}, "noise_of must be 'nodes' or 'sum'"),
        ({"delta": 0.0}, "delta must lie between 0 and 1"),
        ({"delta": np.nan}, "delta must lie between 0 and 1"),
        ({"false_alarm": 0.0}, "false_alarm must lie between 0 and 1"),
    ],
)
def test_a_plan_without_a_meaning_for_privacy_is_refused(change, words):
    with pytest.raises(InvalidPrivacyError, match=words):
        replace(PLAN, **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precision": "fp16"}, "precision must be 'fp32' or 'bf16'"),
        ({"rounds": 1.5}, "rounds must be a whole number of at least 1, but is 1.5"),
        ({"rounds": True}, "rounds must be a whole number of at least 1, but is True"),
        ({"rounds": 0}, "rounds must be a whole number of at least 1, but is 0"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(change, words):
    with pytest.raises(InvalidDataError, match=words):
        replace(PLAN, **change)


def test_a_batch_size_beside_sampling_is_refused_and_not_ignored():
    sampled = PLACEMENTS.create("dp-sgd", {"sampling_rate": 0.3})
    with pytest.raises(InvalidDataError, match="batch_size = 8 is incompatible"):
        replace(PLAN, placement=sampled, steps=replace(STEPS, batch_size=8))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"learning_rate": np.nan}, "learning_rate must be positive"),
        ({"learning_rate": -0.1}, "learning_rate must be positive"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1"),
        ({"momentum": np.nan}, "momentum must be at least 0 and below 1"),
    ],
)
def test_local_steps_outside_their_range_are_refused(change, words):
    with pytest.raises(InvalidDataError, match=words):
        replace(STEPS, **change)


@pytest.mark.parametrize(
    "change",
    [{"participation": 0.0}, {"participation": np.nan}, {"dropping": 1.0}, {"straggling": -0.1}],
)
def test_chances_that_are_none_are_refused(change):
    with pytest.raises(InvalidDataError, match=f"{next(iter(change))} must be"):
        Chances(**change)
