"""Tables of ours in files: written whole, refused where damaged, joined."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from egma_prep.errors import BadUsageError, unreadable
from egma_prep.shards.formats import formats, parquet
from egma_prep.shards.schema import up_to_date
from egma_prep.storage.atomic import appearing_whole, damaged, fingerprint_of, telling_where
from egma_prep.storage.paths import Fingerprint, is_of_a_store, is_remote, stamp
from egma_prep.storage.permissions import sync

_ROWS_PER_GROUP = 100_000  # small groups make a table slow to read, large ones take memory


def write_table(path: Path, table: pa.Table) -> Fingerprint:
    """Write a table in the format that the path ends in."""
    with appearing_whole(path) as temporary:
        formats()[path.suffix[1:]].save(table, temporary)
        known = fingerprint_of(temporary)
    return known | stamp(path)


def write_tables(tables: Iterable[tuple[Path, pa.Table]]) -> list[Fingerprint]:
    """Write tables that nobody reads before their record; the disk syncs them side by side."""
    paths, fingerprints = [], []
    if is_remote((chosen := [*tables])[0][0]):
        with ThreadPoolExecutor() as threads:
            return list(threads.map(write_table, *zip(*chosen, strict=True)))
    for path, table in chosen:
        with appearing_whole(path, synced=False) as temporary:
            formats()[path.suffix[1:]].save(table, temporary)
            fingerprints.append(fingerprint_of(temporary))
        paths.append(path)
    with ThreadPoolExecutor() as threads, telling_where(paths[0].parent):
        list(threads.map(sync, [*paths, *{path.parent for path in paths}]))
    return fingerprints


def read_parquet(path: Path) -> pa.Table:
    """Read a file of ours.

    Raises
    ------
    BadUsageError
        If it is missing or damaged.
    """
    try:
        return parquet.load(path)
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: a bomb
        reason = str(error).partition("\n")[0]
        if is_of_a_store(error) and not isinstance(error, FileNotFoundError):
            raise  # that it cannot be read now is no damage
        if isinstance(error, PermissionError):
            raise unreadable(path, error) from None
        raise BadUsageError(f"{path} is damaged ({reason}); repeat: egma-prep run DATA") from None


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a table of ours that has these columns.

    Raises
    ------
    BadUsageError
        If it is missing, damaged or another table.
    """
    table = up_to_date(read_parquet(path), schema)
    if not table.schema.equals(schema):
        raise damaged(path, "its columns are others")
    return table


def concatenate(paths: list[Path], target: Path, schema: pa.Schema) -> None:
    """Join the parts of a table, many to a row group.

    Raises
    ------
    BadUsageError
        If one of them is missing, damaged or another table.
    """
    with (
        appearing_whole(target) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=False) as writer,
    ):
        for table in _joined(paths, schema):
            writer.write_table(table)


def _joined(paths: list[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    tables: list[pa.Table] = []
    for path in paths:
        tables.append(read_table(path, schema))
        if sum(map(len, tables)) >= _ROWS_PER_GROUP:
            yield pa.concat_tables(tables)
            tables = []
    if tables:
        yield pa.concat_tables(tables)
