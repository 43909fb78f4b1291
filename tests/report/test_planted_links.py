"""Reports and plans never write through a link that somebody has put beside them."""

import secrets
from contextlib import suppress

import pytest

import fcfn_abm as fa
from fcfn_abm.errors import OutputError

TINY = ["training.rounds=1", "training.compare=[]", "population.n_nodes=5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("record") / "run"
    fa.run_scenario(fa.load_scenario("quickstart", TINY), path)
    return path


def writers(folder):
    return {
        "report.html": lambda out: fa.write_report(folder, out=out),
        "report.md": lambda out: fa.write_report(folder, out=out, form="md"),
        "plan.json": lambda out: fa.export_plan(folder, out),
        "plan.csv": lambda out: fa.export_plan(folder, out, format="csv"),
    }


@pytest.mark.parametrize("name", ["report.html", "report.md", "plan.json", "plan.csv"])
def test_a_link_under_a_temporary_name_is_not_followed(folder, tmp_path, monkeypatch, name):
    victim, shared = tmp_path / "victim", tmp_path / "shared"
    victim.write_text("precious")
    shared.mkdir()
    (shared / f".{name}.partial").symlink_to(victim)
    write = writers(folder)[name]
    write(shared / name)
    assert (shared / name).stat().st_size > 500
    assert not (shared / name).is_symlink()
    assert victim.read_text() == "precious"
    # even one under the name that would be drawn: refused, or removed as a leftover
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    (shared / f".other-{name}.partial-guessed").symlink_to(victim)
    with suppress(OutputError):
        write(shared / f"other-{name}")
    assert victim.read_text() == "precious"
    assert not (shared / f"other-{name}").is_symlink()


def test_a_figure_that_is_a_link_is_replaced_and_not_followed(folder, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    fa.write_report(folder, out=tmp_path / "report.md", form="md")
    figures = sorted((tmp_path / "report-figures").iterdir())
    assert figures
    for figure in figures:
        figure.unlink()
        figure.symlink_to(victim)
    fa.write_report(folder, out=tmp_path / "report.md", form="md", overwrite=True)
    assert victim.read_text() == "precious"
    assert not any(figure.is_symlink() for figure in figures)
