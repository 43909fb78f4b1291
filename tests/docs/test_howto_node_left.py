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


def test_it_leaves_after_as_many_best_responses_of_zero_as_it_is_patient(followed):
    folder, _ = followed
    record = fa.read_record(folder / "results" / "market")
    shown = re.findall(r"round (\d+): best response ([\d.]+), reports ([\d.]+)", FILES["why"])
    last, patience = int(record.nodes["exit_round"][NODE]), record.scenario.exit.patience
    zero = [int(at) for at, best, _ in shown if float(best) == 0]
    assert zero[-patience:] == list(range(last - patience + 1, last + 1))
    reports = [float(own) for at, _, own in shown if int(at) in zero[-patience:]]
    assert reports[1:] == pytest.approx([own / 2 for own in reports[:-1]], abs=0.05)  # half steps


def test_in_the_end_the_bound_is_cap_over_total(followed):
    folder, _ = followed
    run = fa.read_record(folder / "results" / "market").run
    market, form = run["market"], run["equilibrium"]
    assert market["budget"] / market["total_epsilon"] == pytest.approx(form["threshold"], rel=1e-6)


def test_a_larger_cap_would_not_have_kept_it():
    rho = np.array([1.0, 1.0, 1.2, 3.0])
    assert len({tuple(fa.nash_equilibrium(rho, cap).active) for cap in (1.0, 100.0)}) == 1
