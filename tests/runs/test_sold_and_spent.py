"""What nodes sell for a whole training, what they spend in it, and what a record says of both."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fcfn_abm as fa
from fcfn_abm.report.plan import export_plan
from fcfn_abm.report.summary import privacy_table


def run(*also):
    overrides = [
        "population.n_nodes=12",
        "training.rounds=12",
        "training.participation=0.5",
        "training.compare=[]",
        "privacy.horizon=training",
    ]
    return fa.run_scenario(fa.load_scenario("privacy/quickstart-local", [*overrides, *also]))


def test_noise_covers_the_rounds_that_a_node_is_expected_in():
    record = run()
    assert record.run["training"]["max_participations"] == 6
    nodes = record.nodes[record.nodes["active"]]
    times = record.ledger.groupby("node").size().reindex(nodes["node"], fill_value=0).to_numpy()
    assert times.max() == 6
    assert_allclose(nodes["epsilon_sold"], nodes["epsilon"], rtol=1e-6)
    rested = times == 6
    assert_allclose(nodes["epsilon_total"][rested], nodes["epsilon_sold"][rested], rtol=1e-9)
    assert (nodes["epsilon_total"][~rested] < nodes["epsilon_sold"][~rested]).all()
    assert "A lower privacy.max_participations" not in record.run["training"]["privacy_note"]
    assert json.loads(export_plan(record))["plan"]["max_participations"] == 6


def test_a_record_says_where_much_less_was_spent_than_sold():
    record = run("privacy.max_participations=12")
    trained = record.nodes[record.nodes["epsilon_total"] > 0]
    sold, spent = trained["epsilon_sold"].median(), trained["epsilon_total"].median()
    assert spent < 0.75 * sold
    note = record.run["training"]["privacy_note"]
    assert f"the median node sold a total epsilon of {sold:.3g} and spent {spent:.3g}" in note
    assert "The noise covers 12 rounds" in note
    assert "epsilon, total, sold" in privacy_table(record).text()


def test_of_an_epsilon_for_each_round_a_round_is_what_is_sold():
    record = run("privacy.horizon=round")
    nodes = record.nodes[record.nodes["active"]]
    assert_allclose(nodes["epsilon_sold"], nodes["epsilon_per_round"])
    assert record.run["training"]["max_participations"] == 12
    assert "sold" not in record.run["training"]["privacy_note"]
    assert np.isfinite(nodes["epsilon_total"]).all()


@pytest.mark.parametrize("wrong", ["0", "1.5", "true", '"all"'])
def test_a_limit_that_is_no_count_is_refused(wrong):
    with pytest.raises(fa.errors.InvalidScenarioError, match="max_participations"):
        fa.load_scenario("privacy/quickstart-local", [f"privacy.max_participations={wrong}"])
