"""Reports in Chromium: on paper, on a dark screen, and with the script that draws curves."""

from pathlib import Path

import pytest
from viz.chromium import CHROMIUM, MISSING

import fcfn_abm as fa

if MISSING:
    pytest.skip(MISSING, allow_module_level=True)

from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.slow
WAIT = 60_000


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    scenario = fa.load_scenario("dynamics/cold-start", ['title="</script><b>Title</b>"'])
    return fa.run_scenario(scenario, tmp_path_factory.mktemp("report") / "run")


@pytest.fixture
def visit(browser):
    pages, complaints, requested = [], [], []

    def go(path, scheme="light", **settings):
        page = browser.new_page(color_scheme=scheme, **settings)
        pages.append(page)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        page.goto(path.as_uri())
        return page

    yield go
    for page in pages:
        page.close()
    assert complaints == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requested)


def colours(page, selector, name):
    return page.eval_on_selector(selector, f"e => getComputedStyle(e).{name}")


def test_paper_has_no_dumps_and_no_links_to_data(record, visit):
    page = visit(fa.write_report(record.path))
    assert page.locator("details").first.is_visible()
    assert page.locator(".data a").count() >= 8
    page.emulate_media(media="print")
    assert not page.locator("details").first.is_visible()
    assert not page.locator(".data").first.is_visible()
    assert colours(page, "table.short", "breakInside") == "avoid"
    assert colours(page, "thead", "display") == "table-header-group"
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_dark_screen_has_light_text_in_figures_too_and_paper_stays_light(record, visit):
    page = visit(fa.write_report(record.path), scheme="dark")
    assert colours(page, "body", "backgroundColor") == "rgb(28, 28, 28)"
    assert colours(page, "figure svg text", "fill") == "rgb(200, 200, 200)"
    page.emulate_media(media="print")
    assert colours(page, "body", "backgroundColor") == "rgb(255, 255, 255)"
    assert colours(page, "figure svg text", "fill") == "rgb(38, 38, 38)"


def test_a_link_hands_over_the_data_of_a_figure(record, visit):
    page = visit(fa.write_report(record.path))
    with page.expect_download() as found:
        page.locator("figure .data a").first.click()
    text = Path(found.value.path()).read_text(encoding="utf-8")
    assert found.value.suggested_filename == "convergence.csv"
    assert len(text.splitlines()) == len(record.rounds) + 1


def test_a_script_draws_the_curves_and_the_figures_stay_for_paper(record, visit, tmp_path):
    path = fa.write_report(record.path, tmp_path / "report.html", interactive=True)
    page = visit(path, viewport={"width": 1200, "height": 900})
    page.wait_for_selector(".charts svg", timeout=WAIT)
    assert page.locator("figure.drawn").count() == 3
    assert not page.locator("figure.drawn > .wide").first.is_visible()
    lines = page.evaluate(
        """() => echarts.getInstanceByDom(document.querySelectorAll(".charts div[role]")[1])
        .getOption().series.map((line) => line.data.map((point) => point[1]))"""
    )
    assert lines[0] == pytest.approx(record.rounds["total_epsilon"], rel=1e-5)
    box = page.locator(".charts div[role]").nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_function("document.body.innerText.includes('S of the closed form')", timeout=WAIT)
    page.emulate_media(media="print")
    assert page.locator("figure.drawn > .wide").first.is_visible()
    assert not page.locator(".charts").first.is_visible()


def test_without_scripts_the_figures_are_there(record, browser, tmp_path):
    path = fa.write_report(record.path, tmp_path / "report.html", interactive=True)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("figure > .wide").first.is_visible()
    context.close()


def test_a_report_is_read_on_a_phone_without_scrolling_the_page(record, visit):
    page = visit(fa.write_report(record.path), viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
