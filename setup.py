"""What pyproject.toml cannot say: folders with another name once installed, equal archives."""

import gzip
import os
import shutil
import tarfile
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.sdist import sdist

FOLDERS = {"fcfn_abm._scenarios": "scenarios", "fcfn_zhou2023": "analysis/zhou2023"}

# Equal sources give equal archives, whenever and by whomever they are built: one time (by default
# the first that a zip file can hold), no owners, and the usual permissions.
TIME = int(os.environ.setdefault("SOURCE_DATE_EPOCH", "315532800"))


def _usual_mode(mode: int, *, is_folder: bool) -> int:
    return 0o755 if is_folder or mode & 0o100 else 0o644


class Wheel(bdist_wheel):
    """A wheel that does not depend on the umask."""

    def write_wheelfile(self, *args, **kwargs):
        """Write the last file of the wheel, which is packed then."""
        super().write_wheelfile(*args, **kwargs)
        for path in Path(self.bdist_dir).rglob("*"):
            path.chmod(_usual_mode(path.stat().st_mode, is_folder=path.is_dir()))


class SourceArchive(sdist):
    """A source archive that does not depend on the time, the user and the umask."""

    def make_archive(self, *args, **kwargs):
        """Pack the files, and write the archive again with other facts about them."""
        path = super().make_archive(*args, **kwargs)
        packed = f"{path}.partial"
        with (
            tarfile.open(path) as old,
            open(packed, "wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=TIME) as zipped,
            tarfile.open(fileobj=zipped, mode="w") as new,
        ):
            for member in sorted(old, key=lambda member: member.name):
                member.mode = _usual_mode(member.mode, is_folder=member.isdir())
                member.mtime, member.uid, member.gid, member.uname, member.gname = (
                    TIME,
                    0,
                    0,
                    "",
                    "",
                )
                member.pax_headers = {}
                new.addfile(member, old.extractfile(member))
        shutil.move(packed, path)
        return path


def _inner(folder, *include):
    return find_namespace_packages(folder, include=include or "*", exclude=["*__pycache__*"])


setup(
    cmdclass={"bdist_wheel": Wheel, "sdist": SourceArchive},
    packages=[
        *_inner(".", "fcfn_abm", "fcfn_abm.*"),
        *FOLDERS,
        *(f"{to}.{part}" for to, at in FOLDERS.items() for part in _inner(at)),
    ],
    package_dir=FOLDERS,
)
