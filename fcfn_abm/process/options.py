"""The workers that a command line asks for."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fcfn_abm.errors import InvalidScenarioError, abbreviate
from fcfn_abm.process.cluster import TIMEOUT, Cluster
from fcfn_abm.process.workers import Processes, count_cores


def select_workers(
    n_workers: int | None = None,
    cluster: str | None = None,
    resources: Iterable[str] = (),
    timeout: float | None = None,
) -> Processes | Cluster:
    """Return the workers that the options of a command ask for.

    Parameters
    ----------
    n_workers : int, optional
        Processes on this machine; without it one for each core.
    cluster : str, optional
        Address of a Dask scheduler, or ``local:4``.
    resources : iterable of str
        What a worker of the cluster must have, such as ``"GPU=1"``.
    timeout : float, optional
        Seconds within which the cluster has to answer; without it 30.

    Raises
    ------
    InvalidScenarioError
        If something is not written as it should be, or does not go together.
    """
    amounts = dict(map(_parse_resource, resources))
    if cluster is None:
        if amounts:
            raise InvalidScenarioError("--resource goes with --cluster only.")
        if timeout is not None:
            raise InvalidScenarioError("--cluster-timeout goes with --cluster only.")
        return Processes(count_cores() if n_workers is None else n_workers)
    if n_workers is not None:
        raise InvalidScenarioError("--workers does not go with --cluster, which has its own.")
    return Cluster(cluster, amounts, TIMEOUT if timeout is None else timeout)


def _parse_resource(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        found = name.strip(), float(amount)
    except ValueError:
        found = "", 0.0
    if not (found[0] and 0 < found[1] < math.inf):
        raise InvalidScenarioError(
            f"--resource {abbreviate(text)}: must be a name and a positive number, such as GPU=1."
        )
    return found
