"""What a notebook shows: objects of a few lines, frames and figures without arguments."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal

import fcfn_abm as fa
from fcfn_abm.errors import InvalidRecordError

SHORT = ["training.rounds=2", "training.compare=['no-noise']"]


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    scenario = fa.load_scenario("dynamics/cold-start", ["title='<b>A & B</b>'"])
    return fa.run_scenario(scenario, tmp_path_factory.mktemp("runs") / "record")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    tree = {
        "title": "How many",
        "sweep": {
            "keep": "record",
            "replications": 2,
            "axes": {"population.n_nodes": [5, 9], "learning.kind": ["best-response", "gradient"]},
        },
        "rounds": {"maximum": 6},
    }
    return fa.run_sweep(fa.Scenario.model_validate(tree), tmp_path_factory.mktemp("sweeps") / "s")


def test_objects_show_themselves_in_a_few_lines_whatever_their_size(record, sweep):
    rho = np.linspace(1, 1.01, 10_000)
    market = fa.PrivacyMarket(n_nodes=9)
    market.step()
    shown = {
        "Equilibrium": fa.nash_equilibrium(rho, 1.0),
        "StackelbergEquilibrium": fa.stackelberg_equilibrium(rho, 1e5, 10.0),
        "Record: <b>A & B</b>": record,
        "Sweep: How many": sweep,
        "PrivacyMarket, round 1: still running": market,
    }
    for title, thing in shown.items():
        lines = repr(thing).splitlines()
        assert lines[0] == title
        assert 3 <= len(lines) <= 10
        assert max(map(len, lines)) < 200
        html = thing._repr_html_()
        assert html.count("<tr>") == len(lines) - 1
        assert "<b>" not in html


def test_the_lines_hold_the_numbers_of_the_object(record, sweep):
    game = fa.stackelberg_equilibrium([1.0, 1.0, 5.0], alpha=1.0, beta=10.0)
    assert repr(game).splitlines() == [
        "StackelbergEquilibrium",
        "  payment cap B*         6",
        "  utility of the server  3.16291",
        "  nodes that take part   2 of 3",
        "  total epsilon S        3",
        "  threshold of rho       2",
        "  utility of all nodes   3",
    ]
    assert f"converged, round {len(record.rounds)}" in repr(record)
    assert f"17 of {len(record.nodes)}" in repr(record)
    assert "8 done" in repr(sweep)


def test_a_closed_form_is_a_frame_and_a_figure():
    rho = [1.0, 1.0, 5.0]
    game = fa.stackelberg_equilibrium(rho, alpha=1.0, beta=10.0)
    frame = game.to_frame()
    assert frame.columns.tolist() == ["node", "rho", "epsilon", "active", "utility"]
    assert_array_equal(frame["rho"], rho)
    assert_array_equal(frame["epsilon"], game.epsilon)
    assert frame["active"].tolist() == [True, True, False]
    figure = game.plot()
    assert isinstance(figure, Figure)
    drawn = np.concatenate([dots.get_offsets() for dots in figure.axes[0].collections])
    assert {tuple(point) for point in drawn.tolist()} == {
        (1.0, 1.5)
    }  # the third costs more than the axis shows
    assert isinstance(fa.nash_equilibrium(rho, 0.0).plot(), Figure)


def curves(figure):
    return [
        (line.get_label(), line.get_xydata().tolist())
        for axes in figure.axes
        for line in axes.get_lines()
    ]


def test_figures_take_a_record_where_they_take_a_frame(record):
    form = record.run["equilibrium"]
    pairs = {
        "convergence": (record.rounds, record.traces, form["total_epsilon"]),
        "participation": (record.rounds, record.nodes),
        "rho_against_epsilon": (record.nodes, form["threshold"]),
        "utilities": (record.rounds, form),
    }
    for name, given in pairs.items():
        expected = str(curves(getattr(fa.plot, name)(*given)))
        assert str(curves(getattr(fa.plot, name)(record))) == expected
        assert str(curves(getattr(record.plot, name)())) == expected


def test_figures_of_training_take_a_record_too():
    pytest.importorskip("torch")
    record = fa.run_scenario(fa.load_scenario("quickstart", SHORT))
    task = record.run["training"]
    accuracy = fa.plot.accuracy(record.training, task["arms"], task["data"])
    assert str(curves(record.plot.accuracy())) == str(curves(accuracy))
    ledger = fa.plot.ledger(record.ledger, record.scenario.privacy.delta)
    assert str(curves(record.plot.ledger())) == str(curves(ledger))


def test_figures_of_sweeps_and_comparisons_take_what_holds_the_frame(sweep):
    axis, frame = "population.n_nodes", sweep.frame()
    expected = curves(fa.plot.sweep_outcome(frame, axis, "participation"))
    assert str(curves(fa.plot.sweep_outcome(sweep, axis, "participation"))) == str(expected)
    assert isinstance(fa.plot.sweep_overview(sweep, [axis], ["participation"]), Figure)
    found = fa.compare_mechanisms(fa.Scenario(), ["static", "random"], replications=3)
    assert str(curves(fa.plot.comparison(found))) == str(curves(fa.plot.comparison(found.frame)))


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda _: fa.plot.utilities("results/run"), "not 'results/run'"),
        (lambda _: fa.plot.utilities([1, 2]), "needs a data frame or a result"),
        (lambda r: fa.plot.convergence(r.rounds), "needs S: pass it, or pass a record"),
        (lambda r: fa.plot.rho_against_epsilon(r.nodes), "needs the threshold"),
        (lambda r: r.plot.accuracy(), "no rows"),
        (lambda r: r.plot.ledger(), "no rows"),
    ],
)
def test_what_a_figure_cannot_draw_is_refused_in_one_sentence(record, draw, words):
    with pytest.raises(InvalidRecordError, match=words):
        draw(record)


def test_all_rounds_of_a_sweep_are_one_tidy_frame(sweep):
    rounds, runs = sweep.rounds(), sweep.frame()
    axes = ["population.n_nodes", "learning.kind"]
    assert rounds.columns[:5].tolist() == ["run", "replication", "seed", *axes]
    assert len(rounds) == runs["rounds"].sum()
    for row in runs.itertuples():
        own = rounds[rounds["run"] == row.run].reset_index(drop=True)
        table = sweep.record(row.run).rounds
        assert_frame_equal(own[table.columns], table, check_dtype=False)
        assert own["seed"].unique().tolist() == [row.seed]
    assert rounds["population.n_nodes"].tolist() == (
        rounds[["n_active", "n_inactive", "n_exited"]].sum(axis=1).tolist()
    )
    assert pd.api.types.is_integer_dtype(rounds["seed"])


def test_a_sweep_without_records_says_how_to_keep_them(tmp_path):
    tree = {"population": {"n_nodes": 5}, "sweep": {"replications": 1}}
    bare = fa.run_sweep(fa.Scenario.model_validate(tree), tmp_path / "bare")
    with pytest.raises(InvalidRecordError, match="keep = 'record'"):
        bare.rounds()
