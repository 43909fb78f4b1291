"""A population that memory cannot hold is refused, and none for want of knowing."""

import os
import subprocess
import sys

import pytest

import fcfn_abm as fa
from fcfn_abm import memory
from fcfn_abm.errors import InvalidGameError, InvalidScenarioError
from fcfn_abm.population import require_room, room


def test_exactly_as_many_nodes_fit_as_the_message_says():
    require_room(4, memory=4 * room.BYTES_A_NODE)
    with pytest.raises(InvalidGameError, match="at most about 4 fit"):
        require_room(5, memory=5 * room.BYTES_A_NODE - 1)


def test_a_container_may_have_less_than_its_machine(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_LIMITS", (limit, tmp_path / "nothing"))
    limit.write_text(f"{100 * room.BYTES_A_NODE}\n")
    with pytest.raises(InvalidScenarioError, match=r"n_nodes: 101 nodes .* about 100 fit"):
        fa.load_scenario("quickstart", ["population.n_nodes=101"])
    limit.write_text("max\n")
    require_room(101)


def test_where_the_system_does_not_tell_its_memory_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "_LIMITS", ())
    monkeypatch.delattr(os, "sysconf")
    require_room(10**9)


LIMITED = """
import resource
from fcfn_abm.memory import _OWN
from fcfn_abm.population import require_room
pages = int(_OWN.read_text().split()[0])
limit = pages * resource.getpagesize() + 2**28
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
require_room(10**5)
require_room(2 * 10**6)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells what a process has taken")
def test_a_process_may_have_less_than_its_machine():
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False
    )
    last = ended.stderr.splitlines()[-1]
    assert "InvalidGameError: 2,000,000 nodes need about 0.47 GiB of memory, and there" in last


def test_a_limit_that_is_all_taken_leaves_nothing(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1, 1))
    with pytest.raises(InvalidGameError, match="at most about"):
        require_room(10)


def test_where_there_are_no_limits_of_processes_nothing_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    require_room(100)
