"""Calibration: known parameters come back, intervals cover, interrupted work goes on."""

import json
import os
from dataclasses import asdict

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import curve_fit
from tqdm import tqdm
from typer.testing import CliRunner

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.cli import app
from fcfn_abm.errors import InvalidGameError, InvalidScenarioError, OutputError, RunFailedError
from fcfn_abm.process.options import select_workers
from fcfn_abm.process.workers import Processes, count_cores
from fcfn_abm.records.tables import read_table
from fcfn_abm.report.calibrate import calibration_text, identification
from fcfn_abm.report.figures import calibration
from fcfn_abm.runs.calibrate import calibrate_value
from fcfn_abm.runs.run import run_scenario
from fcfn_abm.runs.value_fit import fit_value
from fcfn_abm.training import Training

pytestmark = pytest.mark.slow

QUICKSTART = "scenarios/quickstart.toml"
TINY = ["population.n_nodes=12", "training.rounds=4", "training.compare=[]"]
GRID = np.logspace(-1, 2, 8)


def law(epsilon, alpha, beta):
    return beta * np.log(1 + alpha * epsilon)


def measured(rng, alpha, beta, n_seeds, noise, seed_spread=0.0, grid=GRID):
    """Draw values with errors of their own, and one that all values of a seed share."""
    true = law(grid, alpha, beta)
    shared = 1 + seed_spread * rng.standard_normal((n_seeds, 1))
    return true * shared + noise * rng.standard_normal((n_seeds, grid.size))


@pytest.mark.parametrize("alpha", [0.05, 0.5, 20.0])
@pytest.mark.parametrize("beta", [1e-4, 3.0, 1e6])
def test_exact_values_give_the_parameters_back(alpha, beta):
    fit = fit_value(GRID, np.tile(law(GRID, alpha, beta), (2, 1)))
    assert (fit.alpha, fit.beta) == pytest.approx((alpha, beta), rel=1e-6)
    assert fit.identified == "both"
    assert fit.alpha_interval == pytest.approx((alpha, alpha), rel=1e-5)
    assert fit.r_squared == pytest.approx(1)


def test_the_estimates_are_those_of_plain_least_squares():
    values = measured(np.random.default_rng(4), 0.5, 2.0, 4, 0.3)
    fit = fit_value(GRID, values)
    (alpha, beta), _ = curve_fit(law, np.tile(GRID, 4), values.ravel(), p0=[0.3, 3.0])
    assert (fit.alpha, fit.beta) == pytest.approx((alpha, beta), rel=1e-4)
    left = values - law(GRID, alpha, beta)
    assert fit.r_squared == pytest.approx(1 - left.var() / values.var(), abs=1e-3)
    assert fit.residual_std == pytest.approx(np.sqrt((left**2).sum() / 30), rel=1e-6)


@pytest.mark.parametrize(("n_seeds", "seed_spread"), [(3, 0.0), (3, 0.1), (6, 0.2)])
def test_intervals_cover_the_truth_as_often_as_they_say(n_seeds, seed_spread):
    rng, n = np.random.default_rng(8), 300
    inside = np.zeros((n, 2))
    for i in range(n):
        fit = fit_value(GRID, measured(rng, 0.5, 0.2, n_seeds, 0.03, seed_spread))
        assert fit.identified == "both"
        for j, (true, (low, high)) in enumerate(
            [(0.5, fit.alpha_interval), (0.2, fit.beta_interval)]
        ):
            inside[i, j] = low <= true <= high
    # 95 % of 300, three standard errors of a share either way
    assert (abs(inside.mean(axis=0) - 0.95) < 0.038).all()


def fit_facts(fit, seeds=3):
    return {"fit": asdict(fit), "seeds": seeds}


def test_in_the_linear_regime_only_the_product_is_identified():
    rng = np.random.default_rng(2)
    fits = [fit_value(GRID, measured(rng, 1e-5, 2e3, 3, 0.05)) for _ in range(100)]
    linear = [fit for fit in fits if fit.identified == "product"]
    assert len(linear) >= 88  # a test at 5 %
    inside = [fit.limit_interval[0] <= 0.02 <= fit.limit_interval[1] for fit in linear]
    assert np.mean(inside) >= 0.88
    assert all(fit.alpha_interval is None and fit.beta_interval is None for fit in linear)
    text = identification(fit_facts(linear[0])).replace("\n", " ")
    assert "NOT identified separately" in text
    assert f"alpha * beta = {linear[0].limit:.4g} (" in text


def test_in_saturation_only_the_level_is_identified():
    rng = np.random.default_rng(2)
    fits = [fit_value(GRID, 0.7 + 0.05 * rng.standard_normal((3, 8))) for _ in range(100)]
    flat = [fit for fit in fits if fit.identified == "level"]
    assert len(flat) >= 88
    assert np.mean([fit.limit for fit in flat]) == pytest.approx(0.7, abs=0.005)
    assert "only its level" in identification(fit_facts(flat[0])).replace("\n", " ")


@pytest.mark.parametrize("middle", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("worth", [1e-12, 1e12])
@pytest.mark.filterwarnings("error")
def test_at_the_ends_of_what_is_allowed_the_fit_is_one_that_a_scenario_may_have(middle, worth):
    epsilon = middle * np.array([0.5, 0.8, 1.0, 1.2, 2.0])
    for shape in (np.ones(5), epsilon / middle, np.log1p(epsilon / middle)):
        fit = fit_value(epsilon, worth * np.stack([0.7 * shape, 0.71 * shape]))
        fa.scenario.schema.Game(alpha=fit.alpha, beta=fit.beta)
        assert np.isfinite([*fit(epsilon), fit.residual_std]).all()


def test_one_seed_gives_no_intervals():
    fit = fit_value(GRID, measured(np.random.default_rng(1), 0.5, 0.2, 1, 0.01))
    assert fit.identified == "both"
    assert fit.alpha_interval is fit.beta_interval is None


def test_loose_intervals_are_called_loose():
    fit = fit_value(GRID, measured(np.random.default_rng(3), 0.5, 0.2, 2, 0.1))
    assert fit.alpha_interval[1] > 100 * fit.alpha_interval[0]
    said = identification(fit_facts(fit, 2)).replace("\n", " ")
    assert said.startswith("Alpha is NOT identified")
    assert "Train more seeds" in said


def test_what_cannot_be_fitted_is_said():
    with pytest.raises(InvalidGameError, match="3 different epsilons"):
        fit_value([1.0, 2.0, 2.0], np.ones((2, 3)))
    with pytest.raises(InvalidGameError, match=r"epsilon\[1\] = 0"):
        fit_value([1.0, 0.0, 2.0], np.ones((2, 3)))
    with pytest.raises(InvalidGameError, match=r"not shape \(3,\)"):
        fit_value([1.0, 2.0, 3.0], np.ones(3))
    with pytest.raises(RunFailedError, match="no better than chance"):
        fit_value([1.0, 2.0, 3.0], [[-0.1, 0.0, 0.02]])


@pytest.fixture(scope="module")
def scenario():
    return build.load_scenario(QUICKSTART, TINY)


@pytest.fixture(scope="module")
def found(scenario, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "calibration"
    return fa.calibrate_value(scenario, [2, 20, 200], 2, out, value=50.0)


def test_the_new_scenario_is_the_old_one_with_the_fit(scenario, found):
    back = build.load_scenario(found.path / "calibrated.toml")
    assert back == found.scenario
    assert (back.game.alpha, back.game.beta) == (found.fit.alpha, found.fit.beta)
    own = {"alpha": scenario.game.alpha, "beta": scenario.game.beta}
    undone = back.game.model_copy(update=own)
    assert back.model_copy(update={"game": undone}) == scenario
    assert build.load_scenario(found.path / "scenario.toml") == scenario
    header = (found.path / "calibrated.toml").read_text(encoding="utf-8").split("title =")[0]
    assert "identified separately" in header
    assert all(line.startswith("#") for line in header.splitlines())


def test_the_folder_holds_table_facts_and_figures(found):
    files = {p.relative_to(found.path).as_posix() for p in found.path.rglob("*") if p.is_file()}
    figures = {f"figures/calibration.{kind}" for kind in ("png", "svg")}
    texts = {"scenario.toml", "calibrated.toml", "run.json", "SHA256SUMS"}
    assert files == {"calibration.parquet", *figures, *texts}
    assert read_table(found.path / "calibration.parquet").equals(found.frame)
    run = json.loads((found.path / "run.json").read_text(encoding="utf-8"))
    assert run["kind"] == "calibration"
    assert run["fit"]["alpha"] == found.fit.alpha
    assert [p.name for p in found.path.parent.iterdir()] == ["calibration"]  # nothing hidden


def test_value_is_accuracy_beyond_chance_in_currency(found):
    frame = found.frame
    assert_allclose(frame["value"], 50 * (frame["accuracy"] - 0.1), rtol=1e-12)
    assert frame["epsilon"].tolist() == 2 * [2.0, 20.0, 200.0]
    assert frame["seed"].nunique() == 2
    assert frame["seed"][0] == 7
    for point in found.run["points"]:
        own = frame[frame["epsilon"] == point["epsilon"]]
        assert point["value"] == pytest.approx(own["value"].mean(), rel=1e-12)
        fitted = law(point["epsilon"], found.fit.alpha, found.fit.beta)
        assert point["residual"] == pytest.approx(point["value"] - fitted, rel=1e-9)


def test_each_training_is_what_a_run_with_that_epsilon_does(found):
    """A server that asks all nodes for 20, and pays enough for all to stay."""
    same = [
        "mechanism.kind=static",
        "mechanism.epsilon=20.0",
        "population.rho.kind=constant",
        "game.budget=100.0",
    ]
    record = run_scenario(build.load_scenario(QUICKSTART, [*TINY, *same]))
    assert (record.nodes["epsilon"] == 20).all()
    (arm,) = record.run["training"]["arms"]
    assert found.frame["accuracy"][1] == arm["accuracy"]
    assert found.frame["loss"][1] == arm["loss"]


def test_trade_begins_where_it_is_said_to(found):
    begins = found.run["worth_of_trade"]
    for times, status in ((0.99, "no-trade"), (1.01, "solved")):
        beta = found.fit.beta * times * begins / 50.0
        game = found.scenario.game.model_copy(update={"beta": beta})
        outcome = build.price_scenario(found.scenario.model_copy(update={"game": game}))
        assert outcome.status == status


def test_text_and_figure_say_what_was_found(found):
    text = calibration_text(found.run)
    for words in (
        "3 epsilons, 2 seeds each",
        f"alpha = {found.fit.alpha:.4g}",
        "R^2 =",
        "identified separately",
        "At equilibrium",
    ):
        assert words in text
    figure = calibration(found.frame, found.run)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["a  Value of the net", "b  Residuals"]
    drawn = [c.get_offsets().shape[0] for c in figure.axes[0].collections]
    assert drawn == [6, 3]


def test_epsilons_span_the_equilibrium_by_themselves(scenario, monkeypatch):
    trained = []
    step = Training.step

    def step_and_keep(self, epsilon):
        trained.append(epsilon[0])
        return step(self, np.full(len(epsilon), 1e4))

    monkeypatch.setattr(Training, "step", step_and_keep)
    one = scenario.model_copy(
        update={"training": scenario.training.model_copy(update={"rounds": 1})}
    )
    calibrate_value(one, seeds=1)
    bought = build.price_scenario(scenario).epsilon
    assert len(trained) == 8
    assert trained == sorted(trained)
    assert trained[0] < np.median(bought[bought > 0]) < trained[-1]
    assert trained[-1] / trained[0] >= 99
    assert_allclose(np.diff(np.log(trained), 2), 0, atol=0.02)


def test_any_number_of_workers_gives_the_same_table(scenario, found, monkeypatch):
    prepare_trainer, asked = build.prepare_trainer, []

    def prepare_and_count(seeded, workers=1):
        asked.append(workers)
        return prepare_trainer(seeded, workers)

    monkeypatch.setattr(build, "prepare_trainer", prepare_and_count)
    for workers in (1, 2):
        again = calibrate_value(scenario, [2, 20, 200], 2, value=50.0, workers=workers)
        assert again.frame.equals(found.frame)
    assert asked == [1, 1, 2, 2]
    with pytest.raises(
        InvalidScenarioError, match="workers must be a whole number from 1 to 4,096, but is 0"
    ):
        calibrate_value(scenario, workers=0)


def test_the_bar_tells_what_is_trained_and_how_well_it_does(scenario, monkeypatch):
    shown = []
    monkeypatch.setattr(tqdm, "set_postfix", lambda _, **facts: shown.append(facts))
    frame = calibrate_value(scenario, [2, 20, 200], 1).frame
    last = {"seed": 0, "epsilon": "200", "accuracy": f"{frame['accuracy'][2]:.1%}"}
    assert shown[-1] == {**last, "refresh": False}
    assert len(shown) == 3 * 5  # a round before training, and four


@pytest.mark.parametrize(
    ("command", "call"),
    [
        (["calibrate", QUICKSTART], "fcfn_abm.runs.calibrate.calibrate_value"),
        (["run", QUICKSTART], "fcfn_abm.runs.run.run_scenario"),
        (["replicate", "fig4"], "fcfn_zhou2023.replicate"),
    ],
)
def test_a_command_trains_on_the_cores_that_it_may_use(command, call, tmp_path, monkeypatch):
    asked = []

    def stopped(*_, workers, **__):
        asked.append(workers)
        raise RunFailedError("far enough.")

    monkeypatch.setattr(call, stopped)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    for own in ([], ["--workers", "2"]):
        done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out"), *own])
        assert done.exit_code == 1, done.output
    assert asked == [3, 2]


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert count_cores() == 3
    assert select_workers() == Processes(3)
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert count_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_cores() == 1


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def interrupt_training(monkeypatch, calls, place, error):
    """Keep the epsilon of each training, counted from one, and let one of them fail."""
    step = Training.step

    def step_or_fail(self, epsilon):
        if self.round_index == 0:
            calls.append(epsilon[0])
            if len(calls) == place:
                raise error
        return step(self, epsilon)

    monkeypatch.setattr(Training, "step", step_or_fail)


def test_interrupted_work_continues_to_the_same_bytes(found, tmp_path, monkeypatch):
    calls = []
    interrupt_training(monkeypatch, calls, 5, KeyboardInterrupt())
    out = tmp_path / "results" / "again"
    arguments = ["calibrate", QUICKSTART, "--epsilons", "200,2,20", "--seeds", "2"]
    arguments += ["--value", "50", "--out", str(out)]
    arguments += [part for override in TINY for part in ("--set", override)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 130
    assert "run the same command to resume" in done.stderr
    assert not out.exists()
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert calls == [2, 20, 200, 2, 20, 20, 200]
    assert json.loads(done.stdout)["fit"]["beta"] == found.fit.beta
    assert files_of(out) == files_of(found.path)
    assert [path.name for path in out.parent.iterdir()] == ["again"]


def test_results_of_another_scenario_are_not_taken_up(scenario, tmp_path, monkeypatch):
    calls = []
    why = RunFailedError("training failed in round 1: the loss is not finite.")
    interrupt_training(monkeypatch, calls, 3, why)
    with pytest.raises(RunFailedError, match="with epsilon = 200, training failed"):
        calibrate_value(scenario, [2, 20, 200], 1, tmp_path / "out")
    other = scenario.model_copy(update={"seed": 8})
    calibrate_value(other, [2, 20, 200], 1, tmp_path / "out")
    assert calls == [2, 20, 200, 2, 20, 200]


def test_a_place_that_is_taken_shows_before_the_work(scenario, found, tmp_path):
    with pytest.raises(OutputError, match="already contains results"):
        calibrate_value(scenario, [2, 20, 200], 2, found.path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        calibrate_value(scenario, [2, 20, 200], 2, tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--epsilons", "1,two,3"], "--epsilons 1,two,3: must be numbers separated by commas"),
        (["--epsilons", "1,2"], "epsilons must contain at least 3 different numbers, not 2"),
        (["--epsilons", "1,-2,3"], "epsilons must be between 1e-12 and 1e+12, not -2"),
        (["--seeds", "0"], "seeds must be a whole number from 1 to 10,000, but is 0."),
        (["--epsilons", "1e308,1e-308,1"], "epsilons must be between 1e-12 and 1e+12, not 1e-308"),
        (["--epsilons", "nan,1,2"], "epsilons must be between 1e-12 and 1e+12, not nan"),
        (["--seeds", f"{10**17}"], "from 1 to 10,000, but is 100,000,000"),
        (["--workers", f"{10**17}"], "from 1 to 4,096, but is 100,000,000"),
        (["--value", "0"], "value must be between 1e-12 and 1e+12, not 0"),
        (["--value", "1e308"], "value must be between 1e-12 and 1e+12, not 1e+308"),
        (["--value", "1e-308"], "value must be between 1e-12 and 1e+12, not 1e-308"),
        (["--set", "training.enabled=false"], "add a [training] table"),
        (["--set", "game.alpha=1e-9"], "there are no default epsilons"),
        (["--set", "sweep.axes={'game.alpha'=[1.0]}"], "[sweep]"),
    ],
)
def test_mistakes_get_one_sentence(args, words, tmp_path):
    done = CliRunner().invoke(app, ["calibrate", QUICKSTART, "--out", str(tmp_path / "out"), *args])
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_scenario_without_training_is_refused():
    with pytest.raises(InvalidScenarioError, match="needs a scenario that trains a net"):
        calibrate_value(build.load_scenario("scenarios/dynamics/cold-start.toml"))
