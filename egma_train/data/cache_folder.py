"""What lies in a folder of caches, whose it is, and what of ours nobody needs any more.

The folder may be one of the user's, with other things in it: a name alone makes nothing ours.
"""

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from egma_train.errors import CannotWriteError
from egma_train.storage.atomic import GIT_SEES_NOTHING, write_whole
from egma_train.storage.lock import is_in_use

INDEX = "index.npz"

_MARK = ".gitignore"
_CACHE = re.compile(r"[0-9a-f]{16}(-maps)?(-antialias)?(-index)?-v[0-9]+")
_KILLED_BUILD = re.compile(rf"\.({_CACHE.pattern})\.([0-9]+\.)?(tmp|old)")
_KILLED_COPY = re.compile(r"\.shards-[a-z0-9_]{8}")
_NOTE = re.compile(r"[0-9a-f]{16}\.txt|\.[0-9a-f]{16}\.txt\.([0-9]+\.)?tmp")
_ARRAYS = re.compile(r"images|grids|text|maps|index\.npz")
_SHARDS = re.compile(r"part-[0-9]+\.(parquet|npz)")

Say = Callable[[str], Any]


def mark(folder: Path) -> None:
    """Tell that a folder is ours, before anything else is in it; git does not see it either."""
    (folder / _MARK).write_text(GIT_SEES_NOTHING)


def folder_for_shards(root: Path) -> Path:
    """Make a folder that shards are copied to while a cache is made of them."""
    folder = Path(mkdtemp(dir=root, prefix=".shards-"))
    mark(folder)
    return folder


def is_ours(folder: Path, names: re.Pattern[str] = _ARRAYS) -> bool:
    """Tell whether a folder has our mark and nothing but our files, or nothing at all."""
    try:
        if folder.is_symlink() or not (inside := list(folder.iterdir())):
            return not folder.is_symlink()
        known = all(one.name == _MARK or names.fullmatch(one.name) for one in inside)
        plain = all(one.is_file() and not one.is_symlink() for one in inside)
        return known and plain and (folder / _MARK).read_text() == GIT_SEES_NOTHING
    except (OSError, ValueError):
        return False


def note_of(root: Path, source: str) -> Path:
    """Name the file that tells which cache is the newest of a source."""
    return root / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.txt"


def read_note(path: Path) -> dict[str, str]:
    """Read a note; what is none of ours, under its source's name, says nothing."""
    with suppress(OSError, ValueError):
        noted = json.loads(path.read_text()) if path.is_file() else None
        if isinstance(noted, dict) and set(noted) == {"source", "key", "stamp"}:
            of_text = all(isinstance(one, str) for one in noted.values())
            if of_text and note_of(path.parent, noted["source"]).name in path.name:
                return noted
    return {}


def write_note(root: Path, source: str, key: str, stamp: str) -> None:
    """Note which cache is the newest of a source, and what its store said of it."""
    noted = {"source": source, "key": key, "stamp": stamp}
    if read_note(note_of(root, source)) != noted:
        write_whole(note_of(root, source), json.dumps(noted))


def tidy(root: Path, alone: bool, source: str, key: str, say: Say) -> None:
    """Keep the newest cache of each source; delete older ones that nobody reads, and say so.

    What a killed build left can only be told from one at work where we are alone.
    """
    if not alone:
        return
    try:
        if "://" not in source:  # a store's stamp is noted already
            write_note(root, source, key, "")
    except CannotWriteError:  # a folder that others made, or a full disk
        return
    kept = {key[:16]}
    for path in (one for one in root.iterdir() if _NOTE.fullmatch(one.name)):
        noted, killed = read_note(path), path.name.endswith(".tmp")
        where = noted.get("source", "")
        empty = killed and path.is_file() and not path.stat().st_size
        if empty or (noted and (killed or not ("://" in where or Path(where).is_dir()))):
            path.unlink(missing_ok=True)
        elif noted:
            kept.add(noted["key"][:16])
    freed = 0
    for path in list(root.iterdir()):
        stale = _CACHE.fullmatch(path.name) and path.name[:16] not in kept
        if _KILLED_BUILD.fullmatch(path.name) or (stale and not is_in_use(path / INDEX)):
            freed += removed(path)
        elif _KILLED_COPY.fullmatch(path.name):
            freed += removed(path, _SHARDS)
    if freed:
        say(f"older copies of shards in {root} are deleted: {freed / 1e6:,.1f} MB freed")


def removed(folder: Path, names: re.Pattern[str] = _ARRAYS) -> int:
    """Delete a folder if it is ours; return its bytes. The mark goes last: a kill leaves it."""
    if not is_ours(folder, names):
        return 0
    freed = 0
    with suppress(OSError):
        for path in sorted(
            folder.iterdir(), key=lambda one: (one.name == _MARK, one.name != INDEX)
        ):
            freed += path.lstat().st_size
            path.unlink()
        folder.rmdir()
    return freed
