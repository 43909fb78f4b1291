import os
import signal

import pytest
from hypothesis import settings

# tests are about the serial engine unless they say otherwise; to test on a device, name it:
# CUDA_VISIBLE_DEVICES=0 python -m pytest tests/training/test_stacked.py
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from viz.chromium import MISSING

# a shell's job in the background has it ignored, and what tests start would inherit that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("project", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("project")

SLOW = (  # files of which most tests train, start processes or build something; and single tests
    "docs/audit.md",
    "docs/calibrate.md",
    "docs/gallery.md",
    "docs/sweeps.md",
    "tests/abm/test_churn.py",
    "tests/abm/test_compiled.py",
    "tests/analysis/",
    "tests/cli/test_streams.py",
    "tests/cli/test_terminal.py::test_quiet",
    "tests/docs/test_code_blocks.py",
    "tests/docs/test_site.py",
    "tests/dp/test_accounting.py::test_more",
    "tests/dp/test_accounting.py::test_noise_beyond",
    "tests/dp/test_accounting.py::test_thousands",
    "tests/golden/",
    "tests/packaging/",
    "tests/records/test_stream.py",
    "tests/report/test_pages.py",
    "tests/process/test_cluster.py",
    "tests/process/test_executors.py",
    "tests/runs/",
    "tests/soak/",
    "tests/training/test_injected_noise.py::test_noise_that_is_wrong",
    "tests/training/test_secure_training.py",
    "tests/training/test_stacked.py",
    "tests/training/test_trainer.py",
    "tests/test_cli.py",
    "tests/viz/",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)


collect_ignore = ["soak/__main__.py", "soak/guided.py"]  # programs of their own


def pytest_terminal_summary(terminalreporter):
    if MISSING:
        terminalreporter.write_line(f"Left out: tests/viz/test_browser.py, since {MISSING}.")
