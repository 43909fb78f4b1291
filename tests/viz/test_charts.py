"""The charts without a browser: what they show, their axes, and how their columns travel."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fcfn_abm as fa
from fcfn_abm.viz.charts import Feed, choose_range, describe_charts, list_tables
from fcfn_abm.viz.frame import Training
from fcfn_abm.viz.live import LiveMarket
from fcfn_abm.viz.replay import Replay
from fcfn_abm.viz.server import ASSETS

pytestmark = pytest.mark.slow


def played(rounds, *overrides):
    scenario = fa.load_scenario("quickstart", ["training.enabled=false", *overrides])
    market = LiveMarket(scenario)
    for _ in range(rounds):
        if not market.over:
            market.step()
    return market


CASES = {
    "at rest": (0, []),
    "a round": (1, []),
    "an end": (200, []),
    "random": (1, ["mechanism.kind=random"]),
    "ic-mle": (1, ["mechanism.kind=ic-mle"]),
    "no trade": (3, ["game.alpha=0.01", "game.beta=0.0001"]),
    "huge": (3, ["game.beta=1e15"]),
    "many": (3, ["population.n_nodes=5000"]),
    "two": (3, ["population.n_nodes=2"]),
    "diverging": (30, ["rounds.order=simultaneous", "learning.gain=1.0", "population.n_nodes=12"]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_chart_has_a_text_alternative_and_axes_that_can_be_drawn(case):
    rounds, overrides = CASES[case]
    frame = played(rounds, *overrides).frame()
    tables = list_tables(frame)
    charts = describe_charts(frame)
    assert len({chart.name for chart in charts}) == len(charts) == 6
    for chart in charts:
        json.dumps(asdict(chart), allow_nan=False)  # a browser reads no NaN
        assert len(chart.alt) > 30
        assert chart.low < chart.high
        assert chart.low > 0 or not chart.log
        assert chart.x_end >= max(frame.round, 1)
        assert len({line.label for line in chart.lines} | {chart.level_label}) == (
            len(chart.lines) + 1
        )
        for line in chart.lines:
            assert len(tables[line.table][line.column]) == frame.round
            assert list(tables[line.table][line.x]) == list(range(1, frame.round + 1))


def test_training_has_a_curve_for_each_run_beside_rounds_of_its_own():
    hostile = '<script>alert(1)</script>"&'
    curves = {"stackelberg": ([0, 1, 2], [0.1, 0.2, 0.3]), hostile: ([0], [0.1])}
    frame = replace(played(1).frame(), training=Training("digits", curves, 60))
    *_, chart = describe_charts(frame)
    assert (chart.name, chart.linked, chart.x_end) == ("accuracy", False, 60)
    assert [line.label for line in chart.lines] == ["equilibrium", hostile]
    tables = list_tables(frame)
    for line, (rounds, accuracy) in zip(chart.lines, curves.values(), strict=True):
        assert tables[line.table] == {"round": rounds, "accuracy": accuracy}
    assert "equilibrium 30.0%" in chart.alt


def test_where_the_market_stands_is_in_sight_however_great_its_losses():
    frame = played(5).frame()
    for losses in ([-1e9, -2e6, -1e5, -3e4, -20230.0], [-1e9, -40.0, -3.0, 0.1, 0.2]):
        history = {**frame.history, "node_utility": losses}
        chart = describe_charts(replace(frame, history=history))[-1]
        assert chart.name == "node-utilities"
        assert chart.low <= losses[-1] <= chart.high
        assert losses[0] < chart.low  # the first losses would squeeze all else


values = st.floats(-1e12, 1e12) | st.just(math.nan)


@given(column=st.lists(values, max_size=20), level=st.floats(-1e12, 1e12))
def test_the_latest_value_and_the_reference_lie_between_the_ends_of_the_axis(column, level):
    low, high, log = choose_range([np.array(column)], level)
    assert low < high
    assert low > 0 or not log
    if column and math.isfinite(column[-1]):
        assert low <= column[-1] <= high
    if level >= 0 and (not log or level > 0):
        assert low <= level <= high


class Browser:
    """What ``charts.vue`` does with the messages, in Python."""

    def __init__(self):
        self.versions, self.tables, self.n_bytes = {}, {}, 0

    def receive(self, heads, buffers):
        for head, buffer in zip(heads, buffers, strict=True):
            self.n_bytes += len(buffer)
            if head["version"] != self.versions.get(head["table"]):
                self.versions[head["table"]] = head["version"]
                self.tables.pop(head["table"], None)
            rows = np.frombuffer(buffer, "<f8").reshape(len(head["columns"]), -1)
            table = self.tables.setdefault(head["table"], {})
            for name, new in zip(head["columns"], rows, strict=True):
                known = table.get(name, [])
                assert len(known) >= head["start"]
                table[name] = [*known[: head["start"]], *new.tolist()]


@given(
    events=st.lists(
        st.tuples(st.sampled_from(["play", "seek", "reload", "reset"]), st.integers(0, 9)),
        max_size=30,
    )
)
def test_the_browser_has_the_columns_whatever_happened(events):
    browser, version, length = Browser(), 0, 0
    feed = Feed(lambda heads, buffers: browser.receive(heads, buffers))
    for event, number in events:
        if event == "play":
            length += number
        elif event == "seek":
            length = min(length, number)
        elif event == "reload":
            browser = Browser()
            feed.restart()
        else:
            version, length = version + 1, number
        column = [1000.0 * version + k for k in range(length)]
        tables = {"market": {"round": range(length), "S": column}, "other": {"x": column[:3]}}
        feed.push(tables, version)
        assert browser.tables["market"] == {"round": list(range(length)), "S": column}
        assert browser.tables["other"] == {"x": column[:3]}


def test_a_round_costs_one_row_and_not_all_rounds_again():
    browser = Browser()
    feed, market = Feed(browser.receive), played(50, "rounds.tolerance=1e-300")
    feed.push(list_tables(market.frame()), 1)
    columns = len(browser.tables["market"])
    assert browser.n_bytes == 50 * columns * 8
    market.step()
    feed.push(list_tables(market.frame()), 1)
    assert browser.n_bytes == 51 * columns * 8
    feed.push(list_tables(market.frame()), 1)
    assert browser.n_bytes == 51 * columns * 8


def test_a_replay_sends_the_columns_of_the_record():
    record = fa.run_scenario(fa.load_scenario("quickstart", ["training.enabled=false"]))
    browser, replay = Browser(), Replay(record)
    feed = Feed(browser.receive)
    for moment in (len(record.rounds), 2, 7):
        replay.seek(moment)
        feed.push(list_tables(replay.frame()), 1)
        then = record.rounds.iloc[:moment]
        for name, column in browser.tables["market"].items():
            np.testing.assert_array_equal(column, then[name].to_numpy(dtype=float))


def test_the_library_is_the_file_that_its_note_names():
    note = (ASSETS / "README.md").read_text()
    ((name, digest),) = re.findall(r"`([\w.]+\.js)`.*`([0-9a-f]{64})`", note)
    assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest
    assert {path.name for path in ASSETS.iterdir() if path.suffix == ".js"} == {name}
    assert "Apache License" in (ASSETS / "echarts.LICENSE").read_text()
    assert "Apache Software Foundation" in (ASSETS / "echarts.NOTICE").read_text()


def test_the_window_uses_nothing_of_solara_that_asks_the_internet():
    for path in ASSETS.parent.glob("*.py"):
        for name in ("Markdown", "FigureAltair", "FigurePlotly", "FigureEcharts"):
            assert f"solara.{name}" not in path.read_text()
    for path in ASSETS.parent.glob("*.vue"):
        assert "://" not in path.read_text()


def test_a_server_that_learns_has_charts_of_what_it_learns_live_and_replayed():
    settings = ["population.n_nodes=8", "training.rounds=3", "training.compare=[]"]
    scenario = fa.load_scenario("closed_loop/digits", [*settings, "rounds.maximum=5"])
    market, replay = LiveMarket(scenario), Replay(fa.run_scenario(scenario))
    while not market.over:
        market.step()
    live, replayed = market.frame(), replay.frame()
    names = {"spent", "alpha", "beta", "round-value"}
    for frame in (live, replayed):
        charts = {chart.name: chart for chart in describe_charts(frame)}
        assert names <= set(charts)
        for name in names:
            json.dumps(asdict(charts[name]), allow_nan=False)
            assert charts[name].low < charts[name].high
    for name, values in list_tables(live)["market"].items():
        np.testing.assert_array_equal(values, list_tables(replayed)["market"][name])
    assert np.isfinite(live.history["alpha"]).tolist() == [True] * 3 + [False] * 2
