"""The container file: its context is enough for the wheel, and it runs the quick start."""

import json
import re
from pathlib import Path

import pytest
from building import build, copy_sources, list_tracked

from fcfn_abm.scenario import shipped_files

LINES = Path("Containerfile").read_text(encoding="utf-8").splitlines()


def sent():
    """Return the paths that .dockerignore lets through."""
    lines = Path(".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    assert patterns[-1] == "**/__pycache__"
    assert all(pattern.startswith("!") for pattern in patterns[1:-1])
    return [Path(pattern[1:]) for pattern in patterns[1:-1]]


def test_the_default_command_is_the_quick_start():
    (command,) = (line for line in LINES if line.startswith("CMD "))
    program, verb, name = json.loads(command.removeprefix("CMD "))
    assert (program, verb) == ("fcfn", "run")
    assert name == "quickstart"
    assert name in shipped_files()


def test_both_stages_use_one_image_of_a_python_that_is_supported():
    images = {re.match(r"FROM (\S+)", line)[1] for line in LINES if line.startswith("FROM ")}
    (version,) = (re.search(r"python:(3\.\d+)-slim$", image)[1] for image in images)
    assert f"Programming Language :: Python :: {version}" in Path("pyproject.toml").read_text()


@pytest.mark.slow
def test_the_wheel_of_the_context_is_the_wheel_of_the_repository(tmp_path):
    paths = list_tracked()
    if paths is None:
        pytest.skip("not a git checkout")
    context = [path for path in paths if any(path.is_relative_to(part) for part in sent())]
    wheels = []
    for name, some in (("all", paths), ("context", context)):
        copy_sources(some, tmp_path / name)
        wheels.append(build(tmp_path / name, tmp_path / f"{name}-dist", "--no-isolation")[0])
    assert len(context) < len(paths)
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
