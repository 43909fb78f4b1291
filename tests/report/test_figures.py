"""Large markets are drawn as distributions, small ones node by node."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection, QuadMesh

import fcfn_abm as fa
from fcfn_abm.report.figures import CROWD, convergence, rho_against_epsilon, write_figures
from fcfn_abm.runs.run import run_scenario

MILLION = "scenarios/stress/million.toml"


def record(n_nodes, *overrides, out=None):
    settings = (f"population.n_nodes={n_nodes}", "rounds.maximum=60", *overrides)
    return run_scenario(fa.load_scenario(MILLION, settings), out)


def drawn(figure):
    """Return how many points the dots and the longest line of a figure have, and its cells."""
    dots, lines, cells = 0, 0, []
    for axes in figure.axes:
        dots += sum(c.get_offsets().shape[0] for c in axes.collections if type(c) is PathCollection)
        lines = max(
            [
                lines,
                *(
                    line.get_xdata().size
                    for line in axes.lines
                    if hasattr(line.get_xdata(), "size")
                ),
            ]
        )
        cells += [c for c in axes.collections if isinstance(c, QuadMesh) and c.norm.vmax > 1]
    return dots, lines, cells


def test_a_small_market_is_drawn_node_by_node():
    run = record(200)
    form = run.run["equilibrium"]
    dots, _, cells = drawn(rho_against_epsilon(run.nodes, form["threshold"]))
    shown = run.nodes["rho"] <= run.nodes["rho"].max()
    assert 0 < dots <= shown.sum()
    assert not cells


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_crowd_is_counted_in_cells(noise):
    run = record(20_000, f"information.noise={noise}")
    form = run.run["equilibrium"]
    figure = rho_against_epsilon(run.nodes, form["threshold"])
    dots, line, _ = drawn(figure)
    assert dots == 0
    assert line <= CROWD
    cells, counts = figure.axes[0].collections[0], figure.axes[1].patches
    inside = run.nodes["rho"] <= figure.axes[0].get_xlim()[1]
    assert run.nodes["active"][~inside].sum() == 0  # nobody who takes part is left out
    assert np.ma.sum(cells.get_array()) == inside.sum()
    assert sum(bar.get_height() for bar in counts) == 20_000


def test_a_price_without_a_curve_is_drawn_as_its_mean():
    run = record(5000, "mechanism.kind='random'", "rounds.maximum=3")
    figure = rho_against_epsilon(run.nodes, run.run["equilibrium"]["threshold"])
    (line,) = figure.axes[0].lines
    assert line.get_label() == "as priced, on average"
    assert line.get_xdata().size == 100


@pytest.mark.parametrize("traces", ["all", "last:3"])
def test_of_all_traces_a_sample_is_drawn(tmp_path, traces):
    run = record(5000, f"record.traces='{traces}'", out=tmp_path / "run")
    assert "traces" not in vars(fa.read_record(tmp_path / "run")) or traces != "all"
    read = fa.read_record(tmp_path / "run")
    paths = write_figures(read, tmp_path / "again")
    assert [p.name for p in paths] == ["convergence.png", "rho_epsilon.png"]
    if traces == "all":
        assert "traces" not in vars(read)  # the rest was never loaded
    assert paths[0].read_bytes() == (run.path / "figures" / "convergence.png").read_bytes()


def test_a_market_that_falls_by_decades_is_drawn_on_a_log_scale():
    for n_nodes, scale in ((20, "linear"), (20_000, "log")):
        run = record(n_nodes, "rounds.start='random'")
        figure = convergence(run.rounds, run.traces, run.run["equilibrium"]["total_epsilon"])
        assert figure.axes[1].get_yscale() == scale
