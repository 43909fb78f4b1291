"""A release, tried as a user gets it: ``make release-check`` runs this before a version is tagged.

It builds the archives twice and compares them, installs the wheel into a new, empty environment,
and there runs the quick start, its report, one study, and the tutorial, all in a folder outside of
the checkout. It installs from the package index, PyTorch among it (some GB); ``--keep FOLDER``
leaves archives, environment, and results there.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from pathlib import Path

from building import build, copy_sources, list_tracked

ROOT = Path(__file__).resolve().parents[2]
STUDY = "population_size"
ORIGIN = "import fcfn_abm; print(fcfn_abm.__version__, fcfn_abm.__file__)"


class Check:
    """The steps of one check, in a folder that is no checkout."""

    def __init__(self, folder):
        self.folder = folder
        self.work = folder / "elsewhere"
        self.work.mkdir(parents=True)
        self.bin = folder / "env" / ("Scripts" if os.name == "nt" else "bin")

    def run(self, step, command, *arguments):
        """Run one command of the new environment; print how long it took, return what it wrote."""
        begun = time.perf_counter()
        without = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
        done = subprocess.run(
            [self.bin / command, *arguments],
            cwd=self.work,
            env={name: value for name, value in os.environ.items() if name not in without},
            capture_output=True,
            text=True,
            check=False,
        )
        report(step, begun)
        if done.returncode:
            sys.exit(f"{step} failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout


def report(step, begun):
    sys.stdout.write(f"{step}: {time.perf_counter() - begun:.0f} s\n")
    sys.stdout.flush()


def build_twice(folder):
    """Build from two copies of the sources; return wheel and source archive, which are equal."""
    begun, built, paths = time.perf_counter(), [], list_tracked(ROOT)
    if paths is None:
        sys.exit(f"{ROOT} is not a git checkout")
    for name, mode, when in (("one", 0o644, 1_000_000_000), ("other", 0o600, 1_500_000_000)):
        (folder / name).mkdir()
        copy_sources(paths, folder / name, mode, when, ROOT)
        built.append(build(folder / name, folder / f"dist-{name}"))
    for one, other in zip(*built, strict=True):
        if one.read_bytes() != other.read_bytes():
            sys.exit(f"two builds of {one.name} differ: {one} and {other}")
    report("built twice, with equal archives", begun)
    for path in built[0]:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sys.stdout.write(f"  {digest}  {path.name}, {path.stat().st_size / 1e6:.1f} MB\n")
    return built[0]


def check_release(folder):
    """Build, install, and run everything; exit with a message at the first failure."""
    wheel, archive = build_twice(folder)
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    source = folder / archive.name.removesuffix(".tar.gz")

    check = Check(folder)
    venv.create(folder / "env", with_pip=True)
    install = ["-m", "pip", "install", "--quiet"]
    check.run("base package installed", "python", *install, wheel)
    check.run("dependencies agree", "python", "-m", "pip", "check")
    version, home = check.run("imported", "python", "-c", ORIGIN).split(maxsplit=1)
    if version != wheel.name.split("-")[1] or not Path(home).is_relative_to(folder / "env"):
        sys.exit(f"the environment imports fcfn_abm {version} of {home}, not the wheel")
    check.run("market without extras", "fcfn", "run", "dynamics/cold-start")

    check.run(
        "extra train installed", "python", "-m", "pip", "install", "--quiet", f"{wheel}[train]"
    )
    check.run("quick start", "fcfn", "run", "quickstart")
    check.run("report", "fcfn", "report", "results/quickstart")
    study = source / "analysis" / "studies" / f"{STUDY}.py"
    check.run(f"study {STUDY}", "python", study, "--out", "results")
    doctest = ["-m", "doctest", "-o", "NORMALIZE_WHITESPACE", "-o", "ELLIPSIS"]
    check.run("tutorial", "python", *doctest, source / "docs" / "tutorial.md")

    for name in ("quickstart/report.html", "quickstart/training.parquet", f"{STUDY}-study"):
        if not (check.work / "results" / name).exists():
            sys.exit(f"results/{name} is missing in {check.work}")
    sys.stdout.write(f"{wheel.name} is ready\n")


def main():
    """Read the options, and check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here, and leave all")
    asked = parser.parse_args()
    if asked.keep:
        asked.keep.mkdir(parents=True)
        check_release(asked.keep.resolve())
    else:
        with tempfile.TemporaryDirectory() as folder:
            check_release(Path(folder).resolve())


if __name__ == "__main__":
    main()
