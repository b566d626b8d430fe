"""One run at a time in an output folder: a file lock that dies with its process."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egma_prep.errors import BadUsageError

_MOST_BYTES = 4096
_PATIENCE_S, _PAUSE_S = 60.0, 0.05


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, naming this process in it, and remove it at the end.

    The kernel drops the lock of a process that died, so a file left behind locks nobody out. Where
    the file system knows no locks, the process named in the file is looked for instead.

    Raises
    ------
    BadUsageError
        If another process holds it, naming that process and its host.
    """
    with contextlib.ExitStack() as stack:
        descriptor = _acquired(path)
        stack.callback(os.close, descriptor)
        stack.callback(path.unlink, missing_ok=True)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(_this_process()).encode())
        yield


@contextlib.contextmanager
def at_work(path: Path) -> Iterator[None]:
    """Tell, as a worker, that something is being written; many may at a time."""
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
    deadline_s = time.monotonic() + _PATIENCE_S
    with _opened(path) as descriptor:
        while not _lock_alone(descriptor):
            if time.monotonic() > deadline_s:
                raise BadUsageError(
                    f"workers of an earlier run still write to {path.parent.parent}; wait for them"
                )
            time.sleep(_PAUSE_S)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _acquired(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        got = _got_lock(descriptor)
        removed = _was_removed(path, descriptor)  # by its holder, after we opened it
        if got and not removed:
            return descriptor
        owner = _content(descriptor)
        os.close(descriptor)
        if not removed:
            raise BadUsageError(
                f"{path.parent.parent} is in use by process {owner.get('pid', '?')} on"
                f" {owner.get('host', '?')} since {owner.get('since', '?')}; wait for it, or choose"
                " another folder by --out"
            )


def _got_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        return not _is_alive(_content(descriptor))
    return True


def _was_removed(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return True


def _this_process() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def _content(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_alive(owner: dict[str, Any]) -> bool:
    if owner.get("host") != socket.gethostname():
        return bool(owner)  # of another machine's process nobody here can tell
    try:
        os.kill(int(owner["pid"]), 0)
    except (KeyError, ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True
