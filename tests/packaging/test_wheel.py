"""The built package: unpacked, and used from a folder outside of the checkout."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from building import build, copy_sources, list_tracked

import fcfn_abm as fa

pytestmark = pytest.mark.slow

RUN = """
import pathlib, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {without!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
import fcfn_abm.cli

assert pathlib.Path(fcfn_abm.__file__).is_relative_to({site!r})
sys.argv = ["fcfn", *{args!r}]
fcfn_abm.cli.main()
"""


def tracked():
    """Return the files of the repository."""
    paths = list_tracked()
    if paths is None:
        pytest.skip("not a git checkout")
    return paths


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and a source archive."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    copy_sources(tracked(), source)
    return build(source, out, "--no-isolation")


@pytest.fixture(scope="module")
def wheel(built):
    return built[0]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Where the wheel is unpacked."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


@pytest.fixture
def fcfn(installed, tmp_path):
    """Run the installed command line in an empty folder, some libraries taken away."""

    def run(*args, without=()):
        code = RUN.format(site=str(installed), args=list(args), without=list(without))
        env = os.environ | {"PYTHONPATH": str(installed), "FCFN_DATA": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def files(folder):
    """Return what is below a folder, of scenarios their folder alone."""
    found = {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}
    inside = {Path("_scenarios") if p.parts[0] == "_scenarios" else p for p in found}
    return {p for p in inside if "__pycache__" not in p.parts}


def shipped():
    return sorted(p.relative_to("scenarios") for p in Path("scenarios").rglob("*.toml"))


def test_the_wheel_holds_code_types_and_scenarios_and_no_tests(installed):
    inside = installed / "fcfn_abm"
    assert (inside / "py.typed").is_file()
    for path in [*shipped(), Path("scenario.schema.json")]:
        assert (inside / "_scenarios" / path).read_bytes() == (
            Path("scenarios") / path
        ).read_bytes()
    assert files(inside) - {Path("_scenarios")} == files(Path("fcfn_abm"))
    top = {p.name for p in installed.iterdir() if not p.name.endswith(".dist-info")}
    assert top <= {"fcfn_abm", "fcfn_zhou2023"}


def test_the_source_archive_holds_every_file_of_the_repository_and_no_others(built):
    with tarfile.open(built[1]) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames() if name.count("/")}
    tracked_files = {path.as_posix() for path in tracked()}
    assert tracked_files <= inside
    folders = {parent.as_posix() for path in tracked() for parent in path.parents}
    made = {path for path in inside - tracked_files - folders if "egg-info" not in path}
    assert made <= {"PKG-INFO", "setup.cfg"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_equal_sources_give_equal_archives(built, tmp_path):
    """Another day, another folder, another umask."""
    source, out = tmp_path / "other", tmp_path / "dist"
    copy_sources(tracked(), source, 0o600, 1_500_000_000)
    before = os.umask(0o077)
    try:
        again = build(source, out, "--no-isolation")
    finally:
        os.umask(before)
    for one, other in zip(built, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_the_shipped_scenarios_are_listed_and_run_by_name(fcfn, tmp_path):
    listed = fcfn("scenarios", "list")
    names = [line.split("  ")[0] for line in listed.stdout.splitlines()]
    assert names == sorted(path.with_suffix("").as_posix() for path in shipped())
    done = fcfn("run", "dynamics/cold-start")
    assert done.returncode == 0, done.stderr
    record = fa.read_record(tmp_path / "results" / "cold-start")
    assert record.run["verdict"]["kind"] == "converged"


def test_a_scenario_that_extends_a_shipped_one_needs_no_checkout(fcfn, tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "quickstart"\nseed = 8\n')
    assert fcfn("scenarios", "check", "mine.toml").stdout == "mine.toml: ok\n"
    assert fcfn("scenarios", "copy", "training/cifar10").stdout == "cifar10.toml\n"
    assert fcfn("scenarios", "check", "cifar10.toml").stdout == "cifar10.toml: ok\n"


@pytest.mark.parametrize(
    ("command", "without", "extra"),
    [
        (["run", "quickstart"], ["torch"], "train"),
        (["data", "list"], ["sklearn", "torchvision"], "train"),
        (
            ["run", "privacy/quickstart-local", "--set", "privacy.secure_noise=true"],
            ["opendp"],
            "secure",
        ),
        (["sweep", "heterogeneity/spread", "--cluster", "local:2"], ["distributed"], "cluster"),
        (["view", "quickstart", "--no-browser", "--port", "0"], ["solara"], "viz"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else value,
)
def test_a_missing_extra_is_named_in_one_sentence(fcfn, command, without, extra):
    done = fcfn(*command, without=without)
    assert f"pip install 'fcfn-abm[{extra}]'" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    listing = command[0] == "data" and command[1] == "list"
    assert done.returncode == (0 if listing else 2)
    assert listing or len(done.stderr.strip().splitlines()) == 1


def test_the_version_stands_in_one_place(wheel, fcfn):
    assert "version" not in tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert wheel.name.split("-")[1] == fa.__version__
    assert fcfn("--version").stdout == f"fcfn {fa.__version__}\n"
    assert f"\n## {fa.__version__}" in Path("CHANGELOG.md").read_text(encoding="utf-8")


def citation():
    return yaml.safe_load(Path("CITATION.cff").read_text(encoding="utf-8"))


PAPER = (
    "Zhou",
    "Adaptive incentive mechanism of privacy computing for federated compute first networks",
    "Chinese Journal of Computers",
)
PAPER_IN_CHINESE = ("Zan Zhou", "面向联邦算力网络的隐私计算自适应激励机制", "计算机学报")


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "README.zh.md",
        "CITATION.cff",
        *(f"docs/{n}.md" for n in ("theory", "replication")),
    ],
)
def test_the_paper_is_cited_alike_and_in_full(file):
    text = " ".join(Path(file).read_text(encoding="utf-8").split())
    if file == "CITATION.cff":
        (paper,) = citation()["references"]
        name = paper["authors"][0]
        text = (
            f"{name['given-names']} {name['family-names']}: {paper['title']}. {paper['journal']} "
            f"{paper['volume']} ({paper['issue']}), {paper['year']}"
        )
    author, title, journal = PAPER_IN_CHINESE if file == "README.zh.md" else PAPER
    assert author in text
    assert title in text
    assert journal in text
    assert "46 (12), 2023" in text


def test_all_is_every_extra_that_a_user_runs():
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(re.fullmatch(r"fcfn-abm\[(.*)\]", everything)[1].split(","))
    assert named == set(extras) - {"all", "dev", "docs", "test"}


def test_the_command_is_called_fcfn():
    (command,) = distribution("fcfn-abm").entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("fcfn", "fcfn_abm.cli:main")
