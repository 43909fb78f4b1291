"""Costs that follow the data, and scenarios/heterogeneity/data_costs.toml as it claims."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.runs.run import run_scenario

pytestmark = pytest.mark.slow

FILE = "scenarios/heterogeneity/data_costs.toml"
EQUAL = "population.rho.coupling=0.0"


@pytest.fixture(scope="module")
def record():
    return run_scenario(build.load_scenario(FILE))


@pytest.fixture(scope="module")
def equal():
    return run_scenario(build.load_scenario(FILE, [EQUAL]))


def test_costs_follow_the_very_data_that_nodes_train_on(record):
    nodes = record.nodes
    assert_allclose(nodes["rho"], 0.01 * (1 + 2 * nodes["label_divergence"]), rtol=1e-12)
    assert nodes["label_divergence"].max() - nodes["label_divergence"].min() > 0.3


def test_the_divergence_is_that_of_the_labels_dealt(record):
    data = build.load_images(record.scenario)
    shards = build.draw_population(record.scenario, data).held.shards
    assert sorted(np.concatenate(shards)) == list(range(data.train_labels.size))
    labels = range(len(data.class_names))
    overall = [np.mean(data.train_labels == c) for c in labels]
    for node in (0, 17, 39):
        own = [np.mean(data.train_labels[shards[node]] == c) for c in labels]
        more = sum(max(a - b, 0.0) for a, b in zip(own, overall, strict=True))
        assert record.nodes["label_divergence"][node] == pytest.approx(more, rel=1e-12)


def test_the_contest_keeps_the_most_ordinary_nodes(record):
    nodes = record.nodes
    stay = nodes[nodes["active"]]
    assert record.run["verdict"]["kind"] == "converged"
    assert len(stay) == 13
    assert stay["label_divergence"].max() < nodes["label_divergence"][~nodes["active"]].min()
    assert spearmanr(stay["label_divergence"], stay["epsilon"]).statistic == pytest.approx(-1)


def test_the_server_thinks_it_gains_and_the_net_is_worse(record, equal):
    assert equal.nodes["active"].all()
    ours, theirs = (r.run["training"]["arms"][0] for r in (record, equal))
    assert ours["server_utility"] > theirs["server_utility"] + 1
    assert ours["accuracy"] < theirs["accuracy"] - 0.05


def test_without_coupling_all_cost_the_same(equal):
    assert (equal.nodes["rho"] == 0.01).all()


def test_costs_do_not_need_the_net_to_be_trained_nor_torch():
    untrained = build.load_scenario(FILE, ["training.enabled=false"])
    trained = build.load_scenario(FILE)
    assert_allclose(build.draw_population(untrained).rho, build.draw_population(trained).rho)
    code = (
        "import sys; from fcfn_abm.cli import main\n"
        f"sys.argv = ['fcfn', 'equilibrium', {FILE!r}]\n"
        "try: main()\n"
        "except SystemExit: print('torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "False True"


def test_other_distributions_do_not_load_the_data(monkeypatch):
    monkeypatch.setattr(build.parts, "load_images", lambda _: pytest.fail("the data was loaded"))
    build.draw_population(build.load_scenario(FILE, ["population.rho.kind=lognormal"]))
    with pytest.raises(pytest.fail.Exception):
        build.draw_population(build.load_scenario(FILE))


def test_another_seed_deals_other_data():
    scenarios = [build.load_scenario(FILE, [f"seed={seed}"]) for seed in (3, 4)]
    one, other = (build.draw_population(scenario).rho for scenario in scenarios)
    assert (one != other).any()


def test_nodes_that_misreport_pay_less_for_a_unit_of_report():
    scenario = build.load_scenario(FILE, ["population.misreport.share=0.5"])
    population = build.draw_population(scenario)
    assert sorted(set((population.true_rho / population.rho).round(9))) == [1.0, 1.5]
    assert_array_equal(population.true_rho, build.draw_population(build.load_scenario(FILE)).rho)


def test_the_distribution_needs_a_training_table(tmp_path):
    path = tmp_path / "bare.toml"
    path.write_text('[population]\nrho = "divergence"\n', encoding="utf-8")
    with pytest.raises(InvalidScenarioError, match=r"\[population.rho\] kind: .*\[training\]"):
        build.load_scenario(path)


def test_a_market_alone_draws_the_same_nodes():
    scenario = build.load_scenario(FILE)
    expected = build.draw_population(scenario).rho
    assert_array_equal(fa.PrivacyMarket(scenario).columns.rho, expected)


@pytest.mark.parametrize("file", [FILE, "privacy/free_riders"])
@pytest.mark.parametrize("schedule", ["at-equilibrium", "every-round"])
def test_a_run_draws_its_population_once(file, schedule, monkeypatch):
    calls = Counter()

    def count(module, name):
        function = getattr(module, name)

        def counted(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)

    overrides = ["training.rounds=1", "training.compare=[]", f"training.schedule={schedule}"]
    scenario = build.load_scenario(file, overrides)
    count(build, "load_images")
    for name in ("draw_rho", "draw_misreport_factors", "_deal"):
        count(build.parts, name)
    run_scenario(scenario)
    misreports = {"draw_misreport_factors": 1} if scenario.population.misreport else {}
    assert calls == {"load_images": 1, "draw_rho": 1, "_deal": 1, **misreports}
