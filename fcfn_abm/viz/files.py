"""Files that the window opens and saves."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from fcfn_abm.build import check_scenario, resolve_defaults
from fcfn_abm.build.costs import list_costs
from fcfn_abm.errors import InvalidScenarioError, abbreviate
from fcfn_abm.records import Record
from fcfn_abm.scenario import Choice, Scenario, choices, tree_to_scenario
from fcfn_abm.scenario.load import merge_trees, parse_toml, read_scenario
from fcfn_abm.scenario.shipped import shipped_files
from fcfn_abm.viz.settings import MOST_NODES, Tree, tree_of

MOST_BYTES = 32 << 20
"""Size of the largest file that can be opened: a million costs with names."""

_LONGEST_NAME = 80


def read_file(name: str, content: bytes, now: Scenario, opened: Scenario) -> Scenario:
    """Return the scenario in a file, or the current scenario with the costs in a file.

    Parameters
    ----------
    name : str
        Name of the file; its suffix must be ``.toml``, or one of a table of costs.
    content : bytes
        Content of the file.
    now : Scenario
        The current scenario, in which a file of costs replaces the costs.
    opened : Scenario
        The scenario that the window was opened with; the code that it names may run.

    Raises
    ------
    InvalidScenarioError
        If the file is not valid, or names code or other files.
    """
    name = _clean(name)
    if len(content) > MOST_BYTES:
        raise InvalidScenarioError(
            f"has {len(content) / 2**20:.0f} MiB; the window opens files of at most "
            f"{MOST_BYTES >> 20} MiB.",
            file=name,
        )
    kind = PurePosixPath(name).suffix.lower()
    if kind == ".toml":
        scenario = _read_scenario(name, content, opened)
    elif kind in (".csv", ".tsv", ".txt"):
        scenario = _read_costs(name, content, now)
    else:
        raise InvalidScenarioError(
            "must be a scenario (.toml) or a table of costs (.csv).", file=name
        )
    check_scenario(scenario, name)
    return resolve_defaults(scenario)


def _clean(name: str) -> str:
    """Return the last part of a name, without characters that could break a path or message."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[^\w .()+-]", "_", last)[-_LONGEST_NAME:].strip() or "file"


def _read_scenario(name: str, content: bytes, opened: Scenario) -> Scenario:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidScenarioError("cannot be read: it is not UTF-8 text.", file=name) from None
    tree = _extend(parse_toml(text, name), name)
    tree.pop("sweep", None)
    scenario = tree_to_scenario(tree, name)
    _require_no_code(scenario, opened, name)
    for place, choice in choices(scenario):
        if "path" in choice.options and choice not in _choices_of(opened):
            raise InvalidScenarioError(
                f"names the file {abbreviate(choice.options['path'])}, which the window cannot "
                "read; open a table of costs on its own, and images with 'fcfn view'.",
                file=name,
                table=".".join(place),
                key="path",
            )
    return scenario


def _choices_of(scenario: Scenario) -> list[Choice]:
    return [choice for _, choice in choices(scenario)]


def _extend(tree: dict[str, Any], name: str) -> Tree:
    """Return a tree merged with the bundled scenario that it extends."""
    extends = tree.pop("extends", None)
    if extends is None:
        return tree
    files = shipped_files()
    if not isinstance(extends, str) or extends not in files:
        raise InvalidScenarioError(
            f"must be the name of a bundled scenario, such as 'quickstart', not "
            f"{abbreviate(extends)}; the window cannot read other files.",
            file=name,
            key="extends",
        )
    below, _ = read_scenario(files[extends])
    return merge_trees(below, tree)


def _require_no_code(scenario: Scenario, opened: Scenario, name: str) -> None:
    """Reject a scenario that names code, unless the window was opened with the same code."""
    people = scenario.population
    groups = [(f"population.groups.{g.name}", g.node_class) for g in people.groups or ()]
    named = [("population", people.node_class), *groups]
    if scenario.imports and scenario.imports != opened.imports:
        found = ", ".join(map(abbreviate, scenario.imports))
        raise InvalidScenarioError(
            f"names code, {found}; the window runs no code from opened files. Open it with "
            "'fcfn view --trust'.",
            file=name,
            key="imports",
        )
    for table, node_class in named:
        if node_class and not scenario.imports:
            raise InvalidScenarioError(
                f"names code, {abbreviate(node_class)}; the window runs no code from opened files.",
                file=name,
                table=table,
                key="node_class",
            )


def _read_costs(name: str, content: bytes, now: Scenario) -> Scenario:
    if content.count(b"\n") > MOST_NODES + 1000:
        raise InvalidScenarioError(
            f"has more than {MOST_NODES:,} lines, the maximum in the window.", file=name
        )
    tree = tree_of(now)
    people = tree["population"]
    people["rho"] = {"kind": "csv", "path": name}
    people.pop("n_nodes", None)
    with TemporaryDirectory(prefix="fcfn-") as folder:
        Path(folder, name).write_bytes(content)
        return list_costs(tree_to_scenario(tree, name), lambda _: Path(folder), name)


def zip_record(record: Record, name: str) -> bytes:
    """Return a record's folder as a ZIP file, in which it has this name."""
    packed = io.BytesIO()
    with TemporaryDirectory(prefix="fcfn-") as folder:
        home = record.write(Path(folder) / name, durable=False).path
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(home.rglob("*")) if home else ():
                archive.write(file, Path(name) / file.relative_to(Path(folder) / name))
    return packed.getvalue()
