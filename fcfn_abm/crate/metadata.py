"""The description of results in JSON-LD: RO-Crate 1.1, Process Run Crate 0.5."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fcfn_abm.errors import InvalidRecordError, abbreviate
from fcfn_abm.records.folders import RUN_KIND, SCENARIO_FILE
from fcfn_abm.records.integrity import RUN_FILE, SUMS

type Entity = dict[str, Any]

METADATA = "ro-crate-metadata.json"
COMMANDS = {
    "run": "run",
    "sweep": "sweep",
    "comparison": "compare",
    "calibration": "calibrate",
    "benchmark": "bench",
}
"""Kinds of results, with the command that makes each."""

SOFTWARE_AUTHORS = "The fcfn_abm authors"
SOFTWARE_LICENSE = "MIT"
SOFTWARE = "fcfn_abm: agent-based simulation of incentive mechanisms for private federated learning"
PAPER = {
    "@id": "#zhou2023",
    "@type": "ScholarlyArticle",
    "name": "Adaptive incentive mechanism of privacy computing for federated compute first "
    "networks",
    "author": {"@id": "#zan-zhou"},
    "datePublished": "2023",
    "inLanguage": "zh",
    "isPartOf": {"@id": "#chinese-journal-of-computers"},
    "issueNumber": "12",
    "volumeNumber": "46",
}
"""As CITATION.cff has it."""

_CRATE = "https://w3id.org/ro/crate/1.1"
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_TERMS = "https://w3id.org/ro/terms/workflow-run#"
_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".toml": "application/toml",
}
_MEANINGS = {
    RUN_FILE: "Facts about the results: versions, provenance, and how the work ended.",
    SCENARIO_FILE: "The scenario, every default written out.",
    SUMS: "SHA-256 checksums of the data, as sha256sum writes them.",
    "calibrated.toml": "The scenario with the fitted parameters.",
    "rounds.parquet": "One row a round of the market.",
    "nodes.parquet": "One row a node, at the end.",
    "traces.parquet": "One row a node and round.",
    "training.parquet": "One row a round of each training.",
    "ledger.parquet": "Privacy spent: one row a node and round of training.",
    "sweep.parquet": "One row a run of the sweep.",
    "comparison.parquet": "One row a mechanism and population.",
    "calibration.parquet": "One row a training.",
    "bench.parquet": "One row a cell of the benchmark and mechanism.",
    "bench.csv": "The benchmark in short.",
}


@dataclass(frozen=True)
class File:
    """A file of the results."""

    path: str
    """Relative to the folder, with forward slashes."""
    size: int
    """In bytes."""
    sha256: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def identifier(self) -> str:
        """The path as a relative URI."""
        return quote(self.path)


def describe(
    folder: Path,
    facts: Mapping[str, Any],
    files: Sequence[File],
    *,
    authors: Sequence[str],
    license: str,  # noqa: A002 - the property's name
) -> str:
    """Return the description of results, as the text of ``ro-crate-metadata.json``.

    Parameters
    ----------
    folder : Path
        Whose name the results get if their scenario has no title.
    facts : mapping
        What ``run.json`` holds.
    files : sequence of File
        What is packed.
    authors : sequence of str
        Of the results.
    license : str
        Of the results: an identifier of SPDX or an address.

    Raises
    ------
    InvalidRecordError
        If the facts are not those that the program writes.
    """
    try:
        graph = list(_entities(folder, facts, files, authors, license))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InvalidRecordError(
            f"{folder / RUN_FILE}: holds what no command writes: {abbreviate(str(error))}."
        ) from error
    context = [
        f"{_CRATE}/context",
        {"sha256": f"{_TERMS}sha256", "environment": f"{_TERMS}environment"},
    ]
    document = {"@context": context, "@graph": graph}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _entities(
    folder: Path,
    facts: Mapping[str, Any],
    files: Sequence[File],
    authors: Sequence[str],
    license_: str,
) -> Iterator[Entity]:
    """Yield the entities of the graph, those of RO-Crate itself first."""
    kind = facts.get("kind", RUN_KIND)
    name = facts.get("title") or folder.resolve().name
    people = [{"@id": f"#author-{i}", "@type": "Person", "name": n} for i, n in enumerate(authors)]
    own_license = _license(license_)
    licenses = {own_license["@id"]: own_license}
    software_license = _license(SOFTWARE_LICENSE)
    licenses.setdefault(software_license["@id"], software_license)
    environment = list(_environment(facts))
    libraries = list(_libraries(facts))
    yield {
        "@id": METADATA,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": _CRATE},
    }
    yield {
        "@id": "./",
        "@type": "Dataset",
        "name": name,
        "description": _summarise(kind, facts),
        "datePublished": _date(folder, facts),
        "license": {"@id": own_license["@id"]},
        **({"author": _references(people)} if people else {}),
        "conformsTo": {"@id": _PROFILE},
        "citation": {"@id": PAPER["@id"]},
        "mentions": {"@id": "#action"},
        "hasPart": [{"@id": file.identifier} for file in files],
    }
    yield {
        "@id": _PROFILE,
        "@type": "CreativeWork",
        "name": "Process Run Crate",
        "version": "0.5",
    }
    yield _action(kind, facts, files, people, environment)
    yield {
        "@id": "#fcfn_abm",
        "@type": "SoftwareApplication",
        "name": "fcfn_abm",
        "description": SOFTWARE,
        "softwareVersion": facts["versions"]["fcfn_abm"],
        "license": {"@id": software_license["@id"]},
        "author": {"@id": "#fcfn_abm-authors"},
        "citation": {"@id": PAPER["@id"]},
        "softwareRequirements": _references(libraries),
    }
    yield {"@id": "#fcfn_abm-authors", "@type": "Organization", "name": SOFTWARE_AUTHORS}
    yield from libraries
    yield from environment
    yield from people
    yield from licenses.values()
    yield PAPER
    yield {"@id": "#zan-zhou", "@type": "Person", "name": "Zan Zhou"}
    yield {
        "@id": "#chinese-journal-of-computers",
        "@type": "Periodical",
        "name": "Chinese Journal of Computers",
    }
    for file in files:
        yield _file(file)


def _action(
    kind: str,
    facts: Mapping[str, Any],
    files: Sequence[File],
    people: Sequence[Entity],
    environment: Sequence[Entity],
) -> Entity:
    """Return what was done: from the scenario to the other files."""
    provenance = facts.get("provenance", {})
    command = provenance.get("command")
    said = (
        f"Command line: {shlex.join(command)}"
        if command
        else f"The command line was not recorded; 'fcfn {COMMANDS[kind]} {SCENARIO_FILE}' carries "
        "out the scenario."
    )
    broken = facts.get("training", {}).get("broke_down")
    times = {"startTime": "started", "endTime": "ended"}
    return {
        "@id": "#action",
        "@type": "CreateAction",
        "name": f"fcfn {COMMANDS[kind]}",
        "description": said,
        "instrument": {"@id": "#fcfn_abm"},
        **({"agent": _references(people)} if people else {}),
        "object": {"@id": SCENARIO_FILE},
        "result": [{"@id": f.identifier} for f in files if f.path != SCENARIO_FILE],
        **{name: provenance[key] for name, key in times.items() if provenance.get(key)},
        "actionStatus": f"http://schema.org/{'Failed' if broken else 'Completed'}ActionStatus",
        **({"error": broken} if broken else {}),
        **({"environment": _references(environment)} if environment else {}),
    }


def _libraries(facts: Mapping[str, Any]) -> Iterator[Entity]:
    """Yield what the numbers depend on besides the program: libraries, and plug-ins."""
    for name, version in facts["versions"].items():
        if name == "fcfn_abm":
            continue
        is_python = name == "python"
        url = (
            "https://www.python.org/"
            if is_python
            else f"https://pypi.org/project/{name}/{version}/"
        )
        yield {
            "@id": url,
            "@type": "SoftwareApplication",
            "name": "Python" if is_python else name,
            "softwareVersion": version,
            "url": url,
        }
    for plugin in facts.get("plugins", ()):
        yield {
            "@id": f"#plugin-{quote(plugin['name'], safe='')}",
            "@type": "SoftwareApplication",
            "name": plugin["name"],
            "description": "Plug-in that was imported.",
            **({"softwareVersion": plugin["version"]} if plugin["version"] else {}),
            "sha256": plugin["sha256"],
        }


def _environment(facts: Mapping[str, Any]) -> Iterator[Entity]:
    """Yield where the program ran, and which state of its code."""
    provenance = facts.get("provenance", {})
    hardware, commit = provenance.get("hardware", {}), provenance.get("commit")
    values = {
        "processor": hardware.get("processor"),
        "cores": hardware.get("cores"),
        "memory in bytes": hardware.get("memory"),
        "operating system": hardware.get("system"),
        "git commit": commit["id"] if commit else None,
        "uncommitted changes": commit["dirty"] if commit else None,
    }
    for name, value in values.items():
        if value is not None:
            yield {
                "@id": f"#{name.replace(' ', '-')}",
                "@type": "PropertyValue",
                "name": name,
                "value": value,
            }


def _file(file: File) -> Entity:
    media_type = _MEDIA_TYPES.get(Path(file.name).suffix, "text/plain")
    meaning = _MEANINGS.get(file.name)
    return {
        "@id": file.identifier,
        "@type": "File",
        "name": file.path,
        **({"description": meaning} if meaning else {}),
        "contentSize": str(file.size),
        "encodingFormat": media_type,
        "sha256": file.sha256,
    }


def _license(text: str) -> Entity:
    """Return a license, which an identifier of SPDX or an address names."""
    address = text if "://" in text else f"https://spdx.org/licenses/{quote(text)}"
    return {"@id": address, "@type": "CreativeWork", "name": text, "description": f"License {text}"}


def _summarise(kind: str, facts: Mapping[str, Any]) -> str:
    """Return what the results are, in a sentence or two."""
    seed = f"with the seed {facts['seed']}, made by fcfn_abm {facts['versions']['fcfn_abm']}"
    verdict = facts.get("verdict")
    ended = f" The market ended as {verdict['kind']}: {verdict['reason']}" if verdict else ""
    article = "A calibration of the model's value" if kind == "calibration" else f"A {kind}"
    return f"{article} {seed}.{ended}"


def _date(folder: Path, facts: Mapping[str, Any]) -> str:
    """Return the day on which the results were complete, as far as it is known."""
    ended = facts.get("provenance", {}).get("ended")
    if ended:
        return datetime.fromisoformat(ended).date().isoformat()
    changed = datetime.fromtimestamp((folder / RUN_FILE).stat().st_mtime, UTC)
    return changed.date().isoformat()


def _references(entities: Sequence[Entity]) -> Entity | list[Entity]:
    """Return links to entities; one alone is no list, as RO-Crate recommends."""
    links = [{"@id": entity["@id"]} for entity in entities]
    return links[0] if len(links) == 1 else links
