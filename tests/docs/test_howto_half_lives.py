"""The page on half-lives, followed line by line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from docs.follow import follow, read_files

import fcfn_abm as fa

pytestmark = pytest.mark.slow

PAGE = Path("docs/howto_half_lives.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rules")
    return folder, follow(PAGE, folder)


def test_the_half_lives_are_those_that_the_page_shows(followed):
    shown = followed[1]["python half_lives.py"]
    assert [line.split() for line in shown.splitlines()] == [
        line.split() for line in read_files(PAGE)["half-lives"].splitlines()
    ]


def test_a_distance_halves_in_a_half_life(followed):
    folder, _ = followed
    frame = pd.read_csv(folder / "half_lives.csv")
    for row in frame[frame["rule"] == "best-response"].itertuples():
        (record,) = (
            found
            for path in (folder / "results" / "rules" / "records").iterdir()
            if (found := fa.read_record(path)).scenario.seed == row.seed
            and found.scenario.learning.kind == row.rule
        )
        late = record.rounds[record.rounds["distance"].between(1e-6, 1e-1)]
        factor = late["distance"].iloc[-1] / late["distance"].iloc[0]
        apart = late["round"].iloc[-1] - late["round"].iloc[0]
        assert apart * np.log(2) / -np.log(factor) == pytest.approx(row.half_life, rel=0.1)


def test_the_report_has_the_curves_of_all_rules(followed):
    folder, _ = followed
    text = (folder / "rules.html").read_text(encoding="utf-8")
    for rule in ("best-response", "gradient", "fictitious-play", "replicator"):
        assert rule in text
    assert "one and the same population" in text
