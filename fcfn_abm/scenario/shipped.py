"""The bundled scenario files, and how they are found by name."""

from __future__ import annotations

import re
from pathlib import Path

from fcfn_abm.errors import InvalidScenarioError, OutputError, did_you_mean
from fcfn_abm.process.files import list_files, read_file

_PACKAGE = Path(__file__).parents[1]


def shipped_folder() -> Path:
    """Return their folder: inside the installed package, or beside it in a checkout."""
    installed = _PACKAGE / "_scenarios"
    return installed if installed.is_dir() else _PACKAGE.parent / "scenarios"


def shipped_files() -> dict[str, Path]:
    """Return the bundled files by name, such as ``"quickstart"`` or ``"dynamics/cold-start"``."""
    folder = shipped_folder()
    files = (path for path in list_files(folder) if path.suffix == ".toml")
    return dict(sorted((p.relative_to(folder).with_suffix("").as_posix(), p) for p in files))


def locate_scenario(path: Path, folder: Path | None = None) -> Path:
    """Return an existing file of this path, or else the bundled scenario of that name.

    Parameters
    ----------
    path : Path
        A file, or the name of a bundled one, with or without ``scenarios/`` and ``.toml``.
    folder : Path, optional
        Folder that the path is relative to. By default the current folder.

    Returns
    -------
    Path
        The path itself if neither exists.

    Examples
    --------
    >>> locate_scenario(Path("quickstart")).parts[-2:]
    ('scenarios', 'quickstart.toml')
    """
    here = path if folder is None else folder / path
    if here.exists():
        return here
    return shipped_files().get(_name(path), here)


def _name(path: Path) -> str:
    name = path.with_suffix("") if path.suffix == ".toml" else path
    return name.as_posix().removeprefix("scenarios/")


def copy_shipped(name: str, to: Path | None = None) -> Path:
    """Copy a bundled scenario, as a starting point for changes.

    Parameters
    ----------
    name : str
        A name of :func:`shipped_files`.
    to : Path, optional
        The new file, or a folder for it. By default the current folder.

    Returns
    -------
    Path
        The new file. Its paths to its base scenario and to the schema are valid from there.

    Raises
    ------
    InvalidScenarioError
        If there is no bundled scenario of that name.
    OutputError
        If the new file exists already, or cannot be written.
    """
    files, name = shipped_files(), _name(Path(name))
    if name not in files:
        raise InvalidScenarioError(
            f"there is no bundled scenario of that name.{did_you_mean(name, files)} "
            "'fcfn scenarios list' lists them.",
            file=name,
        )
    source, to = files[name], to or Path()
    to = to / source.name if to.is_dir() else to
    try:
        with to.open("x", encoding="utf-8") as file:
            file.write(_rewrite_paths(source))
    except FileExistsError:
        raise OutputError(f"{to}: the file exists already; choose another name.") from None
    except OSError as error:
        raise OutputError(f"{to}: cannot be written: {error.strerror}.") from None
    return to


def _rewrite_paths(source: Path) -> str:
    """Return a bundled file's text with paths that are valid from any folder."""
    folder = shipped_folder()

    def rename_base(match: re.Match[str]) -> str:
        other = (source.parent / match[1]).resolve().relative_to(folder.resolve())
        return f'extends = "{other.as_posix()}"'

    text = read_file(source).decode()
    text = re.sub(r"\A#:schema .*", f"#:schema {folder.resolve()}/scenario.schema.json", text)
    return re.sub(r'^extends = "(.*)"', rename_base, text, flags=re.MULTILINE)
