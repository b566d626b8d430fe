"""Parquet as every reader can open it: zstd, plain columns, small row groups."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from egma_prep.places import readable

_IMAGES_PER_GROUP = 64


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
    """Read a table."""
    with pq.ParquetFile(readable(path), page_checksum_verification=True) as file:
        return file.read()


def count(path: Path) -> int:
    """Read the number of rows."""
    with path.open("rb") as file:
        return pq.read_metadata(file).num_rows
