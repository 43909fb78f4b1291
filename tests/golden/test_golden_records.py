"""A golden record for every shipped scenario: what was computed once is computed still."""

import json

import pandas as pd
import pytest
from golden.refresh import RECORDS, digest, golden, names

GOLDEN = json.loads(RECORDS.read_text(encoding="utf-8"))
REFRESH = "if that is meant: python tests/golden/refresh.py, and look at what changes"


def test_every_shipped_run_has_a_golden_record():
    assert list(GOLDEN) == names(), REFRESH


@pytest.mark.parametrize("name", list(GOLDEN))
def test_a_shipped_scenario_gives_the_values_that_it_always_gave(name):
    assert golden(name) == GOLDEN[name], REFRESH


def test_a_digest_knows_values_order_and_names_and_no_less_than_the_ninth_decimal():
    frame = pd.DataFrame({"a": [1.0, 0.0], "b": [1, 2]})
    assert digest(frame) == digest(frame.assign(a=[1.0 + 4e-10, -4e-10]))
    others = (frame.assign(a=[1.0 + 2e-9, 0.0]), frame[::-1], frame.rename(columns={"a": "c"}))
    for other in others:
        assert digest(other) != digest(frame)
