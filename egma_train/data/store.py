"""Shards in an object store: looked at by listing them, copied when they are needed."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from upath import UPath

from egma_train.data.shards import find_shards
from egma_train.errors import BadUsageError, first_line


@contextlib.contextmanager
def _in_one_line(url: str) -> Iterator[None]:
    try:
        yield
    except BadUsageError:
        raise
    except ImportError as error:
        raise BadUsageError(f"{url} cannot be opened: {first_line(error)}, by pip") from None
    except Exception as error:  # each store has its own
        raise BadUsageError(
            f"{url} cannot be reached ({first_line(error)}); check URL, credentials and network"
        ) from None


def stamp_of_shards(url: str) -> str:
    """Hash what the store lists of the shards: another where one of them was written again.

    Raises
    ------
    BadUsageError
        If there are none, or a run into the folder is not finished, or the store does not answer.
    """
    with _in_one_line(url):
        files = find_shards(_place(url))
        fs = UPath(files[0]).fs
        listed = fs.ls(UPath(files[0].parent).path, detail=True, refresh=True)
        told = sorted(_told_of(one) for one in listed)
        return hashlib.sha256(json.dumps([url, told]).encode()).hexdigest()


def copy_shards(url: str, folder: Path) -> None:
    """Copy the shards into a local folder; `BadUsageError` as `stamp_of_shards`."""
    with _in_one_line(url):
        for path in find_shards(_place(url)):
            local_copy(path, folder)


def _told_of(listed: dict[str, Any]) -> list[str]:
    facts = ("name", "size", "ETag", "etag", "mtime", "created")
    return [str(listed.get(name)) for name in facts]


def stamp_of_shard(path: Path) -> list[str]:
    """Tell what changes where a shard is written anew.

    Raises
    ------
    BadUsageError
        If it is not there, or the store does not answer.
    """
    if is_url(str(path)):
        with _in_one_line(str(path)):
            stored = UPath(path)
            return _told_of(stored.fs.info(stored.path, refresh=True))
    try:
        found = path.stat()
    except OSError as error:
        raise BadUsageError(f"{path} cannot be read ({error.strerror}); put it back") from None
    return [str(found.st_size), str(found.st_mtime_ns)]


def is_url(shards: str) -> bool:
    """Tell an object store's address from a path."""
    return "://" in shards


def shards_of(url: str) -> list[Path]:
    """List the shards in a store; `BadUsageError` as `stamp_of_shards`."""
    with _in_one_line(url):
        return find_shards(_place(url))


def local_copy(path: Path, folder: Path) -> Path:
    """Copy a shard out of a store; one that is local stays where it is."""
    if not is_url(str(path)):
        return path
    with _in_one_line(str(path)):
        copy, stored = folder / path.name, UPath(path)
        stored.fs.get_file(stored.path, str(copy))
        return copy


def _place(url: str) -> Path:
    return cast(Path, UPath(url, use_listings_cache=False))
