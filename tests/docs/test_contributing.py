"""CONTRIBUTING.md, RELEASING.md and the templates: examples run, and what they name exists."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer.main
import yaml

import fcfn_abm as fa
from fcfn_abm.cli import app
from fcfn_abm.learning import LEARNING_RULES
from fcfn_abm.mechanisms import MECHANISMS
from fcfn_abm.population import RHO_DISTRIBUTIONS
from fcfn_abm.training import NETS

REGISTRIES = (RHO_DISTRIBUTIONS, LEARNING_RULES, MECHANISMS, NETS)
PAGE = Path("CONTRIBUTING.md").read_text(encoding="utf-8")
FORMS = sorted(Path(".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))  # all but config.yml
GUIDES = [
    *(Path("CONTRIBUTING.md"), Path("RELEASING.md"), Path(".github/pull_request_template.md")),
    *FORMS,
]
NOT_HERE = (".venv/bin/", "build/", "run.json", "mine.toml")  # made later, or by the reader
BASE = "seed = 1\n[population]\nn_nodes = 12\n[game]\nbudget = 5.0\n[server]\nkind = 'fixed'\n"


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)[1]


def blocks(title, language):
    return re.findall(rf"^```{language}\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE)


@pytest.fixture
def example(tmp_path):
    """Carry out the code of a section, and load its scenario; forget what it registered."""
    before = [dict(registry._entries) for registry in REGISTRIES]

    def load(title, *overrides):
        (code,), (table,) = blocks(title, "python"), blocks(title, "toml")
        exec(compile(code, f"CONTRIBUTING.md, {title}", "exec"), {"__name__": "mine"})
        (tmp_path / "mine.toml").write_text(BASE + table)
        return fa.load_scenario(tmp_path / "mine.toml", overrides)

    yield load
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry._entries.clear()
        registry._entries.update(entries)


def test_every_section_has_code_and_a_table_that_is_toml():
    for title in ("A distribution of rho", "A learning rule", "A mechanism", "A net"):
        assert len(blocks(title, "python")) == 1
        assert tomllib.loads(blocks(title, "toml")[0])


def test_the_distribution_draws_costs_within_its_bounds(example):
    scenario = example("A distribution of rho", "population.n_nodes=500")
    rho = fa.run_scenario(scenario).nodes["rho"]
    assert rho.min() > 0.0005
    assert rho.max() < 0.002
    middle = rho.between(0.000875, 0.001625).mean()  # half of the range holds 3/4 of a triangle
    assert abs(middle - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 500)


def test_an_option_of_the_distribution_is_checked_when_the_scenario_is_read(example):
    with pytest.raises(fa.FcfnError, match=r"\[population.rho\] high: .*greater than 0"):
        example("A distribution of rho", "population.rho.high=-1")


def test_the_rule_finds_the_equilibrium(example):
    market = fa.PrivacyMarket(example("A learning rule"))
    assert market.run_until().kind == "converged"
    assert market.state.distance < 1e-6


def test_the_mechanism_keeps_its_claims(example):
    example("A mechanism")
    found = fa.check_mechanism("piece-rate", 50)
    assert {row.name: row.verdict for row in found.properties if row.claimed} == {
        "valid outcomes": "holds",
        "individual rationality of nodes": "holds",
        "incentive compatibility in cost": "holds",
        "incentive compatibility in contracts": "holds",
        "monotonicity in cost": "holds",
        "anonymity": "holds",
    }


def test_the_mechanism_is_priced_and_played(example):
    scenario = example("A mechanism", "population.rho={kind='uniform', low=0.01, high=0.03}")
    outcome = fa.price("piece-rate", [0.01, 0.05], alpha=1.0, beta=1.0, price=0.02)
    assert outcome.epsilon.tolist() == [10.0, 0.0]
    assert outcome.node_utility == pytest.approx([10 * 0.02 - 10 * 0.01, 0.0])
    nodes = fa.run_scenario(scenario).nodes
    assert (nodes["active"] == (nodes["rho"] < 0.02)).all()
    assert 0 < nodes["active"].sum() < 12


def test_the_net_trains(example):
    pytest.importorskip("torch")
    rounds = ["training.rounds=2", "training.data=digits", "training.compare=[]"]
    record = fa.run_scenario(example("A net", *rounds))
    assert record.run["training"]["n_parameters"] == 64 * 32 + 32 + 32 * 10 + 10
    assert len(record.training) == 3


@pytest.mark.parametrize("guide", GUIDES, ids=str)
def test_files_commands_and_targets_that_a_guide_names_exist(guide):
    text = guide.read_text(encoding="utf-8")
    paths = set(re.findall(r"(?<![\w/.-])(?:[\w.-]+/)+[\w.-]*", text))
    paths |= set(re.findall(r"(?<![\w/.-])[\w.]+\.(?:md|toml|cff|json)\b", text))
    named = {path.rstrip(".") for path in paths if not path.startswith(NOT_HERE)}
    assert sorted(path for path in named if not Path(path).exists()) == []
    targets = set(re.findall(r"^([\w-]+):", Path("Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][\w-]*)", text)) <= targets
    known = set(typer.main.get_command(app).commands)
    assert set(re.findall(r"(?:`|^ *|bin/)fcfn ([a-z][\w-]*)", text, re.MULTILINE)) <= known


def test_the_tour_visits_every_package_and_module():
    toured = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| `.*?\|", PAGE, re.MULTILINE))))
    inside = {path.stem for path in Path(fa.__file__).parent.glob("[!_]*.py")}
    inside |= {path.parent.name for path in Path(fa.__file__).parent.glob("*/__init__.py")}
    assert inside <= toured


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_fields_with_names_of_their_own(form):
    asked = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert all(asked[key] for key in ("name", "description", "body"))
    assert {field["type"] for field in asked["body"]} <= {"textarea", "input", "dropdown"}
    names = [field["id"] for field in asked["body"]]
    assert len(set(names)) == len(names)
    assert all(field["attributes"]["label"] for field in asked["body"])
    assert any(field.get("validations", {}).get("required") for field in asked["body"])
