"""Workers of a Dask cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from fcfn_abm.errors import InvalidScenarioError, MissingExtraError, RunFailedError, abbreviate
from fcfn_abm.process.interrupts import block_sigint_in_children
from fcfn_abm.process.workers import MAX_DEATHS, MAX_WORKERS, OpenWorkers

_MIN_CHUNKS = 2  # that are out, also before the first worker has come
_MAX_PORT = 65_535
_SCHEMES = ("tcp", "tls", "ws", "wss")  # Dask's; a client that knows none closes for a minute
_ANSWER_SECONDS = 30  # within which a scheduler has to answer


@dataclass(frozen=True)
class Cluster:
    """A Dask cluster: one that runs, or ``local:4``, which is started here."""

    address: str
    """Where its scheduler listens, such as ``tcp://10.0.0.1:8786``, or ``local:`` and a number."""
    resources: dict[str, float] = field(default_factory=dict)
    """What each task takes of what workers were started with, such as ``{"GPU": 1}``."""

    def __post_init__(self) -> None:
        place, _, number = self.address.rpartition(":")
        scheme, slashes, host = place.rpartition("://")
        sensible = place == "local" or not slashes or (scheme in _SCHEMES and host)
        if not (sensible and re.fullmatch("[0-9]*[1-9][0-9]*", number)):
            raise InvalidScenarioError(
                f"--cluster {abbreviate(self.address)}: must look like local:4, or tcp://10.0.0.1:8786."
            )
        what, most = ("workers", MAX_WORKERS) if place == "local" else ("port", _MAX_PORT)
        if len(number) > 9 or int(number) > most:  # Python reads no thousands of digits
            raise InvalidScenarioError(
                f"--cluster {abbreviate(self.address)}: {what} must be {most:,} at most."
            )

    @contextmanager
    def open(self) -> Iterator[OpenWorkers]:
        """Connect to the cluster; leaving the block cancels what it still has to do.

        Raises
        ------
        MissingExtraError
            If Dask is not installed.
        RunFailedError
            If no scheduler answers.
        """
        try:
            dask: Any = import_module("distributed")
        except ImportError:
            raise MissingExtraError(
                "A cluster needs Dask: pip install 'fcfn-abm[cluster]'."
            ) from None
        client_of = self._start if self.address.startswith("local:") else self._connect
        with client_of(dask) as client:
            options = {"resources": self.resources} if self.resources else {}
            executor = client.get_executor(retries=MAX_DEATHS, pure=False, **options)
            try:
                yield OpenWorkers(executor, lambda: _count_chunks(client))
            finally:
                executor.shutdown(wait=False)

    @contextmanager
    def _start(self, dask: Any) -> Iterator[Any]:
        """Start a cluster on this machine, and give its client."""
        with block_sigint_in_children():
            cluster = dask.LocalCluster(
                n_workers=int(self.address.partition(":")[2]),
                threads_per_worker=1,
                dashboard_address=None,
                resources=self.resources,
            )
        with cluster, dask.Client(cluster) as client:
            yield client

    @contextmanager
    def _connect(self, dask: Any) -> Iterator[Any]:
        """Give a client of the scheduler at the address."""
        security = dask.Security().get_connection_args("client")
        if self.address.startswith(("tls:", "wss:")) and not security["ssl_context"]:
            raise InvalidScenarioError(
                f"--cluster {self.address}: Dask's configuration names no certificates "
                "(distributed.comm.tls)."
            )
        try:
            client = dask.Client(self.address, timeout=_ANSWER_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunFailedError(
                f"--cluster {self.address}: no scheduler answers: {why}."
            ) from None
        with client:
            yield client


def _count_chunks(client: Any) -> int:
    """Return two chunks for each worker, so that none waits; workers may come and go."""
    try:
        n_threads: int = sum(client.nthreads().values())
    except OSError:  # the scheduler is gone, as the chunks that are out will show
        return _MIN_CHUNKS
    return max(2 * n_threads, _MIN_CHUNKS)
