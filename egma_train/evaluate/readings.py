"""Held-out readings of shards, and whose they are."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from egma_train.data.shards import ShardReading, read_shard
from egma_train.errors import unknown_name


def readings_of(
    files: Iterable[Path], splits: Sequence[str] = (), *, maps: bool = False
) -> Iterator[ShardReading]:
    """Yield the readings of some splits, ``unknown`` for those of none, or all.

    Raises
    ------
    BadUsageError
        At the end, if a split has none.
    """
    seen: set[str] = set()
    for reading in (one for path in files for one in read_shard(path, maps=maps)):
        split = reading.split or "unknown"
        seen.add(split)
        if not splits or split in splits:
            yield reading
    if lacking := [name for name in splits if name not in seen]:
        raise unknown_name("split", lacking[0], seen)


def patient_of(reading: ShardReading) -> str:
    """Name a reading's patient, or its image where a source does not tell the patient."""
    return reading.subject_id or reading.dicom_id
