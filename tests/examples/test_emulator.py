import runpy

import numpy as np
import pandas as pd
import pytest

SCRIPT = "examples/emulator.py"


def played(n_points, luck, seed=1):
    """A table of a sweep: participation is known but for luck, and half of the points trade."""
    chance = np.random.default_rng(seed)
    nodes, spread, alpha, beta = np.exp(chance.uniform(0, 3, (4, n_points))).repeat(2, axis=1)
    return pd.DataFrame(
        {
            "run": np.arange(2 * n_points),
            "status": "done",
            "population.n_nodes": nodes,
            "population.rho.sigma": spread,
            "game.alpha": alpha,
            "game.beta": beta,
            "participation": np.log(nodes)
            - 0.5 * np.log(spread)
            + luck * chance.normal(size=nodes.size),
            "budget": np.where(beta > np.exp(1.5), beta, 0.0),
        }
    )


@pytest.mark.slow
def test_an_emulator_comes_close_to_what_luck_allows():
    emulate = runpy.run_path(SCRIPT)["emulate"]
    found = emulate(played(4000, luck=0.1), "participation")
    assert len(found.points) == 800
    assert found.luck == pytest.approx(0.1 / np.sqrt(2), rel=0.1)
    assert found.luck < found.error < 1.5 * found.luck
    assert found.explained == pytest.approx(1 - found.error**2 / found.spread**2)
    failed = played(50, luck=0.1).assign(status=["failed", "done"] * 50)
    assert len(emulate(failed, "participation").points) == 10  # one run of two is left


@pytest.mark.slow
def test_errors_in_ranges_add_up_to_the_error():
    script = runpy.run_path(SCRIPT)
    found = script["emulate"](played(500, luck=0.2), "participation")
    values = found.points["game.beta"]
    table = script["errors_by"](found, values, np.array([0.9, 3.0, 8.0, 21.0]))
    assert table["points"].sum() == len(found.points) == 100
    assert table["points"].iloc[0] == (values <= 3.0).sum()
    mean = (table["points"] * table["error"] ** 2).sum() / 100
    assert np.sqrt(mean) == pytest.approx(found.error)
    text = script["describe"](found)
    assert f"R2 = {found.explained:.4f}" in text
    assert "all trade" in text
    assert "no trade" in text


def test_the_sweep_plays_each_point_twice():
    sweep = runpy.run_path(SCRIPT)["load_sweep"](40).sweep
    assert (sweep.n_samples, sweep.replications) == (20, 2)
