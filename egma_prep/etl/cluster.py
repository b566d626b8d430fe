"""Dask: an embedded cluster or an existing one, and a few parts in flight at a time."""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Future, KilledWorker, wait
from distributed.client import FutureCancelledError, FuturesCancelledError
from distributed.comm.core import CommClosedError

from egma_prep.errors import BadUsageError
from egma_prep.etl.outside_cluster import outside_client, package_missing
from egma_prep.etl.own_cluster import own_client
from egma_prep.options import ExecutionOptions

_IN_FLIGHT_PER_WORKER = 2  # one at work and one ready, so that none waits for the driver
_LOOK_SECONDS = 5  # between looks at whether there are workers at all
_IDLE_SECONDS = 60
"""So long may all workers be gone or paused: a nanny starts a new one within seconds."""
_CONFIG = {
    "distributed.scheduler.allowed-failures": 0,  # each_done tells who died of what
    "distributed.comm.retry.count": 0,
    # Dask gives up a worker that is not back after 15 seconds, which a busy machine may need, and
    # one not heard of for minutes, as all are when the clock jumps or a laptop wakes up.
    "distributed.deploy.lost-worker-timeout": "1h",
    "distributed.scheduler.worker-ttl": None,
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
_ROUTES = "distributed.scheduler.http.routes"
_LOGGERS = ("distributed", "distributed.client")

WORKER_DIED = object()
"""In place of a job's result."""


@contextlib.contextmanager
def dask_client(options: ExecutionOptions, scratch: Path) -> Iterator[Client]:
    """Connect to the scheduler named in the options, or start one.

    Parameters
    ----------
    scratch : Path
        Where an embedded cluster keeps its temporary files.
    """
    routes = [*dask.config.get(_ROUTES)]  # a scheduler adds to the list that it finds
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(dask.config.set(_CONFIG | {_ROUTES: routes}))
        client = outside_client(options) if options.scheduler else own_client(options, scratch)
        yield stack.enter_context(client)


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
        If the cluster is gone, or has nobody left to do anything.
    """
    try:
        yield from _each_done(client, work, jobs)
    except (FutureCancelledError, FuturesCancelledError, CommClosedError):
        raise BadUsageError(
            "the Dask scheduler is gone; the same command goes on from here, once it runs again"
        ) from None
    except ImportError as error:  # on a worker that came later
        raise package_missing(error) from None


def _each_done(
    client: Client, work: Callable[..., Any], jobs: deque[tuple[Any, ...]]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    given: dict[str, tuple[Future[Any], tuple[Any, ...]]] = {}
    while True:
        with _asking():  # workers may join late, and leave
            slots = _IN_FLIGHT_PER_WORKER * max(1, sum(client.nthreads().values()))
        while jobs and len(given) < slots:
            job = jobs.popleft()
            future = client.submit(work, *job, pure=False)
            given[str(future.key)] = future, job
        if not given:
            return
        for future in _some_done(client, [future for future, _ in given.values()]):
            _, job = given.pop(str(future.key))
            try:
                result = future.result()
            except KilledWorker:
                result = WORKER_DIED
            yield job, result


def _some_done(client: Client, futures: "list[Future[Any]]") -> "Iterable[Future[Any]]":
    """Wait until some futures are done, or nobody is there any more to do them."""
    waited_since = time.monotonic()
    while True:
        with contextlib.suppress(TimeoutError), client.as_current():
            return wait(futures, timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED").done
        with _asking():
            workers, active = client.run_on_scheduler(_workers)
        if active:
            waited_since = time.monotonic()
        elif time.monotonic() - waited_since > _IDLE_SECONDS:
            what = (
                f"Dask has paused all {workers} workers, as it does where memory is short: give"
                " them more, or start fewer on a machine"
                if workers
                else "no worker is left, and none comes; if memory is short give fewer --workers"
            )
            raise BadUsageError(f"{what}; the same command goes on from here")


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Call it one thing when the scheduler cannot be asked: a timeout comes without a word."""
    try:
        yield
    except OSError as error:
        raise CommClosedError(str(error)) from None


def _workers(dask_scheduler: Any) -> tuple[int, int]:
    """Count the scheduler's workers, and those that begin work or have some under way."""
    workers = dask_scheduler.workers.values()
    active = [one for one in workers if one.status.name == "running" or one.executing]
    return len(workers), len(active)
