"""The reference pages in the repository are those that the program has now."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import fcfn_abm as fa
from fcfn_abm.build import REGISTRIES
from fcfn_abm.cli import app

pytest.importorskip("griffe", reason="the extra docs is not installed")

FOLDER = Path("docs/reference")


def generate(folder, package="."):
    """Write the pages of a package into a folder, in a process without any test's plug-ins."""
    (folder / "reference").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "docs/generate.py", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(package), "COLUMNS": "40"},
    )
    assert done.returncode == 0, done.stderr
    return {page.name: page.read_text(encoding="utf-8") for page in folder.glob("reference/*.md")}


def test_the_pages_are_current(tmp_path):
    for name, text in generate(tmp_path).items():
        stored = (FOLDER / name).read_text(encoding="utf-8")
        assert text == stored, f"docs/reference/{name} is out of date: run 'make reference'"


@pytest.mark.slow
def test_a_change_of_a_key_a_command_or_a_docstring_changes_its_page(tmp_path):
    shutil.copytree("fcfn_abm", tmp_path / "fcfn_abm", ignore=shutil.ignore_patterns("__pycache__"))
    for file, pattern, added in [
        (
            "scenario/schema.py",
            r'class Scenario\(Section\):\n    """[^"]*"""\n',
            '    new: str = "a"\n',
        ),
        ("cli/run.py", r'@app\.command\(\s*help="', "New. "),
        ("game/equilibrium.py", r'def nash_equilibrium\([^)]*\)[^:]*:\n    """', "New. "),
    ]:
        source = tmp_path / "fcfn_abm" / file
        text = source.read_text(encoding="utf-8")
        text, n_places = re.subn(pattern, lambda found, new=added: found[0] + new, text, count=1)
        assert n_places == 1
        source.write_text(text, encoding="utf-8")
    made = generate(tmp_path / "docs", tmp_path)
    stored = {name: (FOLDER / name).read_text(encoding="utf-8") for name in made}
    assert made["sources.md"] == stored["sources.md"]
    for page, line in {
        "keys.md": "| `new` |",
        "commands.md": "New. ",
        "library.md": "New. ",
    }.items():
        assert line in made[page]
        assert line not in stored[page]


def test_every_key_and_every_registered_name_is_listed():
    page = (FOLDER / "keys.md").read_text(encoding="utf-8")
    schema = json.loads(Path("scenarios/scenario.schema.json").read_text(encoding="utf-8"))
    for table in (schema, *schema["$defs"].values()):
        for name in table.get("properties", {}):
            assert re.search(rf"^\| `{name}` |^## `.*\b{name}\]+`$", page, re.MULTILINE), name
    for registry in REGISTRIES.values():
        for name in registry:
            assert f'`kind = "{name}"`' in page, name


def test_every_command_and_every_option_is_listed():
    page = (FOLDER / "commands.md").read_text(encoding="utf-8")

    def check(path, command):
        section = re.search(rf"^## {path}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)[1]
        for option in (name for parameter in command.params for name in parameter.opts):
            assert f"`{option}" in section or f"{option.upper()}" in section, (path, option)
        for name, inner in getattr(command, "commands", {}).items():
            check(f"{path} {name}", inner)

    check("fcfn", typer.main.get_command(app))


def test_every_public_name_has_a_heading():
    page = (FOLDER / "library.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### `(\w+)`$", page, re.MULTILINE)) == set(fa.__all__)


def test_every_link_within_a_page_leads_to_a_heading():
    for page in FOLDER.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        anchors = {
            re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= anchors, page


def test_every_row_of_a_table_has_as_many_cells_as_its_head():
    for page in FOLDER.glob("*.md"):
        for table in re.findall(r"(?:^\|.*\n)+", page.read_text(encoding="utf-8"), re.MULTILINE):
            n_bars = {row.replace(r"\|", "").count("|") for row in table.splitlines()}
            assert len(n_bars) == 1, (page, table)
