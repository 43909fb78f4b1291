"""Every file of scenarios/dynamics does what its three comment lines claim."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pytest import approx  # noqa: PT013 - reads as a sentence below

import fcfn_abm as fa
from fcfn_abm.build.market import PrivacyMarket

FOLDER = Path("scenarios/dynamics")


@dataclass
class Played:
    market: PrivacyMarket
    frame: pd.DataFrame

    @property
    def end(self):
        return self.market.state

    @property
    def form(self):
        """The Stackelberg equilibrium; its active set is that of any cap."""
        return self.market.equilibrium

    @property
    def active(self):
        return self.market.columns.epsilon > 0

    @property
    def missing(self):
        """Nodes of the closed form that the market lacks."""
        return np.count_nonzero(self.form.active & ~self.active)

    @property
    def settled_from(self):
        """The first round from which the distance stays below 1e-6."""
        far = np.flatnonzero(self.frame["distance"] >= 1e-6)
        return int(far[-1]) + 2 if far.size else 1

    @property
    def late(self):
        """The median distance over the second half."""
        return self.frame["distance"].iloc[len(self.frame) // 2 :].median()


def play(name, *overrides):
    market = fa.PrivacyMarket(fa.load_scenario(FOLDER / f"{name}.toml", overrides))
    market.run_until()
    frame = market.datacollector.get_model_vars_dataframe()
    return Played(market, frame)


@pytest.fixture(scope="module", params=sorted(path.stem for path in FOLDER.glob("*.toml")))
def named(request):
    return request.param, play(request.param)


def at_the_closed_form(n_active, *, rounds):
    def check(p):
        assert p.end.distance < 1e-6
        assert p.end.n_active == p.form.n_active == n_active
        assert p.end.total_epsilon == approx(p.form.total_epsilon * p.end.budget / p.form.budget)
        assert rounds[0] <= p.settled_from <= rounds[1]

    return check


def cycles_between_two_unlike_nodes(p):
    rho = p.market.columns.rho
    assert rho.max() / rho.min() > 3 + 2 * np.sqrt(2)
    assert p.late > 0.5
    assert play("in-turn-full-steps", "learning.gain=0.5").market.verdict.kind == "converged"


def swings_all_the_way(p):
    total, at_rest = p.frame["total_epsilon"].iloc[-50:], 5.0 * 9 / 10 / 0.001
    assert total.min() == 0
    assert total.max() == approx(2.7 * at_rest, rel=0.01)


def settles_in_15_rounds_a_node(p):
    at_the_closed_form(10, rounds=(50, 160))(p)
    assert p.end.round == approx(150, rel=0.1)
    assert p.end.total_epsilon == approx(0.9 * 5.0 / 0.001)


def falls_hardly_faster_than_one_over_sqrt_t(p):
    distance = p.frame["distance"]
    assert distance.iloc[-1] == approx(0.007, rel=0.1)
    assert np.sqrt(2) <= distance.iloc[499] / distance.iloc[999] <= 1.6
    assert p.end.n_active == p.form.n_active == p.frame["n_active"].iloc[199:].max()


def rests_at_the_price_takers_point(p):
    rho = p.market.columns.rho
    assert p.form.n_active == 10
    assert p.end.n_active == 5
    assert p.end.total_epsilon == approx(p.end.budget / rho.min())
    assert p.end.node_utility == approx(0.0, abs=1e-9)
    assert "rests, but not at an equilibrium" in p.market.verdict.reason


def moves_around_the_equilibrium_by(share):
    def check(p):
        assert p.late == approx(share, rel=0.2)
        assert p.missing == 0
        assert "noisy" in p.market.verdict.reason

    return check


def estimates_move_eight_times_less(p):
    moves_around_the_equilibrium_by(0.0033)(p)
    assert play("best-response-noisy").late / p.late == approx(8.3, rel=0.2)


def settles_ten_times_later(p):
    at_the_closed_form(17, rounds=(400, 650))(p)
    assert 10 <= p.settled_from / play("in-turn-half-steps").settled_from <= 15


def rushes_in_first(p):
    at_the_closed_form(17, rounds=(30, 80))(p)
    assert (p.frame["n_active"].iloc[:2] > 35).all()  # who has not moved yet has no share
    assert p.frame["n_active"].iloc[29] == 17
    assert p.frame["total_epsilon"].iloc[0] == approx(p.end.total_epsilon, rel=0.05)


def never_moves(p):
    assert p.end.round == 3
    assert p.frame["distance"].max() < 1e-12


def loses_a_node_that_belongs(p):
    assert (p.end.n_active, p.form.n_active, p.missing) == (24, 25, 1)
    assert p.end.change < 1e-9 < p.end.exploitability
    back = play("exit-final", "exit.reentry=true")
    assert back.market.verdict.kind == "converged"
    assert (back.end.n_active, back.missing) == (25, 0)


def leaves_on_loss_and_is_right(p):
    at_the_closed_form(17, rounds=(30, 80))(p)
    assert p.end.n_exited == 33


def finds_the_best_cap(rel):
    def check(p):
        assert p.end.budget == approx(p.form.budget, rel=rel)
        assert p.end.server_utility == approx(p.form.server_utility, rel=1e-6)
        assert p.end.distance < 1e-6
        assert p.end.n_active == p.form.n_active == 21

    return check


def rests_where_caps_are_announced(p):
    finds_the_best_cap(1e-6)(p)
    announced = play("server-anticipate").market
    got, expected = p.market.columns.epsilon, announced.columns.epsilon
    assert abs(got - expected).max() < 1e-6 * expected.max()


def climbs_slower_than_anticipating(p):
    finds_the_best_cap(0.01)(p)
    assert p.end.round > 2 * play("server-anticipate").end.round


def compares_longer_than_climbing(p):
    finds_the_best_cap(1e-3)(p)
    assert p.end.round > play("server-gradient").end.round


def shares_of_total(p):
    """Return S of each round as a share of the closed form's."""
    return p.frame["total_epsilon"] / (p.frame["budget"] * p.market.contest.total_epsilon)


def tries_for_ever(p):
    total = shares_of_total(p)
    assert total[:1000].mean() == approx(0.5, abs=0.05)
    assert total[-1000:].mean() == approx(2 / 3, abs=0.05)
    assert p.frame["exploitability"].iloc[-1000:].median() > 0.01


def rests_near_the_equilibrium(p):
    assert p.end.change == 0
    assert shares_of_total(p).iloc[-1] == approx(1.0, abs=0.1)
    assert p.end.exploitability > 1e-3


def halves_everything(p):
    at_the_closed_form(21, rounds=(20, 80))(p)
    for name in ("epsilon", "utility"):
        got = getattr(p.market.columns, name).sum() / getattr(p.form, name).sum()
        assert got == approx(0.5, rel=0.01)


def nobody_refuses(p):
    assert p.end.n_active == 30
    assert p.market.columns.utility.min() > -1e-9
    assert p.end.payment == approx(p.form.budget)
    assert p.end.server_utility < p.form.server_utility


def the_agency_keeps_the_money(p):
    kept = p.end.payment - p.market.columns.payment.sum()
    assert kept / p.end.payment == approx(0.99, abs=0.005)
    assert p.end.total_epsilon / p.form.total_epsilon == approx(0.013, rel=0.05)
    assert p.end.n_active == p.form.n_active == 17


def losers_leave_until_it_pays(n_active):
    def check(p):
        assert (p.market.outcome.node_utility < 0).all()
        assert p.end.n_active == n_active
        assert p.market.columns.utility.min() >= 0
        assert p.end.exploitability == 0

    return check


def follows_its_shocks(p):
    rounds = p.frame.set_index("round")
    for at, n_active, cap in ((59, 11, 10), (119, 8, 10), (p.end.round, 8, 20)):
        there = rounds.loc[at]
        assert there["n_active"] == there["equilibrium_n_active"] == n_active
        assert there["budget"] == approx(cap, rel=1e-4)
        assert there["total_epsilon"] == approx(there["equilibrium_total_epsilon"], rel=1e-6)
    assert rounds["distance"][60] > 0.3
    cheapest = np.sort(p.market.columns.rho)[:5]
    assert (cheapest < 0.0008).all()
    assert not p.active[:5].any()  # those whose costs have doubled


def everybody_takes_part(p):
    assert p.end.n_active == 50
    assert p.end.budget == approx(p.form.budget, rel=1e-4)
    assert fa.nash_equilibrium(p.market.columns.rho, 1.0).n_active < 25  # in the paper's game


def rests_with_the_third_and_the_fourth(p):
    assert p.active.tolist() == [False, False, True, True, False]
    assert p.end.distance == 0
    rho, left = p.market.columns.rho, p.end.total_epsilon
    for node in (0, 1, 4):  # the most that entering pays, with its best response
        assert (1 - np.sqrt(rho[node] * left)) ** 2 < 0.2105
    for n_nodes in range(2, 6):  # a prefix: the last of it loses, or the next one gains
        tau, prefix = rho[:n_nodes].sum(), rho[:n_nodes]
        keeps = (1 - prefix[-1] * (n_nodes - 1) / tau) ** 2
        enters = 0.0
        if n_nodes < 5:
            enters = max(0.0, 1 - np.sqrt(rho[n_nodes] * (n_nodes - 1) / tau)) ** 2
        assert keeps < 0.2105 or enters > 0.2105


def stands_where_the_law_says(p):
    assert (p.frame["total_epsilon"] == p.end.total_epsilon).all()
    assert p.end.total_epsilon == approx(0.8025, abs=1e-4)  # on average 0.825
    assert 0 < p.end.exploitability < 0.01


CLAIMS = {
    "power-costs": ("converged", everybody_takes_part),
    "fixed-cost": ("converged", rests_with_the_third_and_the_fourth),
    "bayes-nash": ("max-rounds", stands_where_the_law_says),
    "shock": ("converged", follows_its_shocks),
    "in-turn-half-steps": ("converged", at_the_closed_form(17, rounds=(30, 60))),
    "in-turn-full-steps": ("cycling", cycles_between_two_unlike_nodes),
    "simultaneous-undamped": ("cycling", swings_all_the_way),
    "simultaneous-damped": ("converged", settles_in_15_rounds_a_node),
    "fictitious-play": ("max-rounds", falls_hardly_faster_than_one_over_sqrt_t),
    "gradient-play": ("converged", at_the_closed_form(17, rounds=(30, 60))),
    "replicator": ("max-rounds", rests_at_the_price_takers_point),
    "exp3": ("max-rounds", tries_for_ever),
    "q-learning": ("max-rounds", rests_near_the_equilibrium),
    "estimate-exact": ("converged", at_the_closed_form(17, rounds=(2, 2))),
    "estimate-noisy": ("max-rounds", estimates_move_eight_times_less),
    "aggregate-1000": ("converged", at_the_closed_form(30, rounds=(5, 12))),
    "best-response-noisy": ("max-rounds", moves_around_the_equilibrium_by(0.027)),
    "partial-participation": ("converged", settles_ten_times_later),
    "cold-start": ("converged", rushes_in_first),
    "warm-start": ("converged", never_moves),
    "exit-final": ("max-rounds", loses_a_node_that_belongs),
    "exit-on-loss": ("converged", leaves_on_loss_and_is_right),
    "server-anticipate": ("converged", finds_the_best_cap(1e-6)),
    "server-gradient": ("converged", climbs_slower_than_anticipating),
    "server-bandit": ("converged", compares_longer_than_climbing),
    "pay-after-reports": ("converged", rests_where_caps_are_announced),
    "server-fixed": ("converged", halves_everything),
    "mechanism-ic-mle": ("converged", nobody_refuses),
    "mechanism-yang": ("converged", the_agency_keeps_the_money),
    "mechanism-static": ("converged", losers_leave_until_it_pays(10)),
    "mechanism-random": ("converged", losers_leave_until_it_pays(20)),
}


def test_every_dynamics_scenario_comes_to_its_verdict_and_does_what_it_claims(named):
    name, played = named
    verdict, check = CLAIMS[name]
    assert played.market.verdict.kind == verdict
    check(played)


def test_there_is_a_claim_for_every_file_and_a_file_for_every_claim():
    assert sorted(CLAIMS) == sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.mark.parametrize("name", CLAIMS)
def test_a_file_opens_with_three_lines_on_what_it_shows_and_trains_nothing(name):
    lines = (FOLDER / f"{name}.toml").read_text().splitlines()
    assert all(line.startswith("# ") for line in lines[:3])
    assert lines[3] == ""
    assert lines[4].startswith("title = ")
    assert fa.load_scenario(FOLDER / f"{name}.toml").training is None
