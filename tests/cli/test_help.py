"""What the commands say of themselves."""

import subprocess
import sys

import pytest


def run_help(*options, command=()):
    done = subprocess.run(
        [sys.executable, *options, "-m", "fcfn_abm", *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    "command", [(), *((name,) for name in ("data", "scenarios", "audit", "odd", "crate"))], ids=str
)
def test_help_is_the_same_without_docstrings(command):
    text = run_help(command=command)
    assert run_help("-OO", command=command) == text
    if not command:
        assert "Run one scenario: play the market" in text
