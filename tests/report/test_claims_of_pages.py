"""What a page says first does not contradict what it says below."""

import numpy as np
import pandas as pd
import pytest

from fcfn_abm.report.calibrate import describe_fit, identification, points_table
from fcfn_abm.report.comparison_page import _best, _differences


def fit(**changes):
    found = {"identified": "both", "alpha_interval": (1.0, 4.0), "r_squared": 0.99}
    return {**found, "beta_interval": (1.0, 2.0), "limit": 1.0, "limit_interval": None, **changes}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "Alpha and beta are identified"),
        ({"alpha_interval": (1e-3, 85_026.41)}, "Alpha is not identified"),
        ({"alpha_interval": (0.0, 1.0)}, "Alpha is not identified"),
        ({"r_squared": 0.3}, "The curve fits poorly"),
        ({"identified": "product"}, "Alpha and beta are not identified separately"),
        ({"identified": "level"}, "Alpha and beta are not identified separately"),
    ],
)
def test_the_word_over_a_calibration_is_that_of_its_worst_finding(changes, word):
    assert describe_fit(fit(**changes))[0] == word
    text = " ".join(identification({"fit": fit(**changes), "seeds": 3}).split())
    assert ("NOT identified" in text) == ("not identified" in word)
    assert ("spans a factor of 85,026,410" in text) == (
        changes == {"alpha_interval": (1e-3, 85_026.41)}
    )


def test_the_interval_of_a_value_stays_where_accuracy_can_be():
    point = {"epsilon": 1.0, "accuracy": 0.98, "value": 8.8, "half_width": 0.5}
    run = {
        "points": [{**point, "fitted": 8.0, "residual": 0.8}],
        "value_of_accuracy": 10.0,
        "chance": 0.1,
        "confidence": 0.95,
    }
    (row,) = points_table(run).rows
    assert row[3] == "8.3 to 9"  # all of accuracy is 10 (1 - 0.1)


def frame(*columns):
    rng = np.random.default_rng(5)
    shared = rng.normal(0, 10, 12)  # the populations differ much
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "mechanism": name,
                    "replication": range(12),
                    "status": "solved",
                    **dict.fromkeys(
                        ("mean_node_utility", "server_utility", "welfare", "mean_epsilon"),
                        shared + gain + rng.normal(0, 0.1, 12),
                    ),
                }
            )
            for name, gain in columns
        ],
        ignore_index=True,
    )


def averaged(table):
    from fcfn_abm.report.compare import QUANTITIES

    return table.assign(**{q: 1.0 for q in QUANTITIES if q not in table})


def test_pairs_tell_mechanisms_apart_that_their_means_do_not():
    table = averaged(frame(("a", 0.0), ("b", 1.0), ("c", 1.0)))
    best = _best(table, ["a", "b", "c"], "welfare", "Best")
    assert best.value in ("b", "c")
    assert "not distinguishable from" in best.note
    assert "not distinguishable from a" not in best.note
    rows = {row[0]: row[1] for row in _differences(table, ["a", "b", "c"]).rows}
    mean, half = map(float, rows["b"].split(" ± "))
    assert mean == pytest.approx(1.0, abs=0.2)
    assert half < 0.2
