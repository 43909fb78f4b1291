"""Records that were edited by hand, without checksums to say so: a sentence tells what is wrong."""

import json
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fcfn_abm as fa
from fcfn_abm.errors import InvalidRecordError
from fcfn_abm.records import read_record
from fcfn_abm.records.integrity import SUMS
from fcfn_abm.records.tables import OTHER_TABLES, TABLES, read_table, write_table
from fcfn_abm.runs.report import read_page
from fcfn_abm.viz.replay import Replay


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    below = tmp_path_factory.mktemp("kept")
    scenario = fa.load_scenario("scenarios/dynamics/cold-start.toml", ["rounds.maximum=5"])
    fa.run_scenario(scenario, below / "run")
    fa.compare_mechanisms(scenario, ["stackelberg", "random"], 2, below / "comparison")
    swept = {"population": {"n_nodes": 5}, "sweep": {"axes": {"game.alpha": [5.0, 10.0]}}}
    fa.run_sweep(fa.Scenario.model_validate(swept), below / "sweep")
    for path in below.rglob(SUMS):
        path.unlink()
    return below


@pytest.fixture
def edited(kept, tmp_path):
    """Return a copy of a folder, with other facts."""

    def copied(kind, change=lambda facts: facts):
        folder = shutil.copytree(kept / kind, tmp_path / kind)
        facts = change(json.loads((folder / "run.json").read_text()))
        (folder / "run.json").write_text(json.dumps(facts))
        return folder

    return copied


def edit_table(path, change):
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize("kind", ["run", "comparison", "sweep"])
def test_what_was_not_edited_is_read_without_checksums_too(edited, kind):
    assert read_page(edited(kind)).sections


@pytest.mark.parametrize(
    ("kind", "key"), [("run", "market"), ("comparison", "replications"), ("sweep", "mode")]
)
def test_a_fact_that_is_missing_is_named_with_its_file(edited, kind, key):
    folder = edited(kind, lambda facts: {k: v for k, v in facts.items() if k != key})
    with pytest.raises(InvalidRecordError, match=rf"{kind}/run\.json: '{key}' is missing"):
        read_page(folder)


@pytest.mark.parametrize(
    "facts", [{"market": 3}, {"verdict": {"kind": "x"}}, {"seconds": "long"}, {"equilibrium": []}]
)
def test_a_fact_that_is_something_else_gets_a_sentence(edited, facts):
    with pytest.raises(InvalidRecordError, match=r"run/?.*run\.json"):
        read_page(edited("run", lambda found: found | facts))


def test_the_window_gets_a_sentence_too(edited):
    record = read_record(edited("run", lambda facts: facts | {"equilibrium": {}}))
    with pytest.raises(InvalidRecordError, match=r"run\.json: 'mechanism' is missing"):
        Replay(record)


def test_an_error_over_facts_that_were_not_edited_is_a_bug_and_stays(edited):
    folder = edited("run", lambda facts: facts | {"market": 3})
    record = read_record(folder)
    record.write(folder.parent / "sealed")
    with pytest.raises(TypeError):
        read_page(folder.parent / "sealed")


@pytest.mark.parametrize("name", ["rounds", "nodes", "traces", "training", "ledger"])
def test_a_folder_in_the_place_of_a_table_is_reported(edited, name):
    path = edited("run") / f"{name}.parquet"
    path.unlink()
    path.mkdir()
    with pytest.raises(
        InvalidRecordError, match=rf"{name}\.parquet: cannot be read: it is not a file"
    ):
        read_record(path.parent)


@pytest.mark.parametrize("name", ["active", "epsilon", "exit_round"])
def test_a_column_that_is_missing_or_of_another_type_is_named(edited, name):
    path = edited("run") / "nodes.parquet"
    whole = pq.read_table(path)
    pq.write_table(whole.drop_columns([name]), path)
    with pytest.raises(InvalidRecordError, match=rf"nodes\.parquet: .*no column '{name}'"):
        read_record(path.parent)
    text = pa.array(["x"] * len(whole))
    pq.write_table(whole.set_column(whole.schema.get_field_index(name), name, text), path)
    with pytest.raises(InvalidRecordError, match=rf"column '{name}' has type string"):
        read_record(path.parent)


def test_a_table_of_a_sweep_or_comparison_is_held_to_its_columns_too(edited):
    for kind in ("sweep", "comparison"):
        folder = edited(kind)
        edit_table(folder / f"{kind}.parquet", lambda table: table.drop_columns(["n_active"]))
        with pytest.raises(InvalidRecordError, match="no column 'n_active'"):
            read_page(folder)


@pytest.mark.parametrize("name", TABLES | OTHER_TABLES)
def test_narrow_numbers_and_missing_integers_are_fine(tmp_path, name):
    columns = (TABLES | OTHER_TABLES)[name]
    of = {"float64": [1.5, None], "int64": [1, None], "bool": [True, False], "string": ["a", None]}
    kinds = {
        "float64": pa.float32(),
        "int64": pa.int32(),
        "bool": pa.bool_(),
        "string": pa.string(),
    }
    arrays = {c.name: pa.array(of[c.kind], kinds[c.kind]) for c in columns}
    pq.write_table(pa.table(arrays), tmp_path / f"{name}.parquet")
    read = read_table(tmp_path / f"{name}.parquet")
    assert list(read) == [c.name for c in columns]
    whole = [c.name for c in columns if c.kind == "int64"]
    assert all(isinstance(read[of_name].dtype, pd.Int64Dtype) for of_name in whole)
    write_table(name, read, tmp_path / "again.parquet")


def test_a_part_of_the_traces_without_a_column_is_reported(tmp_path):
    scenario = fa.load_scenario(
        "scenarios/dynamics/cold-start.toml", ["record.traces='all'", "rounds.maximum=3"]
    )
    fa.run_scenario(scenario, tmp_path / "run")
    (tmp_path / "run" / SUMS).unlink()
    part = tmp_path / "run" / "traces" / "part-00000.parquet"
    edit_table(part, lambda table: table.drop_columns(["payment"]))
    with pytest.raises(InvalidRecordError, match=r"part-00000\.parquet has no column 'payment'"):
        read_record(tmp_path / "run")


def test_of_a_file_the_folder_is_asked_for(edited):
    file = edited("run") / "run.json"
    for read in (read_record, read_page, fa.export_plan, fa.write_report):
        with pytest.raises(InvalidRecordError, match=f"{file}: is a file; pass the folder"):
            read(file)


def test_a_record_whose_places_are_empty_is_replayed(tmp_path):
    scenario = fa.load_scenario("heterogeneity/churn", ["rounds.maximum=30", "record.traces='all'"])
    record = fa.run_scenario(scenario.model_copy(update={"sweep": None}), tmp_path / "run")
    assert record.nodes["node"].max() >= len(record.nodes)
    replay = Replay(read_record(tmp_path / "run"))
    for moment in (1, 15, 30):
        replay.seek(moment)
        frame = replay.frame()
        known = record.nodes.set_index("node")["rho"]
        assert (frame.rho == known[frame.nodes].to_numpy()).all()
        replay.exit_round(int(frame.nodes[-1]))
