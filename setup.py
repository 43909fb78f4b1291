"""What pyproject.toml cannot say: folders that have another name once they are installed."""

from setuptools import find_namespace_packages, setup

FOLDERS = {"fcfn_abm._scenarios": "scenarios", "fcfn_zhou2023": "analysis/zhou2023"}


def _inner(folder: str, *include: str) -> list[str]:
    return find_namespace_packages(folder, include=include or "*", exclude=["*__pycache__*"])


setup(
    packages=[
        *_inner(".", "fcfn_abm", "fcfn_abm.*"),
        *FOLDERS,
        *(f"{to}.{part}" for to, at in FOLDERS.items() for part in _inner(at)),
    ],
    package_dir=FOLDERS,
)
