"""When the server sets its cap: before the nodes answer it, or from their reports (fig. 3)."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fcfn_abm as fa
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.learning import ServerRule
from fcfn_abm.scenario import Scenario

RHO = np.array([1.0, 1.2, 1.5, 1.7, 4.0])


def market(payment, **tree):
    tree.setdefault("game", {"alpha": 10.0, "beta": 8.0})
    rounds = {"payment": payment, **tree.pop("rounds", {})}
    tree = {"seed": 5, "population": {"n_nodes": RHO.size}, "rounds": rounds, **tree}
    return fa.PrivacyMarket(Scenario.model_validate(tree), rho=RHO)


class PaysByTheTotal(ServerRule):
    """Set the cap to a function of the reports that it sees."""

    def next_budget(self, seen):
        return 1.0 + 0.1 * float(seen.epsilon.sum())


def test_the_first_round_opens_with_requests():
    played = market("after-reports")
    requests = played.epsilon.copy()
    played.server.rule = PaysByTheTotal()
    played.step()
    assert_array_equal(played.epsilon, requests)
    assert played.budget == pytest.approx(1.0 + 0.1 * requests.sum(), rel=1e-14)
    assert_allclose(played.columns.payment, played.budget * requests / requests.sum(), rtol=1e-12)


def test_nodes_answer_the_last_cap_and_are_paid_by_one_that_follows_from_their_reports():
    part_steps = {"kind": "best-response", "gain": 0.25, "cautious": False}
    stay = {"patience": 100}  # nobody leaves on the way
    at_once = {"order": "simultaneous"}
    played = market("after-reports", rounds=at_once, learning=part_steps, exit=stay)
    played.server.rule = PaysByTheTotal()
    played.step()
    for _ in range(4):
        before, cap = played.epsilon.copy(), played.budget
        played.step()
        others = before.sum() - before
        best = np.maximum(np.sqrt(cap * others / RHO) - others, 0.0)  # (22) at the last cap
        answers = before + 0.25 * (best - before)
        assert_allclose(played.epsilon, answers, rtol=1e-9, atol=1e-12)
        assert played.budget == pytest.approx(1.0 + 0.1 * answers.sum(), rel=1e-9)
        shares = answers / answers.sum()
        assert_allclose(played.columns.payment, played.budget * shares, rtol=1e-9, atol=1e-12)


def test_a_cap_that_is_announced_is_the_one_that_is_answered():
    full_steps = {"kind": "best-response", "gain": 1.0, "cautious": False}
    played = market("announced", rounds={"order": "simultaneous"}, learning=full_steps)
    played.server.rule = PaysByTheTotal()
    played.step()
    before = played.epsilon.copy()
    played.step()
    cap = 1.0 + 0.1 * before.sum()
    others = before.sum() - before
    answers = np.maximum(np.sqrt(cap * others / RHO) - others, 0.0)
    assert played.budget == pytest.approx(cap, rel=1e-14)
    assert_allclose(played.epsilon, answers, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("server", ["anticipate", "gradient", "fixed"])
@pytest.mark.parametrize("learning", ["best-response", "gradient", "estimate", "aggregate"])
def test_both_come_to_the_same_rest(learning, server):
    game = {"alpha": 10.0, "beta": 8.0, **({"budget": 2.0} if server == "fixed" else {})}
    ends = []
    for payment in ("announced", "after-reports"):
        played = market(payment, learning={"kind": learning}, server={"kind": server}, game=game)
        assert played.run_until().kind == "converged"
        ends.append(played)
    announced, after = ends
    best = 2.0 if server == "fixed" else fa.stackelberg_equilibrium(RHO, 10.0, 8.0).budget
    close = 0.01 if server == "gradient" else 1e-6  # it stays where its steps are fine enough
    assert after.budget == pytest.approx(best, rel=close)
    assert after.budget == pytest.approx(announced.budget, rel=close)
    expected = fa.nash_equilibrium(RHO, after.budget).epsilon
    assert_allclose(after.epsilon, expected, atol=1e-6 * expected.max())


def test_mechanisms_that_post_their_payments_first_are_refused(tmp_path):
    path = tmp_path / "posted.toml"
    path.write_text('mechanism = "static"\n[rounds]\npayment = "after-reports"\n')
    with pytest.raises(
        InvalidScenarioError, match=r"\[rounds\] payment: .*'static' posts its payments"
    ):
        fa.load_scenario(path)
