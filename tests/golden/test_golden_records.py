"""A golden record for every shipped scenario: what was computed once is computed still."""

import json

import pandas as pd
import pytest
from golden.refresh import MEASURED, RECORDS, TRAINED, TRAININGS, digest, golden, trained

from fcfn_abm.scenario import shipped_files

pytestmark = pytest.mark.slow

GOLDEN = json.loads(RECORDS.read_text(encoding="utf-8"))
NETS = json.loads(TRAININGS.read_text(encoding="utf-8"))
REFRESH = "if that is meant: python tests/golden/refresh.py, and look at what changes"
TOLERANCE = {  # docs/training.md, "How equal are two machines?"
    "accuracy": {"abs": 1.01 / 359, "rel": 0},  # one image of the test set
    "loss": {"rel": 1e-5},
    "signal_to_noise": {"rel": 1e-5},
}


def test_every_shipped_scenario_has_a_golden_record():
    assert list(GOLDEN) == list(shipped_files()), REFRESH
    assert list(NETS) == list(TRAINED), REFRESH


@pytest.mark.parametrize("name", list(GOLDEN))
def test_a_shipped_scenario_gives_the_values_that_it_always_gave(name):
    assert golden(name) == GOLDEN[name], REFRESH


@pytest.mark.parametrize("name", list(NETS))
def test_a_net_learns_what_it_always_learned_and_spends_the_very_same(name):
    pytest.importorskip("torch")
    found, kept = trained(name), dict(NETS[name])
    for column in MEASURED:
        assert found.pop(column) == pytest.approx(kept.pop(column), **TOLERANCE[column]), REFRESH
    assert found == kept, REFRESH


@pytest.mark.parametrize(("scale", "step"), [(1.0, 1e-7), (1e3, 1e-4), (1e-2, 1e-9), (0.0, 1e-9)])
def test_a_digest_knows_values_order_and_names_and_no_less_than_the_eighth_digit(scale, step):
    frame = pd.DataFrame({"a": [scale, 0.0], "b": [1, 2]})
    same, other = 0.4 * step, 2 * step
    for sign in (-1, 1):
        assert digest(frame) == digest(frame.assign(a=[scale + sign * same, -same]))
    others = (frame.assign(a=[scale + other, 0]), frame[::-1], frame.rename(columns={"a": "c"}))
    for changed in others:
        assert digest(changed) != digest(frame)
