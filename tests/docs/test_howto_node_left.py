"""The page on a node that left, followed line by line."""

import re
from pathlib import Path

import numpy as np
import pytest
from docs.follow import follow, read_files

import fcfn_abm as fa

pytestmark = pytest.mark.slow

PAGE = Path("docs/howto_node_left.md").read_text(encoding="utf-8")
FILES = read_files(PAGE)
NODE = 35


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("left")
    return folder, follow(PAGE, folder)


@pytest.mark.parametrize("name", ["when", "why", "keep"])
def test_the_answers_are_those_that_the_page_shows(followed, name):
    assert followed[1][f"python {name}.py"] == FILES[name]


def test_the_node_stays_out_by_the_condition_of_the_contest(followed):
    folder, _ = followed
    nodes = fa.read_record(folder / "results" / "market").nodes
    rho = np.sort(nodes["rho"])
    k = np.arange(1, rho.size + 1)
    n = int((rho * (k - 1) < np.cumsum(rho)).sum())  # the first n costs, by brute force
    bound = rho[:n].sum() / (n - 1)
    assert nodes["rho"][NODE] > bound
    assert f"{bound:.6f}" in FILES["when"]


def test_it_left_in_the_round_in_which_its_cost_was_above_what_an_epsilon_earns(followed):
    folder, _ = followed
    record = fa.read_record(folder / "results" / "market")
    lines = FILES["why"].splitlines()
    last = int(record.nodes["exit_round"][NODE])
    assert lines[-1].startswith(f"round {last}:")
    assert lines[-1].endswith("stays out")
    for line in lines[1:]:
        first, rho = (float(re.search(rf"{name} ([\d.]+)", line)[1]) for name in ("B/S", "rho"))
        assert line.endswith("sells" if rho < first else "stays out")


def test_a_larger_cap_would_not_have_kept_it():
    rho = np.array([1.0, 1.0, 1.2, 3.0])
    assert len({tuple(fa.nash_equilibrium(rho, cap).active) for cap in (1.0, 100.0)}) == 1
