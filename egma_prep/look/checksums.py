"""Every file of DATA beside the lists of SHA-256 that its releases came with."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import TypeVar

from egma_prep.errors import BadUsageError
from egma_prep.sources.files import InputFiles
from egma_prep.sources.published import LIST, listed_in
from egma_prep.storage.paths import Fingerprint
from egma_prep.storage.progress import Progress

Say = Callable[[str], object]
Hashed = dict[str, tuple[Fingerprint, str]]

Result = TypeVar("Result")

_AT_ONCE = 8
"""Files read side by side: disks and servers answer several requests in the time of one."""
_HANDED_OUT = 4096  # so that a list of 377,000 files is not all queued at once
_MB = 10**6


@dataclass
class Comparison:
    """What was found of the files that the lists name.

    Attributes
    ----------
    different : int
        Files that have another content, or that cannot be read.
    listed, absent : set of str
        Paths of all, and of those that are not here.
    """

    listed: set[str] = field(default_factory=set)
    different: int = 0
    absent: set[str] = field(default_factory=set)

    def told(self, needed: int, read: Iterable[str]) -> str:
        """Summarise; `needed` of the absent files are named elsewhere, `read` is what was used."""
        here = len(self.listed) - len(self.absent)
        known = {path.lower() for path in self.listed}
        unlisted = sum(path.lower() not in known for path in read)
        return (
            f"of {len(self.listed):,} published files {here:,} are here,"
            f" {self.different or 'none'} of them not as published; of the {len(self.absent):,}"
            f" others readings need {needed or 'none'}"
            + f"; {unlisted:,} files that readings need stand in no list: is it whole?"
            * bool(unlisted)
        )


def compare(files: InputFiles, say: Say) -> Comparison:
    """Hash every listed file that is here, and say which are not as published, a line each.

    What was hashed is kept in the user's cache folder until all is: a comparison that was cut goes
    on, one that was finished begins anew, for a disk that errs changes no time stamp.

    Raises
    ------
    BadUsageError
        If there is no list.
    """
    listed = _listed(files)
    say(f"comparing {len(listed):,} files that {LIST} lists")
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        looked = list(_side_by_side(threads, lambda path: _look(files, path), sorted(listed)))
    stamps = {path: stamp for path, stamp in looked if stamp is not None}
    found = Comparison({*listed}, absent=listed.keys() - stamps.keys())
    total, done = sum(stamp["size"] for stamp in stamps.values()), 0
    with (
        _kept(files, say) as (known, keep),
        Progress("MB", -(-total // _MB)) as progress,
        contextlib.closing(_hashed(files, stamps, known)) as hashed,
    ):
        for path, sha256 in hashed:
            if isinstance(sha256, OSError):
                found.different += 1
                say(f"{path}: cannot be read ({sha256.strerror or sha256}); check permissions")
            elif sha256 not in listed[path]:
                found.different += 1
                say(f"{path}: not as published; download it again")
            if isinstance(sha256, str) and path not in known:
                keep(path, stamps[path], sha256)
            done += stamps[path]["size"]
            progress.advance(-(-done // _MB) - progress.done)
    return found


def _listed(files: InputFiles) -> dict[str, set[str]]:
    """Read all lists: SHA-256 by path, of one that stands there several times any of them."""
    found: dict[str, set[str]] = {}
    for place in files.releases():
        home = place.removesuffix(LIST)
        for path, sha256 in listed_in(files.read(place), place):
            found.setdefault(home + path, set()).add(sha256)
    if not found:
        raise BadUsageError(
            f"{files.root} has no {LIST}; download it from the dataset's page on PhysioNet, into"
            " the same folder"
        )
    return found


def _look(files: InputFiles, path: str) -> Fingerprint | None:
    with contextlib.suppress(OSError):
        return files.stamp(files.spelled(path))
    return None


def _hashed(
    files: InputFiles, stamps: dict[str, Fingerprint], known: Hashed
) -> Generator[tuple[str, str | OSError], None, None]:
    """Hash files side by side, those excepted that were before and have kept their stamps."""

    def one(path: str) -> str | OSError:
        if path in known and known[path][0] == stamps[path]:
            return known[path][1]
        try:
            return files.digest(files.spelled(path))
        except OSError as error:
            return error

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        yield from _side_by_side(threads, one, sorted(stamps))


def _side_by_side(
    threads: ThreadPoolExecutor, work: Callable[[str], Result], paths: list[str]
) -> Iterator[tuple[str, Result]]:
    for at in range(0, len(paths), _HANDED_OUT):  # a future is a kilobyte
        some = paths[at : at + _HANDED_OUT]
        yield from zip(some, threads.map(work, some), strict=True)


@contextlib.contextmanager
def _kept(
    files: InputFiles, say: Say
) -> Iterator[tuple[Hashed, Callable[[str, Fingerprint, str], object]]]:
    """Offer what an earlier comparison had hashed when it was cut, and a way to add to it."""
    path = _log_of(files)
    try:
        descriptor = _own_file(path)
    except OSError as error:
        say(f"cannot write {path} ({error.strerror}), so that a cut comparison begins anew")
        yield {}, lambda *_: None
        return
    with os.fdopen(descriptor, "rb+", buffering=0) as log:
        known = _entries_of(log)
        if known:
            say(f"{len(known):,} files were compared before this was cut; going on from there")
        refused: list[OSError] = []

        def keep(*entry: object) -> None:
            if refused:
                return
            try:
                log.write(f"{json.dumps(entry)}\n".encode(errors="surrogateescape"))
            except OSError as error:  # a full disk
                refused.append(error)
                say(f"cannot write {path} ({error.strerror}), so that a cut comparison begins anew")

        yield known, keep
    path.unlink(missing_ok=True)  # reached only where all is hashed


def _entries_of(log: FileIO) -> Hashed:
    lines = log.read().decode(errors="surrogateescape").splitlines()
    return dict(filter(None, map(_entry, lines)))


def _entry(line: str) -> tuple[str, tuple[Fingerprint, str]] | None:
    """Read a line of the log; of one that was cut, nothing."""
    try:
        path, stamp, sha256 = json.loads(line)
    except (ValueError, TypeError):
        return None
    return path, (stamp, sha256)


def _log_of(files: InputFiles) -> Path:
    """Choose the log's place: DATA may be read-only, and shared with others."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = cache if cache.is_absolute() else Path(os.path.expanduser("~/.cache"))
    trees = f"{files.root}\n{files.images}".encode(errors="surrogateescape")
    return home / "egma" / f"checksums-{hashlib.sha256(trees).hexdigest()[:16]}.jsonl"


def _own_file(path: Path) -> int:
    """Open a file that is ours alone: whoever could write to it decides what is called right."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.parent.chmod(0o700)  # refused where it is another's
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor
