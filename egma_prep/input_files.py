"""The one door to DATA: every file is read once and its fingerprint kept."""

import contextlib
import copy
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from egma_prep.errors import BadInputError, remembered
from egma_prep.parse.csv_file import MAX_TABLE_BYTES, Table, parse_csv
from egma_prep.places import Fingerprint
from egma_prep.trees import Seen, Tree, tree_at

IMAGES = "images:"
"""Begins paths that lie below the folder of images rather than below DATA."""

_ITEMS_AHEAD, _MOST_BYTES_AHEAD = 8, 32 * 2**20
Item = TypeVar("Item")


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
        tree = tree_at(root)
        self._trees = {"": tree, IMAGES: tree_at(images) if images else tree}
        self.fingerprints: dict[str, Fingerprint] = {}
        self._tables: dict[str, Table | BadInputError] = {}
        self._is_ahead = False

    def place(self, path: str) -> Path:
        """Tell where a path lies."""
        below_images = path.removeprefix(IMAGES)
        if self.images is None or below_images == path:
            return self.root / path
        return self.images / below_images

    def list_whole(self) -> None:
        """List all of an object store's objects, a thousand a request, for who asks for most."""
        for tree in set(self._trees.values()):
            tree.list_whole()

    def ahead(
        self, items: Sequence[Item], load: Callable[["InputFiles", Item], object]
    ) -> Iterator[Item]:
        """Yield items; where reading takes requests, those of a few items are made side by side.

        Parameters
        ----------
        load : callable
            Reads what will be read again for an item; its errors come again then, too.
        """

        def attempt(item: Item) -> None:
            ahead = copy.copy(self)
            ahead.fingerprints, ahead._tables, ahead._is_ahead = {}, {}, True
            with contextlib.suppress(Exception):
                load(ahead, item)

        is_far = any(tree.far for tree in self._trees.values())
        for at in range(0, len(items), _ITEMS_AHEAD):
            some = items[at : at + _ITEMS_AHEAD]
            if is_far:
                with ThreadPoolExecutor(_ITEMS_AHEAD) as threads:
                    list(threads.map(attempt, some))
            yield from some

    def _at(self, path: str) -> tuple[Tree, str]:
        below_images = path.removeprefix(IMAGES)
        return self._trees["" if below_images == path else IMAGES], below_images

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
            tree, inside = self._at(path)
            seen = tree.look(inside)
            known |= seen.stamp
            if not seen.regular:
                raise BadInputError("unreadable_file", path, f"{path} is not a file")
            if known["size"] > (_MOST_BYTES_AHEAD if self._is_ahead else MAX_TABLE_BYTES):
                raise BadInputError("oversized", path, f"{path} has {known['size']:,} bytes")
            data = tree.fetch(inside) if self._is_ahead else tree.read(inside)
        except (FileNotFoundError, NotADirectoryError):
            raise BadInputError("missing_file", path, f"{path} is missing") from None
        except OSError as error:
            what = f"{path} cannot be read ({error.strerror or error})"
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
        tree, inside = self._at(path)
        return tree.folders(inside)

    def matching(self, home: str, pattern: str) -> list[str]:
        """List the paths below a folder that match a glob, sorted."""
        tree, inside = self._at(home)
        found = sorted(tree.matching(inside, pattern))
        return [home if path == "." else f"{home}{path}" for path in found]

    def has(self, path: str) -> bool:
        """Tell whether a file or folder exists."""
        tree, inside = self._at(path)
        return tree.has(inside)

    def unchanged(self, path: str, known: Fingerprint) -> bool:
        """Compare a file with its fingerprint; another stamp alone means hashing it again."""
        tree, inside = self._at(path)
        try:
            seen = tree.look(inside)
            if seen.stamp["size"] != known["size"]:
                return False
            same_stamp = seen.stamp.items() <= known.items()
            if "sha256" not in known:  # it could not be read then
                return same_stamp and not (_is_readable_file(seen) and tree.may_read(inside))
            return same_stamp or hashlib.sha256(tree.read(inside)).hexdigest() == known["sha256"]
        except OSError:
            return known["size"] == -1 and not self.has(path)


def _is_readable_file(seen: Seen) -> bool:
    return seen.regular and seen.stamp["size"] <= MAX_TABLE_BYTES
