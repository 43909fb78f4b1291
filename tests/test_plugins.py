"""Plug-ins: what is imported, when, and what is left of an import that fails."""

import hashlib
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from plugins_of_tests import MARKET, RULE, forget_plugins, total_epsilon

import fcfn_abm as fa
from fcfn_abm import plugins
from fcfn_abm.build import REGISTRIES, scenario_schema
from fcfn_abm.errors import InvalidScenarioError, PluginError
from fcfn_abm.learning import LEARNING_RULES


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """An empty folder, and no plug-ins before and after."""
    path, modules = list(sys.path), set(sys.modules)
    monkeypatch.chdir(tmp_path)
    yield
    forget_plugins()
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.partition(".")[0].startswith(("mine", "fcfn_plugin")):
            del sys.modules[name]


@pytest.fixture
def installed(monkeypatch):
    """Pretend that modules are installed as plug-ins."""

    def install(**values):
        points = [EntryPoint(name, value, plugins.GROUP) for name, value in values.items()]
        monkeypatch.setattr(plugins, "_entry_points", lambda: points)
        monkeypatch.syspath_prepend(".")

    return install


def write(name, text=RULE):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_registers_its_rule_and_is_known_by_its_digest():
    file = write("my_rules.py", '__version__ = "3.1"\n' + RULE)
    plugin = fa.import_plugin("my_rules.py")
    assert plugin.facts() == {
        "name": "my_rules.py",
        "version": "3.1",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    assert LEARNING_RULES.create("cautious", {"margin": 0.5}).margin == 0.5
    assert fa.import_plugin(file) == plugin
    assert plugins.list_plugins() == (plugin,)


def test_a_file_that_has_changed_replaces_what_it_registered():
    file = write("my_rules.py")
    before = fa.import_plugin(file)
    write("my_rules.py", RULE.replace("cautious", "careful"))
    after = fa.import_plugin(file)
    assert "careful" in LEARNING_RULES
    assert "cautious" not in LEARNING_RULES
    assert plugins.list_plugins() == (after,)
    assert before.sha256 != after.sha256


def test_a_copy_of_a_file_is_the_same_plugin():
    first = fa.import_plugin(write("my_rules.py"))
    assert fa.import_plugin(write("elsewhere/copied.py")) == first


def test_a_module_is_known_by_the_digest_of_all_its_files():
    write("mine/__init__.py", "")
    write("mine/rules.py")
    write("mine/deep/help.py", "x = 1\n")
    plugin = fa.import_plugin("mine.rules")
    listed = "".join(
        f"{hashlib.sha256((Path('mine') / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("__init__.py", "deep/help.py", "rules.py")
    )
    assert plugin.sha256 == hashlib.sha256(listed.encode()).hexdigest()
    assert (plugin.name, plugin.version, plugin.path) == ("mine.rules", None, None)
    assert "cautious" in LEARNING_RULES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "x = 1\ny = x / 0\n",
            r"my_rules.py: .* \(my_rules.py, line \d+\): ZeroDivisionError: div",
        ),
        ("x = = 1\n", r"my_rules.py: cannot be imported: invalid syntax \(my_rules.py, line \d+\)"),
        ("import nowhere_to_be_found\n", r"line \d+\): ModuleNotFoundError: No module named 'nowh"),
        ("raise SystemExit(3)\n", r"line \d+\): SystemExit: 3\."),
        (
            RULE.replace('"cautious"', '"fixed"'),
            r"the learning rule 'fixed' is already fcfn_abm.learning.fixed.\w+; choose another",
        ),
        (
            RULE.replace("margin: Annotated[float, Field(ge=0, lt=1)] = 0.2", "margin: list = []"),
            r"line \d+\): ValueError: mutable default",
        ),
    ],
)
def test_an_import_that_fails_is_one_sentence_and_leaves_nothing(text, message):
    before = {place: list(registry) for place, registry in REGISTRIES.items()}
    write("my_rules.py", RULE.replace("cautious", "first") + text)
    with pytest.raises(PluginError, match=message) as caught:
        fa.import_plugin("my_rules.py")
    assert "\n" not in str(caught.value)
    assert {place: list(registry) for place, registry in REGISTRIES.items()} == before
    assert plugins.list_plugins() == ()
    write("my_rules.py")
    fa.import_plugin("my_rules.py")
    assert "cautious" in LEARNING_RULES


def test_a_package_whose_import_failed_can_be_imported_once_it_is_right():
    write("mine/__init__.py", "")
    write("mine/rules.py")
    write("mine/all.py", "import mine.rules\n1 / 0\n")
    with pytest.raises(PluginError, match=r"mine.all: .* \(all.py, line 2\): ZeroDivisionError"):
        fa.import_plugin("mine.all")
    assert "cautious" not in LEARNING_RULES
    write("mine/all.py", "import mine.rules\n")
    fa.import_plugin("mine.all")
    assert "cautious" in LEARNING_RULES


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.py", "nowhere.py: there is no such file"),
        ("rules/my.txt", r"a plug-in must be a Python file \(my_rules.py\) or a module"),
        ("no where", "not a valid module name"),
        ("nowhere.rules", "there is no such module on Python's path or in "),
        ("a\0.py", "not a valid file name"),
        (3, "a plug-in must be a string or a path, not 3"),
    ],
)
def test_what_is_no_plugin_is_refused(source, message):
    with pytest.raises(PluginError, match=message):
        fa.import_plugin(source)


@pytest.mark.parametrize("place", REGISTRIES, ids=".".join)
def test_every_registry_takes_entries_of_plugins(place):
    registry = REGISTRIES[place]
    name = next(iter(registry))
    entry = registry[name]
    module = entry.__module__
    text = f"""
import fcfn_abm.build
from fcfn_abm.build import REGISTRIES
from {module} import {entry.__qualname__} as Base

@REGISTRIES[{place!r}].register("mine")
class Mine(Base):
    "An entry of a plug-in."
"""
    fa.import_plugin(write("mine.py", text))
    assert registry.options("mine") == registry.options(name)
    assert '"An entry of a plug-in.' in str(scenario_schema()).replace("'", '"')


def test_installed_plugins_are_imported_where_a_name_is_missing(installed):
    write("mine_rules.py")
    installed(cautious="mine_rules")
    assert LEARNING_RULES["fixed"]
    assert plugins.list_plugins() == ()
    assert LEARNING_RULES["cautious"].__module__ == "mine_rules"
    assert [plugin.name for plugin in plugins.list_plugins()] == ["mine_rules"]


def test_installed_plugins_are_imported_where_names_are_listed(installed):
    write("mine_rules.py")
    installed(cautious="mine_rules")
    assert "cautious" in list(LEARNING_RULES)


def test_a_scenario_may_name_what_is_installed(installed):
    write("mine_rules.py")
    installed(cautious="mine_rules")
    write("market.toml", 'imports = ["mine_rules"]\n' + MARKET)
    assert fa.load_scenario("market.toml").learning.options == {"margin": 0.2}


def test_a_broken_installed_plugin_is_named_where_a_name_is_missing_and_nowhere_else(installed):
    write("mine_rules.py")
    write("mine_broken.py", "1 / 0\n")
    installed(broken="mine_broken", cautious="mine_rules")
    assert fa.load_scenario("quickstart")
    assert LEARNING_RULES["cautious"]
    with pytest.raises(PluginError, match="the installed plug-in 'broken': mine_broken: cannot"):
        LEARNING_RULES["not-there"]


def test_an_installed_name_does_not_open_the_folder_of_the_scenario(installed):
    installed(cautious="mine_rules")
    sys.path.remove(".")
    write("elsewhere/mine_rules.py", "open('ran', 'w')\n" + RULE)
    write("elsewhere/market.toml", 'imports = ["mine_rules"]\n' + MARKET)
    with pytest.raises(InvalidScenarioError, match="imports: the installed plug-in 'cautious'"):
        fa.load_scenario("elsewhere/market.toml")
    assert not Path("ran").exists()


def test_an_entry_point_names_a_module_alone(installed):
    installed(cautious="mine_rules:register")
    with pytest.raises(PluginError, match="mine_rules:register: an entry point must name a module"):
        LEARNING_RULES["cautious"]


def test_a_plugin_may_look_names_up_while_it_is_imported(installed):
    write("mine_rules.py", RULE + "names = list(LEARNING_RULES)\nassert 'x' not in LEARNING_RULES")
    installed(cautious="mine_rules")
    assert LEARNING_RULES["cautious"]


def test_trusted_files_are_relative_to_the_file_that_names_them():
    write("base/rules/my_rules.py")
    write("base/market.toml", 'imports = ["rules/my_rules.py"]\n' + MARKET)
    write("other/mine.toml", 'extends = "../base/market.toml"\nseed = 2\n')
    scenario = fa.load_scenario("other/mine.toml", trust=True)
    assert scenario.imports == ("../base/rules/my_rules.py",)
    market = fa.PrivacyMarket(scenario)
    market.run_until()
    assert market.total_epsilon == pytest.approx(total_epsilon())


def test_a_trusted_module_is_found_in_the_folder_of_the_scenario():
    write("base/mine/__init__.py", "")
    write("base/mine/rules.py")
    write("base/market.toml", 'imports = ["mine.rules"]\n' + MARKET)
    assert fa.load_scenario("base/market.toml", trust=True)


SPY = "open({!r}, 'w').close()\n" + RULE


def test_without_trust_nothing_runs_and_one_sentence_says_so(tmp_path):
    write("my_rules.py", SPY.format(str(tmp_path / "ran")))
    write("market.toml", 'imports = ["my_rules.py"]\n' + MARKET)
    with pytest.raises(InvalidScenarioError) as caught:
        fa.load_scenario("market.toml")
    assert str(caught.value).startswith("market.toml, imports: names code, 'my_rules.py', which")
    assert not (tmp_path / "ran").exists()
    fa.load_scenario("market.toml", trust=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("first", ["load_scenario", "import_plugin"])
def test_one_plugin_that_the_user_names_is_no_leave_for_others(first, tmp_path):
    write("my_rules.py")
    write("spy.py", SPY.format(str(tmp_path / "ran")))
    write("market.toml", 'imports = ["my_rules.py", "spy.py"]\n' + MARKET)
    imports = ["my_rules.py"]
    if first == "import_plugin":
        fa.import_plugin("my_rules.py")
        imports = []
    with pytest.raises(InvalidScenarioError, match=r"names code, 'spy.py'"):
        fa.load_scenario("market.toml", imports=imports)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_has_changed_since_it_was_allowed_needs_leave_again(tmp_path):
    write("my_rules.py")
    write("market.toml", 'imports = ["my_rules.py"]\n' + MARKET)
    fa.import_plugin("my_rules.py")
    assert fa.load_scenario("market.toml")
    write("my_rules.py", SPY.format(str(tmp_path / "ran")))
    with pytest.raises(InvalidScenarioError, match="names code"):
        fa.load_scenario("market.toml")
    assert not (tmp_path / "ran").exists()


def test_an_override_cannot_smuggle_code_in(tmp_path):
    write("my_rules.py", SPY.format(str(tmp_path / "ran")))
    write("market.toml", MARKET)
    with pytest.raises(InvalidScenarioError, match="names code"):
        fa.load_scenario("market.toml", ["imports=['my_rules.py']"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("imports = 'my_rules.py'", "imports: input should be a valid tuple|must be a list"),
        ("imports = [3]", "imports 0|input should be a valid string"),
        ("imports = ['nowhere.py']", "imports: .*nowhere.py: there is no such file"),
        ("imports = ['']", "imports: '': not a valid module name"),
    ],
)
def test_imports_that_cannot_be_are_refused(line, message):
    write("market.toml", line + MARKET)
    with pytest.raises(InvalidScenarioError, match=message):
        fa.load_scenario("market.toml", trust=True)


def test_imports_are_no_axis():
    write("market.toml", MARKET + '\n[sweep.axes]\n"imports" = [["a.py"], ["b.py"]]\n')
    write("my_rules.py")
    with pytest.raises(InvalidScenarioError, match="cannot be an axis"):
        fa.load_scenario("market.toml", imports=["my_rules.py"])


def test_a_scenario_whose_plugin_is_not_here_names_it():
    write("my_rules.py")
    write("market.toml", 'imports = ["my_rules.py"]\n' + MARKET)
    scenario = fa.load_scenario("market.toml", trust=True)
    forget_plugins()
    with pytest.raises(InvalidScenarioError, match=r"The scenario needs my_rules.py: fa.import_p"):
        fa.run_scenario(scenario)


def test_a_plugin_of_another_content_is_refused_in_a_worker():
    write("mine/__init__.py", "")
    write("mine/rules.py")
    plugin = fa.import_plugin("mine.rules")
    forget_plugins()
    write("mine/rules.py", RULE + "# changed\n")
    with pytest.raises(PluginError, match=r"mine.rules: the plug-in has SHA-256 \w{12} on a wor"):
        plugins.import_again([plugin])


def test_a_worker_runs_the_file_as_it_was():
    file = write("my_rules.py")
    plugin = fa.import_plugin(file)
    forget_plugins()
    file.write_text("1 / 0\n")
    plugins.import_again([plugin])
    forget_plugins()
    file.unlink()
    plugins.import_again([plugin])
    assert "cautious" in LEARNING_RULES
    assert plugins.list_plugins() == (plugin,)


def test_help_and_the_package_load_no_plugin_code():
    code = "import fcfn_abm, sys; print('importlib.metadata' in sys.modules, *sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "fcfn_abm.plugins" not in out.stdout


NODES = """
from fcfn_abm.abm import EdgeNode

class Constant(EdgeNode):
    def choose_epsilon(self, seen):
        return 0.25

number = 3
"""
WITH_NODES = """
imports = ["mine.py"]
rounds = { maximum = 3 }
population = { n_nodes = 6, groups = [
  { name = "few", n_nodes = 2, node_class = "mine.py:Constant" }, { name = "rest" } ] }
"""


def test_a_scenario_names_a_class_of_nodes_and_runs_it_only_where_it_is_trusted():
    write("mine.py", NODES)
    Path("market.toml").write_text(WITH_NODES)
    with pytest.raises(InvalidScenarioError, match=r"names code, 'mine\.py', which runs"):
        fa.load_scenario("market.toml")
    record = fa.run_scenario(fa.load_scenario("market.toml", trust=True), "record")
    assert (record.nodes["epsilon"] == 0.25).tolist() == [True, True, False, False, False, False]
    forget_plugins()
    assert fa.read_record("record").nodes["epsilon"].tolist() == record.nodes["epsilon"].tolist()
    with pytest.raises(InvalidScenarioError, match=r"needs the plug-in mine\.py to be imported"):
        fa.run_scenario(fa.read_record("record").scenario)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mine.py:Missing", "the plug-in mine.py has no 'Missing'"),
        ("mine.py:number", "mine.py:number is not a class"),
        ("os:system", "needs the plug-in os to be imported, and is not; name it in imports"),
        ("mine.py", "should match pattern"),
    ],
)
def test_a_class_of_nodes_is_one_of_an_imported_plugin(name, says):
    write("mine.py", NODES)
    Path("market.toml").write_text(f'imports = ["mine.py"]\n[population]\nnode_class = "{name}"\n')
    with pytest.raises(InvalidScenarioError, match=says):
        fa.load_scenario("market.toml", trust=True)


def test_a_name_that_two_imported_files_have_is_refused():
    for folder in ("a", "b"):
        Path(folder).mkdir()
        write(f"{folder}/mine.py", f"{NODES}# {folder}")
        fa.import_plugin(f"{folder}/mine.py")
    with pytest.raises(PluginError, match="and 2 of that name are"):
        plugins.find_object("mine.py:Constant")
