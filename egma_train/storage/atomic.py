"""Files and folders that appear whole or not at all, the owner's alone unless they are shared."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from egma_train.errors import BadUsageError, CannotWriteError, first_line

_OWNER_ONLY, _WITH_GROUP = 0o077, 0o027
GIT_SEES_NOTHING = "*\n"
_TEMPORARY = re.compile(r"\.(?P<name>.+?)(\.[0-9]+)?\.(?P<kind>tmp|old)")

_RUSTS_WORD = re.compile(r"(?:\(os error |Os { code: )(\d+)")

_shared = False


@contextlib.contextmanager
def own_modes() -> Iterator[None]:
    """Make everything that this process writes, through whatever library, its owner's alone."""
    before = os.umask(_OWNER_ONLY)
    try:
        yield
    finally:
        share(False)
        os.umask(before)


def share(shared: bool) -> None:
    """Let the group read what is written from now on: folders 750, files 640."""
    global _shared
    _shared = shared
    os.umask(_WITH_GROUP if shared else _OWNER_ONLY)


def make_folder(path: Path) -> Path:
    """Make a folder of ours that git does not see; one that is there already stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o750 if _shared else 0o700)
        (path / ".gitignore").write_text(GIT_SEES_NOTHING)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return path


@contextlib.contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """Give a folder that becomes `place` when all of it is on disk.

    One that is there is moved aside first and deleted last: a kill leaves one of the two, and
    `finish_swaps` puts it back.

    Raises
    ------
    CannotWriteError
        If anything could not be written; then nothing of it is left.
    """
    aside, old = _aside(place), place.parent / f".{place.name}.old"
    with cannot_write(place):
        mode = 0o750 if _shared else 0o700
        place.parent.mkdir(mode, parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode)
        _put_back(old, place)
        try:
            yield aside
            for path in aside.rglob("*"):
                if _shared and path.is_file():  # safetensors makes its files the owner's alone
                    with contextlib.suppress(OSError):  # a file system without modes
                        path.chmod(0o640)
                _sync(path)
            _sync(aside)
            if place.exists():
                os.rename(place, old)
            os.rename(aside, place)
            _sync(place.parent)
        except BaseException:
            _put_back(old, place)
            shutil.rmtree(aside, ignore_errors=True)
            raise
    shutil.rmtree(old, ignore_errors=True)


def _put_back(old: Path, place: Path) -> None:
    """Take back what was moved aside if nothing came in its place."""
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.is_dir() and not old.is_symlink():
        os.rename(old, place)


def discard(folder: Path) -> None:
    """Delete a folder so that a kill in between leaves no half of it under its name."""
    old = folder.parent / f".{folder.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.rename(folder, old)
    shutil.rmtree(old, ignore_errors=True)


def finish_swaps(folder: Path) -> None:
    """Clean up after killed processes; who calls has the folder's lock."""
    for path in folder.glob(".*"):
        found = _TEMPORARY.fullmatch(path.name)
        if found is None:
            continue
        if found["kind"] == "old":
            _put_back(path, folder / found["name"])
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a file that becomes `path` when it is on disk; `CannotWriteError` as `whole_folder`."""
    aside = _aside(path)
    with cannot_write(path):
        try:
            aside.unlink(missing_ok=True)  # another's link would be written through
            yield aside
            _sync(aside)
            os.replace(aside, path)
            _sync(path.parent)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def write_whole(path: Path, text: str) -> None:
    """Write a text aside, then rename: it is there whole or not at all."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")


def append_whole(descriptor: int, path: Path, data: bytes) -> None:
    """Append to an open file, all or an error: a full disk takes a part without a word."""
    with cannot_write(path):
        while data:
            data = data[os.write(descriptor, data) :]


@contextlib.contextmanager
def cannot_write(path: Path) -> Iterator[None]:
    """Name the place in one line; safetensors, tokenizers and torch have errors of their own."""
    try:
        yield
    except BadUsageError:
        raise
    except Exception as error:
        raise CannotWriteError(f"cannot write {path} ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    """Take the system's word of an error, also from below a library's own."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            return below.strerror
        below = below.__cause__ or below.__context__
    told = _RUSTS_WORD.search(str(error))
    return os.strerror(int(told[1])) if told else first_line(error)


def _aside(place: Path) -> Path:
    """Name what is being written; by process, so that two that cannot lock do not meet."""
    return place.with_name(f".{place.name}.{os.getpid()}.tmp")


def _sync(path: Path) -> None:
    """Bring a file, or a folder's names, to the disk; some file systems sync no folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(descriptor)
