"""Who may read what is written, and names that somebody else may have planted before us.

Folders are 700 and files 600 whatever the umask. ``--shared`` makes OUT 750, and what is made in a
folder of ours follows that folder: a worker on another machine and a later command need no option.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from egma_prep.errors import BadUsageError

ALONE, SHARED = 0o700, 0o750
_OPEN = 0o666
_OTHERS = 0o077
_REFUSED = {errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""How file systems without modes or without fsync answer; a disk that fails says EIO."""
_NOT_FOR_GIT = "# Readings of patients, or their phantoms: nothing here is ever committed.\n*\n"
GITIGNORE = ".gitignore"


def mode_of(path: Path) -> int:
    """Read who may do what with a file or folder."""
    return stat.S_IMODE(path.stat().st_mode) & 0o777


def is_shared(folder: Path) -> bool:
    """Tell whether a folder of ours is for its group too: by exactly this mode, no other."""
    return mode_of(folder) == SHARED


def make_own_folder(folder: Path, shared: bool | None = None) -> None:
    """Make a folder and those above it; for the group too if `shared`, or if the one above is."""
    if folder.is_dir():
        return
    make_own_folder(folder.parent, shared)
    mode = SHARED if (is_shared(folder.parent) if shared is None else shared) else ALONE
    try:
        folder.mkdir(mode)
        set_mode(folder, mode)
    except FileExistsError:  # another worker was first
        if not folder.is_dir():
            raise


def set_mode(path: Path, mode: int) -> None:
    """Give a folder a mode, or a file the same without the right to enter; links are left alone.

    Where the file system, or another owner, refuses, nothing happens; see `complaints`.
    """
    there = path.lstat()
    if stat.S_ISLNK(there.st_mode):
        return
    wanted = mode if stat.S_ISDIR(there.st_mode) else mode & _OPEN
    wanted |= there.st_mode & stat.S_ISGID  # a project's folder hands its group on
    if stat.S_IMODE(there.st_mode) != wanted:
        with _refusals_ignored():
            path.chmod(wanted)


def create(path: Path, mode: int) -> None:
    """Make an empty file where there is nothing, not even a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    os.close(os.open(path, flags, mode & _OPEN))


def open_own(path: str | Path, flags: int) -> int:
    """Open, or make, a file of a name that anybody can guess, through no link.

    Raises
    ------
    BadUsageError
        If a link or something other than a file lies there.
    """
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise _planted(path) from None
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise _planted(path)
    return descriptor


def _planted(path: str | Path) -> BadUsageError:
    return BadUsageError(
        f"{path} is a link or no ordinary file, and not of egma-prep; look who put it there, remove"
        " it, then repeat the same command"
    )


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; some file systems cannot tell."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with _refusals_ignored():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _refusals_ignored() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise


def keep_out_of_git(folder: Path) -> None:
    """Hide all in a folder from git, unless it has a file for that."""
    path = folder / GITIGNORE
    with contextlib.suppress(FileExistsError):
        create(path, mode_of(folder))
        path.write_text(_NOT_FOR_GIT)


def complaints(folder: Path, mode: int) -> Iterator[str]:
    """Say in a line each what the file system of a folder that we made does not keep."""
    left = mode_of(folder)
    if left & _OTHERS & ~mode:
        yield (
            f"the file system of {folder} keeps no permissions (the mode stays {left:o}), so that"
            " whoever logs in here may read it: choose a folder on another one, or have it mounted"
            " with umask=077"
        )
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _REFUSED:
            yield (
                f"the file system of {folder} does not tell when files are on the disk (fsync:"
                f" {error.strerror}); after a power cut look by: egma-prep verify"
            )
    finally:
        os.close(descriptor)
