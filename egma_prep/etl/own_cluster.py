"""The embedded cluster: a command's own workers, which nobody else can reach."""

import contextlib
import logging
import multiprocessing
import resource
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Nanny, Scheduler, Security, SpecCluster, Worker

from egma_prep.errors import BadUsageError
from egma_prep.etl.memory import allowed_memory
from egma_prep.options import ExecutionOptions
from egma_prep.storage.paths import is_remote
from egma_prep.storage.progress import tell

_DRIVER_MB, _WORKER_MB = 250, 230
"""Measured on phantoms of 8 megapixels: 110 and 205 MB, and once 130 for the libraries' code."""
_START_SECONDS = 120
"""A worker that is not up by then, where others are within seconds, never will be."""


class _NoPages:
    """Without the web pages that Dask's servers show to whoever connects."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Listen for nobody."""


class _Scheduler(_NoPages, Scheduler):
    pass


class _Worker(_NoPages, Worker):
    pass


class _WorkerOfANewProcess:
    """Stands for the class of workers until a new process unpickles it, before all else there."""

    __call__ = _Worker

    def __reduce__(self) -> tuple[Any, ...]:
        return _begin_process, ()


def _begin_process() -> type[Worker]:
    import egma_prep.etl.own_worker  # noqa: F401

    return _Worker


def default_workers() -> int:
    """Count the cores that this process may use, as far as there is memory for a worker each."""
    return min(int(dask.system.CPU_COUNT), _fitting_workers(allowed_memory()))


def _fitting_workers(memory: int) -> int:
    return max(1, (memory // 10**6 - _DRIVER_MB) // _WORKER_MB)


@contextlib.contextmanager
def own_client(options: ExecutionOptions, scratch: Path) -> Iterator[Client]:
    """Start workers, and stop them at the end.

    Parameters
    ----------
    scratch : Path
        Where they keep their temporary files.

    Raises
    ------
    BadUsageError
        If they cannot start.
    """
    with contextlib.ExitStack() as stack:
        if is_remote(scratch):
            scratch = Path(tempfile.mkdtemp(prefix="egma-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        stack.enter_context(dask.config.set({"temporary-directory": str(scratch)}))
        stack.enter_context(_many_files())
        before = set(multiprocessing.active_children())
        try:
            cluster = stack.enter_context(_closing(_started(options)))
            # A user may have a client, and work on it in another thread.
            client = stack.enter_context(_closing(Client(cluster, set_as_default=False)))
        except BaseException as error:
            for process in set(multiprocessing.active_children()) - before:
                process.kill()
                process.join()
            if not isinstance(error, Exception):
                raise
            raise BadUsageError(
                f"workers cannot be started here ({_first_cause(error)}); see which limit of"
                " `ulimit -a` is low, or give fewer --workers; the same command goes on from here"
            ) from None
        yield client


@contextlib.contextmanager
def _closing(one: Any) -> Iterator[Any]:
    """Close at the end; that something will not close cannot undo what was done."""
    try:
        yield one
    finally:
        with contextlib.suppress(Exception):
            one.close()


def _first_cause(error: BaseException) -> str:
    """Say what first went wrong: Dask wraps it, and a timeout has no words of its own."""
    told = type(error).__name__
    cause: BaseException | None = error
    while cause:
        told, cause = str(cause) or told, cause.__cause__
    return told


def _started(options: ExecutionOptions) -> SpecCluster:
    """Start workers as processes that trust one another's certificates alone, or as threads.

    The certificates and their key are made anew each time, live in memory, and reach a worker
    through the pipe by which its process is started.
    """
    if options.processes:
        workers, threads = _worker_count(options.workers), 1
        security = Security.temporary()
        kind: Any = Nanny
        place = {"protocol": "tls://", "host": "127.0.0.1"}
        own = {"worker_class": _WorkerOfANewProcess(), "death_timeout": _START_SECONDS}
    else:
        workers, threads = 1, options.workers or int(dask.system.CPU_COUNT)
        security = Security(require_encryption=False)  # nothing leaves this process
        kind, place, own = _Worker, {"protocol": "inproc://"}, {}
    shared = {"security": security, **place}
    # Dask's own limit of memory, a share of the whole a worker, would pause those who decode a
    # large image, for ever if all are.
    limits = {"nthreads": threads, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    worker = {"cls": kind, "options": {**shared, **limits, **own}}
    with _interrupts_ignored():
        return SpecCluster(
            scheduler={"cls": _Scheduler, "options": {**shared, "dashboard": False}},
            workers=dict.fromkeys(range(workers), worker),
            security=security,
            silence_logs=logging.CRITICAL,
            shutdown_on_close=False,  # we do, before Python ends
        )


def _worker_count(wanted: int) -> int:
    memory = allowed_memory()
    wanted = wanted or int(dask.system.CPU_COUNT)
    workers = min(wanted, _fitting_workers(memory))
    if (needed_mb := _DRIVER_MB + wanted * _WORKER_MB) > memory // 10**6:
        tell(
            f"{wanted} worker{'s' * (wanted > 1)} would need {needed_mb:,} MB of memory, of which"
            f" {memory // 10**6:,} MB are free or allowed here: starting {workers}",
            sys.stderr,
        )
    return workers


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
