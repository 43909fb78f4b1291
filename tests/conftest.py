from hypothesis import settings
from viz.chromium import MISSING

settings.register_profile("project", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("project")

collect_ignore = ["soak/__main__.py", "soak/guided.py"]  # programs of their own


def pytest_terminal_summary(terminalreporter):
    if MISSING:
        terminalreporter.write_line(f"Left out: tests/viz/test_browser.py, since {MISSING}.")
