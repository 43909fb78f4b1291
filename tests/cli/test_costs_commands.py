"""The commands that take a file of costs: equilibrium, and scenarios new."""

import json

import pytest
from typer.testing import CliRunner

import fcfn_abm as fa
from fcfn_abm.cli import app

COSTS = "name;rho\nNorth;0,1\nSouth;0,2\nEast;5\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "costs.csv").write_text(COSTS, encoding="utf-8")
    return tmp_path


def fcfn(*words, code=0):
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == code, done.output
    return done


def test_one_line_says_who_takes_part_and_what_is_paid():
    form = fa.stackelberg_equilibrium([0.1, 0.2, 5.0], 20.0, 8.0)
    out = fcfn("equilibrium", "costs.csv", "--alpha", "20", "--beta", "8").stdout.splitlines()
    assert out[0] == "costs: 3 nodes"
    assert out[1].startswith(f"2 of 3 nodes take part. The server pays B* = {form.budget:.5g} per")
    assert [line.split()[0] for line in out[-3:]] == ["North", "South", "East"]
    assert out[-1].endswith("stays out")


def test_a_market_without_trade_is_said_to_be_one():
    out = fcfn("equilibrium", "costs.csv", "--alpha", "0.001", "--beta", "0.001").stdout
    assert "None of 3 nodes takes part. B* = 0:" in out


def test_a_cap_that_is_given_is_not_called_the_best_one():
    out = fcfn("equilibrium", "costs.csv", "--set", "game.budget=2.5", "--set", "server=fixed")
    assert "The server pays B = 2.5 per round" in out.stdout


def test_facts_table_and_figure_agree_with_the_closed_form(folder):
    words = ("--json", "--table", "nodes.csv", "--figure", "nodes.svg")
    facts = json.loads(fcfn("equilibrium", "costs.csv", *words).stdout)
    form = fa.stackelberg_equilibrium([0.1, 0.2, 5.0], 10.0, 10.0)
    assert facts["payment"] == form.budget
    lines = (folder / "nodes.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "node,name,rho,epsilon,payment,utility,active"
    assert float(lines[1].split(",")[3]) == form.epsilon[0]
    assert "<svg" in (folder / "nodes.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("costs.csv", "--column", "cost"), "costs.csv: there is no column 'cost'."),
        (("costs.csv", "--alpha", "-1"), "[game] alpha: input should be greater than 0"),
        (("missing.csv",), "missing.csv: cannot be read: No such file or directory."),
        (("quickstart", "--column", "rho"), "--column and --name-column apply to files of costs"),
        (
            ("costs.csv", "--figure", "nodes.gif"),
            "the format of a figure must be one of .png, .svg, .pdf.",
        ),
        (("costs.csv", "--trust"), "costs.csv: names no plug-ins."),
        (("costs.csv", "--table", "no/nodes.csv"), "no/nodes.csv: cannot be written"),
        (("costs.csv", "--figure", "no/nodes.png"), "no/nodes.png: cannot be written"),
    ],
)
def test_a_mistake_gets_one_sentence(words, says):
    done = fcfn("equilibrium", *words, code=2)
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_new_scenario_plays_the_nodes_of_the_file_and_is_never_overwritten(folder):
    (folder / "data").mkdir()
    (folder / "costs.csv").rename(folder / "data" / "costs.csv")
    assert fcfn("scenarios", "new", "--from", "data/costs.csv").stdout == "costs.toml\n"
    people = fa.load_scenario("costs.toml").population
    assert people.node_names == ("North", "South", "East")
    again = fcfn("scenarios", "new", "--from", "data/costs.csv", code=2)
    assert "costs.toml: the file exists already; choose another name." in again.stderr
    wrong = fcfn("scenarios", "new", "x.toml", "--from", "none.csv", code=2)
    assert "none.csv: cannot be read" in wrong.stderr
    assert not (folder / "x.toml").exists()
