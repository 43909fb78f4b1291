import json
from pathlib import Path

import pytest

import fcfn_abm as fa
from fcfn_abm.build import REGISTRIES, load_scenario, resolve_defaults, scenario_schema
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.cli.base import numbers
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
    assert resolve_defaults(again) == again


def test_an_empty_file_is_the_default_scenario(tmp_path):
    assert load_scenario(write(tmp_path, "")) == resolve_defaults(Scenario())


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
            ["[population.rho]", "has 2 costs, but population.n_nodes = 3"],
        ),
        ("[server]\nkind = 'fixed'", ["[game] budget: is required"]),
        ("[record]\ntraces = 'some'", ["[record] traces", "'some'"]),
        ("[training]\ncompare = ['randon']", ["[training] compare: 'randon'", "Known: no-noise"]),
        ("[training]\n[privacy]\nunit = 'client'", ["[privacy] unit", "protects a record"]),
        ("[game\nalpha = 1", ["invalid TOML", "line 1"]),
        (
            "[learning]\nkind = 'estimate'\n[information]\nreports = 'aggregate'",
            ["[learning] kind: the rule 'estimate' needs every report"],
        ),
        ("[game]\nalpha = true", ["[game] alpha: input should be a valid number", "True"]),
        ("[game]\nalpha = '20'", ["[game] alpha: input should be a valid number", "'20'"]),
        ("seed = true", ["seed: input should be a valid integer", "True"]),
        ("[exit]\nreentry = 'yes'", ["[exit] reentry: input should be a valid boolean", "'yes'"]),
        ("[learning]\ngain = '0.3'", ["[learning] gain: input should be a valid number", "'0.3'"]),
        ("[population]\nrho = 3", ["[population] rho: must be a table", "3"]),
        ("[training]\ncompare = 'random'", ["[training] compare: must be a list", "'random'"]),
        ("[training]\ncompare = ['random', 'random']", ["'random' is listed twice"]),
        ("[compared.randon]\nlow = 1.0", ["[compared] randon", "Did you mean 'random'?"]),
        ("[compared.static]\nepsilom = 1.0", ["[compared.static] epsilom", "'epsilon'"]),
        ("[compared.static]\nepsilon = 0.0", ["[compared.static] epsilon", "0.0"]),
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


@pytest.mark.parametrize(
    ("text", "overrides", "table", "key"),
    [
        ("sede = 5", [], None, "sede"),
        ("[game]\nalpha = -1.0", [], "game", "alpha"),
        ("", ["game.alpha=-1.0"], "game", "alpha"),
        ("[population.rho]\nkind = 'uniform'\nlow = -1.0", [], "population.rho", "low"),
        ("[learning]\nkind = 'x'", [], "learning", "kind"),
        ("[server]\nkind = 'fixed'", [], "game", "budget"),
        ("[sweep.axes]\n'game.alpha' = [1.0, -1.0]", [], "game", "alpha"),
        ("[sweep.axes]\nseed = [1, 2]", [], "sweep.axes", "seed"),
        ("[game\nalpha = 1", [], None, None),
    ],
)
def test_an_error_carries_the_place_that_its_message_names(tmp_path, text, overrides, table, key):
    path = write(tmp_path, text)
    with pytest.raises(InvalidScenarioError) as caught:
        load_scenario(path, overrides)
    error = caught.value
    assert (error.table, error.key) == (table, key)
    assert error.file.startswith("--set game.alpha=-1.0" if overrides else str(path))
    assert str(error).startswith(error.file)
    assert str(error).endswith(error.reason)


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
        ("[privacy.check]\nfalse_alarm = 1e-6", r"\[privacy.check\] tests each node's upload"),
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


def test_a_batch_size_beside_sampling_is_refused_and_not_ignored(tmp_path):
    text = "[training]\nbatch_size = 8\n[privacy.placement]\nsampling_rate = {}\n"
    with pytest.raises(InvalidScenarioError, match="batch_size conflicts with privacy"):
        load_scenario(write(tmp_path, text.format(0.3)))
    assert load_scenario(write(tmp_path, text.format(1.0))).training.batch_size == 8


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
    assert str(caught.value).startswith(f"test, {place}: must be UTF-8 text, but contains '")


def test_a_tree_that_is_no_table_is_refused_without_a_place():
    with pytest.raises(InvalidScenarioError, match=r"^test: "):
        tree_to_scenario([], "test")


@pytest.mark.parametrize(
    "text",
    [".".join("a" * 5000) + "=1", f"[{'.'.join('a' * 3000)}]", "title = " + "[" * 60 + "]" * 60],
)
def test_what_is_nested_past_all_reading_is_refused(tmp_path, text):
    assert sentence(tmp_path, text).endswith("test.toml: is nested too deeply.")
    extends = tmp_path / "extends.toml"
    extends.write_text('extends = "test.toml"\n')
    with pytest.raises(InvalidScenarioError, match="is nested too deeply"):
        load_scenario(extends)


@pytest.mark.parametrize(
    "override", [".".join("a" * 3000) + "=1", "a=" + "{a=" * 60 + "1" + "}" * 60]
)
def test_overrides_are_not_nested_either(tmp_path, override):
    assert "nested too deeply" in sentence(tmp_path, "", [override])


def test_a_tree_that_holds_itself_is_refused():
    tree = {}
    tree["title"] = [tree]
    with pytest.raises(InvalidScenarioError, match=r"^test: is nested too deeply"):
        tree_to_scenario(tree, "test")


@pytest.mark.parametrize("rest", ["foo=7", "[game]\nalpha=3", "game.alpha=3"])
def test_an_override_holds_one_value(tmp_path, rest):
    assert "sets more than one value" in sentence(tmp_path, "", [f"seed=5\n{rest}"])
    assert load_scenario(write(tmp_path, ""), ["seed=5\n"]).seed == 5


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("a=1", "a: there"),
        ("b.c.d=1", "b: there"),
        ("seed=x", "seed: input"),
        ("game={alpha=-1.0}", "[game] alpha: input"),
        ("title='\udcff'", "title: must be UTF-8"),
    ],
)
def test_what_is_wrong_in_an_override_is_not_blamed_on_the_file(tmp_path, override, place):
    overrides = ["game.beta=2.0", override, "game.budget=2.0"]
    assert sentence(tmp_path, "", overrides).startswith(f"--set {override}, {place}")


@pytest.mark.parametrize("text", ["b.e=1", "seed='x'", "[game]\nalpha=-1.0"])
def test_what_is_wrong_in_the_file_is_not_blamed_on_an_override(tmp_path, text):
    message = sentence(tmp_path, text, ["game.beta=2.0", "title=t"])
    assert message.startswith(f"{tmp_path}/test.toml, ")


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("2020-01-01", "2020-01-01"),
        ("10:20:30", "10:20:30"),
        ("2020-01-01 10:20:30Z", "2020-01-01T10:20:30+00:00"),
        ("{a = 1}", "the table {'a': 1}"),
    ],
)
def test_a_value_that_toml_alone_has_is_quoted_too(tmp_path, value, quoted):
    message = sentence(tmp_path, f"seed = {value}")
    assert message.endswith(f"seed: input should be a valid integer, but it is {quoted}.")


def test_a_mistake_about_a_whole_table_does_not_tell_all_of_it(tmp_path):
    message = sentence(tmp_path, "[sweep]\nmode = 'random'")
    assert message.endswith("needs n_samples and at least one axis.")


@pytest.mark.parametrize("overrides", [[1], [None], "seed=5", None, 3])
def test_overrides_must_be_texts_in_a_list(overrides):
    with pytest.raises(InvalidScenarioError, match=r"must be a (string|list) such as .*, not "):
        load_scenario("quickstart", overrides)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_what_no_file_can_be_called_is_refused(name):
    with pytest.raises(InvalidScenarioError, match="not a valid file name"):
        load_scenario(name)


@pytest.mark.parametrize("value", ["quickstart", Path("quickstart.toml"), {}, 0])
@pytest.mark.parametrize("use", [fa.compare_mechanisms, fa.calibrate_value, PrivacyMarket])
def test_what_takes_a_scenario_says_so(use, value):
    words = rf"^{use.__name__} takes a Scenario, such as fa.load_scenario returns, not "
    with pytest.raises(InvalidScenarioError, match=words):
        use(value)


def test_a_market_alone_does_without_a_scenario():
    assert len(PrivacyMarket().nodes) == Scenario().population.n_nodes
    for use in (fa.compare_mechanisms, fa.calibrate_value):
        with pytest.raises(InvalidScenarioError, match="takes a Scenario"):
            use(None)


@pytest.mark.parametrize("text", ["1_0,2,3", "\u0661,2,3", "infinity,1", "1 0", "1,,2", "0x1", ""])
def test_numbers_of_an_option_are_plain(text):
    with pytest.raises(InvalidScenarioError, match="must be numbers separated by commas"):
        numbers(text, "--epsilons")
    assert numbers("1, .5,2.,+1e-3,-2E2", "--epsilons") == [1, 0.5, 2, 1e-3, -200]
