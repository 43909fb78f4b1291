"""The privacy plan says what the run did, in CSV and JSON alike."""

import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import fcfn_abm as fa
from fcfn_abm.cli.base import app
from fcfn_abm.errors import InvalidRecordError, OutputError, UnknownNameError
from fcfn_abm.records.integrity import SUMS
from fcfn_abm.report.plan import COLUMNS, COMMON

pytest.importorskip("torch")
SHORT = ["training.rounds=3", "training.compare=[]", "training.local_epochs=2"]


@pytest.fixture(scope="module")
def record():
    return fa.run_scenario(fa.load_scenario("privacy/quickstart-local", SHORT))


def csv_of(record):
    return pd.read_csv(io.StringIO(fa.export_plan(record, format="csv")))


def test_both_forms_hold_the_same_and_every_value_to_the_last_digit(record):
    whole, table = json.loads(fa.export_plan(record)), csv_of(record)
    assert list(table.columns) == [*COLUMNS, *COMMON]
    pd.testing.assert_frame_equal(pd.DataFrame(whole["nodes"]), table[list(COLUMNS)], rtol=0)
    for name, value in whole["plan"].items():
        assert table[name].isna().all() if value is None else (table[name] == value).all()
    active = record.nodes[record.nodes["active"]]
    assert (table["epsilon"].to_numpy() == active["epsilon"].to_numpy()).all()
    assert (table["node"].to_numpy() == active["node"].to_numpy()).all()


def test_sigma_follows_from_what_stands_beside_it(record):
    """By hand: three rounds of two epochs are six releases, each of sensitivity 2 C / m."""
    table = csv_of(record)
    releases = table["rounds"] * table["local_epochs"]
    one = [fa.gaussian_sigma(eps, 1e-4) for eps in table["epsilon"]]
    multiplier = np.sqrt(releases) * one
    assert_allclose(table["noise_multiplier"], multiplier, rtol=1e-6)
    sensitivity = 2 * table["clipping_norm"] / table["n_samples"]
    assert_allclose(table["sigma"], multiplier * sensitivity, rtol=1e-6)
    assert_allclose(table["epsilon_total"], table["epsilon"], rtol=1e-6)
    a_round = [fa.gaussian_epsilon(z / math.sqrt(2), 1e-4) for z in table["noise_multiplier"]]
    assert_allclose(table["epsilon_per_round"], a_round, rtol=1e-6)


def test_a_plan_whose_epsilon_is_a_heuristic_says_so(record):
    heuristic = fa.run_scenario(
        fa.load_scenario("privacy/quickstart-local", [*SHORT, "privacy.placement.kind=paper"])
    )
    for text in (
        json.loads(fa.export_plan(heuristic))["plan"]["note"],
        csv_of(heuristic)["note"].iloc[0],
    ):
        assert "a heuristic, not a guarantee" in text
    assert json.loads(fa.export_plan(record))["plan"]["note"] is None


def test_the_payments_are_shares_of_the_cap(record):
    table = csv_of(record)
    budget = record.run["market"]["budget"]
    assert_allclose(table["payment_currency"].sum(), budget, rtol=1e-9)
    assert_allclose(table["payment_currency"], fa.payments(table["epsilon"], budget), rtol=1e-9)


def test_money_has_a_unit_and_numbers_without_one_say_so(record):
    units = json.loads(fa.export_plan(record))["units"]
    assert units["payment_currency"] == "currency per round"
    assert {unit for name, unit in units.items() if name != "payment_currency"} == {"1"}


def test_a_run_that_trained_nothing_has_no_plan():
    economics = fa.run_scenario(fa.load_scenario("dynamics/cold-start"))
    with pytest.raises(InvalidRecordError, match="trained no net"):
        fa.export_plan(economics)


def test_without_trade_the_plan_says_that_nobody_trains():
    idle = fa.run_scenario(
        fa.load_scenario("privacy/quickstart-local", [*SHORT, "game.alpha=1e-6"])
    )
    whole = json.loads(fa.export_plan(idle))
    assert whole["nodes"] == []
    assert "No node trains" in whole["plan"]["note"]
    assert fa.export_plan(idle, format="csv") == ",".join([*COLUMNS, *COMMON]) + "\n"


@pytest.mark.parametrize("training", [None, {}, 3])
def test_facts_that_were_edited_get_a_sentence(record, tmp_path, training):
    path = record.write(tmp_path / "run").path
    (path / SUMS).unlink()
    facts = json.loads((path / "run.json").read_text()) | {"training": training}
    if training is None:
        del facts["training"]
    (path / "run.json").write_text(json.dumps(facts))
    if training == {}:  # notes are not always there
        assert json.loads(fa.export_plan(path))["plan"]["note"] is None
        return
    with pytest.raises(InvalidRecordError, match=r"run\.json"):
        fa.export_plan(path)


def test_there_is_no_other_format(record):
    with pytest.raises(UnknownNameError, match="no format of plans called 'xml'"):
        fa.export_plan(record, format="xml")


def test_a_file_is_written_and_a_place_that_cannot_be_is_refused(record, tmp_path):
    text = fa.export_plan(record, tmp_path / "plan.json")
    assert (tmp_path / "plan.json").read_text() == text
    assert fa.export_plan(record, tmp_path / "new" / "plan.json") == text
    with pytest.raises(OutputError, match=r"already exists; .*--overwrite"):
        fa.export_plan(record, tmp_path / "plan.json")
    assert fa.export_plan(record, tmp_path / "plan.json", overwrite=True) == text
    with pytest.raises(OutputError, match="cannot be written: a file is in the place of a folder"):
        fa.export_plan(record, tmp_path / "plan.json" / "plan.json")
    for folder in (tmp_path, ""):
        with pytest.raises(OutputError, match="is a folder"):
            fa.export_plan(record, folder)


def test_the_command_prints_the_same_or_writes_it(record, tmp_path):
    from typer.testing import CliRunner

    import fcfn_abm.cli  # noqa: F401 - registers the commands

    path = str(record.write(tmp_path / "run").path)
    shown = CliRunner().invoke(app, ["export-plan", path, "--format", "csv"])
    assert (shown.exit_code, shown.stdout) == (0, fa.export_plan(path, format="csv"))
    out = str(tmp_path / "plan.json")
    assert CliRunner().invoke(app, ["export-plan", path, "--out", out]).stdout == f"{out}\n"
    assert json.loads((tmp_path / "plan.json").read_text())["seed"] == record.scenario.seed
    wrong = CliRunner().invoke(app, ["export-plan", path, "--format", "xml"])
    assert wrong.exit_code == 2
    assert "'xml'. Known: csv, json." in wrong.stderr
    nowhere = CliRunner().invoke(app, ["export-plan", str(tmp_path / "none")])
    assert (nowhere.exit_code, nowhere.stderr.count("\n")) == (2, 1)
