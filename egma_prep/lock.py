"""One run at a time in an output folder: a file lock that dies with its process."""

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egma_prep.errors import BadUsageError
from egma_prep.lock_object import locked_object
from egma_prep.lock_owner import in_use, is_alive, parsed, this_process
from egma_prep.own_files import make_own_folder, open_own
from egma_prep.places import is_remote

_MOST_BYTES = 4096
_PATIENCE_S, _PAUSE_S = 60.0, 0.05


@contextlib.contextmanager
def locked(path: Path) -> Iterator[str]:
    """Hold a lock file, naming this process in it, and remove it at the end.

    The kernel drops the lock of a process that died, so a file left behind locks nobody out. Where
    the file system knows no locks, the process named in the file is looked for instead.

    Yields
    ------
    str
        In an object store, what tells this lock from others; see `check_token`.

    Raises
    ------
    BadUsageError
        If another process holds it, naming that process and its host.
    """
    with contextlib.ExitStack() as stack:
        if is_remote(path):
            yield stack.enter_context(locked_object(path))
            return
        descriptor = _acquired(path)
        stack.callback(os.close, descriptor)
        stack.callback(path.unlink, missing_ok=True)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(this_process()).encode())
        yield ""


@contextlib.contextmanager
def at_work(path: Path) -> Iterator[None]:
    """Tell, as a worker, that something is being written; many may at a time."""
    if is_remote(path):
        yield
        return
    with _opened(path) as descriptor:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


def wait_for_workers(path: Path) -> None:
    """Wait for workers that outlived their run, which was killed a moment ago.

    Raises
    ------
    BadUsageError
        If they are still at work after a minute.
    """
    if is_remote(path):
        return
    deadline_s = time.monotonic() + _PATIENCE_S
    with _opened(path) as descriptor:
        while _lock_alone(descriptor) is False:
            if time.monotonic() > deadline_s:
                raise BadUsageError(
                    f"workers of an earlier run still write to {path.parent.parent}; wait for them"
                )
            time.sleep(_PAUSE_S)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    make_own_folder(path.parent)
    descriptor = open_own(path, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_alone(descriptor: int) -> bool | None:
    """Tell whether the lock is ours alone now; None where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def _acquired(path: Path) -> int:
    while True:
        descriptor = open_own(path, os.O_RDWR)
        got = _got_lock(descriptor)
        removed = _was_removed(path, descriptor)  # by its holder, after we opened it
        if got and not removed:
            return descriptor
        owner = _content(descriptor)
        os.close(descriptor)
        if not removed:
            raise in_use(path, owner)


def _got_lock(descriptor: int) -> bool:
    alone = _lock_alone(descriptor)
    return not is_alive(_content(descriptor)) if alone is None else alone


def _was_removed(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return True


def _content(descriptor: int) -> dict[str, Any]:
    return parsed(os.pread(descriptor, _MOST_BYTES, 0))
