"""Workers for training: threads of this process, or the workers of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from fcfn_abm.plugins import import_again, list_plugins
from fcfn_abm.process.cluster import Cluster
from fcfn_abm.process.options import select_workers
from fcfn_abm.process.workers import Processes
from fcfn_abm.training.distributed import BlockWorkers


@contextmanager
def connect_cluster(cluster: Cluster) -> Iterator[BlockWorkers]:
    """Connect to a cluster for training; its workers import the plug-ins imported here.

    Parameters
    ----------
    cluster : Cluster
        The cluster, such as ``Cluster("tcp://10.0.0.1:8786")``.

    Yields
    ------
    BlockWorkers
        For the argument ``workers`` of :func:`fcfn_abm.run_scenario` and
        :func:`fcfn_abm.calibrate_value`; can be reused.

    Raises
    ------
    MissingExtraError
        If Dask is not installed.
    WorkersLostError
        If the cluster does not answer, or has other versions.
    """
    with cluster.connect(partial(import_again, list_plugins())) as workers:
        yield workers


@contextmanager
def open_training_workers(
    n_workers: int | None, cluster: str | None, resources: Iterable[str], timeout: float | None
) -> Iterator[int | BlockWorkers]:
    """Open the training workers that a command's options specify."""
    found = select_workers(n_workers, cluster, resources, timeout)
    if isinstance(found, Processes):
        yield found.n_workers
        return
    with connect_cluster(found) as workers:
        yield workers
