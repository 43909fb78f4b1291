"""The tutorial on plug-ins, followed line by line in a fresh environment."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import fcfn_abm as fa

pytestmark = pytest.mark.slow

PAGE = Path("docs/plugins.md").read_text(encoding="utf-8")
EXAMPLE = Path("examples/plugin")
FCFN = """#!{python}
from fcfn_abm.cli import main
if __name__ == "__main__":  # which workers are not
    main()
"""
FILES = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', PAGE, re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh environment in which fcfn_abm is installed, without a network."""
    venv = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    here = [Path(fa.__file__).parents[1], *(p for p in sys.path if p.endswith("site-packages"))]
    (site / "ours.pth").write_text("".join(f"{path}\n" for path in here))
    (venv / "bin" / "fcfn").write_text(FCFN.format(python=venv / "bin" / "python"))
    (venv / "bin" / "fcfn").chmod(0o755)
    ours = {"PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | ours | offline  # pip reads that 0 as: no isolation


def steps():
    """Yield what the page asks for, in order: a file to write, or a command to type."""
    blocks = r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$'
    for language, title, text in re.findall(blocks, PAGE, re.DOTALL | re.MULTILINE):
        if title:
            yield title, text
        elif language == "bash":
            yield from ((None, line) for line in text.splitlines())


@pytest.fixture(scope="module")
def followed(environment, tmp_path_factory):
    """The folder of somebody who has followed the page, and what each command printed."""
    folder, printed = tmp_path_factory.mktemp("mine"), {}
    for title, text in steps():
        if title:
            (folder / title).parent.mkdir(exist_ok=True)
            (folder / title).write_text(text, encoding="utf-8")
            continue
        done = subprocess.run(
            shlex.split(text),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        printed[text] = done.stdout
    return folder, printed


def test_the_page_shows_the_files_of_the_example():
    assert set(FILES) == {
        p.relative_to(EXAMPLE).as_posix()
        for p in EXAMPLE.rglob("*.*")
        if p.suffix in (".py", ".toml")
    }
    for name, text in FILES.items():
        assert text == (EXAMPLE / name).read_text(encoding="utf-8"), name


def test_the_module_has_about_ten_lines_of_code():
    lines = FILES["fcfn_cautious/__init__.py"].splitlines()
    assert len([line for line in lines if line and not line.strip().startswith('"""')]) <= 10


def test_the_market_comes_to_rest_where_the_formula_of_the_page_says(followed):
    _, printed = followed
    shown = printed["fcfn run market.toml --import fcfn_cautious"]
    n, budget, keep = 20, 50.0, 0.8
    total = n * keep**2 * budget * (n - 1) / (1 + keep * (n - 1)) ** 2
    assert f"{total:.4f}" in shown
    assert f"{total:.4f}" in PAGE
    assert f"{budget - total:.2f}" in PAGE  # what all earn
    assert "epsilon rests, but not at an equilibrium" in " ".join(shown.split())


def test_an_installed_package_needs_no_option_and_is_named_in_the_record(followed):
    folder, _ = followed
    by_option, installed = (
        fa.read_record(folder / "results" / name) for name in ("market", "installed")
    )
    assert by_option.rounds.equals(installed.rounds)
    (plugin,) = installed.run["plugins"]
    assert (plugin["name"], plugin["version"]) == ("fcfn_cautious", "0.1.0")
    digest = subprocess.run(
        "sha256sum __init__.py | sha256sum",
        shell=True,
        cwd=folder / "fcfn_cautious",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert digest.split()[0] == plugin["sha256"] == by_option.run["plugins"][0]["sha256"]


def test_the_tests_of_the_package_pass(followed):
    _, printed = followed
    assert "3 passed" in printed["python -m pytest"]


def test_the_sweep_on_two_workers_gives_the_numbers_of_the_page(followed, environment):
    folder, _ = followed
    script = """
import fcfn_abm as fa
frame = fa.read_sweep("results/sweep-sweep").frame()
assert set(frame["status"]) == {"done"}
print(frame.groupby("learning.margin")["node_utility"].mean().to_json())
"""
    done = subprocess.run(
        ["python", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = {float(margin): value for margin, value in json.loads(done.stdout).items()}
    for margin, value in found.items():
        keep = 1 - margin
        assert value == pytest.approx(50 - 20 * keep**2 * 950 / (1 + 19 * keep) ** 2, rel=1e-6)
    assert f"from {found[0.0]:.1f} at a margin of 0 to {found[0.2]:.2f} at 0.2 and to " in " ".join(
        PAGE.split()
    )
    assert f"{found[0.4]:.2f} at 0.4" in PAGE
