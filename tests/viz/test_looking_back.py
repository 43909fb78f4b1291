"""A play of the window: looking back at it, and what is saved of it."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

import fcfn_abm as fa
from fcfn_abm.errors import InvalidRecordError
from fcfn_abm.runs.report import write_report
from fcfn_abm.viz.files import zip_record
from fcfn_abm.viz.live import LiveMarket
from fcfn_abm.viz.node_details import describe_node
from fcfn_abm.viz.past import Past
from fcfn_abm.viz.replay import Replay
from fcfn_abm.viz.session import open_source

pytestmark = pytest.mark.slow

NO_TRAINING = ["training.enabled=false"]
SHORT_TRAINING = ["training.rounds=3", "population.n_nodes=8", "training.compare=[]"]


def scenario(*overrides):
    return fa.load_scenario("quickstart", [*NO_TRAINING, *overrides])


def columns_of(frame):
    return {
        name: np.array(getattr(frame, name))
        for name in ("rho", "epsilon", "payment", "utility", "exited", "by_cost")
    }


CASES = {
    "fifty nodes": [],
    "nodes that return": ["exit.patience=1", "rounds.start=cold"],
    "a crowd": ["population.n_nodes=3000"],
    "contracts": ["mechanism.kind=ic-mle"],
    "nodes that come and go": ["population.churn={departures=0.1, drift=0.1}"],
    "costs that rise": ["events=[{round=4, change='rho', scale=2.0}]"],
}


@pytest.mark.parametrize("case", CASES)
def test_looking_back_shows_every_round_as_it_was(case):
    live = LiveMarket(scenario(*CASES[case]))
    seen, described = [columns_of(live.frame())], []
    for _ in range(14):
        if not live.over:
            live.step()
            seen.append(columns_of(live.frame()))
            described.append(describe_node(live.frame(), live, 7))
    last = live.moments
    for moment in (0, 1, last // 2, last - 1, last):
        live.seek(moment)
        frame = live.frame()
        assert (frame.round, live.moment, live.moments) == (moment, moment, last)
        for name, then in seen[moment].items():
            assert_array_equal(getattr(frame, name), then)
        assert [len(values) for values in frame.history.values()] == [moment] * len(frame.history)
        if moment:
            assert describe_node(frame, live, 7) == described[moment - 1]


def test_play_continues_from_the_last_round_wherever_one_looks():
    live, other = LiveMarket(scenario()), LiveMarket(scenario())
    for _ in range(6):
        live.step()
    for _ in range(7):
        other.step()
    live.seek(2)
    live.step()
    assert (live.moment, live.moments) == (3, 6)
    live.seek(10**9)
    live.step()
    assert (live.moment, live.moments) == (7, 7)
    assert_array_equal(live.frame().epsilon, other.frame().epsilon)


def test_a_verdict_is_shown_at_the_last_round_only():
    live = LiveMarket(scenario())
    while not live.over:
        live.step()
    verdict = live.verdict
    live.seek(3)
    assert (live.verdict, live.over) == (None, False)
    live.seek(live.moments)
    assert live.verdict == verdict is not None


def test_of_a_long_play_the_first_rounds_are_dropped_and_the_others_stay_as_they_were():
    live = LiveMarket(scenario("exit.patience=1"))
    past = Past(live.market.columns, most_bytes=20_000)
    seen = []
    for index in range(60):
        past.keep(index, (live.form, live.market.outcome.epsilon, live.frame().by_cost))
        columns = live.market.columns
        seen.append((columns.epsilon.copy(), columns.exit_round.copy()))
        live.step()
    assert 0 < past.first_round < 50
    for index in (past.first_round, 50, 59):
        epsilon, exit_round = seen[index]
        assert_array_equal(past.at(index).epsilon, epsilon)
        assert_array_equal(past.at(index).exit_round, exit_round)
    assert past.at(0).round == past.first_round
    rounds, epsilon = past.path(7, 55)
    assert rounds == list(range(past.first_round, 56))
    assert epsilon == [seen[index][0][7] for index in rounds]


def test_a_market_at_rest_takes_little_memory_however_many_its_nodes():
    live = LiveMarket(scenario("population.n_nodes=100000"))
    for _ in range(20):
        live.step()
    before = live._past._n_bytes
    live.step()
    assert live._past._n_bytes - before < 20_000  # and not 28 bytes a node


# Records


def test_the_record_of_a_whole_play_is_that_of_a_run():
    live = LiveMarket(scenario())
    while not live.over:
        live.step()
    saved, run = live.record(), fa.run_scenario(scenario())
    for table in ("rounds", "nodes", "traces", "training", "ledger"):
        pd.testing.assert_frame_equal(getattr(saved, table), getattr(run, table))
    for part in ("verdict", "equilibrium", "market", "title", "seed", "versions"):
        assert saved.run[part] == run.run[part]


@pytest.mark.parametrize("schedule", ["at-equilibrium", "every-round"])
def test_the_record_of_a_play_has_its_training(schedule):
    short = fa.load_scenario("quickstart", [f"training.schedule={schedule}", *SHORT_TRAINING])
    live = LiveMarket(short)
    while not live.over:
        live.step()
    saved, run = live.record(), fa.run_scenario(short)
    for table in ("rounds", "nodes", "training", "ledger"):
        pd.testing.assert_frame_equal(getattr(saved, table), getattr(run, table))
    assert saved.run["training"]["arms"] == run.run["training"]["arms"]


def test_the_record_of_a_play_has_what_its_server_learned():
    short = ["training.rounds=3", "population.n_nodes=8", "training.compare=[]"]
    learning = fa.load_scenario("closed_loop/digits", [*short, "rounds.maximum=5"])
    live = LiveMarket(learning)
    while not live.over:
        live.step()
    saved, run = live.record(), fa.run_scenario(learning)
    pd.testing.assert_frame_equal(saved.rounds, run.rounds)
    assert saved.run["value"] == run.run["value"]
    live.seek(2)
    assert len(live.frame().history["alpha"]) == 2


def unpack(saved, folder, name="play"):
    with zipfile.ZipFile(io.BytesIO(zip_record(saved, name))) as archive:
        archive.extractall(folder)
    return folder / name


def test_a_play_that_continues_is_saved_as_a_record_that_opens_everywhere(tmp_path):
    live = LiveMarket(scenario())
    for _ in range(9):
        live.step()
    live.seek(4)  # what is shown does not matter
    folder = unpack(live.record(), tmp_path)
    back = fa.read_record(folder)
    assert len(back.rounds) == len(pd.read_parquet(folder / "rounds.parquet")) == 9
    assert back.run["verdict"]["kind"] == "paused"
    assert_array_equal(back.nodes["epsilon"], live.market.columns.epsilon)
    report = write_report(folder).read_text()
    assert "Paused after 9 rounds" in report
    replay = Replay(open_source(folder).record)
    assert replay.moments == 9
    assert replay.verdict["kind"] == "paused"


def test_a_play_saved_before_its_training_is_a_record_without_one(tmp_path):
    live = LiveMarket(fa.load_scenario("quickstart", SHORT_TRAINING))
    live.step()
    folder = unpack(live.record(), tmp_path)
    assert not fa.read_record(folder).scenario.trains
    write_report(folder)


def test_a_play_saved_within_its_training_keeps_the_rounds_so_far(tmp_path):
    live = LiveMarket(fa.load_scenario("quickstart", SHORT_TRAINING))
    while not live._results or len(live._results) < 3:
        live.step()
    back = fa.read_record(unpack(live.record(), tmp_path))
    assert back.training["round"].tolist() == [0, 1, 2]
    assert back.training["accuracy"].tolist() == [r.accuracy for r in live._results]
    assert back.scenario.training.compare == ()
    write_report(back.path)


def test_of_a_large_market_a_sample_is_traced_and_its_scenario_says_so():
    live = LiveMarket(scenario("population.n_nodes=2500", "record.traces=all"))
    live.step()
    saved = live.record()
    assert saved.scenario.record.traces == "sample"
    assert saved.traces["node"].nunique() == 64
    whole = LiveMarket(scenario("population.n_nodes=60", "record.traces=all"))
    whole.step()
    assert whole.record().traces["node"].nunique() == 60


def test_before_the_first_round_there_is_nothing_to_save():
    with pytest.raises(InvalidRecordError, match="No round has been played"):
        LiveMarket(scenario()).record()
