"""Shards of ``out/`` to other kinds of files, part by part; a cut export goes on."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egma_prep.errors import BadUsageError
from egma_prep.etl.card import export_card
from egma_prep.etl.out_folder import OutFolder
from egma_prep.exports import Exporter, Rows, exporter
from egma_prep.shards.reader import Shards
from egma_prep.storage.atomic import TEMPORARY, read_json, write_json
from egma_prep.storage.lock import InUseError, locked
from egma_prep.storage.paths import is_remote
from egma_prep.storage.permissions import (
    ALONE,
    GITIGNORE,
    SHARED,
    complaints,
    keep_out_of_git,
    make_own_folder,
    set_mode,
)
from egma_prep.storage.progress import Progress, tell

Say = Callable[[str], object]

_NOTE = "source.json"


@dataclass(frozen=True)
class Exported:
    """How many readings were written, and how many the kind has no place for."""

    written: int
    left_out: int


def export(
    out_root: Path, target: Path, kind: str, shared: bool = False, say: Say = tell
) -> Exported | None:
    """Write every reading into a new folder of another kind.

    The folder is built beside its place under a hidden name and appears whole. What a cut export
    of the same kind and run had written there is kept; where the whole export is there already,
    None is returned.

    Parameters
    ----------
    out_root : Path
        Holds a complete run.
    target : Path
        New, or empty.
    kind : str
        One of `egma_prep.exports.kinds`.
    shared : bool
        The group may read the export.
    say : callable
        Takes lines for the user.

    Raises
    ------
    BadUsageError
        If there is no complete run, no reading in it, no such kind, something else in the folder,
        or another export at work on it; if the folder is one of the run's own; if the run changes
        meanwhile.
    """
    out = OutFolder(out_root)
    chosen = exporter(kind)
    run = out.finished_run()
    target = target.resolve()
    for own in (out.tables, out.images, out.shards, out.state):
        if not is_remote(own) and target.is_relative_to(own.resolve()):
            raise BadUsageError(f"{target} lies in the run's own {own}; choose another DEST")
    work = target.with_name(f".{target.name}.unfinished")
    try:
        make_own_folder(target.parent, shared)
        with _alone(target):
            _refuse_foreign(work)
            done = _export(out, run, chosen, kind, target, work, SHARED if shared else ALONE)
            for line in complaints(target, SHARED) if done else ():
                say(line)
            return done
    except OSError as error:
        where, why = error.filename or work, error.strerror or error
        raise BadUsageError(
            f"cannot write {where} ({why}); mend that and repeat the same command"
        ) from None


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(target.with_name(f".{target.name}.lock")))
        except InUseError:
            raise BadUsageError(
                f"another export is writing {target}; wait for it, or choose another DEST"
            ) from None
        yield


def _export(
    out: OutFolder,
    run: dict[str, Any],
    chosen: Exporter,
    kind: str,
    target: Path,
    work: Path,
    mode: int,
) -> Exported | None:
    card = (chosen.CARD_HEAD + export_card(run, kind)).encode()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        name = target / out.card.name
        if not name.is_file() or name.read_bytes() != card:
            raise BadUsageError(f"{target} exists and is not an empty folder; choose another DEST")
        shutil.rmtree(work, ignore_errors=True)  # of an export that was killed at its very end
        _set_modes(target, mode)
        return None
    paths = out.shards_of(run)
    _begin(work, {"kind": kind, "run": run["seal"]})
    rows, found = _write_parts(paths, chosen, work, run["counts"]["written"])
    whole = chosen.finish(work / "content", rows)
    (whole / out.card.name).write_bytes(card)
    if out.finished_run()["seal"] != run["seal"] or found != run["counts"]["written"]:
        raise BadUsageError(f"{out.root} changed during the export; repeat the same command")
    keep_out_of_git(whole)
    _set_modes(whole, mode)
    whole.replace(target)
    shutil.rmtree(work)
    return Exported(len(rows), found - len(rows))


def _set_modes(folder: Path, mode: int) -> None:
    for path in (folder, *folder.rglob("*")):
        set_mode(path, mode)


def _refuse_foreign(work: Path) -> None:
    """Refuse what an export of ours did not leave where this one is to be built: it would go."""
    if not os.path.lexists(work):
        return
    ours = not work.is_symlink() and work.is_dir() and work.stat().st_uid == os.geteuid()
    begun = ours and (
        (work / _NOTE).is_file()
        or all(one.name == GITIGNORE or one.match(TEMPORARY) for one in work.iterdir())
    )
    if not begun:
        raise BadUsageError(
            f"{work} is not of an export of yours; look who put it there, remove it, then repeat"
            " the same command"
        )


def _begin(work: Path, source: dict[str, str]) -> None:
    """Keep what an export from the same source left whole, or start with an empty folder."""
    note = work / _NOTE
    known = read_json(note) or {}
    if {name: known.get(name) for name in source} != source:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(ALONE)
        keep_out_of_git(work)
        write_json(note, source)
    (work / "content").mkdir(ALONE, exist_ok=True)
    for litter in work.rglob(TEMPORARY):  # of an export that was killed
        litter.unlink()


def _write_parts(paths: list[Path], chosen: Exporter, work: Path, total: int) -> tuple[Rows, int]:
    """Write the parts that have no record yet; return all rows, and the readings found."""
    rows: Rows = []
    with Progress("readings", total) as progress:
        for path in paths:
            shard = Shards([path])
            record_file = work / f"{path.stem}.json"
            record = read_json(record_file)
            if record is None:
                made = chosen.write_part(shard, work / "content", path.stem)
                record = {"rows": made}
                write_json(record_file, record)
            rows += record["rows"]
            progress.advance(len(shard))
    return rows, progress.done
