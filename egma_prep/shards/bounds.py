"""How much a file may unpack to: who gave it may have made it to fill all memory."""

import io
import os
from pathlib import Path
from typing import IO

_ALWAYS_BYTES, _TIMES_ITS_SIZE = 2**28, 200


def most_unpacked(source: Path | IO[bytes]) -> int:
    """Allow 256 MB and 200 times a file's size: maps of single words, mostly zeros, take 9."""
    size = source.getbuffer().nbytes if isinstance(source, io.BytesIO) else os.stat(source).st_size  # type: ignore[arg-type]
    return _ALWAYS_BYTES + _TIMES_ITS_SIZE * size


def check_unpacked(unpacked: int, most: int) -> None:
    """Refuse what is more than may be.

    Raises
    ------
    ValueError
        If so.
    """
    if unpacked > most:
        raise ValueError(f"it unpacks to {unpacked:,} bytes or more, far beyond its own size")
