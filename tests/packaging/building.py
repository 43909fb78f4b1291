"""Copies of the repository's files, and archives made of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def list_tracked(root=Path()):
    """Return the files of the repository below ``root``, or None outside of a checkout of git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        return None
    paths = map(Path, filter(None, listed.stdout.split("\0")))
    return [p for p in paths if (root / p).is_file() and not (root / p).is_symlink()]


def copy_sources(paths, folder, mode=0o644, time=1_000_000_000, root=Path()):
    """Copy files of the repository, as a user with another umask checks them out at some time."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, folder / path)
        (folder / path).chmod(mode | ((root / path).stat().st_mode & 0o100))
        os.utime(folder / path, (time, time))


def build(source, out, *options):
    """Build the source archive, and from it the wheel; return both paths, the wheel first.

    The option ``--no-isolation`` builds with the libraries of this environment, without a network.
    """
    done = subprocess.run(
        [sys.executable, "-m", "build", *options, "--outdir", out, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "absent from the `packages` configuration" not in done.stdout + done.stderr
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive
