"""Programs that know nothing of ours read records, and see the same numbers."""

import json
import shutil
import subprocess
import tomllib

import pandas as pd
import pytest

import fcfn_abm as fa

TABLES = ("rounds", "nodes", "traces", "training", "ledger")


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    scenario = fa.load_scenario("dynamics/cold-start")
    return fa.run_scenario(scenario, tmp_path_factory.mktemp("run") / "record")


@pytest.mark.parametrize("table", TABLES)
def test_pandas_reads_every_table(record, table):
    plain = pd.read_parquet(record.path / f"{table}.parquet")
    ours = getattr(record, table)
    pd.testing.assert_frame_equal(plain, ours, check_dtype=False)


@pytest.mark.parametrize("table", TABLES)
def test_duckdb_reads_every_table(record, table):
    duckdb = pytest.importorskip("duckdb")
    path, ours = str(record.path / f"{table}.parquet"), getattr(record, table)

    def ask(what):
        return duckdb.execute(f"SELECT {what} FROM read_parquet(?)", [path]).fetchall()

    columns = duckdb.execute("DESCRIBE SELECT * FROM read_parquet(?)", [path]).fetchall()
    assert [name for name, *_ in columns] == list(ours.columns)
    assert ask("count(*)") == [(len(ours),)]
    for name in ours.select_dtypes("number"):
        ((total,),) = ask(f'sum("{name}")')
        assert (total or 0) == pytest.approx(float(ours[name].fillna(0).sum()), rel=1e-12)


def test_duckdb_reads_many_records_and_parts_at_once(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    for seed in (1, 2):
        more = [f"seed={seed}", "record.traces='all'"]
        fa.run_scenario(fa.load_scenario("dynamics/cold-start", more), tmp_path / str(seed))

    def count(files):
        path = str(tmp_path / files)
        return duckdb.execute("SELECT count(*) FROM read_parquet(?)", [path]).fetchall()

    record = fa.read_record(tmp_path / "1")
    assert count("*/nodes.parquet") == [(2 * len(record.nodes),)]
    assert count("1/traces/*.parquet") == [(len(record.traces),)]


def test_facts_and_scenario_are_plain_json_and_toml(record):
    assert json.loads((record.path / "run.json").read_text())["verdict"]["kind"] == "converged"
    scenario = tomllib.loads((record.path / "scenario.toml").read_text())
    assert scenario["population"]["n_nodes"] == len(record.nodes)


def _r_has_arrow():
    if not shutil.which("Rscript"):
        return False
    return not subprocess.run(["Rscript", "-e", "library(arrow)"], capture_output=True).returncode


@pytest.mark.skipif(not _r_has_arrow(), reason="there is no R with the package arrow here")
def test_r_reads_nodes(record):
    code = f'library(arrow); cat(sum(read_parquet("{record.path}/nodes.parquet")$active))'
    shown = subprocess.run(["Rscript", "-e", code], capture_output=True, text=True, check=True)
    assert int(shown.stdout.split()[-1]) == record.nodes["active"].sum()
