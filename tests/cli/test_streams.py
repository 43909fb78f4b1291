"""Names, titles and streams of every kind: what is printed, and how the command ends."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.dom import minidom

import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

import fcfn_abm as fa
from fcfn_abm.cli import app
from fcfn_abm.cli.base import choose_name
from fcfn_abm.process.streams import _ESCAPE, open_streams
from fcfn_abm.report.blocks import Page, Words
from fcfn_abm.report.figures.files import svg_of
from fcfn_abm.report.render import render_html, render_markdown
from fcfn_abm.report.theme import escape_text

pytestmark = pytest.mark.slow

FCFN = f"{sys.executable} -m fcfn_abm"
MARKET = "dynamics/warm-start"  # trains nothing
ODD = os.fsdecode(b"\xff")


def shell(command, cwd=None, **environment):
    """Run a line of bash, in which fcfn is this program."""
    found = shutil.which("bash")
    if found is None:
        pytest.skip("there is no bash")
    return subprocess.run(
        [found, "-c", f'fcfn() {{ {FCFN} "$@"; }}; {command}'],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", f"o/{ODD}"], "the path is not valid UTF-8, which results need"),
        (["--out", "o/x", "--set", f"title={ODD}"], ", title: must be UTF-8 text, but contains"),
    ],
)
def test_names_that_are_no_utf8_are_refused_before_work(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "fcfn_abm", "run", MARKET, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("fcfn: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_utf8_hinders_only_what_lies_in_it(tmp_path):
    folder = tmp_path / ODD
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system wants UTF-8")
    record = tmp_path / "record"
    assert shell(f"fcfn run {MARKET} -q --out {record}", folder).returncode == 0
    shutil.copytree(record, folder / "copy")
    for command in (f"run {MARKET}", "report copy"):
        done = shell(f"fcfn {command}", folder)
        assert done.returncode == 2
        assert "not valid UTF-8" in done.stderr
        assert "Traceback" not in done.stderr
    shutil.copy(Path("scenarios/quickstart.toml"), folder / f"{ODD}.toml")
    done = shell("fcfn scenarios check *.toml", folder)
    assert done.stdout == "\\udcff.toml: ok\n"
    assert {path.name for path in folder.iterdir()} == {"copy", f"{ODD}.toml"}


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "latin-1"}],
)
def test_a_title_of_any_letters_can_be_printed_anywhere(environment, tmp_path):
    text = f'extends = "{MARKET}"\ntitle = "\u8bd5\u9a8c"'
    (tmp_path / "market.toml").write_text(text, encoding="utf-8")
    for command in ("scenarios list .", "equilibrium market.toml"):
        done = shell(f"fcfn {command}", tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        assert "\u8bd5\u9a8c" in done.stdout or r"\u8bd5\u9a8c" in done.stdout


def test_a_closed_stdout_or_stderr_costs_the_words_and_not_the_work(tmp_path):
    for i, closed in enumerate((">&-", ">&- 2>&-")):
        done = shell(f"fcfn run {MARKET} --out {i} {closed}", tmp_path)
        assert done.returncode == 0
        assert done.stderr == ""
        assert fa.read_record(tmp_path / str(i)).run["verdict"]["kind"] == "converged"
    assert shell("fcfn run nowhere 2>&-").returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_is_full_is_reported_in_a_sentence(unbuffered):
    for command in ("--version", "scenarios list"):
        done = shell(f"fcfn {command} >/dev/full", PYTHONUNBUFFERED=unbuffered)
        assert done.returncode == 2
        assert done.stderr == "fcfn: cannot write the output: No space left on device.\n"
    assert shell("fcfn rnu 2>/dev/full", PYTHONUNBUFFERED=unbuffered).returncode == 2


@pytest.mark.parametrize("command", ["--version", "scenarios list"])
def test_a_reader_that_has_gone_ends_the_command_quietly(command):
    # the reader has gone for sure: the writer waits for it
    done = shell(f"{{ sleep 0.2; fcfn {command}; }} | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.parametrize("value", [r'"\u001b[31mX\u202e\n  second"', "'''X\u202e\n second'''"])
def test_a_title_steers_no_terminal_and_stays_in_its_line(value, tmp_path):
    out = str(tmp_path / "record")
    for command in (["equilibrium", MARKET], ["run", MARKET, "--out", out]):
        done = CliRunner().invoke(app, [*command, "--set", f"title={value}"], color=True)
        assert done.exit_code == 0, done.output
        assert not set(done.output) & {"\x1b", "\u202e"}
        assert r"\u202e second" in done.output.splitlines()[0]
    asked = ["run", MARKET, "--out", out, "--overwrite", "--json", "--set", f"title={value}"]
    done = CliRunner().invoke(app, asked, color=True)
    assert "\u202e" not in done.output
    assert "\u202e" in json.loads(done.stdout)["title"]  # it is the same text
    done = CliRunner().invoke(app, ["run", f"{value}\n\x1b[31m"], color=True)
    assert done.exit_code == 2
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_listed_titles_steer_no_terminal(tmp_path):
    (tmp_path / "a.toml").write_text(r'title = "A\u001b[31m\nB"', encoding="utf-8")
    done = CliRunner().invoke(app, ["scenarios", "list", str(tmp_path)], color=True)
    assert done.stdout == f"{tmp_path / 'a.toml'}  A\\u001b[31m B\n"


def test_reports_hold_no_control_characters():
    title = "A\x1b[31m\x00\u202eB"
    page = Page(title, title, [Words(title)])
    for text in (render_html(page), render_markdown(page, str, str)):
        assert not set(text) & {"\x1b", "\x00", "\u202e"}
        assert "u202eB" in text
    figure = Figure()
    figure.text(0, 0, escape_text(title))
    assert minidom.parseString(svg_of(figure))


def test_a_home_that_cannot_be_written_is_no_matter_for_reports(tmp_path):
    (tmp_path / "home").write_text("no folder, so that not even root can write there")
    environment = {"HOME": str(tmp_path / "home"), "MPLCONFIGDIR": ""}
    environment |= {"XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}
    done = shell(f"fcfn run {MARKET} -q --out record; fcfn report record", tmp_path, **environment)
    assert done.stdout == "record\nrecord/report.html\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a/market.toml", "market"),
        ("dynamics/warm-start", "warm-start"),
        (".market.toml", ".market"),
        (".toml", "scenario"),
        ("..toml", "scenario"),
        ("...toml", "scenario"),
        ("..", "scenario"),
    ],
)
def test_results_are_never_the_folder_of_all_results(file, name):
    assert choose_name(Path(file)) == name


def test_a_scenario_without_a_name_has_a_folder_of_its_own(tmp_path):
    (tmp_path / "..toml").write_text(f'extends = "{MARKET}"', encoding="utf-8")
    done = shell("fcfn run ..toml -q", tmp_path)
    assert done.stdout == "results/scenario\n", done.stderr


def test_json_stays_json_where_a_stream_knows_few_letters():
    open_streams()  # registers how others are written
    text = json.dumps("é\U0001f600试", ensure_ascii=False)
    for encoding in ("ascii", "latin-1", "cp1253"):
        written = text.encode(encoding, errors=_ESCAPE)
        assert json.loads(written.decode(encoding)) == "é\U0001f600试"
