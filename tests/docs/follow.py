"""Follows a how-to page literally: writes its files, types its commands."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import warm

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
                printed[step] = _run([program, *rest], folder)
        elif language == "python" and not title:
            printed[text] = _run(["python", "-c", text], folder)
    return printed


def _run(command: list[str], folder: Path) -> str:
    env = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = warm.run(*command, cwd=folder, env=env)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
