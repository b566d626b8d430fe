"""Local folders and object stores by one kind of path; all that differs in a store is here."""

import contextlib
import io
import os
import re
import shutil
from pathlib import Path
from typing import IO, Any, TypedDict, cast

from upath import UPath

from egma_prep.errors import BadUsageError
from egma_prep.storage.permissions import make_own_folder, open_own

_ONE_SLASH = re.compile(r"[a-z0-9]{2,}:/(?!/)")
_STAMPS = ("ETag", "etag", "md5Hash", "mtime", "created", "LastModified")
_LIBRARIES = {"botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "adlfs", "azure"}
WORKING_FOLDER_GONE = (
    "the working folder is gone (deleted, or its disk is not mounted); cd to one that exists, then"
    " repeat the same command"
)
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs"}


class Fingerprint(TypedDict, total=False):
    """Size, time stamp and content of a file; an absent one has size -1.

    The stamp is the modification time, in an object store what it calls the ETag.
    """

    size: int
    mtime_ns: int
    etag: str
    sha256: str


Stamps = dict[Path, Fingerprint]


def place_of(text: str | Path) -> Path:
    """Make a path of what a user gave: that of a store, by its URL, has the methods of a local one.

    Raises
    ------
    BadUsageError
        If nothing that is installed opens such URLs.
    """
    url = str(text)
    if _ONE_SLASH.match(url):
        raise BadUsageError(
            f"{url} is neither a path nor a URL; write {url.replace(':/', '://', 1)}"
        )
    if "://" not in url or url.startswith("file://"):
        return Path(url.removeprefix("file://")) if isinstance(text, str) else text
    scheme = url.partition("://")[0]
    try:
        whole: dict[str, Any] = (
            {"max_concurrency": 1} if scheme in ("s3", "s3a") else {}
        )  # one GET an object
        place = UPath(url.rstrip("/"), use_listings_cache=False, **whole)
        place.fs  # noqa: B018 - imports the library
    except ImportError:
        package = _PACKAGES.get(scheme, f"that fsspec wants for {scheme}://")
        raise BadUsageError(
            f"{url} needs the package {package}; install it: pip install {package}"
        ) from None
    except ValueError as error:
        raise BadUsageError(f"{url} cannot be opened ({error}); is the URL right?") from None
    except Exception as error:
        raise unreachable(url, error) from None
    return cast(Path, place)


def is_remote(path: Path) -> bool:
    """Tell whether a path is one of an object store."""
    return not isinstance(path, os.PathLike)


def resolved(path: Path) -> Path:
    """Make a local path absolute.

    Raises
    ------
    BadUsageError
        If it is relative to a working folder that was deleted.
    """
    if is_remote(path):
        return path
    try:
        return path.resolve()
    except FileNotFoundError:
        raise BadUsageError(WORKING_FOLDER_GONE) from None


def store_of(path: Path) -> tuple[Any, str]:
    """Give the file system of a remote path, as fsspec knows it, and the path in it."""
    return path.fs, path.path.rstrip("/")  # type: ignore[attr-defined]


def is_of_a_store(error: BaseException) -> bool:
    """Tell the errors of the stores' libraries, also where fsspec made an `OSError` of one."""
    kinds = (type(error), type(error.__cause__))
    return any(kind.__module__.partition(".")[0] in _LIBRARIES for kind in kinds)


def unreachable(where: object, error: BaseException) -> BadUsageError:
    """Say that a store does not answer as it should."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    return BadUsageError(
        f"{where} cannot be reached ({reason}); check URL, credentials and network, then repeat the"
        " same command"
    )


def stamp_of(info: dict[str, Any]) -> Fingerprint:
    """Take size and stamp from what a store lists of an object."""
    known = (info[name] for name in _STAMPS if info.get(name) is not None)
    return {"size": info["size"] or 0, "etag": str(next(known, ""))}


def stamps_below(folder: Path) -> Stamps | None:
    """List all objects below a folder, a thousand a request; None for a local folder."""
    if not is_remote(folder):
        return None
    fs, root = store_of(folder)
    found = fs.find(root, detail=True)
    return {folder / name[len(root) + 1 :]: stamp_of(info) for name, info in found.items()}


def files_below(folder: Path) -> list[Path]:
    """List all files below a folder; none where it is missing."""
    stamps = stamps_below(folder)
    return [p for p in folder.rglob("*") if not p.is_dir()] if stamps is None else [*stamps]


def children(folder: Path) -> list[Path]:
    """List what is in a folder; nothing where it is missing."""
    return [*folder.iterdir()] if folder.exists() else []


def make_folder(folder: Path) -> None:
    """Make a folder of ours and those above it; a store has none."""
    if not is_remote(folder):
        make_own_folder(folder)


def delete(path: Path) -> None:
    """Delete a file; that it is missing is no error."""
    if not is_remote(path):
        path.unlink(missing_ok=True)
        return
    fs, name = store_of(path)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(name)


def delete_folder(folder: Path) -> None:
    """Delete a folder with all that is in it, as far as that goes."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    fs, name = store_of(folder)
    with contextlib.suppress(FileNotFoundError):
        fs.rm(name, recursive=True)


def add_line(path: Path, line: str) -> None:
    """Add to a file whose last line counts; an object holds that line alone."""
    if is_remote(path):
        path.write_text(line)
        return
    with open(path, "a", opener=open_own) as file:  # truncating would wait for the disk
        file.write(line + "\n")


def upload(source: Path, target: Path) -> None:
    """Put a local file into a store, where it appears whole."""
    fs, name = store_of(target)
    try:
        fs.put_file(str(source), name)
    except Exception as error:
        raise unreachable(target, error) from None


def stamp(path: Path) -> Fingerprint:
    """Ask a store for an object's size and stamp; nothing of a local file."""
    if not is_remote(path):
        return {}
    fs, name = store_of(path)
    return stamp_of(fs.info(name))


def read_bytes(path: Path) -> bytes:
    """Read a file, an object by one request."""
    if not is_remote(path):
        return path.read_bytes()
    fs, name = store_of(path)
    return fs.cat_file(name)


def beginning(path: Path, size: int) -> bytes:
    """Read so many bytes of a file, or all if it has fewer."""
    if is_remote(path):
        fs, name = store_of(path)
        return fs.cat_file(name, 0, size)
    with path.open("rb") as file:
        return file.read(size)


def readable(path: Path) -> Path | IO[bytes]:
    """Offer what libraries can read: a local path, or all bytes of an object."""
    return io.BytesIO(read_bytes(path)) if is_remote(path) else path


def shipped_folder(name: str) -> Path:
    """Find a data folder: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
