"""The server rule bandit: it finds the peak of any utility with one peak, noisy or not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.learning import SERVER_RULES, ServerObservation
from fcfn_abm.scenario import Scenario

BETA = 10.0


def seek(utility, n_rounds, noise=0.0, seed=0, **options):
    """Let the rule announce caps whose utility is known at once; return rule, memory and caps."""
    rule, chance = SERVER_RULES.create("bandit", options), np.random.default_rng(seed)
    memory, cap, caps = dict(rule.memory), BETA / 2, []
    for _ in range(n_rounds):
        seen = utility(cap) + noise * chance.standard_normal()
        observed = ServerObservation(cap, np.zeros(2), 10.0, BETA, "active", seen, 1, memory)
        cap = rule.next_budget(observed)
        caps.append(cap)
    return rule, memory, np.array(caps)


@given(peak=st.floats(0.01, 9.99), steep=st.floats(0.1, 10.0))
def test_it_comes_to_the_peak_of_an_exact_utility_and_stays(peak, steep):
    rule, memory, caps = seek(lambda cap: -steep * (cap - peak) ** 2, 600)
    assert rule.is_content(memory)
    assert caps[-1] == pytest.approx(peak, rel=1e-3)
    assert np.unique(caps[-50:]).size == 1


@given(peak=st.floats(0.05, 9.5))
def test_a_utility_with_one_peak_need_not_be_smooth_nor_symmetric(peak):
    # straight up, and down four times as steeply
    utility = lambda cap: cap - peak if cap < peak else 4 * (peak - cap)  # noqa: E731
    rule, memory, caps = seek(utility, 600)
    assert rule.is_content(memory)
    assert caps[-1] == pytest.approx(peak, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_under_noise_it_is_not_sure_and_its_caps_are_still_near_the_peak(seed):
    peak, noise = 6.0, 0.3  # as large as utility is lower by at a distance of 1.2
    rule, memory, caps = seek(lambda cap: -0.2 * (cap - peak) ** 2, 40_000, noise, seed)
    assert not rule.is_content(memory)
    assert memory["low"] < peak < memory["high"]
    assert abs(caps[-5000:] - peak).max() < 1.5


def test_regret_grows_more_slowly_than_the_rounds():
    lost = []
    for seed in range(4):
        _, _, caps = seek(lambda cap: -0.2 * (cap - 6.0) ** 2, 40_000, 0.3, seed)
        regret = 0.2 * np.cumsum((caps - 6.0) ** 2)
        lost.append(regret[-1] / regret[3999])
    assert np.mean(lost) < 4  # ten times the rounds; sqrt(T) would be 3.2


def test_a_peak_less_than_a_width_outside_the_interval_is_found_again():
    rule = SERVER_RULES.create("bandit")
    memory = {**rule.memory, "low": 7.0, "high": 9.0}  # the peak is at 5.5
    cap = 7.5
    for _ in range(600):
        seen = ServerObservation(
            cap, np.zeros(2), 10.0, BETA, "active", -((cap - 5.5) ** 2), 1, memory
        )
        cap = rule.next_budget(seen)
    assert rule.is_content(memory)
    assert cap == pytest.approx(5.5, rel=1e-3)


def test_where_no_cap_pays_it_ends_at_none():
    _, _, caps = seek(lambda cap: -cap, 600)
    assert caps.min() < 1e-9 * BETA


def test_the_first_caps_by_hand():
    caps = seek(lambda cap: -((cap - 2.6) ** 2), 14)[2]
    # quarter points of (0, 10), up and down, each for two rounds; utility falls from 2.5 on: (0, 5)
    assert caps.tolist() == [2.5, 2.5, 5, 5, 7.5, 7.5, 7.5, 7.5, 5, 5, 2.5, 2.5, 1.25, 1.25]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_in_a_market_it_finds_the_cap_of_the_closed_form_without_a_cost(seed, share):
    rho = np.random.default_rng(seed).uniform(0.01, 0.03, 12)
    tree = {
        "seed": seed,
        "population": {"n_nodes": 12},
        "server": "bandit",
        "rounds": {"maximum": 8000, "participation": share},
    }
    market = PrivacyMarket(Scenario.model_validate(tree), rho=rho)
    verdict = market.run_until()
    tau = 0.0  # (41) by hand: the cheapest nodes, as long as each gains
    for n, cost in enumerate(np.sort(rho)):
        if n and (n - 1) * cost >= tau:
            break
        tau += cost
        n_active = n + 1
    best = BETA - n_active * tau / (10.0 * (n_active - 1))
    assert verdict.kind == "converged"
    assert market.budget == pytest.approx(best, rel=1e-3)


def test_a_server_that_still_tries_caps_says_so_and_where_it_is():
    tree = {"seed": 1, "server": "bandit", "rounds": {"maximum": 100}}
    verdict = PrivacyMarket(Scenario.model_validate(tree)).run_until()
    assert verdict.kind == "max-rounds"
    assert "the server keeps trying caps: B/B* = " in verdict.reason
    assert math.isfinite(verdict.server_regret)
