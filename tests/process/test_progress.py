"""Progress on stderr: quiet where it would litter a file, and never a control character there."""

from __future__ import annotations

import io
import re
import sys

import pytest

from fcfn_abm.process import progress
from fcfn_abm.process.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def text_of_bars(monkeypatch, stream, *, shown=True, pause=0.0):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_PAUSE", pause)
    with progress_bar(3, "outer", "step", shown=shown) as outer:
        for _ in range(3):
            with progress_bar(2, "inner", "part", shown=shown) as inner:
                inner.update(2)
            outer.update()
    return stream.getvalue()


def test_a_pipe_gets_whole_lines(monkeypatch):
    lines = text_of_bars(monkeypatch, io.StringIO()).splitlines()
    assert all(re.match(r"(inner|outer): +\d+%\|[ #\d]*\| \d/\d \[.*\]$", line) for line in lines)
    assert any(line.startswith("outer: 100%|") and " 3/3 [" in line for line in lines)
    assert sum(" 3/3 [" in line for line in lines) == 1
    assert any(line.startswith("inner: 100%|") and " 2/2 [" in line for line in lines)


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")])
def test_a_reader_that_has_gone_costs_the_lines_and_not_the_work(monkeypatch, error):
    class Gone(io.StringIO):
        def write(self, *_):
            raise error

        flush = write

    assert text_of_bars(monkeypatch, Gone()) == ""


def test_a_pipe_gets_nothing_of_short_work(monkeypatch):
    assert text_of_bars(monkeypatch, io.StringIO(), pause=30.0) == ""


def test_a_terminal_gets_a_bar_that_redraws_itself(monkeypatch):
    text = text_of_bars(monkeypatch, Terminal(), pause=30.0)
    assert "\router: 100%|" in text
    assert "3/3 [" in text


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_what_is_not_to_be_shown_is_not(monkeypatch, stream):
    assert text_of_bars(monkeypatch, stream(), shown=False) == ""
