"""Large markets are drawn as distributions, small ones node by node."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection, QuadMesh
from scipy import stats

import fcfn_abm as fa
from fcfn_abm.errors import InvalidRecordError
from fcfn_abm.report.figures import (
    accuracy,
    calibration,
    comparison,
    convergence,
    ledger,
    participation,
    rho_against_epsilon,
    sweep_outcome,
    sweep_overview,
    utilities,
)
from fcfn_abm.report.figures.files import svg_of, write_png
from fcfn_abm.report.figures.market import CROWD
from fcfn_abm.report.figures.records import main_figures
from fcfn_abm.report.theme import ARM_COLOURS
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
    paths = write_png(main_figures(read), tmp_path / "again")
    assert [p.name for p in paths] == ["convergence.png", "rho_epsilon.png"]
    if traces == "all":
        assert "traces" not in vars(read)  # the rest was never loaded
    assert paths[0].read_bytes() == (run.path / "figures" / "convergence.png").read_bytes()


def test_a_market_that_falls_by_decades_is_drawn_on_a_log_scale():
    for n_nodes, scale in ((20, "linear"), (20_000, "log")):
        run = record(n_nodes, "rounds.start='random'")
        figure = convergence(run.rounds, run.traces, run.run["equilibrium"]["total_epsilon"])
        assert figure.axes[1].get_yscale() == scale


def test_exits_are_counted_in_the_rounds_in_which_they_happened():
    run = record(200, "rounds.start='random'")
    counts, exits = participation(run.rounds, run.nodes).axes
    (active,) = [line for line in counts.lines if line.get_label() == "active"]
    assert list(active.get_ydata()) == list(run.rounds["n_active"])
    left = run.nodes["exit_round"].dropna().astype(int)
    heights = {
        round(bar.get_x() + bar.get_width() / 2): int(bar.get_height()) for bar in exits.patches
    }
    assert {at: n for at, n in heights.items() if n} == left.value_counts().to_dict()
    assert len(left) > 100


def test_a_market_that_nobody_leaves_has_no_exits_to_draw():
    run = record(20, "population.rho={kind='constant', value=0.01}", "rounds.maximum=5")
    _, exits = participation(run.rounds, run.nodes).axes
    assert not exits.patches
    assert [text.get_text() for text in exits.texts] == ["no node left"]


def test_what_everybody_earns_is_that_of_the_rounds():
    run = record(50)
    server, nodes = utilities(run.rounds).axes
    assert list(server.lines[0].get_ydata()) == list(run.rounds["server_utility"])
    assert list(server.lines[1].get_ydata()) == list(run.rounds["payment"])
    assert list(nodes.lines[0].get_ydata()) == list(run.rounds["node_utility"])


def spent(n_rounds=5, n_nodes=7):
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(
        {
            "round": np.repeat(np.arange(1, n_rounds + 1), n_nodes),
            "node": np.tile(np.arange(n_nodes), n_rounds),
            "epsilon_round": rng.uniform(1, 2, n_rounds * n_nodes),
        }
    )
    frame["epsilon_total"] = frame.groupby("node")["epsilon_round"].cumsum()
    return frame.assign(epsilon_central=frame["epsilon_total"] / 3)


def test_the_ledger_shows_the_median_node_between_the_extremes():
    frame = spent()
    uploads, server = ledger(frame, 1e-5).axes
    groups = frame.groupby("round")
    assert list(uploads.lines[0].get_ydata()) == list(groups["epsilon_total"].median())
    assert list(uploads.lines[1].get_ydata()) == list(groups["epsilon_round"].median())
    assert list(server.lines[0].get_ydata()) == list(groups["epsilon_central"].median())
    band = uploads.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (
        frame[frame["round"] == 1]["epsilon_total"].min(),
        frame[frame["round"] == 5]["epsilon_total"].max(),
    )
    assert "δ = 10⁻⁵" in uploads.get_ylabel()
    assert len(ledger(frame.drop(columns="epsilon_central"), 1e-5).axes) == 1


def test_points_of_a_sweep_are_means_with_t_intervals():
    rng = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "population.n_nodes": np.repeat([10, 100, 1000], 10),
            "mechanism.kind": np.tile(["stackelberg", "random"], 15),
            "status": "done",
            "welfare": rng.normal(size=30),
        }
    )
    frame.loc[0, ["status", "welfare"]] = ["failed", 1e9]
    axes = sweep_outcome(frame, "population.n_nodes", "welfare", "mechanism.kind").axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel() == "welfare (currency)"
    assert len(axes.containers) == 2
    for drawn in axes.containers:
        name = drawn.get_label()
        done = frame[(frame["mechanism.kind"] == name) & (frame["status"] == "done")]
        groups = done.groupby("population.n_nodes")["welfare"]
        points, _, (bars,) = drawn
        assert list(points.get_ydata()) == pytest.approx(list(groups.mean()))
        assert points.get_color() == ARM_COLOURS[name]
        halves = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
        expected = [stats.t.ppf(0.975, len(v) - 1) * stats.sem(v) for _, v in groups]
        assert halves == pytest.approx(expected)


def test_every_figure_stands_in_the_gallery():
    text = Path("docs/gallery.md").read_text()
    for name in fa.plot.__all__:
        assert f"fa.plot.{name}(" in text
        assert (Path("docs/images/gallery") / f"{name}.png").is_file()


OWN_SETTINGS = {
    "text.usetex": True,
    "savefig.dpi": 10,
    "figure.dpi": 30,
    "font.size": 40,
    "xtick.color": "red",
    "axes.facecolor": "black",
    "svg.fonttype": "none",
}


def test_settings_of_the_user_change_no_figure_and_stay_as_they_were(tmp_path):
    def written(to):
        figure = ledger(spent(), 1e-5)
        (path,) = write_png({"ledger": figure}, tmp_path / to)
        return path.read_bytes(), svg_of(figure), svg_of(figure, text=True)

    usual = written("usual")
    with mpl.rc_context(OWN_SETTINGS):
        before = dict(mpl.rcParams.copy())  # of a copy: to ask for the backend is to choose it
        assert written("own") == usual
        assert dict(mpl.rcParams.copy()) == before


def test_a_figure_shown_under_settings_of_the_user_keeps_its_ticks():
    with mpl.rc_context(OWN_SETTINGS):
        figure = ledger(spent(), 1e-5)
        figure.draw_without_rendering()  # without LaTeX an error, were there a text for it
        for axes in figure.axes:
            labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.texts]
            assert not any(label.get_usetex() for label in labels)
            assert {label.get_fontsize() for label in labels} == {labels[0].get_fontsize()}
            assert labels[0].get_fontsize() < 15


def calibrated(value, r_squared):
    """Return what a calibration at three epsilons would have found."""
    frame = pd.DataFrame({"epsilon": [2.0, 3.0, 10.0], "value": value})
    fit = {"alpha": 1e18, "beta": 0.0013, "identified": "level", "r_squared": r_squared}
    return frame, {
        "fit": fit,
        "points": frame.assign(residual=[0.001, 0.0, -0.001]).to_dict("records"),
        "equilibrium": {"calibrated": {"status": "none"}},
        "value_of_accuracy": 1.0,
        "chance": 0.1,
    }


@pytest.mark.filterwarnings("error")
def test_a_calibration_to_values_that_are_all_alike_is_legible():
    figure = calibration(*calibrated([0.056, 0.056, 0.056], -2.4e294))
    figure.draw_without_rendering()
    values, rest = figure.axes
    labels = [text.get_text() for text in values.get_legend().get_texts()]
    assert labels[0].endswith("R² below -100")
    assert values.get_position().x1 < rest.get_position().x0
    (right,) = values.child_axes
    low, high = sorted(right.get_ylim())
    assert sum(low <= at <= high for at in right.get_yticks()) > 1


def test_a_calibration_keeps_its_digits_and_its_shares():
    figure = calibration(*calibrated([0.1, 0.4, 0.8], 0.98765))
    figure.draw_without_rendering()
    values, _ = figure.axes
    assert values.get_legend().get_texts()[0].get_text().endswith("R² = 0.988")
    assert list(values.child_axes[0].get_yticks()) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])


@pytest.mark.parametrize(
    "draw",
    [
        lambda frame: accuracy(frame, [], ""),
        lambda frame: calibration(frame, {"fit": {}, "points": [], "equilibrium": {}}),
        comparison,
        lambda frame: convergence(frame, frame, 1.0),
        lambda frame: ledger(frame, 1e-5),
        lambda frame: participation(frame, frame),
        lambda frame: rho_against_epsilon(frame, 1.0),
        lambda frame: sweep_outcome(frame, "axis", "welfare"),
        lambda frame: sweep_overview(frame, ["axis"], ["welfare"]),
        utilities,
    ],
)
@pytest.mark.parametrize("frame", [pd.DataFrame(), pd.DataFrame({"other": [1.0]})])
def test_a_frame_without_the_columns_of_a_figure_is_refused(draw, frame):
    with pytest.raises(InvalidRecordError, match=r"The figure needs the columns .* no column '"):
        draw(frame)


def test_a_frame_without_rows_is_refused():
    rounds = record(20).rounds
    with pytest.raises(InvalidRecordError, match=r"needs the columns round, .* has no rows"):
        utilities(rounds.head(0))


def test_the_figure_of_a_closed_loop_shows_the_rounds_in_which_the_server_learned():
    pytest.importorskip("torch")
    settings = ["population.n_nodes=8", "training.rounds=3", "training.compare=[]"]
    made = run_scenario(fa.load_scenario("closed_loop/digits", [*settings, "rounds.maximum=5"]))
    figure = main_figures(made)["closed_loop"]
    cap, *_, value = figure.axes
    np.testing.assert_array_equal(cap.lines[0].get_ydata(), made.rounds["budget"][:3])
    np.testing.assert_array_equal(value.lines[0].get_ydata(), made.rounds["measured_value"][:3])
    assert "closed_loop" not in main_figures(record(20))


def test_panels_have_letters_and_symbols_are_set_as_in_print():
    run = record(50)
    figures = [run.plot.convergence(), run.plot.participation(), run.plot.utilities()]
    for drawn in figures:
        titles = [axes.get_title(loc="left") for axes in drawn.axes]
        assert [title[:3] for title in titles] == ["a  ", "b  ", "c  "][: len(titles)]
    one = run.plot.rho_against_epsilon().axes[0]
    texts = [one.get_xlabel(), *(text.get_text() for text in one.get_legend().get_texts())]
    assert "unit privacy cost ρ (currency per unit of ε)" in texts
    assert any(text.startswith("τ/(n−1) = ") for text in texts)


def test_every_line_of_a_run_stands_in_the_legend_and_the_closed_form_is_drawn():
    run = record(50)
    for axes in (*run.plot.utilities().axes, run.plot.participation().axes[0]):
        legend = {text.get_text() for text in axes.get_legend().get_texts()}
        lines = {line.get_label() for line in axes.lines if not line.get_label().startswith("_")}
        assert legend == lines
        assert any("closed form" in label for label in legend)
    form = run.run["equilibrium"]
    server, nodes = run.plot.utilities().axes
    levels = [line.get_ydata()[0] for line in server.lines if line.get_linewidth() == 1.1]
    assert levels == [form["server_utility"], form["payment"]]
    (level,) = [line.get_ydata()[0] for line in nodes.lines if line.get_linewidth() == 1.1]
    assert level == form["node_utility"]


def test_no_interval_of_a_share_leaves_its_bounds_in_a_figure():
    frame = pd.DataFrame(
        {
            "population.n_nodes": np.repeat([10, 20], 4),
            "replication": np.tile(range(4), 2),
            "status": "done",
            "accuracy": [0.99, 1.0, 0.9, 1.0, 0.01, 0.0, 0.1, 0.0],
        }
    )
    axes = sweep_outcome(frame, "population.n_nodes", "accuracy").axes[0]
    _, _, (bars,) = axes.containers[0]
    ends = np.concatenate([segment[:, 1] for segment in bars.get_segments()])
    assert (ends.min(), ends.max()) == (0.0, 1.0)


def test_one_replication_of_a_grid_gives_no_interval():
    frame = pd.DataFrame(
        {
            "population.n_nodes": np.repeat([10, 20], 3),
            "game.budget": np.tile([1.0, 2.0, 3.0], 2),
            "replication": 0,
            "status": "done",
            "welfare": np.arange(6.0),
        }
    )
    axes = sweep_outcome(frame, "population.n_nodes", "welfare").axes[0]
    points, _, (bars,) = axes.containers[0]
    assert list(points.get_ydata()) == [1.0, 4.0]
    assert all(np.ptp(segment[:, 1]) == 0 for segment in bars.get_segments())


def test_nodes_at_the_same_point_share_a_label():
    nodes = pd.DataFrame(
        {
            "rho": [1.0, 1.5, 1.5, 1.5, 9.0],
            "epsilon": [3.0, 2.0, 2.0 * (1 - 1e-9), 2.0, 0.0],
            "equilibrium_epsilon": [3.0, 2.0, 2.0, 2.0, 0.0],
            "active": [True, True, True, True, False],
            "name": ["Ada", "Cleo", "Bea", "Dora", "Eve"],
        }
    )
    axes = fa.plot.rho_against_epsilon(nodes, 3.0).axes[0]
    labels = {text.get_text(): text.xy for text in axes.texts if hasattr(text, "xy")}
    assert labels["Ada"] == (1.0, 3.0)
    assert labels["Bea, Cleo, 1 more"] == pytest.approx((1.5, 2.0), rel=1e-3)
