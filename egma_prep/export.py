"""Shards of ``out/`` to other formats, file by file."""

from pathlib import Path

from egma_prep.card import data_card
from egma_prep.errors import BadUsageError, unknown_name
from egma_prep.formats import formats, load_shard, shard_files
from egma_prep.out_folder import OutFolder, write_atomically, write_table
from egma_prep.progress import Progress


def export(out_root: Path, target: Path, kind: str) -> int:
    """Write every shard into a new folder in another format; return the readings.

    Raises
    ------
    BadUsageError
        If there is no complete run, no such format, or something in the folder.
    """
    out = OutFolder(out_root)
    if kind not in formats():
        raise unknown_name("export format", kind, formats())
    run = out.finished_run()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise BadUsageError(f"{target} exists and is not an empty folder; choose another DEST")
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(target / out.card.name, data_card(run).encode())
    with Progress("readings", run["counts"]["written"]) as progress:
        for path in shard_files(out.shards):
            table = load_shard(path)
            write_table(target / f"{path.stem}.{kind}", table)
            progress.advance(table.num_rows)
    return progress.done
