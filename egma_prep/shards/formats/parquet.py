"""Parquet as every reader can open it: zstd, plain columns, small row groups."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from egma_prep.shards.bounds import check_unpacked, most_unpacked
from egma_prep.storage.paths import readable

_IMAGES_PER_GROUP = 64
_FEW_ROWS, _MANY_ROWS = 64, 2**16
_LEAST_BYTES = 4
"""Even a null takes so many in memory, and hardly any in a file."""


def save(table: pa.Table, path: Path) -> None:
    """Write a table, of shard rows or any other."""
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=1,
        use_dictionary=False,
        write_page_checksum=True,
        row_group_size=_IMAGES_PER_GROUP if "image" in table.schema.names else None,
    )


def load(path: Path) -> pa.Table:
    """Read a table, batch by batch, so that a bomb ends it before memory does.

    Whoever makes a file decides what its footer says, and by a dictionary a megabyte of text may
    stand in every row: such columns, which we do not write, are unpacked a few rows at a time.
    """
    source = readable(path)
    most = most_unpacked(source)
    with pq.ParquetFile(source, page_checksum_verification=True) as file:
        chunks = [*_chunks(file.metadata)]
        check_unpacked(sum(one.total_uncompressed_size for one in chunks), most)
        check_unpacked(sum(one.num_values * _LEAST_BYTES for one in chunks), most)
        rows = _FEW_ROWS if any(one.has_dictionary_page for one in chunks) else _MANY_ROWS
        batches, unpacked = [], 0
        for batch in file.iter_batches(rows):
            batches.append(_plain(batch))
            check_unpacked(unpacked := unpacked + batches[-1].nbytes, most)
        empty = pa.RecordBatch.from_pylist([], file.schema_arrow)
        return pa.Table.from_batches(batches or [_plain(empty)])


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Write out the columns that whoever saved the file had as categories."""
    columns = [
        one.dictionary_decode() if pa.types.is_dictionary(one.type) else one
        for one in batch.columns
    ]
    fields = [
        field.with_type(column.type) for field, column in zip(batch.schema, columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, batch.schema.metadata))


def _chunks(metadata: pq.FileMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    for at in range(metadata.num_row_groups):
        group = metadata.row_group(at)
        yield from map(group.column, range(group.num_columns))


def count(path: Path) -> int:
    """Read the number of rows."""
    with path.open("rb") as file:
        return pq.read_metadata(file).num_rows
