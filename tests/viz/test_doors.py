"""What comes into the window and what leaves it: files, links, pinned runs, two records."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_tests
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fcfn_abm as fa
from fcfn_abm.errors import InvalidRecordError, InvalidScenarioError
from fcfn_abm.viz import settings
from fcfn_abm.viz.charts import Ghost, describe_charts
from fcfn_abm.viz.files import MOST_BYTES, read_file
from fcfn_abm.viz.labels import name_key
from fcfn_abm.viz.live import LiveMarket
from fcfn_abm.viz.pins import COLOURS, MOST_PINS, list_differences, take_run
from fcfn_abm.viz.session import MOST_PARTS, OpenedSource, Session, open_sources

pytestmark = pytest.mark.slow


def scenario(*overrides):
    return fa.load_scenario("quickstart", ["training.enabled=false", *overrides])


class Tab:
    """A session without its thread, and what it sent."""

    def __init__(self, opened=None, query=""):
        self.views, self.files, self.rows = [], {}, {}
        opened = opened or OpenedSource("quick", scenario())
        self.session = Session(opened, self.views.append, self._take, self.files.__setitem__, query)
        self.session._open_first()
        self.session.show()

    def _take(self, heads, buffers):
        for head, buffer in zip(heads, buffers, strict=True):
            new = len(buffer) // 8 // len(head["columns"])
            self.rows[head["table"]] = head["start"] + new

    def ask(self, action, *arguments):
        self.session._try(lambda: self.session.handle(action, *arguments))
        self.session.show()
        return self.view

    def open(self, name, content):
        return self.ask("upload", name, 0, 1, base64.b64encode(content).decode())

    @property
    def view(self):
        return self.views[-1]

    @property
    def playing(self):
        return self.session._sources[0].scenario


# Files that come in

TOML = b"""
title = "Brought along"
seed = 3
[population]
n_nodes = 12
[game]
alpha = 5.0
"""
CSV = "\ufeffname;rho\r\nA;0,1\r\nB;0,2\r\nC;0,15\r\n".encode()


def test_a_scenario_file_is_what_is_played_from_then_on(tmp_path):
    tab = Tab()
    tab.ask("step")
    view = tab.open("mine.toml", TOML)
    (tmp_path / "mine.toml").write_bytes(TOML)
    assert tab.playing == fa.load_scenario(tmp_path / "mine.toml")
    assert (view.title, view.subtitle, view.moment, view.n_nodes) == ("Brought along", "", 0, 12)
    assert view.link is None  # no link holds its title and its exits
    view = tab.ask("set", "game.alpha", 7.0)
    assert "Opened as \u201cBrought along\u201d" in view.subtitle
    assert tab.ask("put_all_back").title == "Brought along"


def test_a_table_of_costs_changes_the_nodes_and_nothing_else():
    tab = Tab()
    tab.ask("set", "game.alpha", 4.0)
    view = tab.open("costs.csv", CSV)
    assert view.problem == ""
    assert tab.playing.population.n_nodes == 3
    assert tab.playing.population.node_names == ("A", "B", "C")
    assert tab.playing.game.alpha == 4.0
    assert view.title == "3 nodes, costs from costs.csv, Stackelberg contest"
    assert_array_equal(tab.session._sources[0].frame().rho, [0.1, 0.2, 0.15])
    assert tab.ask("pick", 1).node_details[0] == "Its name is B."
    back = tab.ask("put_back", "population.rho.kind")
    assert tab.playing.population.rho.kind == "outliers"
    assert back.n_nodes == 3


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.toml", b"imports = ['x.py']", "a.toml, imports: names code, 'x.py'"),
        ("a.toml", b"[population]\nnode_class = 'x.py:N'", "names code, 'x.py:N'"),
        ("a.toml", b"[population]\ngroups=[{name='a', node_class='x.py:N'}]", "names code"),
        ("a.toml", b"extends = '/etc/hostname'", "must be the name of a bundled scenario"),
        ("a.toml", b"extends = ['a']", "must be the name of a bundled scenario"),
        ("a.toml", b"population.rho = 'csv:/etc/passwd'", "names the file '/etc/passwd'"),
        ("a.toml", b"training.data = 'parquet:/etc'", "names the file '/etc'"),
        ("a.toml", b"[game]\nalpha = -1", "a.toml, [game] alpha: input should be greater than 0"),
        ("a.toml", b"[game]\nalhpa = 1", "there is no such key"),
        ("a.toml", b"= 3", "a.toml: invalid TOML"),
        ("a.toml", b"a = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        ("a.toml", b"\xff", "it is not UTF-8 text"),
        ("a.toml", b"[population]\nn_nodes = 2000000", "at most 1,000,000 in the window"),
        ("a.csv", b"", "a.csv: the file is empty"),
        ("a.csv", b"rho\n1\nx\n3\n", "a.csv, line 3: 'rho' must be a number"),
        ("a.csv", b"rho\n1\n", "contains the costs of 1 nodes"),
        ("a.csv", b"\n" * 1_002_000, "has more than 1,000,000 lines"),
        ("../../x/y.csv", b"rho\n1\n-2\n", "y.csv, line 3: 'rho' must be"),
        ("a.exe", b"MZ", "a.exe: must be a scenario (.toml) or a table of costs (.csv)."),
        ("", b"", "file: must be a scenario"),
        ("\n\x1b[31m.toml", b"= 3", "invalid TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence_and_the_market_stays(name, content, sentence):
    tab = Tab()
    before = tab.ask("step").pictures
    view = tab.open(name, content)
    assert sentence in view.problem
    assert view.problem.count("\n") == 0
    assert view.problem.isprintable()
    assert (view.moment, view.pictures) == (1, before)
    assert tab.playing == scenario()


def test_a_scenario_with_the_code_that_was_allowed_may_come_back():
    opened = scenario().model_copy(update={"imports": ("rules.py",)})
    content = b"imports = ['rules.py']\n" + TOML
    assert read_file("a.toml", content, opened, opened).title == "Brought along"
    with pytest.raises(InvalidScenarioError, match=r"names code, 'other.py'"):
        read_file("a.toml", content.replace(b"rules", b"other"), opened, opened)


def test_a_bundled_scenario_may_be_extended():
    found = read_file("a.toml", b"extends = 'quickstart'\ngame.alpha = 3.0", scenario(), scenario())
    assert found.game.alpha == 3.0
    assert found.population == scenario().population


def test_a_large_file_arrives_in_parts_and_a_larger_one_is_refused():
    costs = "rho\n" + "\n".join(str(0.1 + k / 1e6) for k in range(30_000))
    content, tab = costs.encode(), Tab()
    parts = [content[k : k + 100_000] for k in range(0, len(content), 100_000)]
    for k, part in enumerate(parts):
        assert tab.view.n_nodes == 50
        tab.ask("upload", "c.csv", k, len(parts), base64.b64encode(part).decode())
    assert (tab.view.problem, tab.view.n_nodes) == ("", 30_000)
    view = tab.ask("upload", "c.csv", 0, MOST_PARTS + 1, "")
    assert "is incomplete or larger than 32 MiB" in view.problem
    with pytest.raises(
        InvalidScenarioError, match="has 33 MiB; the window opens files of at most 32 MiB"
    ):
        read_file("c.csv", b" " * (MOST_BYTES + 2**20), scenario(), scenario())


def test_parts_out_of_order_open_nothing():
    tab = Tab()
    half = base64.b64encode(TOML[:20]).decode()
    tab.ask("upload", "a.toml", 0, 3, half)
    assert "is incomplete" in tab.ask("upload", "a.toml", 2, 3, half).problem
    assert "is incomplete" in tab.ask("upload", "a.toml", 1, 3, half).problem
    assert tab.open("a.toml", TOML).title == "Brought along"


@settings_of_tests(max_examples=60, deadline=None)
@given(name=st.sampled_from(["a.toml", "a.csv"]), content=st.binary(max_size=60))
def test_whatever_a_file_holds_is_played_or_refused_in_a_sentence(name, content):
    tab = Tab()
    view = tab.open(name, content)
    assert "\n" not in view.problem
    assert (view.problem == "") == (tab.session._opens == 2)


def test_a_record_takes_no_files_and_keeps_its_settings(tmp_path):
    record = fa.run_scenario(scenario()).write(tmp_path / "record")
    tab = Tab(open_sources([record.path]))
    assert tab.open("a.toml", TOML).title == scenario().title
    assert tab.ask("put_all_back").groups == []


# Files that leave


def test_the_saved_scenario_is_what_is_played_and_opens_again(tmp_path):
    tab = Tab()
    tab.ask("set", "game.alpha", 20)
    tab.ask("set", "learning.kind", "gradient")
    tab.ask("set", "game.beta", -1)  # refused: the last good one is saved
    tab.ask("download", "scenario")
    (tmp_path / "scenario.toml").write_bytes(tab.files["scenario.toml"])
    assert fa.load_scenario(tmp_path / "scenario.toml") == tab.playing
    assert tab.playing.game.alpha == 20.0
    tab.open("scenario.toml", tab.files["scenario.toml"])
    assert tab.view.problem == ""


def test_the_record_is_called_like_the_market():
    tab = Tab()
    assert "No round has been played" in tab.ask("download", "record").problem
    tab.ask("step")
    tab.ask("download", "record")
    assert list(tab.files) == ["quick-start-50-nodes-sell-privacy.zip"]


# Links


def test_a_link_leads_to_the_same_settings():
    tab = Tab()
    for path, value in (
        ("game.alpha", 20),
        ("population.rho.kind", "uniform"),
        ("population.rho.high", 3.0),
        ("exit.reentry", False),
        ("learning.cautious", True),
        ("game.budget", 4.0),
        ("seed", 11),
    ):
        assert tab.ask("set", path, value).rejected == {}
    again = Tab(query=tab.view.link)
    assert again.view.problem == ""
    assert again.playing == tab.playing
    assert again.view.link == tab.view.link
    assert Tab().view.link == ""


def test_a_removed_value_is_in_the_link_too():
    opened = OpenedSource("quick", scenario("game.budget=3.0"))
    tab = Tab(opened)
    tab.ask("set", "game.budget", None)
    assert tab.view.link == "game.budget=null"
    assert Tab(opened, tab.view.link).playing.game.budget is None


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("nonsense=1", "there is no setting 'nonsense';"),
        ("imports=x.py", "there is no setting 'imports';"),
        ("training.data.path=/etc/passwd", "there is no setting 'training.data.path';"),
        ("population.rho=csv:/etc/passwd", "there is no setting 'population.rho';"),
        ("population.rho.kind=csv", "input"),
        ("game.alpha=-1", "the link: [game] alpha: input should be greater than 0"),
        ("game.alpha=NaN", "game"),
        ("game.alpha=[1]", "game"),
        ("game.alpha=" + "9" * 5000, "game"),
        ("population.n_nodes=1000001", "must be at most 1,000,000 in the window"),
        ("&".join(["game.alpha=1"] * 200), "has more than 100 settings"),
        ("game.alpha=1&game.alpha.x=2", "there is no setting 'game.alpha.x';"),
        ("token=abc", "there is no setting 'token';"),
    ],
)
def test_a_hostile_link_is_a_sentence_and_the_market_is_as_it_was_opened(query, sentence):
    tab = Tab(query=query)
    if query != "population.rho.kind=csv":  # which lacks its file, in other words
        assert sentence in tab.view.problem
    assert tab.view.problem.startswith("the link")
    assert tab.playing == scenario()
    assert tab.ask("step").moment == 1


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)


@settings_of_tests(max_examples=40, deadline=None)
@given(value=values, path=st.sampled_from(["game.alpha", "learning.kind", "exit.reentry", "seed"]))
def test_whatever_a_link_holds_the_window_opens(value, path):
    text = value if isinstance(value, str) else json.dumps(value)
    tab = Tab(query=urlencode({path: text}))
    assert tab.playing == scenario() or not tab.view.problem
    assert len(tab.view.pictures) == 2


# Pinned runs


def test_a_changed_setting_leaves_pinned_curves_where_they_are():
    tab = Tab()
    for _ in range(12):
        tab.ask("step")
    curve = list(tab.session._sources[0].frame().history["total_epsilon"])
    tab.ask("pin")
    tab.ask("set", "game.alpha", 20.0)
    view = tab.ask("step")
    assert view.moment == 1
    (line,) = view.charts[0]["ghosts"]
    assert (line["label"], line["table"], line["run"]) == ("S, run 1", "run 1/market", "run 1")
    assert view.charts[0]["x_end"] >= 12
    assert tab.rows["run 1/market"] == 12
    pin = tab.session._pins[0]
    assert list(pin.tables["market"]["total_epsilon"]) == curve
    for chart in view.charts:
        assert [ghost["dashes"] for ghost in chart["ghosts"]] == [
            line["dashes"] for line in chart["lines"]
        ]


def test_the_list_of_runs_says_what_differs_between_them_and_what_came_out():
    tab = Tab()
    tab.ask("step")
    tab.ask("pin")
    tab.ask("set", "game.alpha", 20.0)
    tab.ask("set", "learning.kind", "gradient")
    for _ in range(3):
        view = tab.ask("step")
    now, pinned = view.runs
    assert (now["name"], pinned["name"]) == ("now", "run 1")
    said = {label: (one, other) for (label, one), (_, other) in zip(
        now["settings"], pinned["settings"], strict=True)}  # fmt: skip
    assert said[name_key("game.alpha")] == ("20", "2.9")
    assert said["Learning rule"] == ("gradient", "best response")
    assert name_key("game.beta") not in said
    assert dict(now["results"])["Rounds"] == "3"
    assert dict(pinned["results"])["Rounds"] == "1"
    assert tab.ask("use", "run 1").runs[0]["settings"] == []
    assert tab.playing == scenario()
    assert tab.ask("unpin", "run 1").runs == []
    assert not tab.view.charts[0]["ghosts"]


def test_a_title_that_no_longer_fits_is_not_shown():
    (plain,) = {open_sources([Path("quickstart")]).scenario.title}
    assert plain == "Quick start: 50 nodes sell privacy to one server"
    for overrides, title in (
        (("game.alpha=3.0",), plain),
        (
            ("population.n_nodes=1000000",),
            "1,000,000 nodes, costs with outliers, Stackelberg contest",
        ),
        (("population.n_nodes=9", "title=Nine"), "Nine"),
    ):
        assert open_sources([Path("quickstart")], overrides).scenario.title == title


def test_there_are_as_many_pins_as_colours():
    tab = Tab()
    assert "No round has been played" in tab.ask("pin").problem
    tab.ask("step")
    for _ in range(MOST_PINS):
        assert tab.ask("pin").problem == ""
    assert f"{MOST_PINS} runs are pinned" in tab.ask("pin").problem
    assert sorted(run["colour"] for run in tab.view.runs[1:]) == sorted(COLOURS)
    tab.ask("unpin", "run 2")
    assert tab.ask("pin").runs[-1]["name"] == f"run {MOST_PINS + 1}"


@given(
    gains=st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=6),
    losses=st.lists(st.floats(-1e9, 0), max_size=3),
)
def test_the_axes_have_room_for_pinned_curves(gains, losses):
    live = LiveMarket(scenario())
    live.step()
    run = take_run("run 1", "#CC79A7", live.frame())
    tables = {"market": {k: np.array([*losses, *gains]) for k in run.tables["market"]}}
    tables["market"]["round"] = np.arange(1, 1 + len(losses) + len(gains))
    for chart in describe_charts(live.frame(), [Ghost("run 1", "#CC79A7", tables)]):
        assert chart.low < chart.high
        assert max(gains) <= chart.high * (1 + 1e-12)
        if chart.log:
            assert 0 < chart.low <= min(gains)


def test_costs_by_the_thousand_are_counted_and_not_listed():
    costs = tuple(float(k + 1) for k in range(5000))
    listed = {"kind": "listed", "values": costs}
    tree = settings.tree_of(scenario())
    tree["population"] = {"n_nodes": 5000, "rho": listed}
    one, two = list_differences([scenario(), settings.parse_tree(tree)])
    assert dict(two)["Values"] == "5,000 values"
    assert [label for label, _ in one] == [label for label, _ in two]
    assert all(len(text) < 30 for _, text in (*one, *two))


# Two records


def records_of(tmp_path, *overrides):
    paths = [tmp_path / name for name in ("one", "two")]
    for path, override in zip(paths, overrides, strict=True):
        fa.run_scenario(scenario(override)).write(path)
    return paths


def test_two_records_are_replayed_side_by_side(tmp_path):
    one, two = records_of(tmp_path, "game.alpha=3.0", "game.alpha=30.0")
    tab = Tab(open_sources([one, two]))
    first, second = fa.read_record(one), fa.read_record(two)
    assert tab.view.title == "one and two"
    assert [p["name"] for p in tab.view.pictures] == [
        "star", "star-beside", "rho-epsilon", "rho-epsilon-beside",
    ]  # fmt: skip
    assert tab.view.moments == max(len(first.rounds), len(second.rounds))
    view = tab.ask("seek", 5)
    tiles = {tile["label"]: tile for tile in view.tiles}
    s = [record.rounds["total_epsilon"][4] for record in (first, second)]
    assert tiles["Total epsilon S"]["value"] == f"{s[0]:.3g}"
    assert tiles["Total epsilon S"]["other"] == f"{s[1]:.3g}"
    assert [run["name"] for run in view.runs] == ["one", "two"]
    assert [dict(run["settings"])[name_key("game.alpha")] for run in view.runs] == ["3", "30"]
    assert tab.rows["two/market"] == 5
    assert [ghost["run"] for ghost in view.charts[0]["ghosts"]] == ["two"]
    details = tab.ask("pick", 3).node_details
    assert [sentence[:5] for sentence in details] == ["one: ", "two: "]


def test_the_shorter_record_waits_at_its_end(tmp_path):
    one, two = records_of(tmp_path, "rounds.maximum=6", "rounds.maximum=20")
    tab = Tab(open_sources([one, two]))
    assert tab.ask("seek", 15).tiles[0]["value"] == "6"
    assert tab.view.tiles[0]["other"] == "15"
    assert not tab.view.over
    assert tab.ask("step").tiles[0]["other"] == "16"
    assert tab.view.status.startswith("one: ")
    assert tab.ask("play").moment == 16


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["one", "quickstart"], "quickstart: both paths must be records to be compared"),
        (["quickstart", "one"], "quickstart: both paths must be records to be compared"),
        (["one", "one", "one"], "the window shows one or two records, not 3"),
    ],
)
def test_what_cannot_stand_side_by_side_is_refused(names, sentence, tmp_path):
    fa.run_scenario(scenario()).write(tmp_path / "one")
    paths = [tmp_path / name if name == "one" else Path(name) for name in names]
    with pytest.raises(InvalidRecordError, match=sentence):
        open_sources(paths)


def test_two_folders_of_one_name_are_distinguished(tmp_path):
    paths = [tmp_path / name / "record" for name in ("a", "b")]
    for path in paths:
        fa.run_scenario(scenario()).write(path)
    opened = open_sources(paths)
    assert (opened.name, opened.beside_name) == ("a/record", "b/record")


# What is marked


@pytest.mark.parametrize("n_nodes", [40, 5000])
def test_what_is_hovered_over_is_marked_in_both_pictures(n_nodes):
    tab = Tab(OpenedSource("quick", scenario(f"population.n_nodes={n_nodes}")))
    tab.ask("step")
    frame = tab.session._sources[0].frame()
    _, x, y = tab.session._pictures["rho-epsilon"].places
    cheapest = int(np.argmin(frame.rho))
    view = tab.ask("hover", "rho-epsilon", float(x[cheapest]), float(y[cheapest]))
    assert view.hover["label"].startswith(f"node {cheapest}: ρ ")
    assert view.hover["marks"]["rho-epsilon"]["x"] == x[cheapest]
    if n_nodes == 40:  # at the top of the star
        assert view.hover["marks"]["star"]["y"] == pytest.approx(184 - 156)
        return
    rings = tab.session._pictures["star"].rings
    assert view.hover["marks"]["star"]["r"] == rings.radius(0)
    ring = rings.edges.size - 3
    view = tab.ask("hover", "star", 190.0 + rings.radius(ring), 184.0)
    first, end = rings.edges[ring], rings.edges[ring + 1]
    inside = np.argsort(frame.rho, kind="stable")[first:end]
    sells = np.count_nonzero(frame.epsilon[inside])
    assert view.hover["label"] == (
        f"nodes of rank {first + 1:,} to {end:,} by cost: {sells:,} active"
    )
    band = view.hover["marks"]["rho-epsilon"]
    assert band["left"] == pytest.approx(x[inside].min() - 3)
    assert band["right"] == pytest.approx(x[inside].max() + 3)
    assert tab.ask("hover", "star", 0.0, 0.0).hover == {}
    assert tab.ask("leave").hover == {}
