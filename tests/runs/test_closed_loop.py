"""The closed loop: what a server learns of the value of epsilon, against a value that is known."""

import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import fcfn_abm as fa
from fcfn_abm.build.check import check_scenario
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.game import stackelberg_equilibrium
from fcfn_abm.records.tables import LEARNED
from fcfn_abm.runs.simulated import SimulatedTraining, TrueValue, simulate_loop
from fcfn_abm.scenario import Scenario, to_toml

TRUE = TrueValue(alpha=1.5, beta=0.03, depreciation=0.08, noise=0.03)
PRICE = 1000.0


def scenario(n_rounds=40, seed=0, server=None, mechanism="stackelberg", **value):
    return Scenario.model_validate(
        {
            "seed": seed,
            "population": {
                "n_nodes": 10,
                "rho": {"kind": "lognormal", "median": 0.5, "sigma": 0.02},
            },
            "game": {"alpha": 3.0, "beta": 20.0, "budget": 10.0},
            "mechanism": {"kind": mechanism},
            "server": server or {"kind": "anticipate", "settled": 0.1, "longest_wait": 3},
            "rounds": {"maximum": n_rounds},
            "training": {"schedule": "every-round", "rounds": n_rounds, "compare": []},
            "value": {"price": PRICE, "prior_noise": 0.03, **value},
        }
    )


def test_nominal_95_percent_intervals_hold_the_truth_in_90_percent_of_200_runs():
    hits = {"alpha": 0, "beta": 0, "value at the last epsilon": 0}
    for seed in range(200):
        run = simulate_loop(scenario(24, seed), TRUE)
        found, epsilon = run.learner.estimate, run.rounds["mean_epsilon"].iloc[-1]
        truths = {
            "alpha": (found.alpha_interval(), TRUE.alpha),
            "beta": (found.beta_interval(), TRUE.beta),
            "value at the last epsilon": (
                found.value_interval(epsilon),
                TRUE.beta * np.log1p(TRUE.alpha * epsilon),
            ),
        }
        for name, ((low, high), true) in truths.items():
            hits[name] += low <= true <= high
    assert min(hits.values()) >= 180, hits


def test_without_noise_the_server_comes_to_the_best_cap_of_the_true_game():
    true = TrueValue(alpha=1.5, beta=0.03, depreciation=0.08, noise=0.0)
    run = simulate_loop(scenario(150, prior_noise=1e-3, explore=0.3), true)
    rho = fa.PrivacyMarket(scenario()).columns.rho
    best = stackelberg_equilibrium(rho, true.alpha, true.beta * PRICE).budget
    assert_allclose(run.learner.estimate.alpha, true.alpha, rtol=0.02)
    assert_allclose(run.learner.estimate.depreciation, true.depreciation, rtol=0.02)
    assert_allclose(run.rounds["budget"].tail(30).mean(), best, rtol=0.02)
    assert_allclose(run.regret.best_cap, best)


@pytest.mark.parametrize("mechanism", ["stackelberg", "tullock"])
@pytest.mark.parametrize(
    "server", [{"kind": "anticipate", "longest_wait": 3}, {"kind": "gradient", "longest_trial": 3}]
)
def test_the_cap_follows_what_is_learned_under_every_rule_that_chooses_it(mechanism, server):
    rich = TrueValue(alpha=3.0, beta=0.06, depreciation=0.08, noise=0.01)
    run = simulate_loop(scenario(60, server=server, mechanism=mechanism), rich)
    assert run.rounds["beta"].iloc[-1] == pytest.approx(60.0, rel=0.35)
    assert run.rounds["budget"].iloc[-1] > 20.0  # above all of the prior's beta


def test_a_fixed_cap_is_only_tried_up_and_down():
    made = scenario(30, server={"kind": "fixed"}, explore=0.4)
    caps = simulate_loop(made, TRUE).rounds["budget"].to_numpy()
    assert caps[0] == 10.0
    sizes = np.abs(np.log(caps[1:] / 10.0)) * np.sqrt(np.arange(2, 31))
    assert_allclose(sizes, 0.4)
    assert (caps[1:] > 10).any()
    assert (caps[1:] < 10).any()


def test_the_bandit_goes_where_the_measured_value_is_and_not_where_the_model_says():
    server = {"kind": "bandit", "longest_trial": 2, "confidence": 1.0}
    made = scenario(40, server=server, explore=0.0)
    poor, rich = TrueValue(1.5, 0.006, noise=1e-3), TrueValue(1.5, 0.06, noise=1e-3)
    caps = [simulate_loop(made, truth).rounds["budget"] for truth in (poor, rich)]
    assert caps[0].head(13).equals(caps[1].head(13))  # the first trials
    assert caps[0].tail(10).max() < 8.0 < 12.0 < caps[1].tail(10).min()
    assert caps[1].max() <= 20.0  # its interval ends at the beta that it was given


def test_the_regret_is_that_of_the_best_constant_cap_by_brute_force():
    made = scenario(10)
    run = simulate_loop(made, TRUE)
    rho = fa.PrivacyMarket(made).columns.rho
    caps = np.linspace(0.1, 30, 3000)
    unit = fa.nash_equilibrium(rho, 1.0)
    mean = unit.epsilon.sum() / unit.n_active
    left = TRUE.beta * PRICE * np.log1p(TRUE.alpha * mean * caps) - caps
    own = TRUE.beta * PRICE * np.log1p(TRUE.alpha * run.rounds["mean_epsilon"])
    assert_allclose(run.regret.best_cap, caps[left.argmax()], atol=0.02)
    assert_allclose(run.regret.best_server_value, 10 * left.max(), rtol=1e-4)
    assert_allclose(run.regret.server_value, (own - run.rounds["payment"]).sum())


def test_a_window_forgets_the_rounds_before_it():
    made = scenario(30, window=5)
    assert simulate_loop(made, TRUE).learner.estimate.n_rounds == 5


def test_rounds_in_which_nobody_trains_teach_nothing():
    made = scenario(5, server={"kind": "fixed"})
    made = made.model_copy(update={"game": made.game.model_copy(update={"budget": 0.0})})
    run = simulate_loop(made, TRUE)
    assert run.learner.estimate.n_rounds == 0
    assert run.rounds["gain"].isna().all()


def test_a_simulated_training_saturates_where_gains_and_losses_cancel():
    training = SimulatedTraining(TrueValue(alpha=2.0, beta=0.05, depreciation=0.1, noise=0.0))
    for _ in range(300):
        training.step(np.array([1.0, 0.0, 1.0]))
    assert training.results[-1].accuracy == pytest.approx(0.1 + 0.05 * np.log(3.0) / 0.1)


def trained(n_rounds=6, table=None, **training):
    tree = {
        "seed": 5,
        "population": {"n_nodes": 8, "rho": {"kind": "uniform"}},
        "game": {"alpha": 3.0, "beta": 20.0},
        "rounds": {"maximum": 60},
        "training": {
            "schedule": "every-round",
            "rounds": n_rounds,
            "compare": ["no-noise"],
            "checkpoint_every": 1,
            **training,
        },
    }
    return Scenario.model_validate(tree | ({} if table is None else {"value": table}))


def test_a_frozen_value_is_every_round_without_the_table_to_the_bit():
    plain = fa.run_scenario(trained())
    frozen = fa.run_scenario(trained(table={"frozen": True, "explore": 0.5}))
    learned = [column.name for column in LEARNED]
    pd.testing.assert_frame_equal(
        frozen.rounds.drop(columns=learned), plain.rounds, check_exact=True
    )
    for name in ("nodes", "training", "ledger", "traces"):
        one, other = getattr(frozen, name), getattr(plain, name)
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert frozen.run["verdict"] == plain.run["verdict"]
    assert frozen.rounds["gain"].notna().sum() == 6
    assert not (frozen.rounds["exploration"].dropna() != 1).any()


def test_a_record_holds_what_was_learned_beside_accuracy_and_privacy(tmp_path):
    made = trained(table={"price": 500.0})
    record = fa.read_record(fa.run_scenario(made, tmp_path / "run").path)
    rounds, own = record.rounds, record.training.query("arm == 'stackelberg'")
    assert_allclose(rounds["accuracy"][:6], own["accuracy"].iloc[1:])
    assert_allclose(rounds["gain"][:6], np.diff(own["accuracy"]))
    assert_allclose(
        rounds["epsilon_spent"][:6], record.ledger.groupby("round")["epsilon_total"].max()
    )
    assert (rounds["beta_low"] < rounds["beta"])[:6].all()
    assert rounds["gain"][6:].isna().all()  # the market goes on without training
    assert record.run["value"]["n_rounds"] == 6


@pytest.mark.slow
def test_a_run_that_was_killed_learns_the_same_to_the_byte(tmp_path):
    made = trained(40, table={"price": 500.0})
    whole = fa.run_scenario(made, tmp_path / "whole").path
    file, kept = tmp_path / "run.toml", tmp_path / ".out.checkpoint"
    file.write_text(to_toml(made), encoding="utf-8")
    command = [sys.executable, "-m", "fcfn_abm", "run", str(file), "--out", str(tmp_path / "out")]
    for stop in (signal.SIGKILL, signal.SIGINT):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (kept / "stackelberg.state").exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(0.3)
        process.send_signal(stop)
        assert process.wait() != 0
    fa.run_scenario(made, tmp_path / "out")
    for path in whole.glob("*.parquet"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": None}, r"\[value\].*add a \[training\] table"),
        ({"training": {"schedule": "at-equilibrium"}}, r"must be 'every-round'"),
        ({"mechanism": {"kind": "static"}}, "makes one offer"),
        (
            {"events": [{"change": "beta", "round": 2, "scale": 2.0}]},
            r"learns beta by the \[value\] table",
        ),
    ],
)
def test_a_scenario_in_which_nothing_can_be_learned_is_refused(change, said):
    tree = trained(table={}).model_dump(exclude_none=True)
    for name, new in change.items():
        tree[name] = new if not isinstance(new, dict) else {**tree[name], **new}
        if new is None:
            del tree[name]
    with pytest.raises(InvalidScenarioError, match=said):
        check_scenario(Scenario.model_validate(tree))
