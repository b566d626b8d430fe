"""Images read ahead of who encodes them, by threads or by processes."""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from egma_train.data.ahead import in_order
from egma_train.data.shards import FRAME_PX
from egma_train.evaluate.images.frames import Frame, frame_or_reason
from egma_train.evaluate.images.reader import Reader
from egma_train.geometry import FRAME, Geometry

_THREADS = 2
_WORTH_PROCESSES = 256
"""Images: processes take half a second to start."""


def read_ahead(
    paths: Sequence[Path | None], ahead: int, geometry: Geometry = FRAME, side_px: int = FRAME_PX
) -> Iterator[Frame | str]:
    """Read images ahead, in order; a reason in place of one that cannot be.

    Where cores and images are many, processes read them: decoders hold Python's lock for part of
    their time, and a card would wait for them.

    Raises
    ------
    BadUsageError
        If a process that reads was killed.
    """
    cores = len(os.sched_getaffinity(0))
    by_processes = cores > _THREADS and len(paths) >= _WORTH_PROCESSES
    own, readers = threading.local(), list[Reader]()

    def read(path: Path | None) -> Frame | str:
        if not by_processes:
            return frame_or_reason(path, geometry, side_px)
        if not hasattr(own, "reader"):  # each thread drives one
            own.reader = Reader()
            readers.append(own.reader)
        reader: Reader = own.reader
        return reader.read(path, geometry, side_px)

    def close() -> None:
        for one in readers:
            one.close()

    with ExitStack() as stack:
        stack.callback(close)  # once no thread reads any more
        pool = stack.enter_context(ThreadPoolExecutor(cores if by_processes else _THREADS))
        yield from in_order(read, paths, pool, max(ahead, 2 * cores) if by_processes else ahead)
