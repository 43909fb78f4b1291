"""The Flower example: its noise is the plan's, and Flower averages what nodes send."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

EXAMPLE = Path("examples/flower_plan").resolve()
FLOWER = os.environ.get("FCFN_FLOWER_PYTHON") or (sys.executable if find_spec("flwr") else None)


@pytest.fixture
def local(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import local

    return local


@pytest.fixture
def plan(tmp_path):
    """Three nodes, as `fcfn export-plan` would write them."""
    common = {
        "rounds": 2,
        "placement": "dp-sgd",
        "sampling_rate": 1.0,
        "batch_size": None,
        "momentum": 0.0,
        "clipping_norm": 0.5,
        "local_epochs": 1,
        "learning_rate": 2.0,
    }
    nodes = [
        {"node": node, "sigma": sigma, "n_samples": 20}
        for node, sigma in ((0, 0.01), (3, 0.02), (8, 0.05))
    ]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"seed": 7, "plan": common, "nodes": nodes}))
    return path


def gradients(local, sigma, seed=0, clipping_norm=0.5):
    images, labels = local.digits()
    net = local.build_net()
    found = local.private_gradients(net, images[:8], labels[:8], clipping_norm, sigma, seed)
    return torch.cat([row.flatten() for row in found.values()])


def test_without_noise_it_is_the_mean_of_gradients_clipped_one_by_one(local):
    images, labels = local.digits()
    net, total = local.build_net(), 0.0
    for image, label in zip(images[:8], labels[:8], strict=True):
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(image[None]), label[None]).backward()
        row = torch.cat([p.grad.flatten() for p in net.parameters()])
        assert row.norm() > 0.5
        total = total + row * min(1.0, 0.5 / row.norm())
    torch.testing.assert_close(gradients(local, 0.0), total / 8, atol=1e-6, rtol=1e-5)


def test_the_noise_has_the_sigma_of_the_plan_and_is_fresh_for_each_seed(local):
    clean = gradients(local, 0.0)
    noise = torch.stack([gradients(local, 0.3, seed) - clean for seed in range(20)])
    n = noise.numel()  # the standard deviation of a sample's is sigma / sqrt(2 n)
    assert abs(noise.std() / 0.3 - 1) < 4 / (2 * n) ** 0.5
    assert abs(torch.corrcoef(noise)[0, 1]) < 4 / noise.shape[1] ** 0.5


def test_nodes_hold_what_no_other_holds(local, plan):
    whole = local.read_plan(str(plan))
    images = [local.shard(whole, place)[0] for place in range(3)]
    pool = torch.cat([*images, local.test_set(whole)[0]])
    assert torch.equal(pool, local.digits()[0])
    assert [len(part) for part in images] == [20, 20, 20]


def test_a_plan_for_another_way_to_train_is_refused(local, plan):
    plan.write_text(plan.read_text().replace("dp-sgd", "update"))
    with pytest.raises(SystemExit, match="supports only placement = dp-sgd, not update"):
        local.read_plan(str(plan))


@pytest.mark.skipif(FLOWER is None, reason="flwr is not installed: examples/flower_plan/README.md")
def test_flower_averages_by_precision_what_the_nodes_send(local, plan):
    done = subprocess.run(
        [FLOWER, EXAMPLE / "run.py", plan],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    printed = [
        float(x) for x in re.findall(r"^round \d+: accuracy (.*)$", done.stdout, re.MULTILINE)
    ]

    whole, net = local.read_plan(str(plan)), local.build_net()
    expected = [local.accuracy(net, *local.test_set(whole))]
    weights = torch.tensor([node["sigma"] ** -2 for node in whole["nodes"]])
    for server_round in (1, 2):
        sent = []
        for place in range(3):
            node = local.build_net()
            node.load_state_dict(net.state_dict())
            local.train(node, whole, place, server_round)
            sent.append(node.state_dict())
        mean = {
            name: sum(w * state[name] for w, state in zip(weights, sent, strict=True))
            / sum(weights)
            for name in sent[0]
        }
        net.load_state_dict(mean)
        expected.append(local.accuracy(net, *local.test_set(whole)))
    assert printed == pytest.approx(expected, abs=2e-3)  # a digit or two of rounding
