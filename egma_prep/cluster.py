"""Dask: an embedded cluster or an existing one, and a few parts in flight at a time."""

import contextlib
import logging
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, as_completed

from egma_prep.errors import BadUsageError
from egma_prep.options import ExecutionOptions

_IN_FLIGHT_PER_WORKER = 2
_CONNECT_SECONDS = 10


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
    if options.scheduler:
        try:
            client = Client(options.scheduler, timeout=_CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise BadUsageError(
                f"no Dask scheduler answers at {options.scheduler} ({error}); start it, or leave"
                " out --scheduler"
            ) from None
        with client:
            yield client
        return
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    workers = options.workers or default_workers()
    processes, threads = (workers, 1) if options.processes else (1, workers)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        stack.enter_context(dask.config.set({"temporary-directory": str(scratch)}))
        with _interrupts_ignored():
            cluster = LocalCluster(
                n_workers=processes,
                threads_per_worker=threads,
                processes=options.processes,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            )
            stack.enter_context(cluster)
        yield stack.enter_context(Client(cluster))


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


def each_done(
    client: Client, work: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]
) -> Iterator[Any]:
    """Run `work` on every job, yield results as they come; memory holds a few jobs only."""
    waiting = iter(jobs)

    def submit() -> list[Any]:
        job = next(waiting, None)
        return [] if job is None else [client.submit(work, *job, pure=False)]

    slots = _IN_FLIGHT_PER_WORKER * max(1, sum(client.nthreads().values()))
    running = as_completed([future for _ in range(slots) for future in submit()])
    for future in running:
        yield future.result()
        running.update(submit())
