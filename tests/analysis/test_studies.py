"""The study library: what it says is true, and its notebooks run."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import warm
from nbclient import NotebookClient
from numpy.testing import assert_allclose
from scipy import stats
from typer.testing import CliRunner

import fcfn_abm as fa
from fcfn_abm.cli import app
from fcfn_abm.population.distributions import RHO_DISTRIBUTIONS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "analysis" / "studies"
SCENARIOS = ROOT / "scenarios" / "heterogeneity"

REDUCED = {  # what makes a study small enough to run here; others get a single replication
    "dispersion": ["population.n_nodes=40", "sweep.replications=2"],
    "dispersion_accuracy": [
        "sweep.replications=2",
        "sweep.axes={'population.rho.sigma' = [0.01, 1.0]}",
        "population.n_nodes=8",
        "training.rounds=2",
    ],
    "outliers": [
        "sweep.replications=2",
        "sweep.axes={'population.rho.share' = [0.02, 0.1], "
        "'population.rho.factor' = [0.25, 0.99, 4.0]}",
    ],
    "population_size": [
        "sweep.replications=2",
        "sweep.axes={'population.rho' = [{kind = 'uniform', low = 0.005, high = 0.015}, "
        "{kind = 'pareto', minimum = 0.0067, exponent = 3.0}, "
        "{kind = 'lognormal', median = 0.0096, sigma = 0.3}], "
        "'population.n_nodes' = [10, 100, 1000]}",
    ],
    "server_value": [
        "sweep.replications=1",
        "sweep.axes={'game.average_over' = ['active', 'population'], "
        "'game.alpha' = [0.01, 1.0, 100.0], 'game.beta' = [0.01, 0.1, 10.0, 100.0]}",
        "population.n_nodes=10",
    ],
    "noisy_information": [
        "sweep.replications=2",
        "rounds.maximum=20",
        "population.n_nodes=5",
        "sweep.axes={'population.rho' = [{kind = 'constant'}, {kind = 'uniform'}], "
        "'information.noise' = [0.01, 0.5], 'learning' = [{kind = 'best-response', gain = 1.0}, "
        "{kind = 'best-response', gain = 0.5}, 'estimate']}",
    ],
    "order_and_damping": [
        "sweep.replications=1",
        "rounds.maximum=60",
        "sweep.axes={'rounds.order' = ['in_turn', 'simultaneous'], "
        "'learning.gain' = [0.5, 1.0], 'population.n_nodes' = [2, 3, 9]}",
    ],
    "data_heterogeneity": [
        "sweep.replications=2",
        "sweep.axes={'population.rho.coupling' = [0.0, 1.0], "
        "'training.partition.dirichlet_alpha' = [0.3, 10.0]}",
        "population.n_nodes=8",
        "training.rounds=2",
    ],
    "free_riders": [
        "sweep.replications=1",
        "sweep.axes={'game.budget' = [0.1, 1.0], 'population.misreport.share' = [0.1], "
        "'population.misreport.factor' = [1.5, 4.0]}",
        "training.rounds=2",
    ],
    "mechanisms": [
        "sweep.replications=2",
        "sweep.axes={'mechanism.kind' = ['stackelberg', 'random', 'static', 'ic-mle', 'yang'], "
        "'population.rho' = [{kind = 'lognormal', median = 0.01, sigma = 1.0}], "
        "'population.n_nodes' = [5, 10], 'game.alpha' = [10.0]}",
    ],
    "manipulation": [
        "sweep.replications=2",
        "sweep.axes={'population.coalitions.size' = [2, 3], 'mechanism' = "
        "[{kind = 'stackelberg'}, {kind = 'static'}, {kind = 'fair-query'}]}",
        "population.n_nodes=6",
    ],
    "closed_loop": [
        "sweep.replications=1",
        "sweep.axes={'training.partition.dirichlet_alpha' = [100.0], "
        "'population.rho' = [{kind = 'uniform', low = 0.15, high = 0.25}], "
        "'mechanism' = ['stackelberg'], 'value.frozen' = [false, true]}",
        "population.n_nodes=8",
        "training.rounds=12",
        "rounds.maximum=12",
    ],
    "sensitivity": ["sweep.n_samples=8"],
    "unequal_pair": [
        "sweep.replications=1",
        "rounds.maximum=60",
        "sweep.axes={'rounds.order' = ['in_turn', 'simultaneous'], "
        "'learning.cautious' = [false, true], "
        "'learning.gain' = [0.5, 1.0], 'population.rho.high' = [0.02, 0.1]}",
    ],
    "mixed_rules": [
        "sweep.replications=1",
        "rounds.maximum=40",
        "population.n_nodes=12",
        "sweep.axes={'population.groups.others.share' = [0.0, 0.25, 0.5], "
        "'population.groups.others.learning' = ['replicator', 'gradient', 'fictitious-play']}",
    ],
    "churn": [
        "sweep.replications=1",
        "rounds.maximum=20",
        "population.n_nodes=10",
        "sweep.axes={'population.churn.departures' = [0.01, 0.1], "
        "'population.churn.drift' = [0.0, 0.1], 'learning' = [{kind = 'best-response', "
        "gain = 0.5}, {kind = 'best-response', gain = 1.0}, 'fictitious-play', "
        "{kind = 'estimate', window = 50}, {kind = 'estimate', window = 1}, 'aggregate']}",
    ],
}


def module(name):
    spec = importlib.util.spec_from_file_location(f"studies_{name}", STUDIES / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found  # dataclasses look their module up
    spec.loader.exec_module(found)
    return found


common, notebooks = module("common"), module("notebooks")
NAMES = [path.stem for path in notebooks.scripts()]


@pytest.mark.parametrize("name", NAMES)
def test_every_study_has_a_scenario_with_a_purpose_and_its_commands(name):
    text = (SCENARIOS / f"{name}.toml").read_text()
    purpose = [line for line in text.splitlines() if line.startswith("# ")]
    assert sum(map(len, purpose)) > 300
    assert f"#   fcfn sweep scenarios/heterogeneity/{name}.toml" in text
    assert f"#   python analysis/studies/{name}.py" in text
    assert tomllib.loads(text)["sweep"]["axes"]


@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_is_in_step_with_its_script_and_executed_whole_or_not_at_all(name):
    path = STUDIES / f"{name}.ipynb"
    assert notebooks.is_in_step(path, notebooks.notebook_of(STUDIES / f"{name}.py")), (
        "run: python analysis/studies/notebooks.py"
    )
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in cells]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert counts in (list(range(1, len(cells) + 1)), [None] * len(cells))
    assert bool(outputs) == (counts[0] is not None)
    assert not [output for output in outputs if output["output_type"] in ("error", "stream")]


def test_a_changed_script_is_out_of_step_and_outputs_are_not(tmp_path):
    script = STUDIES / f"{NAMES[0]}.py"
    notebook = notebooks.notebook_of(script)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text="done")], 1
    nbformat.write(notebook, tmp_path / "a.ipynb")
    assert notebooks.is_in_step(tmp_path / "a.ipynb", notebooks.notebook_of(script))
    cell.source += "\n1"
    nbformat.write(notebook, tmp_path / "a.ipynb")
    assert not notebooks.is_in_step(tmp_path / "a.ipynb", notebooks.notebook_of(script))


def options_of(name, out):
    sets = " ".join(f'--set "{s}"' for s in REDUCED.get(name, ["sweep.replications=1"]))
    return f"--out {out} --workers 1 {sets}"


def smaller(code, name, out):
    """Return a study's code with less to run; without it the code begins a study once."""
    begin = f'begin("{name}")'
    assert code.count(begin) == 1
    return code.replace(begin, f"begin({name!r}, {options_of(name, out)!r})")


def assert_written(folder):
    assert re.search(r"\d", (folder / "findings.md").read_text())
    assert {path.suffix for path in folder.iterdir()} == {".md", ".png", ".svg"}


def run_here(command, **_):
    """Carry out a sweep in this process, which has everything imported."""
    assert command[1:3] == ["-m", "fcfn_abm"]
    ended = CliRunner().invoke(app, [str(word) for word in command[3:]])
    assert ended.exit_code == 0, ended.output
    return SimpleNamespace(returncode=0)


@pytest.mark.parametrize("name", NAMES)
def test_every_study_runs_and_writes_figures_and_findings(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(STUDIES)
    monkeypatch.setitem(sys.modules, "common", common)
    here = SimpleNamespace(run=run_here, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(common, "subprocess", here)
    script = STUDIES / f"{name}.py"  # its notebook has the same code: see the test of steps
    code = smaller(script.read_text(encoding="utf-8"), name, tmp_path)
    exec(compile(code, script, "exec"), {"__name__": "__main__"})
    assert_written(tmp_path / f"{name}-study")


def test_a_notebook_runs_in_jupyter_and_shows_its_figures_and_findings(tmp_path):
    name = "outliers"
    notebook = nbformat.read(STUDIES / f"{name}.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if cell.source.startswith("study = begin(")]
    cell.source = smaller(cell.source, name, tmp_path)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": STUDIES}}).execute()
    assert_written(tmp_path / f"{name}-study")
    shown = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "data" in o]
    assert any("image/png" in output["data"] for output in shown)
    assert any("text/markdown" in output["data"] for output in shown)


def test_a_mistake_on_the_command_line_of_a_study_gets_one_sentence():
    script = str(STUDIES / "outliers.py")
    ended = warm.run("python", script, "--set", "population.n_nodse=3")
    assert ended.returncode == 2
    assert "n_nodes" in ended.stderr
    assert "Traceback" not in ended.stderr


def axis(name, path):
    return tomllib.loads((SCENARIOS / f"{name}.toml").read_text())["sweep"]["axes"][path]


@pytest.mark.parametrize("law", axis("dispersion", "population.rho"), ids=str)
def test_the_distributions_of_the_study_of_dispersion_have_equal_means_and_variations(law):
    options = {key: value for key, value in law.items() if key != "kind"}
    n_nodes = 400_000
    rho = RHO_DISTRIBUTIONS[law["kind"]](**options).draw(n_nodes, np.random.default_rng(1))
    if law["kind"] == "pareto" and law["exponent"] < 4:  # no fourth moment: no sample tells
        pareto = stats.pareto(law["exponent"], scale=law["minimum"])
        mean, deviation = pareto.mean(), pareto.std()
    else:
        mean, deviation = rho.mean(), rho.std()
    meant = np.array([0.01, 0.03, 0.1, 0.5, 0.9]) / np.sqrt(3)
    meant = np.append(meant, np.sqrt(np.e - 1))
    assert_allclose(mean, 0.01, rtol=0.02)
    assert np.abs(deviation / mean / meant - 1).min() < 0.03


@pytest.mark.parametrize("n_nodes", [10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("law", ["uniform", "pareto"])
def test_with_a_firm_lower_end_the_active_set_grows_like_the_square_root(law, n_nodes):
    rng = np.random.default_rng(2)
    if law == "uniform":
        rho, a, density = rng.uniform(0.5, 1.5, n_nodes), 0.5, 1.0
    else:
        rho, a, density = 1 + rng.pareto(3.0, n_nodes), 1.0, 3.0
    n_active = fa.nash_equilibrium(rho, 1.0).n_active
    assert_allclose(n_active, np.sqrt(2 * n_nodes * a * density), rtol=0.1)


@pytest.mark.parametrize("k", [2, 5, 10])
def test_ordinary_nodes_stay_beside_k_cheap_ones_from_one_minus_one_over_k_on(k):
    def n_active(factor):
        return fa.nash_equilibrium([factor] * k + [1.0] * 90, 1.0).n_active

    assert n_active(1 - 1 / k - 1e-6) == k
    assert n_active(1 - 1 / k + 1e-6) == k + 90


def settles(step, at, order):
    """Say whether a small error shrinks: the spectral radius of a round, by differences."""
    n, h = len(at), 1e-7

    def after(epsilon):
        epsilon, before = epsilon.copy(), epsilon
        for i in range(n):
            seen = before if order == "simultaneous" else epsilon
            epsilon[i] = step(i, before[i], seen.sum() - seen[i])
        return epsilon

    columns = [(after(at + h * row) - after(at - h * row)) / (2 * h) for row in np.eye(n)]
    return np.abs(np.linalg.eigvals(np.array(columns).T)).max() < 1


def best_response_round(rho, gain):
    def step(i, own, others):
        return own + gain * (fa.best_response(rho[i], others, 1.0) - own)

    return step


@pytest.mark.parametrize("n", [3, 5, 12, 24])
def test_all_at_once_equal_nodes_settle_below_a_gain_of_four_over_n(n):
    rho = np.ones(n)
    rest = fa.nash_equilibrium(rho, 1.0).epsilon
    for gain, stable in ((3.96 / n, True), (4.04 / n, False)):
        assert settles(best_response_round(rho, gain), rest, "simultaneous") == stable
    assert settles(best_response_round(rho, 1.0), rest, "in_turn")


@pytest.mark.parametrize("ratio", [8.0, 20.0, 60.0])
@pytest.mark.parametrize("order", ["in_turn", "simultaneous"])
def test_an_unequal_pair_settles_below_the_gain_that_the_study_says(ratio, order):
    p = (ratio - 1) ** 2 / (4 * ratio)
    border = 2 / (1 + (np.sqrt(p) if order == "in_turn" else p))
    rho = np.array([1.0, ratio])
    rest = fa.nash_equilibrium(rho, 1.0).epsilon
    assert settles(best_response_round(rho, 0.99 * border), rest, order)
    assert not settles(best_response_round(rho, 1.01 * border), rest, order)


def test_intervals_are_students():
    values = pd.Series([1.0, 2.0, 4.0, 8.0])
    low, high = stats.t.interval(0.95, 3, loc=values.mean(), scale=values.std() / 2)
    assert_allclose(common.band(values), (low, high))
    assert np.isnan(common.half_interval(values[:1]))


def test_a_summary_has_a_row_a_point_in_the_order_of_the_runs():
    frame = pd.DataFrame({"law": ["b", "b", "a"], "count": [1.0, 3.0, 5.0]})
    found = common.summary(frame, "law", ["count"])
    assert found["law"].tolist() == ["b", "a"]
    assert found["n"].tolist() == [2, 1]
    assert found["count"].tolist() == [2.0, 5.0]


def test_numbers_are_written_without_exponents_where_people_can_do_without():
    assert common.number(2587.3) == "2,590"
    assert common.number(0.01234) == "0.0123"
    assert common.format_range(pd.Series([1.0, 2587.3])) == "1 to 2,590"
    assert common.format_range(pd.Series([3.0, 3.0])) == "3"
