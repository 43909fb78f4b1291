"""Every block of code in README and docs is right: run, or read by what will read it.

Blocks with ``>>>`` run as doctests. The others are run here, in a folder of their own, but for
those that need machines which no test has: these are compiled, and what they import of ours exists.
Of shell blocks all lines run that call ``fcfn``, with less to train; NOT_RUN says why not others.
"""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer.main
import warm

import fcfn_abm as fa
from fcfn_abm.cli import app

pytestmark = pytest.mark.slow

FOLLOWED = {  # line by line, by tests of their own
    Path("docs/plugins.md"),  # tests/docs/test_plugin_tutorial.py
    Path("docs/clusters.md"),  # tests/docs/test_clusters_page.py
    Path("docs/howto_costs_csv.md"),  # tests/docs/test_howto_costs_csv.py
    Path("docs/howto_half_lives.md"),  # and so on
    Path("docs/howto_node_left.md"),
    Path("docs/howto_own_images.md"),
    Path("docs/howto_sweep_figure.md"),
}
PAGES = [
    Path("README.md"),
    Path("scenarios/README.md"),
    *sorted(set(Path("docs").glob("*.md")) - FOLLOWED),
    *sorted(Path("examples").rglob("README.md")),
    *sorted(Path("benchmarks").rglob("README.md")),
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
LESS = {  # what `fcfn` is given on top, to take less time
    "run": ["--set", "training.rounds=1"],
    "compare": ["--replications", "2"],
    "check-mechanism": ["--games", "5"],
    "calibrate": [
        *("--set", "training.rounds=2"),
        *("--epsilons", "1,9,99"),
        *("--seeds", "2"),
    ],
    "audit": ["--trials", "100"],
    "sweep": ["--set", "sweep.replications=2"],
    "bench": [
        *("--set", "bench.replications=2"),
        *("--set", "bench.training.seeds=1", "--set", "training.rounds=5"),
        *("--set", 'bench.mechanisms=["stackelberg", "posted-price"]'),
    ],
}
FIRST = {  # what a page's commands take for granted
    "docs/report.md": "fcfn run quickstart --quiet; fcfn sweep heterogeneity/spread --quiet; "
    "fcfn run dynamics/cold-start --out results/market --quiet; "
    "fcfn sweep heterogeneity/spread --out results/other-sweep --quiet",
}
FINDS = (  # a violation, and says so by its exit code
    "fcfn audit privacy/quickstart-local --epsilon 98 --set \"privacy.calibration='classical'\""
)
NOT_RUN = {  # which lines, and why
    r"\b(FILE|RECORD|FOLDER|NAME)\b": "a synopsis: the reader's own names belong there",
    r"^make ": "the Makefile installs from the network",
    r"^source ": "enters the environment that was not made",
    r"\bpip install |-m venv ": "installs from the network",
    r"^fcfn data prepare ": "downloads",
    r"python -m pytest": "tests, not from within a test",
    r"^fcfn audit .*--whole": "minutes; tests/runs/test_audit_whole.py attacks smaller ones",
    r"^fcfn run scenarios/privacy/emnist": "half an hour, on images that do not come with it",
    r"^fcfn view ": "goes on until Ctrl-C; tests/viz opens the window",
    r"^fcfn replicate all": "a quarter of an hour; tests/analysis makes the figures",
    r"^python analysis/studies/": "minutes each; tests/analysis carries smaller ones out",
    r"^python examples/emulator": "minutes; tests/examples makes a smaller emulator",
    r"^python benchmarks/": "measures for minutes, on a machine that does nothing else",
    r"^dask worker ": "needs a cluster; tests/process/test_cluster.py starts one",
    r"^flower-env/bin/python ": "needs Flower; tests/examples runs it where it is installed",
}
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
    done = warm.run(
        *("python", "-c", RUN),
        input=text,
        cwd=tmp_path,
        env={"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", of("toml"))
def test_a_block_of_toml_is_a_scenario_or_goes_into_one(code, tmp_path):
    base = "" if "extends" in tomllib.loads(code) else 'extends = "quickstart"\n'
    (tmp_path / "mine.toml").write_text(base + code)
    assert fa.load_scenario(tmp_path / "mine.toml")


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
    known = {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for word in words:
        if word.startswith("-") and not re.fullmatch(r"-?[\d.]+", word):
            assert word.split("=")[0] in known | {"--help", "-h"}, word


def _lines(code):
    """Return the commands of a shell block, without their comments."""
    bare = [re.sub(r"(^|\s)#.*", "", line) for line in code.replace("\\\n", " ").splitlines()]
    return [line.strip().removeprefix(".venv/bin/") for line in bare if line.strip()]


def _why_not(line):
    return [pattern for pattern in NOT_RUN if re.search(pattern, line)]


COMMANDS = {str(page): [] for page in PAGES}
for block in of(*SHELL):
    COMMANDS[block.id.rpartition(":")[0]] += _lines(block.values[0])
RUNS = {
    page: run for page, lines in COMMANDS.items() if (run := [x for x in lines if not _why_not(x)])
}


def test_every_reason_not_to_run_a_line_is_needed():
    lines = [line for lines in COMMANDS.values() for line in lines]
    assert {pattern for line in lines for pattern in _why_not(line)} == set(NOT_RUN)
    assert set(FIRST) <= set(RUNS)
    assert any(FINDS in lines for lines in RUNS.values())


@pytest.mark.parametrize("page", RUNS)
def test_the_commands_of_a_page_run_from_top_to_bottom(page, tmp_path):
    assert all("fcfn" in line for line in RUNS[page])
    programs, work = tmp_path / "bin", tmp_path / "work"
    programs.mkdir()
    work.mkdir()
    less = f"{LESS!r}.get(' '.join(sys.argv[1:2]), [])"
    for name, text in (("fcfn", warm.write_fcfn(more=less)), ("open", f"#!{sys.executable}\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    violated = f"if {FINDS}; then exit 9; else [ $? = 1 ]; fi"
    lines = [violated if line == FINDS else line for line in RUNS[page]]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join([FIRST.get(page, ""), *lines])],
        capture_output=True,
        text=True,
        check=False,
        cwd=work,
        env={
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path.cwd()),
            "FCFN_DATA": str(tmp_path),
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stderr
