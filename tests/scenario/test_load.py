import json
from pathlib import Path

import pytest

from fcfn_abm.build import REGISTRIES, load_scenario, resolved, scenario_schema
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.scenario import Scenario, to_toml, tree_to_scenario

SHIPPED = sorted(Path("scenarios").rglob("*.toml"))


def write(folder, text):
    path = folder / "test.toml"
    path.write_text(text)
    return path


def sentence(folder, text, overrides=()):
    with pytest.raises(InvalidScenarioError) as caught:
        load_scenario(write(folder, text), overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert message[-1] in ".?"
    return message


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_shipped_scenarios_are_right_and_have_titles(path):
    assert load_scenario(path).title


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_a_written_scenario_reads_back_equal(path, tmp_path):
    scenario = load_scenario(path)
    again = load_scenario(write(tmp_path, to_toml(scenario)))
    assert again == scenario
    assert resolved(again) == again


def test_an_empty_file_is_the_default_scenario(tmp_path):
    assert load_scenario(write(tmp_path, "")) == resolved(Scenario())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[game]\nbudgte = 5", ["[game] budgte: there is no such key", "Did you mean 'budget'?"]),
        ("sede = 5", ["sede: there is no such key", "Did you mean 'seed'?"]),
        ("[gmae]\nalpha = 5", ["gmae: there is no such key", "Did you mean 'game'?"]),
        ("[game]\nalpha = 'x'", ["[game] alpha: input should be a valid number", "it is 'x'"]),
        ("[game]\nalpha = -1.0", ["[game] alpha: input should be greater than 0", "it is -1.0"]),
        ("[game]\nalpha = nan", ["[game] alpha: input should be a finite number", "nan"]),
        ("[game]\nbeta = inf", ["[game] beta: input should be a finite number", "inf"]),
        ("[population]\nn_nodes = 1", ["[population] n_nodes", "greater than or equal to 2", "1"]),
        ("[privacy]\ndelta = 2.0", ["[privacy] delta: input should be less than 1", "2.0"]),
        ("[learning]\nkind = 'best-respnse'", ["[learning] kind", "Did you mean 'best-response'?"]),
        ("[learning]\nkind = 'best-response'\ngian = 1", ["[learning] gian", "'gain'"]),
        ("[learning]\nkind = 'best-response'\ngain = 2.0", ["[learning] gain", "2.0"]),
        ("[population.rho]\nkind = 'uniform'\nlow = -1.0", ["[population.rho] low", "-1.0"]),
        (
            "[population]\nn_nodes = 3\n[population.rho]\nkind = 'listed'\nvalues = [1.0, -2.0]",
            ["[population.rho] values.1: input should be greater than 0", "-2.0"],
        ),
        (
            "[population]\nn_nodes = 3\n[population.rho]\nkind = 'listed'\nvalues = [1.0, 2.0]",
            ["[population.rho]", "gives 2 costs, but population.n_nodes = 3"],
        ),
        ("[server]\nkind = 'fixed'", ["[game] budget: is required"]),
        ("[record]\ntraces = 'some'", ["[record] traces", "'some'"]),
        ("[training]\ncompare = ['randon']", ["[training] compare: 'randon'", "Known: no-noise"]),
        ("[training]\n[privacy]\nunit = 'client'", ["[privacy] unit", "protects a record"]),
        ("[game\nalpha = 1", ["not valid TOML", "line 1"]),
        (
            "[learning]\nkind = 'estimate'\n[information]\nreports = 'aggregate'",
            ["[learning] kind: the rule 'estimate' needs to see every report"],
        ),
        ("[game]\nalpha = true", ["[game] alpha: input should be a valid number", "True"]),
        ("[game]\nalpha = '20'", ["[game] alpha: input should be a valid number", "'20'"]),
        ("seed = true", ["seed: input should be a valid integer", "True"]),
        ("[exit]\nreentry = 'yes'", ["[exit] reentry: input should be a valid boolean", "'yes'"]),
        ("[learning]\ngain = '0.3'", ["[learning] gain: input should be a valid number", "'0.3'"]),
        ("[population]\nrho = 3", ["[population] rho: must be a table", "3"]),
        ("[training]\ncompare = 'random'", ["[training] compare: must be a list", "'random'"]),
        ("[training]\ncompare = ['random', 'random']", ["'random' stands twice"]),
        ("[game]\nbudget = 0", ["[game] budget: must be positive", "'anticipate'"]),
        ("[rounds]\nparticipation = 1.5", ["[rounds] participation", "1.5"]),
        ("[exit]\ncriterion = 'lose'", ["[exit] criterion", "'best-response' or 'loss'"]),
    ],
)
def test_a_mistake_gets_one_sentence_with_file_place_and_remedy(tmp_path, text, words):
    message = sentence(tmp_path, text)
    assert message.startswith(f"{tmp_path}/test.toml")
    for word in words:
        assert word in message


def test_a_missing_file_is_named_and_a_near_one_suggested(tmp_path):
    write(tmp_path, "")
    with pytest.raises(InvalidScenarioError, match=r"tset.toml: there is no such file. Did you"):
        load_scenario(tmp_path / "tset.toml")
    with pytest.raises(InvalidScenarioError, match="cannot be read"):
        load_scenario(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidScenarioError, match="not UTF-8"):
        load_scenario(tmp_path / "binary.toml")


def test_overrides_replace_values_and_are_checked_alike(tmp_path):
    path = write(tmp_path, "[game]\nalpha = 1.0")
    scenario = load_scenario(path, ["game.alpha=20", "learning.gain=0.25", "title=two words"])
    assert scenario.game.alpha == 20
    assert scenario.title == "two words"
    assert scenario.learning.kind == "best-response"
    assert scenario.learning.options["gain"] == 0.25
    other = load_scenario(path, ["learning.gain=0.25", "learning.kind=estimate"])
    assert "gain" not in other.learning.options  # an option of the rule that was replaced
    with pytest.raises(InvalidScenarioError, match=r"\[game\] alhpa"):
        load_scenario(path, ["game.alhpa=20"])
    with pytest.raises(InvalidScenarioError, match=r"must look like game\.alpha=20"):
        load_scenario(path, ["game.alpha"])
    with pytest.raises(InvalidScenarioError, match="alpha is a value, not a table"):
        load_scenario(path, ["game.alpha.x=20"])


def test_scenarios_are_frozen_and_equal_by_value():
    with pytest.raises(ValueError, match="frozen"):
        Scenario().seed = 3
    assert tree_to_scenario({"seed": 3}, "x") == Scenario(seed=3)


def test_the_schema_names_every_key_and_every_registered_name():
    schema = scenario_schema()
    text = json.dumps(schema)
    for name in Scenario.model_fields:
        assert name in schema["properties"]
    for registry in REGISTRIES.values():
        for name in registry:
            assert json.dumps({"const": name}) in text
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("written", "kind", "options"),
    [
        ('learning = "gradient"', ("learning", "gradient"), {}),
        ('training.data = "parquet:some/where"', ("data", "parquet"), {"path": "some/where"}),
    ],
)
def test_a_name_alone_may_stand_for_its_table(tmp_path, written, kind, options):
    path = tmp_path / "short.toml"
    path.write_text(f"{written}\n", encoding="utf-8")
    scenario = load_scenario(path)
    section = scenario if kind[0] == "learning" else scenario.training
    choice = getattr(section, kind[0])
    assert choice.kind == kind[1]
    assert options.items() <= choice.options.items()
    if kind[0] == "learning":  # and an override may give it options
        assert load_scenario(path, ["learning.gain=0.25"]).learning.options["gain"] == 0.25


@pytest.mark.parametrize(
    ("also", "reason"),
    [
        ("secure_noise = true", "privacy.secure_noise"),
        ("[privacy.check]\nfalse_alarm = 1e-6", r"\[privacy.check\] looks at"),
        ("[training]\nlocal_epochs = 2", "'dp-sgd' adds it in each local step"),
        ("[training]\nbatch_size = 9", "'dp-sgd' adds it in each local step"),
    ],
)
def test_noise_of_the_sum_is_refused_where_it_would_not_do(tmp_path, also, reason):
    training = "" if "[training]" in also else "\n[training]"
    with pytest.raises(InvalidScenarioError, match=f"noise_of: .*{reason}"):
        load_scenario(write(tmp_path, f'[privacy]\nnoise_of = "sum"\n{also}{training}\n'))
    fine = (
        '[privacy]\nnoise_of = "sum"\nunit = "client"\nplacement = "update"\n'
        "[training]\nlocal_epochs = 2\n"
    )
    assert load_scenario(write(tmp_path, fine)).privacy.noise_of == "sum"


def test_the_mark_of_windows_editors_is_no_part_of_a_file(tmp_path):
    path = tmp_path / "marked.toml"
    path.write_bytes(b"\xef\xbb\xbf" + 'title = "Mit Zeichen \u00e4"\n'.encode())
    assert load_scenario(path).title == "Mit Zeichen \u00e4"


@pytest.mark.parametrize(
    ("tree", "place"),
    [
        ({"title": "a\udcff"}, "title"),
        ({"\udcff": 1}, "\udcff"),
        ({"training": {"compare": ["no-noise", "\udcff"]}}, "[training] compare"),
        ({"mechanism": {"kind": "static", "\udcff": {}}}, "[mechanism] \udcff"),
    ],
)
def test_what_is_no_text_is_refused(tree, place):
    with pytest.raises(InvalidScenarioError) as caught:
        tree_to_scenario(tree, "test")
    assert str(caught.value).startswith(f"test, {place}: must be UTF-8 text, but holds '")


def test_a_tree_that_is_no_table_is_told_without_a_place():
    with pytest.raises(InvalidScenarioError, match=r"^test: "):
        tree_to_scenario([], "test")
