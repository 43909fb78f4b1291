"""Plain PyTorch loops that train one net on all data: the speed limit, and common practice.

Variants: "tuned" (data in memory, channels last, fused optimiser); "ordinary" (a DataLoader and
torch's defaults).
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from work import LEARNING_RATE, MOMENTUM, Turns, Work, create_timed_cnn


def main() -> None:
    """Run one epoch over the samples of all nodes on request."""
    work = Work.from_command_line()
    turns = Turns()
    # labels are random: the net degenerates, and velocities that decay to denormals are slow
    torch.set_flush_denormal(True)
    tuned = work.variant == "tuned"
    shards = work.shards(channels_last=tuned)
    net = create_timed_cnn(channels_last=tuned)
    optimizer = torch.optim.SGD(
        net.parameters(), LEARNING_RATE, momentum=MOMENTUM, **({"fused": True} if tuned else {})
    )
    batches: object
    if tuned:
        batches = [
            batch
            for images, labels in shards
            for batch in zip(images.split(work.batch), labels.split(work.batch), strict=True)
        ]
    else:
        images, labels = (torch.cat(parts) for parts in zip(*shards, strict=True))
        batches = DataLoader(TensorDataset(images, labels), work.batch, shuffle=True)
    for _ in turns:
        for _ in range(work.epochs):
            for images, labels in batches:
                optimizer.zero_grad()
                cross_entropy(net(images), labels).backward()
                optimizer.step()


if __name__ == "__main__":
    main()
