"""Several runs and several sweeps side by side: what differs, pairs, and what is refused."""

import io
import re
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from report.test_pages import HOSTILE, checked, tables
from scipy import stats
from typer.testing import CliRunner

import fcfn_abm as fa
from fcfn_abm.cli import app
from fcfn_abm.errors import InvalidRecordError, OutputError, UnknownNameError
from fcfn_abm.report.blocks import Words
from fcfn_abm.runs.report import read_pages

pytestmark = pytest.mark.slow

RULES = ("best-response", "gradient")
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two learning rules under three seeds; a market in which costs spread more; and a sweep."""
    folder = tmp_path_factory.mktemp("several")
    for seed in SEEDS:
        for rule in RULES:
            changes = [f"seed={seed}", f"learning.kind={rule}", f"title='{rule} {seed}'"]
            run(folder / f"{rule}-{seed}", *changes)
    run(folder / "again-1", "seed=1", f'title="""{HOSTILE}"""')
    run(folder / "wider-1", "seed=1", "population.rho.sigma=0.4")
    run(folder / "other-9", "seed=9")
    return folder


def run(out, *changes):
    return fa.run_scenario(fa.load_scenario("dynamics/cold-start", changes), out)


def paths(folder, *names):
    return [folder / name for name in names]


def all_of(folder):
    return [folder / f"{rule}-{seed}" for rule in RULES for seed in SEEDS]


def records(folder, rule):
    return [fa.read_record(folder / f"{rule}-{seed}") for seed in SEEDS]


def said(page):
    parts = [*page.lead, *(block for section in page.sections for block in section.blocks)]
    return " ".join(block.text for block in parts if isinstance(block, Words))


def test_the_settings_that_differ_are_the_ones_that_were_changed(folder):
    page = read_pages(paths(folder, "best-response-1", "gradient-1", "wider-1"))
    table = tables(page)["scenario key"]
    assert list(table.head) == ["scenario key", "best-response-1", "gradient-1", "wider-1"]
    before = fa.load_scenario("dynamics/cold-start").population.rho.options["sigma"]
    assert [list(row) for row in table.rows] == [
        ["population.rho.sigma", f"{before:g}", f"{before:g}", "0.4"],
        ["learning.kind", "best-response", "gradient", "best-response"],
    ] or [list(row) for row in table.rows] == [
        ["learning.kind", "best-response", "gradient", "best-response"],
        ["population.rho.sigma", f"{before:g}", f"{before:g}", "0.4"],
    ]


def test_runs_that_differ_in_their_seed_alone_are_replications_and_pairs(folder):
    page = read_pages(all_of(folder))
    outcomes, differences = tables(page)["Outcomes"], tables(page)["Difference from best-response"]
    assert list(outcomes.head) == ["", "best-response (3)", "gradient (3)"]
    lengths = {rule: [r.run["verdict"]["rounds"] for r in records(folder, rule)] for rule in RULES}
    (row,) = (row for row in outcomes.rows if row[0] == "rounds played")
    for cell, rule in zip(row[1:], RULES, strict=True):
        mean, half = map(float, cell.split(" ± "))
        expected = stats.t.interval(0.95, 2, np.mean(lengths[rule]), stats.sem(lengths[rule]))
        assert (mean - half, mean + half) == pytest.approx(expected, abs=0.6)
    apart = np.subtract(lengths["gradient"], lengths["best-response"])
    (row,) = (row for row in differences.rows if row[0] == "rounds played")
    mean, half = map(float, row[1].split(" ± "))
    low, high = stats.ttest_1samp(apart, 0).confidence_interval()
    assert (mean - half, mean + half) == pytest.approx((low, high), abs=0.6)
    assert "Paired over 3 shared seeds" in differences.note
    assert "3 seeds common to all settings" in said(page)
    # at rest both are where the closed form is: what is left is rounding
    (row,) = (row for row in differences.rows if row[0] == "active nodes")
    assert row[1] == "0 ± 0"


def test_one_population_is_said_to_be_one(folder):
    page = read_pages(paths(folder, "best-response-1", "gradient-1"))
    assert "have the same population" in said(page)
    assert (
        "one difference, without an interval"
        in tables(page)["Difference from best-response-1"].note
    )
    cells = [cell for row in tables(page)["Outcomes"].rows for cell in row]
    assert not any("±" in cell for cell in cells)
    nodes = tables(page)["The same nodes, compared with best-response-1"].rows[0]
    active = [fa.read_record(folder / f"{rule}-1").nodes["active"] for rule in RULES]
    assert nodes[1:] == [
        str((active[0] & active[1]).sum()),
        str((active[0] & ~active[1]).sum()),
        str((~active[0] & active[1]).sum()),
        str((~active[0] & ~active[1]).sum()),
    ]


def test_shares_have_no_relative_difference(folder):
    page = read_pages(paths(folder, "best-response-1", "wider-1"))
    cells = {row[0]: row[1] for row in tables(page)["Difference from best-response-1"].rows}
    assert "%" in cells["total epsilon S"]
    for share in ("exploitability", "distance to the closed form"):
        assert "%" not in cells[share]


def test_runs_without_a_common_seed_are_not_paired(folder):
    page = read_pages(paths(folder, "best-response-1", "other-9"))
    assert "Populations" in [fact.label for fact in page.lead[0].facts]
    page = read_pages(paths(folder, "gradient-1", "other-9"))
    note = tables(page)["Difference from gradient-1"].note
    assert note.startswith("Not paired")


def test_equal_scenarios_have_no_differing_settings(folder):
    page = read_pages(paths(folder, "best-response-1", "again-1"))
    assert "The runs have the same settings and the same seed." in said(page)


def test_the_report_is_one_whole_file_with_its_data(folder, tmp_path):
    out = fa.write_report(paths(folder, "again-1", "gradient-1"), tmp_path / "both.html")
    text = out.read_text(encoding="utf-8")
    checked(text)
    found = re.findall(r'href="data:text/csv;charset=utf-8,([^"]*)" download="rounds.csv"', text)
    frame = pd.read_csv(io.StringIO(unquote(found[0])))
    gradient = fa.read_record(folder / "gradient-1").rounds
    own = frame[frame["setting"] == "gradient-1"]
    assert own["total_epsilon"].to_numpy() == pytest.approx(gradient["total_epsilon"], rel=1e-15)
    assert list(own["round"]) == list(gradient["round"])


def test_folders_of_one_name_are_distinguished(folder, tmp_path):
    (tmp_path / "gradient-1").symlink_to(folder / "gradient-2")
    with pytest.raises(InvalidRecordError, match="given twice"):
        read_pages([folder / "gradient-1", folder / "gradient-1"])
    copied = fa.read_record(folder / "gradient-2").write(tmp_path / "more" / "gradient-1").path
    page = read_pages([folder / "gradient-1", copied])
    head = tables(page)["Outcomes"].head
    assert head[1:] == [f"{folder.name}/gradient-1", "more/gradient-1"]


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    for name, rule in (("best", "best-response"), ("gradient", "gradient")):
        tree = {
            "sweep": {"replications": 3, "axes": {"population.n_nodes": [10, 20]}},
            "learning": {"kind": rule},
        }
        fa.run_sweep(fa.Scenario.model_validate(tree), folder / name)
    return folder


def test_sweeps_are_paired_by_point_and_seed(sweeps):
    page = read_pages([sweeps / "best", sweeps / "gradient"])
    table = tables(page)["Difference from best, mean over shared points"]
    best, gradient = (fa.read_sweep(sweeps / name).frame() for name in ("best", "gradient"))
    both = best.merge(gradient, on=["population.n_nodes", "seed"])
    apart = (both["rounds_y"] - both["rounds_x"]).groupby(both["seed"]).mean()
    (row,) = (row for row in table.rows if row[0] == "rounds")
    mean, half = map(float, row[1].split(" ± "))
    low, high = stats.ttest_1samp(apart, 0).confidence_interval()
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=0.05)
    assert "6 with gradient" in said(page)
    assert "By sweep and population.n_nodes" in tables(page)


def test_what_cannot_stand_side_by_side_gets_a_sentence(folder, sweeps, tmp_path):
    with pytest.raises(InvalidRecordError, match=r"is a run and .* a sweep; only"):
        read_pages([sweeps / "best", folder / "gradient-1"])
    scenario = fa.load_scenario("quickstart")
    fa.compare_mechanisms(scenario, ["stackelberg", "random"], 2, tmp_path / "priced")
    with pytest.raises(InvalidRecordError, match="is a comparison; only runs or sweeps"):
        read_pages([tmp_path / "priced", folder / "gradient-1"])
    with pytest.raises(InvalidRecordError, match="needs a folder"):
        fa.write_report([])
    with pytest.raises(UnknownNameError, match="form of figures called 'tiff'"):
        fa.write_report(folder / "gradient-1", figures="tiff")


def test_the_command_writes_where_one_is_and_replaces_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [str(path) for path in paths(folder, "best-response-1", "gradient-1")]
    shown = CliRunner().invoke(app, ["report", *names, "--figures", "pdf"])
    assert (shown.exit_code, shown.stdout.strip().endswith("comparison.html")) == (0, True)
    assert (tmp_path / "comparison-figures" / "rounds.pdf").read_bytes().startswith(b"%PDF")
    refused = CliRunner().invoke(app, ["report", *names])
    assert refused.exit_code == 2
    assert "already exists" in refused.stderr
    with pytest.raises(OutputError, match="already exists"):
        fa.write_report(names)


@pytest.mark.parametrize(
    ("form", "begin"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")]
)
def test_figures_for_print_are_written_beside_the_report(folder, tmp_path, form, begin):
    for out in (tmp_path / "first" / "report.html", tmp_path / "second" / "report.html"):
        fa.write_report(folder / "gradient-1", out, figures=form)
    first, second = (tmp_path / place / "report-figures" for place in ("first", "second"))
    names = {path.name for path in first.iterdir()}
    assert names == {
        f"{n}.{form}" for n in ("convergence", "rho_epsilon", "participation", "utilities")
    }
    for name in names:
        content = (first / name).read_bytes()
        assert content.startswith(begin)
        assert content == (second / name).read_bytes()


def test_a_png_for_print_has_300_dots_an_inch(folder, tmp_path):
    image = pytest.importorskip("PIL.Image")
    fa.write_report(folder / "gradient-1", tmp_path / "report.html", figures="png")
    with image.open(tmp_path / "report-figures" / "utilities.png") as picture:
        assert picture.size == (11 * 300, round(3.6 * 300))
