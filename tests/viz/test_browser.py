"""The window in a real browser: Chromium, driven by Playwright."""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from viz.chromium import CHROMIUM, MISSING

import fcfn_abm as fa
from fcfn_abm.viz.svg import number

if MISSING:
    pytest.skip(MISSING, allow_module_level=True)

from matplotlib.image import imread
from playwright.sync_api import expect, sync_playwright

pytestmark = pytest.mark.slow

HOSTILE = "<b id='planted'>Title</b><script>document.planted = 1</script> & co"
SCENARIO = f"""
title = "{HOSTILE}"
seed = 7
[population]
n_nodes = 30
[population.rho]
kind = "lognormal"
median = 0.01
sigma = 0.05
"""
WAIT = 60_000
expect.set_options(timeout=WAIT)
ALPHA, BETA = "Value of the net, alpha", "Value of the net, beta"


@pytest.fixture(scope="module")
def scenario_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("view") / "market.toml"
    path.write_text(SCENARIO)
    return path


@contextmanager
def served(*paths):
    sources = [str(path) for path in paths]
    process = subprocess.Popen(
        [sys.executable, "-m", "fcfn_abm", "view", *sources, "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, process.stdout.readline().split()[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="module")
def live(scenario_file):
    with served(scenario_file) as (_, address):
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Open pages, and see to it that they ask nobody else and complain about nothing."""
    pages, requested, complaints = [], [], []

    def go(address, width=1440, height=1000):
        page = browser.new_page(viewport={"width": width, "height": height})
        pages.append(page)
        page.on("request", lambda request: requested.append(request.url))
        page.on("websocket", lambda socket: requested.append(socket.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: complaints.append(message.text) if message.type == "error" else None,
        )
        page.goto(address)
        page.wait_for_selector("[data-picture=star] svg", timeout=WAIT)
        return page

    yield go
    for page in pages:
        page.close()
    assert complaints == []
    own = re.compile(r"(https?|ws)://127\.0\.0\.1:\d+/|data:|blob:")
    assert requested
    assert [url for url in requested if not own.match(url)] == []


def button(page, name):
    return page.get_by_role("button", name=name)


def tile(page, label):
    return page.locator(f"[data-test='{label}']")


def shows(locator, words):
    expect(locator).to_have_text(words, timeout=WAIT)


def pixels(page, name):
    shot = page.locator(f"[data-picture={name}] .drawing").first.screenshot()
    return np.round(imread(io.BytesIO(shot))[..., :3] * 255).astype(int)


def blue(image):
    red, green, sky = np.moveaxis(image, -1, 0)
    return int(((sky > red + 60) & (sky > green + 20)).sum())


def test_buttons_play_the_market_of_the_model(visit, live, scenario_file):
    page, market = visit(live), fa.PrivacyMarket(fa.load_scenario(scenario_file))
    for done in range(1, 4):
        button(page, "Step").click()
        shows(tile(page, "Round"), str(done))
        market.step()
    shows(tile(page, "Total epsilon S"), number(market.total_epsilon))
    shows(tile(page, "Active nodes"), str(market.n_active))
    shows(tile(page, "Payment cap B"), number(market.budget))
    button(page, "Play").click()
    expect(button(page, "Pause")).to_be_visible(timeout=WAIT)
    page.get_by_label("Speed").fill("100")
    status = page.locator("[data-test=status]")
    expect(status).to_contain_text("Converged after", timeout=WAIT)
    verdict = market.run_until()
    shows(tile(page, "Round"), str(verdict.rounds))
    shows(tile(page, "Utility of all nodes"), number(market.state.node_utility))
    expect(button(page, "Step")).to_be_disabled()
    button(page, "Reset").click()
    shows(tile(page, "Round"), "0")
    expect(button(page, "Step")).to_be_enabled()


def test_sliders_and_fields_change_the_scenario(visit, live, scenario_file):
    page = visit(live)
    page.get_by_label(ALPHA, exact=True).fill("40")
    page.keyboard.press("Enter")
    rho = fa.PrivacyMarket(fa.load_scenario(scenario_file)).columns.rho
    cap = fa.stackelberg_equilibrium(rho, 40.0, 10.0).budget
    expect(page.get_by_text(f"closed form {number(cap)}").first).to_be_visible(timeout=WAIT)
    slider = page.get_by_label("Number of nodes, slider")
    assert slider.get_attribute("aria-valuetext") == "30"
    slider.press("End")
    field = page.get_by_label("Number of nodes", exact=True)
    expect(field).to_have_value("1000000", timeout=WAIT)
    field.fill("400")
    page.keyboard.press("Enter")
    expect(page.locator("dl.tiles")).to_contain_text("of 400", timeout=WAIT)
    expect(page.locator("[data-picture=star] [role=img]")).to_have_attribute(
        "aria-label", re.compile("400 nodes as rings"), timeout=WAIT
    )
    page.get_by_label("Mechanism", exact=True).select_option(label="static")
    expect(page.get_by_label("Epsilon of each node", exact=True)).to_have_value("10", timeout=WAIT)


def test_an_invalid_setting_is_a_sentence_and_not_a_blank_page(visit, live):
    page = visit(live)
    field = page.get_by_label(BETA, exact=True)
    field.fill("-3")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text(
        "[game] beta: input should be greater than 0", timeout=WAIT
    )
    expect(field).to_have_attribute("aria-invalid", "true")
    assert blue(pixels(page, "star")) > 200
    field.fill("5")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Ready: 30 nodes", timeout=WAIT)


def test_pictures_are_really_drawn_and_move(visit, live):
    page = visit(live)
    before = {name: pixels(page, name) for name in ("star", "rho-epsilon", "totals")}
    for done in range(1, 6):
        button(page, "Step").click()
        shows(tile(page, "Round"), str(done))
    for name, then in before.items():
        now = pixels(page, name)
        assert blue(now) > 200
        assert len(np.unique(now.reshape(-1, 3), axis=0)) > 20
        assert (now != then).any(axis=-1).mean() > 0.002
    for name in ("caps", "distances", "participation", "node-utilities"):
        assert blue(pixels(page, name)) > 60


LIBRARY = "requirejs('/static/assets/echarts.common.min.js')"
LINKED = ("totals", "caps", "distances", "participation", "utilities", "node-utilities")


def option_of(page, name):
    """Return what the charting library draws in a chart."""
    page.wait_for_selector(f"[data-plot={name}] canvas", timeout=WAIT)
    script = f"""name => {{
      const plot = {LIBRARY}.getInstanceByDom(document.querySelector(`[data-plot=${{name}}]`));
      const {{ series, yAxis }} = plot.getOption();
      const marks = series.flatMap((s) => (s.markLine ? s.markLine.data : []));
      return {{ lines: Object.fromEntries(series.map((s) => [s.name, s.data])),
        y: yAxis[0].type, marker: marks.map((mark) => mark.xAxis),
        x: plot.getModel().getComponent("xAxis").axis.scale.getExtent() }};
    }}"""
    return page.evaluate(script, name)


def step_to(page, rounds):
    for done in range(1, rounds + 1):
        button(page, "Step").click()
        shows(tile(page, "Round"), str(done))


def played(scenario_file, rounds):
    market = fa.PrivacyMarket(fa.load_scenario(scenario_file))
    for _ in range(rounds):
        market.step()
    return market.datacollector.get_model_vars_dataframe()


def until(true):
    end = time.monotonic() + WAIT / 1000
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_charts_hold_the_numbers_of_the_model_and_start_over_with_the_market(
    visit, live, scenario_file
):
    page = visit(live)
    step_to(page, 4)
    rounds = played(scenario_file, 4)
    for name, line, measure in (
        ("totals", "S", "total_epsilon"),
        ("caps", "B", "budget"),
        ("distances", "exploitability", "exploitability"),
        ("participation", "active", "n_active"),
        ("utilities", "welfare", "welfare"),
        ("node-utilities", "all nodes", "node_utility"),
    ):
        until(lambda n=name, s=line: len(option_of(page, n)["lines"][s]) == 4)
        drawn = option_of(page, name)["lines"][line]
        assert [x for x, _ in drawn] == [1, 2, 3, 4]
        assert [y for _, y in drawn] == rounds[measure].tolist()
    button(page, "Reset").click()
    shows(tile(page, "Round"), "0")
    until(lambda: option_of(page, "totals")["lines"]["S"] == [])
    step_to(page, 1)
    until(lambda: len(option_of(page, "totals")["lines"]["S"]) == 1)


def test_one_crosshair_reads_all_charts(visit, live, scenario_file):
    page = visit(live)
    step_to(page, 6)
    until(lambda: len(option_of(page, "distances")["lines"]["change"]) == 6)
    plot = page.locator("[data-plot=distances]")
    box = plot.bounding_box()
    plot.hover(position={"x": 58 + (box["width"] - 74) * 0.3, "y": 100})  # round 3 of 10
    third = played(scenario_file, 3).iloc[-1]
    for name, line, measure in (
        ("distances", "distance", "distance"),
        ("totals", "S", "total_epsilon"),
        ("utilities", "server", "server_utility"),
    ):
        tip = page.locator(f"[data-plot={name}]")
        expect(tip).to_contain_text("round 3", timeout=WAIT)
        value = re.search(rf"{line}: ([\d.]+)", tip.inner_text())[1]
        assert float(value) == pytest.approx(third[measure], rel=2e-3)
    for name in LINKED:
        expect(page.locator(f"[data-plot={name}]")).to_contain_text("round 3")


def test_a_drag_zooms_all_charts_of_rounds_and_a_button_shows_all_again(visit, live):
    page = visit(live)
    step_to(page, 8)
    until(lambda: len(option_of(page, "caps")["lines"]["B"]) == 8)
    plot = page.locator("[data-plot=caps]")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    width = box["width"] - 74
    page.mouse.move(box["x"] + 58 + 0.2 * width, box["y"] + 90)
    page.mouse.down()
    page.mouse.move(box["x"] + 58 + 0.4 * width, box["y"] + 110, steps=4)
    page.mouse.move(box["x"] + 58 + 0.6 * width, box["y"] + 110, steps=4)
    page.mouse.up()
    for name in LINKED:
        until(lambda n=name: option_of(page, n)["x"] == pytest.approx([2, 6], abs=0.3))
    button(page, "Step").click()
    shows(tile(page, "Round"), "9")
    assert option_of(page, "caps")["x"] == pytest.approx([2, 6], abs=0.3)  # it stays
    figure = page.locator("[data-picture=caps]")
    figure.get_by_role("button", name="Whole range").click()
    for name in LINKED:
        until(lambda n=name: option_of(page, n)["x"][0] == 0)
        until(lambda n=name: option_of(page, n)["x"][1] > 8)
    expect(page.get_by_role("button", name="Whole range")).to_have_count(0)


def test_by_keyboard_lines_are_hidden_axes_changed_and_values_read(visit, live, scenario_file):
    page = visit(live)
    step_to(page, 5)
    until(lambda: len(option_of(page, "utilities")["lines"]["welfare"]) == 5)
    figure = page.locator("[data-picture=utilities]")
    welfare = figure.get_by_role("button", name="welfare", exact=True)
    welfare.focus()
    page.keyboard.press("Space")
    expect(welfare).to_have_attribute("aria-pressed", "false")
    until(lambda: option_of(page, "utilities")["lines"]["welfare"] == [])
    assert len(option_of(page, "utilities")["lines"]["server"]) == 5
    page.keyboard.press("Space")
    until(lambda: len(option_of(page, "utilities")["lines"]["welfare"]) == 5)
    log = page.get_by_role("button", name="Logarithmic axis, Total epsilon S")
    log.focus()
    page.keyboard.press("Enter")
    expect(log).to_have_attribute("aria-pressed", "true")
    until(lambda: option_of(page, "totals")["y"] == "log")
    assert option_of(page, "utilities")["y"] == "value"
    page.locator("[data-plot=totals]").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    reading = page.locator("[data-picture=totals] .reading")
    expect(reading).to_contain_text("round 2: S ", timeout=WAIT)
    value = float(reading.inner_text().split("S ")[1].split(", closed")[0].replace(",", ""))
    assert value == pytest.approx(played(scenario_file, 2)["total_epsilon"].iloc[-1], rel=2e-3)
    page.keyboard.press("Escape")
    expect(reading).to_have_text("")


def saved(page, figure, form):
    figure.locator("summary").click()
    with page.expect_download(timeout=WAIT) as download:
        figure.get_by_role("button", name=form).click()
    return download.value


def test_each_chart_is_saved_as_png_svg_and_csv(visit, live, scenario_file):
    page = visit(live)
    step_to(page, 5)
    until(lambda: len(option_of(page, "participation")["lines"]["exited"]) == 5)
    figure = page.locator("[data-picture=participation]")
    table = saved(page, figure, "CSV")
    assert table.suggested_filename == "participation.csv"
    found = pd.read_csv(table.path())
    assert list(found.columns) == ["round", "n_active", "n_exited", "closed_form"]
    rounds = played(scenario_file, 5)
    for name in ("round", "n_active", "n_exited"):
        assert found[name].tolist() == rounds[name].tolist()
    image = imread(str(saved(page, figure, "PNG").path()), format="png")
    assert image.shape[:2] == (920, 1520)
    assert blue(np.round(image[..., :3] * 255).astype(int)) > 500
    root = ElementTree.parse(saved(page, figure, "SVG").path()).getroot()
    words = "".join(root.itertext())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    for word in ("Participation", "active", "exited", "closed form", "round"):
        assert word in words


def test_clicking_a_node_shows_its_details(visit, live):
    page = visit(live)
    page.locator("[data-picture=star] circle").nth(4).click()
    details = page.locator("[data-test=node-details]")
    expect(details).to_contain_text("Its unit privacy cost is rho", timeout=WAIT)
    node = page.get_by_label("Details of node")
    assert 0 <= int(node.input_value()) < 30
    expect(page.locator("[data-picture=star] [data-picked]")).to_have_count(1)
    node.fill("77")
    page.keyboard.press("Enter")
    expect(details).to_contain_text("There is no node 77", timeout=WAIT)


def test_everything_has_a_name_for_screen_readers(visit, live):
    page = visit(live)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "textbox", "combobox", "checkbox", "spinbutton", "img", "image"}
    found = [n for n in tree if not n.get("ignored") and n["role"]["value"] in roles]
    assert len(found) > 40
    assert [n["role"]["value"] for n in found if not n.get("name", {}).get("value")] == []
    pictures = [n["name"]["value"] for n in found if n["role"]["value"] in ("img", "image")]
    assert len(pictures) >= 6
    assert any("30 nodes around it" in name for name in pictures)
    assert page.get_by_role("status").get_attribute("aria-live") == "polite"
    assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.slow
def test_a_million_nodes_are_played_and_drawn(visit, live, scenario_file):
    page = visit(live)
    page.get_by_label("Number of nodes", exact=True).fill("1000000")
    page.keyboard.press("Enter")
    expect(page.locator("dl.tiles")).to_contain_text("of 1,000,000", timeout=2 * WAIT)
    large = fa.load_scenario(scenario_file, ["population.n_nodes=1000000"])
    market = fa.PrivacyMarket(large)
    for done in range(1, 4):
        button(page, "Step").click()
        shows(tile(page, "Round"), str(done))
        market.step()
    shows(tile(page, "Total epsilon S"), number(market.total_epsilon))
    assert blue(pixels(page, "star")) > 200


def test_a_phone_needs_no_sideways_scrolling(visit, live):
    page = visit(live, width=375, height=812)
    page.get_by_text("Settings", exact=True).first.click()
    expect(page.get_by_label("Number of nodes", exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    button(page, "Step").click()
    shows(tile(page, "Round"), "1")
    box = page.locator("[data-picture=star]").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 375


def slide_time(page, moment):
    page.get_by_role("slider", name="Time").fill(str(moment))


def enter(page, label, value):
    page.get_by_label(label, exact=True).fill(value)
    page.keyboard.press("Enter")


def test_one_looks_back_at_a_live_market_and_plays_on_from_its_last_round(
    visit, live, scenario_file
):
    page = visit(live)
    step_to(page, 7)
    late = pixels(page, "rho-epsilon")
    slide_time(page, 2)
    shows(tile(page, "Round"), "2")
    rounds = played(scenario_file, 7)
    shows(tile(page, "Total epsilon S"), number(rounds["total_epsilon"].iloc[1]))
    expect(page.get_by_role("status")).to_contain_text("Showing round 2", timeout=WAIT)
    assert (pixels(page, "rho-epsilon") != late).any()
    assert len(option_of(page, "totals")["lines"]["S"]) == 7  # the curves stay
    until(lambda: option_of(page, "totals")["marker"] == [2])
    button(page, "Step").click()
    shows(tile(page, "Round"), "3")
    button(page, "Play").click()
    until(lambda: int(tile(page, "Round").inner_text()) > 7)
    button(page, "Pause").click()
    until(lambda: option_of(page, "totals")["marker"] == [])


def test_a_node_is_marked_in_both_pictures(visit, live):
    page = visit(live)
    circles = page.locator("[data-picture=star] .drawing").first.locator("circle")
    page.locator("[data-picture=star]").scroll_into_view_if_needed()
    circles.nth(3).hover()
    for name in ("star", "rho-epsilon"):
        expect(page.locator(f"[data-picture={name}] .mark circle")).to_be_visible(timeout=WAIT)
    label = page.locator("[data-picture=star] .hover-label")
    expect(label).to_contain_text("node 3: ρ ", timeout=WAIT)
    mark = page.locator("[data-picture=rho-epsilon] .mark circle").bounding_box()
    page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    label = page.locator("[data-picture=rho-epsilon] .hover-label")
    expect(label).to_contain_text("node ", timeout=WAIT)
    expect(page.locator("[data-picture=star] .mark circle")).to_be_visible(timeout=WAIT)
    page.mouse.move(5, 5)
    expect(page.locator(".mark")).to_have_count(0, timeout=WAIT)


def test_the_last_of_many_quick_movements_is_the_one_that_is_marked(visit, live):
    page = visit(live)
    page.locator("[data-picture=star] .drawing").first.evaluate(
        """(drawing) => {
          const box = drawing.querySelectorAll("circle")[3].getBoundingClientRect();
          const move = (x, y) => drawing.dispatchEvent(
            new MouseEvent("mousemove", { clientX: x, clientY: y, bubbles: true }));
          const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
          for (let away = 200; away >= 0; away -= 20) move(x - away, y + away);
        }"""
    )
    label = page.locator("[data-picture=star] .hover-label")
    expect(label).to_contain_text("node 3: ρ ", timeout=WAIT)


def test_the_nodes_of_a_ring_are_marked_by_their_costs(visit, live):
    page = visit(live)
    enter(page, "Number of nodes", "1000")
    expect(page.locator("dl.tiles")).to_contain_text("of 1,000", timeout=WAIT)
    drawing = page.locator("[data-picture=star] .drawing").first
    box = drawing.bounding_box()
    drawing.hover(position={"x": box["width"] / 2, "y": box["height"] * 0.05})
    label = page.locator("[data-picture=star] .hover-label")
    expect(label).to_have_text(re.compile(r"nodes of rank \d+ to 1,000 by cost: \d+ active"))
    expect(page.locator("[data-picture=rho-epsilon] .mark rect")).to_be_visible(timeout=WAIT)


def test_by_keyboard_one_goes_from_node_to_node_in_order_of_cost(visit, live, scenario_file):
    page = visit(live)
    rho = fa.PrivacyMarket(fa.load_scenario(scenario_file)).columns.rho
    order = np.argsort(rho, kind="stable")
    page.locator("[data-picture=star] .drawing").first.focus()
    page.keyboard.press("ArrowRight")
    field = page.get_by_label("Details of node")
    expect(field).to_have_value(str(order[0]), timeout=WAIT)
    page.keyboard.press("ArrowRight")
    expect(field).to_have_value(str(order[1]), timeout=WAIT)
    page.keyboard.press("End")
    expect(field).to_have_value(str(order[-1]), timeout=WAIT)
    expect(page.locator("[data-picture=rho-epsilon] [data-picked]")).to_be_visible()
    expect(page.locator("[data-test=node-details]")).to_contain_text("29 nodes have lower costs")
    page.keyboard.press("Escape")
    expect(field).to_have_value("", timeout=WAIT)


def take(page, name):
    """Save a file by keyboard alone."""
    menu = page.locator("summary", has_text="Save or share")
    menu.focus()
    page.keyboard.press("Enter")
    with page.expect_download(timeout=WAIT) as download:
        button(page, name).focus()
        page.keyboard.press("Enter")
    return download.value


def test_the_scenario_and_the_play_are_saved_and_open_everywhere(visit, live, tmp_path):
    page = visit(live)
    enter(page, ALPHA, "40")
    shows(page.locator("h1"), "30 nodes, log-normal costs, Stackelberg contest")
    step_to(page, 5)
    slide_time(page, 3)
    take(page, "Scenario (.toml)").save_as(tmp_path / "scenario.toml")
    saved = fa.load_scenario(tmp_path / "scenario.toml")
    assert (saved.game.alpha, saved.population.n_nodes) == (40.0, 30)
    take(page, "Record of this run").save_as(tmp_path / "play.zip")
    shutil.unpack_archive(tmp_path / "play.zip", tmp_path)
    folder = tmp_path / "30-nodes-log-normal-costs-stackelberg"
    record = fa.read_record(folder)
    market = fa.PrivacyMarket(saved)
    for _ in range(5):
        market.step()
    assert record.nodes["epsilon"].tolist() == market.columns.epsilon.tolist()
    assert len(pd.read_parquet(folder / "rounds.parquet")) == 5
    command = [sys.executable, "-m", "fcfn_abm", "report", str(folder)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    with served(folder) as (_, address):
        again = visit(address)
        shows(tile(again, "Round"), "5")
        shows(tile(again, "Total epsilon S"), number(market.total_epsilon))
        again.close()


def address_of(page):
    """Return what stands in the address bar, which Playwright knows late."""
    return page.evaluate("location.href")


def test_a_link_carries_the_settings_over_a_reload_and_never_the_token(visit, live):
    page = visit(live)
    base, token = live.split("?token=")
    enter(page, ALPHA, "40")
    page.get_by_label("Learning rule").select_option(label="gradient")
    until(lambda: address_of(page) == f"{base}?game.alpha=40.0&learning.kind=gradient")
    page.reload()
    page.wait_for_selector("[data-picture=star] svg", timeout=WAIT)
    expect(page.get_by_label(ALPHA, exact=True)).to_have_value("40", timeout=WAIT)
    shows(page.locator("h1"), "30 nodes, log-normal costs, Stackelberg contest")
    page.locator("summary", has_text="Save or share").click()
    link = page.get_by_label("Link with these settings").input_value()
    assert link == address_of(page)
    assert token not in link
    button(page, "Reset all").click()
    until(lambda: address_of(page) == base)
    page.goto(link)
    rule = page.get_by_label("Learning rule", exact=True)
    expect(rule).to_have_value('"gradient"', timeout=WAIT)
    page.goto(f"{base}?game.alpha=-1&imports=x.py")
    expect(page.get_by_role("status")).to_contain_text("the link: ", timeout=WAIT)
    expect(page.get_by_label(ALPHA, exact=True)).to_have_value("10")


COSTS = "name;rho\n" + "".join(f"Clinic {k};0,{k + 10}\n" for k in range(1, 41))


def test_a_table_of_costs_comes_in_by_button_and_by_drop(visit, live):
    page = visit(live)
    with page.expect_file_chooser() as chooser:
        button(page, "Open file").focus()
        page.keyboard.press("Enter")
    content = {"name": "costs.csv", "mimeType": "text/csv", "buffer": COSTS.encode()}
    chooser.value.set_files(content)
    shows(page.locator("h1"), "40 nodes, costs from costs.csv, Stackelberg contest")
    page.get_by_label("Details of node").fill("0")
    page.keyboard.press("Enter")
    expect(page.locator("[data-test=node-details]")).to_contain_text("Its name is Clinic 1.")
    page.locator("summary", has_text="Save or share").click()
    expect(page.get_by_text("A link cannot contain settings from a file")).to_be_visible()
    drop = """text => {
      const data = new DataTransfer();
      data.items.add(new File([text], "mine.toml"));
      const event = { dataTransfer: data, bubbles: true };
      document.querySelector(".tiles").dispatchEvent(new DragEvent("drop", event));
    }"""
    page.evaluate(drop, "title = 'Dropped'\n[population]\nn_nodes = 9\n")
    shows(page.locator("h1"), "Dropped")
    expect(page.locator("dl.tiles")).to_contain_text("of 9", timeout=WAIT)
    page.evaluate(drop, "imports = ['evil.py']")
    status = page.get_by_role("status")
    expect(status).to_contain_text("mine.toml, imports: names code, 'evil.py'", timeout=WAIT)
    shows(page.locator("h1"), "Dropped")


def test_a_large_table_comes_in_and_a_huge_file_is_not_even_sent(visit, live, tmp_path):
    page = visit(live)
    table = "rho\n" + "\n".join(f"{0.1 + k / 1e7:.9f}" for k in range(90_000))
    assert len(table) > 2**20
    page.locator("input[type=file]").set_input_files(
        {"name": "many.csv", "mimeType": "text/csv", "buffer": table.encode()}
    )
    expect(page.locator("dl.tiles")).to_contain_text("of 90,000", timeout=WAIT)
    (tmp_path / "huge.csv").write_bytes(b" " * (33 << 20))
    page.locator("input[type=file]").set_input_files(tmp_path / "huge.csv")
    expect(page.get_by_role("status")).to_contain_text(
        "huge.csv has 33 MiB; the window opens files of at most 32 MiB.", timeout=WAIT
    )


def test_pinned_curves_outlast_a_changed_setting_by_keyboard_alone(visit, live, scenario_file):
    page = visit(live)
    step_to(page, 6)
    button(page, "Pin this run").focus()
    page.keyboard.press("Enter")
    row = page.get_by_role("row", name="run 1")
    expect(row).to_be_visible(timeout=WAIT)
    enter(page, ALPHA, "40")
    shows(tile(page, "Round"), "0")
    step_to(page, 2)
    curve = played(scenario_file, 6)["total_epsilon"].tolist()
    until(lambda: len(option_of(page, "totals")["lines"].get("S, run 1", [])) == 6)
    lines = option_of(page, "totals")["lines"]
    assert [y for _, y in lines["S, run 1"]] == curve
    assert len(lines["S"]) == 2
    for name in LINKED:
        assert any("run 1" in line for line in option_of(page, name)["lines"])
    expect(page.get_by_role("columnheader", name=ALPHA)).to_be_visible()
    expect(row).to_contain_text("10")
    plot = page.locator("[data-plot=totals]")
    plot.focus()
    page.keyboard.press("Home")
    reading = page.locator("[data-picture=totals] .reading")
    expect(reading).to_contain_text(re.compile(r"round 1: S .*, S, run 1 "), timeout=WAIT)
    ghost = page.locator("[data-picture=totals]").get_by_role("button", name="run 1")
    ghost.focus()
    page.keyboard.press("Space")
    until(lambda: option_of(page, "totals")["lines"]["S, run 1"] == [])
    assert option_of(page, "caps")["lines"]["B, run 1"] != []
    table = pd.read_csv(saved(page, page.locator("[data-picture=caps]"), "CSV").path())
    assert table["run"].tolist() == ["now"] * 2 + ["run 1"] * 6
    button(page, "Play the settings of run 1").click()
    expect(page.get_by_label(ALPHA, exact=True)).to_have_value("10", timeout=WAIT)
    button(page, "Unpin run 1").click()
    expect(row).to_have_count(0, timeout=WAIT)
    until(lambda: "S, run 1" not in option_of(page, "totals")["lines"])


def test_two_records_are_replayed_side_by_side(visit, scenario_file, tmp_path):
    records = []
    for name, alpha in (("one", 10), ("two", 40)):
        scenario = fa.load_scenario(scenario_file, [f"game.alpha={alpha}"])
        records.append(fa.run_scenario(scenario).write(tmp_path / name))
    with served(*(record.path for record in records)) as (_, address):
        page = visit(address)
        shows(page.locator("h1"), "one and two")
        slide_time(page, 4)
        shows(tile(page, "Round"), "4")
        first, second = (record.rounds["total_epsilon"][3] for record in records)
        shows(tile(page, "Total epsilon S"), number(first))
        shows(page.locator("[data-test='Total epsilon S, beside']"), number(second))
        until(lambda: len(option_of(page, "totals")["lines"]["S, two"]) == 4)
        assert blue(pixels(page, "star-beside")) > 200
        left, right = (
            page.locator(f"[data-picture={name}]").bounding_box()
            for name in ("star", "star-beside")
        )
        assert left["y"] == pytest.approx(right["y"], abs=2)
        expect(page.get_by_role("row", name=re.compile("^two"))).to_contain_text("40")
        page.close()


def test_settings_are_found_by_word_and_put_back_one_by_one(visit, live):
    page = visit(live)
    expect(page.get_by_label("Rounds before a node exits")).to_have_count(0)
    page.get_by_label("Find a setting").fill("exit.patience")
    enter(page, "Rounds before a node exits", "5")
    back = button(page, "Reset Rounds before a node exits to 3")
    expect(back).to_be_visible(timeout=WAIT)
    page.get_by_label("Find a setting").fill("")
    expect(back).to_be_visible()  # what was changed stays in sight
    expect(page.locator(".subtitle")).to_contain_text(
        "changed settings: Rounds before a node exits", timeout=WAIT
    )
    back.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Rounds before a node exits")).to_have_count(0, timeout=WAIT)
    page.get_by_label("Advanced").check()
    field = page.get_by_label("Rounds before a node exits", exact=True)
    expect(field).to_have_value("3", timeout=WAIT)
    expect(page.get_by_text("exit.patience", exact=True)).to_be_visible()


def test_all_bad_fields_are_marked_while_the_last_good_market_plays(visit, live):
    page = visit(live)
    for label in (ALPHA, BETA):
        enter(page, label, "-1")
        expect(page.get_by_label(label, exact=True)).to_have_attribute(
            "aria-invalid", "true", timeout=WAIT
        )
    expect(page.locator("[aria-invalid=true]")).to_have_count(2)
    expect(page.locator(".rejection")).to_have_count(2)
    button(page, "Play").click()
    until(lambda: int(tile(page, "Round").inner_text()) > 2)
    expect(page.locator("[data-test=problem]")).to_contain_text("keeps the last valid settings")
    button(page, "Pause").click()
    enter(page, ALPHA, "10")
    expect(page.locator("[aria-invalid=true]")).to_have_count(1, timeout=WAIT)
    enter(page, BETA, "10")
    expect(page.locator("[aria-invalid=true]")).to_have_count(0, timeout=WAIT)
    expect(page.locator("[data-test=problem]")).to_have_count(0)


def test_before_play_every_chart_says_what_it_will_show(visit, live):
    page = visit(live)
    words = page.locator(".charts .about")
    expect(words).to_have_count(6)
    for text in words.all_inner_texts():
        assert text.startswith("Press Play to see")
    button(page, "Step").click()
    expect(words).to_have_count(0, timeout=WAIT)


def test_text_in_pictures_has_one_size_on_all_screens(visit, live):
    sizes = {}
    for width in (1440, 1920):
        page = visit(live, width=width)
        script = "(e) => e.getBoundingClientRect().width / e.viewBox.baseVal.width"
        factors = [
            page.locator(f"[data-picture={name}] svg").first.evaluate(script)
            for name in ("star", "rho-epsilon")
        ]
        sizes[width] = [13 * factor for factor in factors]
    for size in (*sizes[1440], *sizes[1920]):
        assert 11 <= size <= 14


ATTACK = """
<script>
const name = "ADDRESS";
const outcome = (promise) => promise.then(() => "reached", () => "refused");
const socket = new WebSocket(`ws://${name}/jupyter/api/kernels/evil/channels?session_id=evil`);
const script = document.createElement("script");
const load = (element) => new Promise((done, fail) => {
  element.onopen = element.onload = done;
  element.onerror = fail;
});
const tries = [load(socket), load(script), fetch(`http://${name}/`, { credentials: "include" }),
  fetch(`http://${name}/readyz`, { mode: "no-cors", credentials: "include" })];
script.src = `http://${name}/static/main-vuetify.js`;
document.head.append(script);
Promise.all(tries.map(outcome)).then((all) => { document.title = all.join(" "); });
</script>
<iframe src="http://ADDRESS/"></iframe>
"""


@contextmanager
def hosted(html):
    """Serve one page on another port, which is another origin of the same site."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{other.server_port}/"
        other.shutdown()


def test_a_page_of_another_origin_reaches_nothing_though_the_cookie_is_there(browser, live):
    context = browser.new_context()
    with hosted(ATTACK.replace("ADDRESS", urlsplit(live).netloc)) as address:
        page, foreign = context.new_page(), context.new_page()
        page.goto(live)
        page.wait_for_selector("[data-picture=star] svg", timeout=WAIT)
        foreign.goto(address)
        expect(foreign).to_have_title("refused refused refused refused", timeout=WAIT)
        assert foreign.frames[1].locator("*", has_text="fcfn").count() == 0
        button(page, "Step").click()
        shows(tile(page, "Round"), "1")
    context.close()


def test_the_token_leaves_the_address_and_becomes_a_cookie_that_scripts_cannot_read(visit, live):
    page = visit(live)
    base, token = live.split("?token=")
    assert page.url == base
    cookies = {c["name"]: c for c in page.context.cookies()}
    cookie = cookies[f"fcfn-{urlsplit(live).port}"]
    assert (cookie["value"], cookie["httpOnly"], cookie["sameSite"]) == (token, True, "Lax")
    assert token not in page.evaluate("document.cookie + document.documentElement.innerHTML")
    page.reload()
    page.wait_for_selector("[data-picture=star] svg", timeout=WAIT)
    page.go_back()
    assert page.url == "about:blank"  # no entry of the history has it


CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    const [red, green, blue, alpha = 1] = channels(getComputedStyle(element).backgroundColor);
    return alpha ? [red, green, blue] : ground(element.parentElement);
  };
  const luminance = (colour) => colour.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const parts = "h1, p, dt, dd, label, summary, button, figcaption, input:not([type=range])";
  return [...document.querySelectorAll(".fcfn :is(" + parts + ")")]
    .filter((element) => element.checkVisibility() && !element.disabled)
    .map((element) => {
      const pair = [channels(getComputedStyle(element).color), ground(element)].map(luminance);
      return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_on_light_and_dark_ground_and_files_are_for_paper(browser, live, scheme):
    page = browser.new_page(color_scheme=scheme, accept_downloads=True)
    page.goto(live)
    page.wait_for_selector("[data-plot=caps] canvas", timeout=WAIT)
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 50
    assert min(contrasts) >= 4.5  # WCAG 2.2, level AA
    shot = pixels(page, "caps")
    assert (np.median(shot) < 60) == (scheme == "dark")
    image = imread(str(saved(page, page.locator("[data-picture=caps]"), "PNG").path()), "png")
    assert image[0, 0, :3].tolist() == [1, 1, 1]
    page.emulate_media(color_scheme="light")
    until(lambda: np.median(pixels(page, "caps")) > 200)
    page.close()


@pytest.mark.parametrize("width", [390, 1440, 1920])
def test_the_buttons_stay_in_sight_and_the_page_is_as_wide_as_the_screen(visit, live, width):
    page = visit(live, width=width, height=800)
    page.wait_for_selector("[data-plot=node-utilities] canvas", timeout=WAIT)
    page.evaluate("document.querySelector('[data-plot=node-utilities]').scrollIntoView()")
    until(lambda: page.locator("[data-picture=totals]").bounding_box()["y"] < 0)
    box = button(page, "Play").bounding_box()
    assert 0 <= box["y"] < 120
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width > 900:
        assert 0 <= page.locator("[data-test=status]").bounding_box()["y"] < 60
    button(page, "Step").click()
    shows(tile(page, "Round"), "1")


def test_two_tabs_have_two_markets(visit, live):
    one, two = visit(live), visit(live)
    button(one, "Step").click()
    shows(tile(one, "Round"), "1")
    button(two, "Step").click()
    button(two, "Step").click()
    shows(tile(two, "Round"), "2")
    shows(tile(one, "Round"), "1")


def test_a_hostile_title_is_shown_as_text(visit, live):
    page = visit(live)
    shows(page.locator("h1"), HOSTILE)
    assert page.locator("#planted").count() == 0
    assert page.evaluate("document.planted") is None
    expect(page).to_have_title(f"{HOSTILE} - fcfn", timeout=WAIT)


def test_a_record_is_replayed_and_ctrl_c_ends_the_window_in_one_line(
    visit, scenario_file, tmp_path
):
    record = fa.run_scenario(fa.load_scenario(scenario_file)).write(tmp_path / "record")
    with served(record.path) as (process, address):
        page = visit(address)
        n_rounds = len(record.rounds)
        shows(tile(page, "Round"), str(n_rounds))
        page.get_by_label("Time").fill("3")
        shows(tile(page, "Round"), "3")
        shows(tile(page, "Total epsilon S"), number(record.rounds["total_epsilon"][2]))
        assert page.get_by_text("Settings").count() == 0
        page.get_by_label("Speed").fill("100")
        button(page, "Play").click()
        expect(page.get_by_role("status")).to_contain_text("Converged", timeout=WAIT)
        page.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
        assert process.stderr.read() == "fcfn: the window was closed.\n"
