"""Plug-ins: third-party code that registers distributions, rules, mechanisms, nets and so on.

A plug-in is a Python file or an importable module; importing it registers its entries. Plug-ins are
imported on request only, except those installed under the entry-point group ``fcfn_abm.plugins``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import linecache
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fcfn_abm.errors import FcfnError, PluginError, abbreviate, as_path, join_lines
from fcfn_abm.process.files import list_files, read_file

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "fcfn_abm.plugins"
"""Entry points of installed plug-ins; each names a module."""

_lock = RLock()  # markets may run in several threads


@dataclass(frozen=True)
class Plugin:
    """A plug-in that has been imported."""

    name: str
    """Name of its file or module."""
    version: str | None
    """Its ``__version__``, or the version of the installed package; None without either."""
    sha256: str
    """SHA-256 of its file. For a package: of a list with the SHA-256 and path of each of its Python
    files, as ``sha256sum`` prints it, sorted by path."""
    path: Path | None = None
    """The file; None if it is a module."""
    source: bytes = field(default=b"", repr=False)
    """Content of the file."""
    folder: Path | None = None
    """Folder in which a module was searched, in addition to Python's path."""

    def facts(self) -> dict[str, str | None]:
        """Return name, version and SHA-256, as stored in a record."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


@dataclass
class _Import:
    """An import, and how to undo its registrations."""

    undo: list[Callable[[], None]] = field(default_factory=list)
    plugin: Plugin | None = None

    def take_back(self) -> None:
        while self.undo:
            self.undo.pop()()


_imports: dict[str, _Import] = {}  # by the name of the module in sys.modules
_current: list[_Import] = []  # imports in progress, the innermost last


def import_plugin(source: str | Path, folder: str | Path | None = None) -> Plugin:
    """Import a plug-in, which registers its entries; an unchanged one is not imported again.

    Parameters
    ----------
    source : str or Path
        A Python file, ``"my_rules.py"``, or the name of a module, ``"my_package.rules"``. A file
        that has changed replaces its earlier registrations.
    folder : str or Path, optional
        Folder that a file's path is relative to, and in which a module is searched after Python's
        path. By default the current folder.

    Returns
    -------
    Plugin
        Its name, version and SHA-256.

    Raises
    ------
    PluginError
        If there is no such file or module, if its import fails, or if it registers a name that is
        taken. In these cases none of its registrations are kept.
    """
    if not isinstance(source, str | Path):
        raise PluginError(f"a plug-in must be a string or a path, not {abbreviate(source)}.")
    folder = Path() if folder is None else as_path("folder", folder, error=PluginError)
    with _lock:
        if is_file_name(source):
            return _import_source(*_read(folder / source))
        return _import_module(str(source), folder.resolve())


def import_plugins(sources: Iterable[str | Path]) -> None:
    """Import several plug-ins, relative to the current folder; see :func:`import_plugin`."""
    if isinstance(sources, str | Path) or not isinstance(sources, Iterable):
        raise PluginError(
            f"imports must be a list such as ['my_rules.py'], not {abbreviate(sources)}."
        )
    for source in sources:
        import_plugin(source)


def import_again(plugins: Iterable[Plugin]) -> None:
    """Import in a worker the plug-ins that its parent process has imported, and nothing else.

    Raises
    ------
    PluginError
        If an import fails, or if a plug-in differs from the parent's.
    """
    with _lock:
        for plugin in plugins:
            if plugin.path is not None:
                _import_source(plugin.path, plugin.source)
                continue
            here = _import_module(plugin.name, plugin.folder)
            if here.sha256 != plugin.sha256:
                raise PluginError(
                    f"{plugin.name}: the plug-in has SHA-256 {here.sha256[:12]} on a worker, and "
                    f"{plugin.sha256[:12]} in the parent process; install the same version on both."
                )


def list_plugins() -> tuple[Plugin, ...]:
    """Return the plug-ins that this process has imported, in order of import."""
    return tuple(found.plugin for found in _imports.values() if found.plugin)


def find_plugin(name: str, folder: Path) -> Plugin | None:
    """Return the imported plug-in that a scenario's folder refers to, without running any code.

    A file is identified by its content or, if it does not exist, by its name.
    """
    if not is_file_name(name):
        return next((p for p in list_plugins() if p.path is None and p.name == name), None)
    try:
        digest = hashlib.sha256(_read(folder / name)[1]).hexdigest()
    except PluginError:
        stem = Path(name).name
        return next((p for p in list_plugins() if p.path is not None and p.name == stem), None)
    return next((p for p in list_plugins() if p.path is not None and p.sha256 == digest), None)


def find_object(name: str) -> Any:
    """Return an object from an imported plug-in, without running any code.

    Parameters
    ----------
    name : str
        The plug-in's file or module, and a name in it: ``"my_nodes.py:MyNode"``.

    Raises
    ------
    PluginError
        If no such plug-in is imported, if several have this file name, or if the name is missing.
    """
    source, _, attribute = name.rpartition(":")
    is_file = is_file_name(source)
    called = Path(source).name if is_file else source
    keys = [
        key
        for key, found in _imports.items()
        if (plugin := found.plugin) and plugin.name == called and bool(plugin.path) == is_file
    ]
    if len(keys) != 1:
        why = f"{len(keys)} of that name are" if keys else "is not; name it in imports"
        raise PluginError(f"{name}: needs the plug-in {called} to be imported, and {why}.")
    try:
        return getattr(sys.modules[keys[0]], attribute)
    except AttributeError:
        raise PluginError(f"{name}: the plug-in {called} has no {attribute!r}.") from None


def import_installed(module: str | None = None) -> list[PluginError]:
    """Import the installed plug-ins that are not imported yet, or only that of one module.

    Returns the errors: a plug-in that fails does not prevent the import of the others.
    """
    errors: list[PluginError] = []
    with _lock:
        if _current:  # a plug-in that uses a registry during its own import
            return errors
        for point in _entry_points():
            if module not in (None, point.module):
                continue
            by = f"the installed plug-in {point.name!r}"
            if point.dist is not None:
                by += f" of {point.dist.name} {point.dist.version}"
            try:
                if point.attr:
                    raise PluginError(f"{point.value}: an entry point must name a module only.")
                _import_module(point.module, None, point.dist.version if point.dist else None)
            except PluginError as error:
                errors.append(PluginError(f"{by}: {error}"))
    return errors


def add_undo(undo: Callable[[], None]) -> None:
    """Register how to undo the last registration of the plug-in that is being imported."""
    if _current:
        _current[-1].undo.append(undo)


def is_file_name(source: str | Path) -> bool:
    """Whether a plug-in is given as a file, not as a module."""
    return isinstance(source, Path) or source.endswith(".py") or "/" in source or "\\" in source


@cache  # scanning entry points is slow
def _entry_points() -> tuple[EntryPoint, ...]:
    from importlib.metadata import entry_points

    return tuple(sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)))


def _read(path: Path) -> tuple[Path, bytes]:
    """Return a plug-in's file and its content."""
    if path.suffix != ".py":
        raise PluginError(
            f"{abbreviate(str(path))[1:-1]}: a plug-in must be a Python file (my_rules.py) or a "
            "module (my_package.rules)."
        )
    try:
        path = path.resolve()
        if not path.is_file():
            raise PluginError(f"{path}: there is no such file.")
        return path, path.read_bytes()
    except OSError as error:
        raise PluginError(f"{path}: cannot be read: {error.strerror}.") from None
    except ValueError:  # a zero byte
        raise PluginError(f"{abbreviate(str(path))}: not a valid file name.") from None


def _import_source(path: Path, source: bytes) -> Plugin:
    """Run a plug-in's source as a separate module."""
    digest = hashlib.sha256(source).hexdigest()
    for plugin in list_plugins():
        if plugin.path is not None and plugin.sha256 == digest:
            return plugin
    place = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    key = f"fcfn_plugin_{re.sub('[^A-Za-z0-9_]', '_', path.stem)}_{place}"

    def run() -> ModuleType:
        module = ModuleType(key)
        module.__file__ = str(path)
        sys.modules[key] = module  # dataclasses and pickle look up classes there
        code = compile(source, path, "exec", dont_inherit=True)
        # the file on disk may have changed: pydantic reads the help of options from here
        lines = importlib.util.decode_source(source).splitlines(keepends=True)
        linecache.cache[str(path)] = (len(source), None, lines, str(path))
        exec(code, module.__dict__)  # noqa: S102
        return module

    def describe(module: ModuleType) -> Plugin:
        return Plugin(path.name, _own_version(module), digest, path, source)

    return _run(key, path.name, run, describe)


def _import_module(name: str, folder: Path | None, version: str | None = None) -> Plugin:
    """Import a module as Python does; the folder is searched last."""
    if (known := _imports.get(name)) and known.plugin:
        return known.plugin
    if not all(part.isidentifier() for part in name.split(".")):
        raise PluginError(f"{abbreviate(name)}: not a valid module name.")
    top = name.partition(".")[0]
    importlib.invalidate_caches()  # the module may be new
    if not _is_importable(top) and folder is not None:
        sys.path.append(str(folder))  # stays there: the module may import others later
        if not _is_importable(top):
            sys.path.remove(str(folder))
    if not _is_importable(top):
        where = f" or in {folder}" if folder is not None else ""
        raise PluginError(f"{name}: there is no such module on Python's path{where}.")
    digest = _hash_module(top)

    def describe(_: ModuleType) -> Plugin:
        own = version or _own_version(sys.modules[top]) or _installed_version(top)
        return Plugin(name, own, digest, folder=folder)

    return _run(name, name, lambda: importlib.import_module(name), describe)


def _run(
    key: str, name: str, run: Callable[[], ModuleType], describe: Callable[[ModuleType], Plugin]
) -> Plugin:
    """Run a plug-in in place of its earlier version; if that fails, neither stays registered."""
    before, modules = _imports.pop(key, None), set(sys.modules)
    if before:
        before.take_back()
    now = _Import()
    _current.append(now)
    try:
        now.plugin = describe(run())
    except (Exception, SystemExit) as error:
        now.take_back()
        for added in set(sys.modules) - modules | {key}:
            if added.partition(".")[0] == key.partition(".")[0]:
                sys.modules.pop(added, None)
        raise PluginError(f"{name}: cannot be imported{_describe_failure(error)}") from error
    finally:
        _current.pop()
    _imports[key] = now
    return now.plugin


def _describe_failure(error: BaseException) -> str:
    """Return the line of the plug-in at which its import failed, and the error."""
    if isinstance(error, SyntaxError):
        return f": {join_lines(str(error))}."
    passed_through = (__file__, importlib.__file__)
    frames = [
        (Path(frame.filename), frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in passed_through and not frame.filename.startswith("<")
    ]
    own = [(file, line) for file, line in frames if file.is_relative_to(frames[0][0].parent)]
    where = f" ({own[-1][0].name}, line {own[-1][1]})" if own else ""
    kind = "" if isinstance(error, FcfnError) else f"{type(error).__name__}: "
    return f"{where}: {kind}{join_lines(str(error)).rstrip('.')}."


def _is_importable(top: str) -> bool:
    """Whether Python finds a top-level module; does not run it."""
    try:
        return importlib.util.find_spec(top) is not None
    except ValueError:  # __main__
        return False


def _hash_module(top: str) -> str:
    """Return the SHA-256 of a module's file or, for a package, of the list of its files."""
    spec = importlib.util.find_spec(top)
    folders = [] if spec is None else [Path(p) for p in spec.submodule_search_locations or ()]
    if not folders:
        file = Path(spec.origin) if spec and spec.has_location and spec.origin else None
        if file is None:
            raise PluginError(f"{top}: is a part of Python, not a plug-in.")
        return hashlib.sha256(read_file(file)).hexdigest()
    try:
        lines = [
            f"{hashlib.sha256(read_file(f)).hexdigest()}  {f.relative_to(folder).as_posix()}\n"
            for folder in folders
            for f in list_files(folder)
            if f.suffix == ".py"
        ]
    except OSError as error:
        raise PluginError(f"{error.filename}: cannot be read: {error.strerror}.") from None
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _own_version(module: ModuleType) -> str | None:
    version = getattr(module, "__version__", None)
    return version if isinstance(version, str) else None


def _installed_version(top: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(top)
    except PackageNotFoundError:
        return None
