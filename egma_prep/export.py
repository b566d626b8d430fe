"""Shards of ``out/`` to other kinds of files, part by part; a cut export goes on."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from egma_prep.card import data_card
from egma_prep.errors import BadUsageError
from egma_prep.exports import Exporter, Rows, exporter
from egma_prep.formats import shard_files
from egma_prep.out_folder import OutFolder, read_json, write_atomically, write_json
from egma_prep.progress import Progress
from egma_prep.reader import Shards


@dataclass(frozen=True)
class Exported:
    """How many readings were written, and how many the kind has no place for."""

    written: int
    left_out: int


def export(out_root: Path, target: Path, kind: str) -> Exported:
    """Write every reading into a new folder of another kind.

    The folder is built beside its place under a hidden name and appears whole. What a cut export
    of the same kind and run had written there is kept.

    Raises
    ------
    BadUsageError
        If there is no complete run, no such kind, or something in the folder; if the run changes
        meanwhile.
    """
    out = OutFolder(out_root)
    chosen = exporter(kind)
    run = out.finished_run()
    target = target.resolve()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise BadUsageError(f"{target} exists and is not an empty folder; choose another DEST")
    work = target.with_name(f".{target.name}.unfinished")
    _begin(work, {"kind": kind, "run": run["seal"]})
    rows, found = _write_parts(out, chosen, work, run["counts"]["written"])
    whole = chosen.finish(work / "content", rows)
    card = (chosen.CARD_HEAD + data_card(run)).encode()
    write_atomically(whole / out.card.name, card)
    if out.finished_run()["seal"] != run["seal"] or found != run["counts"]["written"]:
        raise BadUsageError(f"{out.root} changed during the export; repeat the same command")
    whole.chmod(0o700)
    whole.replace(target)
    shutil.rmtree(work)
    return Exported(len(rows), found - len(rows))


def _begin(work: Path, source: dict[str, str]) -> None:
    """Keep what an export from the same source left, or start with an empty folder."""
    note = work / "source.json"
    known = read_json(note) or {}
    if {name: known.get(name) for name in source} != source:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True, mode=0o700)
        (work / "content").mkdir()
        write_json(note, source)


def _write_parts(out: OutFolder, chosen: Exporter, work: Path, total: int) -> tuple[Rows, int]:
    """Write the parts that have no record yet; return all rows, and the readings found."""
    rows: Rows = []
    with Progress("readings", total) as progress:
        for path in shard_files(out.shards):
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
