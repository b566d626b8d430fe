"""The one door to DATA: every file is read once and its fingerprint kept."""

import hashlib
import os
import stat
from collections.abc import Collection, Iterable
from glob import glob
from pathlib import Path
from typing import TypedDict

from egma_prep.errors import BadInputError, remembered
from egma_prep.parse.csv_file import MAX_TABLE_BYTES, Table, parse_csv

IMAGES = "images:"
"""Begins paths that lie below the folder of images rather than below DATA."""


class Fingerprint(TypedDict, total=False):
    """Size, modification time and content of a file; an absent one has size -1."""

    size: int
    mtime_ns: int
    sha256: str


class InputFiles:
    """Reads files below DATA and the folder of images, and remembers what it read.

    Attributes
    ----------
    images : Path, optional
        Where paths that begin with `IMAGES` lie.
    fingerprints : dict
        By path relative to the root.
    """

    def __init__(self, root: Path, images: Path | None = None) -> None:
        self.root = root
        self.images = images
        self.fingerprints: dict[str, Fingerprint] = {}
        self._tables: dict[str, Table | BadInputError] = {}

    def place(self, path: str) -> Path:
        """Tell where a path lies."""
        below_images = path.removeprefix(IMAGES)
        if self.images is None or below_images == path:
            return self.root / path
        return self.images / below_images

    def read(self, path: str) -> bytes:
        """Read one file.

        Raises
        ------
        BadInputError
            If it is missing, unreadable or far too large.
        """
        known: Fingerprint = {"size": -1}
        self.fingerprints[path] = known
        try:
            status = os.stat(self.place(path))
            known |= {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
            if not stat.S_ISREG(status.st_mode):
                raise BadInputError("unreadable_file", path, f"{path} is not a file")
            if status.st_size > MAX_TABLE_BYTES:
                raise BadInputError("oversized", path, f"{path} has {status.st_size:,} bytes")
            data = self.place(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise BadInputError("missing_file", path, f"{path} is missing") from None
        except OSError as error:
            what = f"{path} cannot be read ({error.strerror})"
            raise BadInputError("unreadable_file", path, what) from None
        known |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return data

    def table(self, path: str, required: Iterable[str]) -> Table:
        """Parse a CSV; the readings of one patient share its tables."""
        table = remembered(self._tables, path, lambda: parse_csv(self.read(path), path, ()))
        table.require(required)
        return table

    def columns(self, path: str, names: Collection[str]) -> Table:
        """Parse a few columns of a large CSV, which may be gzipped; it is not kept."""
        return parse_csv(self.read(path), path, names, names)

    def forget_tables(self) -> None:
        """Free the parsed tables, before the next patient."""
        self._tables.clear()

    def folders(self, path: str) -> list[str]:
        """List the sub-folders of a folder, sorted; none where it is missing."""
        try:
            with os.scandir(self.place(path)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except OSError:
            return []

    def matching(self, home: str, pattern: str) -> list[str]:
        """List the paths below a folder that match a glob, sorted."""
        found = sorted(glob(pattern, root_dir=self.place(home)))
        return [home if path == "." else f"{home}{path}" for path in found]

    def has(self, path: str) -> bool:
        """Tell whether a file or folder exists."""
        return self.place(path).exists()

    def unchanged(self, path: str, known: Fingerprint) -> bool:
        """Compare a file with its fingerprint; another time stamp alone means hashing it again."""
        try:
            status = os.stat(self.place(path))
            if status.st_size != known["size"]:
                return False
            if "sha256" not in known:  # it could not be read then
                readable = os.access(self.place(path), os.R_OK) and _is_readable_file(status)
                return status.st_mtime_ns == known["mtime_ns"] and not readable
            if status.st_mtime_ns == known["mtime_ns"]:
                return True
            return hashlib.sha256(self.place(path).read_bytes()).hexdigest() == known.get("sha256")
        except OSError:
            return known["size"] == -1 and not self.has(path)


def _is_readable_file(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_size <= MAX_TABLE_BYTES
