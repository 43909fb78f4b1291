import os
import signal
from contextlib import contextmanager

import pytest
from hypothesis import settings

# tests are about the serial engine unless they say otherwise; to test on a device, name it:
# CUDA_VISIBLE_DEVICES=0 python -m pytest tests/training/test_stacked.py
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# the processes that share the tests share the cores too
os.environ.setdefault("OMP_NUM_THREADS", "1")

from viz.chromium import MISSING

# a shell's job in the background has it ignored, and what tests start would inherit that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("project", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("project")

# pages whose examples train or start processes; a test in a Python file has the mark itself
SLOW_PAGES = {"audit.md", "calibrate.md", "gallery.md", "sweeps.md"}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in SLOW_PAGES:
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # quick files fill the gaps at the end


collect_ignore = ["soak/__main__.py", "soak/guided.py"]  # programs of their own


@pytest.fixture
def hold_lock():
    """Return a context manager that locks a file as another process does."""
    fcntl = pytest.importorskip("fcntl")

    @contextmanager
    def hold(path):
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    return hold


def pytest_terminal_summary(terminalreporter):
    if MISSING:
        terminalreporter.write_line(f"Left out: tests/viz/test_browser.py, since {MISSING}.")
