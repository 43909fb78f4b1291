"""Summaries, reports and the window know the groups and events of a scenario."""

import pytest

import fcfn_abm as fa
from fcfn_abm.build import resolve_defaults
from fcfn_abm.report.summary import summary
from fcfn_abm.runs.report import read_page
from fcfn_abm.scenario import Scenario
from fcfn_abm.viz.live import LiveMarket
from fcfn_abm.viz.node_details import describe_node

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scenario():
    groups = [
        {"name": "imitators", "n_nodes": 3, "learning": "replicator", "exit": {"reentry": False}},
        {"name": "responders"},
    ]
    events = [{"change": "rho", "round": 5, "scale": 2.0, "group": "imitators"}]
    tree = {"population": {"n_nodes": 12, "groups": groups}, "events": events}
    return resolve_defaults(Scenario.model_validate({**tree, "rounds": {"maximum": 60}}))


@pytest.fixture(scope="module")
def record(scenario, tmp_path_factory):
    return fa.run_scenario(scenario, tmp_path_factory.mktemp("groups") / "record")


def test_a_summary_has_a_line_for_each_group(record):
    lines = str(summary(record)).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Groups"))
    found = {line.split()[0]: line.split()[1:3] for line in lines[start + 2 : start + 4]}
    assert found == {"imitators": ["replicator", "3"], "responders": ["best-response", "9"]}


def test_a_report_shows_groups_events_and_settings(record):
    page = read_page(record.path)
    titles = [section.title for section in page.sections]
    assert "Groups of nodes" in titles
    settings = {row[0]: row[1] for row in page.sections[titles.index("Scenario")].blocks[0].rows}
    assert "n_nodes = 3" in settings["Group imitators"]
    assert "replicator" in settings["Group imitators"]
    assert settings["Group responders"] == "the rest"
    assert "scale = 2" in settings["Event 1"]


def test_the_window_says_to_which_group_a_node_belongs(scenario):
    live = LiveMarket(scenario)
    live.step()
    frame = live.frame()
    assert "group imitators" in describe_node(frame, live, 0)[0]
    assert "group responders" in describe_node(frame, live, 11)[0]
