"""docs/clusters.md, followed line by line: its scheduler, its workers, its commands, its Python."""

import ast
import json
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import psutil
import pytest
import warm
from dask_on_loopback import wait_for

import fcfn_abm as fa

pytestmark = pytest.mark.slow
pytest.importorskip("distributed")

PAGE = Path("docs/clusters.md").read_text(encoding="utf-8")
ADDRESS = "tcp://10.0.0.1:8786"
LESS = {
    "run": ["--set", "training.rounds=1", "--set", "training.compare=[]", "--overwrite"],
    "calibrate": ["--set", "training.rounds=1", "--epsilons", "1,9,99", "--seeds", "1"],
}
NOT_RUN = {"pip": "installs", "replicate": "minutes; tests/analysis makes the figure"}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def lines():
    """Return the words of each command of the page."""
    found = [
        shlex.split(line, comments=True) for block in blocks("bash") for line in block.split("\n")
    ]
    return [words for words in found if words]


def kill(process):
    """Kill a process, and first its children: nannies start workers again."""
    own = psutil.Process(process.pid)
    own.suspend()
    for child in own.children(recursive=True):
        child.kill()
    process.kill()
    process.wait()


@pytest.fixture
def address(tmp_path):
    """The scheduler and the workers that the page starts, but for its address and their number."""
    contact = tmp_path / "scheduler.json"
    scheduler, worker = (words[1:] for words in lines() if words[0] == "dask")
    assert worker[:2] == ["worker", ADDRESS]
    worker[worker.index("--nworkers") + 1] = "2"
    with ExitStack() as stack:

        def dask(*args):
            log = stack.enter_context((tmp_path / "dask.log").open("a"))
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *args, "--no-dashboard"], stdout=log, stderr=log
            )
            stack.callback(kill, process)

        dask(*scheduler, "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(contact))
        wait_for(contact.exists)
        found = wait_for(lambda: contact.read_text() and json.loads(contact.read_text()))["address"]
        dask("worker", found, *worker[2:], "--local-directory", str(tmp_path))
        yield found


def test_the_commands_of_the_page_run_from_top_to_bottom(address, tmp_path):
    run = [words for words in lines() if words[0] == "fcfn" and words[1] not in NOT_RUN]
    assert sum(ADDRESS in words for words in run) == 2
    for words in run:
        there = [address if word == ADDRESS else word for word in words[1:]]
        done = warm.run("fcfn", *there, *LESS[words[1]], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    record = fa.read_record(tmp_path / "results" / "quickstart")
    assert record.run["training"]["cluster"]["n_workers"] == [2, 2]


def test_the_python_of_the_page_runs_but_for_what_needs_other_systems(tmp_path):
    own = [code for code in blocks("python") if "dask_" not in code]
    assert len(own) == 1
    (tmp_path / "script.py").write_text(own[0])
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "cluster" in fa.read_record(tmp_path / "results" / "quickstart").run["training"]


@pytest.mark.parametrize("code", blocks("python"))
def test_what_its_python_imports_of_ours_exists(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("fcfn_abm"):
            for name in node.names:
                assert hasattr(import_module(node.module), name.name)
