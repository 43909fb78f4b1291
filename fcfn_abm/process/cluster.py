"""Workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from fcfn_abm.errors import (
    InvalidScenarioError,
    MissingExtraError,
    WorkersLostError,
    abbreviate,
    describe_cause,
)
from fcfn_abm.process.interrupts import block_sigint_in_children
from fcfn_abm.process.workers import MAX_DEATHS, MAX_WORKERS, OpenWorkers, format_bytes

TIMEOUT = 30.0
"""Default number of seconds within which a cluster has to answer."""
_MIN_CHUNKS = 2  # chunks in progress, also before the first worker arrives
_MAX_PORT = 65_535
_SCHEMES = (
    "tcp",
    "tls",
    "ws",
    "wss",
)  # Dask's; with another scheme, closing a client takes a minute
_MAX_LOSSES = 20  # losses of kept values or running calls, per round
_PAUSE_SECONDS = 0.1
_OBSERVATION_SECONDS = 2.0
_CONNECTING = 0.9  # share of the timeout for the connection, so that its error comes first
_LOGGERS = ("distributed", "tornado", "asyncio", "bokeh")  # loggers of Dask and its libraries
_ENVIRONMENT = {  # of the workers of a local cluster
    "DASK_LOGGING__DISTRIBUTED": "critical",
    # Dask's own value makes the C library return memory after each step, and ask for it in the next
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}
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
)  # in addition to those that Dask compares: results depend on them


@dataclass(frozen=True)
class Cluster:
    """A Dask cluster: a running one, or a local one that is started on demand (``local:4``)."""

    address: str
    """Address of its scheduler, such as ``tcp://10.0.0.1:8786``, or ``local:`` and a number."""
    resources: dict[str, float] = field(default_factory=dict)
    """Worker resources that each task uses, such as ``{"GPU": 1}``."""
    timeout: float = TIMEOUT
    """Number of seconds within which its scheduler has to answer."""

    def __post_init__(self) -> None:
        place, _, number = self.address.rpartition(":")
        scheme, slashes, host = place.rpartition("://")
        sensible = place == "local" or not slashes or (scheme in _SCHEMES and host)
        if not (sensible and re.fullmatch("[0-9]*[1-9][0-9]*", number)):
            raise InvalidScenarioError(
                f"--cluster {abbreviate(self.address)}: must look like local:4, or tcp://10.0.0.1:8786."
            )
        what, most = ("workers", MAX_WORKERS) if place == "local" else ("port", _MAX_PORT)
        if (
            len(number) > 9 or int(number) > most
        ):  # Python converts no integers with thousands of digits
            raise InvalidScenarioError(
                f"--cluster {abbreviate(self.address)}: {what} must be at most {most:,}."
            )
        if not 0 < self.timeout <= 86_400:
            raise InvalidScenarioError(
                f"--cluster-timeout {self.timeout:g}: must be above 0, and at most 86,400 seconds."
            )

    @contextmanager
    def open(self) -> Iterator[OpenWorkers]:
        """Connect to the cluster; leaving the block cancels unfinished tasks.

        Raises
        ------
        MissingExtraError
            If Dask is not installed.
        WorkersLostError
            If no scheduler answers, or versions differ.
        """
        with self._connect() as client:
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
                if client.status == "running":  # otherwise cancelling fails
                    executor.shutdown(wait=False)

    @contextmanager
    def connect(self, prepare: Callable[[], object] | None = None) -> Iterator[ClusterWorkers]:
        """Connect to the cluster, for computations with values that its workers keep.

        Parameters
        ----------
        prepare : callable, optional
            Called on each worker before it computes anything, including workers that join later.

        Raises
        ------
        MissingExtraError
            If Dask is not installed.
        WorkersLostError
            If no scheduler answers, or versions differ.
        """
        with self._connect() as client:
            workers = ClusterWorkers(client, self)
            if prepare:
                workers.prepare(prepare)
            try:
                yield workers
            finally:
                workers.close()

    @contextmanager
    def _connect(self) -> Iterator[Any]:
        """Yield a client of the cluster; Dask's own log goes to a file."""
        try:
            dask: Any = import_module("distributed")
        except ImportError:
            raise MissingExtraError(
                "A cluster needs Dask: pip install 'fcfn-abm[cluster]'."
            ) from None
        settings = {
            "distributed.comm.timeouts.connect": f"{self.timeout}s",
            "distributed.admin.large-graph-warning-threshold": "1 TiB",  # samples are large
        }
        with (
            _divert_logs(),
            import_module("dask").config.set(settings),
            self._start(dask) if self.address.startswith("local:") else self._find(dask) as client,
        ):
            yield client

    @contextmanager
    def _start(self, dask: Any) -> Iterator[Any]:
        """Start a cluster on this machine, and yield its client."""
        config = import_module("dask").config
        name = "distributed.nanny.pre-spawn-environ"
        with config.set({name: {**config.get(name), **_ENVIRONMENT}}):
            with block_sigint_in_children():
                cluster = dask.LocalCluster(
                    n_workers=int(self.address.partition(":")[2]),
                    threads_per_worker=1,
                    dashboard_address="127.0.0.1:0",  # any free port: 8787 may be taken
                    resources=self.resources,
                    scheduler_kwargs={"dashboard": False},
                    silence_logs=False,
                )
            with cluster, dask.Client(cluster, set_as_default=False) as client:
                yield client

    @contextmanager
    def _find(self, dask: Any) -> Iterator[Any]:
        """Yield a client of the scheduler at the address."""
        security = dask.Security().get_connection_args("client")
        if self.address.startswith(("tls:", "wss:")) and not security["ssl_context"]:
            raise InvalidScenarioError(
                f"--cluster {self.address}: Dask's configuration names no certificates "
                "(distributed.comm.tls)."
            )
        try:
            # Dask itself waits for an answer as long as the connection is open
            scheduler, workers = asyncio.run(self._ask_for_versions(dask, security))
        except TimeoutError:
            raise self.fail(f"no scheduler answers within {self.timeout:g} s.") from None
        except Exception as error:  # an unexpected server can raise any error in Dask
            cause = _describe_root(error) or self._probe() or describe_cause(error)
            raise self.fail(f"no scheduler answers: {cause}.") from None
        self._require_equal_versions(dask, scheduler, workers)
        try:
            client = dask.Client(self.address, timeout=self.timeout, set_as_default=False)
        except Exception as error:
            raise self.fail(f"the scheduler refuses the client: {describe_cause(error)}.") from None
        with client:
            yield client

    async def _ask_for_versions(self, dask: Any, security: Any) -> tuple[Any, dict[str, Any]]:
        """Return the versions of the scheduler, and of each worker."""
        async with asyncio.timeout(self.timeout):
            await asyncio.get_running_loop().getaddrinfo(*self._host_and_port())
            connecting = _CONNECTING * self.timeout
            scheduler = dask.rpc(self.address, timeout=connecting, connection_args=security)
            try:
                return await scheduler.versions(), await scheduler.broadcast(
                    msg={"op": "versions", "packages": _OF_WORKERS}, on_error="ignore"
                )
            finally:
                await scheduler.close_rpc()

    def _probe(self) -> str:
        """Return the system's message if no connection opens: Dask's last attempt may hide it."""
        try:
            socket.create_connection(self._host_and_port(), timeout=1).close()
        except OSError as error:
            return error.strerror or ""
        return ""

    def _host_and_port(self) -> tuple[str | None, int | None]:
        url = urlsplit(self.address if "://" in self.address else f"tcp://{self.address}")
        return url.hostname, url.port

    def _require_equal_versions(
        self, dask: Any, scheduler: Mapping[str, Any], workers: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Raise WorkersLostError if versions differ between the cluster and this process."""
        here = dask.versions.get_versions(_OF_WORKERS)["packages"]
        members = [("the scheduler", scheduler, _OF_SCHEDULER)]
        members += [(f"the worker {name}", found, here) for name, found in workers.items() if found]
        for member, found, names in members:
            for name in names:
                there = found["packages"].get(name)
                if there != here[name]:
                    raise self.fail(
                        f"{member} has {_version(name, there)}, but this process has "
                        f"{_version(name, here[name])}: all machines need the same environment."
                    )

    def can_use(self, worker: Mapping[str, Any]) -> bool:
        """Whether a worker, given Dask's facts about it, has the resources."""
        found = worker.get("resources", {})
        return all(found.get(name, 0) >= number for name, number in self.resources.items())

    def describe_resources(self) -> str:
        """Describe the resources that workers need, to continue the word "workers"."""
        names = [f"{name}={number:g}" for name, number in self.resources.items()]
        return f" with {', '.join(names)}" if names else ""

    def fail(self, why: str) -> WorkersLostError:
        """Return an error with a message about the cluster."""
        return WorkersLostError(f"--cluster {self.address}: {why}")


class ClusterWorkers:
    """The workers of a cluster, which keep values and compute with them.

    Parameters
    ----------
    client : distributed.Client
        Client of its scheduler.
    cluster : Cluster
        The cluster of the workers.
    """

    def __init__(self, client: Any, cluster: Cluster) -> None:
        self._client, self._cluster = client, cluster
        self._memory = _Memory(client)
        self._plugin = ""

    def prepare(self, function: Callable[[], object]) -> None:
        """Call a function on each worker, including workers that join later."""
        base: Any = import_module("distributed").WorkerPlugin

        class Preparation(base):
            def setup(self, worker: Any) -> None:  # noqa: ARG002 - Dask's
                function()

        self._plugin = f"fcfn-{uuid4().hex}"
        self._client.register_plugin(Preparation(), name=self._plugin)

    def close(self) -> None:
        """Undo the preparation of workers, as far as they are reachable."""
        if self._plugin and self._client.status == "running":
            with suppress(Exception):
                self._client.unregister_worker_plugin(self._plugin)

    def place(self, value: object) -> Placed:
        """Let workers keep a value, for as long as its handle exists."""
        return Placed(value)

    def compute[R](
        self, function: Callable[..., R], calls: Sequence[tuple[object, ...]]
    ) -> Iterator[R]:
        """Yield the results of a function for each call, in order, even if workers die.

        Workers run the calls whose values they keep, and others when none are left. Calls and
        values of a worker that died are moved to other workers.

        Parameters
        ----------
        function : callable
            Function to call.
        calls : sequence of tuple
            Arguments of each call; handles from :meth:`place` are replaced by their values.

        Raises
        ------
        WorkersLostError
            If the scheduler is lost permanently, or if one call kills several workers.
        """
        futures = [self._submit(function, call) for call in calls]
        n_losses = 0
        for number in range(len(calls)):
            while True:
                try:
                    result = self._gather(futures[number])
                    break
                except (CancelledError, Exception) as error:
                    if type(error).__name__ == "KilledWorker":  # Dask's
                        last = self._memory.describe_death(error)
                        raise self._cluster.fail(
                            f"one task killed several workers; the last was {last}."
                        ) from None
                    if isinstance(error, WorkersLostError) or not _is_loss(error, futures[number]):
                        raise
                    n_losses += 1
                    if n_losses > _MAX_LOSSES:
                        raise self._cluster.fail(
                            f"tasks were lost {n_losses} times in one round."
                        ) from None
                    self._wait_for_scheduler()
                    for later in range(number, len(calls)):
                        if later == number or futures[later].status == "cancelled":
                            futures[later] = self._submit(function, calls[later])
            futures[number] = None  # workers may release the result
            yield result

    def count(self) -> int:
        """Return the current number of worker threads."""
        try:
            n_threads: int = sum(self._client.nthreads().values())
        except OSError:
            return 0
        return n_threads

    def _submit(self, function: Callable[..., object], call: tuple[object, ...]) -> Any:
        """Return Dask's handle of a call's result."""
        submit = partial(self._client.submit, pure=False, resources=self._cluster.resources or None)
        try:
            arguments = [
                value.keep(submit) if isinstance(value, Placed) else value for value in call
            ]
            return submit(function, *arguments)
        except Exception:
            self._require_scheduler()
            raise

    def _gather(self, future: Any) -> Any:
        """Return the result of a task.

        Raises
        ------
        WorkersLostError
            If the connection is lost permanently, or the cluster has no workers for too long.
        """
        self._memory.observe_now_and_then()
        gathering = asyncio.run_coroutine_threadsafe(
            self._client.gather(future, asynchronous=True), self._client.loop.asyncio_loop
        )
        seen = time.monotonic()
        while True:
            try:
                return gathering.result(_OBSERVATION_SECONDS)
            except TimeoutError:
                if gathering.done():  # the task's own error
                    raise
            self._require_scheduler()
            if any(map(self._cluster.can_use, self._memory.observe())):
                seen = time.monotonic()
            elif time.monotonic() - seen > self._cluster.timeout:
                raise self._cluster.fail(
                    f"it has had no workers{self._cluster.describe_resources()} "
                    f"for {self._cluster.timeout:g} s."
                )

    def _require_scheduler(self) -> None:
        if self._client.status == "closed":
            raise self._cluster.fail("the scheduler was lost.")

    def _wait_for_scheduler(self) -> None:
        """Wait until the client is connected to its scheduler again.

        Raises
        ------
        WorkersLostError
            If the connection is lost permanently.
        """
        end = time.monotonic() + self._cluster.timeout
        time.sleep(_PAUSE_SECONDS)  # further losses show a moment later
        while self._client.status != "running":
            self._require_scheduler()
            if time.monotonic() > end:
                raise self._cluster.fail("the scheduler was lost.")
            time.sleep(_PAUSE_SECONDS)


class Placed:
    """A value that workers keep: the result of a task, which Dask repeats if workers lose it.

    Values that are scattered instead are not recovered, and a broadcast waits forever if a worker
    is lost meanwhile (https://github.com/dask/distributed/issues/5704).
    """

    def __init__(self, value: object) -> None:
        # as bytes: the scheduler, which keeps them, may lack plug-ins that workers import
        self._pickled: bytes = import_module("distributed.protocol.pickle").dumps(value)
        self._future: Any = None
        self._lock = Lock()

    def keep(self, submit: Callable[..., Any]) -> Any:
        """Return Dask's handle of the value; a lost connection or a failed task renews it."""
        with self._lock:  # several trainings may need it at the same time
            if self._future is None or self._future.status in ("cancelled", "error"):
                load = import_module("distributed.protocol.pickle").loads
                self._future = submit(load, self._pickled, priority=1)  # before waiting blocks
            return self._future


class _Memory:
    """Memory use of a cluster's workers, as reported to the scheduler."""

    def __init__(self, client: Any) -> None:
        self._client, self._peaks = client, dict[str, int]()
        self._observed = time.monotonic()

    def observe(self) -> list[Mapping[str, Any]]:
        """Record the largest memory use of each worker so far, and return Dask's facts of all."""
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, TypeError):  # the scheduler is lost
            return []
        for address, worker in workers.items():
            used = worker.get("metrics", {}).get("memory", 0)
            self._peaks[address] = max(used, self._peaks.get(address, 0))
        return list(workers.values())

    def observe_now_and_then(self) -> None:
        """Do so, but at most once per interval."""
        if time.monotonic() - self._observed > _OBSERVATION_SECONDS:
            self._observed = time.monotonic()
            self.observe()

    def describe_death(self, error: BaseException) -> str:
        """Describe the last worker that Dask gave up, and its last known memory use."""
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


def _is_loss(error: BaseException, future: Any) -> bool:
    """Whether Dask raised an error because something was lost, not because the task failed."""
    return future.status != "error" or type(error).__module__.startswith("distributed.")


def _describe_root(error: BaseException) -> str:
    """Return the system's message in a chain of errors, if any has one."""
    root: BaseException | None = error
    while root:
        if isinstance(root, OSError) and root.strerror:
            return root.strerror
        root = root.__cause__ or root.__context__
    return ""


def _count_chunks(client: Any) -> int:
    """Return two chunks per worker, so that none is idle; workers may join and leave."""
    if client.status != "running":  # the scheduler is lost; pending chunks will raise
        return _MIN_CHUNKS
    try:
        n_threads: int = sum(client.nthreads().values())
    except OSError:
        return _MIN_CHUNKS
    return max(2 * n_threads, _MIN_CHUNKS)


@contextmanager
def _divert_logs() -> Iterator[None]:
    """Redirect Dask's log to a file; an error that leaves the block names it."""
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
    except WorkersLostError as error:
        if not log.path.stat().st_size:
            raise
        log.is_named = True
        raise WorkersLostError(f"{error} Dask's messages: {log.path}.") from None
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()


@dataclass
class _Log:
    """A file for Dask's log in this process."""

    path: Path
    is_named: bool = False
    """Whether a message has named the file, so that it is kept when the process ends."""

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
