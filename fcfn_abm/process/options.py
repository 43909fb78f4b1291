"""Workers as selected on the command line."""

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
    """Return the workers that a command's options select.

    Parameters
    ----------
    n_workers : int, optional
        Number of processes on this machine. By default one per core.
    cluster : str, optional
        Address of a Dask scheduler, or ``local:4``.
    resources : iterable of str
        Resources that a cluster's worker must have, such as ``"GPU=1"``.
    timeout : float, optional
        Number of seconds within which the cluster has to answer. By default 30.

    Raises
    ------
    InvalidScenarioError
        If an option is invalid, or conflicts with another one.
    """
    amounts = dict(map(_parse_resource, resources))
    if cluster is None:
        if amounts:
            raise InvalidScenarioError("--resource requires --cluster.")
        if timeout is not None:
            raise InvalidScenarioError("--cluster-timeout requires --cluster.")
        return Processes(count_cores() if n_workers is None else n_workers)
    if n_workers is not None:
        raise InvalidScenarioError("--workers cannot be used with --cluster.")
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
