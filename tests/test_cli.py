"""The command line as a user meets it: in a process of its own."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import warm
from dask_on_loopback import wait_for

import fcfn_abm as fa

pytestmark = pytest.mark.slow

QUICKSTART = Path("scenarios/quickstart.toml").resolve()
LOCAL = Path("scenarios/privacy/quickstart-local.toml").resolve()
SHORT = ["--set", "training.rounds=2", "--set", "training.compare=['no-noise', 'random']"]


def fcfn(*args, cwd=None, **kwargs):
    return warm.run("fcfn", *map(str, args), cwd=cwd, **kwargs)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The quick start in the local view, with two rounds of training."""
    out = tmp_path_factory.mktemp("run") / "record"
    return fcfn("run", LOCAL, "--out", out, *SHORT), out


def test_the_main_job_prints_a_summary_and_where_the_record_lies(run):
    done, out = run
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for words in ("converged after", "tau/(n-1)", "payment cap B", "accuracy", str(out)):
        assert words in done.stdout
    assert "Quick start" in done.stdout


def test_the_main_job_writes_the_whole_record(run):
    _, out = run
    assert sorted(p.name for p in out.iterdir()) == [
        "SHA256SUMS",
        "figures",
        "ledger.parquet",
        "nodes.parquet",
        "rounds.parquet",
        "run.json",
        "scenario.toml",
        "traces.parquet",
        "training.parquet",
    ]
    for figure in ("convergence", "rho_epsilon", "accuracy"):
        image = (out / "figures" / f"{figure}.png").read_bytes()
        assert image.startswith(b"\x89PNG")
        assert len(image) > 20_000
    record = fa.read_record(out)
    assert record.run["verdict"]["kind"] == "converged"
    assert record.run["market"]["distance"] < 1e-8
    assert set(record.training["arm"]) == {"stackelberg", "no-noise", "random"}
    assert (record.nodes["active"] == (record.nodes["equilibrium_epsilon"] > 0)).all()
    left = record.nodes[~record.nodes["active"]]
    assert (left["rho"] >= record.run["equilibrium"]["threshold"]).all()
    assert record.nodes["exit_round"].isna().equals(record.nodes["active"])
    assert (record.nodes.loc[record.nodes["active"], "utility"] > 0).all()


def test_a_second_run_gives_the_same_bytes_and_never_replaces_the_first(run, tmp_path):
    _, out = run
    again = fcfn("run", LOCAL, "--out", tmp_path / "again", *SHORT)
    assert again.returncode == 0
    for name in ("rounds", "nodes", "traces", "training", "ledger"):
        assert (tmp_path / "again" / f"{name}.parquet").read_bytes() == (
            out / f"{name}.parquet"
        ).read_bytes()
    refused = fcfn("run", LOCAL, "--out", out, *SHORT)
    assert refused.returncode == 2
    assert "already contains results" in refused.stderr


def test_the_resolved_scenario_repeats_the_run(run, tmp_path):
    _, out = run
    again = fcfn("run", out / "scenario.toml", "--out", tmp_path / "again", "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["verdict"]["kind"] == "converged"
    pd.testing.assert_frame_equal(
        fa.read_record(tmp_path / "again").rounds, fa.read_record(out).rounds
    )


def test_equilibrium_prints_the_closed_form():
    done = fcfn("equilibrium", QUICKSTART, "--json")
    facts = json.loads(done.stdout)
    scenario = fa.load_scenario(QUICKSTART)
    form = fa.stackelberg_equilibrium(
        fa.PrivacyMarket(scenario).columns.rho, scenario.game.alpha, scenario.game.beta
    )
    assert facts["payment"] == pytest.approx(form.budget, rel=1e-12)
    assert facts["n_active"] == form.n_active
    text = fcfn("equilibrium", QUICKSTART, "--set", "game.alpha=1e-9").stdout
    assert "no trade" in text
    assert "eq. 52" not in text


def test_equilibrium_prints_the_bounds_of_the_paper():
    alike = ["population.n_nodes=100", "population.rho=constant", "population.rho.value=0.01"]
    alike += ["game.alpha=10", "game.beta=10"]
    settings = [part for override in alike for part in ("--set", override)]
    facts = json.loads(fcfn("equilibrium", QUICKSTART, *settings, "--json").stdout)
    budget = 10 - 100 * 1.0 / (10 * 99)  # (41) with alpha = beta = 10 and the sum of rho = 1
    assert facts["privacy_cost_ceiling"] == pytest.approx(10 * 10 / 100)
    assert facts["epsilon_ceiling_low"] == pytest.approx(budget / 0.01)
    assert facts["epsilon_ceiling_high"] == pytest.approx(budget / 0.01)
    text = fcfn("equilibrium", QUICKSTART, *settings).stdout
    assert (
        "No node with rho >= 1 takes part at any cap that pays off for the server (Zhou et al. "
        "2023, eq. 47).\nA node's epsilon stays below B/rho (eq. 52): 989.899."
    ) in text
    priced = fcfn("equilibrium", QUICKSTART, "--set", "mechanism=static", "--json").stdout
    assert "ceiling" not in priced


def test_compare_prints_a_table_and_writes_it_with_its_figure(tmp_path):
    done = fcfn("compare", QUICKSTART, "--replications", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    out = Path("results") / "quickstart-comparison"
    for words in ("3 populations of 50 nodes", "welfare", "noise multiplier", "±", str(out)):
        assert words in done.stdout
    for name in ("stackelberg", "ic-mle", "random", "static", "yang"):
        assert f"\n  {name} " in done.stdout
    image = (tmp_path / out / "figures" / "comparison.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    assert len(image) > 20_000
    again = fcfn("compare", QUICKSTART, "--replications", "1", cwd=tmp_path)
    assert again.returncode == 2
    assert "already contains results" in again.stderr
    options = ["--mechanisms", "random, stackelberg", "--set", "game.budget=2", "--overwrite"]
    third = fcfn("compare", QUICKSTART, *options, "--json", cwd=tmp_path)
    facts = json.loads(third.stdout)
    assert facts["mechanisms"] == ["random", "stackelberg"]
    assert facts["replications"] == 20
    assert facts["statistics"]["random"]["budget"]["mean"] == 2.0
    frame = pd.read_parquet(tmp_path / facts["path"] / "comparison.parquet")
    welfare = frame.groupby("mechanism")["welfare"].mean()
    assert facts["statistics"]["random"]["welfare"]["mean"] == pytest.approx(welfare["random"])


def test_scenarios_can_be_checked_listed_and_described(tmp_path):
    (tmp_path / "wrong.toml").write_text("[game]\nbudgte = 3")
    done = fcfn("scenarios", "check", QUICKSTART, tmp_path / "wrong.toml")
    assert done.returncode == 2
    assert done.stdout == f"{QUICKSTART}: ok\n"
    assert done.stderr.count("\n") == 1
    assert "Did you mean 'budget'?" in done.stderr
    assert json.loads(fcfn("scenarios", "schema").stdout)["title"] == "Scenario"
    listed = fcfn("scenarios", "list", QUICKSTART.parent).stdout
    assert "quickstart.toml" in listed
    assert "Quick start" in listed
    (tmp_path / "good.toml").write_text("title = 'A good one'")
    (tmp_path / "worse.toml").write_text("[game\n")
    listed = fcfn("scenarios", "list", tmp_path)
    assert listed.returncode == 0
    assert "A good one" in listed.stdout
    assert "worse.toml  (invalid TOML" in listed.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "missing.toml"], "missing.toml: there is no such file"),
        (["run", QUICKSTART, "--set", "population.n_nodes=1"], "[population] n_nodes"),
        (["run", QUICKSTART, "--set", "game.alpha"], "must look like game.alpha=20"),
        (
            ["run", QUICKSTART, "--out", "file/record"],
            "cannot be written: a file is in the place",
        ),
        (["run", QUICKSTART, "--out", "/proc/nowhere/record"], "nowhere/record: cannot be written"),
        (["run", QUICKSTART, "--out", "file"], "file: exists and is not a record"),
        (["run", QUICKSTART, "--set", "population.n_nodes=5000"], "too few for 5000 nodes"),
        (["equilibrium", "wrong.toml"], "wrong.toml: invalid TOML"),
        (["compare", QUICKSTART, "--mechanisms", "statc"], "Did you mean 'static'?"),
        (["compare", QUICKSTART, "--mechanisms", ","], "mechanisms must contain at least one name"),
        (
            ["compare", QUICKSTART, "--replications", 0],
            "replications must be a whole number from 1 to 10,000, but is 0",
        ),
        (["compare", QUICKSTART, "--out", "file"], "file: exists and is not a record"),
        (["scenarios", "list", "nowhere"], "nowhere: contains no scenario files"),
        (["run"], "Missing argument"),
        (["rnu"], "No such command"),
        (["run", QUICKSTART, "--owt", "x"], "No such option"),
        (["run", QUICKSTART, "--set", "population.rho.kind=listed"], "values: is required"),
    ],
)
def test_a_mistake_gets_exit_code_2_a_sentence_and_no_traceback(args, words, tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "wrong.toml").write_text("[game")
    before = sorted(p.name for p in tmp_path.iterdir())
    done = fcfn(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "results") == before
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("command", "endless"),
    [
        ("run", ["--set", "training.rounds=100000"]),
        ("compare", ["--replications", "10000", "--set", "population.n_nodes=20000"]),
    ],
)
def test_an_interrupted_run_ends_with_130_and_leaves_nothing(command, endless, tmp_path):
    started = subprocess.Popen(
        [sys.executable, "-m", "fcfn_abm", command, str(QUICKSTART), "--out", "record", *endless],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: list(tmp_path.glob(".record.partial-*")))
    time.sleep(1.0)  # well inside
    started.send_signal(signal.SIGINT)
    _, stderr = started.communicate(timeout=300)
    assert started.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


NOTED = """
from pathlib import Path
from fcfn_abm.mechanisms import MECHANISMS

@MECHANISMS.register("noted")
class Noted(MECHANISMS["static"]):
    def outcome(self, game, rng):
        Path("begun").touch()
        return super().outcome(game, rng)
"""


def test_an_interrupted_check_of_a_mechanism_ends_with_130(tmp_path):
    (tmp_path / "noted.py").write_text(NOTED)
    options = ["noted", "--import", "noted.py", "--games", "1000000"]
    started = subprocess.Popen(
        [sys.executable, "-m", "fcfn_abm", "check-mechanism", *options],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((tmp_path / "begun").exists)
    started.send_signal(signal.SIGINT)
    stdout, stderr = started.communicate(timeout=300)
    assert started.returncode == 130
    assert stderr == "fcfn: interrupted; no results were kept.\n"
    assert stdout == ""


def test_help_and_version():
    text = " ".join(fcfn("--help").stdout.split())
    assert (
        "replicate Reproduce figures of Zhou et al. 2023 and write a ledger of its claims." in text
    )
    assert "..." not in text.partition("Commands:")[2]
    assert fcfn("--version").stdout.strip() == f"fcfn {fa.__version__}"


def test_an_interrupt_inside_executed_text_ends_with_130_too(tmp_path):
    (tmp_path / "interrupted.py").write_text(  # only python -m ends as CPython's mark says
        "import sys; sys.argv = ['fcfn', 'scenarios', 'schema']\n"
        "from fcfn_abm import build, cli\n"
        "build.scenario_schema = lambda: exec('raise KeyboardInterrupt')\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "interrupted" in done.stderr


def test_the_record_holds_what_every_node_has_spent(run):
    _, out = run
    record = fa.read_record(out)
    nodes = record.nodes[record.nodes["active"]]
    privacy, n_rounds = record.scenario.privacy, record.scenario.training.rounds
    assert (privacy.horizon, n_rounds) == ("training", 2)
    # one local step a round: T releases with multiplier z are one with z / sqrt(T)
    z = nodes["noise_multiplier"].to_numpy()
    total = fa.gaussian_epsilon(z / n_rounds**0.5, privacy.delta)
    assert nodes["epsilon_total"].to_numpy() == pytest.approx(total, rel=1e-9)
    assert total == pytest.approx(nodes["epsilon"].to_numpy(), rel=1e-6)
    once = fa.gaussian_epsilon(z, privacy.delta)
    assert nodes["epsilon_per_round"].to_numpy() == pytest.approx(once, rel=1e-9)
    assert (once < 0.8 * total).all()
    sensitivity = 2 * privacy.clipping_norm / nodes["n_samples"].to_numpy()
    assert nodes["noise_std"].to_numpy() == pytest.approx(z * sensitivity, rel=1e-9)
    out_of_it = record.nodes[~record.nodes["active"]]
    assert (out_of_it["epsilon_total"] == 0).all()


def test_the_ledger_of_a_record_tells_it_round_by_round_in_both_views(run):
    done, out = run
    record = fa.read_record(out)
    nodes = record.nodes[record.nodes["active"]]
    delta = record.scenario.privacy.delta
    rounds = {index: frame.set_index("node") for index, frame in record.ledger.groupby("round")}
    assert sorted(rounds) == [1, 2]
    for index, frame in rounds.items():
        assert list(frame.index) == list(nodes["node"])  # who stayed out has spent nothing
        z = nodes["noise_multiplier"].to_numpy()
        total = fa.gaussian_epsilon(z / index**0.5, delta)
        assert frame["epsilon_total"].to_numpy() == pytest.approx(total, rel=1e-9)
        assert frame["epsilon_round"].to_numpy() == pytest.approx(
            nodes["epsilon_per_round"].to_numpy(), rel=1e-12
        )
        # the weighted sum of all: its noise against what one record can move in it
        assert record.scenario.training.aggregation.kind == "inverse-variance"
        std = nodes["noise_std"].to_numpy()
        weights = std**-2 / (std**-2).sum()
        noise = ((weights * std) ** 2).sum() ** 0.5 / index**0.5
        central = fa.gaussian_epsilon(noise, delta, weights * std / z)
        assert frame["epsilon_central"].to_numpy() == pytest.approx(central, rel=1e-9)
    for name in ("epsilon_total", "epsilon_central"):
        assert list(rounds[2][name]) == pytest.approx(list(nodes[name]), rel=1e-12)
        assert (record.nodes.loc[~record.nodes["active"], name] == 0).all()
    for words in (
        "epsilon, one round, for an observer of a node's messages",
        "epsilon, total of 2 rounds, for an observer of a node's messages",
        "epsilon, total, from the server's view",
        "under secure aggregation",
        "research output, not a release mechanism",
    ):
        assert words in done.stdout
    assert "not a release mechanism" in record.run["training"]["noise_note"]


def test_what_is_not_proven_stands_in_the_summary(tmp_path):
    done = fcfn(
        "run", LOCAL, "--out", tmp_path / "record", *SHORT[:2],
        "--set", "training.compare=[]",
        "--set", "population.rho.median=0.002",  # so low that epsilon is far above what is proven
        "--set", "training.local_epochs=2",
        "--set", "privacy.placement.kind=paper",
        "--set", "privacy.calibration=classical",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in (
        "steps: its epsilon is a heuristic, not a guarantee",
        "proven only below epsilon = 1",
        ", which is no guarantee",
    ):
        assert words in done.stdout
    record = fa.read_record(tmp_path / "record")
    epsilon, delta = record.nodes["epsilon"].max(), record.scenario.privacy.delta
    sigma = fa.gaussian_sigma(epsilon, delta, calibration="classical")
    assert f"has epsilon = {fa.gaussian_epsilon(sigma, delta):.3g} at" in done.stdout


def test_sampled_steps_and_several_releases_go_all_the_way(tmp_path):
    done = fcfn(
        "run", LOCAL, "--out", tmp_path / "record", *SHORT[:2],
        "--set", "training.compare=[]",
        "--set", "training.local_epochs=2",
        "--set", "privacy.placement.sampling_rate=0.3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words = "There is no claim for secure aggregation if nodes add noise several times per round"
    assert words in done.stdout
    record = fa.read_record(tmp_path / "record")
    nodes = record.nodes[record.nodes["active"]]
    assert record.scenario.privacy.placement.options == {"sampling_rate": 0.3}
    assert list(nodes["epsilon_total"]) == pytest.approx(list(nodes["epsilon"]), rel=1e-6)
    assert list(nodes["epsilon_central"]) == pytest.approx(list(nodes["epsilon_total"]), rel=1e-9)
    last = record.ledger[record.ledger["round"] == 2]
    assert list(last["epsilon_total"]) == pytest.approx(list(nodes["epsilon"]), rel=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "a" * 300],
        ["run", "quickstart", "--out", "a" * 300],
        ["sweep", "quickstart", "--out", "a" * 300],
        ["run", "quickstart", "--set", f"seed={'9' * 5000}"],
        ["run", "digits.toml"],
        ["run", "null.toml"],
    ],
)
def test_names_and_numbers_that_are_too_long_are_refused(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.toml").write_text(f"seed = {'9' * 5000}")
    (tmp_path / "null.toml").write_text('extends = "a\\u0000b"')
    done = fcfn(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("fcfn: ")
    assert done.stderr.count("\n") == 1


def test_a_folder_with_somebody_elses_run_json_is_not_replaced(tmp_path):
    theirs = tmp_path / "theirs"
    (theirs / "sub").mkdir(parents=True)
    (theirs / "run.json").write_text('{"my": 1}')
    (theirs / "sub" / "thesis.txt").write_text("years of work")
    done = fcfn("run", "quickstart", "--out", str(theirs), "--overwrite")
    assert done.returncode == 2
    assert "is not a record" in done.stderr
    assert (theirs / "sub" / "thesis.txt").read_text() == "years of work"
