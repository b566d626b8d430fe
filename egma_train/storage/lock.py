"""One process at a time: a lock file's lock, which the kernel drops when its process dies."""

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from egma_train.errors import BadUsageError, CannotWriteError

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
_MOST_BYTES = 200
_OWNER = re.compile(rb"(process [0-9]+ on [^\n]{1,160})?")


@contextlib.contextmanager
def locked(path: Path, taken: str, wait: Callable[[str], Any] | None = None) -> Iterator[bool]:
    """Hold a lock.

    Parameters
    ----------
    path : Path
        Of the lock file; its folder is there. It stays, and locks nobody out.
    taken : str
        What to say if another process has it, after which it is named.
    wait : callable, optional
        Says so and waits; without it a lock that is taken is an error.

    Yields
    ------
    bool
        Whether there is a lock: some file systems know none, and folders of others let none be
        made.

    Raises
    ------
    BadUsageError
        If another process has it, or the file is no lock of ours.
    """
    descriptor = _opened(path)
    if descriptor is None:
        yield False
        return
    try:
        _refuse_foreign(descriptor, path)
        yield _acquired(descriptor, taken, wait)
    finally:
        os.close(descriptor)


def in_use(path: Path) -> int | None:
    """Tell, until the descriptor is closed, that a file is being read; many may."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return descriptor
    return None


def is_in_use(path: Path) -> bool:
    """Tell whether any process reads a file; true where that cannot be known."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _opened(path: Path) -> int | None:
    # Whoever may write to the folder could have put a link there, whose target we would write to.
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o640)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            with contextlib.suppress(OSError):
                return os.open(path, os.O_RDONLY | flags)
            return None
        reason = "is a link" if error.errno == errno.ELOOP else f"({error.strerror})"
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise BadUsageError(f"the lock {path} {reason}; delete it") from None
        raise CannotWriteError(f"cannot write {path} {reason}") from None


def _refuse_foreign(descriptor: int, path: Path) -> None:
    """Stop before a file that is not ours is written over, or another name of one."""
    found = os.fstat(descriptor)
    plain = stat.S_ISREG(found.st_mode) and found.st_nlink <= 1  # 0: just deleted
    if not plain or not _OWNER.fullmatch(os.pread(descriptor, _MOST_BYTES + 1, 0)):
        raise BadUsageError(
            f"{path} is in the place of a lock, and no lock of ours; move it away or delete it"
        )


def _acquired(descriptor: int, taken: str, wait: Callable[[str], Any] | None) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _TAKEN:
            return False
        owner = os.pread(descriptor, _MOST_BYTES, 0).decode(errors="replace").strip()
        line = f"{taken} {owner or 'another process'}"
        if wait is None:
            raise BadUsageError(f"{line}; wait for it") from None
        wait(f"{line}; waiting for it")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    with contextlib.suppress(OSError):  # opened to read alone, or the disk is full
        owner_now = f"process {os.getpid()} on {socket.gethostname()}".encode()
        os.ftruncate(descriptor, 0)
        if os.pwrite(descriptor, owner_now, 0) < len(owner_now):
            os.ftruncate(descriptor, 0)  # half a line would be no lock of ours
    return True
