"""The campaigns of ``make soak``, short: they stop at the first promise that is broken."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soak import calls, faults, fuzz, verdicts
from soak.works import WORKS

pytestmark = pytest.mark.slow

QUICK = [work for work in WORKS if work.name != "every-round"]
SOME = [faults.by_name(name) for name in ("economics", "training", "sweep")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("soak")


def rng():
    return np.random.default_rng(11)


@pytest.mark.parametrize("work", SOME, ids=lambda work: work.name)
def test_kills_leave_nothing_half_and_change_no_byte(work, folder):
    assert faults.kills(work, folder, 2, rng())["stops"] >= 2


@pytest.mark.parametrize("work", SOME, ids=lambda work: work.name)
def test_interrupts_are_obeyed_and_reported_and_change_no_byte(work, folder):
    assert faults.interrupts(work, folder, 2, rng())["stops"] >= 2


@pytest.mark.parametrize("work", QUICK, ids=lambda work: work.name)
def test_a_disk_that_fills_up_is_reported_and_nothing_half_is_left(work, folder):
    counts = faults.full_disks(work, folder, 1, rng())
    assert counts["reported"] + counts["had room"] == 1


def test_a_file_system_that_is_too_small_is_reported(folder):
    assert faults.small_disks(faults.by_name("economics"), folder, 2, rng())


@pytest.mark.parametrize("work", QUICK, ids=lambda work: work.name)
def test_where_nobody_may_write_one_sentence_says_so(work, folder):
    assert faults.closed_folders(work, folder)["reported"] == 2


@pytest.mark.parametrize("work", SOME, ids=lambda work: work.name)
def test_of_three_at_one_folder_one_wins(work, folder):
    counts = faults.crowds(work, folder, 1, rng())
    assert counts["done"] + counts["refused"] == 3


def test_a_clock_that_jumps_changes_no_byte(folder):
    assert faults.jumping_clocks(faults.by_name("training"), folder, 1, rng())["same bytes"] == 1


@pytest.mark.parametrize("work", QUICK, ids=lambda work: work.name)
def test_damage_is_reported_or_changes_nothing(work, folder):
    assert faults.damage(work, folder, 20, rng()).total() == 20


def test_a_call_that_fails_leaves_the_old_or_the_new_and_nothing_half():
    ended = calls.run_with_shim(["--sample", "40", "--works", "run;run, replaced;sweep"])
    if ended is None:
        pytest.skip("there is no C compiler here, or no LD_PRELOAD")
    assert ended.returncode == 0, ended.stdout
    assert '"injected": 40' in ended.stdout


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_no_input_gets_a_traceback(name):
    n = 25 if name == "records" else 60  # whose pages take their time
    assert fuzz.campaign(name, n, 5).total() == n


@pytest.mark.parametrize("name", fuzz.TARGETS)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=200))
def test_no_bytes_get_a_traceback(name, data):
    assert fuzz.TARGETS[name](data) in {"taken", "refused", "not TOML"}


def test_verdicts_of_markets_at_random_are_true():
    counts = verdicts.campaign(60, 7)
    assert counts.total() == 60
    assert {"converged", "no-trade", "max-rounds"} <= set(counts)


def test_a_false_verdict_is_caught(monkeypatch):
    # a judge that does not look at the leader calls any rest of the nodes convergence
    monkeypatch.setattr("fcfn_abm.abm.verdict.Leader.is_near_best", True)
    monkeypatch.setattr(
        "fcfn_abm.learning.server_anticipate.Anticipate.is_content", lambda *_: True
    )
    monkeypatch.setattr(
        "fcfn_abm.learning.server_anticipate.Anticipate.next_budget", lambda _, seen: seen.budget
    )
    with pytest.raises(AssertionError, match="off B"):
        verdicts.campaign(60, 3)
