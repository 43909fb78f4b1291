"""A name leads to a shipped file, unless there is a file of that name."""

from pathlib import Path

import pytest

import fcfn_abm as fa
from fcfn_abm.errors import InvalidScenarioError, OutputError
from fcfn_abm.scenario import copy_shipped, shipped_files

QUICKSTART = Path("scenarios/quickstart.toml").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["quickstart", "quickstart.toml", "scenarios/quickstart.toml"])
def test_a_name_stands_for_a_shipped_file(name):
    assert fa.load_scenario(name).title == "Quick start: 50 nodes sell privacy to one server"


def test_a_file_that_is_there_comes_first():
    Path("quickstart.toml").write_text('title = "Mine"\nseed = 1\n')
    assert fa.load_scenario("quickstart.toml").title == "Mine"
    assert fa.load_scenario("quickstart").title.startswith("Quick start")


def test_a_name_that_is_nearly_right_is_suggested():
    with pytest.raises(InvalidScenarioError, match=r"no such file\. Did you mean 'quickstart'"):
        fa.load_scenario("quikstart")


@pytest.mark.parametrize("name", ["../pyproject", "/etc/hostname.toml", "scenarios", ""])
def test_nothing_but_shipped_scenarios_has_such_a_name(name):
    with pytest.raises(InvalidScenarioError):
        fa.load_scenario(name)
    with pytest.raises(InvalidScenarioError, match="no bundled scenario"):
        copy_shipped(name)


@pytest.mark.parametrize("name", list(shipped_files()))
def test_a_copy_means_the_same_as_the_shipped_file(name):
    assert fa.load_scenario(copy_shipped(name)) == fa.load_scenario(name)


def test_a_copy_replaces_nothing():
    Path("mine.toml").write_text("mine")
    with pytest.raises(OutputError, match=r"mine\.toml: the file exists already"):
        copy_shipped("quickstart", Path("mine.toml"))
    assert Path("mine.toml").read_text() == "mine"
    with pytest.raises(OutputError, match="cannot be written"):
        copy_shipped("quickstart", Path("no/such/folder.toml"))


def test_a_copy_goes_into_a_folder_under_its_own_name():
    Path("folder").mkdir()
    assert copy_shipped("quickstart", Path("folder")) == Path("folder/quickstart.toml")
    copied = Path("folder/quickstart.toml").read_text(encoding="utf-8").splitlines()
    assert copied[1:] == QUICKSTART.splitlines()[1:]
    schema = Path(copied[0].removeprefix("#:schema "))
    assert schema.is_absolute()
    assert schema.is_file()
