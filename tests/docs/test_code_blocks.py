"""Every block of code in README and docs is right: run, or read by what will read it.

Blocks with ``>>>`` run as doctests. The others are run here, in a folder of their own, but for
those that need machines which no test has: these are compiled, and what they import of ours exists.
"""

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer.main

from fcfn_abm.cli import app

PAGES = [
    Path("README.md"),
    Path("scenarios/README.md"),
    *sorted(Path("docs").glob("*.md")),
    *sorted(Path("examples").rglob("README.md")),
]
NEEDS = {"dask_jobqueue": "SLURM", "dask_kubernetes": "Kubernetes"}  # cannot run here
SMALLER = {  # the same, in less time
    "trials=2000": "trials=100",
    'fa.compare_mechanisms(fa.load_scenario("scenarios/quickstart.toml"))': (
        "fa.compare_mechanisms(fa.load_scenario('quickstart'), replications=2)"
    ),
    'fa.calibrate_value(fa.load_scenario("scenarios/quickstart.toml"), value=60.0)': (
        "fa.calibrate_value(fa.load_scenario('quickstart', ['training.rounds=2']), [1, 9, 99], 2)"
    ),
}
BEFORE = {  # what a page takes for granted
    "README.md": """
fa.run_scenario(fa.load_scenario("quickstart", ["training.enabled=false"]), "results/quickstart")
""",
    "docs/gallery.md": """
run = fa.run_scenario(fa.load_scenario("quickstart", ["training.rounds=2"]))
axes = "sweep.axes={'population.rho.sigma' = [0.1, 1.0], 'population.n_nodes' = [10, 20]}"
spread = fa.load_scenario("heterogeneity/spread", ["sweep.replications=2", axes])
frame = fa.run_sweep(spread, "results/spread").frame()
""",
}
RUN = """
import json, sys
import fcfn_abm as fa
for code in json.load(sys.stdin):
    exec(compile(code, "block", "exec"), globals())
"""
SHELL = {"bash", "sh", "console"}
LANGUAGES = {"python", "pycon", "toml", "r", "text", ""} | SHELL


def blocks():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text[: found.start()].count("\n") + 1
            yield found[1], f"{page}:{line}", found[2]


def of(*languages):
    """Return the blocks in these languages that are no doctests."""
    return [
        pytest.param(code, id=place)
        for language, place, code in blocks()
        if language in languages and ">>>" not in code
    ]


def test_every_block_says_what_it_is_in():
    assert {language for language, _, _ in blocks()} <= LANGUAGES


@pytest.mark.parametrize("code", of("python"))
def test_what_a_block_imports_of_ours_exists(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("fcfn_abm"):
            for name in node.names:
                assert hasattr(import_module(node.module), name.name)


PLAIN = {block.id.rpartition(":")[0]: [] for block in of("python")}
for block in of("python"):
    if not any(name in block.values[0] for name in NEEDS):
        PLAIN[block.id.rpartition(":")[0]].append(block.values[0])


@pytest.mark.parametrize("page", [page for page, codes in PLAIN.items() if codes])
def test_the_plain_python_of_a_page_runs_from_top_to_bottom(page, tmp_path):
    text = json.dumps([BEFORE.get(page, ""), *PLAIN[page]])
    for large, small in SMALLER.items():
        text = text.replace(json.dumps(large)[1:-1], small)
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", of("toml"))
def test_a_block_of_toml_is_toml(code):
    assert tomllib.loads(code)


@pytest.mark.parametrize("code", of(*SHELL))
def test_a_block_of_shell_calls_commands_that_there_are(code):
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for place, word in enumerate(words):
            if word.rsplit("/", 1)[-1] == "fcfn":
                _check_command(words[place + 1 :])
            if re.fullmatch(r"(benchmarks|analysis|examples|scenarios)/\S+\.\w+", word):
                assert Path(word).is_file(), word


def _check_command(words):
    words = [part for word in words for part in re.sub(r"[\[\]]", " ", word).split()]
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        if name.startswith("-"):
            return
        inner = name.split("|")  # `fcfn scenarios list|check`: all are there
        for one in inner:
            assert one in command.commands, f"there is no command {one!r}"
        command = command.commands[inner[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    for word in words:
        if word.startswith("-") and not re.fullmatch(r"-?[\d.]+", word):
            assert word.split("=")[0] in known | {"--help", "-h"}, word
