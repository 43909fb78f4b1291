"""Provenance of results: recorded as far as it is known, never wrong, and never at a cost."""

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

import fcfn_abm as fa
from fcfn_abm.runs import provenance
from fcfn_abm.runs.provenance import describe_hardware, find_command, find_commit

GIT = shutil.which("git")
needs_git = pytest.mark.skipif(GIT is None, reason="git is not installed")


def git(folder, *args):
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    named = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(
        [GIT, *named, *args],
        cwd=folder,
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Put the package into a folder of its own, which is a checkout of nothing yet."""
    root = tmp_path / "project"
    (root / "fcfn_abm").mkdir(parents=True)
    (root / "fcfn_abm" / "__init__.py").write_text("")
    (root / "pyproject.toml").write_text('[project]\nname = "fcfn-abm"\n')
    (root / "README.md").write_text("")
    monkeypatch.setattr(provenance.fcfn_abm, "__file__", str(root / "fcfn_abm" / "__init__.py"))
    find_commit.cache_clear()
    yield root
    find_commit.cache_clear()


@pytest.fixture
def checkout(root):
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "first")
    return root


def commit_now():
    find_commit.cache_clear()
    return find_commit()


@needs_git
def test_the_commit_of_a_checkout_is_known_and_whether_the_package_differs_from_it(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    assert commit_now() == {"id": head, "dirty": False}
    (checkout / "README.md").write_text("changes no number")
    assert commit_now() == {"id": head, "dirty": False}
    (checkout / "fcfn_abm" / "new_rule.py").write_text("")
    assert commit_now() == {"id": head, "dirty": True}
    git(checkout, "add", ".")
    assert commit_now()["dirty"]
    git(checkout, "commit", "--quiet", "-m", "second")
    assert commit_now() == {"id": git(checkout, "rev-parse", "HEAD"), "dirty": False}


@needs_git
def test_the_commit_of_a_linked_worktree_is_its_own(checkout, tmp_path, monkeypatch):
    git(checkout, "worktree", "add", "--quiet", str(tmp_path / "linked"))
    linked = tmp_path / "linked"
    (linked / "fcfn_abm" / "__init__.py").write_text("# changed")
    git(linked, "commit", "--quiet", "-a", "-m", "in the worktree")
    monkeypatch.setattr(provenance.fcfn_abm, "__file__", str(linked / "fcfn_abm" / "__init__.py"))
    assert commit_now() == {"id": git(linked, "rev-parse", "HEAD"), "dirty": False}
    assert git(linked, "rev-parse", "HEAD") != git(checkout, "rev-parse", "HEAD")


@needs_git
def test_a_repository_that_the_environment_names_is_not_taken(checkout, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    git(other, "commit", "--quiet", "--allow-empty", "-m", "of another project")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.chdir(other)
    found = commit_now()["id"]
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_WORK_TREE")
    assert found == git(checkout, "rev-parse", "HEAD")


@needs_git
@pytest.mark.usefixtures("checkout")
def test_a_program_called_git_on_the_path_is_not_run(tmp_path, monkeypatch):
    planted = tmp_path / "git"
    planted.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    planted.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:.:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    assert commit_now() is not None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "project", ["", "[project]\nname = 'theirs'\n", "[project]\n", "project = 3", "\0"], ids=repr
)
@needs_git
def test_the_commit_of_a_project_that_holds_a_copy_is_not_taken_for_ours(checkout, project):
    (checkout / "pyproject.toml").write_text(project)
    assert commit_now() is None
    (checkout / "pyproject.toml").unlink()
    assert commit_now() is None


@needs_git
@pytest.mark.usefixtures("root")
def test_a_repository_further_up_is_not_ours(tmp_path):
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "the user's own project")
    assert commit_now() is None  # as in a virtual environment inside of it


def test_without_git_or_a_repository_there_is_no_commit(root, monkeypatch):
    assert commit_now() is None
    (root / ".git").write_text("gitdir: nowhere")
    assert commit_now() is None
    monkeypatch.setattr(provenance, "_GIT_PLACES", ("/no/git",))
    assert commit_now() is None


@needs_git
def test_a_repository_without_a_commit_has_none(root):
    git(root, "init", "--quiet")
    assert commit_now() is None


@pytest.mark.parametrize("does", ["sleep 60", "exit 3", "echo nonsense", "kill -9 $$"])
def test_a_git_that_hangs_or_fails_costs_a_moment_and_no_error(root, tmp_path, monkeypatch, does):
    (root / ".git").mkdir()
    program = tmp_path / "git"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setattr(provenance, "_GIT_PLACES", (str(program),))
    monkeypatch.setattr(provenance, "_SECONDS", 0.2)
    began = time.monotonic()
    assert commit_now() is None
    assert time.monotonic() - began < 20


def test_hardware_is_of_this_machine():
    hardware = describe_hardware()
    assert hardware["cores"] == len(os.sched_getaffinity(0))
    assert hardware["memory"] > 2**28
    assert hardware["processor"]
    assert os.uname().release in hardware["system"]
    assert os.uname().nodename not in json.dumps(hardware)


def test_the_command_line_is_that_of_fcfn_and_of_no_other_program(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/fcfn", "run", "quickstart"])
    assert find_command() == ["fcfn", "run", "quickstart"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/fcfn.exe", "run", "a b"])
    assert find_command() == ["fcfn", "run", "a b"]
    for other in (["my_study.py", "run"], [""], []):
        monkeypatch.setattr(sys, "argv", other)
        assert find_command() is None


def test_a_run_records_when_where_and_by_which_command_it_was_made(tmp_path):
    out = tmp_path / "market"
    arguments = ["run", "dynamics/cold-start", "--out", str(out), "--quiet"]
    before = datetime.now().astimezone()
    subprocess.run([sys.executable, "-m", "fcfn_abm", *arguments], check=True, capture_output=True)
    after = datetime.now().astimezone()
    run = json.loads((out / "run.json").read_text())
    found = run["provenance"]
    assert found["command"] == ["fcfn", *arguments]
    started, ended = (datetime.fromisoformat(found[name]) for name in ("started", "ended"))
    assert before.replace(microsecond=0) <= started <= ended <= after
    assert found["hardware"]["memory"] == describe_hardware()["memory"]
    assert set(found) == {"command", "commit", "hardware", "started", "ended"}
    assert fa.read_record(out).run == run


def test_a_sweep_records_where_it_was_made_and_nothing_that_differs_between_two(tmp_path):
    scenario = fa.load_scenario(
        "dynamics/cold-start", ["rounds.maximum=2", "sweep.axes={'game.budget' = [1.0, 2.0]}"]
    )
    facts = [
        Path(fa.run_sweep(scenario, tmp_path / name).path, "run.json").read_bytes()
        for name in ("one", "two")
    ]
    assert facts[0] == facts[1]
    assert set(json.loads(facts[0])["provenance"]) == {"commit", "hardware"}
