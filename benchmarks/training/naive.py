"""Federated averaging as in tutorials: a copy of the net and a DataLoader for each node."""

from __future__ import annotations

import copy

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from work import LEARNING_RATE, MOMENTUM, Turns, Work, create_timed_cnn


def main() -> None:
    """Run a round of federated averaging on request."""
    work = Work.from_command_line()
    turns = Turns()
    datasets = [TensorDataset(images, labels) for images, labels in work.shards()]
    server = create_timed_cnn()
    for _ in turns:
        states = []
        for dataset in datasets:
            net = copy.deepcopy(server)
            loader = DataLoader(dataset, work.batch, shuffle=True)
            optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, momentum=MOMENTUM)
            for _ in range(work.epochs):
                for images, labels in loader:
                    optimizer.zero_grad()
                    cross_entropy(net(images), labels).backward()
                    optimizer.step()
            states.append(net.state_dict())
        mean = {name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]}
        server.load_state_dict(mean)


if __name__ == "__main__":
    main()
