"""Workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fcfn_abm.errors import (
    InvalidScenarioError,
    MissingExtraError,
    RunFailedError,
    abbreviate,
    describe_cause,
)
from fcfn_abm.process.interrupts import block_sigint_in_children
from fcfn_abm.process.workers import MAX_DEATHS, MAX_WORKERS, OpenWorkers, format_bytes

TIMEOUT = 30.0
"""Seconds within which a cluster has to answer, where nobody says otherwise."""
_MIN_CHUNKS = 2  # that are out, also before the first worker has come
_MAX_PORT = 65_535
_SCHEMES = ("tcp", "tls", "ws", "wss")  # Dask's; a client that knows none closes for a minute
_CONNECTING = 0.9  # share of that time for the connection, so that its error comes first
_LOGGERS = ("distributed", "tornado", "asyncio", "bokeh")  # what Dask and its libraries log to
_OF_SCHEDULER = ("python", "dask", "distributed")
_OF_WORKERS = (
    "fcfn-abm",
    "mesa",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "scikit-learn",
    "scipy",
    "torch",
)  # besides those that Dask lists: what the numbers depend on


@dataclass(frozen=True)
class Cluster:
    """A Dask cluster: one that runs, or ``local:4``, which is started here."""

    address: str
    """Where its scheduler listens, such as ``tcp://10.0.0.1:8786``, or ``local:`` and a number."""
    resources: dict[str, float] = field(default_factory=dict)
    """What each task takes of what workers were started with, such as ``{"GPU": 1}``."""
    timeout: float = TIMEOUT
    """Seconds within which its scheduler has to answer."""

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
        if not 0 < self.timeout <= 86_400:
            raise InvalidScenarioError(
                f"--cluster-timeout {self.timeout:g}: must be above 0, and at most 86,400 seconds."
            )

    @contextmanager
    def open(self) -> Iterator[OpenWorkers]:
        """Connect to the cluster; leaving the block cancels what it still has to do.

        Raises
        ------
        MissingExtraError
            If Dask is not installed.
        RunFailedError
            If no scheduler answers, or versions differ.
        """
        with self.connect() as client:
            options = {"resources": self.resources} if self.resources else {}
            executor = client.get_executor(retries=MAX_DEATHS, pure=False, **options)
            try:
                memory = _Memory(client)
                yield OpenWorkers(
                    executor,
                    lambda: _count_chunks(client),
                    memory.observe,
                    memory.describe_death,
                )
            finally:
                if client.status == "running":  # else nobody would take that it is cancelled
                    executor.shutdown(wait=False)

    @contextmanager
    def connect(self) -> Iterator[Any]:
        """Give a client of the cluster; Dask's own messages go to a file meanwhile.

        Raises
        ------
        MissingExtraError
            If Dask is not installed.
        RunFailedError
            If no scheduler answers, or versions differ.
        """
        try:
            dask: Any = import_module("distributed")
        except ImportError:
            raise MissingExtraError(
                "A cluster needs Dask: pip install 'fcfn-abm[cluster]'."
            ) from None
        connecting = {"distributed.comm.timeouts.connect": f"{self.timeout}s"}
        with (
            _divert_logs(),
            import_module("dask").config.set(connecting),
            self._start(dask) if self.address.startswith("local:") else self._find(dask) as client,
        ):
            yield client

    @contextmanager
    def _start(self, dask: Any) -> Iterator[Any]:
        """Start a cluster on this machine, and give its client."""
        config = import_module("dask").config
        name = "distributed.nanny.pre-spawn-environ"
        quiet = {**config.get(name), "DASK_LOGGING__DISTRIBUTED": "critical"}
        with config.set({name: quiet}):
            with block_sigint_in_children():
                cluster = dask.LocalCluster(
                    n_workers=int(self.address.partition(":")[2]),
                    threads_per_worker=1,
                    dashboard_address=None,
                    resources=self.resources,
                    silence_logs=False,
                )
            with cluster, dask.Client(cluster, set_as_default=False) as client:
                yield client

    @contextmanager
    def _find(self, dask: Any) -> Iterator[Any]:
        """Give a client of the scheduler at the address."""
        security = dask.Security().get_connection_args("client")
        if self.address.startswith(("tls:", "wss:")) and not security["ssl_context"]:
            raise InvalidScenarioError(
                f"--cluster {self.address}: Dask's configuration names no certificates "
                "(distributed.comm.tls)."
            )
        try:
            # Dask itself waits for an answer as long as nobody hangs up
            scheduler, workers = asyncio.run(self._ask_for_versions(dask, security))
        except TimeoutError:
            raise self._fail(f"no scheduler answers within {self.timeout:g} s.") from None
        except Exception as error:  # whatever an answer of somebody else makes Dask do
            raise self._fail(f"no scheduler answers: {_describe_root(error)}.") from None
        self._require_equal_versions(dask, scheduler, workers)
        try:
            client = dask.Client(self.address, timeout=self.timeout, set_as_default=False)
        except Exception as error:
            raise self._fail(f"the scheduler takes no client: {describe_cause(error)}.") from None
        with client:
            yield client

    async def _ask_for_versions(self, dask: Any, security: Any) -> tuple[Any, dict[str, Any]]:
        """Return the versions of the scheduler, and of each worker."""
        url = urlsplit(self.address if "://" in self.address else f"tcp://{self.address}")
        async with asyncio.timeout(self.timeout):
            await asyncio.get_running_loop().getaddrinfo(url.hostname, url.port)
            connecting = _CONNECTING * self.timeout
            scheduler = dask.rpc(self.address, timeout=connecting, connection_args=security)
            try:
                return await scheduler.versions(), await scheduler.broadcast(
                    msg={"op": "versions", "packages": _OF_WORKERS}, on_error="ignore"
                )
            finally:
                await scheduler.close_rpc()

    def _require_equal_versions(
        self, dask: Any, scheduler: Mapping[str, Any], workers: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Raise RunFailedError if something there has another version than here."""
        here = dask.versions.get_versions(_OF_WORKERS)["packages"]
        members = [("the scheduler", scheduler, _OF_SCHEDULER)]
        members += [(f"the worker {name}", found, here) for name, found in workers.items() if found]
        for member, found, names in members:
            for name in names:
                there = found["packages"].get(name)
                if there != here[name]:
                    raise self._fail(
                        f"{member} has {_version(name, there)}, and here is "
                        f"{_version(name, here[name])}: all machines need the same environment."
                    )

    def _fail(self, why: str) -> RunFailedError:
        return RunFailedError(f"--cluster {self.address}: {why}")


class _Memory:
    """How much memory a cluster's workers have used, as they told the scheduler."""

    def __init__(self, client: Any) -> None:
        self._client, self._peaks = client, dict[str, int]()

    def observe(self) -> None:
        """Note how much each worker has used at most so far."""
        with suppress(OSError, TypeError):  # the scheduler is gone
            for address, worker in self._client.scheduler_info(n_workers=-1)["workers"].items():
                used = worker.get("metrics", {}).get("memory", 0)
                self._peaks[address] = max(used, self._peaks.get(address, 0))

    def describe_death(self, error: BaseException) -> str:
        """Return which worker Dask gave up last, and what it had used when it was heard last."""
        worker = getattr(error, "last_worker", None)
        if worker is None:
            return ""
        used = self._peaks.get(worker.address)
        if not used:
            return f"{worker.address}"
        limit = f" of {format_bytes(worker.memory_limit)}" if worker.memory_limit else ""
        return f"{worker.address}, after it had used {format_bytes(used)}{limit}"


def _version(name: str, version: str | None) -> str:
    return f"no {name}" if version is None else f"{name} {version.removesuffix('.final.0')}"


def _describe_root(error: BaseException) -> str:
    """Return what the system says of the first error of a chain; else what the last one says."""
    root: BaseException | None = error
    while root:
        if isinstance(root, OSError) and root.strerror:
            return root.strerror
        root = root.__cause__ or root.__context__
    return describe_cause(error)


def _count_chunks(client: Any) -> int:
    """Return two chunks for each worker, so that none waits; workers may come and go."""
    if client.status != "running":  # the scheduler is gone, as the chunks that are out will show
        return _MIN_CHUNKS
    try:
        n_threads: int = sum(client.nthreads().values())
    except OSError:
        return _MIN_CHUNKS
    return max(2 * n_threads, _MIN_CHUNKS)


@contextmanager
def _divert_logs() -> Iterator[None]:
    """Let Dask log into a file; an error that leaves the block names it."""
    log = _create_log()
    handler = logging.FileHandler(log.path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    children = [name for name in logging.root.manager.loggerDict if name.startswith(_LOGGERS)]
    loggers = [logging.getLogger(name) for name in {*_LOGGERS, *children}]
    before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        top = logger.name in _LOGGERS
        logger.handlers, logger.propagate = [handler] if top else [], not top
    try:
        yield
    except RunFailedError as error:
        if not log.path.stat().st_size:
            raise
        log.is_named = True
        raise RunFailedError(f"{error} Dask's messages: {log.path}.") from None
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()


@dataclass
class _Log:
    """A file for what Dask logs in this process."""

    path: Path
    is_named: bool = False
    """Whether a message has named it, so that it stays when the process ends."""

    def close(self) -> None:
        """Remove the file, unless a message has named it."""
        if not self.is_named:
            self.path.unlink(missing_ok=True)


@cache
def _create_log() -> _Log:
    handle, name = tempfile.mkstemp(prefix="fcfn-dask-", suffix=".log")
    os.close(handle)
    log = _Log(Path(name))
    atexit.register(log.close)
    return log
