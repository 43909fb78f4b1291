"""``fcfn replicate``: what it leaves, that it goes on, and what it says of mistakes."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

import fcfn_zhou2023 as zhou
from fcfn_abm.cli import app
from fcfn_abm.errors import OutputError
from fcfn_zhou2023 import base
from fcfn_zhou2023 import run as module

pytestmark = pytest.mark.slow

QUICK = ["fig4", "fig8"]


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    out = tmp_path_factory.mktemp("replication") / "out"
    return out, CliRunner().invoke(app, ["replicate", *QUICK, "--out", str(out)])


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the pictures empty, which saves the time to draw them."""
    blank = {
        name: replace(study, draw=lambda _: Figure(figsize=(1, 1)))
        for name, study in zhou.FIGURES.items()
    }
    monkeypatch.setattr(module, "FIGURES", blank)


def test_figures_numbers_and_ledger_are_left(left):
    out, result = left
    assert result.exit_code == 0, result.output
    assert re.search(r"^fig4-numbers +holds under reading alpha-1, alpha-10$", result.stdout, re.M)
    for name in ("fig04", "fig08"):
        assert (out / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert "<svg" in (out / "figures" / f"{name}.svg").read_text()
    values = pd.read_parquet(out / "values.parquet")
    assert set(values["figure"]) == set(QUICK)
    assert not values["value"].isna().any()
    assert "980/99" in (out / "ledger.md").read_text()


def test_the_page_is_escaped_and_holds_its_figures(left):
    page = (left[0] / "ledger.html").read_text()
    assert page.count('src="data:image/png;base64,') == len(QUICK)
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "epsilon &lt; B/rho" in page
    assert "epsilon < B/rho" not in page


@pytest.mark.usefixtures("undrawn")
def test_what_is_complete_is_not_made_again_and_what_is_missing_is(left, monkeypatch):
    out, _ = left
    made = []
    make = module._make
    monkeypatch.setattr(module, "_make", lambda study, *rest: (made.append(study.name),
                                                               make(study, *rest)))  # fmt: skip
    found = zhou.replicate(["fig4", "fig6"], out=out)
    assert made == ["fig6"]
    assert {row.claim.figure for row in found.rows} == {"fig4", "fig6", "fig8", "fig12"}
    (out / "figures" / "fig06.svg").unlink()
    zhou.replicate(["fig6"], out=out)
    assert made == ["fig6", "fig6"]
    zhou.replicate(["fig6"], "full", out)
    assert made == ["fig6", "fig6", "fig6"]
    monkeypatch.setattr(module, "_code", lambda: "changed since")
    zhou.replicate(["fig6"], "full", out)
    assert made == ["fig6", "fig6", "fig6", "fig6"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("place", [0.0, 0.5, 0.98])
def test_damaged_numbers_are_made_again(left, place):
    out, _ = left
    numbers = next((out / "values").glob("*4*.parquet"))
    whole, before = numbers.read_bytes(), pd.read_parquet(numbers)
    start = int(place * len(whole))
    numbers.write_bytes(whole[:start] + bytes(80) + whole[start + 80 :])
    done = CliRunner().invoke(app, ["replicate", "fig4", "--out", str(out)])
    assert done.exit_code == 0, done.output
    pd.testing.assert_frame_equal(pd.read_parquet(numbers), before)


def test_the_hash_of_code_knows_names_and_contents_and_what_is_apart(tmp_path):
    for name, text in {"a.py": "1", "game/b.py": "2", "cli/c.py": "3", "game/d.txt": "4"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = base.hash_code(tmp_path, "cli")
    (tmp_path / "cli" / "c.py").write_text("other")
    (tmp_path / "game" / "d.txt").write_text("other")
    assert base.hash_code(tmp_path, "cli") == before
    assert base.hash_code(tmp_path) != before
    (tmp_path / "game" / "b.py").write_text("other")
    changed = base.hash_code(tmp_path, "cli")
    (tmp_path / "game" / "b.py").rename(tmp_path / "game" / "c.py")
    assert len({before, changed, base.hash_code(tmp_path, "cli")}) == 3


@pytest.mark.usefixtures("undrawn")
def test_an_interrupt_leaves_the_figures_that_are_finished(tmp_path, monkeypatch):
    make = module._make

    def interrupted(study, *rest):
        if study.name == "fig8":
            raise KeyboardInterrupt
        make(study, *rest)

    monkeypatch.setattr(module, "_make", interrupted)
    arguments = ["replicate", *QUICK, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 130
    assert "Run the same command to resume" in result.stderr
    assert "980/99" in (tmp_path / "out" / "ledger.md").read_text()
    monkeypatch.setattr(module, "_make", make)
    assert CliRunner().invoke(app, arguments).exit_code == 0


def test_an_unknown_figure_gets_one_sentence(tmp_path):
    result = CliRunner().invoke(app, ["replicate", "fig3", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "There is no figure called 'fig3'" in result.stderr
    assert "fig17" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_gets_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["replicate", "fig4", "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_nets_without_torch_are_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    result = CliRunner().invoke(app, ["replicate", "all", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "pip install 'fcfn-abm[train]'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_other_results_are_not_mixed_with_figures(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(OutputError, match="contains other results"):
        zhou.replicate(["fig4"], out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
