"""Federated averaging in Flower's simulation; needs a Python with flwr.

Variants: "" (torch's default memory layout) and "channels_last".
"""

from __future__ import annotations

import os

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}

from dataclasses import asdict

from flower_client import client
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from work import Turns, Work, create_timed_cnn


def main() -> None:
    """Run a round of federated averaging on request."""
    work = Work.from_command_line()
    turns = Turns()
    server = ServerApp()
    latest: list[ArrayRecord] = []

    def after_round(server_round: int, arrays: ArrayRecord) -> None:
        if latest and latest.pop() is arrays:  # Flower continues if all nodes have failed
            raise RuntimeError(f"round {server_round} has no result; see Flower's log above.")
        latest.append(arrays)
        turns()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:  # noqa: ARG001
        FedAvg(fraction_evaluate=0.0).start(
            grid=grid,
            initial_arrays=ArrayRecord(create_timed_cnn().state_dict()),
            num_rounds=work.rounds,
            train_config=ConfigRecord(asdict(work)),
            evaluate_fn=after_round,
        )

    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=work.nodes,
        backend_config={  # one worker, which uses one core
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": 1, "num_gpus": 0},
        },
    )


if __name__ == "__main__":
    main()
