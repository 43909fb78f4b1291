"""The market as a PettingZoo environment: its interface, and that it is the same market."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pettingzoo.test import parallel_api_test, parallel_seed_test

import fcfn_abm as fa
from fcfn_abm.errors import InvalidGameError, InvalidScenarioError
from fcfn_abm.scenario import Scenario


def scenario(n_nodes=5, *, maximum=30, **tables):
    tree = {
        "seed": 3,
        "population": {"n_nodes": n_nodes, "rho": {"kind": "uniform", "low": 0.5, "high": 1.5}},
        "game": {"budget": 3.0},
        "server": "fixed",
    }
    tables["rounds"] = {"order": "simultaneous", "maximum": maximum, **tables.get("rounds", {})}
    return Scenario.model_validate({**tree, **tables})


def entry(market, observations, agent, name):
    return observations[agent][market.observation_names(agent).index(name)]


def respond(market, observations, agent):
    """Return the action that is the best response to what a node observes."""
    seen = dict(zip(market.observation_names(agent), observations[agent], strict=True))
    reply = fa.best_response(seen["rho"], seen["others"], seen["budget"])
    return reply * 4 * seen["rho"] / seen["budget"] if seen["budget"] > 0 else 0.0


VARIANTS = {
    "plain": {},
    "aggregate, noisy": {"information": {"reports": "aggregate", "noise": 0.1}},
    "few move": {"rounds": {"participation": 0.4}},
    "exits": {"exit": {"reentry": False, "patience": 1, "criterion": "loss"}},
    "paid after reports": {"rounds": {"payment": "after-reports"}, "server": "anticipate"},
    "an agency": {"mechanism": "yang"},
}


@pytest.mark.parametrize("server", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_passes_the_tests_of_pettingzoo(variant, server, capsys):
    made = fa.env(scenario(**VARIANTS[variant]), server=server)
    parallel_api_test(made, num_cycles=100)
    parallel_seed_test(lambda: fa.env(scenario(**VARIANTS[variant]), server=server), num_cycles=10)
    assert "Passed Parallel API test" in capsys.readouterr().out


@pytest.mark.parametrize("rule", ["fixed", "anticipate", "gradient"])
@pytest.mark.parametrize("payment", ["announced", "after-reports"])
@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_best_responses_through_the_environment_are_those_of_the_market(
    rule, payment, noise, share
):
    tables = {
        "server": rule,
        "information": {"noise": noise},
        "rounds": {"payment": payment, "participation": share},
        "learning": {"kind": "best-response", "gain": 1.0},
    }
    market, made = fa.PrivacyMarket(scenario(**tables)), fa.env(scenario(**tables))
    observations, _ = made.reset()
    assert_array_equal(made.market.columns.rho, market.columns.rho)
    while made.agents:
        actions = {agent: respond(made, observations, agent) for agent in made.agents}
        observations, rewards, _, _, infos = made.step(actions)
        market.step()
        scale = market.columns.epsilon.max()
        reports = [infos[agent]["epsilon"] for agent in made.possible_agents]
        assert_allclose(reports, market.columns.epsilon, rtol=1e-6, atol=1e-9 * scale)
        utilities = [rewards[agent] for agent in made.possible_agents]
        assert_allclose(utilities, market.columns.utility, atol=1e-6 * market.budget)
    assert market.round_index == 30


def test_the_server_announces_the_cap_of_the_next_round_and_nodes_see_it_first():
    made = fa.env(scenario(), server=True)
    observations, _ = made.reset()
    assert entry(made, observations, "node_0", "budget") == 3.0  # the opening cap
    actions = dict.fromkeys(made.agents, 0.5) | {"server": 0.2}
    observations, rewards, *_, infos = made.step(actions)
    assert sum(infos[f"node_{row}"]["payment"] for row in range(5)) == pytest.approx(3.0)
    assert entry(made, observations, "node_0", "budget") == pytest.approx(2.0)  # 0.2 beta
    assert entry(made, observations, "server", "budget") == pytest.approx(2.0)
    reports = [infos[f"node_{row}"]["epsilon"] for row in range(5)]
    assert rewards["server"] == pytest.approx(fa.server_utility(np.mean(reports), 10.0, 10.0, 3.0))
    assert entry(made, observations, "server", "total_epsilon") == pytest.approx(sum(reports))
    actions = dict.fromkeys(made.agents, 0.5) | {"server": 0.0}
    *_, infos = made.step(actions)
    assert sum(infos[f"node_{row}"]["payment"] for row in range(5)) == pytest.approx(2.0)
    observations, rewards, *_ = made.step(dict.fromkeys(made.agents, 1.0))  # after a cap of zero
    assert not any(rewards.values())
    assert entry(made, observations, "node_3", "budget") == pytest.approx(10.0)  # and up again


def test_a_node_sees_no_more_than_the_information_settings_show():
    full, total = fa.env(scenario()), fa.env(scenario(information={"reports": "aggregate"}))
    assert full.observation_names("node_0")[-5:] == tuple(f"epsilon of node_{i}" for i in range(5))
    assert set(total.observation_names("node_0")) == set(full.observation_names("node_0")[:-5])
    observations, _ = full.reset()
    shares = np.linspace(0.1, 0.5, 5)
    observations, *_, infos = full.step(dict(zip(full.agents, shares, strict=True)))
    reports = np.array([infos[agent]["epsilon"] for agent in full.agents])
    assert_allclose(reports, shares * 3.0 / (4 * full.market.columns.rho))
    assert_array_equal(observations["node_2"][-5:], reports)
    assert entry(full, observations, "node_2", "others") == pytest.approx(
        np.delete(reports, 2).sum()
    )
    assert entry(full, observations, "node_2", "epsilon") == reports[2]


def test_the_same_seed_gives_the_same_market_and_another_seed_another_one():
    made = fa.env(scenario())
    costs = []
    for seed in (1, 1, 2, None):
        made.reset(seed=seed)
        costs.append(made.market.columns.rho.copy())
    assert_array_equal(costs[0], costs[1])
    assert (costs[0] != costs[2]).all()
    assert_array_equal(costs[3], fa.PrivacyMarket(scenario()).columns.rho)
    given = fa.env(scenario(), rho=np.arange(1.0, 6.0))
    given.reset(seed=9)
    assert_array_equal(given.market.columns.rho, np.arange(1.0, 6.0))


def test_who_leaves_for_good_is_terminated_and_all_are_truncated_at_the_last_round():
    exits = {"exit": {"reentry": False, "patience": 2}}
    made = fa.env(scenario(maximum=6, **exits))
    made.reset()
    for played in range(1, 7):
        actions = {agent: 0.0 if agent == "node_1" else 0.3 for agent in made.agents}
        _, _, terminated, truncated, _ = made.step(actions)
        assert [agent for agent in terminated if terminated[agent]] == ["node_1"] * (played == 2)
        assert set(truncated.values()) == {played == 6}
        assert ("node_1" in made.agents) == (played < 2)
    assert made.agents == []


@pytest.mark.parametrize("action", [np.nan, -0.1, 1.1, [0.1, 0.2], []])
def test_an_action_that_is_no_share_is_refused_with_the_name_of_the_agent(action):
    made = fa.env(scenario())
    made.reset()
    with pytest.raises(InvalidGameError, match="'node_4' must be one number from 0 to 1, but is"):
        made.step({**dict.fromkeys(made.agents, 0.1), "node_4": action})
    with pytest.raises(InvalidGameError, match="'node_0' has no action"):
        made.step({})


def test_markets_that_are_no_contest_of_the_same_nodes_are_refused():
    with pytest.raises(InvalidScenarioError, match=r"\[population.churn\].*same agents"):
        fa.env(scenario(population={"n_nodes": 5, "churn": {"departures": 0.1}}))
    with pytest.raises(
        InvalidScenarioError, match=r"\[mechanism\] kind: an environment needs a contest"
    ):
        fa.env(scenario(mechanism="ic-mle"))


def test_without_pettingzoo_one_sentence_names_the_extra():
    code = "import sys; sys.modules['pettingzoo'] = None\nimport fcfn_abm as fa\nfa.env()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "MissingExtraError: fcfn_abm.env needs PettingZoo: install the extra 'env'" in last
