"""Faults of the privacy of a training, to be planted one at a time, with what each one breaks."""

from contextlib import contextmanager
from unittest import mock

import torch

import fcfn_abm.dp.noise
from fcfn_abm.dp import Clipping, Ledger
from fcfn_abm.dp.sensitivity import l2_norms
from fcfn_abm.training.gradients import Blocks, Matrix
from fcfn_abm.training.local_steps import LocalSteps
from fcfn_abm.training.privacy import PrivacyAccounts

draw, spend = fcfn_abm.dp.noise.node_noise, PrivacyAccounts.spend
sensitivity, std_of_sum = Clipping.sensitivity, PrivacyAccounts.compute_std_of_sum


def repeat_half(size, std, *where):
    half = -(-size // 2)
    return draw(half, std, *where).repeat(2)[:size]


def leave_first_layer_out(size, std, *where):
    noise = draw(size, std, *where)
    noise[:72] = 0  # the weights of the first convolution of the digits' net
    return noise


def pair_two(size, std, *where):
    noise = draw(size, std, *where)
    noise[1000] = noise[3]
    return noise


def norms_without_biases(self):
    return l2_norms(torch.cat([block.norms() for block in self.blocks[::2]], dim=1))


def weighted_without_biases(self, factors):
    parts = [
        block.sum_weighted(torch.ones_like(factors) if isinstance(block, Matrix) else factors)
        for block in self.blocks
    ]
    return torch.cat(parts, dim=-1)


class _Boosting:
    """A ledger that believes late nodes hidden three times as well as they are."""

    def __init__(self, ledger, late):
        self.ledger, self.late = ledger, set(late.tolist())

    def spend(self, nodes, multipliers, n_releases, central):
        boost = [3.0 if node in self.late else 1.0 for node in nodes.tolist()]
        Ledger.spend(self.ledger, nodes, multipliers, n_releases, central * boost)


def boost_late(self, ledger, nodes, weights, late, *rest):
    spend(self, _Boosting(ledger, late), nodes, weights, late, *rest)


def noise_of(function):
    return [(fcfn_abm.dp.noise, "node_noise", function)]


FAULTS = {  # by name: what to patch, and with what
    "half the noise": noise_of(lambda n, std, *where: draw(n, std / 2, *where)),
    "noise that repeats after 64 rounds": noise_of(
        lambda n, std, seed, r, node: draw(n, std, seed, r % 64, node)
    ),
    "noise that repeats after 32 nodes": noise_of(
        lambda n, std, seed, r, node: draw(n, std, seed, r, node % 32)
    ),
    "the second half of a release repeats the first": noise_of(repeat_half),
    "no noise on one layer": noise_of(leave_first_layer_out),
    "two coordinates share their noise": noise_of(pair_two),
    "local steps share their noise": noise_of(
        lambda n, std, *where: draw(n // 2, std, *where).repeat(2)
    ),
    "norms leave biases out": [(Blocks, "norms", norms_without_biases)],
    "biases escape the clip": [(Blocks, "sum_weighted", weighted_without_biases)],
    "updates of nodes are not clipped": [(LocalSteps, "clip_in_place", lambda _, values: values)],
    "the sensitivity of another relation": [
        (
            Clipping,
            "sensitivity",
            lambda self, unit, _, share=1.0: sensitivity(self, unit, "zero-out", share),
        )
    ],
    "late nodes' central multiplier times three": [(PrivacyAccounts, "spend", boost_late)],
    "the noise of the sum weighs nodes twice": [
        (
            PrivacyAccounts,
            "compute_std_of_sum",
            lambda self, nodes, weights, std: std_of_sum(self, nodes, weights**2, std),
        )
    ],
}


@contextmanager
def planted(name):
    """Plant a fault; it is gone after the block."""
    patches = [mock.patch.object(*patch) for patch in FAULTS[name]]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()
