"""What commands print on a terminal, and what they print elsewhere."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import fcfn_abm as fa
from fcfn_abm.cli import app
from fcfn_abm.cli.terminal import colours, styled

BOLD, RED, GREEN = "\x1b[1m", "\x1b[31m", "\x1b[32m"
TEXT = """A market (seed 1)

10 nodes: cycling after 60 rounds; it converged after all, said nobody.

Utilities
       a node
  ours      1
Noise multiplier: noise over sensitivity of one release with all of
  epsilon."""


class Screen:
    def isatty(self):
        return True


def test_headings_are_bold_and_the_verdict_has_a_colour():
    shown = styled(TEXT)
    assert re.sub(r"\x1b\[\d+m", "", shown) == TEXT  # not a letter is another
    bold = [line for line in shown.split("\n") if line.startswith(BOLD)]
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in bold] == ["A market (seed 1)", "Utilities"]
    assert f"nodes: {RED}{BOLD}cycling\x1b[0m after" in shown
    assert GREEN in styled("5 nodes: converged after 3 rounds; good.")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colours_are_for_terminals_that_want_them(monkeypatch, environment, expected):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not colours()  # stdout is captured
    monkeypatch.setattr("sys.stdout", Screen())
    assert colours() == expected


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
    assert done.stderr == f"fcfn: {tmp_path / 'nowhere'}: there is no such folder.\n"
