"""The benchmark: what is equal is equal, populations are the same, and kills cost nothing."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import warm
from scipy import stats

import fcfn_abm as fa
from fcfn_abm import build
from fcfn_abm.errors import InvalidRecordError, InvalidScenarioError, OutputError
from fcfn_abm.report.bench import average_paired_difference, bench_text, estimate, summarise
from fcfn_abm.rng import replication_seed, stream
from fcfn_abm.runs.bench import list_tasks, read_bench, run_bench
from fcfn_abm.runs.report import write_report

pytestmark = pytest.mark.slow

SMALL = """
extends = "quickstart"
seed = 3
[population]
n_nodes = 12
[game]
average_over = "population"
[training]
rounds = 3
compare = []
[compared.weighted]
by = "divergence"
[bench]
mechanisms = ["stackelberg", "tullock", "static", "fair-query", "weighted"]
budgets = [1.0, 4.0]
replications = 3
[bench.costs]
narrow = { kind = "uniform", low = 0.19, high = 0.21 }
wide = { kind = "uniform", low = 0.1, high = 0.3 }
[bench.data.independent]
partition = { kind = "dirichlet", dirichlet_alpha = 0.3 }
[bench.data.coupled]
partition = { kind = "dirichlet", dirichlet_alpha = 0.3 }
coupling = 2.0
[bench.training]
costs = "wide"
budget = 4.0
data = "coupled"
seeds = 2
last = 2
"""
KEY = ["costs", "data", "budget", "mode", "mechanism", "replication"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def found(file):
    return run_bench(fa.load_scenario(file), file.parent / "whole")


@pytest.fixture(scope="module")
def frame(found):
    return found.frame()


def test_every_cell_has_every_mechanism_terms_and_population_once(frame):
    assert len(frame) == 2 * 2 * 2 * 3 * 5 * 3
    assert not frame.duplicated(KEY).any()


def drawn_costs(costs, data, replication):
    """Draw a population by hand: uniform costs, and the coupling to labels that were dealt."""
    low, high = {"narrow": (0.19, 0.21), "wide": (0.1, 0.3)}[costs]
    seed = replication_seed(3, replication)
    rho = stream(seed, "costs").uniform(low, high, 12)
    if data == "independent":
        return rho
    base = fa.load_scenario("quickstart", [f"seed={seed}", "population.n_nodes=12"])
    tree = base.model_copy(
        update={
            "training": base.training.model_copy(
                update={
                    "partition": base.training.partition.model_copy(update={"dirichlet_alpha": 0.3})
                }
            )
        }
    )
    images = build.load_images(tree)
    shards = build.draw_population(tree, images).held.shards
    everybody = np.bincount(images.train_labels, minlength=10) / len(images.train_labels)
    shares = [np.bincount(images.train_labels[rows], minlength=10) / len(rows) for rows in shards]
    factor = 1 + 2.0 * np.abs(np.array(shares) - everybody).sum(axis=1) / 2
    return rho * factor / factor.mean()


@pytest.mark.parametrize("data", ["independent", "coupled"])
@pytest.mark.parametrize("mode", ["equal-cap", "equal-spending", "equal-epsilon"])
def test_a_row_is_what_pricing_those_nodes_anew_with_its_settings_gives(frame, data, mode):
    for replication in range(3):
        rho = drawn_costs("wide", data, replication)
        rows = frame[
            (frame["costs"] == "wide")
            & (frame["data"] == data)
            & (frame["budget"] == 4.0)
            & (frame["mode"] == mode)
            & (frame["replication"] == replication)
            & (frame["mechanism"] != "weighted")
        ]
        target = fa.nash_equilibrium(rho, 4.0).total_epsilon / 12
        for row in rows.itertuples():
            if row.status != "solved":
                continue
            settings = dict(part.split(" = ") for part in row.settings.split(", ") if part)
            settings = {knob: float(value) for knob, value in settings.items()}
            cap = settings.pop("budget", 4.0)
            options = {"voluntary": True} if row.mechanism == "static" else {}
            again = fa.price(
                row.mechanism,
                rho,
                alpha=2.9,
                beta=28.7,
                budget=cap,
                average_over="population",
                **options,
                **settings,
            )
            assert again.server_payment == pytest.approx(row.server_payment, rel=1e-4)
            assert again.mean_epsilon == pytest.approx(row.mean_epsilon, rel=1e-4)
            if mode == "equal-spending":
                assert again.server_payment == pytest.approx(4.0, rel=0.01)
            if mode == "equal-epsilon":
                assert again.mean_epsilon == pytest.approx(target, rel=0.01)
            cheapest_first = np.argsort(rho)
            expensive = again.epsilon[cheapest_first[-4:]] > 0
            assert row.expensive_third == pytest.approx(expensive.mean())


def test_the_contest_is_the_same_at_all_terms_since_it_spends_its_cap(frame):
    own = frame[frame["mechanism"] == "stackelberg"]
    table = own.pivot_table(index=["costs", "data", "budget", "replication"], columns="mode",
                            values="total_epsilon")  # fmt: skip
    np.testing.assert_allclose(table["equal-spending"], table["equal-cap"], rtol=1e-9)
    np.testing.assert_allclose(table["equal-epsilon"], table["equal-cap"], rtol=1e-5)


def test_populations_do_not_depend_on_cap_terms_or_mechanism(frame):
    # in a contest who takes part depends on the costs alone
    same = frame[frame["mechanism"].isin(["stackelberg", "tullock"])]
    counts = same.groupby(["costs", "data", "mechanism", "replication"])["n_active"].nunique()
    assert (counts == 1).all()
    seeds = frame[["replication", "seed"]].drop_duplicates()
    assert len(seeds) == 3
    assert not seeds["seed"].duplicated().any()


def test_an_auction_that_cannot_reach_the_terms_says_so_and_has_no_numbers(frame):
    auction = frame[(frame["mechanism"] == "fair-query") & (frame["mode"] == "equal-epsilon")]
    above_one = auction[auction["budget"] == 4.0]
    assert (above_one["status"] == "not-reachable").all()
    assert above_one["reason"].str.contains("buys").all()
    assert above_one[["server_utility", "mean_epsilon", "regret"]].isna().all(axis=None)


def test_nets_are_trained_where_it_says_and_nowhere_else(frame):
    trained = frame[frame["accuracy"].notna()]
    assert set(trained["mode"]) == {"equal-spending"}
    assert set(zip(trained["costs"], trained["data"], trained["budget"], strict=True)) == {
        ("wide", "coupled", 4.0)
    }
    reached = frame[
        (frame["mode"] == "equal-spending")
        & (frame["costs"] == "wide")
        & (frame["data"] == "coupled")
        & (frame["budget"] == 4.0)
        & (frame["replication"] < 2)
        & (frame["status"] == "solved")
    ]
    assert len(trained) == len(reached)
    assert trained["accuracy"].between(0, 1).all()
    np.testing.assert_allclose(
        trained["largest_true_epsilon"], trained["largest_epsilon"], rtol=1e-3
    )  # what is sold is spent, and no more


def test_accuracy_is_the_mean_of_the_last_rounds_of_a_run_of_the_same_nodes(frame, file):
    scenario = build.name_mechanisms(fa.load_scenario(file))
    cell = next(
        cell
        for cell in build.list_bench(scenario)
        if (cell.costs, cell.data, cell.budget) == ("wide", "coupled", 4.0)
    )
    row = frame[frame["accuracy"].notna() & (frame["mechanism"] == "stackelberg")].iloc[0]
    replica = cell.replica(int(row["replication"]))
    images = build.load_images(replica)
    nodes = cell.draw_population(int(row["replication"]), images)
    epsilon = fa.nash_equilibrium(drawn_costs("wide", "coupled", 0), 4.0).epsilon
    training = build.create_trainer(replica, nodes, images).begin()
    for _ in range(3):
        training.step(epsilon)
    last = [training.results[-2].accuracy, training.results[-1].accuracy]
    assert row["accuracy"] == pytest.approx(np.mean(last), abs=0.01)


def test_a_benchmark_that_was_killed_ends_with_the_same_bytes(file, found, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "fcfn_abm", "bench", file, "--out", out, "--workers", "2"]
    process = subprocess.Popen(
        [*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if len(list(out.glob("runs/*.json"))) >= 2:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("runs/[0-9]*.json")}
    assert kept
    again = warm.run("fcfn", *map(str, command[3:]), check=True)
    assert "Report: " in again.stdout
    for path in out.glob("runs/[0-9]*.json"):
        assert kept.get(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    write_report(found.path)
    names = ["bench.parquet", "bench.csv", "run.json", "scenario.toml", "SHA256SUMS",
             "figures/benchmark.png", "figures/benchmark.pdf"]  # fmt: skip
    for name in names:
        assert (out / name).read_bytes() == (found.path / name).read_bytes(), name
    # the page names no folder
    assert (out / "report.html").read_bytes() == (found.path / "report.html").read_bytes()


def test_a_folder_belongs_to_one_benchmark(file, found):
    with pytest.raises(OutputError, match=r"holds the benchmark of another scenario \(seed is 3"):
        run_bench(fa.load_scenario(file, ["seed=4"]), found.path)
    with pytest.raises(InvalidRecordError, match="is a benchmark, not a sweep"):
        fa.read_sweep(found.path)
    assert read_bench(found.path).run == found.run


PLUGIN = '''
from typing import ClassVar

import numpy as np

import fcfn_abm as fa
from fcfn_abm.mechanisms import MECHANISMS, Contracts, Mechanism
from fcfn_abm.mechanisms.base import settle


@MECHANISMS.register("cost-plus")
class CostPlus(Mechanism):
    """Pays each node its cost and a tenth more for the same epsilon."""

    knobs: ClassVar[tuple[str, ...]] = ("level",)
    level: float = 0.1

    def offer(self, game, rng):
        return Contracts(np.full(game.rho.size, self.level), 1.1 * self.level * game.rho)

    def outcome(self, game, rng):
        offer = self.offer(game, rng)
        return settle("cost-plus", game, offer.epsilon, offer.fee)
'''


def test_a_plug_in_joins_by_name_and_its_knob_is_turned(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "mine.toml").write_text(
        'extends = "quickstart"\nimports = ["mine.py"]\n[population]\nn_nodes = 8\n'
        "[training]\nenabled = false\n"
        '[bench]\nbudgets = [2.0]\nreplications = 2\nmechanisms = ["stackelberg", "cost-plus"]\n',
        encoding="utf-8",
    )
    out = tmp_path / "out"
    run = ["bench", str(tmp_path / "mine.toml"), "--out", str(out), "--workers", "2", "--quiet"]
    refused = warm.run("fcfn", *run)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "--trust" in refused.stderr
    done = warm.run("fcfn", *run, "--trust")
    assert done.returncode == 0, done.stderr
    frame = pd.read_parquet(out / "bench.parquet")
    mine = frame[(frame["mechanism"] == "cost-plus") & (frame["mode"] == "equal-spending")]
    assert mine["settings"].str.startswith("level = ").all()
    np.testing.assert_allclose(mine["server_payment"], 2.0, rtol=0.01)
    np.testing.assert_allclose(mine["rent"], 1 - 1 / 1.1, rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (['bench.mechanisms=["stackelbreg"]'], "no mechanism called 'stackelbreg'"),
        (["bench.budgets=[1.0, 1.0]"], "1.0 is listed twice"),
        (["bench.budgets=[-1.0]"], "should be greater than 0"),
        (["bench.training.costs=narow"], "must be one of 'narrow', 'wide', but is 'narow'"),
        (["bench.training.seeds=4"], "must not exceed bench.replications = 3, but is 4"),
        (["bench.training.last=9"], "must not exceed training.rounds = 3, but is 9"),
        (['bench.costs.csv={kind="csv", path="a.csv"}'], "a file of costs cannot be used here"),
        (["bench.costs.bad=7"], "must be a distribution of costs"),
        (['bench.costs.bad={kind="uniform", lo=1.0}'], "no such option"),
        (['bench.costs.bad={kind="unifrm"}'], "Did you mean 'uniform'"),
        (['bench.data.bad={partition="dirichlt"}'], "Did you mean 'dirichlet'"),
        (["bench.data.bad.couplin=1.0"], "no such key"),
        (['bench.modes=["equal"]'], "equal-cap"),
        (["bench.tolerance=0.5"], "less than or equal to 0.1"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_that_names_the_place(file, changes, says):
    with pytest.raises(InvalidScenarioError, match=says) as caught:
        fa.load_scenario(file, changes)
    assert "bench" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_where_training_is_switched_off_the_cells_alone_are_left(file):
    scenario = fa.load_scenario(file, ["training.enabled=false"])
    tasks = list_tasks(build.name_mechanisms(scenario))
    assert len(tasks) == 2 * 2 * 2
    assert {task.mechanism for task in tasks} == {None}
    assert len(list_tasks(build.name_mechanisms(fa.load_scenario(file)))) == 8 + 2 * 5


def test_the_command_refuses_with_exit_code_two(file, tmp_path):
    for arguments in (["quickstart"], [file, "--set", "bench.budgets=[]"]):
        run = warm.run("fcfn", *map(str, ["bench", *arguments, "--out", tmp_path / "x"]))
        assert run.returncode == 2
        assert run.stderr.count("\n") == 1
        assert not (tmp_path / "x").exists()


def test_an_interval_of_accuracy_is_one_of_the_logit_and_stays_below_one():
    values = np.array([0.97, 0.99, 0.995])
    found = estimate(values, bounds=(0.0, 1.0))
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(3)
    half = stats.t.ppf(0.975, 2) * error / (mean * (1 - mean))
    logit = np.log(mean / (1 - mean))
    assert found.low == pytest.approx(1 / (1 + np.exp(-(logit - half))))
    assert found.high == pytest.approx(1 / (1 + np.exp(-(logit + half))))
    assert found.high < 1 < mean + stats.t.ppf(0.975, 2) * error
    same = estimate(np.full(4, 1.0), bounds=(0.0, 1.0))
    assert (same.low, same.high) == (1.0, 1.0)


def test_a_difference_of_accuracies_is_paired_and_leads_to_no_accuracy_above_one():
    pairs = {"a": [0.90, 0.99, 0.97, 0.93], "b": [0.88, 0.96, 0.95, 0.80]}
    frame = pd.DataFrame(
        [
            {"replication": i, "mechanism": name, "accuracy": value}
            for name, values in pairs.items()
            for i, value in enumerate(values)
        ]
    )
    found = average_paired_difference(frame, "accuracy", "a", "b")
    assert found.mean == pytest.approx(np.mean(np.subtract(pairs["a"], pairs["b"])))
    assert np.mean(pairs["b"]) + found.high < 1
    assert found.low < found.mean < found.high


def test_the_summary_has_a_row_a_cell_with_means_over_what_was_reached(found, frame):
    table = summarise(frame, found.run)
    assert len(table) == 2 * 2 * 2 * 3 * 5
    one = table[
        (table["costs"] == "wide")
        & (table["data"] == "coupled")
        & (table["budget"] == 1.0)
        & (table["mode"] == "equal-cap")
        & (table["mechanism"] == "tullock")
    ].iloc[0]
    same = (frame["costs"] == "wide") & (frame["data"] == "coupled") & (frame["budget"] == 1.0)
    rows = frame[same & (frame["mode"] == "equal-cap")].pivot_table(
        index="replication", columns="mechanism", values="server_utility"
    )
    difference = rows["tullock"] - rows["stackelberg"]
    expected = stats.t.interval(0.95, 2, difference.mean(), stats.sem(difference))
    assert one["server_utility_difference"] == pytest.approx(difference.mean())
    assert one["server_utility_difference_low"] == pytest.approx(expected[0])
    assert one["server_utility_difference_high"] == pytest.approx(expected[1])
    on_disk = pd.read_csv(found.path / "bench.csv")
    np.testing.assert_allclose(on_disk["welfare"], table["welfare"], rtol=1e-5)


def test_text_and_page_name_every_mechanism_and_what_is_out_of_reach(found, frame):
    text = str(bench_text(frame, found.run))
    page = write_report(found.path).read_text(encoding="utf-8")
    for name in found.run["mechanisms"]:
        assert name in text
        assert name in page
    assert "Equal mean epsilon is unreachable in" in text
    assert "Where each mechanism fails" in page
    assert "<svg" in page


def test_the_shipped_benchmark_has_twelve_mechanisms_and_twenty_populations():
    scenario = build.name_mechanisms(fa.load_scenario("bench/default"))
    assert len(scenario.bench.mechanisms) >= 12
    assert scenario.bench.replications >= 20
    cells = build.list_bench(scenario)
    assert {cell.coupling > 0 for cell in cells} == {True, False}
    assert json.loads(scenario.model_dump_json())["bench"]["training"]["mode"]
