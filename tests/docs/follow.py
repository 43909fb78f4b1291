"""Follows a how-to page literally: writes its files, types its commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)


def read_files(page: str) -> dict[str, str]:
    """Return the blocks of a page that have a title, by it."""
    return {title: text for _, title, text in _BLOCK.findall(page) if title}


def follow(page: str, folder: Path, *, writes: bool = True) -> dict[str, str]:
    """Follow a page in a folder, and return what each command printed.

    Parameters
    ----------
    page : str
        Its text. Commands stand in blocks of bash, one a line; a block of Python without a title
        is run as it is.
    folder : Path
        Where the reader works.
    writes : bool
        Whether TOML and Python with a title are files that the reader writes down.
    """
    printed = {}
    for language, title, text in _BLOCK.findall(page):
        if writes and title and language in ("toml", "python"):
            (folder / title).write_text(text, encoding="utf-8")
        elif language == "bash":
            for step in text.splitlines():
                program, *rest = shlex.split(step)
                assert program in ("fcfn", "python"), step
                module = ["-m", "fcfn_abm"] if program == "fcfn" else []
                printed[step] = _run([sys.executable, *module, *rest], folder)
        elif language == "python" and not title:
            printed[text] = _run([sys.executable, "-c", text], folder)
    return printed


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
