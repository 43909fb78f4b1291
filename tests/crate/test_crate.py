"""A crate holds all of the results, and a description that agrees with them and with RO-Crate 1.1.

The rules are what the specifications require. Crates of all kinds of results were also validated
with roc-validator 0.13.0 (profiles ro-crate-1.1, process-run-crate-0.5), which needs the network.
"""

import hashlib
import json
import re
import shutil
import zipfile
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from typer.testing import CliRunner

import fcfn_abm as fa
from fcfn_abm.cli import app
from fcfn_abm.crate import metadata, write_crate
from fcfn_abm.errors import InvalidRecordError, OutputError

METADATA = "ro-crate-metadata.json"
SPECIFICATION = {"@id": "https://w3id.org/ro/crate/1.1"}
PROFILE = {"@id": "https://w3id.org/ro/wfrun/process/0.5"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    scenario = fa.load_scenario("dynamics/cold-start", ["rounds.maximum=5"])
    return fa.run_scenario(scenario, tmp_path_factory.mktemp("crate") / "run")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    overrides = [
        "rounds.maximum=2",
        "sweep.axes={'game.budget' = [1.0, 2.0]}",
        "sweep.keep='record'",
    ]
    scenario = fa.load_scenario("dynamics/cold-start", overrides)
    return fa.run_sweep(scenario, tmp_path_factory.mktemp("crate") / "sweep")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    scenario = fa.load_scenario("dynamics/cold-start")
    out = tmp_path_factory.mktemp("crate") / "comparison"
    fa.compare_mechanisms(scenario, replications=2, out=out)
    return out


def graph(crate):
    """Return the entities of a crate by their identifiers."""
    if crate.suffix == ".zip":
        with zipfile.ZipFile(crate) as packed:
            text = packed.read(METADATA)
    else:
        text = (crate / METADATA).read_bytes()
    document = json.loads(text)
    assert document["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    entities = document["@graph"]
    found = {entity["@id"]: entity for entity in entities}
    assert len(found) == len(entities)  # each stands once
    return found


def references(value):
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        assert list(value) == ["@id"]  # the graph is flat
        yield value["@id"]


def require_valid(crate):
    """Raise unless a crate keeps the rules of RO-Crate 1.1 and of Process Run Crate 0.5."""
    found = graph(crate)
    descriptor, root = found[METADATA], found["./"]
    assert descriptor["@type"] == "CreativeWork"
    assert descriptor["about"] == {"@id": "./"}
    assert descriptor["conformsTo"] == SPECIFICATION
    assert root["@type"] == "Dataset"
    assert root["name"]
    assert root["description"]
    assert datetime.fromisoformat(root["datePublished"])
    assert root["conformsTo"] == PROFILE
    assert found[PROFILE["@id"]]["@type"] == "CreativeWork"
    for entity in found.values():
        assert entity["@type"]
        for name, value in entity.items():
            for target in references(value):
                known = target in found or (entity, name) == (descriptor, "conformsTo")
                assert known, f"{entity['@id']}: {target}"
    (action,) = (found[i] for i in references(root["mentions"]))
    assert action["@type"] == "CreateAction"
    assert found[action["instrument"]["@id"]]["@type"] == "SoftwareApplication"
    parts = list(references(root["hasPart"]))
    files = {e["@id"] for e in found.values() if e["@type"] == "File"}
    assert sorted(files) == sorted(parts)
    assert {*references(action["object"]), *references(action["result"])} == files
    assert not set(references(action["object"])) & set(references(action["result"]))
    return found


def test_the_zip_holds_every_file_with_its_size_type_and_checksum(run):
    crate = write_crate(run.path)
    assert crate.path == run.path.with_name("run.crate.zip")
    assert crate.left_out == ()
    found = require_valid(crate.path)
    there = {p.relative_to(run.path).as_posix() for p in run.path.rglob("*") if p.is_file()}
    with zipfile.ZipFile(crate.path) as packed:
        assert packed.testzip() is None
        assert set(packed.namelist()) == {METADATA, *there}
        for name in there:
            data = packed.read(name)
            assert data == (run.path / name).read_bytes()
            entity = found[name]
            assert entity["sha256"] == hashlib.sha256(data).hexdigest()
            assert entity["contentSize"] == str(len(data))
    assert found["scenario.toml"]["encodingFormat"] == "application/toml"
    assert found["rounds.parquet"]["encodingFormat"] == "application/vnd.apache.parquet"
    assert found["figures/convergence.png"]["encodingFormat"] == "image/png"


def test_the_description_holds_how_where_and_when_the_results_were_made(run, tmp_path):
    found = graph(write_crate(run.path, tmp_path / "a.zip").path)
    facts = json.loads((run.path / "run.json").read_text())
    action, hardware = found["#action"], facts["provenance"]["hardware"]
    assert action["object"] == {"@id": "scenario.toml"}
    assert action["startTime"] == facts["provenance"]["started"]
    assert action["endTime"] == facts["provenance"]["ended"]
    assert action["actionStatus"].endswith("/CompletedActionStatus")
    assert "fcfn run scenario.toml" in action["description"]  # tests are no command line
    values = {found[i]["name"]: found[i]["value"] for i in references(action["environment"])}
    assert values["processor"] == hardware["processor"]
    assert values["cores"] == hardware["cores"]
    assert values["memory in bytes"] == hardware["memory"]
    assert values["operating system"] == hardware["system"]
    commit = facts["provenance"]["commit"]
    assert values.get("git commit") == (commit["id"] if commit else None)
    assert found["#fcfn_abm"]["softwareVersion"] == fa.__version__
    libraries = {
        found[i]["name"]: found[i]["softwareVersion"]
        for i in references(found["#fcfn_abm"]["softwareRequirements"])
    }
    expected = {n: v for n, v in facts["versions"].items() if n not in ("fcfn_abm", "python")}
    assert libraries == {"Python": facts["versions"]["python"], **expected}
    assert facts["verdict"]["reason"] in found["./"]["description"]


def found_license(found):
    return found[found["./"]["license"]["@id"]]["name"]


def test_authors_and_license_are_those_that_were_named(run, tmp_path):
    out = tmp_path / "a.zip"
    found = require_valid(write_crate(run.path, out, authors=["A", "B"], license="CC-BY-4.0").path)
    names = [found[i]["name"] for i in references(found["./"]["author"])]
    assert names == ["A", "B"]
    assert found["./"]["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
    assert found["#fcfn_abm"]["license"] == {"@id": "https://spdx.org/licenses/MIT"}
    without = require_valid(write_crate(run.path, tmp_path / "b.zip").path)
    assert "author" not in without["./"]
    assert found_license(without) == "No license stated"
    url = "https://example.org/terms"
    other = require_valid(write_crate(run.path, tmp_path / "c.zip", license=url).path)
    assert other["./"]["license"] == {"@id": url}


def test_program_and_paper_are_cited_as_in_the_citation_file(run, tmp_path):
    citation = yaml.safe_load(Path("CITATION.cff").read_text(encoding="utf-8"))
    found = graph(write_crate(run.path, tmp_path / "a.zip").path)
    software = found["#fcfn_abm"]
    assert software["description"] == citation["title"]
    assert found[software["author"]["@id"]]["name"] == citation["authors"][0]["name"]
    assert software["license"]["@id"].endswith(f"/{citation['license']}")
    (paper,) = citation["references"]
    entity = found[found["./"]["citation"]["@id"]]
    assert entity["name"] == paper["title"]
    first = paper["authors"][0]
    assert (
        found[entity["author"]["@id"]]["name"] == f"{first['given-names']} {first['family-names']}"
    )
    assert found[entity["isPartOf"]["@id"]]["name"] == paper["journal"]
    assert (entity["volumeNumber"], entity["issueNumber"], entity["datePublished"]) == (
        str(paper["volume"]),
        str(paper["issue"]),
        str(paper["year"]),
    )


def test_a_folder_is_a_crate_and_a_record_at_once(run, tmp_path):
    crate = write_crate(run.path, tmp_path / "crate").path
    require_valid(crate)
    assert fa.read_record(crate).rounds.equals(fa.read_record(run.path).rounds)
    assert graph(write_crate(crate, tmp_path / "again.zip").path) == graph(crate)
    with pytest.raises(OutputError, match="already contains results"):
        write_crate(run.path, crate)
    write_crate(run.path, crate, overwrite=True)


def test_the_record_stays_as_it_is_and_equal_records_give_equal_files(run, tmp_path):
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.path.rglob("*") if p.is_file()}
    one, two = (write_crate(run.path, tmp_path / name).path for name in ("1.zip", "2.zip"))
    assert one.read_bytes() == two.read_bytes()
    assert before == {
        p: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.path.rglob("*") if p.is_file()
    }


def test_a_sweep_has_its_records_in_it_and_no_times_that_nobody_wrote_down(sweep, tmp_path):
    found = require_valid(write_crate(sweep.path, tmp_path / "a.zip").path)
    names = {entity["name"] for entity in found.values() if entity["@type"] == "File"}
    assert {"sweep.parquet", "records/000000/nodes.parquet", "records/000001/run.json"} <= {
        re.sub(r"records/0+(\d{6})/", r"records/\1/", name) for name in names
    }
    assert any(name.startswith("runs/") for name in names)
    action = found["#action"]
    assert action["name"] == "fcfn sweep"
    assert not {"startTime", "endTime"} & set(action)
    assert not [name for name in names if "/." in name or name.startswith(".")]


def test_a_comparison_is_packed(comparison, tmp_path):
    found = require_valid(write_crate(comparison, tmp_path / "a.zip").path)
    assert found["#action"]["name"] == "fcfn compare"
    assert found["comparison.parquet"]["description"] == "One row a mechanism and population."


@pytest.mark.parametrize("kind", ["calibration", "benchmark"])
def test_every_other_kind_of_results_has_its_command(kind, run, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(run.path, folder)
    (folder / "SHA256SUMS").unlink()
    facts = json.loads((folder / "run.json").read_text()) | {"kind": kind}
    for name in ("verdict", "market", "seconds"):
        del facts[name]
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "bench.parquet").write_bytes(b"")
    found = require_valid(write_crate(folder, tmp_path / "a.zip").path)
    assert found["#action"]["name"] == f"fcfn {metadata.COMMANDS[kind]}"


def test_what_is_not_of_the_results_is_left_out_and_named(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    (folder / "my notes.txt").write_text("mine")
    (folder / ".DS_Store").write_text("the system's")
    done = CliRunner().invoke(app, ["crate", str(folder)])
    assert done.exit_code == 0
    assert done.stdout == f"{folder}.crate.zip\n"
    assert done.stderr == "fcfn: left out, not part of the results: my notes.txt.\n"
    with zipfile.ZipFile(f"{folder}.crate.zip") as packed:
        assert not [name for name in packed.namelist() if "notes" in name or "DS_Store" in name]


def test_records_of_an_earlier_version_are_packed_with_the_facts_that_they_hold(run, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(run.path, folder)
    (folder / "SHA256SUMS").unlink()
    facts = json.loads((folder / "run.json").read_text())
    del facts["provenance"]
    (folder / "run.json").write_text(json.dumps(facts))
    found = require_valid(write_crate(folder, tmp_path / "a.zip").path)
    assert "environment" not in found["#action"]
    assert "startTime" not in found["#action"]


def test_a_command_line_plugins_and_a_training_that_failed_are_described(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    (folder / "SHA256SUMS").unlink()
    facts = json.loads((folder / "run.json").read_text())
    facts["provenance"]["command"] = ["fcfn", "run", "my scenario.toml"]
    facts["provenance"]["commit"] = {"id": "0" * 40, "dirty": True}
    facts["plugins"] = [{"name": "my rules.py", "version": None, "sha256": "1" * 64}]
    facts["training"] = {"broke_down": "the loss is not a number."}
    (folder / "run.json").write_text(json.dumps(facts))
    found = require_valid(write_crate(folder, tmp_path / "a.zip").path)
    action = found["#action"]
    assert action["description"] == "Command line: fcfn run 'my scenario.toml'"
    assert action["actionStatus"].endswith("/FailedActionStatus")
    assert action["error"] == "the loss is not a number."
    assert found["#plugin-my%20rules.py"]["sha256"] == "1" * 64
    assert found["#uncommitted-changes"]["value"] is True


def test_names_are_relative_addresses(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    (folder / "figures" / "a b #1.png").write_bytes(b"")
    found = require_valid(write_crate(folder, tmp_path / "a.zip").path)
    assert "figures/a%20b%20%231.png" in found
    assert unquote("figures/a%20b%20%231.png") == found["figures/a%20b%20%231.png"]["name"]


def test_a_file_that_was_damaged_is_not_packed(run, sweep, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    (folder / "rounds.parquet").write_bytes(b"damaged")
    with pytest.raises(InvalidRecordError, match=r"rounds\.parquet: is corrupt or was edited"):
        write_crate(folder)
    other = tmp_path / "sweep"
    shutil.copytree(sweep.path, other)
    record = next((other / "records").iterdir())
    (record / "nodes.parquet").write_bytes(b"damaged")
    with pytest.raises(InvalidRecordError, match=r"nodes\.parquet: is corrupt or was edited"):
        write_crate(other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "sweep"]


def test_what_cannot_be_packed_gets_one_sentence(run, sweep, tmp_path):
    (tmp_path / "empty").mkdir()
    figures = tmp_path / "figures"
    figures.mkdir()
    (figures / "ledger.md").write_text("")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(sweep.path, unfinished)
    (unfinished / "sweep.parquet").unlink()
    (unfinished / "SHA256SUMS").unlink()
    poem = tmp_path / "poem"
    poem.mkdir()
    (poem / "run.json").write_text('{"kind": "poem"}')
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "run.json").write_text("{}")
    taken = tmp_path / "taken.zip"
    taken.write_text("")
    cases = {
        (tmp_path / "missing",): "does not exist",
        (tmp_path / "empty",): "contains no results",
        (run.path / "run.json",): "pass the folder that contains it",
        (figures,): "holds figures of the paper, whose runs left no records",
        (unfinished,): "the sweep is not complete (no sweep.parquet)",
        (poem,): "holds 'poem'; a crate is made of",
        (bare,): "holds what no command writes",
        (run.path, "--out", taken): "already exists",
        (run.path, "--out", run.path / "rounds.parquet"): "is not a record",
        (run.path, "--out", run.path): "already contains results",
    }
    for args, said in cases.items():
        done = CliRunner().invoke(app, ["crate", *map(str, args)])
        assert done.exit_code == 2, args
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert taken.read_text() == ""


def test_a_file_that_changes_while_it_is_packed_leaves_nothing(run, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    true = metadata.describe

    def change(*args, **kwargs):
        (folder / "rounds.parquet").write_bytes(b"another run's")
        return true(*args, **kwargs)

    monkeypatch.setattr("fcfn_abm.crate.pack.describe", change)
    with pytest.raises(InvalidRecordError, match="changed while it was packed"):
        write_crate(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
