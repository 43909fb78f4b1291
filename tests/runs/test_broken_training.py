"""A training that breaks down leaves a record of what came before."""

from __future__ import annotations

import pandas as pd
import pytest
from typer.testing import CliRunner

import fcfn_abm as fa
from fcfn_abm.cli import app
from fcfn_abm.errors import RunFailedError
from fcfn_abm.report.summary import trainings_table
from fcfn_abm.training import FederatedTrainer, Training
from fcfn_abm.training.sums import nonfinite_update

pytestmark = pytest.mark.slow

QUICKSTART = "quickstart"
SHORT = ["training.rounds=4"]


def breaking(monkeypatch, arm, round_index):
    """Let the training of an arm, counted from zero, break down in a round."""
    step, begin, begun = Training.step, FederatedTrainer.begin, []

    def begin_and_keep(self, *args, **kwargs):
        begun.append(begin(self, *args, **kwargs))
        return begun[-1]

    def break_or_step(self, epsilon):
        if self is begun[-1] and len(begun) == arm + 1 and self.round_index + 1 == round_index:
            raise nonfinite_update(7, round_index)
        return step(self, epsilon)

    monkeypatch.setattr(FederatedTrainer, "begin", begin_and_keep)
    monkeypatch.setattr(Training, "step", break_or_step)


@pytest.mark.parametrize("schedule", ["at-equilibrium", "every-round"])
@pytest.mark.parametrize(("arm", "round_index"), [(0, 3), (1, 1)])
def test_the_record_keeps_what_came_before(schedule, arm, round_index, tmp_path, monkeypatch):
    scenario = fa.load_scenario(QUICKSTART, [*SHORT, f"training.schedule={schedule}"])
    whole = fa.run_scenario(scenario)
    breaking(monkeypatch, arm, round_index)
    out = tmp_path / "out"
    with pytest.raises(RunFailedError, match=rf"round {round_index}: .* node 7 .* is in {out}"):
        fa.run_scenario(scenario, out)
    record = fa.read_record(out)
    assert "node 7" in record.run["training"]["broke_down"]
    assert "Training is incomplete" in trainings_table(record).text()
    names = [found["name"] for found in whole.run["training"]["arms"]][: arm + 1]
    assert [found["name"] for found in record.run["training"]["arms"]] == names
    expected = whole.training[whole.training["arm"].isin(names)]
    last = (expected["arm"] == names[-1]) & (expected["round"] >= round_index)
    pd.testing.assert_frame_equal(
        record.training[expected.columns], expected[~last].reset_index(drop=True)
    )
    pd.testing.assert_frame_equal(record.rounds, whole.rounds)
    assert not list(tmp_path.glob(".out*"))


def test_the_command_says_where_the_record_is_and_fails(tmp_path, monkeypatch):
    breaking(monkeypatch, 0, 2)
    command = ["run", QUICKSTART, "--set", SHORT[0], "--out", str(tmp_path / "out"), "--quiet"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert done.stderr.startswith("fcfn: training failed in round 2: the update of node 7")
    assert done.stderr.count("\n") == 1
    page = CliRunner().invoke(app, ["report", str(tmp_path / "out")])
    assert page.exit_code == 0
    assert "Training is incomplete" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_without_a_folder_nothing_is_kept(monkeypatch):
    breaking(monkeypatch, 0, 2)
    with pytest.raises(RunFailedError, match=r"try a smaller training\.learning_rate\.$"):
        fa.run_scenario(fa.load_scenario(QUICKSTART, SHORT))
