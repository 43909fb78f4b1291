"""Where results come from: command line, commit, hardware, times; none of it changes a number."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tomllib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import fcfn_abm
from fcfn_abm.process.workers import count_cores

_GIT_PLACES = (
    "/usr/bin/git",
    "/bin/git",
    "/usr/local/bin/git",
    r"C:\Program Files\Git\cmd\git.exe",
)
"""Where systems install git. The PATH may name a program of anybody's by that name."""
_SECONDS = 5.0
"""How long git may take, which takes milliseconds; without its answer the commit is not known."""
_PROCESSORS = Path("/proc/cpuinfo")


def describe_provenance(seconds: float | None = None) -> dict[str, Any]:
    """Return where results come from.

    Parameters
    ----------
    seconds : float, optional
        How long the work took that has just ended. Without it everything that differs between two
        runs on one machine is left out: equal sweeps, benchmarks and calibrations have equal files.

    Returns
    -------
    dict
        ``commit``, see :func:`find_commit`, and ``hardware``; with ``seconds`` also ``command``,
        the command line, None in other programs, and ``started`` and ``ended``, in UTC (ISO 8601).
    """
    facts = {"commit": find_commit(), "hardware": describe_hardware()}
    if seconds is None:
        return facts
    ended = datetime.now(UTC)
    started = ended - timedelta(seconds=seconds)
    return {
        "command": find_command(),
        "started": started.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        **facts,
    }


def find_command() -> list[str] | None:
    """Return the arguments with which ``fcfn`` was called; None in any other program."""
    program = Path(sys.argv[0]) if sys.argv else Path()
    own = Path(fcfn_abm.__file__).with_name("__main__.py")
    if program.stem != "fcfn" and program != own:
        return None
    return ["fcfn", *sys.argv[1:]]


@cache  # what has been imported stays, whatever happens to its files
def find_commit() -> dict[str, Any] | None:
    """Return the git commit of the code that runs.

    Returns
    -------
    dict or None
        ``id``, and ``dirty``: whether a file of the package differs from that commit. None where
        the code is no git checkout, as when a wheel is installed; and where git is missing, or
        fails, or does not answer within five seconds.
    """
    root = Path(fcfn_abm.__file__).resolve().parents[1]
    git = next((place for place in _GIT_PLACES if Path(place).is_file()), None)
    if git is None or not _is_own_checkout(root):
        return None
    arguments = [
        *("--git-dir", str(root / ".git"), "--work-tree", str(root)),
        *("--no-optional-locks", "-c", "core.fsmonitor=false"),
        *("status", "--porcelain=v2", "--branch", "--untracked-files=normal", "--", "fcfn_abm"),
    ]
    # variables such as GIT_DIR, which hooks set, would lead to another repository
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603 - a program of the system, by its full path
            [git, *arguments],
            cwd=root,
            env=kept,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    commit = next((x.split()[2] for x in lines if x.startswith("# branch.oid ")), "")
    if not commit or not set(commit) <= set("0123456789abcdef"):  # "(initial)": no commit yet
        return None
    return {"id": commit, "dirty": any(not line.startswith("#") for line in lines)}


def _is_own_checkout(root: Path) -> bool:
    """Whether a folder is a checkout of this project, and not of one that holds a copy of it."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        return (root / ".git").exists() and project["project"]["name"] == "fcfn-abm"
    except (OSError, ValueError, LookupError, TypeError):
        return False


@cache
def describe_hardware() -> dict[str, Any]:
    """Return processor, cores, memory and system; None for what is not known."""
    return {
        "processor": _name_processor(),
        "cores": count_cores(),
        "memory": _measure_memory(),
        "system": f"{platform.system()} {platform.release()}".strip() or None,
    }


def _name_processor() -> str | None:
    """Return the name of the processor; its architecture where that is not known."""
    with suppress(OSError):
        for line in _PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    # platform.processor() would run a program
    return os.environ.get("PROCESSOR_IDENTIFIER") or platform.machine() or None


def _measure_memory() -> int | None:
    """Return the memory of the machine, in bytes."""
    with suppress(AttributeError, OSError, ValueError):  # Windows has no such call
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
