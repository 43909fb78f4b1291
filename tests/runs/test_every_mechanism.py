"""Every mechanism trains a net, and every average reaches market, text and comparison."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fcfn_abm as fa
from fcfn_abm.build import NO_NOISE, draw_population, load_images, price_mechanism
from fcfn_abm.mechanisms import MECHANISMS
from fcfn_abm.report.compare import comparison_text
from fcfn_abm.report.figures import comparison
from fcfn_abm.report.summary import equilibrium_table, free_riders_table

SMALL = ["training.rounds=2", "population.n_nodes=6"]


def test_a_shipped_scenario_trains_a_net_with_every_mechanism():
    scenario = fa.load_scenario("training/mechanisms", SMALL)
    record = fa.run_scenario(scenario)
    trained = record.run["training"]["arms"]
    names = [one["name"] for one in trained]
    assert set(names) == {NO_NOISE, *MECHANISMS}
    population = draw_population(scenario)
    for one in trained:
        assert 0 <= one["accuracy"] <= 1
        if one["name"] in ("stackelberg", NO_NOISE):
            continue
        priced = price_mechanism(scenario, one["name"], population, record.run["market"]["budget"])
        assert one["n_nodes"] == priced.n_active > 0
        assert one["node_utility"] == pytest.approx(priced.node_utility.sum(), rel=1e-12)


@pytest.mark.parametrize("by", ["samples", "divergence"])
def test_weights_by_data_are_those_of_the_nodes_that_train(by):
    scenario = fa.load_scenario(
        "quickstart", [*SMALL, f'mechanism={{kind="weighted",by="{by}"}}', "training.compare=[]"]
    )
    record = fa.run_scenario(scenario)
    population = draw_population(scenario, load_images(scenario))
    held = population.held
    weights = (
        [float(rows.size) for rows in held.shards]
        if by == "samples"
        else (1 / (1 + held.label_divergence)).tolist()
    )
    assert len(set(weights)) > 1
    game = {"alpha": scenario.game.alpha, "beta": scenario.game.beta}
    priced = fa.price("weighted", population.rho, **game, by="listed", weights=weights)
    assert record.run["verdict"]["kind"] == "converged"
    assert record.run["equilibrium"]["payment"] == pytest.approx(priced.paid, rel=1e-12)
    assert record.run["market"]["budget"] == pytest.approx(priced.paid, rel=1e-6)
    np.testing.assert_allclose(
        record.nodes["epsilon"], priced.epsilon, rtol=1e-5, atol=1e-6 * priced.epsilon.max()
    )


def test_nodes_with_false_costs_add_the_noise_of_what_they_sell():
    lie = "population.misreport={share=0.5,factor=2.0}"
    scenario = fa.load_scenario(
        "quickstart",
        [*SMALL, "mechanism=fair-query", lie, "training.compare=[]", "game.budget=1.0"],
    )
    record = fa.run_scenario(scenario)
    asked = scenario.model_copy(
        update={"population": scenario.population.model_copy(update={"misreport": None})}
    )
    honest = draw_population(asked)
    assert_array_equal(record.nodes["rho"], honest.true_rho)
    paid = record.nodes["payment"] - record.nodes["rho"] * record.nodes["epsilon"]
    np.testing.assert_allclose(record.nodes["utility"], paid, rtol=1e-12)
    (one,) = record.run["training"]["arms"]
    assert one["mean_true_epsilon"] == pytest.approx(one["mean_epsilon"], rel=1e-6)
    fair = price_mechanism(asked, "fair-query", honest, 1.0)
    found = one["free_riders"]
    together = sum(
        found[group]["n_nodes"] * found[group]["utility_if_all_were_honest"]
        for group in ("honest", "misreporting")
    )
    assert found["misreporting"]["n_nodes"] == 3
    assert "that report 2 times their cost" in free_riders_table(record).text()
    assert together == pytest.approx(fair.node_utility.sum(), rel=1e-9)


def test_a_market_rests_at_the_cap_of_the_effective_number():
    scenario = fa.load_scenario("quickstart", ["game.average_over=effective"])
    market = fa.PrivacyMarket(scenario)
    assert market.run_until().kind == "converged"
    alpha, beta = scenario.game.alpha, scenario.game.beta
    form = fa.stackelberg_equilibrium(draw_population(scenario).rho, alpha, beta, "effective")
    assert market.budget == pytest.approx(form.budget, rel=1e-6)
    n_effective = market.epsilon.sum() ** 2 / (market.epsilon**2).sum()
    assert market.state.mean_epsilon == pytest.approx(market.epsilon.sum() / n_effective)
    assert market.state.server_utility == pytest.approx(form.server_utility, rel=1e-6)


def test_texts_and_figures_say_over_what_the_mean_is():
    scenario = fa.load_scenario("quickstart", ["game.average_over=effective"])
    found = fa.compare_mechanisms(scenario, ["stackelberg", "tullock"], replications=2)
    text = comparison_text(found.frame, found.run).plain
    assert "Mean epsilon is over the effective number of nodes" in text
    figure = comparison(found.frame)
    assert "ε, over the effective number" in [axes.get_xlabel() for axes in figure.axes]
    facts = fa.run_scenario(
        fa.load_scenario("quickstart", ["game.average_over=effective", "training.enabled=false"])
    ).run
    assert "over the effective number of nodes" in equilibrium_table(facts["equilibrium"]).text()


def test_a_mechanism_that_lacks_something_has_no_outcome_and_says_why():
    scenario = fa.load_scenario(
        "quickstart",
        ["population={n_nodes=3,rho={kind='listed',values=[1.0,1.1,1.2]}}", "game.beta=1e3"],
    )
    found = fa.compare_mechanisms(scenario, ["stackelberg", "myerson-cap"], replications=1)
    row = found.frame.set_index("mechanism").loc["myerson-cap"]
    assert row["status"] == "no-solution"
    assert "'listed' has no probabilities" in row["reason"]
    assert np.isnan(row["server_utility"])


def test_a_mechanism_that_ignores_the_cap_is_named():
    scenario = fa.load_scenario("training/mechanisms", ["game.budget=0.01"])
    found = fa.compare_mechanisms(scenario, ["stackelberg", "myerson-cap"], replications=2)
    text = comparison_text(found.frame, found.run).plain
    assert "myerson-cap: ignores the cap and pays" in " ".join(text.split())
    assert "stackelberg: ignores" not in text
