"""A run that was killed goes on, to the same bytes."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fcfn_abm import read_record, run_scenario
from fcfn_abm.build import prepare_trainer
from fcfn_abm.errors import OutputError
from fcfn_abm.population import Holdings
from fcfn_abm.runs.checkpoint import Checkpoint, checkpoint_of
from fcfn_abm.scenario import Scenario, to_toml
from fcfn_abm.training import ImageData

pytestmark = pytest.mark.slow

ENOUGH_ROUNDS = 40


def scenario(schedule="at-equilibrium", **training):
    return Scenario.model_validate(
        {
            "seed": 5,
            "population": {"n_nodes": 8, "rho": {"kind": "uniform"}},
            "privacy": {"check": {"false_alarm": 1e-3}},
            "training": {
                "schedule": schedule,
                "rounds": ENOUGH_ROUNDS,
                "participation": 0.7,
                "dropping": 0.1,
                "straggling": 0.2,
                "batch_size": 60,
                "compare": ["random"],
                "checkpoint_every": 1,
                **training,
            },
        }
    )


def tables(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def started(file, out):
    return subprocess.Popen(
        [sys.executable, "-m", "fcfn_abm", "run", str(file), "--out", str(out), "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process):
    while not condition() and process.poll() is None:
        time.sleep(0.005)


@pytest.mark.parametrize("schedule", ["at-equilibrium", "every-round"])
def test_a_run_that_was_killed_again_and_again_gives_the_same_bytes(tmp_path, schedule):
    made = scenario(schedule)
    whole = run_scenario(made, tmp_path / "whole").path
    file = tmp_path / "run.toml"
    file.write_text(to_toml(made), encoding="utf-8")
    kept = tmp_path / ".out.checkpoint"
    chance, kills = np.random.default_rng(1), 0
    for arm in ("stackelberg.state", "random.state"):
        for _ in range(2):
            process = started(file, tmp_path / "out")
            wait_for(lambda arm=arm: (kept / arm).exists(), process)
            time.sleep(chance.uniform(0, 0.3))
            kills += process.poll() is None
            process.kill()
            process.wait()
            process.stderr.close()
            assert not (tmp_path / "out").exists() or process.returncode == 0
    assert kills >= 3
    if not (tmp_path / "out").exists():
        run_scenario(made, tmp_path / "out")
    assert tables(tmp_path / "out") == tables(whole)
    assert not kept.exists()


def test_an_interrupted_run_says_that_it_can_continue(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(to_toml(scenario(rounds=2000)), encoding="utf-8")
    process = started(file, tmp_path / "out")
    wait_for(lambda: (tmp_path / ".out.checkpoint" / "stackelberg.state").exists(), process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "run the same command to resume the training" in stderr
    assert "Traceback" not in stderr
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"run.toml", ".out.checkpoint"}


def test_another_scenario_starts_afresh(tmp_path):
    folder = tmp_path / ".out.checkpoint"
    folder.mkdir()
    Checkpoint(folder, scenario(rounds=3)).save("stackelberg", {"flat": np.zeros(3)})
    assert Checkpoint(folder, scenario(rounds=3)).load("stackelberg") is not None
    assert Checkpoint(folder, scenario(rounds=4)).load("stackelberg") is None


def test_a_damaged_checkpoint_is_no_checkpoint(tmp_path):
    kept = Checkpoint(tmp_path, scenario())
    kept.save("random", {"flat": np.arange(50.0)})
    file = tmp_path / "random.state"
    whole = file.read_bytes()
    assert kept.load("random")["flat"].tolist() == list(range(50))
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        assert kept.load("random") is None
    for length in (0, 20, len(whole) // 2):
        file.write_bytes(whole[:length])
        assert kept.load("random") is None
    assert kept.load("no-noise") is None


def test_other_data_under_the_same_name_start_afresh(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)

    def written(path):
        images, labels = rng.random((200, 1, 8, 8)).astype("f4"), rng.integers(0, 3, 200)
        data = ImageData(images, labels, images[:20], labels[:20], tuple("abc"), "made")
        monkeypatch.setattr("fcfn_abm.build.load_images", lambda _: data)
        shards = tuple(np.split(order, 8))
        monkeypatch.setattr("fcfn_abm.build.parts._deal", lambda *_: Holdings(shards, np.zeros(8)))
        return run_scenario(short, path)

    order, short = np.arange(200), scenario(rounds=4)
    written(tmp_path / "first")
    kept = tmp_path / "kept"
    monkeypatch.setattr("fcfn_abm.runs.checkpoint.remove_folder", lambda _: None)
    written(tmp_path / "out")  # whose checkpoint stays
    (tmp_path / "out").rename(kept)
    assert (tmp_path / ".out.checkpoint" / "stackelberg.state").exists()
    again = written(tmp_path / "out")
    monkeypatch.undo()
    assert not again.training.equals(read_record(kept).training)
    assert again.training["loss"].nunique() > 4


def test_two_processes_at_one_run_are_one_too_many(tmp_path, hold_lock):
    folder = tmp_path / ".out.checkpoint"
    folder.mkdir()
    with hold_lock(folder / "lock"), pytest.raises(OutputError, match="another process"):
        run_scenario(scenario(rounds=1), tmp_path / "out")
    assert read_record(run_scenario(scenario(rounds=1), tmp_path / "out").path)


def test_a_training_that_is_cut_in_the_middle_is_the_same():
    epsilon, states = np.linspace(0.5, 9.0, 8), {}
    whole = prepare_trainer(scenario()).begin()
    states[0] = whole.state()
    while not whole.over:
        states[whole.step(epsilon).round] = whole.state()
    spent, flagged = whole.ledger.epsilon(1e-5), whole.flagged_round
    for cut in (0, 17, ENOUGH_ROUNDS):
        part = prepare_trainer(scenario()).begin(resume=states[cut])
        while not part.over:
            part.step(epsilon)
        assert part.results == whole.results
        np.testing.assert_array_equal(part.ledger.epsilon(1e-5), spent)
        np.testing.assert_array_equal(part.flagged_round, flagged)


def test_nodes_are_there_as_often_as_was_said():
    rounds = 150
    trainer = prepare_trainer(scenario(rounds=rounds, compare=[]))
    without_noise, private = trainer.begin(private=False), trainer.begin()
    for _ in range(rounds):
        without_noise.step(np.full(8, 3.0))
        private.step(np.full(8, 3.0))
    arrived = np.array([result.n_nodes for result in without_noise.results[1:]])
    share = 0.7 * 0.9 * 0.8
    assert abs(arrived.mean() / 8 - share) < 4.9 * np.sqrt(share * (1 - share) / (8 * rounds))
    spent = private.ledger.n_releases  # who comes too late has released, who drops out has not
    expected = 0.7 * 0.9
    assert abs(spent.mean() / rounds - expected) < 4.9 * np.sqrt(
        expected * (1 - expected) / (8 * rounds)
    )


def test_every_round_trains_with_the_reports_of_that_round(tmp_path):
    whole = {"participation": 1.0, "dropping": 0.0, "straggling": 0.0, "batch_size": None}
    made = scenario("every-round", **whole, rounds=70, compare=[])
    made = made.model_copy(
        update={
            "record": made.record.model_copy(update={"traces": "all"}),
            "privacy": type(made.privacy)(),
        }
    )
    record = run_scenario(made, tmp_path / "out")
    reports = record.traces.pivot(index="round", columns="node", values="epsilon").to_numpy()
    spent = record.ledger
    assert len(record.rounds) < 70  # the market ends first, and its last round stands
    for round_index, group in spent.groupby("round"):
        reported = reports[min(round_index, len(reports)) - 1]
        np.testing.assert_array_equal(group["node"], np.flatnonzero(reported > 0))
        # calibrated at float64; traces on disk are float32
        np.testing.assert_allclose(group["epsilon_round"], reported[reported > 0], rtol=1e-5)
    assert record.run["verdict"]["kind"] == "converged"


def test_the_market_of_a_short_training_is_played_to_its_end():
    record = run_scenario(scenario("every-round", rounds=2, compare=[]))
    alone = run_scenario(scenario(rounds=2, compare=[]))
    assert len(record.rounds) > 2
    assert record.rounds.equals(alone.rounds)


@pytest.mark.parametrize("written", [True, False])
def test_an_interrupt_once_all_is_written_leaves_nothing_to_continue_from(tmp_path, written):
    out = tmp_path / "out"

    def run():
        with checkpoint_of(out, Scenario()) as checkpoint:
            checkpoint.save("stackelberg", {"round": np.arange(3)})
            if written:
                out.mkdir()
                (out / "run.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert (tmp_path / ".out.checkpoint").exists() is not written
