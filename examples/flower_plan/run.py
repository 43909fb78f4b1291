"""Train a plan in Flower's simulation: Flower's FedAvg with the plan's noise.

Usage: ``python run.py plan.json [rounds]``; the plan comes from ``fcfn export-plan``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}

from client import client
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from local import accuracy, build_net, read_plan, test_set


def main() -> None:
    """Run the rounds of the plan, or fewer."""
    path = str(Path(sys.argv[1]).resolve())
    whole = read_plan(path)
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else whole["plan"]["rounds"]
    if rounds > whole["plan"]["rounds"]:
        raise SystemExit(f"The plan's noise covers at most {whole['plan']['rounds']} rounds.")
    server = ServerApp()

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        net = build_net()
        net.load_state_dict(arrays.to_torch_state_dict())
        share = accuracy(net, *test_set(whole))
        print(f"round {server_round}: accuracy {share:.3f}", flush=True)
        return MetricRecord({"accuracy": share})

    @server.main()
    def serve(grid: Grid, context: Context) -> None:  # noqa: ARG001
        FedAvg(fraction_evaluate=0.0, weighted_by_key="precision").start(
            grid=grid,
            initial_arrays=ArrayRecord(build_net().state_dict()),
            num_rounds=rounds,
            train_config=ConfigRecord({"plan": path}),
            evaluate_fn=evaluate,
        )

    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=len(whole["nodes"]),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


if __name__ == "__main__":
    main()
