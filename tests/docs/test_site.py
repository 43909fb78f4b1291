"""The site builds without a warning, is whole, and asks nothing of other machines."""

import re
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from viz.chromium import CHROMIUM, MISSING

import fcfn_abm as fa

for module in ("sphinx", "myst_parser", "pydata_sphinx_theme", "sphinx_copybutton"):
    pytest.importorskip(module, reason="the extra docs is not installed")

pytestmark = pytest.mark.slow
PHONE, DESKTOP = 390, 1440  # widths in pixels


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    options = ["--builder", "dirhtml", "--fail-on-warning", "--keep-going"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, "-d", out / "doctrees", "docs", out / "html"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return out / "html"


class Loads(HTMLParser):
    """What a browser fetches by itself when it opens a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        fetched = attributes.get("src") or (tag == "link" and attributes.get("href"))
        if fetched and attributes.get("rel") != "canonical":
            self.found.append(fetched)


def pages_of(site):
    """Return the pages that have content, by their addresses."""
    pages = {
        str(page.parent.relative_to(site)): page.read_text(encoding="utf-8")
        for page in site.rglob("index.html")
    }
    return {name: text for name, text in pages.items() if 'http-equiv="refresh"' not in text}


def test_no_page_and_no_style_loads_anything_from_elsewhere(site):
    pages = pages_of(site)
    assert len(pages) > 50
    for name, text in pages.items():
        loads = Loads()
        loads.feed(text)
        assert loads.found
        assert not [url for url in loads.found if re.match(r"(https?:)?//", url)], name
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8"))


def test_every_picture_that_a_page_shows_is_there(site):
    n_pictures = 0
    for name, text in pages_of(site).items():
        for source in re.findall(r'<img[^>]* src="([^"]+)"', text):
            n_pictures += 1
            assert (site / name / source).is_file(), f"{name}: {source}"
    assert n_pictures > 50


def test_every_link_leads_to_a_page_and_to_a_place_in_it(site):
    pages = pages_of(site)
    known = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in pages.items()}
    for name, text in pages.items():
        for target in re.findall(r'<a [^>]*href="([^"]+)"', text):
            if re.match(r"https?:|mailto:", target):
                continue
            path, _, place = target.partition("#")
            file = (site / name / path).resolve()
            if file.is_dir():
                where = str(file.relative_to(site.resolve()))
                assert where in known, f"{name}: {target}"
                assert not place or place in known[where], f"{name}: {target}"
            else:
                assert file.is_file(), f"{name}: {target}"


def test_pages_of_the_reference_link_to_the_pages_above(site):
    pages = pages_of(site)
    assert 'href="../../plugins/"' in pages["reference/commands"]
    assert 'href="../../contributing/"' in pages["reference/library"]


def test_the_reference_has_every_public_name(site):
    page = (site / "reference" / "library" / "index.html").read_text(encoding="utf-8")
    assert set(fa.__all__) <= set(re.findall(r"<h3><code[^>]*>.*?>(\w+)</span>", page))


@pytest.mark.parametrize(
    ("before", "now"),
    [("commands", "commands"), ("scenario_keys", "keys"), ("sources", "sources")],
)
def test_addresses_of_before_lead_to_the_page(site, before, now):
    text = (site / before / "index.html").read_text(encoding="utf-8")
    (target,) = re.findall(r"url=([^\"]+)", text)
    assert (site / before / target / "index.html").resolve() == (
        site / "reference" / now / "index.html"
    ).resolve()


def test_every_stored_page_is_on_the_site(site):
    for page in Path("docs").rglob("*.md"):
        name = page.relative_to("docs").with_suffix("")
        folder = name.parent if name.name == "index" else name
        assert (site / folder / "index.html").is_file(), page


def test_pages_read_on_github_have_no_directives_of_sphinx():
    for page in Path("docs").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"^(`{3,}|:{3,})\{|\{(ref|doc|math|term)\}`", text, re.MULTILINE), page


def test_every_source_that_a_page_cites_is_listed(site):
    listed = re.sub(r"<[^>]+>", "", pages_of(site)["reference/sources"])
    cited = re.compile(
        r"\b([A-Z][A-Za-z]+)(?:(?:, [A-Z]\w+)* and [A-Z]\w+| et al\.) \(?((?:19|20)\d\d)"
    )
    found = {
        match
        for page in Path("docs").glob("*.md")
        for match in cited.findall(" ".join(page.read_text(encoding="utf-8").split()))
    }
    assert len(found) >= 8
    for name, year in sorted(found):
        lines = [x for x in listed.splitlines() if re.match(rf"\s*{name}\b.*\({year}\)", x)]
        assert lines, f"{name} {year} is not in docs/references.bib"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def browsed(site, width=DESKTOP):
    """Yield a page of a browser, the site's address, and what was asked of anybody else."""
    from playwright.sync_api import sync_playwright

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    Thread(target=server.serve_forever, daemon=True).start()
    address, asked = f"http://127.0.0.1:{server.server_port}", []
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.on("request", lambda request: asked.append(request.url))
            yield page, address
            browser.close()
    finally:
        server.shutdown()
        server.server_close()
    assert asked
    assert not [url for url in asked if not url.startswith((f"{address}/", "data:", "blob:"))]


needs_browser = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@needs_browser
def test_every_equation_is_typeset(site):
    with_equations = [name for name, text in pages_of(site).items() if 'class="math' in text]
    assert {"dynamics", "glossary"} <= set(with_equations)
    with browsed(site) as (page, address):
        for name in with_equations:
            page.goto(f"{address}/{name}/")
            page.evaluate("MathJax.startup.promise")
            n_equations = page.locator(".math").count()
            assert page.locator(".math mjx-container > svg").count() == n_equations > 0, name
            wrong = page.locator("[data-mjx-error], [data-mml-node='merror']")
            assert wrong.count() == 0, (name, wrong.first.get_attribute("data-mjx-error"))


FOUND_FIRST = {
    "hospital": "howto_costs_csv",
    "seaborn": "howto_sweep_figure",
    "my own rule": "plugins",
    "half-life": "howto_half_lives",
    "export": "export_plan",
    "my own images": "howto_own_images",
    "load_scenario": "reference/library",
    "price of anarchy": "glossary",
}


@needs_browser
def test_the_search_finds_the_page_of_a_task_first(site):
    with browsed(site) as (page, address):
        for query, expected in FOUND_FIRST.items():
            page.goto(f"{address}/search/?q={query.replace(' ', '+')}")
            first = page.locator("#search-results li > a").first
            assert first.get_attribute("href").partition("#")[0] == f"../{expected}/", query


@needs_browser
def test_no_page_is_wider_than_a_phone(site):
    with browsed(site, PHONE) as (page, address):
        for name in pages_of(site):
            page.goto(f"{address}/{name}/")
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE, name
