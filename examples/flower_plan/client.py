"""A node as a Flower client app: in a separate module, which Flower's workers can import."""

from __future__ import annotations

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from local import build_net, read_plan, train

client = ClientApp()


@client.train()
def train_one(message: Message, context: Context) -> Message:
    """Train one node for a round."""
    torch.set_num_threads(1)
    config, place = message.content["config"], int(context.node_config["partition-id"])
    whole = read_plan(config["plan"])
    net = build_net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    train(net, whole, place, int(config["server-round"]))
    content = {
        "arrays": ArrayRecord(net.state_dict()),
        # less noise means more weight, as in the plan's run
        "metrics": MetricRecord({"precision": whole["nodes"][place]["sigma"] ** -2}),
    }
    return Message(content=RecordDict(content), reply_to=message)
