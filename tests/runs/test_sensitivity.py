"""Sobol indices: against closed forms, and of the game's own closed form."""

import math

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import qmc

import fcfn_abm as fa
from fcfn_abm.build import list_runs
from fcfn_abm.errors import InvalidRecordError, InvalidScenarioError, UnknownNameError
from fcfn_abm.runs.results import RESULTS, list_results, read_results, write_results
from fcfn_abm.runs.sensitivity import sensitivity, sensitivity_text, sobol_indices
from fcfn_abm.runs.sweep import sweep_facts, sweep_text
from fcfn_abm.scenario import Scenario

pytestmark = pytest.mark.slow


def indices_of(function, n_axes, n=4096, seed=0):
    """Evaluate a function of points (n, axes) where Saltelli et al. do."""
    unit = qmc.Sobol(2 * n_axes, rng=np.random.default_rng(seed)).random(n)
    a, b = unit[:, :n_axes], unit[:, n_axes:]
    mixed = []
    for axis in range(n_axes):
        points = a.copy()
        points[:, axis] = b[:, axis]
        mixed.append([function(points)])
    return sobol_indices([function(a)], [function(b)], mixed, np.random.default_rng(1))


def test_the_ishigami_function_has_its_known_indices():
    def ishigami(unit):
        x, y, z = (math.pi * (2 * unit - 1)).T
        return np.sin(x) + 7 * np.sin(y) ** 2 + 0.1 * z**4 * np.sin(x)

    found, low, high = indices_of(ishigami, 3)[:, :, 0]
    pi4 = math.pi**4
    variances = np.array([(1 + 0.1 * pi4 / 5) ** 2 / 2, 49 / 8, 0.0])
    shared = 0.01 * pi4**2 * (1 / 18 - 1 / 50)  # of x and z
    variance = variances.sum() + shared
    first = variances / variance
    total = (variances + np.array([shared, 0, shared])) / variance
    assert_allclose(found, [first, total], atol=0.02)
    assert np.all((low <= [first, total]) & (high >= [first, total]))
    assert np.all(high - low < 0.15)


def test_intervals_cover_the_truth_and_narrow_with_the_root_of_n():
    weights = np.array([1.0, 2.0, 4.0])
    truth = weights**2 / (weights**2).sum()
    widths = {}
    for n in (64, 1024):
        tries = [indices_of(lambda p: p @ weights, 3, n, seed)[:, :, 0] for seed in range(6)]
        covered = [(low <= truth) & (truth <= high) for _, low, high in tries]
        assert np.mean(covered) > 0.9
        widths[n] = np.mean([high - low for _, low, high in tries])
    assert widths[64] / widths[1024] == pytest.approx(4.0, rel=0.25)


def test_an_outcome_that_does_not_vary_has_no_indices():
    rng = np.random.default_rng(0)
    a, b, ab = rng.random((2, 8)), rng.random((2, 8)), rng.random((3, 2, 8))
    for values in (a, b, ab):
        values[..., 0, :] = 0.1 + 0.2  # not exact in binary
    found = sobol_indices(a, b, ab, rng)
    assert found.shape == (3, 2, 2, 3)
    assert np.isnan(found[:, :, 0]).all()
    assert np.isfinite(found[:, :, 1]).all()


SWEEP = {
    "seed": 7,
    "population": {"n_nodes": 5, "rho": {"kind": "constant", "value": 0.01}},
    "game": {"budget": 5.0},
    "server": "fixed",
    "rounds": {"maximum": 2},
    "sweep": {
        "mode": "sobol",
        "n_samples": 4,
        "axes": {
            "game.budget": {"low": 1.0, "high": 100.0, "log": True},
            "population.rho.value": {"low": 0.01, "high": 0.03, "log": True},
            "game.alpha": {"low": 1.0, "high": 2.0},
        },
    },
}


def changed(**sweep):
    return Scenario.model_validate({**SWEEP, "sweep": {**SWEEP["sweep"], **sweep}})


def test_points_are_two_samples_and_the_first_with_each_axis_of_the_second():
    runs = list_runs(changed(replications=2))
    assert len(runs) == 4 * (3 + 2) * 2
    points = [tuple(run.point.values()) for run in runs[::2]]
    a, b, *mixed = (points[i : i + 4] for i in range(0, 20, 4))
    assert set(a).isdisjoint(b)
    for axis, block in enumerate(mixed):
        for one, other, both in zip(a, b, block, strict=True):
            assert both == (*one[:axis], other[axis], *one[axis + 1 :])
    for sample in (a, b):  # and each is spread evenly: one point in each quarter of each axis
        budgets = np.log(np.array(sample)[:, 0]) / np.log(100.0)
        assert sorted(np.floor(4 * budgets)) == [0, 1, 2, 3]
    assert points == [tuple(run.point.values()) for run in list_runs(changed(replications=2))[1::2]]


def log_uniform_moments(low, high, power):
    """Return mean and mean square of x ** power, with log x uniform."""
    span = math.log(high / low)

    def moment(k):
        return (high**k - low**k) / (k * span)

    return moment(power), moment(2 * power)


def test_the_equal_node_equilibrium_has_the_indices_of_a_product():
    """S* = B (n - 1) / (n rho): with E = E(x)^2 and Q = E(x^2), S_i follows from Q / E alone."""
    scenario = changed(n_samples=512)
    points = [run.point.values() for run in list_runs(scenario)]
    games = [fa.nash_equilibrium(np.full(5, rho), budget) for budget, rho, _ in points]
    frame = done(total_epsilon=[game.total_epsilon for game in games])
    table = sensitivity(scenario, frame)
    assert set(table["outcome"]) == {"total_epsilon"}
    spread = []  # variance over squared mean, of each factor
    for (low, high), power in (((1.0, 100.0), 1), ((0.01, 0.03), -1)):
        mean, square = log_uniform_moments(low, high, power)
        spread.append(square / mean**2 - 1)
    spread = np.array([*spread, 0.0])  # alpha is no part of it
    variance = np.prod(1 + spread) - 1
    first = spread / variance
    total = spread * np.prod(1 + spread) / (1 + spread) / variance
    assert_allclose(table["first_order"], first, atol=0.03)
    assert_allclose(table["total_order"], total, atol=0.03)
    for order, truth in (("first_order", first), ("total_order", total)):
        assert np.all(table[f"{order}_low"] <= truth + 1e-12)
        assert np.all(truth - 1e-12 <= table[f"{order}_high"])


def done(**outcomes):
    frame = pd.DataFrame(outcomes)
    return frame.assign(run=range(len(frame)), status="done", budget=5.0)


def test_a_point_counts_with_the_mean_of_its_replications():
    scenario = changed(replications=2)
    alone = np.random.default_rng(3).random(20)
    noise = np.tile([0.5, -0.5], 20)
    twice = done(welfare=np.repeat(alone, 2) + noise)
    one = sensitivity(changed(), done(welfare=alone))
    assert_allclose(sensitivity(scenario, twice).iloc[:, 2:], one.iloc[:, 2:], rtol=1e-9)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return fa.run_sweep(changed(), tmp_path_factory.mktemp("sobol") / "out")


def test_a_sweep_tells_its_sensitivity(sweep):
    table = sweep.sensitivity(["budget", "welfare"])
    assert list(zip(table["outcome"], table["axis"], strict=True)) == [
        (outcome, axis) for outcome in ("budget", "welfare") for axis in sweep.scenario.sweep.axes
    ]
    budget = table[table["outcome"] == "budget"].set_index("axis")["total_order"]
    assert budget["game.budget"] > 0.5
    assert list(budget[["population.rho.value", "game.alpha"]]) == [0, 0]
    again = fa.read_sweep(sweep.path).sensitivity(["budget", "welfare"])
    pd.testing.assert_frame_equal(table, again)
    by_default = sweep.sensitivity()
    assert set(by_default["outcome"]) == {"total_epsilon", "budget", "welfare", "server_utility"}
    text = sweep_text(sweep).plain  # all five nodes take part everywhere, and nobody trains
    assert text.count("game.budget") == 4
    row = by_default.iloc[0]
    assert f"{row.first_order:.2f} [{row.first_order_low:.2f}, {row.first_order_high:.2f}]" in text
    assert sweep_facts(sweep)["sensitivity"][0]["first_order"] == pytest.approx(row.first_order)


def test_sensitivity_needs_every_run(tmp_path):
    sweep = fa.run_sweep(changed(n_samples=2), tmp_path / "out")
    (sweep.path / "sweep.parquet").unlink()
    whole = [
        result for path in set(list_results(sweep.path).values()) for result in read_results(path)
    ]
    for path in (sweep.path / RESULTS).iterdir():
        path.unlink()
    others = [result for result in whole if result["run"] not in (3, 4)]
    write_results(sweep.path, [*others, {"run": 4, "status": "failed", "error": "why"}])
    message = r"needs all 10 runs, but some are not done \(1 failed, 1 missing\); .*--retry"
    with pytest.raises(InvalidRecordError, match=message):
        sweep.sensitivity()
    assert "(1 failed, 1 missing)" in sweep_text(sweep)
    assert "sensitivity" not in sweep_facts(sweep)


def test_what_has_no_sensitivity_is_refused_in_a_sentence(sweep):
    with pytest.raises(UnknownNameError, match=r"called 'welfar'. Did you mean 'welfare'\?"):
        sweep.sensitivity(["welfar"])
    with pytest.raises(UnknownNameError, match="no numeric outcome of the sweep called 'verdict'"):
        sweep.sensitivity(["verdict"])
    with pytest.raises(InvalidRecordError, match=r"'accuracy' needs .* it is missing in 20 of 20"):
        sweep.sensitivity(["accuracy"])
    grid = {**SWEEP, "sweep": {"axes": {"game.alpha": [1.0]}}}
    with pytest.raises(
        InvalidScenarioError, match="mode = 'sobol', but this sweep's mode is 'grid'"
    ):
        sensitivity(Scenario.model_validate(grid), sweep.frame())
    assert sensitivity_text(sensitivity(changed(), done(welfare=np.ones(20)))) == (
        "No outcome varies."
    )
