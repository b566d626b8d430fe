"""The one door to DATA: every file is read once and its fingerprint kept."""

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from egma_prep.errors import BadInputError, remembered
from egma_prep.parse.csv_file import Table, parse_csv

_MAX_BYTES = 256 * 2**20


class Fingerprint(TypedDict, total=False):
    """Size, modification time and content of a file; an absent one has size -1."""

    size: int
    mtime_ns: int
    sha256: str


class InputFiles:
    """Reads files below a root and remembers what it read.

    Attributes
    ----------
    fingerprints : dict
        By path relative to the root.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fingerprints: dict[str, Fingerprint] = {}
        self._tables: dict[str, Table | BadInputError] = {}

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
            status = os.stat(self.root / path)
            known |= {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
            if not stat.S_ISREG(status.st_mode):
                raise BadInputError("unreadable_file", path, f"{path} is not a file")
            if status.st_size > _MAX_BYTES:
                raise BadInputError("oversized", path, f"{path} has {status.st_size:,} bytes")
            data = (self.root / path).read_bytes()
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

    def forget_tables(self) -> None:
        """Free the parsed tables, before the next patient."""
        self._tables.clear()

    def folders(self, path: str) -> list[str]:
        """List the sub-folders of a folder, sorted; none where it is missing."""
        try:
            with os.scandir(self.root / path) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except OSError:
            return []

    def has(self, path: str) -> bool:
        """Tell whether a file or folder exists."""
        return (self.root / path).exists()


def unchanged(root: Path, path: str, known: Fingerprint) -> bool:
    """Compare a file with its fingerprint; another time stamp alone means hashing it again."""
    try:
        status = os.stat(root / path)
    except OSError:
        return known["size"] == -1
    if status.st_size != known["size"]:
        return False
    if status.st_mtime_ns == known["mtime_ns"]:
        return True
    try:
        return hashlib.sha256((root / path).read_bytes()).hexdigest() == known.get("sha256")
    except OSError:
        return False
