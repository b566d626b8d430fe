"""What lies below DATA: on a file system, or in an object store that is listed by folders."""

import errno
import hashlib
import os
import stat
from concurrent.futures import Future
from fnmatch import fnmatchcase
from glob import glob
from io import BufferedReader, FileIO
from pathlib import Path
from posixpath import normpath
from threading import Lock
from typing import IO, Any, NamedTuple, Protocol

from egma_prep.storage.paths import Fingerprint, is_remote, stamp_of, store_of, unreachable

_BUFFER_BYTES = 2**20


class Seen(NamedTuple):
    """A file from outside: size and stamp, and whether it is an ordinary one."""

    stamp: Fingerprint
    regular: bool


class Tree(Protocol):
    """Files below a root, by paths relative to it; `far` is where every read is a request."""

    far: bool

    def list_whole(self) -> None:
        """Look at everything at once, where that takes fewer requests."""

    def look(self, path: str) -> Seen:
        """Tell size and stamp; `OSError` where there is nothing."""

    def read(self, path: str) -> bytes:
        """Read a file; `OSError` where it cannot be."""

    def opened(self, path: str) -> IO[bytes]:
        """Open a file to read it from its begin on; `OSError` where it cannot be."""

    def piece(self, path: str, begin: int, size: int) -> bytes:
        """Read some bytes of a file; `OSError` where it cannot be."""

    def digest(self, path: str) -> str:
        """Hash a file, however large; `OSError` where it cannot be read."""

    def fetch(self, path: str) -> bytes:
        """Read a file for a reader to come."""

    def may_read(self, path: str) -> bool:
        """Tell whether permissions let a file be read."""

    def folders(self, path: str) -> list[str]:
        """List the sub-folders of a folder, sorted; `OSError` where it cannot be read."""

    def matching(self, home: str, pattern: str) -> list[str]:
        """List the paths below a folder that match a glob, relative to it."""

    def has(self, path: str) -> bool:
        """Tell whether a file or folder exists."""

    def names(self, path: str) -> list[str]:
        """List all that lies in a folder, sorted; nothing where it is missing."""


def tree_at(root: Path) -> Tree:
    """Open the tree at a local path or a URL."""
    return _StoreTree(root) if is_remote(root) else _LocalTree(root)


class _LocalTree:
    far = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self._home = f"{root}/"  # joining paths costs as much as reading a small file

    def list_whole(self) -> None:
        pass

    def look(self, path: str) -> Seen:
        status = os.stat(self._home + path)
        stamp: Fingerprint = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        return Seen(stamp, stat.S_ISREG(status.st_mode))

    def read(self, path: str) -> bytes:
        with self._opened(path) as file:
            return file.read()

    def opened(self, path: str) -> IO[bytes]:
        return BufferedReader(self._opened(path), _BUFFER_BYTES)

    def piece(self, path: str, begin: int, size: int) -> bytes:
        with self._opened(path) as file:
            file.seek(begin)
            return file.read(size)

    def digest(self, path: str) -> str:
        with self._opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _opened(self, path: str) -> FileIO:
        """Open an ordinary file; a named pipe would wait for its writer, a device never end."""
        file = FileIO(os.open(self._home + path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise OSError(errno.EINVAL, "it is no ordinary file", path)
        return file

    def fetch(self, path: str) -> bytes:
        return self.read(path)

    def may_read(self, path: str) -> bool:
        return os.access(self.root / path, os.R_OK)

    def folders(self, path: str) -> list[str]:
        try:
            with os.scandir(self.root / path) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def matching(self, home: str, pattern: str) -> list[str]:
        return glob(pattern, root_dir=self.root / home)

    def has(self, path: str) -> bool:
        return os.path.exists(self._home + path)  # False where nobody may look

    def names(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(self.root / path))
        except OSError:
            return []


class _StoreTree:
    """Every folder is listed once, when it is first asked for, and no object looked at alone."""

    far = True

    def __init__(self, root: Path) -> None:
        self.url = root
        self.fs, self.root = store_of(root)
        self._listed: dict[str, dict[str, Seen]] = {}
        self._whole = False
        self._fetched: dict[str, Future[bytes]] = {}
        self._fetching = Lock()

    def list_whole(self) -> None:
        found = self._asked(self.fs.find, self.root, detail=True)
        for name, info in found.items():
            path = name[len(self.root) + 1 :]
            folder, _, name = path.rpartition("/")
            self._listed.setdefault(folder or ".", {})[name] = _seen(info)
        for folder in list(self._listed):
            while folder != ".":
                above, _, name = folder.rpartition("/")
                self._listed.setdefault(above or ".", {}).setdefault(name, _FOLDER)
                folder = above or "."
        self._whole = True

    def look(self, path: str) -> Seen:
        if not self.has(path):
            raise FileNotFoundError(path)
        return self._beside(path).get(_name(path), _FOLDER)

    def read(self, path: str) -> bytes:
        fetched = self._fetched.pop(path, None)
        return fetched.result() if fetched else self._asked(self.fs.cat_file, self._full(path))

    def opened(self, path: str) -> IO[bytes]:
        return self._asked(self.fs.open, self._full(path), "rb")

    def piece(self, path: str, begin: int, size: int) -> bytes:
        return self._asked(self.fs.cat_file, self._full(path), begin, begin + size)

    def digest(self, path: str) -> str:
        return hashlib.sha256(self.read(path)).hexdigest()

    def fetch(self, path: str) -> bytes:
        with self._fetching:
            is_first = path not in self._fetched
            fetched = self._fetched.setdefault(path, Future())
        if is_first:
            try:
                fetched.set_result(self._asked(self.fs.cat_file, self._full(path)))
            except Exception as error:
                fetched.set_exception(error)
        return fetched.result()

    def may_read(self, path: str) -> bool:
        try:
            self._asked(self.fs.cat_file, self._full(path), 0, 1)
        except OSError:
            return False
        return True

    def folders(self, path: str) -> list[str]:
        inside = self._entries(normpath(path))
        return sorted(name for name, seen in inside.items() if not seen.regular)

    def matching(self, home: str, pattern: str) -> list[str]:
        found = [""]
        for part in pattern.split("/"):
            if part != ".":
                found = [
                    f"{place}/{name}" if place else name
                    for place in found
                    for name in self._entries(normpath(f"{home}/{place}" if home else place))
                    if fnmatchcase(name, part) and (part[0] == "." or name[0] != ".")
                ]
        return [place or "." for place in found]

    def has(self, path: str) -> bool:
        return normpath(path) == "." or _name(path) in self._beside(path)

    def names(self, path: str) -> list[str]:
        return sorted(self._entries(normpath(path)))

    def _beside(self, path: str) -> dict[str, Seen]:
        return self._entries(normpath(path).rpartition("/")[0] or ".")

    def _full(self, path: str) -> str:
        inside = normpath(path)
        return self.root if inside == "." else f"{self.root}/{inside}"

    def _entries(self, folder: str) -> dict[str, Seen]:
        if folder not in self._listed and not self._whole:
            full = self._full(folder)
            try:
                found = self._asked(self.fs.ls, full, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                found = []
            named = ((info["name"].rstrip("/").rpartition("/"), info) for info in found)
            self._listed[folder] = {
                name: _seen(info)
                for (place, _, name), info in named
                if place.strip("/") == full.strip("/")
            }
        return self._listed.get(folder, {})

    def _asked(self, method: Any, *arguments: Any, **named: Any) -> Any:
        """Ask the store; that it does not answer is no property of the data."""
        try:
            return method(*arguments, **named)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            raise
        except Exception as error:
            raise unreachable(self.url, error) from None


_FOLDER = Seen({"size": 0}, False)


def _seen(info: dict[str, Any]) -> Seen:
    return Seen(stamp_of(info), True) if info["type"] == "file" else _FOLDER


def _name(path: str) -> str:
    return normpath(path).rpartition("/")[2]
