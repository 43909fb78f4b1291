"""The page on one's own images, followed line by line."""

import re
from pathlib import Path

import pandas as pd
import pytest
from docs.follow import follow, read_files
from scipy import stats

import fcfn_abm as fa

pytest.importorskip("torch", reason="the extra train is not installed")
pytestmark = pytest.mark.slow

PAGE = Path("docs/howto_own_images.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    return folder, follow(PAGE, folder)


def test_every_image_is_packed_under_the_name_of_its_folder(followed):
    folder, printed = followed
    frame = pd.read_parquet(folder / "own.parquet")
    counts = {path.name: len(list(path.iterdir())) for path in (folder / "images").iterdir()}
    assert frame["label"].value_counts().to_dict() == counts
    assert printed["python pack.py"] == f"{sum(counts.values())} images of {len(counts)} classes\n"


def test_both_mechanisms_train_on_them_under_the_same_seeds(followed):
    folder, _ = followed
    frame = fa.read_sweep(folder / "results" / "own").frame()
    assert (frame["status"] == "done").all()
    seeds = frame.groupby("mechanism.kind")["seed"].apply(set)
    assert len(seeds["random"]) == 5
    assert seeds["random"] == seeds["stackelberg"]
    assert frame["accuracy"].between(0.1, 1).all()


def test_the_difference_is_paired(followed):
    folder, printed = followed
    frame = fa.read_sweep(folder / "results" / "own").frame().sort_values("seed")
    by = {kind: some["accuracy"].to_numpy() for kind, some in frame.groupby("mechanism.kind")}
    ends = stats.ttest_rel(by["stackelberg"], by["random"]).confidence_interval()
    shown = [float(x) for x in re.findall(r"[+-]\d+\.\d", printed["python bars.py"])]
    mean = (by["stackelberg"] - by["random"]).mean()
    assert shown == pytest.approx([100 * mean, 100 * ends.low, 100 * ends.high], abs=0.06)
    assert (folder / "own.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_names_the_net_and_the_data_set_of_its_scenario():
    scenario = read_files(PAGE)["own.toml"]
    assert 'path = "own.parquet"' in scenario
    assert "`digits-cnn`" in PAGE
