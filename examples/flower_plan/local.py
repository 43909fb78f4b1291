"""A node's data, net and noisy step under the plan. Needs torch only, not fcfn_abm."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy


@cache
def read_plan(path: str) -> dict[str, Any]:
    """Read the output of `fcfn export-plan`; reject plans that this example does not support."""
    with open(path, encoding="utf-8") as file:
        whole = json.load(file)
    plan = whole["plan"]
    known = {"placement": "dp-sgd", "sampling_rate": 1.0, "batch_size": None, "momentum": 0.0}
    for key, value in known.items():
        if plan[key] != value:
            raise SystemExit(
                f"{path}: this example supports only {key} = {value}, not {plan[key]}."
            )
    return whole


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's handwritten digits, shuffled: images (n, 1, 8, 8) and labels."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = torch.tensor(bunch.images[order, None] / 16.0, dtype=torch.float32)
    return images, torch.tensor(bunch.target[order])


def shard(whole: dict[str, Any], place: int) -> tuple[Tensor, Tensor]:
    """Return a node's data, with the number of samples for which its sigma holds."""
    sizes = [node["n_samples"] for node in whole["nodes"]]
    start = sum(sizes[:place])
    images, labels = digits()
    return images[start : start + sizes[place]], labels[start : start + sizes[place]]


def test_set(whole: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the samples that no node has."""
    used = sum(node["n_samples"] for node in whole["nodes"])
    images, labels = digits()
    return images[used:], labels[used:]


def build_net() -> nn.Module:
    """Return the net, the same for all nodes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )


def private_gradients(
    net: nn.Module, images: Tensor, labels: Tensor, clipping_norm: float, sigma: float, seed: int
) -> dict[str, Tensor]:
    """Return the mean of the samples' gradients, each clipped, with noise: one release."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(functional_call(net, parameters, (image[None],)), label[None])

    rows = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, images, labels)
    norms = torch.stack([row.flatten(1).norm(dim=1) for row in rows.values()]).norm(dim=0)
    factors = (clipping_norm / norms.clamp(min=1e-12)).clamp(max=1.0)
    chance = torch.Generator().manual_seed(seed)
    return {
        name: torch.tensordot(factors, row, dims=1) / len(labels)
        + sigma * torch.randn(row.shape[1:], generator=chance)
        for name, row in rows.items()
    }


def train(net: nn.Module, whole: dict[str, Any], place: int, server_round: int) -> None:
    """Train the net on one node's data for a round, as the plan says."""
    plan, node = whole["plan"], whole["nodes"][place]
    images, labels = shard(whole, place)
    for step in range(plan["local_epochs"]):
        # research output: a real release needs noise from a secure generator
        chance = np.random.SeedSequence([whole["seed"], server_round, node["node"], step])
        seed = int(chance.generate_state(1)[0])
        found = private_gradients(net, images, labels, plan["clipping_norm"], node["sigma"], seed)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter -= plan["learning_rate"] * found[name]


def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of correctly classified images."""
    with torch.no_grad():
        return float((net(images).argmax(1) == labels).float().mean())
