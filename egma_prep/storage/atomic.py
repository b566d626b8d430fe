"""Files of ours: they appear whole or not at all, and can be told from damaged ones."""

import contextlib
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egma_prep.errors import BadUsageError, unreadable
from egma_prep.storage.paths import (
    Fingerprint,
    Stamps,
    beginning,
    is_of_a_store,
    is_remote,
    read_bytes,
    stamp,
    upload,
)
from egma_prep.storage.permissions import (
    ALONE,
    SHARED,
    create,
    is_shared,
    make_own_folder,
    set_mode,
    sync,
)

TEMPORARY = ".*.tmp"
"""Matches the names of files that are being written."""
_BEFORE_SEAL, _AFTER_SEAL = b',\n "seal": "', b'"\n}\n'
_HEAD_BYTES = 4096


@contextlib.contextmanager
def appearing_whole(path: Path, synced: bool = True, shared: bool | None = None) -> Iterator[Path]:
    """Offer a temporary file beside `path`; rename on success, delete on failure.

    Who has it not `synced` here does that before a record says that the file is there. The group
    may read it if `shared`; by default if it may read the folder, which is one of ours.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="egma-") as folder:
            yield (temporary := Path(folder) / path.name)
            upload(temporary, path)
        return
    make_own_folder(path.parent, shared)
    mode = SHARED if (is_shared(path.parent) if shared is None else shared) else ALONE
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with telling_where(path):
            create(temporary, mode)  # before a library does, as the umask says
            yield temporary
            set_mode(temporary, mode)
            if synced:
                sync(temporary)
            os.replace(temporary, path)
            if synced:
                sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def telling_where(path: Path) -> Iterator[None]:
    """Say of an error of the disk what could not be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]
        raise BadUsageError(
            f"cannot write {path} ({reason}); mend that and repeat the same command"
        ) from None


def refuse_foreign(path: Path, mark: bytes) -> None:
    """Refuse to replace a file that has no `mark` near its beginning, as all of ours of its kind.

    Raises
    ------
    BadUsageError
        If it is one, or a link, or no file.
    """
    is_link = not is_remote(path) and path.is_symlink()
    if is_link or (path.exists() and not (path.is_file() and mark in beginning(path, _HEAD_BYTES))):
        raise BadUsageError(
            f"{path} is not of egma-prep; move it away, then repeat the same command"
        )


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that no reader ever sees half of it."""
    with appearing_whole(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, keys sorted; a last one, ``seal``, is the checksum of all that stands before."""
    digest = hashlib.sha256()
    with appearing_whole(path) as temporary, temporary.open("wb") as file:
        for piece in _pieces({name: content[name] for name in content if name != "seal"}):
            file.write(piece)
            digest.update(piece)
        file.write(b"%s%s%s" % (_BEFORE_SEAL, digest.hexdigest().encode(), _AFTER_SEAL))


def _pieces(content: dict[str, Any], line: str = "\n ") -> Iterator[bytes]:
    """Give each entry of the two upper levels a line; json's own indenting is slow, and large."""
    before = "{"
    for name, value in sorted(content.items()):
        yield f"{before}{line}{json.dumps(name)}: ".encode()
        before = ","
        if line == "\n " and isinstance(value, dict) and value:
            yield from _pieces(value, f"{line} ")
            yield f"{line}}}".encode()
        else:
            yield json.dumps(value, sort_keys=True).encode()


def _is_sealed(data: bytes) -> bool:
    before, _, seal = data.rpartition(_BEFORE_SEAL)
    return seal == hashlib.sha256(before).hexdigest().encode() + _AFTER_SEAL


def read_json(path: Path) -> dict[str, Any] | None:
    """Read JSON of ours; None if the file is missing.

    Raises
    ------
    BadUsageError
        If it is damaged.
    """
    try:
        data = read_bytes(path)
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError("it is no object")
        if "seal" in content and not _is_sealed(data):
            raise ValueError("its checksum is another")
        return content
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        if is_of_a_store(error):  # that it cannot be read now is no damage
            raise
        if isinstance(error, OSError):
            raise unreadable(path, error) from None
        raise damaged(path, error) from None


def damaged(path: Path, why: object) -> BadUsageError:
    """Say that a file of ours is damaged."""
    return BadUsageError(
        f"{path} is damaged ({why}); delete it and repeat egma-prep run with the same options"
    )


def fingerprint_of(path: Path) -> Fingerprint:
    """Digest a file of ours."""
    if is_remote(path):
        return {"sha256": hashlib.sha256(read_bytes(path)).hexdigest()} | stamp(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": os.fstat(file.fileno()).st_size, "sha256": digest}


def is_as_written(path: Path, known: Fingerprint | None, stamps: Stamps | None = None) -> bool:
    """Compare a file of ours with its fingerprint, or its absence with there being none.

    Parameters
    ----------
    stamps : dict, optional
        Those of all objects of ``out/``: an object that still has its own is not read.
    """
    if stamps is not None and (known is None or path not in stamps):
        return known is None and path not in stamps
    try:
        if stamps is not None and known is not None and stamps[path].items() <= known.items():
            return True
        wanted = known or {}
        same_size = path.stat().st_size == wanted.get("size")
        return same_size and fingerprint_of(path)["sha256"] == wanted.get("sha256")
    except OSError:
        return known is None and not path.exists()
