"""The page on costs in a CSV file, followed line by line."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from docs.follow import follow, read_files

import fcfn_abm as fa

pytestmark = pytest.mark.slow

PAGE = Path("docs/howto_costs_csv.md").read_text(encoding="utf-8")
COSTS = Path("examples/hospitals/costs.csv")
FILES = read_files(PAGE)


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder of somebody who has followed the page, and what each command printed."""
    folder = tmp_path_factory.mktemp("hospitals")
    shutil.copy(COSTS, folder)
    return folder, follow(PAGE, folder, writes=False)


def test_the_page_shows_the_beginning_of_the_file():
    assert COSTS.read_text(encoding="utf-8").startswith(FILES["costs.csv"])


def test_the_answer_is_the_one_that_the_page_shows(followed):
    _, printed = followed
    shown = re.search(r"^```text\n(costs: .*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    first = next(text for step, text in printed.items() if "--alpha" in step)
    assert first.startswith(shown[1])


def test_the_table_holds_the_closed_form_of_the_file(followed):
    folder, _ = followed
    costs = pd.read_csv(COSTS, sep=";", decimal=",")
    nodes = pd.read_csv(folder / "nodes.csv")
    form = fa.stackelberg_equilibrium(costs["cost"], 10.0, 10.0)
    assert nodes["name"].tolist() == costs["hospital"].tolist()
    np.testing.assert_allclose(nodes["epsilon"], form.epsilon, rtol=1e-12)
    np.testing.assert_allclose(nodes["payment"].sum(), form.budget, rtol=1e-12)
    assert (folder / "hospitals.png").read_bytes().startswith(b"\x89PNG")


def test_the_new_scenario_is_the_one_that_the_page_shows(followed):
    folder, _ = followed
    text = (folder / "hospitals.toml").read_text(encoding="utf-8")
    assert text.partition("\n\n")[2] == FILES["hospitals.toml"]


def test_names_stand_in_the_summary_the_report_and_the_tables(followed):
    folder, printed = followed
    record = fa.read_record(folder / "results" / "hospitals")
    out = record.nodes[~record.nodes["active"]].nlargest(1, "rho")["name"].item()
    assert out in printed["fcfn run hospitals.toml"]
    assert out not in ("", "node 0")
    seller = record.nodes[record.nodes["active"]].nlargest(1, "rho")["name"].item()
    assert seller in (folder / "results" / "hospitals" / "report.html").read_text("utf-8")
    assert {"München", "Bremen"} < set(record.traces["name"])


def test_weights_of_the_file_change_who_takes_part(followed):
    _, printed = followed
    costs = pd.read_csv(COSTS, sep=";", decimal=",")
    step = next(step for step in printed if "column:beds" in step)
    # in the scores w * epsilon it is the contest with the costs rho / w
    n = fa.nash_equilibrium(costs["cost"] / costs["beds"], 1.0).n_active
    assert f"{n} of 40 nodes take part" in printed[step]
