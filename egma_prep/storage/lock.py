"""One run at a time in an output folder: a file lock, or in a store an object that is renewed.

filelock does not serve: workers hold the lock of ``at_work`` together, the file says who is at
work, and the lock of a process that died is nobody's.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egma_prep.errors import BadUsageError
from egma_prep.storage.atomic import telling_where
from egma_prep.storage.paths import delete, is_remote, read_bytes, store_of, unreachable
from egma_prep.storage.permissions import make_own_folder, open_own

_MOST_BYTES = 4096  # a lock says who holds it, in a line of JSON
_PATIENCE_S, _PAUSE_S = 60.0, 0.05
_LOOKS_AGAIN_S = 0.5  # at a lock object of another process, each look a request
_RENEWED_S, _EXPIRES_S, _SETTLES_S = 5.0, 45.0, 1.0
"""How often a lock object is renewed, for how long it may not be before it counts as left behind,
and how long whoever takes it over waits for another who did so at the same moment."""


# -- who holds it ----------------------------------------------------------------------------------


class InUseError(BadUsageError):
    """Another process holds a lock."""


def in_use(path: Path, owner: dict[str, Any]) -> InUseError:
    """Say who holds a lock."""
    return InUseError(
        f"{path.parent.parent} is in use by process {owner.get('pid', '?')} on"
        f" {owner.get('host', '?')} since {owner.get('since', '?')}; wait for it, or choose"
        " another folder by --out"
    )


def this_process() -> dict[str, Any]:
    """Name this process for others to look for."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def parsed(data: bytes) -> dict[str, Any]:
    """Read what a lock says of its owner; nothing of one that is damaged."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_alive(owner: dict[str, Any]) -> bool:
    """Tell whether a lock's owner still runs; of another machine's process nobody here can."""
    if owner.get("host") != socket.gethostname():
        return bool(owner)
    try:
        os.kill(int(owner["pid"]), 0)
    except (KeyError, ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


# -- a file ----------------------------------------------------------------------------------------


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
        with telling_where(path):
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
        alone = _lock_alone(descriptor)
        got = not is_alive(_content(descriptor)) if alone is None else alone
        removed = _was_removed(path, descriptor)  # by its holder, after we opened it
        if got and not removed:
            return descriptor
        owner = _content(descriptor)
        os.close(descriptor)
        if not removed:
            raise in_use(path, owner)


def _was_removed(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return True


def _content(descriptor: int) -> dict[str, Any]:
    return parsed(os.pread(descriptor, _MOST_BYTES, 0))


# -- an object of a store --------------------------------------------------------------------------


@contextlib.contextmanager
def locked_object(path: Path) -> Iterator[str]:
    """Hold a lock object, which is created only where there is none, and renew it all the time."""
    mine = this_process() | {"token": secrets.token_hex(8)}
    try:
        _take(path, mine)
    except BadUsageError:
        raise
    except Exception as error:  # each store has its own
        raise unreachable(path, error) from None
    done = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, mine, done), daemon=True)
    renewal.start()
    try:
        yield mine["token"]
    finally:
        done.set()
        renewal.join()
        if _is_mine(path, mine):
            delete(path)


def check_token(path: Path, token: str) -> None:
    """Refuse to go on where a lock object is not, or no longer, the one of that token.

    Raises
    ------
    BadUsageError
        If so.
    """
    if _stored(path).get("token") != token:
        raise BadUsageError(
            f"another run has taken over {path.parent.parent}, for this one did not renew its lock"
            f" for {_EXPIRES_S:.0f} s; wait for it, then repeat the same command"
        )


def _take(path: Path, mine: dict[str, Any]) -> None:
    if _created(path, mine):
        return
    owner = first = _stored(path)
    deadline_s = time.monotonic() + _EXPIRES_S
    here = socket.gethostname()
    while owner and not (owner.get("host") == here and not is_alive(owner)):
        if owner != first:  # renewed: its holder lives, whatever the clocks of two machines say
            raise in_use(path, owner)
        if time.monotonic() > deadline_s:
            break
        time.sleep(_LOOKS_AGAIN_S)
        owner = _stored(path)
    delete(path)
    if not _created(path, mine):
        raise in_use(path, _stored(path))
    time.sleep(_SETTLES_S)
    if not _is_mine(path, mine):
        raise in_use(path, _stored(path))


def _created(path: Path, mine: dict[str, Any]) -> bool:
    fs, name = store_of(path)
    try:
        fs.pipe_file(name, json.dumps(mine | {"renewed": 0}).encode(), mode="create")
    except FileExistsError:
        return False
    return True


def _renew(path: Path, mine: dict[str, Any], done: threading.Event) -> None:
    """Count up in the lock object; what another has taken over is not touched."""
    renewed = 0
    while not done.wait(_RENEWED_S):
        with contextlib.suppress(Exception):  # the next time may do
            if not _is_mine(path, mine):
                return
            renewed += 1
            path.write_bytes(json.dumps(mine | {"renewed": renewed}).encode())


def _is_mine(path: Path, mine: dict[str, Any]) -> bool:
    return _stored(path).get("token") == mine["token"]


def _stored(path: Path) -> dict[str, Any]:
    try:
        return parsed(read_bytes(path))
    except FileNotFoundError:
        return {}
