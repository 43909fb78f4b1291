"""Every command with a plug-in: what is allowed runs, and what is not leaves no trace."""

import json
import subprocess
from pathlib import Path

import pytest
import warm
from plugins_of_tests import MARKET, RULE, forget_plugins, total_epsilon
from typer.testing import CliRunner

import fcfn_abm as fa
from fcfn_abm.cli import app
from fcfn_abm.viz.session import OpenedSource, Session, open_source

pytestmark = pytest.mark.slow

TRAINING = """
from torch import nn
from fcfn_abm.training.nets import NETS, Net

@NETS.register("one-layer")
class OneLayer(Net):
    def build(self, shape, n_classes):
        n_pixels = shape[0] * shape[1] * shape[2]
        return nn.Sequential(nn.Flatten(), nn.Linear(n_pixels, n_classes))
"""
MECHANISM = """
import numpy as np
from fcfn_abm.mechanisms import MECHANISMS, Claims, Contracts, Mechanism
from fcfn_abm.mechanisms.base import settle
from fcfn_abm.game import payments

@MECHANISMS.register("generous")
class Generous(Mechanism):
    claims = Claims(budget_balanced=True)
    factor: float = 1.0

    def outcome(self, game, rng):
        epsilon = np.full(game.rho.size, 1.0)
        return settle("generous", game, epsilon, self.factor * payments(epsilon, game.cap))

    def offer(self, game, rng):
        return Contracts(np.full(game.rho.size, 1.0))
"""
TRAINED = """
extends = "quickstart"
imports = ["net.py"]
training = { net = "one-layer", rounds = 2, compare = [] }
population = { n_nodes = 300 }
privacy = { delta = 1e-5 }
"""
SWEPT = '\n[sweep]\nreplications = 2\n[sweep.axes]\n"learning.margin" = [0.0, 0.2]\n'


@pytest.fixture(autouse=True)
def files(monkeypatch, tmp_path):
    """Plug-ins that leave a file behind when they run, and scenarios that name them."""
    monkeypatch.chdir(tmp_path)
    spy = f"open({str(tmp_path / 'ran')!r}, 'a').close()\n"
    for name, text in (("rule.py", RULE), ("net.py", TRAINING), ("mechanism.py", MECHANISM)):
        Path(name).write_text(spy + text)
    Path("market.toml").write_text('imports = ["rule.py"]\n' + MARKET)
    Path("swept.toml").write_text('imports = ["rule.py"]\n' + MARKET + SWEPT)
    Path("trained.toml").write_text(TRAINED)
    yield
    forget_plugins()


def fcfn(*args):
    """Run a command in a process of its own."""
    return warm.run("fcfn", *args)


COMMANDS = [
    ("run", "market.toml"),
    ("run", "market.toml", "--import", "mechanism.py"),
    ("equilibrium", "market.toml"),
    ("sweep", "swept.toml", "--workers", "2"),
    ("sweep", "swept.toml", "--dry-run"),
    ("sweep", "swept.toml", "--cluster", "local:2"),
    ("compare", "market.toml", "--replications", "2"),
    ("bench", "market.toml"),
    ("view", "market.toml", "--no-browser", "--port", "0"),
    ("calibrate", "trained.toml"),
    ("audit", "trained.toml"),
    ("odd", "market.toml"),
    ("scenarios", "check", "market.toml"),
    ("scenarios", "check", "swept.toml", "trained.toml"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_runs_code_that_a_scenario_alone_names(command, tmp_path):
    Path("mechanism.py").write_text(MECHANISM)  # allowed, where it is named
    done = CliRunner().invoke(app, list(command))
    assert done.exit_code == 2, done.output
    assert "imports: names code, '" in done.stderr
    assert "--trust" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "results").exists()


def test_every_command_that_takes_a_scenario_was_tried():
    takes = {
        name
        for name, command in _commands()
        if {"--trust"} <= {option for p in command.params for option in p.opts}
    }
    tried = {" ".join(c[:2]) if c[0] == "scenarios" else c[0] for c in COMMANDS}
    assert takes == tried
    loaders = {
        path.stem
        for path in Path(fa.__file__).parent.joinpath("cli").glob("*.py")
        if "load_scenario(" in (text := path.read_text()) or "open_sources(" in text
    }
    files = {"sweep": "many", "compare": "many"}  # two commands share a file
    assert {files.get(name, name.split()[0]) for name in takes} == loaders


def _commands():
    import typer.main

    for name, command in typer.main.get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        else:
            yield from ((f"{name} {sub}", c) for sub, c in inner.items())


def test_listing_scenarios_runs_nothing(tmp_path):
    assert CliRunner().invoke(app, ["scenarios", "list", "."]).exit_code == 0
    assert not (tmp_path / "ran").exists()


def test_the_window_runs_nothing_that_a_browser_sends(tmp_path):
    scenario = fa.load_scenario("quickstart", ["training.enabled=false"])
    views = []
    session = Session(OpenedSource("market", scenario), views.append)
    session._try(session._open)
    session.handle("set", "imports", ["rule.py"])
    session.handle("set", "learning.kind", "cautious")
    session.show()
    assert "no learning rule called 'cautious'" in views[-1].rejected["learning.kind"]
    assert not (tmp_path / "ran").exists()


def test_the_window_plays_a_market_that_the_user_trusts():
    opened = open_source(Path("market.toml"), trust=True)
    views = []
    session = Session(opened, views.append)
    session._try(session._open)
    for _ in range(60):
        session.handle("step")
    session.show()
    (earned,) = (t["value"] for t in views[-1].tiles if t["label"] == "Utility of all nodes")
    assert float(earned) == pytest.approx(50 - total_epsilon(), abs=0.01)
    settings = json.dumps(views[-1].groups)
    assert "learning.margin" in settings
    assert "imports" not in settings


@pytest.mark.parametrize("allow", [["--trust"], ["--import", "rule.py"]], ids=" ".join)
def test_a_market_of_a_plugin_is_run_and_its_record_names_it(allow):
    done = fcfn("run", "market.toml", "--json", *allow)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["market"]["total_epsilon"] == pytest.approx(total_epsilon())
    digest = subprocess.run(["sha256sum", "rule.py"], capture_output=True, text=True, check=True)
    sha256 = digest.stdout.split()[0]
    assert run["plugins"] == [{"name": "rule.py", "version": None, "sha256": sha256}]


def test_the_record_is_read_shown_and_reported_without_its_plugin():
    assert fcfn("run", "market.toml", "--trust").returncode == 0
    Path("rule.py").unlink()
    record = fa.read_record("results/market")
    assert record.rounds["total_epsilon"].iloc[-1] == pytest.approx(total_epsilon())
    assert open_source(Path("results/market")).record is not None
    assert fcfn("report", "results/market").returncode == 0
    page = Path("results/market/report.html").read_text()
    assert record.run["plugins"][0]["sha256"] in page


def test_the_scenario_of_a_record_runs_again_with_its_file():
    assert fcfn("run", "market.toml", "--trust").returncode == 0
    again = fcfn("run", "results/market/scenario.toml", "--import", "rule.py", "--out", "again")
    assert again.returncode == 0, again.stderr
    for name in ("rounds.parquet", "nodes.parquet", "scenario.toml"):
        assert Path("again", name).read_bytes() == Path("results/market", name).read_bytes()
    lost = fcfn("run", "results/market/scenario.toml", "--trust", "--out", "lost")
    assert lost.returncode == 2
    assert "rule.py: there is no such file" in lost.stderr


def test_code_that_a_scenario_does_not_name_can_be_added():
    Path("plain.toml").write_text(MARKET)
    assert fcfn("scenarios", "check", "plain.toml").returncode == 2
    assert fcfn("scenarios", "check", "plain.toml", "--trust").returncode == 2
    done = fcfn("scenarios", "check", "plain.toml", "market.toml", "--import", "rule.py")
    assert (done.returncode, done.stdout) == (0, "plain.toml: ok\nmarket.toml: ok\n")


def test_the_schema_has_the_options_of_plugins():
    options = []
    for more in ([], ["--import", "rule.py"]):
        schema = json.loads(fcfn("scenarios", "schema", *more).stdout)
        kinds = [k["properties"] for k in schema["properties"]["learning"]["oneOf"][1:]]
        options.append({properties["kind"]["const"]: properties for properties in kinds})
    assert set(options[1]) - set(options[0]) == {"cautious"}
    assert options[1]["cautious"]["margin"]["exclusiveMaximum"] == 1


def test_a_mechanism_of_a_plugin_is_compared_and_checked():
    done = fcfn(
        *("compare", "quickstart", "--replications", "2", "--json", "--out", "c"),
        *("--mechanisms", "generous,static", "--import", "mechanism.py"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mechanisms"] == ["generous", "static"]
    kept = fcfn("check-mechanism", "generous", "--games", "20", "--import", "mechanism.py", "-q")
    assert kept.returncode == 0, kept.stdout + kept.stderr
    broken = fcfn(
        *("check-mechanism", "generous", "--games", "20", "--import", "mechanism.py", "-q"),
        *("--set", "mechanism.factor=2.0"),
    )
    assert broken.returncode == 1, broken.stdout + broken.stderr
    unknown = fcfn("check-mechanism", "generous", "--games", "20")
    assert unknown.returncode == 2
    assert "no mechanism called 'generous'" in unknown.stderr


def test_a_net_of_a_plugin_is_trained_calibrated_and_audited():
    run = fcfn("run", "trained.toml", "--trust", "--quiet", "--workers", "2")
    assert run.returncode == 0, run.stderr
    assert len(fa.read_record("results/trained").training) == 3
    calibrated = fcfn(
        *("calibrate", "trained.toml", "--trust", "--quiet"),
        *("--epsilons", "1,30,1000", "--seeds", "1", "--set", "population.n_nodes=20"),
    )
    assert calibrated.returncode == 0, calibrated.stderr
    facts = json.loads(Path("results/trained-calibration/run.json").read_text())
    assert facts["plugins"][0]["name"] == "net.py"
    audited = fcfn("audit", "trained.toml", "--import", "net.py", "--trials", "100", "--json")
    assert audited.returncode == 0, audited.stderr


@pytest.mark.parametrize("broken", ["1 / 0\n", RULE.replace('"cautious"', '"fixed"'), "x = = 1\n"])
def test_a_plugin_that_fails_is_one_sentence_and_exit_code_two(broken):
    Path("rule.py").write_text(broken)
    for allow in (["--trust"], ["--import", "rule.py"]):
        done = fcfn("run", "market.toml", *allow)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "rule.py: cannot be imported" in done.stderr


WORKERS = [["--workers", "1"], ["--workers", "2"], ["--cluster", "local:2"]]


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_a_sweep_is_the_same_in_processes_and_on_a_cluster():
    found = []
    for place, workers in enumerate(WORKERS):
        done = fcfn("sweep", "swept.toml", "--trust", "--out", f"sweep-{place}", *workers)
        assert done.returncode == 0, done.stderr
        assert "4 done" in done.stdout
        whole = contents(Path(f"sweep-{place}"))  # results of runs are grouped in other ways
        found.append({path: data for path, data in whole.items() if path.parts[0] != "runs"})
    assert found[0] == found[1] == found[2]
    fa.import_plugin("rule.py")
    frame = fa.read_sweep("sweep-1").frame()
    for margin, row in frame.groupby("learning.margin"):
        assert row["total_epsilon"].tolist() == pytest.approx([total_epsilon(margin)] * 2)


def test_a_sweep_without_its_plugin_names_it():
    assert fcfn("sweep", "swept.toml", "--trust", "--workers", "2").returncode == 0
    done = fcfn("report", "results/swept-sweep")
    assert done.returncode == 2
    assert "needs the plug-in rule.py (SHA-256 " in done.stderr
    assert done.stderr.count("\n") == 1
    assert fcfn("report", "results/swept-sweep", "--import", "rule.py").returncode == 0


def test_a_sweep_is_not_resumed_with_a_plugin_that_has_changed():
    assert fcfn("sweep", "swept.toml", "--trust", "--workers", "1").returncode == 0
    sorted(Path("results/swept-sweep/runs").glob("*.json"))[0].unlink()
    Path("rule.py").write_text(RULE + "# another\n")
    done = fcfn("sweep", "swept.toml", "--trust", "--workers", "1")
    assert done.returncode == 2
    assert "was started with rule.py SHA-256 " in done.stderr
