"""A node in Flower's simulation; in a separate module, which worker processes can import.

Flower leaves local training to its user; here it is as fast as possible: data in the worker's
memory, the net reused between nodes, and a fused optimiser.
"""

from __future__ import annotations

import functools
from dataclasses import fields

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.nn.functional import cross_entropy
from work import LEARNING_RATE, MOMENTUM, Work, create_timed_cnn

client = ClientApp()


@functools.cache
def create_once(work: Work) -> tuple[torch.nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Return the net and the data of this worker process, created once."""
    torch.set_num_threads(1)
    channels_last = work.variant == "channels_last"
    return create_timed_cnn(channels_last), work.shards(channels_last)


@client.train()
def train(message: Message, context: Context) -> Message:
    """Train one node."""
    config = message.content["config"]
    work = Work(**{field.name: config[field.name] for field in fields(Work)})
    net, shards = create_once(work)
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    images, labels = shards[int(context.node_config["partition-id"])]
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, momentum=MOMENTUM, fused=True)
    for _ in range(work.epochs):
        for batch in zip(images.split(work.batch), labels.split(work.batch), strict=True):
            optimizer.zero_grad()
            cross_entropy(net(batch[0]), batch[1]).backward()
            optimizer.step()
    content = RecordDict(
        {
            "arrays": ArrayRecord(net.state_dict()),
            "metrics": MetricRecord({"num-examples": len(labels)}),
        }
    )
    return Message(content=content, reply_to=message)
