"""The window without a browser: settings, frames, pictures, details of a node, sessions."""

from __future__ import annotations

import math
import re
import socket
import sys
import threading
import time
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_tests
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import fcfn_abm as fa
from fcfn_abm.build import scenario_schema
from fcfn_abm.errors import (
    FcfnError,
    InvalidRecordError,
    InvalidScenarioError,
    MissingExtraError,
    OutputError,
)
from fcfn_abm.mechanisms import MECHANISMS
from fcfn_abm.scenario import Scenario
from fcfn_abm.viz import pictures, server, settings
from fcfn_abm.viz.live import LiveMarket
from fcfn_abm.viz.node_details import describe_node
from fcfn_abm.viz.replay import Replay
from fcfn_abm.viz.requests import parse_request
from fcfn_abm.viz.session import OpenedSource, Session, open_source
from fcfn_abm.viz.star import CROWD, draw_star
from fcfn_abm.viz.svg import Chart, Scale, decades, dots, labels, number, text, ticks
from fcfn_abm.viz.view import draw_pictures, list_tiles

pytestmark = pytest.mark.slow

QUICKSTART = "scenarios/quickstart.toml"
NO_TRAINING = ["training.enabled=false"]
SVG = "{http://www.w3.org/2000/svg}"


def scenario(*overrides):
    return fa.load_scenario(QUICKSTART, [*NO_TRAINING, *overrides])


def played(rounds, *overrides):
    market = LiveMarket(scenario(*overrides))
    for _ in range(rounds):
        market.step()
    return market


def controls(tree):
    return {c["path"]: c for group in settings.describe_settings(tree) for c in group["controls"]}


# Settings

TREE = settings.tree_of(Scenario(seed=1))


def test_settings_have_the_help_and_the_limits_of_the_schema():
    found = controls(settings.tree_of(scenario()))
    definitions = scenario_schema()["$defs"]
    for section, name in (("game", "Game"), ("rounds", "Rounds"), ("exit", "Exit")):
        for key, field in definitions[name]["properties"].items():
            control = found[f"{section}.{key}"]
            assert control["help"] == " ".join(field["description"].replace("`", "").split())
            if "enum" in field:
                assert [option["value"] for option in control["options"]] == field["enum"]
            if "maximum" in field:
                assert control["high"] <= field["maximum"]
            if control.get("slider"):
                assert control["low"] <= control["value"] <= control["high"]


def test_every_kind_that_needs_no_more_than_a_name_can_be_chosen():
    found = controls(settings.tree_of(scenario()))
    mechanisms = [option["value"] for option in found["mechanism.kind"]["options"]]
    assert {"stackelberg", "static"} <= set(mechanisms) <= set(MECHANISMS)
    laws = [option["value"] for option in found["population.rho.kind"]["options"]]
    assert "lognormal" in laws
    assert "listed" not in laws
    assert {"population.rho.sigma", "learning.gain", "server.settled"} <= set(found)


@settings_of_tests(max_examples=25, deadline=None)
@given(value=st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.booleans()))
@pytest.mark.parametrize("path", ["game.alpha", "population.n_nodes", "learning.gain", "seed"])
def test_whatever_is_typed_either_holds_or_is_refused_in_a_sentence(path, value):
    if path == "population.n_nodes" and isinstance(value, int):
        value = min(value, 100_000)
    tree = settings.replace_value(TREE, path, value)
    assert controls(tree)[path]["path"] == path  # it can be shown, right or wrong
    refused = None
    try:
        made = settings.parse_tree(tree)
    except InvalidScenarioError as error:
        refused = str(error)
    if refused is None:
        for part in path.split("."):
            made = made.options[part] if hasattr(made, "options") else getattr(made, part)
        assert value is None or made == value
    else:
        assert refused.startswith("settings, ")
        assert "\n" not in refused


def test_another_kind_takes_its_own_options_and_leaves_the_old_ones():
    tree = settings.replace_value(settings.tree_of(scenario()), "population.rho.kind", "uniform")
    found = controls(tree)
    assert {"population.rho.low", "population.rho.high"} <= set(found)
    assert "population.rho.sigma" not in found
    assert settings.parse_tree(tree).population.rho.kind == "uniform"


def test_an_emptied_field_leaves_the_value_out():
    tree = settings.replace_value(
        settings.tree_of(scenario("game.budget=3.0")), "game.budget", None
    )
    assert settings.parse_tree(tree).game.budget is None


# Numbers against the model


def test_the_window_plays_the_very_market_of_the_library():
    live, market = played(12), fa.PrivacyMarket(scenario())
    for _ in range(12):
        market.step()
    frame = live.frame()
    assert_array_equal(frame.epsilon, market.columns.epsilon)
    assert_array_equal(frame.payment, market.columns.payment)
    left_before = market.columns.exited & (market.columns.exit_round < 12)
    assert_array_equal(frame.exited, left_before)
    assert frame.history["budget"][-1] == market.budget
    shown = {tile["label"]: tile for tile in list_tiles([frame])}
    assert shown["Total epsilon S"]["value"] == number(market.total_epsilon)
    assert shown["Active nodes"]["value"] == str(market.n_active)
    form = market.equilibrium
    assert shown["Payment cap B"]["note"] == f"closed form {number(form.budget)}"
    assert f"closed form {form.n_active} of 50" == shown["Active nodes"]["note"]


def test_the_line_of_the_closed_form_is_the_equilibrium_at_this_cap():
    frame = played(20).frame()
    expected = fa.nash_equilibrium(frame.rho, frame.history["budget"][-1]).epsilon
    line = pictures._closed_form(frame, frame.rho)
    assert_allclose(line, expected, atol=1e-9 * expected.max())


def test_the_closed_form_follows_nodes_that_come_and_go():
    churn = "population.churn={departures=0.2, drift=0.2}"
    market = LiveMarket(fa.load_scenario("scenarios/dynamics/cold-start.toml", [churn]))
    thresholds = []
    for _ in range(4):
        market.step()
        present = market.market.columns.rho[market.market.present]
        game = fa.nash_equilibrium(present, 1.0)
        assert_allclose(market.frame().form["threshold"], game.tau / (game.n_active - 1))
        thresholds.append(market.form["threshold"])
    assert len(set(thresholds)) == 4


@pytest.mark.parametrize("schedule", ["at-equilibrium", "every-round"])
def test_training_in_the_window_is_the_training_of_a_run(schedule):
    short = fa.load_scenario(
        QUICKSTART,
        [
            f"training.schedule={schedule}",
            "training.rounds=3",
            "population.n_nodes=8",
            "training.compare=[]",
        ],
    )
    record = fa.run_scenario(short)
    live, threads = LiveMarket(short), set(threading.enumerate())
    while not live.over:
        live.step()
        assert set(threading.enumerate()) <= threads  # none waits for the window
    rounds, accuracy = live.frame().training.curves["stackelberg"]
    assert_array_equal(rounds, record.training["round"])
    assert_array_equal(accuracy, record.training["accuracy"])
    assert live.verdict == record.run["verdict"]
    assert_array_equal(live.frame().epsilon, record.nodes["epsilon"])


def test_a_training_that_cannot_begin_is_reported_and_the_market_continues(monkeypatch):
    live = LiveMarket(fa.load_scenario(QUICKSTART, ["training.schedule=every-round"]))

    def missing(*_):
        raise MissingExtraError("Training needs torch: pip install 'fcfn-abm[train]'.")

    monkeypatch.setattr("fcfn_abm.build.create_trainer", missing)
    for _ in range(4):
        live.step()
    assert "fcfn-abm[train]" in live.frame().note
    assert live.market.round_index == 3


# Pictures

CASES = {
    "before the first round": (0, []),
    "on the way": (7, []),
    "at rest": (90, []),
    "a crowd": (3, ["population.n_nodes=3000"]),
    "a crowd that all takes part": (2, ["population.n_nodes=3000", "population.rho.sigma=0.0"]),
    "no trade": (4, ["game.alpha=1e-9"]),
    "contracts": (6, ["mechanism.kind=ic-mle"]),
    "a crowd with random prices": (3, ["mechanism.kind=random", "population.n_nodes=2500"]),
    "an agency": (6, ["mechanism.kind=yang"]),
    "two nodes": (6, ["population.n_nodes=2"]),
    "a cold start": (3, ["rounds.start=cold"]),
    "far too large steps": (
        30,
        ["rounds.order=simultaneous", "learning.gain=1.0", "population.n_nodes=12"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_picture_is_complete_and_has_a_text_alternative(case):
    rounds, overrides = CASES[case]
    live = played(0, *overrides)
    for _ in range(rounds):
        if not live.over:
            live.step()
    for picture in [
        *draw_pictures(live.frame(), "utility", 1),
        pictures.draw_node_path(live.frame(), 1, live.path(1)),
    ]:
        root = ElementTree.fromstring(picture.svg)
        assert root.tag == f"{SVG}svg"
        assert "nan" not in picture.svg
        assert "inf" not in picture.svg
        assert len(picture.alt) > 30
        for element in root.iter(f"{SVG}text"):
            x, y = float(element.get("x")), float(element.get("y"))
            width, height = map(float, root.get("viewBox").split()[2:])
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_discs_have_areas_in_proportion_to_epsilon_and_nodes_out_are_grey():
    frame = played(30).frame()
    picture = draw_star(frame, "payment")
    root = ElementTree.fromstring(picture.svg)
    at = {(float(c.get("cx")), float(c.get("cy"))): c for c in root.iter(f"{SVG}circle")}
    rows, across, down = picture.places
    discs = [at[round(x, 1), round(y, 1)] for x, y in zip(across, down, strict=True)]
    assert_array_equal(rows, np.arange(50))
    largest = int(np.argmax(frame.epsilon))
    for node, disc in enumerate(discs):
        if frame.epsilon[node] > 0.05 * frame.epsilon[largest]:
            share = (float(disc.get("r")) / float(discs[largest].get("r"))) ** 2
            assert share == pytest.approx(frame.epsilon[node] / frame.epsilon[largest], rel=0.05)
        elif frame.exited[node]:
            assert disc.get("fill") == "#8C8C8C"
            assert pictures.describe_place(frame, node).endswith("exited")


def test_a_click_on_a_node_finds_it_and_one_beside_it_finds_none():
    frame = played(10).frame()
    for picture in (draw_star(frame, "payment"), pictures.draw_rho_epsilon(frame)):
        rows, x, y = picture.places
        for place in range(0, 50, 7):
            found = picture.node_at(float(x[place]) + 0.2, float(y[place]) + 0.2)
            assert np.hypot(*(v[found] - v[place] for v in (x, y))) < 1  # some lie on each other
        assert picture.node_at(-100.0, -100.0) is None
        assert_array_equal(rows, np.arange(50))


def test_rings_count_who_takes_part_among_the_cheapest():
    frame = played(4, "population.n_nodes=5000").frame()
    assert frame.n_nodes > CROWD
    picture = draw_star(frame, "payment")
    cheapest = np.argsort(frame.rho, kind="stable")
    for within in (10, 100, 1000, 5000):
        sold = np.count_nonzero(frame.epsilon[cheapest[:within]])
        assert f"{sold:,} of the {within:,} nodes with the lowest costs are active" in picture.alt


def test_labels_of_rings_keep_clear_of_each_other():
    for n_nodes, seen in ((5000, ["10", "100", "10³"]), (10**6, ["100", "10⁴", "10⁶"])):
        frame = played(1, f"population.n_nodes={n_nodes}", "training.enabled=false").frame()
        root = ElementTree.fromstring(draw_star(frame, "payment").svg)
        marks = {
            float(e.get("x")): "".join(e.itertext())
            for e in root.iter(f"{SVG}text")
            if re.fullmatch(r"10+|10[⁰-⁹³]", "".join(e.itertext()))
        }
        assert [marks[x] for x in sorted(marks, reverse=True)] == seen
        assert min(-np.diff(sorted(marks, reverse=True))) > 20


def test_hostile_words_stay_words():
    assert "<script" not in text(1, 2, '<script>alert(1)</script>"&')


@given(
    low=st.floats(-1e6, 1e6),
    span=st.floats(1e-6, 1e6),
)
def test_ticks_are_few_round_and_inside(low, span):
    found = ticks(low, low + span)
    slack = 1e-6 * max(span, abs(low))
    assert 1 <= len(found) <= 7
    assert all(low - slack <= value <= low + span + slack for value in found)
    assert_allclose(np.diff(found), np.diff(found)[:1].repeat(len(found) - 1), rtol=1e-6)


def test_scales_put_values_in_their_places():
    assert_allclose(Scale(0, 10, 100, 200)([0, 5, 10]), [100, 150, 200])
    places = Scale(1, 100, 0, 100, log=True)([1, 10, 100, 0])
    assert_allclose(places[:3], [0, 50, 100])
    assert math.isnan(places[3])
    assert decades(1e-12, 1.0, most=4) == pytest.approx([1e-12, 1e-8, 1e-4, 1.0])
    assert dots(np.array([1.0]), np.array([2.0]), "#000", size=3).count("M1.0 2.0h0") == 1


def words_at(svg):
    """Return the words of a drawing with where they begin or have their middle."""
    return re.findall(r'<text x="([\d.]+)" [^>]*text-anchor="(\w+)"[^>]*>([^<]+)<', svg)


def test_labels_of_close_ticks_differ_and_do_not_overlap():
    assert labels([0.0, 0.5, 1.0]) == ["0", "0.5", "1"]
    assert labels([20_000.0, 20_000.2]) == ["20000", "20000.2"]
    chart = Chart(Scale(0.0005, 0.0005024, 50, 300), Scale(0, 1, 200, 40))
    marks = [(float(x), name) for x, anchor, name in words_at(chart.render()) if anchor == "middle"]
    assert len(marks) >= 2
    assert len({float(name) for _, name in marks}) == len(marks)
    for (x, name), (x_next, name_next) in pairwise(marks):
        assert x_next - x > 7 * (len(name) + len(name_next)) / 2


def test_a_long_legend_stays_inside_its_chart():
    chart = Chart(Scale(0, 1, 50, 366), Scale(0, 1, 200, 40))
    for name in ("take part", "have left", "closed form: 1,000,000"):
        chart.line([0, 1], [0, 1], "#000", name)
    named = [(float(x), name) for x, _, name in words_at(chart.render()) if name[0] in "thc"]
    assert [name for _, name in named] == [name for name, _, _ in chart.legend]
    assert named[0][0] >= 0
    assert named[-1][0] + 7 * len(named[-1][1]) <= pictures.WIDTH


# Details of a node


def test_the_details_of_a_node_say_when_and_why_a_node_left():
    live = played(40)
    frame, columns = live.frame(), live.market.columns
    gone = np.flatnonzero(columns.exited)
    assert gone.size
    for node in gone.tolist():
        left = int(columns.exit_round[node])
        price = frame.history["budget"][left - 1] / frame.history["total_epsilon"][left - 1]
        sentences = " ".join(describe_node(frame, live, node))
        assert f"exited at the end of round {left}" in sentences
        assert f"B/S = {number(price)}" in sentences
        assert f"its unit cost is {number(columns.rho[node])}" in sentences
        assert price < columns.rho[node]


def test_the_details_of_a_node_that_stays_say_what_it_earns():
    live = played(40)
    frame = live.frame()
    cheapest = int(np.argmin(frame.rho))
    sentences = " ".join(describe_node(frame, live, cheapest))
    assert "0 nodes have lower costs" in sentences
    assert "it takes part" in sentences
    assert f"its utility after privacy costs is {number(frame.utility[cheapest])}" in sentences
    assert "exited" not in sentences
    assert "There is no node 50" in describe_node(frame, live, 50)[0]


def test_final_exits_are_described_as_final():
    live = played(20, "exit.reentry=false")
    node = int(np.flatnonzero(live.market.columns.exited)[0])
    assert "exits are final" in describe_node(live.frame(), live, node)[-1]


def test_the_path_of_a_node_is_what_it_reported():
    live, market = played(0), fa.PrivacyMarket(scenario())
    epsilon = [market.columns.epsilon[3]]
    for _ in range(6):
        live.step()
        market.step()
        epsilon.append(market.columns.epsilon[3])
    known = live.path(3)
    assert list(known.rounds) == list(range(7))
    assert_array_equal(known.epsilon, epsilon)


# Replays


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return fa.run_scenario(scenario()).write(tmp_path_factory.mktemp("records") / "run")


def test_a_replay_shows_each_round_as_it_was_played(record):
    replay, live = Replay(record), LiveMarket(record.scenario)
    assert replay.over
    for moment in range(1, 13):
        live.step()
        replay.seek(moment)
        then, now = replay.frame(), live.frame()
        assert_array_equal(then.epsilon, now.epsilon)
        assert_array_equal(then.utility, now.utility)
        assert then.history == {k: list(v) for k, v in now.history.items()}
        assert replay.verdict is None
    assert list(replay.path(5).epsilon) == list(live.path(5).epsilon)[1:]
    replay.seek(10**9)
    assert replay.verdict == record.run["verdict"]
    left_before = (record.nodes["exit_round"] < len(record.rounds)).fillna(False)
    assert_array_equal(replay.frame().exited, left_before)


def test_a_replay_says_of_whom_traces_are_missing():
    record = fa.run_scenario(scenario("population.n_nodes=200", "record.traces=last:2"))
    replay = Replay(record)
    replay.seek(1)
    assert replay.frame().nodes.size == 0
    assert "No traces of this round were recorded" in replay.frame().note
    for picture in draw_pictures(replay.frame(), "payment", 3):
        assert ElementTree.fromstring(picture.svg).tag == f"{SVG}svg"
    sampled = Replay(fa.run_scenario(scenario("population.n_nodes=200")))
    sampled.seek(2)
    assert sampled.frame().nodes.size == 64
    assert "64 of 200 nodes" in sampled.frame().note
    sampled.seek(10**6)
    assert sampled.frame().note == ""


def test_a_record_without_rounds_is_refused(record, tmp_path):
    from dataclasses import replace

    replace(record, rounds=record.rounds.iloc[:0]).write(tmp_path / "empty")
    with pytest.raises(InvalidRecordError, match="has no rounds to show"):
        open_source(tmp_path / "empty")
    with pytest.raises(InvalidScenarioError, match="a record cannot be changed"):
        open_source(record.path, ("game.alpha=2",))


# Sessions


def session_of(opened):
    views = []
    session = Session(opened, views.append)
    session._open()
    return session, views


def handle_requests(session, views, *requests):
    for action, *arguments in requests:
        session._try(lambda a=action, d=arguments: session.handle(a, *d))
    session.show()
    return views[-1]


def test_step_reset_and_settings_do_what_they_say():
    session, views = session_of(OpenedSource("quick", scenario()))
    assert handle_requests(session, views, ("step",), ("step",)).moment == 2
    assert handle_requests(session, views, ("reset",)).moment == 0
    view = handle_requests(session, views, ("step",), ("set", "population.n_nodes", 20))
    assert (view.moment, view.n_nodes) == (0, 20)
    view = handle_requests(session, views, ("pick", 7), ("colour", "utility"), ("speed", 1e9))
    assert (view.picked, view.colour_by, view.speed) == (7, "utility", 100.0)
    assert len(view.node_details) >= 2
    star_ = session._pictures["star"]
    rows, x, y = star_.places
    assert handle_requests(session, views, ("pick_at", "star", x[3], y[3])).picked == rows[3]


def test_an_invalid_setting_is_a_sentence_and_the_market_plays_on():
    session, views = session_of(OpenedSource("quick", scenario()))
    view = handle_requests(session, views, ("step",), ("play",), ("set", "game.alpha", -1))
    assert view.rejected == {
        "game.alpha": "[game] alpha: input should be greater than 0, but it is -1."
    }
    assert (view.playing, view.moment, len(view.pictures)) == (True, 1, 2)
    assert session._sources[0].scenario.game.alpha == scenario().game.alpha
    assert handle_requests(session, views, ("step",)).rejected == view.rejected
    corrected = handle_requests(session, views, ("set", "game.alpha", 3.0))
    assert (corrected.rejected, corrected.moment) == ({}, 0)


def test_all_settings_that_are_wrong_are_marked_at_once():
    session, views = session_of(OpenedSource("quick", scenario()))
    view = handle_requests(
        session, views, ("set", "game.alpha", -1), ("set", "population.n_nodes", 1)
    )
    assert {path: why.split(":")[0] for path, why in view.rejected.items()} == {
        "game.alpha": "[game] alpha",
        "population.n_nodes": "[population] n_nodes",
    }
    view = handle_requests(session, views, ("put_back", "game.alpha"))
    assert set(view.rejected) == {"population.n_nodes"}
    view = handle_requests(session, views, ("put_back", "population.n_nodes"))
    assert (view.rejected, view.n_nodes) == ({}, 50)


def test_two_settings_that_need_each_other_can_be_set_one_after_the_other():
    session, views = session_of(OpenedSource("quick", scenario()))
    view = handle_requests(session, views, ("set", "server.kind", "fixed"))
    assert "budget: is required" in view.rejected["game.budget"]
    view = handle_requests(session, views, ("set", "game.budget", 4))
    assert view.rejected == {}
    assert session._scenario.server.kind == "fixed"


@pytest.mark.parametrize(
    "request_",
    [
        ("set", "no.such.key", 1),
        ("set", "game", 1),
        ("pick", "x"),
        ("pick", -1),
        ("pick_at", "star", "a", "b"),
        ("pick_at", "nothing", 1, 2),
        ("seek", 3),
        ("speed", None),
        ("colour", "<b>"),
        ("nonsense",),
        ("step", 1, 2, 3),
        ("set",),
        ("hover", "nothing", 1, 2),
        ("pick_next", 10**12),
        ("put_back", "no.such.key"),
        ("unpin", "run 7"),
        ("use", "run 7"),
        ("download", "../etc/passwd"),
        ("upload", "a.csv", 3, 5, ""),
        ("upload", "a.csv", 0, 10**9, ""),
        ("upload", "a.csv", 0, 1, "no base 64"),
    ],
)
def test_whatever_a_browser_asks_for_the_window_stays(request_):
    session, views = session_of(OpenedSource("quick", scenario()))
    handle_requests(session, views, request_)
    view = handle_requests(session, views, ("reset",), ("step",))
    assert (view.problem, view.moment, len(view.pictures)) == ("", 1, 2)


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        "play",
        {},
        {"action": None, "arguments": []},
        {"action": ["play"], "arguments": []},
        {"action": "_open", "arguments": []},
        {"action": "play"},
        {"action": "play", "arguments": [1]},
        {"action": "seek", "arguments": ["3"]},
        {"action": "seek", "arguments": [True]},
        {"action": "speed", "arguments": [math.inf]},
        {"action": "pick_at", "arguments": ["star", math.nan, 1]},
        {"action": "set", "arguments": [["game.alpha"], 1]},
        {"action": "set", "arguments": ["game.alpha", {"a": 1}]},
        {"action": "upload", "arguments": ["a.csv", 0.5, 1, ""]},
        {"action": "upload", "arguments": ["a.csv", 0, 1, None]},
        {"action": "download", "arguments": []},
        {"action": "pick_next", "arguments": [1.5]},
    ],
)
def test_a_message_that_the_page_does_not_send_is_refused(message):
    with pytest.raises(ValueError, match=r"\w"):
        parse_request(message)


def test_the_messages_of_the_page_are_taken():
    for action, arguments in (
        ("play", []),
        ("seek", [3]),
        ("speed", [2.5]),
        ("set", ["game.alpha", None]),
        ("set", ["exit.reentry", True]),
        ("pick", [None]),
        ("pick_at", ["star", 1, 2.5]),
    ):
        assert parse_request({"action": action, "arguments": arguments}) == (action, arguments)


def test_settings_that_the_window_does_not_show_cannot_be_set():
    session, views = session_of(OpenedSource("quick", scenario()))
    before = session._scenario
    for path in ("training.data.path", "title", "imports", "game", "population.rho"):
        view = handle_requests(session, views, ("set", path, "x"))
        assert view.problem == f"The window has no setting {path!r}."
    assert session._scenario is before
    assert handle_requests(session, views, ("set", "game.alpha", 3.0)).problem == ""


def test_a_session_has_at_most_a_million_nodes_or_as_many_as_were_opened():
    session, views = session_of(OpenedSource("quick", scenario()))
    view = handle_requests(session, views, ("set", "population.n_nodes", 1_000_001))
    assert view.rejected["population.n_nodes"].startswith(
        "[population] n_nodes: must be at most 1,000,000 in the window"
    )
    assert view.n_nodes == 50
    large = scenario("population.n_nodes=1000003")
    session = Session(OpenedSource("large", large), views.append)
    session._require_few_nodes(large)
    with pytest.raises(InvalidScenarioError, match="at most 1,000,003"):
        session._require_few_nodes(scenario("population.n_nodes=1000004"))


def test_play_continues_to_the_verdict_in_its_own_thread():
    views = []
    session = Session(OpenedSource("quick", scenario("population.n_nodes=10")), views.append)
    session.start()
    session.request("speed", 100)
    session.request("play")
    until(lambda: views and views[-1].over)
    assert not views[-1].playing
    assert views[-1].status.startswith("Converged after")
    assert views[-1].tone == "good"
    session.close()


def test_two_sessions_on_the_same_scenario_share_nothing():
    opened = OpenedSource("quick", scenario())
    (one, seen), (two, others) = session_of(opened), session_of(opened)
    handle_requests(one, seen, ("step",), ("step",), ("set", "population.n_nodes", 9), ("step",))
    view = handle_requests(two, others, ("step",))
    assert (view.moment, view.n_nodes) == (1, 50)
    assert (seen[-1].moment, seen[-1].n_nodes) == (1, 9)


def test_a_replay_opens_at_its_end_and_plays_from_the_start(record):
    session, views = session_of(open_source(record.path))
    assert handle_requests(session, views).over
    view = handle_requests(session, views, ("play",))
    assert (view.moment, view.playing, view.live) == (1, True, False)
    view = handle_requests(session, views, ("seek", 5))
    assert (view.moment, view.playing) == (5, False)
    assert view.status == "Paused after round 5; the market has not ended."
    assert view.groups == []
    assert handle_requests(session, views, ("set", "game.alpha", 1)).moment == 5


def until(true, seconds=120.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


# Serving


def test_a_port_in_use_raises_an_error_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OutputError, match=rf"port {port}: address already in use.*--port"):
            server.serve(OpenedSource("quick", Scenario()), port=port)


def test_without_the_extra_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "solara", None)
    with pytest.raises(
        MissingExtraError, match=r"The window requires solara: pip install 'fcfn-abm\[viz\]'"
    ):
        server.serve(OpenedSource("quick", Scenario()), port=0)


@pytest.mark.parametrize("path", ["nowhere.toml", "scenarios"])
def test_what_is_neither_a_scenario_nor_a_record_is_refused(path):
    from pathlib import Path

    with pytest.raises(FcfnError, match=path):
        open_source(Path(path))
