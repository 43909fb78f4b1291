"""Money and epsilon over all rounds of a training: the market sold what the ledger holds."""

import math

import numpy as np
import pytest

import fcfn_abm as fa

COSTS = 'population.rho={kind="uniform",low=0.5,high=1.5}'


def run(out=None, *also):
    overrides = [
        "population.n_nodes=10",
        COSTS,
        "training.schedule=every-round",
        "training.compare=['no-noise']",
        "training.participation=1.0",
        "training.dropping=0.0",
        "privacy.horizon=round",
        'record.traces="all"',
        *also,
    ]
    return fa.run_scenario(fa.load_scenario("privacy/quickstart-local", overrides), out)


def test_the_ledger_holds_what_the_market_sold(tmp_path):
    record = run(tmp_path / "run", "training.rounds=12", "population.total_epsilon=9.0")
    sold = record.traces.groupby("node")["epsilon"].sum()
    spent = record.ledger.groupby("node")["epsilon_round"].sum().reindex(range(10), fill_value=0)
    np.testing.assert_allclose(record.nodes["total_sold"], sold, rtol=1e-6)  # of 32 bits
    np.testing.assert_allclose(spent, sold, rtol=1e-6, atol=1e-6)
    assert (record.nodes["total_sold"] <= 9.0).all()
    out = record.nodes[record.nodes["exit_reason"] == "sold-out"]
    assert len(out) > 0
    assert (out["total_sold"] == 9.0).all()
    ledger = record.ledger.groupby("node")
    assert (ledger["round"].max()[out["node"]].to_numpy() == out["exit_round"]).all()
    assert (ledger["epsilon_total"].last() < 9.0 * (1 + 1e-9)).all()  # composition is below the sum
    again = fa.read_record(tmp_path / "run")
    assert again.nodes["exit_reason"].tolist() == record.nodes["exit_reason"].tolist()


def test_the_training_ends_with_the_money():
    record = run(None, "training.rounds=12", "game.total_budget=22.0")
    assert record.run["verdict"]["kind"] == "stopped"
    n_rounds = record.run["verdict"]["rounds"]
    assert n_rounds < 12
    assert math.fsum(record.rounds["payment"]) == 22.0
    assert record.rounds["money_left"].iloc[-1] < 1e-8
    for _, trained in record.training.groupby("arm"):
        assert trained["round"].tolist() == list(range(n_rounds + 1))


@pytest.mark.parametrize("spending", ["uniform", "next-point"])
def test_money_that_is_spread_lasts_for_the_training(spending):
    record = run(None, "training.rounds=6", "game.total_budget=12.0", f"game.spending={spending}")
    np.testing.assert_allclose(record.rounds["payment"], 2.0, rtol=1e-9)
    assert record.rounds["round"].tolist() == [1, 2, 3, 4, 5, 6]
    assert record.training["round"].max() == 6
