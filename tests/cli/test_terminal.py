"""What commands print on a terminal, and what they print elsewhere."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import fcfn_abm as fa
from fcfn_abm.cli import app
from fcfn_abm.cli.terminal import has_colours, render
from fcfn_abm.report.blocks import Table
from fcfn_abm.report.marks import heading, join, mark_verdict, verdict

BOLD = "\x1b[1m"
WIDE = "word " * 60
TEXT = join(
    "\n",
    [
        heading("A [red]market[/red] :smile: \x1b[31m (seed 1)"),
        "",
        mark_verdict("10 nodes: cycling after 60 rounds; it converged after all.", "cycling", 10),
        f"{WIDE}end",
        Table(["", "a node"], [["ours", "1"]], "Utilities").to_rich_text(),
        "Noise multiplier: noise over sensitivity.",
    ],
)


class Screen:
    def isatty(self):
        return True


def test_headings_are_bold_and_the_verdict_has_a_colour():
    rendered = render(TEXT)
    assert re.sub(r"\x1b\[[\d;]+m", "", rendered) == TEXT.plain  # no letter is changed, no line cut
    bold = [line for line in rendered.split("\n") if line.startswith(BOLD)]
    title = r"A [red]market[/red] :smile: \u001b[31m (seed 1)"
    assert bold == [f"{BOLD}{title}\x1b[0m", f"{BOLD}Utilities\x1b[0m"]
    assert "10 nodes: \x1b[1;31mcycling\x1b[0m after 60 rounds; it converged after" in rendered
    assert render(verdict("converged")) == "\x1b[1;32mconverged\x1b[0m"
    assert render(verdict("missing")) == "missing"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colours_are_for_terminals_that_want_them(monkeypatch, environment, expected):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not has_colours()  # stdout is captured
    monkeypatch.setattr("sys.stdout", Screen())
    assert has_colours() == expected


@pytest.mark.slow
def test_quiet_prints_the_path_alone(tmp_path):
    out = tmp_path / "run"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fcfn_abm", "run", "scenarios/dynamics/warm-start.toml"),
            *("--quiet", "--out", str(out)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{out}\n"
    assert done.stderr == ""
    assert fa.read_record(out).run["verdict"]["kind"] == "converged"


@pytest.mark.slow
def test_quiet_goes_for_comparisons_and_sweeps_too(tmp_path):
    compare = ["compare", "scenarios/quickstart.toml", "--replications", "1", "-q", "--out"]
    few = "sweep.axes={'population.rho.sigma' = [0.01]}"
    sweep = ["sweep", "scenarios/heterogeneity/spread.toml", "--workers", "1", "-q"]
    sweep += ["--set", "sweep.replications=1", "--set", few, "--out"]
    for command in (compare, sweep):
        out = str(tmp_path / command[0])
        done = CliRunner().invoke(app, [*command, out])
        assert done.exit_code == 0, done.output
        assert done.stdout == f"{out}\n"


def test_a_report_that_cannot_be_written_gets_a_sentence(tmp_path):
    done = CliRunner().invoke(app, ["report", str(tmp_path / "nowhere")])
    assert done.exit_code == 2
    assert done.stderr == f"fcfn: {tmp_path / 'nowhere'}: does not exist.\n"
