"""Files that a user was given by others: ordinary ones alone are read, and no endless ones."""

import errno
import os
import stat
from pathlib import Path

MOST_IMAGE_BYTES, MOST_TABLE_BYTES = 2**30, 2**29


def read_ordinary(path: Path, most_bytes: int) -> bytes:
    """Read a whole file.

    Raises
    ------
    OSError
        If it cannot be read, is larger, or is no ordinary file: a named pipe would wait for its
        writer, a device never end.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
        if status.st_size > most_bytes:
            raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes", str(path))
        return file.read()
