"""Runs of a sweep that take too long: they end as failed rows, and the others are done."""

from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import warm

import fcfn_abm as fa
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.runs.sweep import run_sweep

pytestmark = pytest.mark.slow

RULE = """
import time
from fcfn_abm.learning import LEARNING_RULES, LearningRule

@LEARNING_RULES.register("hangs-at-three")
class HangsAtThree(LearningRule):
    def plan(self, seen):
        if seen.budget == 3.0:
            time.sleep(1e6)
        return seen.best_response
"""
SWEEP = """
imports = ["rule.py"]
learning = "hangs-at-three"
population = { n_nodes = 5 }
game = { budget = 1.0 }
server = "fixed"
rounds = { maximum = 5 }

[sweep]
replications = 2
timeout = 1000.0

[sweep.axes]
"game.budget" = [1.0, 2.0, 3.0, 4.0]
"""


@pytest.mark.parametrize("place", ["--workers=2", "--cluster=local:2"])
def test_a_run_that_hangs_is_a_failed_row_and_the_others_are_done(place, tmp_path):
    (tmp_path / "rule.py").write_text(RULE)
    (tmp_path / "hangs.toml").write_text(SWEEP)
    options = ["--out=out", "--trust", "-q", place, "--timeout=5"]
    found = warm.run("fcfn", "sweep", "hangs.toml", *options, cwd=tmp_path, timeout=600)
    assert (found.returncode, found.stderr) == (0, "")
    frame = pd.read_parquet(tmp_path / "out" / "sweep.parquet")  # without the plug-in
    hangs = frame["game.budget"] == 3.0
    assert set(frame["status"][hangs]) == {"failed"}
    assert set(frame["error"][hangs]) == {"took longer than 5 s, the sweep's timeout."}
    assert set(frame["status"][~hangs]) == {"done"}


def quick():
    changes = ["training={enabled=false}", "sweep.axes={'game.alpha' = [1.0]}", "rounds.maximum=3"]
    return fa.load_scenario("quickstart", changes)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(timeout, tmp_path):
    with pytest.raises(InvalidScenarioError, match="timeout must be positive and at most"):
        run_sweep(quick(), tmp_path / "out", timeout=timeout)


def test_an_executor_of_threads_keeps_no_timeout(tmp_path):
    with (
        ThreadPoolExecutor(1) as threads,
        pytest.raises(InvalidScenarioError, match="needs workers that can be ended"),
    ):
        run_sweep(quick(), tmp_path / "out", threads, timeout=5.0)
