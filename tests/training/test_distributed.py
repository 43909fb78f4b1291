"""Blocks of nodes on other workers: the same sums, to the last bit, and little that travels."""

import pickle
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from whole_training import train

import fcfn_abm as fa
from fcfn_abm.build import load_scenario, prepare_trainer
from fcfn_abm.dp import Clipping
from fcfn_abm.errors import InvalidDataError, RunFailedError
from fcfn_abm.training import FederatedTrainer
from fcfn_abm.training.distributed import Distributed
from fcfn_abm.training.local_steps import LocalSteps
from fcfn_abm.training.placements import Upload
from fcfn_abm.training.sums import RoundWork, Sums, count_block_nodes, split_into_blocks


class Elsewhere:
    """Workers that see nothing but bytes, and compute in an order of their own."""

    def __init__(self, n_workers=3):
        self.n_workers, self.messages = n_workers, []

    def place(self, value):
        return Placed(value)

    def compute(self, function, calls):
        found = {}
        for number in reversed(range(len(calls))):
            arguments = [a.copy if isinstance(a, Placed) else copied(a) for a in calls[number]]
            try:
                found[number] = function(*arguments)
                self.messages.append(found[number])
            except RunFailedError as error:
                found[number] = error
        for number in range(len(calls)):
            if isinstance(found[number], RunFailedError):
                raise copied(found[number])
            yield copied(found[number])

    def count(self):
        return self.n_workers


class Placed:
    def __init__(self, value):
        self.copy = copied(value)


def copied(value):
    return pickle.loads(pickle.dumps(value))


def made(workers, *changes):
    scenario = load_scenario("quickstart", ["training.rounds=3", *changes])
    return prepare_trainer(scenario, workers)


LOCAL = "privacy.view=local"
UPDATE = (LOCAL, "privacy.placement=update", "privacy.unit=client")
CASES = {
    "central view": (),
    "dp-sgd in batches": (LOCAL, "privacy.placement=dp-sgd", "training.batch_size=4"),
    "update": (*UPDATE, "training.momentum=0.9"),
    "sampled": (LOCAL, "privacy.placement={kind='dp-sgd', sampling_rate=0.4}"),
    "noise of the sum": ("privacy.noise_of=sum",),
    "some take part": (LOCAL, "training.participation=0.3", "training.straggling=0.2"),
    "the norm adapts": ("privacy.adaptive_clipping={quantile=0.6}",),
    "bf16": ("training.precision=bf16",),
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_other_workers_give_the_same_net_and_the_same_ledger(changes):
    epsilon = np.where(np.arange(50) % 7 == 3, 0.0, np.linspace(1.0, 9.0, 50))
    here, there = (train(made(workers, *changes), epsilon) for workers in (2, Elsewhere()))
    assert torch.equal(here._flat, there._flat)
    assert not torch.equal(here._flat, here._setup.first_parameters)
    assert here.results == there.results
    assert here.clipping_norms == there.clipping_norms
    assert_array_equal(here.ledger.epsilon(1e-5), there.ledger.epsilon(1e-5))


class Counting(Elsewhere):
    """Notes how many threads have asked for work."""

    def __init__(self):
        super().__init__()
        self.threads = set()

    def compute(self, function, calls):
        self.threads.add(threading.get_ident())
        return super().compute(function, calls)


@pytest.mark.slow
def test_trainings_side_by_side_have_the_bytes_of_one_after_another(tmp_path, monkeypatch):
    monkeypatch.setattr(Distributed, "shares", True)
    names = ["no-noise", "random", "static"]
    scenario = load_scenario("quickstart", ["training.rounds=3", f"training.compare={names}"])
    workers = Counting()
    fa.run_scenario(scenario, tmp_path / "here")
    fa.run_scenario(scenario, tmp_path / "there", workers=workers)
    assert len(workers.threads) == 1 + len(names)
    for table in ("training", "nodes", "ledger"):
        here, there = ((tmp_path / at / f"{table}.parquet") for at in ("here", "there"))
        assert here.read_bytes() == there.read_bytes()


@pytest.mark.slow
def test_epsilons_of_a_calibration_train_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(Distributed, "shares", True)
    scenario = load_scenario("quickstart", ["training.rounds=2"])
    grid, workers = [0.5, 2.0, 8.0], Counting()
    fa.calibrate_value(scenario, grid, 2, tmp_path / "here")
    fa.calibrate_value(scenario, grid, 2, tmp_path / "there", workers=workers)
    assert len(workers.threads) >= len(grid)
    here, there = ((tmp_path / at / "calibration.parquet") for at in ("here", "there"))
    assert here.read_bytes() == there.read_bytes()


@pytest.mark.slow
def test_nodes_that_lie_are_flagged_by_the_same_check():
    changes = *UPDATE, "privacy.check={false_alarm=0.01}"
    epsilon, misreport = np.full(50, 0.5), np.where(np.arange(50) % 5 == 0, 50.0, 1.0)
    trainings = [
        train(made(workers, *changes), epsilon, misreport=misreport) for workers in (1, Elsewhere())
    ]
    here, there = trainings
    assert set(np.flatnonzero(here.flagged_round)) >= set(range(0, 50, 5))
    assert_array_equal(here.flagged_round, there.flagged_round)
    assert torch.equal(here._flat, there._flat)


@pytest.mark.slow
def test_a_block_sends_its_sum_and_no_update_of_a_node():
    workers = Elsewhere(3)
    trainer = made(workers)
    train(trainer, np.full(50, 5.0))
    sums = [found for found in workers.messages if len(found) == 5]  # evaluations have two numbers
    assert len(sums) == 3 * 13  # blocks of four nodes, in three rounds
    vector = 4 * trainer.n_parameters
    facts = trainer.engine.facts()["cluster"]
    assert facts["n_workers"] == [3, 3]
    assert facts["bytes_received_per_round"] == 13 * 2 * vector  # with noise, and without
    assert facts["bytes_sent_per_round"] == 3 * vector + 50 * 4 * 8


@pytest.mark.slow
def test_the_first_node_whose_update_is_not_finite_is_named():
    one = made(1)
    images = one.data.train_images.copy()
    for node in (6, 13):
        images[one.shards[node][0]] = np.nan
    data = replace(one.data, train_images=images)
    for workers in (1, Elsewhere()):
        trainer = FederatedTrainer(data, one.shards, one.plan, workers)
        with pytest.raises(RunFailedError, match="in round 1: the update of node 6 is not finite"):
            train(trainer, np.full(50, 5.0))


@pytest.mark.slow
@pytest.mark.parametrize("change", ["training.engine=stacked", "training.device=cuda"])
def test_a_cluster_trains_on_processors(change):
    with pytest.raises(InvalidDataError, match=r'a cluster requires training.engine = "serial"'):
        made(Elsewhere(), change)


@pytest.mark.slow
def test_a_graphics_processor_of_this_machine_is_not_used_for_a_cluster(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert made(Elsewhere()).engine.facts()["device"] == "cpu"


@given(st.integers(1, 3000), st.data())
def test_blocks_are_the_same_neighbours_whoever_takes_part(n_nodes, data):
    present = data.draw(st.sets(st.integers(0, n_nodes - 1)))
    nodes = np.array(sorted(present), dtype=np.int64)
    std, most = np.arange(n_nodes) + 0.5, np.arange(n_nodes) + 0.25
    steps = LocalSteps(1, 0.1, 0.0, Clipping(1.0))
    work = RoundWork(1, torch.zeros(3), steps, nodes, nodes + 1.0, std, most)
    blocks = list(split_into_blocks(work))
    assert [node for block in blocks for node in block.nodes] == nodes.tolist()
    size = count_block_nodes(n_nodes)
    assert size >= 4
    assert -(-n_nodes // size) <= 128
    for block in blocks:
        assert block.nodes.size
        assert set(block.nodes // size) == {block.index}
        assert_array_equal(block.weights, block.nodes + 1.0)
        assert_array_equal(block.noise_std, std[block.nodes])
        assert_array_equal(block.max_upload_norm, most[block.nodes])


def test_sums_of_blocks_are_the_weighted_sum_of_all():
    rng = np.random.default_rng(1)
    n_nodes, nodes = 23, np.array([0, 1, 5, 6, 7, 8, 11, 22])
    values = torch.from_numpy(rng.standard_normal((n_nodes, 50)))
    steps = LocalSteps(1, 0.1, 0.0, Clipping(1.0))
    weights = rng.random(nodes.size)
    most = np.full(n_nodes, np.inf)
    most[6] = 0.0  # flagged
    work = RoundWork(1, torch.zeros(50).double(), steps, nodes, weights, None, most)
    sums = Sums.zeros(work.flat, has_noise=False)
    uploads = iter([Upload(values[node], values[node], 0.25) for node in nodes])
    for block in split_into_blocks(work):
        sums.merge(block.add_up(uploads, work.flat, 1))
    passed = nodes != 6
    expected = (values[nodes[passed]] * torch.from_numpy(weights[passed])[:, None]).sum(0)
    torch.testing.assert_close(sums.update, expected)
    assert sums.clean is sums.update
    assert sums.flagged == [6]
    assert sums.passed == pytest.approx(weights[passed].sum())
    assert sums.within == pytest.approx(0.25 * weights[passed].sum())
