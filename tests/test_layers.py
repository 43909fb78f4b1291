"""The architecture, stated once: who may import whom."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import fcfn_abm

PACKAGE = Path(fcfn_abm.__file__).parent
ROOT = PACKAGE.parent
OUTSIDE = ("tests", "benchmarks", "examples", "analysis", "docs")

LAYERS = [  # from the bottom up; members of one layer do not import each other
    {"errors", "show"},
    {"rng", "jit", "memory"},
    {"process"},
    {"plugins"},
    {"registry"},
    {"scenario"},
    {"population"},
    {"game"},
    {"mechanisms", "learning"},
    {"abm"},
    {"dp"},
    {"training"},
    {"records"},
    {"report", "crate"},
    {"build"},
    {"runs", "environment", "odd"},
    {"viz"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

ONLY = {  # what of ours a package may import, where that is less than all below
    "process": {"errors"},
    "plugins": {"errors", "process"},
    "game": {"errors", "show"},
    "dp": {"errors", "rng", "jit", "registry"},
    "training": {"errors", "rng", "jit", "memory", "registry", "dp"},
    "records": {"errors", "show", "process", "scenario"},
    "report": {"errors", "records"},
    "crate": {"errors", "process", "records"},
}
HOMES = {  # where a heavy library may be imported
    "mesa": {"abm", "viz"},
    "pettingzoo": {"environment"},
    "gymnasium": {"environment"},
    "torch": {"training", "dp/noise", "dp/sensitivity"},
    "sklearn": {"training"},
    "opendp": {"dp/noise"},
    "solara": {"viz"},
    "jinja2": {"report"},
    "matplotlib": {"report"},
    "seaborn": {"report"},
    "typer": {"cli"},
    "rich": {"cli", "report"},
}


def modules():
    return list(_modules())


def _modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).with_suffix("").as_posix()
        if place != "__init__":
            yield place, path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module
            if node.module == "fcfn_abm":
                yield from (f"fcfn_abm.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("place", "path"), modules(), ids=lambda value: str(value)[-30:])
def test_imports_point_down(place, path):
    stage = place.split("/")[0]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "fcfn_abm" and len(parts) > 1 and parts[1] in RANK and parts[1] != stage:
            assert RANK[parts[1]] < RANK[stage], f"{place} imports {name}, which lies above it"
            assert parts[1] in ONLY.get(stage, RANK), f"{place} may not import {name}"


@pytest.mark.parametrize(("place", "path"), modules(), ids=lambda value: str(value)[-30:])
def test_heavy_libraries_stay_at_home(place, path):
    for name in imports(path):
        homes = HOMES.get(name.split(".")[0])
        at_home = homes is None or any(place == h or place.startswith(f"{h}/") for h in homes)
        assert at_home, f"{place} imports {name}, whose home is {sorted(homes or ())}"


def import_graph():
    """Each module with those that it imports: at any depth, for types alone or in a function."""
    names = {}
    for place, path in modules():
        name = f"fcfn_abm.{place.replace('/', '.')}"
        names[name.removesuffix(".__init__")] = path
    return {
        name: {known(target, names) for target in all_imports(path)} - {None, name}
        for name, path in names.items()
    }


def all_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def known(target, names):
    """Return the module that an import loads: its target is one, or a name in one."""
    return next((name for name in (target, target.rpartition(".")[0]) if name in names), None)


def reachable(graph, start):
    found, waiting = set(), [start]
    while waiting:
        for name in graph[waiting.pop()] - found:
            found.add(name)
            waiting.append(name)
    return found


def rings(graph):
    """Return the groups of modules that need each other."""
    below = {name: reachable(graph, name) for name in graph}
    groups = {
        frozenset(other for other in below[name] if name in below[other])
        for name in graph
        if name in below[name]
    }
    return sorted(sorted(group) for group in groups)


def test_no_modules_need_each_other():
    assert rings(import_graph()) == []


def test_a_ring_is_seen_even_among_imports_for_types_and_in_functions(tmp_path):
    code = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {} import X\n"
    (tmp_path / "a.py").write_text(code.format("b"))
    (tmp_path / "b.py").write_text("def f():\n    import c\n")
    (tmp_path / "c.py").write_text("import a, d\n")
    (tmp_path / "d.py").write_text("import os\n")
    names = {path.stem: path for path in tmp_path.glob("*.py")}
    graph = {name: {known(t, names) for t in all_imports(p)} - {None} for name, p in names.items()}
    assert rings(graph) == [["a", "b", "c"]]


def test_every_stage_has_its_layer():
    stages = {place.split("/")[0] for place, _ in modules()}
    assert stages <= set(RANK)


def loaded_by(code):
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(out.stdout.split())


def test_importing_the_package_loads_neither_torch_nor_mesa_nor_numpy():
    assert not loaded_by("import fcfn_abm") & {"torch", "mesa", "numpy", "pandas", "pydantic"}


def loaded_by_command(*args):
    code = (
        f"import sys; sys.argv = ['fcfn', *{args!r}]\n"
        "from fcfn_abm.cli import main\n"
        "sys.stdout = sys.stderr\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "sys.stdout = sys.__stdout__"
    )
    return loaded_by(code)


def test_the_command_that_prints_a_closed_form_loads_nothing_heavy():
    loaded = loaded_by_command("equilibrium", "scenarios/quickstart.toml")
    assert "numpy" in loaded
    assert not loaded & {"torch", "mesa", "sklearn", "matplotlib", "numba"}


def test_comparing_mechanisms_loads_neither_torch_nor_mesa(tmp_path):
    out = str(tmp_path / "comparison")
    loaded = loaded_by_command(
        "compare", "scenarios/quickstart.toml", "--replications", "1", "--out", out
    )
    assert "matplotlib" in loaded
    assert not loaded & {"torch", "mesa", "sklearn", "numba"}


def test_every_public_name_can_be_had():
    for name in fcfn_abm.__all__:
        assert getattr(fcfn_abm, name) is not None
    assert set(fcfn_abm.__all__) <= set(dir(fcfn_abm))
    with pytest.raises(AttributeError, match="no attribute 'nash'"):
        fcfn_abm.nash  # noqa: B018


@pytest.mark.parametrize("folder", OUTSIDE)
def test_every_import_of_the_package_names_what_is_there(folder):
    # an import within a function fails only when the function runs
    missing = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.level:
                continue
            if (node.module or "").split(".")[0] != "fcfn_abm":
                continue
            module = importlib.import_module(node.module)
            missing += [
                f"{path.relative_to(ROOT)}: {node.module}.{alias.name}"
                for alias in node.names
                if not hasattr(module, alias.name)
                and importlib.util.find_spec(f"{node.module}.{alias.name}") is None
            ]
    assert missing == []


def test_no_two_files_of_tests_share_a_name():
    # pytest takes the second for the first, and collects neither
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
