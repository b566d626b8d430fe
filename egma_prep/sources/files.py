"""The one door to DATA: every file is read once and its fingerprint kept."""

import contextlib
import copy
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple, TypeVar

from egma_prep.errors import BadInputError, BadUsageError, remembered, unreadable
from egma_prep.sources.csv_index import Index, index_of
from egma_prep.sources.csv_table import MAX_TABLE_BYTES, Table, parse_csv
from egma_prep.sources.manifests import manifest
from egma_prep.sources.published import LIST, Release, release
from egma_prep.storage.listing import Seen, Tree, tree_at
from egma_prep.storage.paths import Fingerprint

IMAGES = "images:"
"""Begins paths that lie below the folder of images rather than below DATA."""

_ITEMS_AHEAD, _MOST_BYTES_AHEAD = 8, 32 * 2**20
MAX_LINE_BYTES = 16 * 2**20
"""A narrative of minutes has half a megabyte."""
_PATIENTS = "p[0-9][0-9]"
_PACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAY_BE_CUT = (
    "its last line does not end: it may be cut, and rows be missing; see whether it is whole"
)
NOT_UNPACKED = "still packed, so that nothing in it is read; unpack it there"
A_COPY = "not read, though the table it copies is missing or damaged; give it that table's name"
_NAMED = re.compile(r"(.+?)((?:\.csv)?\.\w+)")
Item = TypeVar("Item")


class Remark(NamedTuple):
    """What was passed over, or taken for something else, while the tree was looked through.

    `what` holds nothing of a row and no id, so that `scan` may show it; `path` may.
    """

    path: str
    what: str


class Line(NamedTuple):
    """A line of a file that is too large to keep; its digest leaves out the blanks around it."""

    path: str
    number: int
    begin: int
    size: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.number}"


class InputFiles:
    """Reads files below DATA and the folder of images, and remembers what it read.

    Attributes
    ----------
    images : Path, optional
        Where paths that begin with `IMAGES` lie.
    fingerprints : dict
        By path relative to the root.
    remarks : dict
        In the order in which they were made; the values say nothing.
    as_published : bool
        Whether a file that is not as the release's list of checksums says is refused.
    differing : set of str
        Paths of those that were.
    """

    def __init__(self, root: Path, images: Path | None = None, as_published: bool = True) -> None:
        self.root, tree = _opened(root)
        self.images, self._trees = None, {"": tree, IMAGES: tree}
        if images:
            self.images, self._trees[IMAGES] = _opened(images)
        self._names: dict[str, dict[str, list[str]]] = {}
        self.remarks: dict[Remark, None] = {}
        self.fingerprints: dict[str, Fingerprint] = {}
        self._tables: dict[str, Table | BadInputError] = {}
        self._indexes: dict[tuple[str, str], Index] = {}
        self._is_ahead = False
        self.as_published, self.differing = as_published, set[str]()
        self._releases: dict[str, Release] | None = None

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

    def remark(self, path: str, what: str) -> None:
        """Keep something that the user is told once."""
        self.remarks[Remark(path, what)] = None

    def read(self, path: str) -> bytes:
        """Read one file, also where it lies there under a name that differs by capitals alone.

        Raises
        ------
        BadInputError
            If it is missing, unreadable or far too large.
        """
        self.fingerprints[path] = {"size": -1}
        found = path
        try:
            try:
                seen = self._look(path)
            except (FileNotFoundError, NotADirectoryError):
                found = self.spelled(path)
                if found == path and path.endswith(".csv") and self.has(f"{path}.gz"):
                    found = f"{path}.gz"
                seen = self._look(found)
            if not seen.regular and self.has(inner := _inside(found)):
                self.fingerprints.pop(path)  # a folder has no content to compare later
                found, seen = inner, self._look(inner)
            known = self.fingerprints[found] = seen.stamp.copy()
            if not seen.regular:
                raise BadInputError("unreadable_file", path, f"{path} is not a file")
            if known["size"] > (_MOST_BYTES_AHEAD if self._is_ahead else MAX_TABLE_BYTES):
                raise BadInputError("oversized", path, f"{path} has {known['size']:,} bytes")
            tree, inside = self._at(found)
            data = tree.fetch(inside) if self._is_ahead else tree.read(inside)
        except (FileNotFoundError, NotADirectoryError):
            what = "is missing"
            if packed := self._packed(path):
                what = f"is still in {packed}, which is not unpacked"
            elif twin := self._copy_beside(path):
                what += f"; {twin} lies there: if it is the one, give it that name"
            elif other := self._under_another_suffix(path):
                what += f"; {other} lies there, but such files are not read: convert it"
            raise BadInputError("missing_file", path, f"{path} {what}") from None
        except OSError as error:
            what = f"{path} cannot be read ({error.strerror or error})"
            raise BadInputError("unreadable_file", path, what) from None
        known |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if data.startswith(_LFS_POINTER):
            raise BadInputError("git_lfs_pointer", path, f"{path} is a pointer of git LFS")
        if self.as_published:
            self._compare(found, known["sha256"])
        return data

    def lines(self, path: str) -> Iterator[tuple[Line, bytes]]:
        """Read a file of any size by its lines, blank ones left out; nothing of it is kept.

        A line of over `MAX_LINE_BYTES` comes without its text.

        Raises
        ------
        BadInputError
            If it is missing, unreadable, or not as its release lists it; the last only at its end.
        """
        whole, begin = hashlib.sha256(), 0
        try:
            tree, inside = self._at(path)
            known = self._look(path).stamp.copy()
            with tree.opened(inside) as file:
                for number in count(1):
                    text = piece = file.readline(MAX_LINE_BYTES)
                    if not piece:
                        break
                    size, own = len(piece), hashlib.sha256(piece.strip())
                    whole.update(piece)
                    while len(piece) == MAX_LINE_BYTES and not piece.endswith(b"\n"):
                        text, piece = b"", file.readline(MAX_LINE_BYTES)
                        size += len(piece)
                        own.update(piece)
                        whole.update(piece)
                    if text.strip() or size > len(text):
                        yield Line(path, number, begin, size, own.hexdigest()), text
                    begin += size
        except FileNotFoundError:
            raise BadInputError("missing_file", path, f"{path} is missing") from None
        except OSError as error:
            what = f"{path} cannot be read ({error.strerror or error})"
            raise BadInputError("unreadable_file", path, what) from None
        self.fingerprints[path] = known | {"size": begin, "sha256": whole.hexdigest()}
        if self.as_published:
            self._compare(path, whole.hexdigest())

    def line(self, line: Line) -> bytes:
        """Read a line again.

        Raises
        ------
        BadUsageError
            If the file changed since it was read as a whole, or cannot be read any more: nothing
            is known of damage.
        """
        tree, inside = self._at(line.path)
        try:
            data = tree.piece(inside, line.begin, line.size)
        except OSError as error:
            raise unreadable(line.path, error) from None
        if hashlib.sha256(data.strip()).hexdigest() != line.sha256:
            raise BadUsageError(f"{line.path} changed while it was read; repeat the same command")
        return data

    def releases(self) -> dict[str, Release]:
        """Read the lists of checksums at the roots of the releases, by path, the deepest first."""
        if self._releases is None:
            homes = manifest("mimic-cxr")["layout"]["homes"]
            lists = [LIST if home == "." else f"{home}/{LIST}" for home in homes]
            pairs = [(root, one) for root in self._roots() for one in lists]
            found = {path for pair in pairs for path in self.matching(*pair)}
            deepest_first = sorted(found, key=lambda path: (-len(path), path))
            self._releases = {path: self._release(path) for path in deepest_first}
        return self._releases

    def _roots(self) -> list[str]:
        return [""] if self.images is None else ["", IMAGES]

    def _release(self, path: str) -> Release:
        inside = path.removeprefix(IMAGES)
        root = self.root if inside == path or self.images is None else self.images
        return release(str(root), inside, tuple(self._look(path).stamp.items()))

    def _compare(self, path: str, sha256: str) -> None:
        """Refuse a file that its release lists with another digest.

        The lists decide what is rejected, so they count among the inputs, and where DATA or the
        folder of images has none its absence does.
        """
        for root in self._roots():
            self.fingerprints.setdefault(f"{root}{LIST}", {"size": -1})
        for place, one in self.releases().items():
            self.fingerprints[place] = one.fingerprint
        for place, one in self.releases().items():
            home = place.removesuffix(LIST)
            if path.startswith(home):
                if one.differs(path.removeprefix(home), sha256):
                    self.differing.add(path)
                    what = f"{path} is not as published: {place} has another SHA-256 for it"
                    raise BadInputError("not_as_published", path, what)
                return

    def _look(self, path: str) -> Seen:
        tree, inside = self._at(path)
        return tree.look(inside)

    def stamp(self, path: str) -> Fingerprint:
        """Tell size and time stamp of an ordinary file; `OSError` where there is none."""
        seen = self._look(path)
        if not seen.regular:
            raise IsADirectoryError(path)
        return seen.stamp

    def digest(self, path: str) -> str:
        """Hash a file of any size that nothing else is wanted of; `OSError` if it is unreadable."""
        tree, inside = self._at(path)
        return tree.digest(inside)

    def table(self, path: str, required: Iterable[str]) -> Table:
        """Parse a CSV; the readings of one patient share its tables."""
        table = remembered(self._tables, path, lambda: parse_csv(self.read(path), path, ()))
        table.require(required)
        self._remark_copies(table)
        return table

    def _remark_copies(self, table: Table) -> None:
        for name in sorted(table.copied):
            what = f"the column {name!r} stands there twice with the same values, read once"
            self.remark(table.path, what)

    def columns(
        self, path: str, names: Collection[str], required: Iterable[str] | None = None
    ) -> Table:
        """Parse a few columns of a large CSV, by default all required; it is not kept."""
        needed = names if required is None else required
        table = parse_csv(self.read(path), path, needed, names)
        self._remark_copies(table)
        return table

    def excerpt(self, path: str, column: str, value: str, required: Iterable[str]) -> Table:
        """Parse the rows of one id of a CSV that may be too large to be read whole.

        Where each id's rows stand is looked up once; they follow each other, mostly.

        Raises
        ------
        BadInputError
            If the table is missing or unreadable, lacks a column, or has no row of the id.
        """
        self.fingerprints.setdefault(path, {"size": -1})
        try:
            known = self.fingerprints[path] = {**self.stamp(path)}
            if (path, column) not in self._indexes:
                with self.place(path).open("rb") as file:
                    self._indexes[path, column] = index_of(file, path, column)
            index = self._indexes[path, column]
            known["sha256"] = index.sha256
            spans = index.spans.get(value, [])
            rows = [index.header]
            with self.place(path).open("rb") as file:
                for span in spans:
                    file.seek(span.begin)
                    rows.append(file.read(span.size))
        except FileNotFoundError:
            raise BadInputError("missing_file", path, f"{path} is missing") from None
        except OSError as error:
            what = f"{path} cannot be read ({error.strerror or error})"
            raise BadInputError("unreadable_file", path, what) from None
        if self.as_published:
            self._compare(path, index.sha256)
        if not spans:
            raise BadInputError("no_gaze_rows", path, f"{path} has no row of {value}")
        names = {*required}
        table = parse_csv(b"".join(rows), path, names, names)
        numbers = [number for span in spans for number in range(span.row, span.row + span.rows)]
        return replace(table, numbers_in_file=numbers) if len(numbers) == len(table) else table

    def forget_tables(self) -> None:
        """Free the parsed tables, before the next patient."""
        self._tables.clear()

    def folders(self, path: str) -> list[str]:
        """List the sub-folders of a folder, sorted; none where it is missing.

        Raises
        ------
        BadInputError
            If it, or one above it, may not be read.
        """
        found = self.spelled(path)
        if not self.has(found) and (packed := self._packed(found)):
            self.remark(packed, NOT_UNPACKED)
        tree, inside = self._at(found)
        try:
            return tree.folders(inside)
        except OSError as error:
            what = f"{path} cannot be read ({error.strerror or error})"
            raise BadInputError("unreadable_file", path, what) from None

    def check_readable(self, folder: str) -> None:
        """Look into a folder: one that may not be read looks as if it were empty.

        Raises
        ------
        BadInputError
            If it may not be entered.
        """
        try:
            self._look(f"{folder}/.")
        except OSError as error:
            what = f"{folder} cannot be read ({error.strerror or error})"
            raise BadInputError("unreadable_file", folder, what) from None

    def matching(self, home: str, pattern: str) -> list[str]:
        """List the paths below a folder that match a glob, sorted, whatever their capitals.

        Some of a copy's files may have other ones. What is there in two spellings counts only as it
        was asked for.
        """
        tree, inside = self._at(home)
        found = {*tree.matching(inside, pattern), *self._matching(home, pattern)}
        by_letters = sorted(found, key=lambda path: (path.lower(), path))
        return [home if path == "." else f"{home}{path}" for path in by_letters]

    def tables_matching(self, home: str, pattern: str) -> list[str]:
        """List the tables that match a glob, plain ones and then those that were gzipped."""
        return self.matching(home, pattern) + self.matching(home, f"{pattern}.gz")

    def _matching(self, home: str, pattern: str) -> list[str]:
        found = [""]
        for part in pattern.lower().split("/"):
            found = [
                f"{place}/{name}" if place else name
                for place in found
                for folded, names in self._names_in(home + place).items()
                for name in names
                if len(names) == 1 and folded[0] != "." and fnmatchcase(folded, part)
            ]
        return found

    def has(self, path: str) -> bool:
        """Tell whether a file or folder exists, by this very name."""
        tree, inside = self._at(path)
        return tree.has(inside)

    def first(self, paths: Sequence[str]) -> str:
        """Choose the first path that is there, as it is spelled on disk; the first of all if none.

        Other capitals count only where nothing has one of the very names.
        """
        exact = (path for path in paths if self.has(path))
        spelled = (found for path in paths if (found := self.spelled(path)) != path)
        return next(chain(exact, spelled), paths[0])

    def spelled(self, path: str) -> str:
        """Tell how a path that is missing is spelled on disk, if capitals alone differ.

        Copies through other systems change them. What is not there, or there in two spellings,
        stays as it was asked for. Only the deepest folder that is there is listed, once.
        """
        if self.has(path):
            return path
        here, missing = self._deepest(path)
        for at, part in enumerate(missing):
            names = self._names_in(here).get(part.lower(), [])
            if len(names) != 1:
                return path
            here = _join(here, names[0])
            if names[0] != part and at < len(missing) - 1:
                self.remark(f"{here}/", "read though the release has other capitals")
        return here

    def _deepest(self, path: str) -> tuple[str, list[str]]:
        """Split a missing path into the folder that is there, and the names that are not."""
        start = IMAGES if path.startswith(IMAGES) else ""
        parts = path.removeprefix(start).split("/")
        kept = len(parts) - 1
        while kept and not self.has(start + "/".join(parts[:kept])):
            kept -= 1
        return start + "/".join(parts[:kept]), parts[kept:]

    def _names_in(self, folder: str) -> dict[str, list[str]]:
        """List a folder by names in small letters, once."""
        if folder not in self._names:
            tree, inside = self._at(folder)
            found: dict[str, list[str]] = {}
            for name in tree.names(inside or "."):
                found.setdefault(name.lower(), []).append(name)
            self._names[folder] = found
        return self._names[folder]

    def _packed(self, path: str) -> str | None:
        """Find the archive in which a missing path may be, where one has its name."""
        here, missing = self._deepest(path)
        there = self._names_in(here)
        names = (
            name for suffix in _PACKED for name in there.get(f"{missing[0]}{suffix}".lower(), ())
        )
        return next((_join(here, name) for name in names), None)

    def _under_another_suffix(self, path: str) -> str | None:
        """Find a file of a missing one's name that somebody saved in another format."""
        here, missing = self._deepest(path)
        name = missing[0].lower()
        stem = name.rpartition(".")[0]
        names = self._names_in(here) if len(missing) == 1 and stem else {}
        return next(
            (names[one][0] for one in names if one != name and one.rpartition(".")[0] == stem), None
        )

    def remark_copy(self, path: str) -> None:
        """Name what may be a second download of a table that is missing or damaged."""
        if twin := self._copy_beside(path):
            self.remark(twin, A_COPY)

    def _copy_beside(self, path: str) -> str | None:
        """Find a file named as browsers and desktops name a second one: ``x (1).csv``."""
        here, missing = self._deepest(path)
        named = _NAMED.fullmatch(missing[0].lower())
        if named is None or len(missing) > 1:
            return None
        there = self._names_in(here)
        copies = (
            names[0]
            for folded, names in there.items()
            if folded.startswith(named[1])
            and folded.endswith(named[2])
            and folded[len(named[1])] in " (-"
        )
        return next((_join(here, name) for name in copies), None)

    def packed_in(self, folder: str) -> list[str]:
        """List the archives in a folder that nobody unpacked beside them."""
        there = self._names_in(folder)
        return [
            name
            for folded, names in sorted(there.items())
            for suffix in _PACKED
            if folded.endswith(suffix) and folded.removesuffix(suffix) not in there
            for name in names
        ]

    def unchanged(self, path: str, known: Fingerprint) -> bool:
        """Compare a file with its fingerprint; another stamp alone means hashing it again."""
        tree, inside = self._at(path)
        try:
            seen = tree.look(inside)
            if seen.stamp["size"] != known["size"]:
                return False
            same_stamp = seen.stamp.items() <= known.items()
            if "sha256" not in known:  # it could not be read then
                is_file = seen.regular and seen.stamp["size"] <= MAX_TABLE_BYTES
                return same_stamp and not (is_file and tree.may_read(inside))
            return same_stamp or hashlib.sha256(tree.read(inside)).hexdigest() == known["sha256"]
        except OSError:
            return known["size"] == -1 and not self.has(path)


def _opened(root: Path) -> tuple[Path, Tree]:
    """Open a tree; of a folder ``files`` that holds patients the one above, where tables lie."""
    tree = tree_at(root)
    if root.name.lower() == "files" and tree.matching("", _PATIENTS):
        return root.parent, tree_at(root.parent)
    return root, tree


def _inside(folder: str) -> str:
    """Name the file in a folder of its own name, as Kaggle unpacks ``X.csv`` to ``X.csv/X.csv``."""
    return f"{folder}/{folder.rpartition('/')[2].removeprefix(IMAGES).removesuffix('.gz')}"


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder.removeprefix(IMAGES) else f"{folder}{name}"


def told(remarks: Iterable[Remark], with_paths: bool = True) -> Iterator[str]:
    """Say in a line each what was remarked, and of how many files."""
    paths: dict[str, list[str]] = defaultdict(list)
    for path, what in remarks:
        paths[what].append(path)
    for what, found in paths.items():
        if with_paths:
            more = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
            yield f"{found[0]}{more}: {what}"
        else:
            yield f"{len(found):,} x {what}"
