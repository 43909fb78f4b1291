"""The site builds without a warning, is whole, and asks nothing of other machines."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import fcfn_abm as fa
from fcfn_abm.registry import Registry

pytest.importorskip("mkdocs", reason="the extra docs is not installed")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr  # --quiet would hide them from --strict too
    return out


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


def text_of(page):
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


def test_no_page_and_no_style_loads_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert loads.found
        assert not [url for url in loads.found if re.match(r"(https?:)?//", url)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8"))


def test_every_picture_that_a_page_shows_is_there(site):
    for page in site.rglob("*.html"):
        for source in re.findall(r'<img[^>]* src="([^"]+)"', page.read_text(encoding="utf-8")):
            assert (page.parent / source).is_file(), f"{page}: {source}"


def test_the_reference_has_every_public_name(site):
    page = (site / "reference" / "index.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'<h3 id="fcfn_abm\.[\w.]*?(\w+)"', page))
    assert shown == set(fa.__all__)


def test_the_commands_and_the_keys_come_from_the_program(site):
    commands = text_of(site / "commands" / "index.html")
    for command in ("fcfn run", "fcfn sweep", "fcfn export-plan", "fcfn scenarios copy"):
        assert f"Usage: {command}" in commands
    keys = text_of(site / "scenario_keys" / "index.html")
    from fcfn_abm.build import REGISTRIES

    assert all(isinstance(registry, Registry) for registry in REGISTRIES.values())
    for registry in REGISTRIES.values():
        for name in registry:
            assert f'kind = "{name}"' in keys.replace("&quot;", '"'), name


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load(Path("mkdocs.yml").read_text(encoding="utf-8"))["nav"]

    def leaves(entry):
        if isinstance(entry, str):
            yield entry
        else:
            for inner in entry.values() if isinstance(entry, dict) else entry:
                yield from leaves(inner)

    assert sorted(leaves(nav)) == sorted(p.name for p in Path("docs").glob("*.md"))


def test_every_source_that_a_page_cites_is_listed(site):
    listed = text_of(site / "sources" / "index.html")
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
        (line,) = [x for x in listed.splitlines() if re.match(rf"\s*{name}\b.*\({year}\)", x)][
            :1
        ] or [""]
        assert line, f"{name} {year} is not in docs/references.bib"
