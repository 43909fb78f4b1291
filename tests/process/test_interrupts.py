"""Interrupts: obeyed whatever swallows them, deferred where half of something would be left."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fcfn_abm.cli import app
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.process.interrupts import defer_interrupts, obey_interrupts, raise_if_interrupted
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.records import new_folder
from fcfn_abm.records.folders import SCENARIO_FILE
from fcfn_abm.records.integrity import RUN_FILE
from fcfn_abm.runs.results import carry_out_run
from fcfn_abm.scenario import Scenario
from fcfn_abm.scenario.sweep import SweepRun


@pytest.fixture(autouse=True)
def usual_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def interrupt(*_):
    signal.raise_signal(signal.SIGINT)


def swallow():
    with suppress(KeyboardInterrupt):
        interrupt()


def obeyed(work):
    with obey_interrupts():
        work()


def test_numpy_swallows_an_interrupt():  # or half of this would not be needed
    class Typed:
        asked = 0

        @property
        def dtype(self):
            Typed.asked += 1
            interrupt()

    assert (np.dtype("f8") == Typed()) is False
    assert Typed.asked == 1


@pytest.mark.parametrize("shown", [True, False])
def test_the_next_step_of_a_bar_obeys_what_was_swallowed(shown):
    def work():
        with progress_bar(9, "work", "step", shown=shown) as bar:
            for step in range(9):
                steps.append(step)
                if step == 3:
                    swallow()
                bar.update()

    steps = []
    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == [0, 1, 2, 3]


def test_the_end_of_a_block_obeys_what_was_swallowed():
    with pytest.raises(KeyboardInterrupt):
        obeyed(swallow)
    obeyed(raise_if_interrupted)  # it is over then


def test_an_interrupt_is_no_other_error():
    def work():
        swallow()
        raise ValueError("Can't close this.")

    with pytest.raises(KeyboardInterrupt) as caught:
        obeyed(work)
    assert isinstance(caught.value.__cause__, ValueError)


def test_another_error_stays_itself():
    def work():
        raise ValueError("this")

    with pytest.raises(ValueError, match="this"):
        obeyed(work)


def test_what_a_finalizer_swallows_is_obeyed_and_not_printed(monkeypatch):
    class Thrown:
        def __del__(self):
            interrupt()

    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with pytest.raises(KeyboardInterrupt):
        obeyed(Thrown)
    assert printed == []
    Thrown()
    assert len(printed) == 1


def test_the_innermost_block_sees_to_it():
    with obey_interrupts():
        with pytest.raises(KeyboardInterrupt):
            obeyed(swallow)
        raise_if_interrupted()  # whoever caught it there has seen to it


def test_a_handler_that_raises_nothing_is_left_alone():
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    with progress_bar(1, "work", "step", shown=False) as bar:
        interrupt()
        bar.update()
    assert seen == [1]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with progress_bar(1, "work", "step", shown=False) as bar, defer_interrupts():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        interrupt()
        bar.update()
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("block", [obey_interrupts, defer_interrupts])
def test_other_threads_leave_signals_alone(block):
    def work():
        with block():
            seen.append(signal.getsignal(signal.SIGINT))

    seen = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_a_deferred_interrupt_comes_when_the_block_has_ended():
    def work():
        with defer_interrupts():
            interrupt()
            interrupt()
            ended.append(True)
        raise AssertionError("It has not come.")

    ended = []
    with pytest.raises(KeyboardInterrupt):
        work()
    assert ended == [True]


def test_a_run_that_an_interrupt_broke_did_not_fail(monkeypatch):
    def broken(_):
        swallow()
        raise InvalidScenarioError("what came of the interrupt")

    monkeypatch.setattr("fcfn_abm.runs.results._play", broken)
    run = SweepRun(0, 0, {}, Scenario())
    with pytest.raises(KeyboardInterrupt):
        carry_out_run(run, None)


@pytest.mark.parametrize("becomes_an_error", [False, True])
@pytest.mark.parametrize(
    ("function", "command"),
    [
        ("fcfn_abm.runs.sweep.run_sweep", ["sweep", "quickstart"]),
        ("fcfn_zhou2023.replicate", ["replicate", "fig4"]),
    ],
)
def test_a_command_tells_of_an_interrupt_once(function, command, becomes_an_error, monkeypatch):
    def cut_off(*_, **__):
        if becomes_an_error:
            swallow()
            raise ValueError("what came of it")
        interrupt()

    monkeypatch.setattr(function, cut_off)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 130
    assert done.stderr.count("\n") == 1
    assert "Run the same command to resume" in done.stderr


def test_an_interrupt_while_options_are_read_is_reported_too(tmp_path):
    (tmp_path / "interrupted.py").write_text(
        "import sys; sys.argv = ['fcfn', 'scenarios', 'list']\n"
        "from signal import SIGINT, raise_signal\n"
        "from fcfn_abm import cli\n"
        "cli.app.info.cls.parse_args = lambda *_: raise_signal(SIGINT)\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "fcfn: interrupted; no incomplete result was left in the output folder.\n"


def test_an_interrupt_waits_until_a_folder_is_replaced(tmp_path, monkeypatch):
    def rename(path, target):
        interrupt()
        return renamed(path, target)

    def write(text):
        with new_folder(tmp_path / "record", overwrite=True) as folder:
            for name in (RUN_FILE, SCENARIO_FILE):
                (folder / name).write_text(text)

    renamed = Path.rename
    write('{"seed": 1}')
    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr("fcfn_abm.process.folders._exchange", lambda *_: False)  # as elsewhere
    with pytest.raises(KeyboardInterrupt):
        write('{"seed": 2}')
    assert [path.name for path in tmp_path.iterdir()] == ["record"]
    assert (tmp_path / "record" / RUN_FILE).read_text() == '{"seed": 2}'
