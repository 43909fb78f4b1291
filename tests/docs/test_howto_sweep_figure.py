"""The page on three mechanisms, followed line by line."""

import re
from pathlib import Path

import pytest
from docs.follow import follow
from scipy import stats

import fcfn_abm as fa

pytestmark = pytest.mark.slow

PAGE = Path("docs/howto_sweep_figure.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    return folder, follow(PAGE, folder)


def test_the_sweep_has_as_many_markets_as_the_page_says(followed):
    folder, _ = followed
    frame = fa.read_sweep(folder / "results" / "three").frame()
    assert (frame["status"] == "done").sum() == 120
    assert "120 markets of 30 nodes" in PAGE
    assert set(frame["n_nodes"]) == {30}


def test_the_figures_are_files_for_print(followed):
    folder, _ = followed
    assert (folder / "three.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / "three.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "results" / "three" / "report.html").is_file()


def test_the_differences_are_paired_and_those_that_the_page_shows(followed):
    folder, printed = followed
    frame = fa.read_sweep(folder / "results" / "three").frame()
    shown = printed["python pairs.py"]
    assert shown in PAGE
    for line in shown.splitlines():
        sigma, mean, low, high = map(float, re.findall(r"-?\d+\.?\d*", line))
        some = frame[frame["population.rho.sigma"] == sigma].set_index("seed")
        ours, theirs = (
            some.loc[some["mechanism.kind"] == kind, "server_utility"]
            for kind in ("stackelberg", "random")
        )
        found = stats.ttest_rel(ours, theirs[ours.index])
        ends = found.confidence_interval()
        assert (mean, low, high) == pytest.approx(
            ((ours - theirs).mean(), ends.low, ends.high), abs=0.006
        )
