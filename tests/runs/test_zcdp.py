"""What is sold is zCDP's rho: noise, ledger, record and plan, against closed forms."""

from __future__ import annotations

import json

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose

import fcfn_abm as fa
from fcfn_abm.dp import multiplier_for_zcdp, spent_zcdp
from fcfn_abm.errors import InvalidPrivacyError, InvalidScenarioError
from fcfn_abm.report.summary import summary

SETTINGS = [
    "population.n_nodes=4",
    'server="fixed"',
    "game.budget=0.01",
    "training.rounds=3",
    "training.compare=[]",
    'training.aggregation="uniform"',
    'privacy.currency="zcdp"',
    'privacy.horizon="round"',
    "record.traces='none'",
]


def exact_delta(epsilon, zcdp_rho):
    """Return delta of a Gaussian release, by 50-digit numbers and the textbook formula.

    Balle and Wang 2018, Theorem 8, with sensitivity over noise of sqrt(2 rho).
    """
    with mpmath.workdps(50):
        mu = mpmath.sqrt(2 * mpmath.mpf(zcdp_rho))
        first = mpmath.ncdf(mu / 2 - epsilon / mu)
        return float(first - mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu))


@pytest.fixture(scope="module")
def record():
    return fa.run_scenario(fa.load_scenario("privacy/quickstart-local", SETTINGS))


def test_the_noise_of_a_release_is_its_sensitivity_over_the_root_of_twice_rho():
    assert_allclose(multiplier_for_zcdp([0.5, 0.02], 1), [1.0, 5.0], rtol=1e-15)
    assert multiplier_for_zcdp(0.0, 3) == np.inf
    with pytest.raises(InvalidPrivacyError, match="zcdp_rho"):
        multiplier_for_zcdp([-1.0], 1)


def test_rho_adds_up_release_by_release():
    each = multiplier_for_zcdp([0.3, 7.0], 12)
    assert_allclose(spent_zcdp(each, 1) * 12, [0.3, 7.0], rtol=1e-15)
    assert_allclose(spent_zcdp(each, 12), [0.3, 7.0], rtol=1e-15)


def test_a_round_of_training_spends_what_was_sold_and_all_rounds_so_many_times_as_much(record):
    nodes = record.nodes
    assert_allclose(nodes["zcdp_sold"], nodes["epsilon"], rtol=0)
    assert_allclose(nodes["noise_multiplier"], 1 / np.sqrt(2 * nodes["epsilon"]), rtol=1e-14)
    assert_allclose(nodes["zcdp_total"], 3 * nodes["epsilon"], rtol=1e-14)
    ledger = record.ledger
    for node, rows in ledger.groupby("node"):
        sold = nodes.loc[nodes["node"] == node, "epsilon"].item()
        assert_allclose(rows["zcdp_round"], sold, rtol=1e-14)
        assert_allclose(rows["zcdp_total"], sold * rows["round"], rtol=1e-14)


def test_epsilon_in_the_record_is_that_of_the_exact_gaussian_curve(record):
    delta = record.scenario.privacy.delta
    for node in record.nodes.itertuples():
        assert_allclose(exact_delta(node.epsilon_per_round, node.zcdp_sold), delta, rtol=1e-9)
        assert_allclose(exact_delta(node.epsilon_total, node.zcdp_total), delta, rtol=1e-9)
    # the conversion that every release with this rho has (Bun and Steinke 2016, Proposition 1.3)
    rho = record.nodes["zcdp_total"]
    bound = rho + 2 * np.sqrt(rho * np.log(1 / delta))
    assert (record.nodes["epsilon_total"] < bound).all()


def test_a_total_rho_is_shared_out_among_the_rounds():
    settings = [*SETTINGS, 'privacy.horizon="training"']
    record = fa.run_scenario(fa.load_scenario("privacy/quickstart-local", settings))
    nodes = record.nodes
    assert_allclose(nodes["zcdp_total"], nodes["epsilon"], rtol=1e-14)
    assert_allclose(nodes["noise_multiplier"], np.sqrt(3 / (2 * nodes["epsilon"])), rtol=1e-14)


def test_summary_and_plan_show_both_readings(record):
    said = summary(record).plain
    assert "Nodes sell zCDP's rho in this scenario" in said
    assert "rho of zCDP, one round, sold" in said
    assert "epsilon, total of 3 rounds" in said
    plan = json.loads(fa.export_plan(record))
    assert plan["plan"]["currency"] == "zcdp"
    for node, row in zip(plan["nodes"], record.nodes.itertuples(), strict=True):
        assert node["zcdp_sold"] == pytest.approx(row.epsilon)
        assert node["epsilon"] == pytest.approx(row.epsilon_per_round)
        assert node["sigma"] / node["noise_multiplier"] == pytest.approx(
            row.noise_std / row.noise_multiplier
        )


def test_a_record_on_disk_holds_both(record, tmp_path):
    written = fa.run_scenario(record.scenario, tmp_path / "run")
    read = fa.read_record(written.path)
    assert_allclose(read.nodes["zcdp_total"], record.nodes["zcdp_total"], rtol=0)
    assert {"zcdp_round", "zcdp_total"} <= set(read.ledger.columns)


def test_an_epsilon_record_has_no_columns_of_zcdp():
    settings = [one for one in SETTINGS if "zcdp" not in one]
    record = fa.run_scenario(fa.load_scenario("privacy/quickstart-local", settings))
    named = [*record.nodes.columns, *record.ledger.columns]
    assert not [name for name in named if "zcdp" in name]


def test_what_zcdp_does_not_claim_is_refused():
    with pytest.raises(InvalidScenarioError, match="determines the noise without a calibration"):
        fa.load_scenario("privacy/quickstart-local", [*SETTINGS, 'privacy.calibration="classical"'])
    sampled = ["privacy.placement.kind='dp-sgd'", "privacy.placement.sampling_rate=0.5"]
    with pytest.raises(InvalidScenarioError, match="no rho is claimed for it"):
        fa.load_scenario("privacy/quickstart-local", [*SETTINGS, *sampled])
