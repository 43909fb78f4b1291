"""A market in Mesa's own page, in a real browser: examples/mesa_page."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
from viz.chromium import CHROMIUM, MISSING

import fcfn_abm as fa

if MISSING:
    pytest.skip(MISSING, allow_module_level=True)

from matplotlib.image import imread
from playwright.sync_api import Error, expect, sync_playwright

pytestmark = pytest.mark.slow

APP = Path("examples/mesa_page/app.py").resolve()
WAIT = 60_000


@pytest.fixture(scope="module")
def address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "solara", "run", str(APP), "--port", str(port), "--no-open"]
    quiet = {"SOLARA_TELEMETRY_MIXPANEL_ENABLE": "False"}
    process = subprocess.Popen(
        [*command, "--production"],
        env={**os.environ, **quiet},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(1200):
            try:
                urlopen(url).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


@pytest.fixture
def visit(address):
    """Open the page, and see to it that it asks nobody else."""
    requested = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1440, "height": 1000})
        page.on("request", lambda request: requested.append(request.url))
        page.goto(address)
        expect(page.get_by_role("button", name="Step")).to_be_visible(timeout=WAIT)
        yield page
        chromium.close()
    own = re.compile(r"(https?|ws)://127\.0\.0\.1:\d+/|data:|blob:")
    assert requested
    assert [url for url in requested if not own.match(url)] == []


def chart(page, place=0):
    """Return the pixels of a chart."""
    for _ in range(5):  # the page may put another picture in its place meanwhile
        source = page.locator("main img").nth(place)
        expect(source).to_be_visible(timeout=WAIT)
        with suppress(Error):
            return imread(io.BytesIO(source.screenshot()))
    raise AssertionError("No picture stood still.")


def test_the_page_plays_a_market_and_its_sliders_make_another(visit):
    page = visit
    expect(page.get_by_text("A market of privacy in Mesa's page").first).to_be_visible()
    before = chart(page)
    for done in (1, 2, 3):
        page.get_by_role("button", name="Step").click()
        expect(page.get_by_text(f"Time: {done}.0")).to_be_visible(timeout=WAIT)
    page.wait_for_timeout(500)
    drawn = chart(page)
    assert drawn.shape != before.shape or (drawn != before).any()
    slider = page.get_by_role("slider", name="nodes").first
    slider.focus()
    for _ in range(5):
        slider.press("ArrowRight")
    page.get_by_role("button", name="Reset").click()
    expect(page.get_by_text("Time: 0.0")).to_be_visible(timeout=WAIT)
    page.get_by_role("button", name="Step").click()
    expect(page.get_by_text("Time: 1.0")).to_be_visible(timeout=WAIT)
    assert page.get_by_text("error", exact=False).count() == 0


def test_mesas_page_makes_the_market_that_its_sliders_say(monkeypatch):
    from mesa.visualization import solara_viz

    monkeypatch.syspath_prepend(str(APP.parent))
    import app

    values = {name: control["value"] for name, control in app.parameters.items()}
    chosen = {**values, "n_nodes": 8, "alpha": 20.0, "learning": "gradient"}
    solara_viz._check_model_params(app.Market(), app.parameters)
    settings = solara_viz._build_model_init_kwargs(
        app.Market(), chosen, add_scenario_when_empty=True, require_model_accepts_scenario=True
    )
    made, own = app.Market(**settings), fa.PrivacyMarket(**chosen)
    made.run_until(3)
    own.run_until(3)
    assert len(made.nodes) == 8
    assert made.total_epsilon == own.total_epsilon
