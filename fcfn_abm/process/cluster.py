"""Workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
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
"""Seconds within which a cluster has to answer, where nobody says otherwise."""
_MIN_CHUNKS = 2  # that are out, also before the first worker has come
_MAX_PORT = 65_535
_SCHEMES = ("tcp", "tls", "ws", "wss")  # Dask's; a client that knows none closes for a minute
_MAX_LOSSES = 20  # of what workers keep or do, in one round
_PAUSE_SECONDS = 0.1
_OBSERVATION_SECONDS = 2.0
_CONNECTING = 0.9  # share of that time for the connection, so that its error comes first
_LOGGERS = ("distributed", "tornado", "asyncio", "bokeh")  # what Dask and its libraries log to
_ENVIRONMENT = {  # of the workers that are started here
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
                if client.status == "running":  # else nobody would take that it is cancelled
                    executor.shutdown(wait=False)

    @contextmanager
    def connect(self, prepare: Callable[[], object] | None = None) -> Iterator[ClusterWorkers]:
        """Connect to the cluster, for computations that share what its workers keep.

        Parameters
        ----------
        prepare : callable, optional
            Called on each worker before it computes anything, also on those that come later.

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
        """Give a client of the cluster; Dask's own messages go to a file meanwhile."""
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
        with config.set({name: {**config.get(name), **_ENVIRONMENT}}):
            with block_sigint_in_children():
                cluster = dask.LocalCluster(
                    n_workers=int(self.address.partition(":")[2]),
                    threads_per_worker=1,
                    dashboard_address=None,
                    resources=self.resources,
                    scheduler_kwargs={"dashboard": False},
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
            raise self.fail(f"no scheduler answers within {self.timeout:g} s.") from None
        except Exception as error:  # whatever an answer of somebody else makes Dask do
            raise self.fail(f"no scheduler answers: {_describe_root(error)}.") from None
        self._require_equal_versions(dask, scheduler, workers)
        try:
            client = dask.Client(self.address, timeout=self.timeout, set_as_default=False)
        except Exception as error:
            raise self.fail(f"the scheduler takes no client: {describe_cause(error)}.") from None
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
        """Raise WorkersLostError if something there has another version than here."""
        here = dask.versions.get_versions(_OF_WORKERS)["packages"]
        members = [("the scheduler", scheduler, _OF_SCHEDULER)]
        members += [(f"the worker {name}", found, here) for name, found in workers.items() if found]
        for member, found, names in members:
            for name in names:
                there = found["packages"].get(name)
                if there != here[name]:
                    raise self.fail(
                        f"{member} has {_version(name, there)}, and here is "
                        f"{_version(name, here[name])}: all machines need the same environment."
                    )

    def fail(self, why: str) -> WorkersLostError:
        """Return the error that says what is wrong with the cluster."""
        return WorkersLostError(f"--cluster {self.address}: {why}")


class ClusterWorkers:
    """The workers of a cluster, which keep values and compute with them.

    Parameters
    ----------
    client : distributed.Client
        Of its scheduler.
    cluster : Cluster
        What they are workers of.
    """

    def __init__(self, client: Any, cluster: Cluster) -> None:
        self._client, self._cluster = client, cluster
        self._memory = _Memory(client)
        self._plugin = ""

    def prepare(self, function: Callable[[], object]) -> None:
        """Call a function on each worker, also on those that come later."""
        base: Any = import_module("distributed").WorkerPlugin

        class Preparation(base):
            def setup(self, worker: Any) -> None:  # noqa: ARG002 - Dask's
                function()

        self._plugin = f"fcfn-{uuid4().hex}"
        self._client.register_plugin(Preparation(), name=self._plugin)

    def close(self) -> None:
        """Take back what was prepared, as far as anybody still listens."""
        if self._plugin and self._client.status == "running":
            with suppress(Exception):
                self._client.unregister_worker_plugin(self._plugin)

    def place(self, value: object, *, everywhere: bool = False) -> Placed:
        """Let one worker keep a value, or all of them; it is there as long as its handle."""
        return Placed(value, everywhere)

    def compute[R](
        self, function: Callable[..., R], calls: Sequence[tuple[object, ...]]
    ) -> Iterator[R]:
        """Yield what a function returns for each call, in their order, whatever workers die.

        Workers take the calls whose values they keep, and others when they have none left. What
        a worker was at when it died, and what it kept, goes to others.

        Parameters
        ----------
        function : callable
            What is computed.
        calls : sequence of tuple
            Arguments of each call; what :meth:`place` returned becomes the value.

        Raises
        ------
        WorkersLostError
            If the scheduler is lost for good, or one call takes several workers with it.
        """
        futures = [self._submit(function, call) for call in calls]
        n_losses = 0
        for number in range(len(calls)):
            while True:
                self._memory.observe_now_and_then()
                try:
                    result = futures[number].result()
                    break
                except (CancelledError, Exception) as error:
                    if type(error).__name__ == "KilledWorker":  # Dask's
                        last = self._memory.describe_death(error)
                        raise self._cluster.fail(
                            f"a part of the work took several workers with it; the last was {last}."
                        ) from None
                    if not _is_loss(error):
                        raise
                    n_losses += 1
                    if n_losses > _MAX_LOSSES:
                        raise self._cluster.fail(
                            f"workers were lost {n_losses} times in one round."
                        ) from None
                    self._wait_for_scheduler()
                    for later in range(number, len(calls)):
                        if futures[later].status in ("cancelled", "lost"):
                            futures[later] = self._submit(function, calls[later])
            futures[number] = None  # the workers may forget it
            yield result

    def count(self) -> int:
        """Return how many threads of workers there are now."""
        try:
            n_threads: int = sum(self._client.nthreads().values())
        except OSError:
            return 0
        return n_threads

    def _submit(self, function: Callable[..., object], call: tuple[object, ...]) -> Any:
        options = {"resources": self._cluster.resources} if self._cluster.resources else {}
        for _ in range(_MAX_LOSSES):
            try:
                arguments = [
                    value.keep_on(self._client) if isinstance(value, Placed) else value
                    for value in call
                ]
                return self._client.submit(function, *arguments, pure=False, **options)
            except (CancelledError, Exception) as error:
                is_running = self._client.status == "running"
                if isinstance(error, TimeoutError) and is_running:
                    raise self._cluster.fail(
                        f"no worker has come within {self._cluster.timeout:g} s."
                    ) from None
                if is_running and not _is_loss(error):
                    raise
                self._wait_for_scheduler()
        raise self._cluster.fail("the scheduler takes no work.")

    def _wait_for_scheduler(self) -> None:
        """Wait until the client has its scheduler again.

        Raises
        ------
        WorkersLostError
            If it does not come back.
        """
        end = time.monotonic() + self._cluster.timeout
        time.sleep(_PAUSE_SECONDS)  # what else is lost shows a moment later
        while self._client.status != "running":
            if self._client.status == "closed" or time.monotonic() > end:
                raise self._cluster.fail("the scheduler was lost.")
            time.sleep(_PAUSE_SECONDS)


class Placed:
    """A value that workers keep, and get again if they lose it."""

    def __init__(self, value: object, everywhere: bool) -> None:
        self._value, self._everywhere = value, everywhere
        self._future: Any = None

    def keep_on(self, client: Any) -> Any:
        """Return Dask's handle of the value, which its workers have."""
        if self._future is None or self._future.status != "finished":
            self._future = client.scatter(self._value, broadcast=self._everywhere, hash=False)
        return self._future


class _Memory:
    """How much memory a cluster's workers have used, as they told the scheduler."""

    def __init__(self, client: Any) -> None:
        self._client, self._peaks = client, dict[str, int]()
        self._observed = time.monotonic()

    def observe(self) -> None:
        """Note how much each worker has used at most so far."""
        with suppress(OSError, TypeError):  # the scheduler is gone
            for address, worker in self._client.scheduler_info(n_workers=-1)["workers"].items():
                used = worker.get("metrics", {}).get("memory", 0)
                self._peaks[address] = max(used, self._peaks.get(address, 0))

    def observe_now_and_then(self) -> None:
        """Do so, unless it was done a moment ago."""
        if time.monotonic() - self._observed > _OBSERVATION_SECONDS:
            self._observed = time.monotonic()
            self.observe()

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


def _is_loss(error: BaseException) -> bool:
    """Whether Dask raised an error because something was lost, and not the work itself."""
    return isinstance(error, CancelledError) or type(error).__module__.startswith("distributed.")


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
