"""The two engines agree; and what only a CUDA device can run is ready for it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from whole_training import train

from fcfn_abm.build import load_scenario, prepare_trainer
from fcfn_abm.dp import Clipping
from fcfn_abm.errors import InvalidDataError, RunFailedError
from fcfn_abm.rng import stream
from fcfn_abm.runs.run import run_scenario
from fcfn_abm.training import (
    AGGREGATIONS,
    DATASETS,
    NETS,
    PLACEMENTS,
    FederatedTrainer,
    TrainingPlan,
    stacked,
)
from fcfn_abm.training.convolve import CONVOLUTIONS, StackedGradients
from fcfn_abm.training.engines import select_engine
from fcfn_abm.training.gradients import flatten_parameter
from fcfn_abm.training.graphs import Graphs, _Captured
from fcfn_abm.training.local_steps import LocalSteps
from fcfn_abm.training.placements import Placement
from fcfn_abm.training.sums import RoundWork

pytestmark = pytest.mark.slow

DATA = DATASETS.create("digits").load(stream(1, "data", 0))
SIZES = [20, 33, 150, 21, 64, 3, 40, 65]
EPSILON = np.array([8.0, 3.0, 30.0, 8.0, 0.0, 2.0, 8.0, 5.0])
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def trainer(
    engine="stacked",
    *,
    device="cpu",
    placement="dp-sgd",
    batch_size=None,
    momentum=0.0,
    sampling_rate=None,
    noise_of="nodes",
    false_alarm=None,
    epochs=2,
    rounds=2,
    learning_rate=0.05,
    clipping_norm=0.3,
    sizes=SIZES,
    data=DATA,
    workers=1,
):
    plan = TrainingPlan(
        net=NETS.create("digits-cnn"),
        placement=PLACEMENTS.create(
            placement, {} if sampling_rate is None else {"sampling_rate": sampling_rate}
        ),
        aggregation=AGGREGATIONS.create("data-size"),
        rounds=rounds,
        steps=LocalSteps(epochs, learning_rate, momentum, Clipping(clipping_norm), batch_size),
        delta=1e-5,
        calibration="analytic",
        horizon="round",
        neighbours="replace-one",
        seed=3,
        noise_of=noise_of,
        false_alarm=false_alarm,
    )
    ends = np.cumsum([0, *sizes])
    shards = [np.arange(start, end) for start, end in pairwise(ends)]
    return FederatedTrainer(data, shards, plan, workers, engine, device)


def moved(training):
    return training._flat.cpu() - training._setup.first_parameters


def assert_same(one, other, bound=1e-5):
    difference = float((moved(one) - moved(other)).norm() / moved(one).norm())
    assert difference < bound
    assert_array_equal(one.flagged_round, other.flagged_round)
    for a, b in zip(one.results, other.results, strict=True):
        assert_allclose(
            (a.loss, a.signal_to_noise), (b.loss, b.signal_to_noise), rtol=2e-5, atol=1e-6
        )
        assert abs(a.accuracy - b.accuracy) <= 1 / len(DATA.test_labels)  # a tie may fall over
        assert (a.round, a.n_nodes) == (b.round, b.n_nodes)
    assert (one.ledger is None) == (other.ledger is None)
    if one.ledger:
        assert_array_equal(one.ledger.epsilon(1e-5), other.ledger.epsilon(1e-5))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("noise_of", ["nodes", "sum"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batch_size", [None, 32])
@pytest.mark.parametrize("placement", ["dp-sgd", "update", "paper"])
def test_engines_agree(placement, batch_size, momentum, noise_of, device):
    options = {
        "placement": placement,
        "batch_size": batch_size,
        "momentum": momentum,
        "noise_of": noise_of,
    }
    if placement == "dp-sgd" and noise_of == "sum":  # which takes one step a round
        options |= {"batch_size": None, "epochs": 1}
    made = trainer("serial", **options), trainer("stacked", device=device, **options)
    trained = [train(one, EPSILON) for one in made]
    assert_same(*trained)
    assert trained[0].results[1].n_nodes == 7
    if device == "cuda":
        facts = made[1].engine.facts()
        assert isinstance(facts["cuda_graphs"], int), facts["cuda_graphs"]
        assert facts["cuda_graphs"] > 0


@pytest.mark.parametrize("engine", ["serial", "stacked"])
def test_what_a_placement_overrides_is_used_by_both_engines(engine, monkeypatch):
    placement, called = type(trainer().plan.placement), set()

    def spy_on(name):
        method = getattr(placement, name)

        def spy(*args, **options):
            called.add(name)
            return method(*args, **options)

        monkeypatch.setattr(placement, name, spy)

    methods = {
        name
        for name, value in vars(Placement).items()
        if callable(value) and not name.startswith("_")
    }
    for name in methods:
        spy_on(name)
    train(trainer(engine, rounds=1), EPSILON)
    assert called == methods == {"releases", "draw_batches", "train"}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sampling_rate", [0.02, 0.4])  # with the smaller one some draw nothing
def test_engines_agree_on_sampled_records(sampling_rate, device):
    options = {"sampling_rate": sampling_rate, "momentum": 0.9, "epochs": 3}
    made = trainer("serial", **options), trainer("stacked", device=device, **options)
    assert_same(*(train(one, EPSILON) for one in made))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("placement", ["dp-sgd", "update", "paper"])
def test_engines_flag_the_same_nodes_and_leave_their_uploads_out(placement, device):
    factors = np.where(np.arange(len(SIZES)) % 3 == 1, 30.0, 1.0)
    made = [
        trainer(engine, device=where, placement=placement, false_alarm=1e-6, rounds=3)
        for engine, where in (("serial", "cpu"), ("stacked", device))
    ]
    trained = [train(one, np.full(len(SIZES), 5.0), misreport=factors) for one in made]
    assert_same(*trained)
    assert set(np.flatnonzero(trained[1].flagged_round)) == {1, 4, 7}


def test_engines_agree_on_a_whole_training_without_noise():
    made = [
        trainer(engine, placement="update", rounds=25, learning_rate=0.3, clipping_norm=1.0)
        for engine in ("serial", "stacked")
    ]
    trained = [train(one, EPSILON, private=False) for one in made]
    assert trained[1].results[-1].accuracy > 0.6  # it learns
    assert_same(*trained, bound=1e-4)


def test_it_does_not_matter_how_many_nodes_fit_into_memory_nor_how_many_threads_draw(monkeypatch):
    wide = trainer(batch_size=32)
    monkeypatch.setattr(stacked, "_CPU_BYTES", 1)  # one at a time
    narrow = trainer(batch_size=32)
    assert max(one.group_size for one in wide.engine._classes) > 1
    assert {one.group_size for one in narrow.engine._classes} == {1}
    monkeypatch.undo()
    threads = trainer(batch_size=32, workers=3)
    wide, narrow, threads = (train(one, EPSILON) for one in (wide, narrow, threads))
    assert_same(wide, narrow)
    assert torch.equal(wide._flat, threads._flat)


def test_classes_hold_every_node_once_and_fill_up_little():
    sizes = np.random.default_rng(1).integers(20, 101, 14).tolist()
    made = trainer(sizes=sizes, batch_size=32)
    classes = made.engine._classes
    assert_array_equal(np.sort(np.concatenate([one.nodes for one in classes])), np.arange(14))
    for one in classes:
        own = np.array(sizes)[one.nodes]
        assert own.max() <= 1.25 * own.min()
        assert len({made.plan.steps.count_steps(int(size)) for size in own}) == 1
        assert sum(one.widths) == made.plan.steps.epochs * own.max()


def test_a_stacked_training_continues_where_it_was():
    whole = trainer(rounds=3).begin()
    whole.step(EPSILON)
    state = whole.state()
    while not whole.over:
        whole.step(EPSILON)
    again = train(trainer(rounds=3), EPSILON, resume=state)
    assert torch.equal(again._flat, whole._flat)
    assert again.results == whole.results


def test_rows_of_nobody_change_nothing(monkeypatch):
    """On a device groups are filled up to a power of two; here a processor does it."""
    plain = train(trainer(batch_size=32, momentum=0.5), EPSILON)
    groups = stacked.Stacked._split_into_groups

    def filled(self, nodes):
        return (replace(group, n_rows=group.nodes.size + 3) for group in groups(self, nodes))

    monkeypatch.setattr(stacked.Stacked, "_split_into_groups", filled)
    more = train(trainer(batch_size=32, momentum=0.5), EPSILON)
    assert_same(plain, more)


def test_a_training_that_breaks_down_names_round_and_node():
    images = DATA.train_images.copy()
    images[sum(SIZES[:3]) + 1] = np.nan
    images[sum(SIZES[:6]) + 1] = np.nan
    made = trainer(data=replace(DATA, train_images=images))
    with pytest.raises(RunFailedError, match="in round 1: the update of node 3 is not finite"):
        train(made, np.full(len(SIZES), 5.0))


def nets():
    """A net with convolutions of unusual shape, and three nodes' images and parameters."""
    torch.manual_seed(1)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(1, 0)),
        torch.nn.Tanh(),
        torch.nn.Conv2d(3, 4, (3, 2), dilation=(1, 2), padding=1),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 5 * 6, 5),
    )
    images, labels = torch.randn(3, 4, 2, 9, 8), torch.randint(0, 5, (3, 4))
    labels[1, 2:] = -100
    n_parameters = sum(parameter.numel() for parameter in net.parameters())
    return net, 0.3 * torch.randn(3, n_parameters), images, labels


def by_autograd(net, flat, image, label):
    """The gradient of one sample's loss at a flat vector, with plain autograd."""
    start = 0
    for parameter in net.parameters():  # a flat vector has channels last
        part = flat[start : start + parameter.numel()]
        start += parameter.numel()
        shape = parameter.shape
        if parameter.dim() == 4:
            part = part.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
        parameter.data = part.reshape(shape).clone()
    loss = torch.nn.functional.cross_entropy(net(image[None]), label[None])
    parts = torch.autograd.grad(loss, list(net.parameters()))
    return torch.cat([flatten_parameter(part) for part in parts])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("formulation", CONVOLUTIONS)
def test_every_formulation_has_the_gradients_of_autograd(formulation, shared):
    net, flat, images, labels = nets()
    at = flat[:1].expand(3, -1) if shared else flat
    each = torch.stack(
        [
            torch.stack(
                [
                    by_autograd(net, at[node], images[node, m], labels[node, m])
                    if labels[node, m] >= 0
                    else torch.zeros(flat.shape[1])
                    for m in range(4)
                ]
            )
            for node in range(3)
        ]
    )
    made = StackedGradients(net, Graphs(), formulation)
    given = (flat[0] if shared else flat), images, labels
    n_samples = torch.tensor([4, 2, 4])[:, None]
    assert_allclose(made.mean(*given), each.sum(1) / n_samples, atol=2e-6)
    found = made.per_sample(*given)
    assert_allclose(found.rows(), each, atol=2e-6)
    assert_allclose(found.norms()[..., 0], each.norm(dim=2), rtol=1e-5, atol=1e-9)
    factors = torch.rand(3, 4, 1)
    assert_allclose(found.sum_weighted(factors), (factors * each).sum(1), atol=5e-6)


@pytest.mark.parametrize("formulation", CONVOLUTIONS)
def test_what_is_captured_asks_for_no_value(formulation):
    """Tensors of the device "meta" have shapes and no values: who asks for one is told off."""
    net, *given = nets()
    made = StackedGradients(net.to("meta"), Graphs(), formulation)
    flat, images, labels = (tensor.to("meta") for tensor in given)
    steps = LocalSteps(1, 0.1, 0.0, Clipping(1.0))
    for at in (flat, flat[0]):
        assert made.mean(at, images, labels).shape == flat.shape
        assert made.reduce_samples(at, images, labels, steps.sum_clipped).shape == flat.shape
    with pytest.raises(RuntimeError):
        bool(flat.sum() > 0)


@pytest.mark.parametrize(
    "options",
    [
        {"placement": "update", "batch_size": 32, "momentum": 0.9},
        {"placement": "paper", "momentum": 0.9},
        {"placement": "dp-sgd", "batch_size": 32},
        {"sampling_rate": 0.4},
    ],
    ids=str,
)
def test_a_round_of_a_group_asks_the_device_for_nothing(options):
    one = trainer("serial", **options)
    sizes = one.n_samples
    samples = stacked.NodeSamples(one._images, one._labels, one.shards, sizes)
    tests = one.engine._test_images, one.engine._test_labels
    net = one.gradients[0].net
    engine = stacked.Stacked(one.plan, net, samples, one.releases, *tests, one.draws, "meta")
    work = RoundWork(
        round_index=1,
        flat=one.first_parameters.to("meta"),
        steps=one.plan.steps,
        nodes=np.arange(len(SIZES)),
        weights=np.ones(len(SIZES)),
        noise_std=None,
        max_upload_norm=np.full(len(SIZES), np.inf),
    )
    for group in engine._split_into_groups(work.nodes):
        for std in (None, np.ones(len(SIZES))):
            sent = engine._train_group(replace(work, noise_std=std), group)
            assert sent.values.shape == sent.clean.shape == (group.nodes.size, one.n_parameters)
            assert sent.values.device.type == sent.clean.device.type == "meta"
    # it is the end of a round that asks, once
    with pytest.raises(NotImplementedError, match="meta tensor"):
        engine.train_round(work)


class OnDevice:
    """What a graph needs to see of a tensor, with a value that copies can change."""

    is_cuda = True

    def __init__(self, value, shape=(2,)):
        self.value, self.shape = value, shape

    def clone(self):
        return OnDevice(self.value, self.shape)

    def copy_(self, other):
        self.value = other.value


class Replay:
    def __init__(self, function, inputs, output):
        self.function, self.inputs, self.output = function, inputs, output

    def replay(self):
        self.output.value = self.function(*self.inputs).value


def test_each_function_and_shape_is_captured_once_and_replayed_on_new_values(monkeypatch):
    graphs, captured = Graphs(), []

    def capture(function, given):
        captured.append(given[0].shape)
        inputs, output = tuple(tensor.clone() for tensor in given), OnDevice(None)
        return _Captured(Replay(function, inputs, output), inputs, output)

    monkeypatch.setattr(graphs, "_capture", capture)

    def double(tensor):
        return OnDevice(2 * tensor.value)

    first = graphs.run("double", double, OnDevice(3))
    second = graphs.run("double", double, OnDevice(5))
    assert (first.value, second.value) == (6, 10)  # the first one is a copy
    graphs.run("double", double, OnDevice(5, shape=(3,)))
    graphs.run("other", double, OnDevice(5))
    assert captured == [(2,), (3,), (2,)]
    assert len(graphs) == 3


def test_where_a_capture_fails_functions_are_called_and_the_record_can_say_why(monkeypatch):
    graphs, tries = Graphs(), []

    def capture(*_):
        tries.append(1)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graphs, "_capture", capture)
    for value in (3, 5):
        assert graphs.run("same", lambda tensor: tensor, OnDevice(value)).value == value
    assert tries == [1]
    assert graphs.failure == "operation not permitted when stream is capturing"


@pytest.mark.parametrize(
    ("engine", "device", "has_cuda", "expected"),
    [
        ("auto", "auto", False, ("serial", "cpu")),
        ("auto", "auto", True, ("stacked", "cuda")),
        ("auto", "cpu", True, ("serial", "cpu")),
        ("auto", "cuda", True, ("stacked", "cuda")),
        ("serial", "auto", True, ("serial", "cpu")),
        ("stacked", "auto", False, ("stacked", "cpu")),
        ("stacked", "auto", True, ("stacked", "cuda")),
        ("stacked", "cpu", True, ("stacked", "cpu")),
    ],
)
def test_engine_and_device_are_chosen(engine, device, has_cuda, expected, monkeypatch):
    plan = trainer("serial").plan
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert select_engine(engine, device, plan) == expected


@pytest.mark.parametrize("special", [{"secure_noise": True}, {"precision": "bf16"}])
def test_secure_noise_and_half_precision_go_to_the_serial_engine(special, monkeypatch):
    plan = replace(trainer("serial").plan, **special)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert select_engine("auto", "auto", plan) == ("serial", "cpu")
    for asked in (("stacked", "auto"), ("stacked", "cpu"), ("auto", "cuda")):
        with pytest.raises(InvalidDataError, match=f"{next(iter(special))} = .* serial engine"):
            select_engine(*asked, plan)


def test_what_does_not_go_together_is_refused(monkeypatch):
    plan = trainer("serial").plan
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InvalidDataError, match='"serial" runs only on the CPU'):
        select_engine("serial", "cuda", plan)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidDataError, match="torch finds no CUDA device"):
        select_engine("auto", "cuda", plan)


def quick(*settings):
    return load_scenario(
        "scenarios/quickstart.toml",
        ["training.rounds=2", "training.compare=[]", "population.n_nodes=12", *settings],
    )


def test_a_scenario_names_engine_and_device_and_its_record_says_what_they_were():
    facts = run_scenario(quick('training.engine="stacked"', 'training.device="cpu"')).run
    assert facts["training"]["engine"] == "stacked"
    assert facts["training"]["device"] == "cpu"
    assert facts["training"]["formulation"] in CONVOLUTIONS
    facts = run_scenario(quick('training.device="cpu"')).run
    assert facts["training"]["engine"] == "serial"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_before_the_market_is_played():
    with pytest.raises(InvalidDataError, match="no CUDA device"):
        prepare_trainer(quick('training.device="cuda"'))
