"""Dask: an embedded cluster or an existing one, and a few parts in flight at a time."""

import contextlib
import logging
import pkgutil
import resource
import shutil
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster, as_completed
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError

from egma_prep import __version__
from egma_prep.errors import BadUsageError
from egma_prep.options import ExecutionOptions
from egma_prep.places import is_remote
from egma_prep.progress import tell

_IN_FLIGHT_PER_WORKER = 2
_CONNECT_SECONDS = 10
_WORKER_SECONDS = 60
_CONFIG = {
    "distributed.scheduler.allowed-failures": 0,  # each_done tells who died of what
    "distributed.comm.retry.count": 0,
    # Dask has every image's memory given back to the system, and zeroed again for the next one.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**26,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**25,
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1,
    "distributed.nanny.pre-spawn-environ.OPENCV_FOR_THREADS_NUM": 1,  # workers are the parallelism
    "distributed.worker.profile.enabled": False,
    # Dask looks at itself fifty times a second, which takes the time of workers.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.low-level-log-length": 1,  # messages are kept whole, the plans in them too
}
_OWN_WORKERS = {"distributed.worker.preload": ["egma_prep.own_worker"]}
_ROUTES = "distributed.scheduler.http.routes"
_LOGGERS = ("distributed", "distributed.client")

WORKER_DIED = object()
"""In place of a job's result."""


def default_workers() -> int:
    """Count the cores that this process may use."""
    return int(dask.system.CPU_COUNT)


@contextlib.contextmanager
def dask_client(options: ExecutionOptions, scratch: Path) -> Iterator[Client]:
    """Connect to the scheduler named in the options, or start one.

    Parameters
    ----------
    scratch : Path
        Where an embedded cluster keeps its temporary files.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        routes = [*dask.config.get(_ROUTES)]  # a scheduler adds to the list that it finds
        stack.enter_context(dask.config.set(_CONFIG | {_ROUTES: routes}))
        if options.scheduler:
            yield stack.enter_context(_connected(options.scheduler))
            return
        if is_remote(scratch):
            scratch = Path(tempfile.mkdtemp(prefix="egma-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        stack.enter_context(dask.config.set({"temporary-directory": str(scratch)}))
        if options.processes:
            stack.enter_context(dask.config.set(_OWN_WORKERS))
        stack.enter_context(_many_files())
        cluster = stack.enter_context(_embedded(options))
        # A user may have a client, and work on it in another thread.
        yield stack.enter_context(Client(cluster, set_as_default=False))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Dask's loggers: what fails is told in our own words."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Client]:
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise BadUsageError(
            f"no Dask scheduler answers at {address} ({error}); start it, or leave out --scheduler"
        ) from None
    with client:
        _wait_for_a_worker(client, address)
        _check_packages(client, address)
        yield client


def _check_packages(client: Client, address: str) -> None:
    """Refuse machines without this package, or with another version of it, before any work.

    Asked by a function of the standard library, as ours would not be found there, and of the
    module that imports all others.
    """
    wanted = pkgutil.resolve_name, "egma_prep.run:__version__"
    found = client.run(*wanted, on_error="return")
    try:
        found[address] = client.run_on_scheduler(*wanted)
    except Exception as error:  # whatever an import there raises
        found[address] = error
    for where, version in found.items():
        if version != __version__:
            raise _package_missing(f"{where} has {_other(version)}")


def _other(found: object) -> str:
    missing = (found.name or "") if isinstance(found, ModuleNotFoundError) else ""
    if missing.partition(".")[0] == "egma_prep":
        return "none"
    if isinstance(found, Exception):
        return f"one that cannot be imported ({type(found).__name__}: {found})"
    return f"version {found}"


def _package_missing(what: str) -> BadUsageError:
    return BadUsageError(
        f"egma {__version__} must be installed where the Dask scheduler and its workers run, but"
        f" {what}; install it there and start them again"
    )


def _embedded(options: ExecutionOptions) -> LocalCluster:
    workers = options.workers or default_workers()
    processes, threads = (workers, 1) if options.processes else (1, workers)
    with _interrupts_ignored():
        return LocalCluster(
            n_workers=processes,
            threads_per_worker=threads,
            processes=options.processes,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Let workers inherit this, so that Ctrl-C reaches the driver alone and it stops them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _wait_for_a_worker(client: Client, address: str) -> None:
    if not client.nthreads():
        tell(f"waiting for workers at {address}", sys.stderr)
    try:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError:
        raise BadUsageError(
            f"the Dask scheduler at {address} has no workers; start some: dask worker {address}"
        ) from None


@contextlib.contextmanager
def _many_files() -> Iterator[None]:
    """Raise the soft limit of open files, 256 on some systems, as far as the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def each_done(
    client: Client, work: Callable[..., Any], jobs: deque[tuple[Any, ...]]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Run `work` on every job, yield jobs and results as they come; a few are in memory at a time.

    Parameters
    ----------
    jobs : deque of tuple
        Arguments; emptied. Jobs that the caller appends on the way are run too.

    Yields
    ------
    tuple, object
        A job and its result: `WORKER_DIED` where the worker did that had it, which need not be
        that job's fault.

    Raises
    ------
    BadUsageError
        If the cluster is gone.
    """
    try:
        yield from _each_done(client, work, jobs)
    except (FutureCancelledError, CommClosedError):
        raise BadUsageError(
            "the Dask scheduler is gone; start it again, the same command goes on from here"
        ) from None
    except ImportError as error:  # on a worker that came later
        raise _package_missing(f"a worker has {_other(error)}") from None


def _each_done(
    client: Client, work: Callable[..., Any], jobs: deque[tuple[Any, ...]]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    given: dict[str, tuple[Any, ...]] = {}

    def slots() -> int:  # workers may join late, and leave
        return _IN_FLIGHT_PER_WORKER * max(1, sum(client.nthreads().values()))

    def submit() -> list[Any]:
        if not jobs:
            return []
        job = jobs.popleft()
        future = client.submit(work, *job, pure=False)
        given[str(future.key)] = job
        return [future]

    first = [future for _ in range(slots()) for future in submit()]
    running = as_completed(first, loop=client.loop)
    for future in running:
        try:
            result = future.result()
        except KilledWorker:
            result = WORKER_DIED
        yield given.pop(str(future.key)), result
        for _ in range(max(1, slots() - running.count()) if jobs else 0):
            running.update(submit())
